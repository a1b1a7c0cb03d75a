"""The native modules, which are optional: without them shmconf installs all the same and works in pure Python.

Everything else about the package is in pyproject.toml. When one cannot be built, a line says so and why, and the other
is not tried: on stderr, and in the file that $SHMCONF_BUILD_NOTE names, since pip shows nothing of a build that
succeeds.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A free-threaded interpreter has no stable ABI to build for; there the module is built for that one version.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
STABLE_ABI = "0x030B0000"


class OptionalBuildExt(build_ext):
    """Builds the native modules, or says in one line why there is none and lets the installation go on."""

    gone_on_without = False

    def run(self) -> None:
        self.force = True  # a few small files: never take an old result of another compiler for today's
        if "SHMCONF_BUILD_NOTE" in os.environ:
            Path(os.environ["SHMCONF_BUILD_NOTE"]).write_text("")
        super().run()

    def build_extension(self, ext: Extension) -> None:
        built = Path(self.get_ext_fullpath(ext.name))
        built.unlink(missing_ok=True)
        if self.gone_on_without:
            return
        if not any((Path(place) / "Python.h").exists() for place in self.compiler.include_dirs):
            self.go_on_without("Python.h is not installed, so the compiler is of no use (Debian: python3-dev)")
            return
        try:
            super().build_extension(ext)
        except Exception as error:  # what a compiler can do wrong has no common class across setuptools' versions
            built.unlink(missing_ok=True)
            self.go_on_without(" ".join(str(error).split()) or type(error).__name__)

    def go_on_without(self, reason: str) -> None:
        self.gone_on_without = True
        line = f"shmconf: the native module was not built, pure Python will be used: {reason}"
        print(line, file=sys.stderr)
        if "SHMCONF_BUILD_NOTE" in os.environ:
            Path(os.environ["SHMCONF_BUILD_NOTE"]).write_text(line + "\n")


def native(name: str, units: str, headers: list[str]) -> Extension:
    """The module `name` of the C units that match, all of which include those headers."""
    return Extension(
        name,
        sorted(str(unit) for unit in Path().glob(units)),
        include_dirs=sorted({str(Path(header).parent) for header in headers}),
        depends=headers,
        define_macros=[] if FREE_THREADED else [("Py_LIMITED_API", STABLE_ABI)],
        extra_compile_args=["-std=c11", "-fvisibility=hidden"],
        py_limited_api=not FREE_THREADED,
        optional=True,
    )


setup(
    cmdclass={"build_ext": OptionalBuildExt},
    ext_modules=[
        native("shmconf._native", "shm/shmconf/_*.c", ["shm/include/shmconf.h", "shm/shmconf/_native.h"]),
        native("shmconf_agent._native", "agent/native/*.c", [str(path) for path in Path("agent/native").glob("*.h")]),
    ],
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
