"""Text of others in a log: it stays on its line, and tells a terminal nothing."""

from __future__ import annotations

import json

import pytest

from shmconf_agent.one_line import json_line, one_line

HOSTILE = [
    "a.yaml\nweb: version 9 published",
    "a\r\nb",
    "a\x1b[2J\x1b]0;title\x07b",
    "a\x9b2Jb",
    "a\x85b\u2028c\u2029d\x0be\x0cf\x1cg",
    "a\x00b\x7fc",
    "right\u202eto left\u200b",
    "half \udcff",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_cannot_leave_its_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert one_line(line) == line


@pytest.mark.parametrize("text", HOSTILE)
def test_json_keeps_the_text_and_stays_on_its_line(text: str) -> None:
    line = json_line({"file": text, text: 1})
    written = line.encode("utf-8", "backslashreplace").decode()
    assert len(written.splitlines()) == 1
    assert written.isprintable()
    assert json.loads(written) == {"file": text, text: 1}


def test_what_can_be_printed_is_left_as_it_is() -> None:
    assert one_line("grüße/日本.yaml: \"x\" is \\n odd 🎉") == "grüße/日本.yaml: \"x\" is \\n odd 🎉"
    assert one_line("two\nlines") == "two lines"
    assert one_line("\x1b[31mred") == "\\x1b[31mred"
    assert json_line({"a": "grüße 🎉"}) == '{"a": "grüße 🎉"}'
