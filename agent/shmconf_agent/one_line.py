"""Text that others chose (names of files, keys, messages), made fit to be a part of one line of a log or an answer.

Whatever is in it, it cannot begin another line, nor tell a terminal to do something.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["json_line", "one_line", "visible"]

# What JSON may leave as it is, and a terminal or a reader of lines may take for more than a character: the second set
# of controls, and what turns the direction of writing, is invisible, or ends a line.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def one_line(text: str) -> str:
    """Line ends become spaces; whatever else cannot be printed is escaped, as Python writes it."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _escaped(each) for each in " ".join(text.splitlines()))
    return text


def visible(text: str) -> str:
    """A name, or a cell of a table: line ends, and whatever else cannot be printed, escaped as Python writes them."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def json_line(fields: dict[str, Any]) -> str:
    """One line of JSON; text stays readable, but for what could be mistaken."""
    text = json.dumps(fields, ensure_ascii=False)
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
