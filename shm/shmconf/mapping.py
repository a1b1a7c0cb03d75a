"""A shared file as words of memory: the only way in which shmconf touches a segment's bytes.

Two implementations keep one contract, the `Mapping` protocol below, and pass the same tests: `_native`, in C, and
`_pure`, in Python, which takes its place where there is no native module or SHMCONF_PURE is set (to anything but 0).
`IMPLEMENTATION` says which one this process uses, and `NATIVE_MISSING` why it is not the native one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, Protocol

__all__ = ["IMPLEMENTATION", "NATIVE_MISSING", "Mapping", "open_mapping"]


class Mapping(Protocol):
    """`length` bytes of a file, shared with every process that maps it; may reach past the file's end.

    Offsets are bytes from the start of the file. Every access is checked against the mapping and against the file's
    size, which is asked for again only when an access passes the size last seen. The file must never shrink.

    Raises, from every method but `close`: IndexError for an access past the end of the mapping or of the file,
    ValueError for a misaligned offset or a negative length, TypeError for a store to a read-only mapping,
    OverflowError for a value that does not fit the word, and ValueError("the mapping is closed").

    May be used by any number of threads at once. A read-only mapping lives on in forked children; a writable one
    is not inherited (MADV_DONTFORK), and using it in a child raises ValueError.
    """

    @property
    def length(self) -> int:
        """Bytes mapped, which may be more than the file has."""

    @property
    def writable(self) -> bool:
        """Whether stores are allowed."""

    def load(self, offset: int, /) -> int:
        """The 64-bit word at `offset`, loaded with acquire order."""

    def store(self, offset: int, value: int, /) -> None:
        """Stores a 64-bit word with release order."""

    def load32(self, offset: int, /) -> int:
        """The 32-bit word at `offset`, loaded with acquire order."""

    def store32(self, offset: int, value: int, /) -> None:
        """Stores a 32-bit word with release order."""

    def read(self, offset: int, length: int, /) -> bytes:
        """A copy of `length` bytes from an offset that is a multiple of 8, made in whole words without order.

        The words that it touches must lie in the file entirely. What another process writes meanwhile may be in the
        copy in part: the caller's counters or checksums decide whether it counts.
        """

    def write(self, offset: int, data: Buffer, /) -> None:
        """Stores `data` at a multiple of 8, in whole words without order; zeros fill the last word."""

    def fence(self) -> None:
        """A full fence: no access before it is seen after one behind it.

        It is the writer's store-store fence after an odd counter, and the reader's load-load fence before it checks
        that counter again; the two pair with each other.
        """

    def wait(self, offset: int, expected: int, timeout: float, /) -> None:
        """Sleeps while the 32-bit word at `offset` is `expected`, `timeout` seconds at most (below 0 counts as 0).

        Returns on a wake-up, on another value, on a signal (Python's handlers have run: Ctrl-C raises
        KeyboardInterrupt) or for no reason: look at the word. Other threads run meanwhile.
        """

    def wake(self, offset: int, /) -> int | None:
        """Wakes everyone, in any process, who waits at `offset`: how many, or None where the system cannot tell."""

    def close(self) -> None:
        """Lets go of the memory once the last operation in flight in another thread has left; may be repeated."""


_PURE_ASKED = os.environ.get("SHMCONF_PURE", "") not in ("", "0")

#: Why the native module is not used, or None where it is.
NATIVE_MISSING: str | None = "SHMCONF_PURE is set" if _PURE_ASKED else None

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on

    from ._native import Mapping as _Mapping
elif _PURE_ASKED:
    from ._pure import Mapping as _Mapping
else:
    try:
        from ._native import Mapping as _Mapping
    except ImportError as error:  # not built, or built for another system
        NATIVE_MISSING = str(error)
        from ._pure import Mapping as _Mapping

#: "native" or "pure".
IMPLEMENTATION: Literal["native", "pure"] = "native" if NATIVE_MISSING is None else "pure"


def open_mapping(fd: int, length: int, *, writable: bool = False) -> Mapping:
    """Maps `length` bytes of the file behind `fd`, which the caller keeps and may close.

    `length` is a multiple of 8 above 0 (ValueError) and may pass the file's end. Raises OSError where the system
    refuses, and RuntimeError for a writable mapping in pure Python on a machine other than x86-64.
    """
    return _Mapping(fd, length, writable=writable)
