"""The agent's own native module, where it was built: its innermost loops in C.

It does nothing that Python does not do as well, with the same results and errors; whoever uses it has both ways, and
the same tests are for both. SHMCONF_PURE (set to anything but 0) asks for Python, here as in the library.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

__all__ = ["MISSING", "Native"]


class Native(Protocol):
    """The functions of the native module. Any number of threads may be in each of them."""

    def libyaml(self, path: str, /) -> object:
        """libyaml, as it is loaded with the shared object at `path`. ImportError where it is not, or is newer."""

    def build(
        self,
        libyaml: object,
        data: bytes,
        limits: tuple[int, ...],
        keys: dict[str, Any],
        plain: dict[str, Any],
        parts: tuple[Any, ...],
        /,
    ) -> list[Any]:
        """The tree of each document of a YAML text, as `yaml_quick` builds it; raises what it raises.

        limits: the most nodes, keys, levels and documents, each at most 2**62.
        keys, plain: the values of plain scalars by their text, which find out themselves what they do not know.
        parts: see `yaml_native`.
        """

    def same(self, left: list[Any], right: list[Any], start: int, stop: int, /) -> bool:
        """Whether left[start:stop] and right[start:stop] are as long and hold the very same objects."""

    def still(self, directory: str, names: bytes, answers: bytes, /) -> bool:
        """Whether lstat gives these answers for these entries of the directory; what fails is none of them.

        names: each with a zero byte behind it. answers: for each, as `stillness` packs them. Raises ValueError if those
        are not as many. Other threads run meanwhile.
        """


def _load() -> tuple[Native | None, str | None]:
    if os.environ.get("SHMCONF_PURE", "") not in ("", "0"):
        return None, "SHMCONF_PURE is set"
    try:
        from . import _native
    except ImportError as error:  # not built, or built for another system
        return None, str(error)
    return _native, None


module: Native | None
#: The native module, or None; and then why there is none.
module, MISSING = _load()
