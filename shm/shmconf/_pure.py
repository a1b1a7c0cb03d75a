"""The mapping in pure Python, where there is no native module; `shmconf.mapping.Mapping` is its contract.

What makes it safe on x86-64 by construction:

- A word is one item of a memoryview, which CPython reads and writes by one aligned move of its size, never by bytes.
  (`struct.pack_into` would zero the word first, and another process would see the zero.)
- x86-64 keeps loads in order with loads and stores with stores (TSO), and the interpreter does not move one past
  another, so every load acquires and every store releases.
- Bulk copies go in pieces of at most 64 KiB, below the size from which glibc's memcpy uses non-temporal stores:
  those alone may pass an earlier store such as an odd counter.

What it does not offer elsewhere: on other processors Python has no way to order its accesses, so a writable mapping
is refused (RuntimeError). Reading is allowed, because whoever reads verifies copies by their checksum, but a copy may
have to be made again more often, and a bare word may be seen late.

Waiting sleeps in the kernel on 64-bit Linux on x86-64 and aarch64, through ctypes; else it polls, every 0.5 to 10 ms.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import mmap
import os
import platform
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

try:
    import ctypes
except ImportError:  # an interpreter built without libffi: waiting polls
    ctypes = None  # type: ignore[assignment]  # mypy has no notion of a module that may be absent

if TYPE_CHECKING:
    from typing_extensions import Buffer

_WORD = 8
_PIECE = 64 * 1024
_MACHINE = platform.machine()
_MAY_WRITE = _MACHINE in ("x86_64", "AMD64")
_LONGEST_WAIT = 1e9  # seconds
_SHORTEST_POLL, _LONGEST_POLL = 0.0005, 0.01  # seconds

# --- what comes from libc -----------------------------------------------------------------------------------------

_FUTEX_NUMBER: int | None = None
if ctypes is not None:

    class _PyBuffer(ctypes.Structure):
        """CPython's Py_buffer: the only way to the address of a read-only mmap."""

        _fields_ = (
            ("buf", ctypes.c_void_p),
            ("obj", ctypes.py_object),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("format", ctypes.c_char_p),
            ("shape", ctypes.c_void_p),
            ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p),
            ("internal", ctypes.c_void_p),
        )

    class _Timespec(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))

    if sys.platform == "linux" and sys.maxsize > 2**32:
        _FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98}.get(_MACHINE)
        _syscall = ctypes.CDLL(None, use_errno=True).syscall
        _syscall.restype = ctypes.c_long

# Without FUTEX_PRIVATE_FLAG: the other side is another process.
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_EVERYONE = 2**31 - 1


def _futex(address: int, operation: int, value: int, timeout: float | None) -> int:
    """The system call, without the GIL; raises OSError only for what is a fault."""
    limit = None
    if timeout is not None:
        whole = math.floor(timeout)
        limit = ctypes.byref(_Timespec(whole, int((timeout - whole) * 1e9)))
    result: int = _syscall(
        ctypes.c_long(_FUTEX_NUMBER or 0),
        ctypes.c_void_p(address),
        ctypes.c_int(operation),
        ctypes.c_uint32(value),
        limit,
        None,
        ctypes.c_int(0),
    )
    if result < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# --- what is mapped ------------------------------------------------------------------------------------------------


class _Descriptor:
    """A descriptor of our own, closed when the last operation that holds it lets go: not reused under its hands."""

    __slots__ = ("_flags", "_identity", "_path", "number")

    def __init__(self, fd: int) -> None:
        self.number = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        found = os.fstat(fd)
        self._identity = found.st_dev, found.st_ino
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        self._path: str | None = None
        with contextlib.suppress(OSError):
            self._path = os.readlink(f"/proc/self/fd/{fd}")

    def size(self) -> int:
        """Bytes of the file. Raises OSError.

        A program that makes itself a daemon closes whatever is open, and the number may come to be another file's: then
        the file is opened by its name again.
        """
        if not self._is_ours(self.number):
            path = self._path
            if path is None or not self._is_ours(path, os.lstat):  # to open something else could have effects
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            fresh = os.open(path, self._flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not self._is_ours(fresh):
                os.close(fresh)
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self.number = fresh  # should another thread do the same, the first one's stays open
        return os.fstat(self.number).st_size

    def _is_ours(self, file: int | str, stat: Any = os.fstat) -> bool:
        try:
            found = stat(file)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def __del__(self, close: Any = os.close) -> None:
        if hasattr(self, "_path") and self._is_ours(self.number):
            close(self.number)


class _Pages:
    """As much of the file as there was to map, in every view that is needed.

    Never closed, only dropped: a thread that still works on older pages keeps them until it has left.
    """

    __slots__ = ("bytes", "halves", "memory", "size", "words")

    def __init__(self, fd: int, size: int, writable: bool) -> None:
        self.size = size
        self.memory: mmap.mmap | None = None
        view = memoryview(b"")
        if size:
            self.memory = mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
            if writable and _can_be_kept_from_children():
                self.memory.madvise(mmap.MADV_DONTFORK)
            view = memoryview(self.memory)
        self.bytes = view
        self.words = view.cast("Q")
        self.halves = view.cast("I")

    def address(self) -> int:
        """Where the pages lie; valid while this object is held."""
        buffer = _PyBuffer()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(self.memory), ctypes.byref(buffer), ctypes.c_int(0))
        try:
            return int(buffer.buf)
        finally:
            ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


_NOTHING = _Pages(-1, 0, writable=False)
_NOTHING.size = -1  # not even an access of no bytes is within

# --- forks ---------------------------------------------------------------------------------------------------------

_writable_here: weakref.WeakSet[Mapping] = weakref.WeakSet()


def _can_be_kept_from_children() -> bool:
    """Only where a child can also be kept from unmapping what it was not given, see `_abandon_inherited`."""
    return ctypes is not None and hasattr(mmap, "MADV_DONTFORK")


def _abandon_inherited() -> None:
    """In a forked child: its writable mappings are not there, and something else may come to be at their addresses.

    So they must be neither used nor unmapped, and the mmap objects, whose end would unmap, are made to live for ever.
    """
    for mapping in list(_writable_here):
        memory = mapping._pages.memory
        if memory is not None and _can_be_kept_from_children():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        mapping._inherited = True
        mapping._pages = _NOTHING


os.register_at_fork(after_in_child=_abandon_inherited)

# --- the mapping ---------------------------------------------------------------------------------------------------


class Mapping:
    """See `shmconf.mapping.Mapping`. Maps what the file has, and maps anew when an access needs what it has gained."""

    def __init__(self, fd: int, length: int, *, writable: bool = False) -> None:
        if not 0 < length <= sys.maxsize or length % _WORD:
            raise ValueError(f"the length of a mapping is a multiple of 8 above 0, not {length}")
        if writable and not _MAY_WRITE:
            raise RuntimeError(
                f"writing a segment in pure Python is safe on x86-64 only, and this is {_MACHINE}: "
                "install a C compiler with Python.h (Debian: gcc, python3-dev), then shmconf anew"
            )
        if writable and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self._length = length
        self._writable = writable
        self._inherited = False
        self._pages = _NOTHING
        self._file: _Descriptor | None = _Descriptor(fd)
        self._grow()
        if writable:
            _writable_here.add(self)

    @property
    def length(self) -> int:
        return self._length

    @property
    def writable(self) -> bool:
        return self._writable

    def load(self, offset: int, /) -> int:
        return self._locate(offset, 8, 8).words[offset >> 3]

    def load32(self, offset: int, /) -> int:
        return self._locate(offset, 4, 4).halves[offset >> 2]

    def store(self, offset: int, value: int, /) -> None:
        self._refuse_stores()
        pages = self._locate(offset, 8, 8)
        _check_fits(value, 64)
        pages.words[offset >> 3] = value

    def store32(self, offset: int, value: int, /) -> None:
        self._refuse_stores()
        pages = self._locate(offset, 4, 4)
        _check_fits(value, 32)
        pages.halves[offset >> 2] = value

    def read(self, offset: int, length: int, /) -> bytes:
        if length < 0:
            self._check_usable()
            raise ValueError(f"a length of {length} is negative")
        source = self._locate(offset, -(-length // _WORD) * _WORD, _WORD).bytes
        end = offset + length
        if length <= _PIECE:
            return bytes(source[offset:end])
        return b"".join([source[at : min(at + _PIECE, end)] for at in range(offset, end, _PIECE)])

    def write(self, offset: int, data: Buffer, /) -> None:
        self._refuse_stores()
        with memoryview(data) as given:
            if not given.c_contiguous:
                raise BufferError("the data to write is not contiguous")
            source = given.cast("B")
            whole = len(source) // _WORD * _WORD
            rest = bytes(source[whole:])
            pages = self._locate(offset, whole + (_WORD if rest else 0), _WORD)
            for at in range(0, whole, _PIECE):
                piece = source[at : min(at + _PIECE, whole)]
                pages.bytes[offset + at : offset + at + len(piece)] = piece
            if rest:
                last = int.from_bytes(rest.ljust(_WORD, b"\0"), sys.byteorder)
                pages.words[(offset + whole) >> 3] = last

    def fence(self) -> None:
        # Taking a lock is a locked instruction, and that a full fence on x86-64. TSO has the order that readers and the
        # writer rely on without it; it is for a C library that uses non-temporal stores for smaller blocks than most.
        # The lock is a new one, so that no thread can be in another's way and no fork can leave it taken.
        with threading.Lock():
            pass

    def wait(self, offset: int, expected: int, timeout: float, /) -> None:
        pages = self._locate(offset, 4, 4)
        _check_fits(expected, 32)
        if math.isnan(timeout):
            raise ValueError("a timeout is a number of seconds, not nan")
        timeout = min(max(timeout, 0.0), _LONGEST_WAIT)
        if _FUTEX_NUMBER is not None:
            _futex(pages.address() + offset, _FUTEX_WAIT, expected, timeout)
        else:
            _poll(pages.halves, offset >> 2, expected, timeout)

    def wake(self, offset: int, /) -> int | None:
        pages = self._locate(offset, 4, 4)
        if _FUTEX_NUMBER is None:
            return None  # waiters here poll; others would, too
        return _futex(pages.address() + offset, _FUTEX_WAKE, _EVERYONE, None)

    def close(self) -> None:
        # In this order: `_grow` in another thread looks at the file after it has put new pages in place.
        self._file = None
        self._pages = _NOTHING

    def _locate(self, offset: int, span: int, alignment: int) -> _Pages:
        """Pages that hold `span` bytes at `offset`; the caller keeps them while it works."""
        pages = self._pages
        end = offset + span
        if offset >= 0 and end <= pages.size and offset % alignment == 0:
            return pages
        self._check_usable()
        if offset < 0 or end > self._length:
            raise IndexError(f"{span} bytes at {offset} are not within the mapping of {self._length}")
        if offset % alignment:
            raise ValueError(f"offset {offset} is not a multiple of {alignment}")
        pages = self._grow()
        if end > pages.size:
            raise IndexError(f"{span} bytes at {offset} are not within the file of {pages.size}")
        return pages

    def _grow(self) -> _Pages:
        """Maps what the file has by now, unless that is mapped already."""
        file, pages = self._file, self._pages
        if file is None:
            self._raise_closed()
        try:
            size = min(file.size(), self._length) // _WORD * _WORD
        except OSError:  # nobody can tell what it has gained
            return pages
        if size > pages.size:
            # Another thread may do the same: the last one's pages stay, and the file does not shrink.
            pages = self._pages = _Pages(file.number, size, self._writable)
            if self._file is None:
                self._pages = _NOTHING
        return pages

    def _check_usable(self) -> None:
        if self._file is None:
            self._raise_closed()
        if self._inherited:
            raise ValueError("a writable mapping belongs to the process that made it, not to its children")

    def _raise_closed(self) -> NoReturn:
        raise ValueError("the mapping is closed")

    def _refuse_stores(self) -> None:
        if not self._writable:
            self._check_usable()
            raise TypeError("the mapping is read-only")


def _check_fits(value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise OverflowError(f"the value does not fit a {bits}-bit word")


def _poll(halves: memoryview[int], index: int, expected: int, timeout: float) -> None:
    """Waiting without a futex: looks again and again, ever less often, within bounds."""
    deadline = time.monotonic() + timeout
    pause = _SHORTEST_POLL
    while halves[index] == expected:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_POLL)
