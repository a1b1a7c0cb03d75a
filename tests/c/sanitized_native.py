"""A plugin for pytest (`-p sanitized_native`): the agent's native module is the one that $SHMCONF_TEST_NATIVE names."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys

_NAME = "shmconf_agent._native"
_loader = importlib.machinery.ExtensionFileLoader(_NAME, os.environ["SHMCONF_TEST_NATIVE"])
_spec = importlib.util.spec_from_loader(_NAME, _loader)
assert _spec is not None
_module = importlib.util.module_from_spec(_spec)
_loader.exec_module(_module)
sys.modules[_NAME] = _module
