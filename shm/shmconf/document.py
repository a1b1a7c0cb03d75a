"""A document ready to be published: the payload with what is made of it once, whoever asks for it afterwards.

Digest and index cost more than the publication itself. Made beside the payload, they are there for whoever compares
documents, and while a version is being published only copies and checksums remain to be made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .index import build_index


@dataclass(frozen=True, slots=True)
class Document:
    """One msgpack document. digest: SHA-256 in hexadecimal; index: index.build_index's of this very payload."""

    payload: bytes
    digest: str
    index: bytes

    @classmethod
    def of(cls, payload: bytes) -> Document:
        """The document that `payload` is. Raises ValueError for bytes that are none and longer than 256."""
        return cls(payload, hashlib.sha256(payload).hexdigest(), build_index(payload))
