"""Bytes to text for the formats that are UTF-8 by definition, with the place of the first byte that is not."""

from __future__ import annotations

import codecs

from ..problems import Invalid, Problem
from .places import Lines


def decode_utf8(data: bytes, *, file: str) -> str:
    """The text without its byte order mark. Raises Invalid."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Invalid([Problem("the file is UTF-16: save it as UTF-8", file, 1, 1)])
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = Lines(before).position(len(before))
        raise Invalid([Problem(f"not UTF-8: {error.reason}", file, line, column)]) from None
