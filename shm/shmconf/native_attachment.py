"""The native attachment: `_native.Attachment`, with its copies in the types that the rest of the package has."""

from __future__ import annotations

import os

from . import _native, attachment
from .attachment import Content, Note
from .directories import Directory


class NativeAttachment(_native.Attachment):
    """See `opening.Attached`, whose contract this is. All but the types of copies is C."""

    __slots__ = ("directory",)

    directory: Directory

    @classmethod
    def open(cls, directory: Directory, name: str) -> NativeAttachment:
        """Open the segment `name` after all trust checks. Raises as `opening.open_attachment` does."""
        opened = cls(os.fspath(directory.path), directory.named, name, attachment.PATIENCE_SECONDS)
        opened.directory = directory
        return opened

    def verify(self) -> tuple[int, Content | None]:
        """The latest version if it is whole, without a copy."""
        return self.verify_latest(), None

    def copy_latest(self) -> Content | None:
        """The latest version, copied and verified; None where nothing was published yet."""
        copied = self.copy_sections()
        return None if copied is None else Content(*copied)

    def copy_note(self) -> Note | None:
        """What the latest version says of itself; None where nothing was published yet."""
        copied = self.copy_metadata()
        return None if copied is None else Note(*copied)
