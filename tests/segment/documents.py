"""Trees and msgpack documents for property tests: all types that a payload may hold, in every encoding of msgpack."""

from __future__ import annotations

import math
import random
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import msgpack
from hypothesis import strategies as st


class Encoder:
    """Encodes trees in forms that are drawn: the shortest in that share of cases, else any that holds the value."""

    def __init__(self, chance: random.Random, shortest: float) -> None:
        self.chance, self.shortest = chance, shortest

    def encode(self, value: Any) -> bytes:
        if isinstance(value, msgpack.ExtType):
            return self.extension(value.code, value.data)
        if isinstance(value, datetime):
            return self.extension(4 if value.tzinfo else 3, value.isoformat().encode())
        if isinstance(value, (date, time)):
            return self.extension(2 if isinstance(value, time) else 1, value.isoformat().encode())
        if value is None or isinstance(value, bool):
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        if isinstance(value, int):
            return self.integer(value)
        if isinstance(value, float):
            return self.floating(value)
        if isinstance(value, str):
            data = value.encode()
            return self.head(len(data), [(32, 0xA0, 0), (2**8, 0xD9, 1), (2**16, 0xDA, 2), (2**32, 0xDB, 4)]) + data
        if isinstance(value, bytes):
            return self.head(len(value), [(2**8, 0xC4, 1), (2**16, 0xC5, 2), (2**32, 0xC6, 4)]) + value
        if isinstance(value, list):
            head = self.head(len(value), [(16, 0x90, 0), (2**16, 0xDC, 2), (2**32, 0xDD, 4)])
            return head + b"".join(map(self.encode, value))
        head = self.head(len(value), [(16, 0x80, 0), (2**16, 0xDE, 2), (2**32, 0xDF, 4)])
        return head + b"".join(self.encode(key) + self.encode(inner) for key, inner in value.items())

    def choose(self, forms: list[Any]) -> Any:
        return forms[0] if self.chance.random() < self.shortest else self.chance.choice(forms)

    def head(self, number: int, forms: list[tuple[int, int, int]]) -> bytes:
        """Lead byte and length, or count; forms: (beyond, lead byte, bytes of the number)."""
        lead, width = self.choose([(lead, width) for beyond, lead, width in forms if number < beyond])
        return bytes([lead]) + number.to_bytes(width, "big") if width else bytes([lead | number])

    def integer(self, value: int) -> bytes:
        forms = [bytes([value & 0xFF])] if -32 <= value < 128 else []
        for power in range(4):
            width = 1 << power
            if 0 <= value < 1 << 8 * width:
                forms.append(bytes([0xCC + power]) + value.to_bytes(width, "big"))
            if -(1 << 8 * width - 1) <= value < 1 << 8 * width - 1:
                forms.append(bytes([0xD0 + power]) + value.to_bytes(width, "big", signed=True))
        return self.choose(forms)

    def floating(self, value: float) -> bytes:
        forms = [b"\xcb" + struct.pack(">d", value)]
        if not math.isfinite(value) or abs(value) < 3e38:
            narrow = struct.pack(">f", value)
            if value != value or struct.unpack(">f", narrow) == (value,):
                forms.append(b"\xca" + narrow)
        return self.choose(forms)

    def extension(self, code: int, data: bytes) -> bytes:
        kind = code.to_bytes(1, "big", signed=True)
        head = self.head(len(data), [(2**8, 0xC7, 1), (2**16, 0xC8, 2), (2**32, 0xC9, 4)])
        fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(len(data))
        return self.choose([*([bytes([fixed])] if fixed else []), head]) + kind + data


texts = st.text(max_size=12) | st.text("ab", min_size=25, max_size=40) | st.just("é" * 150)
numbers = (
    st.integers(-40, 140)
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([base + more for base in (2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**63) for more in (-1, 0)])
    | st.sampled_from([-(2**31) - 1, -(2**31), -(2**15) - 1, -129, -128, -(2**63), 2**64 - 1])
)
floats = (
    st.floats()
    | st.floats(width=32)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**53, 2.0**63, -(2.0**63), -(2.0**63) * 1.001, 2.0**64, 2.0**64 - 2048])
)
offsets = st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=30))])
times = st.dates() | st.times() | st.datetimes() | st.datetimes(timezones=offsets)
others = st.builds(
    msgpack.ExtType, st.integers(5, 127), st.binary(max_size=20) | st.sampled_from([b"x" * 16, b"y" * 8])
)
scalars = st.none() | st.booleans() | numbers | floats | texts | st.binary(max_size=40) | times
repeated = st.builds(lambda value, times: [value] * times, scalars, st.integers(0, 300))
values = st.recursive(
    scalars | others | st.just("long " * 60) | repeated,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(scalars | others, inner, max_size=12)
    ),
    max_leaves=15,
)
trees = st.dictionaries(scalars | others, values, max_size=30)


def encoded(what: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda tree, seed, shortest: Encoder(random.Random(seed), shortest).encode(tree),
        what,
        st.integers(0, 2**32),
        st.sampled_from([1.0, 0.5, 0.0]),
    )


documents = encoded(trees | values)
