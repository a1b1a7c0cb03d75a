"""Snapshot: one version of a configuration, whole, in bytes of its own.

A Snapshot never changes, whatever the agent does, and needs the segment no longer. With the native module only what is
asked for is decoded, found by the index; in pure Python the whole is, when first asked for. Containers are handed out
fresh at each call, so changing one changes nothing for anybody else. It may be shared by threads and inherited through
fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import codec
from .attachment import Content
from .errors import SegmentCorrupt
from .mapping import IMPLEMENTATION
from .paths import MISSING, PathLike, as_path, look_up

if TYPE_CHECKING or IMPLEMENTATION == "native":
    from ._native import find_in
else:

    def find_in(payload, index, path, /):
        """What the native module has: the value at a path as msgpack, None, or NotImplemented."""
        return NotImplemented


class Snapshot(Mapping[Any, Any]):
    """An immutable mapping: the top level of the configuration at one version.

    `snap["db"]` is one key, `snap["db", "pool"]` a path of keys, `snap.get("db.pool.size")` a dotted path.
    """

    __slots__ = ("_content", "_tree")

    def __init__(self, content: Content) -> None:
        """Wrap verified bytes; nothing is decoded yet."""
        self._content = content
        self._tree: Any = MISSING

    @property
    def version(self) -> int:
        """The version, 1 or more; grows by 1 per publication."""
        return self._content.version

    @property
    def epoch(self) -> int:
        """The segment's random 64-bit number; (epoch, version) names a version for good."""
        return self._content.epoch

    @property
    def published_at(self) -> int:
        """When it was published, in ns since 1970."""
        return self._content.published_at

    @property
    def digest(self) -> str:
        """SHA-256 of the payload in hexadecimal: equal digests are equal configurations."""
        return digest_in(self.metadata)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the agent noted of this version beside its payload (digest, files); fresh at each call."""
        return decode_metadata(self.version, self._content.metadata)

    @property
    def payload(self) -> bytes:
        """The msgpack document as it stands in the segment."""
        return self._content.payload

    def to_dict(self) -> dict[Any, Any]:
        """The whole configuration as a fresh dict."""
        tree = self._decode(self._content.payload)
        if not isinstance(tree, dict):
            raise SegmentCorrupt(f"version {self.version} is not a map")
        return tree

    def get(self, path: PathLike, default: Any = None) -> Any:
        """The value at a path (dotted text or a tuple), or `default`. Raises PathError for malformed text only."""
        found = self.look_up(path)
        return default if found is MISSING else found

    def look_up(self, path: PathLike) -> Any:
        """The value at a path, fresh if it is a container, or paths.MISSING."""
        content = self._content
        try:
            found = find_in(content.payload, content.index, path)
        except ValueError as error:
            raise SegmentCorrupt(f"version {self.version}: {error}") from None
        if found is NotImplemented:
            return self._look_up_in_tree(path)
        return MISSING if found is None else self._decode(found)

    def _look_up_in_tree(self, path: PathLike) -> Any:
        as_path(path)  # a malformed one needs no tree
        if self._tree is MISSING:
            self._tree = self.to_dict()
        found = look_up(self._tree, path)
        if not isinstance(found, (dict, list)):
            return found
        try:
            return codec.unpack(codec.pack(found))
        except (ValueError, RecursionError) as error:
            raise SegmentCorrupt(f"version {self.version} nests too deep to be copied: {error}") from None

    def __getitem__(self, key: Any) -> Any:
        """One key, or a tuple as a path. Raises KeyError."""
        found = self.look_up(key if isinstance(key, tuple) else (key,))
        if found is MISSING:
            raise KeyError(key)
        return found

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same configuration; a nan is equal to that of the same bytes."""
        if isinstance(other, Snapshot) and self.payload == other.payload:
            return True
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as any mapping's: it says so to who defines __eq__

    def __iter__(self) -> Iterator[Any]:
        """The top level's keys, in the order of the merged files."""
        if self._tree is MISSING:
            self._tree = self.to_dict()
        return iter(tuple(self._tree))

    def __len__(self) -> int:
        """How many keys the top level has."""
        if self._tree is MISSING:
            self._tree = self.to_dict()
        return len(self._tree)

    def __repr__(self) -> str:
        """Version and size; never the values, which may be secret."""
        return f"<Snapshot version {self.version}, {len(self._content.payload)} bytes>"

    def _decode(self, data: bytes) -> Any:
        try:
            return codec.unpack(data)
        except ValueError as error:
            raise SegmentCorrupt(f"version {self.version}: {error}") from None


def decode_metadata(version: int, metadata: bytes) -> dict[str, Any]:
    """The map that a version's metadata is. Raises SegmentCorrupt."""
    try:
        decoded = codec.unpack(metadata)
    except ValueError as error:
        raise SegmentCorrupt(f"version {version}: {error}") from None
    if not isinstance(decoded, dict):
        raise SegmentCorrupt(f"the metadata of version {version} is not a map")
    return decoded


def digest_in(metadata: dict[str, Any]) -> str:
    """The digest that a version's metadata tells; "" where it tells none."""
    digest = metadata.get("digest")
    return digest if isinstance(digest, str) else ""


def rollback_in(metadata: dict[str, Any]) -> int | None:
    """The version that a version's metadata tells it to be a rollback of; None where it tells none."""
    rollback = metadata.get("rollback")
    of = rollback.get("version") if isinstance(rollback, dict) else None
    return of if type(of) is int else None
