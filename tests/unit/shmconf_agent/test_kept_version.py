"""The bytes of a kept version and of a source: what goes in comes out, and nothing that was changed does."""

from __future__ import annotations

import hashlib
import io
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf_agent.kept_version import (
    Damaged,
    KeptVersion,
    SourceRef,
    decode_source,
    encode,
    encode_source,
    read_header,
    read_payload,
)
from shmconf_agent.settle import digest_of

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
refs = st.builds(
    SourceRef,
    file=names,
    at=st.lists(names, max_size=3).map(tuple),
    digest=st.binary(min_size=16, max_size=16),
    path=st.sampled_from(["/etc/a.yaml", "/etc/\udcff.yaml", ""]),
    blank=st.booleans(),
    entry=st.lists(names | st.integers(0, 99), max_size=3).map(tuple),
)
payloads = st.binary(max_size=2000) | st.binary(max_size=20).map(lambda part: part * 500)


@st.composite
def versions(draw: st.DrawFn) -> tuple[KeptVersion, bytes]:
    payload = draw(payloads)
    kept = KeptVersion(
        epoch=draw(st.integers(1, 2**64 - 1)),
        version=draw(st.integers(1, 2**63 - 1)),
        published_at=draw(st.integers(0, 2**63)),
        digest=hashlib.sha256(payload).hexdigest(),
        metadata=draw(st.dictionaries(names, values, max_size=4)),
        changed=draw(st.lists(names, max_size=3).map(tuple)),
        keys=draw(st.none() | st.integers(0, 2**40)),
        sources=draw(st.none() | st.lists(refs, max_size=4).map(tuple)),
        republished=draw(st.booleans()),
    )
    return kept, payload


def decode(data: bytes) -> tuple[KeptVersion, bytes]:
    file = io.BytesIO(data)
    header = read_header(file, len(data))
    return header.kept, read_payload(file, header)


def damage(data: st.DataObject, whole: bytes) -> bytes:
    """The bytes, shorter, longer or with one of them changed."""
    kind = data.draw(st.sampled_from(["torn", "longer", "flipped", "zeroed"]))
    if kind == "torn":
        return whole[: data.draw(st.integers(0, len(whole) - 1))]
    if kind == "longer":
        return whole + data.draw(st.binary(min_size=1, max_size=5))
    at = data.draw(st.integers(0, len(whole) - 1))
    if kind == "flipped":
        return whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
    zeroed = whole[:at] + bytes(len(whole) - at)  # as a file system leaves what it did not get to write
    return zeroed if zeroed != whole else whole[:-1]


@given(versions())
def test_what_is_kept_is_what_is_read(version: tuple[KeptVersion, bytes]) -> None:
    kept, payload = version
    assert decode(b"".join(encode(kept, payload))) == (kept, payload)


@given(versions(), st.data())
def test_any_damage_is_seen(version: tuple[KeptVersion, bytes], data: st.DataObject) -> None:
    damaged = damage(data, b"".join(encode(*version)))
    with pytest.raises(Damaged):
        decode(damaged)


def test_every_single_bit_counts() -> None:
    payload = b"some text " * 40
    kept = KeptVersion(7, 3, 5, hashlib.sha256(payload).hexdigest(), {"files": ["a.yaml"]})
    whole = b"".join(encode(kept, payload))
    assert len(whole) < 1000
    for at in range(len(whole)):
        for bit in range(8):
            with pytest.raises(Damaged):
                decode(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    for length in range(len(whole)):
        with pytest.raises(Damaged):
            decode(whole[:length])


@given(payloads)
def test_a_source_comes_back(content: bytes) -> None:
    whole = b"".join(encode_source(content))
    assert decode_source(whole, digest_of(content)) == content
    with pytest.raises(Damaged, match="named after"):
        decode_source(whole, digest_of(content + b"x"))


@given(payloads, st.data())
def test_any_damage_to_a_source_is_seen(content: bytes, data: st.DataObject) -> None:
    with pytest.raises(Damaged):
        decode_source(damage(data, b"".join(encode_source(content))), digest_of(content))


def test_what_compresses_is_compressed_and_what_does_not_is_not() -> None:
    text = b"services: {}\n" * 10_000
    assert sum(map(len, encode_source(text))) < len(text) / 20
    noise = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(200))
    assert sum(map(len, encode_source(noise))) < len(noise) + 100


def test_the_header_is_read_without_the_document() -> None:
    noise = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(30_000))
    kept = KeptVersion(1, 1, 0, hashlib.sha256(noise).hexdigest())
    whole = b"".join(encode(kept, noise))
    file = io.BytesIO(whole)
    assert read_header(file, len(whole)).size == len(noise)
    assert file.tell() < 1000


def test_a_small_file_cannot_become_a_huge_document() -> None:
    """A header that was made to lie, checksums and all: no more than it says is decompressed, plus one byte."""
    bomb = zlib.compress(bytes(50_000_000))
    payload = b"\x80"
    kept = KeptVersion(1, 1, 0, hashlib.sha256(payload).hexdigest())
    header = read_header(io.BytesIO(b"".join(encode(kept, payload))), len(b"".join(encode(kept, payload))))
    lying: dict[str, Any] = {"stored": len(bomb), "checksum": zlib.crc32(bomb), "compressed": True, "size": 1}
    for field, value in lying.items():
        object.__setattr__(header, field, value)
    with pytest.raises(Damaged, match="another length"):
        read_payload(io.BytesIO(bomb), header)


def test_what_is_derived_from_the_metadata() -> None:
    kept = KeptVersion(1, 2, 3, "", {"files": ["a", "b"], "blank_files": ["b"], "stale": True})
    assert (kept.files, kept.blank_files, kept.stale) == (("a", "b"), ("b",), True)
    bare = KeptVersion(1, 2, 3, "")
    assert (bare.files, bare.blank_files, bare.stale) == ((), (), False)
