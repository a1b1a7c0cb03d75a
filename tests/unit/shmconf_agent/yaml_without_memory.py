"""A process in which Python's n-th allocation fails, for each n up to where none does any more, while a text is read.

It prints how often that was an error, and how often the text was read all the same."""

from __future__ import annotations

import _testcapi
import os

if "SHMCONF_TEST_NATIVE" in os.environ:  # under sanitizers
    import sanitized_native  # noqa: F401

from shmconf_agent.formats import DEFAULT_LIMITS, yaml_native
from shmconf_agent.formats.yaml_quick import Trouble

TEXTS = [
    b"a: &x {b: [1, 'c', ~, 1.5], !!str d: &y z}\ne: {<<: *x, f: *y}\n--- {g: " + b"[" * 20 + b"h" + b"]" * 20 + b"}\n",
    b"a: {b: [c, {d: e}]}\na: 1\n",
    b"a: [b, {c: d\n",
]


def main() -> None:
    failed = built = 0
    for text in TEXTS:
        number = 0
        before = built
        while number < 2000:
            number += 1
            _testcapi.set_nomemory(number, number + 1)
            try:
                yaml_native.build(text, DEFAULT_LIMITS)
            except (MemoryError, Trouble) as error:
                _testcapi.remove_mem_hooks()
                failed += isinstance(error, MemoryError)
            else:
                _testcapi.remove_mem_hooks()
                built += 1
                if built - before > 20:
                    break
    print(failed, built)


main()
