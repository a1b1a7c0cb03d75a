"""What several of the agent's unit tests need."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.formats import yaml_native


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A directory, and the rights of a user who is not root for as long as the test lasts."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        user = os.geteuid()
        importlib.import_module("shmconf_agent.inotify")  # which a stranger may not be able to
        if user == 0:
            os.chown(directory, 65534, -1)
            os.seteuid(65534)
        yield directory
        os.seteuid(user)


@pytest.fixture(params=["native", "libyaml", "pure"])
def parser(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, require: Callable[[object, str], None]
) -> str:
    """The ways through YAML, where this machine has them: libyaml's events in C, PyYAML's of libyaml, PyYAML's own."""
    if request.param == "pure":
        monkeypatch.setattr(yaml_format, "HAS_LIBYAML", False)
        return "pure"
    require(yaml_format.HAS_LIBYAML, "PyYAML was built without libyaml")
    if request.param == "native":
        require(yaml_native.is_there(), f"there is no native module, or no libyaml for it: {yaml_native.MISSING}")
    else:
        monkeypatch.setattr(yaml_native, "is_there", lambda: False)
    return str(request.param)
