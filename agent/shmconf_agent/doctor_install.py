"""What the installation lacks: nothing that stops reloads, but what makes them slow."""

from __future__ import annotations

import yaml

from shmconf.mapping import IMPLEMENTATION, NATIVE_MISSING

from .doctor_finding import Finding, Level, Topic
from .formats import yaml as yaml_format
from .formats import yaml_native

__all__ = ["examine_installation"]


def examine_installation() -> list[Finding]:
    """The parser of YAML, and how shared memory is accessed."""
    where = f"PyYAML {yaml.__version__}"
    if yaml_format.HAS_LIBYAML:
        how = f", whose events come by way of PyYAML ({yaml_native.MISSING})" if yaml_native.MISSING else ""
        libyaml = Finding(Level.OK, Topic.LIBYAML, where, f"has libyaml{how}")
    else:
        libyaml = Finding(
            Level.WARNING,
            Topic.LIBYAML,
            where,
            "was built without libyaml: YAML is parsed in Python, several times slower",
            "install a wheel of PyYAML, or libyaml's headers before it is built",
        )
    if IMPLEMENTATION == "native":
        native = Finding(Level.OK, Topic.NATIVE, "shmconf", "has its native module")
    else:
        native = Finding(
            Level.WARNING,
            Topic.NATIVE,
            "shmconf",
            f"works in pure Python here ({NATIVE_MISSING}): readers copy and decode whole versions",
            "install it where there are a C compiler and Python's headers",
        )
    return [libyaml, native]
