"""How a Reader looks values up: by points in the segment where the native module is there, else in whole snapshots.

Both classes offer `get`, `[]`, `in`, `version`, the attachment in use, and `_adopt`, which tells the `_membership` of a
new version that something was found at. They keep one contract with the Reader that derives from them: it
has `_attached`, `_closed`, `_follow_name`, `_reopen`, `_in_use` and `_latest`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .mapping import IMPLEMENTATION

__all__ = ["LookUps"]

if TYPE_CHECKING or IMPLEMENTATION == "native":
    from .point_look_ups import LookUps
else:
    from .whole_look_ups import LookUps
