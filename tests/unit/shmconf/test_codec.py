from __future__ import annotations

import contextlib
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shmconf.codec import INT_MAX, INT_MIN, pack, unpack


def same(left: Any, right: Any) -> bool:
    """Equal, of the same types all through, with the keys in the same order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(ours, theirs) and same(left[ours], right[theirs]) for ours, theirs in zip(left, right, strict=True)
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return repr(left) == repr(right)  # nan, and the sign of zero
    if isinstance(left, datetime):
        return bool(left == right) and left.utcoffset() == right.utcoffset()
    return bool(left == right)


offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(INT_MIN, INT_MAX)
    | st.floats()
    | texts
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.datetimes(timezones=offsets)
)
keys = (
    texts
    | st.integers(INT_MIN, INT_MAX)
    | st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.binary()
    | st.dates()
    | st.datetimes()
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys, inner, max_size=6), max_leaves=15
)

EVERYTHING: dict[Any, Any] = {
    "empty map": {},
    "empty list": [],
    "empty text": "",
    "unicode": "\0 é 漢 😀 \u202e",
    "integers": [0, -1, 127, 128, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, INT_MIN, INT_MAX],
    "floats": [0.0, -0.0, 0.1, 1e308, 5e-324, math.inf, -math.inf, math.nan],
    "others": [True, False, None, b"", b"\0\xff" * 300],
    "dates": [date.min, date.max, date(2026, 11, 22)],
    "times": [time.min, time.max, time(7, 32, 0, 999999), time(7, 32)],
    "local": [datetime.min, datetime.max, datetime(1979, 5, 27, 7, 32, 0, 1)],
    "offset": [
        datetime(1979, 5, 27, 7, 32, tzinfo=UTC),
        datetime(1979, 5, 27, 0, 32, 0, 999999, tzinfo=timezone(timedelta(hours=-7))),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ],
    "keys": {1: "int", 2**64 - 1: "large", None: "null", False: "bool", 1.5: "float", b"b": "bytes", date.max: "date"},
}


@example(EVERYTHING)
@given(st.dictionaries(keys, trees, max_size=8))
def test_every_value_comes_back_equal_of_its_type_and_in_order(tree: dict[Any, Any]) -> None:
    packed = pack(tree)
    assert same(unpack(packed), tree)
    assert pack(unpack(packed)) == packed
    assert same(unpack(memoryview(packed)), tree)


@given(st.dictionaries(texts, trees, max_size=4))
def test_any_msgpack_library_decodes_it(tree: dict[str, Any]) -> None:
    told = msgpack.unpackb(pack(tree), strict_map_key=False)
    assert list(told) == list(tree)


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (date(2026, 11, 22), 1, b"2026-11-22"),
        (time(7, 32, 0, 999999), 2, b"07:32:00.999999"),
        (datetime(1979, 5, 27, 7, 32), 3, b"1979-05-27T07:32:00"),
        (datetime(1979, 5, 27, 7, 32, tzinfo=timezone(timedelta(hours=-7))), 4, b"1979-05-27T07:32:00-07:00"),
    ],
)
def test_dates_and_times_are_extensions_with_readable_text(value: Any, code: int, text: bytes) -> None:
    assert msgpack.unpackb(pack([value])) == [msgpack.ExtType(code, text)]
    assert same(unpack(pack([value])), [value])


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (INT_MAX + 1, OverflowError),
        (INT_MIN - 1, OverflowError),
        ({1, 2}, TypeError),
        ((1, 2), TypeError),
        ("\ud800", UnicodeEncodeError),
        (time(7, 32, tzinfo=UTC), TypeError),
        (1j, TypeError),
        (object(), TypeError),
    ],
)
def test_what_the_format_cannot_hold_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pack({"deep": [value]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x80\x80",  # something behind the document
        b"\xdf\xff\xff\xff\xff",  # a map of four thousand million
        b"\xc6\xff\xff\xff\xff",
        b"\x81\x90\x01",  # a list as a key
        b"\x81\x80\x01",
        b"\xa1\xff",  # not UTF-8
        b"\x91" * 5000 + b"\x01",
        b"\x91" * 100_000 + b"\x01",
        b"\xd6\x01abcd",  # an extension that is no date
        b"\xd6\x04\xff\xff\xff\xff",
        b"\xc7\x00\x02",
        b"\xd6\x03abcd",
        b"\xc7\x19\x0499999-12-31T23:59:59+00:00",
        b"\xc7\x19\x049999-12-31T24:00:00+00:00",
        b"\xd5\xffab",  # a timestamp of two bytes
    ],
    ids=range(18),
)
def test_bytes_that_are_not_a_document_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the class is the contract
        unpack(data)


beginnings = st.sampled_from([b"\x81", b"\xdc", b"\xc7", b"\xd8\x04"])


@given(st.binary(max_size=200) | st.tuples(beginnings, st.binary()).map(b"".join))
def test_random_bytes_decode_or_are_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(data)


def test_each_call_gives_fresh_containers() -> None:
    packed = pack({"list": [1]})
    first = unpack(packed)
    first["list"].append(2)
    assert unpack(packed) == {"list": [1]}
