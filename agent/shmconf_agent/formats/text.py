"""Bytes to text: for the formats that are UTF-8 by definition, with the place of the first byte that is not; and for
whoever shows a line of it, whatever it is.
"""

from __future__ import annotations

import codecs
import re

from ..problems import Code, Fault, Invalid
from .places import START, Lines

LINE_FEED = re.compile("\r?\n")
YAML_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def encoding_of(data: bytes) -> str:
    """The encoding that the byte order mark tells, UTF-8 without one; the codec takes the mark away."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"


def decode_utf8(data: bytes, *, file: str) -> str:
    """The text without its byte order mark. Raises Invalid."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Invalid([Fault(Code.ENCODING, "the file is UTF-16: save it as UTF-8").at(file, START)])
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        at = Lines(before).position(len(before))
        raise Invalid([Fault(Code.ENCODING, f"not UTF-8: {error.reason}").at(file, at)]) from None
