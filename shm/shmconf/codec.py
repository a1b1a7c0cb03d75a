"""The payload's encoding: one standard msgpack document, with four extension types for what msgpack lacks.

Dates and times are extensions whose data is their RFC 3339 text in UTF-8, so that any msgpack library in any
language decodes the document and can read them: 1 date, 2 time, 3 local date-time, 4 date-time with an offset.
Map keys may be of any scalar type. What `pack` cannot take (integers beyond 64 bits, sets, tuples, lone
surrogates) never reaches it: the agent refuses it with its place.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import msgpack

EXT_DATE = 1
EXT_TIME = 2
EXT_LOCAL_DATETIME = 3
EXT_OFFSET_DATETIME = 4

INT_MIN = -(2**63)
INT_MAX = 2**64 - 1

_DECODERS = {
    EXT_DATE: date.fromisoformat,
    EXT_TIME: time.fromisoformat,
    EXT_LOCAL_DATETIME: datetime.fromisoformat,
    EXT_OFFSET_DATETIME: datetime.fromisoformat,
}
# Nesting that the agent lets through is far below this; msgpack's own limits are lifted to the payload's size.
_UNBOUNDED = 2**31 - 1


def pack(tree: Any) -> bytes:
    """`tree` as msgpack. Raises TypeError, OverflowError or UnicodeEncodeError for a value outside the format."""
    return bytes(msgpack.packb(tree, default=_encode_extension, use_bin_type=True, strict_types=True))


def unpack(data: bytes | memoryview) -> Any:
    """The tree in `data`: fresh objects at each call. Raises ValueError for bytes that are not one msgpack document."""
    try:
        return msgpack.unpackb(
            data,
            ext_hook=_decode_extension,
            strict_map_key=False,
            raw=False,
            max_str_len=_UNBOUNDED,
            max_bin_len=_UNBOUNDED,
            max_array_len=_UNBOUNDED,
            max_map_len=_UNBOUNDED,
            max_ext_len=_UNBOUNDED,
        )
    except (msgpack.UnpackException, TypeError, RecursionError) as error:  # TypeError: a container as map key
        raise ValueError(f"not a msgpack document: {error}") from error


def _encode_extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, datetime):
        kind = EXT_LOCAL_DATETIME if value.tzinfo is None else EXT_OFFSET_DATETIME
    elif isinstance(value, date):
        kind = EXT_DATE
    elif isinstance(value, time) and value.tzinfo is None:
        kind = EXT_TIME
    elif isinstance(value, int):  # what msgpack's own integers do not hold comes here, too
        raise OverflowError("an integer must be from -2**63 to 2**64 - 1")
    else:
        raise TypeError(f"a configuration cannot hold a {type(value).__name__}")
    return msgpack.ExtType(kind, value.isoformat().encode())


def _decode_extension(kind: int, data: bytes) -> Any:
    decode = _DECODERS.get(kind)
    if decode is None:
        return msgpack.ExtType(kind, data)
    return decode(data.decode())
