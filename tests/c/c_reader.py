"""The C reader for Python tests: shm/include/shmconf.h by ctypes, thin enough that what a test calls is what C gets."""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref
from pathlib import Path
from typing import Any

import msgpack


class Result(enum.IntEnum):
    """enum shmconf_result."""

    OK = 0
    MISSING = 1
    WRONG_TYPE = 2
    NO_SPACE = 3
    TIMEOUT = 4
    INTERRUPTED = 5
    BAD_PATH = 6
    BAD_NAME = 7
    NOT_FOUND = 8
    UNTRUSTED = 9
    INCOMPATIBLE = 10
    CORRUPT = 11
    BUSY = 12
    SYSTEM = 13


class Kind(enum.IntEnum):
    """enum shmconf_part_kind."""

    TEXT = 0
    STRING = 1
    BINARY = 2
    EXTENSION = 3
    INTEGER = 4
    BOOLEAN = 5
    FLOAT = 6
    NIL = 7


class Fault(ctypes.Structure):
    _fields_ = (("result", ctypes.c_int), ("system_error", ctypes.c_int), ("text", ctypes.c_char * 512))

    def __str__(self) -> str:
        return bytes(self.text).decode(errors="replace")


class Status(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint64),
        ("epoch", ctypes.c_uint64),
        ("retired", ctypes.c_bool),
        ("agent_alive", ctypes.c_bool),
        ("serving_last_known_good", ctypes.c_bool),
        ("heartbeat_age", ctypes.c_int64),
        ("retries", ctypes.c_uint64),
        ("reopened", ctypes.c_uint64),
        ("rejections", ctypes.c_uint64),
        ("problem_count", ctypes.c_uint64),
        ("state", ctypes.c_char * 16),
        ("last_error", ctypes.c_char * 4096),
        ("held", ctypes.c_char * 65),
    )


class Snapshot(ctypes.Structure):
    _fields_ = (
        ("epoch", ctypes.c_uint64),
        ("version", ctypes.c_uint64),
        ("published_at", ctypes.c_uint64),
        ("payload", ctypes.c_void_p),
        ("payload_length", ctypes.c_size_t),
        ("index", ctypes.c_void_p),
        ("index_length", ctypes.c_size_t),
        ("metadata", ctypes.c_void_p),
        ("metadata_length", ctypes.c_size_t),
        ("memory", ctypes.c_void_p),
    )

    def section(self, name: str) -> bytes:
        address, length = getattr(self, name), getattr(self, f"{name}_length")
        return ctypes.string_at(address, length) if length else b""


class CellHead(ctypes.Structure):
    """struct shmconf_cell."""

    _fields_ = (
        ("latest", ctypes.c_void_p),
        ("word", ctypes.c_uint64),
        ("result", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("reader", ctypes.c_void_p),
        ("path", ctypes.c_char_p),
        ("next", ctypes.c_void_p),
        ("link", ctypes.c_void_p),
    )


class Cell(ctypes.Structure):
    """What the cells of the three types have in common here."""

    kind: str
    value_type: Any


class IntCell(Cell):
    kind, value_type = "int", ctypes.c_int64
    _fields_ = (("cell", CellHead), ("value", value_type))


class DoubleCell(Cell):
    kind, value_type = "double", ctypes.c_double
    _fields_ = (("cell", CellHead), ("value", value_type))


class BoolCell(Cell):
    kind, value_type = "bool", ctypes.c_bool
    _fields_ = (("cell", CellHead), ("value", value_type))


CELLS: dict[str, type[Cell]] = {cell.kind: cell for cell in (IntCell, DoubleCell, BoolCell)}


class Part(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int),
        ("bytes", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("number", ctypes.c_uint64),
        ("negative", ctypes.c_bool),
        ("real", ctypes.c_double),
        ("extension", ctypes.c_int),
    )


STRUCTURES = (Fault, Status, Snapshot, IntCell, DoubleCell, BoolCell, Part)
ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)

_size, _size_p = ctypes.c_size_t, POINTER(ctypes.c_size_t)
_reader, _segment, _path, _fault = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, POINTER(Fault)
_u64, _u64_p = ctypes.c_uint64, POINTER(ctypes.c_uint64)
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "describe": (ctypes.c_char_p, (ctypes.c_int,)),
    "open": (ctypes.c_int, (POINTER(_reader), _path, _path, _fault)),
    "close": (None, (_reader,)),
    "last_fault": (_fault, (_reader,)),
    "version": (_u64, (_reader,)),
    "epoch": (_u64, (_reader,)),
    "get": (ctypes.c_int, (_reader, _path, ctypes.c_void_p, _size, _size_p)),
    "get_int": (ctypes.c_int, (_reader, _path, POINTER(ctypes.c_int64))),
    "get_uint": (ctypes.c_int, (_reader, _path, _u64_p)),
    "get_double": (ctypes.c_int, (_reader, _path, POINTER(ctypes.c_double))),
    "get_bool": (ctypes.c_int, (_reader, _path, POINTER(ctypes.c_bool))),
    "get_string": (ctypes.c_int, (_reader, _path, ctypes.c_void_p, _size, _size_p)),
    "wait": (ctypes.c_int, (_reader, _u64, ctypes.c_double, _u64_p)),
    "status_take": (ctypes.c_int, (_reader, POINTER(Status))),
    "snapshot_take": (ctypes.c_int, (_reader, POINTER(Snapshot))),
    "snapshot_free": (None, (POINTER(Snapshot),)),
    "snapshot_get": (ctypes.c_int, (POINTER(Snapshot), _path, POINTER(ctypes.c_void_p), _size_p)),
    "as_int": (ctypes.c_int, (ctypes.c_char_p, _size, POINTER(ctypes.c_int64))),
    "as_uint": (ctypes.c_int, (ctypes.c_char_p, _size, _u64_p)),
    "as_double": (ctypes.c_int, (ctypes.c_char_p, _size, POINTER(ctypes.c_double))),
    "as_bool": (ctypes.c_int, (ctypes.c_char_p, _size, POINTER(ctypes.c_bool))),
    "as_string": (ctypes.c_int, (ctypes.c_char_p, _size, POINTER(ctypes.c_void_p), _size_p)),
    "cell_release": (None, (POINTER(CellHead),)),
    "follow": (None, (_reader,)),
    "test_set_patience": (None, (_reader, ctypes.c_int64)),
    "segment_open": (ctypes.c_int, (POINTER(_segment), _path, ctypes.c_bool, _path, _fault)),
    "segment_close": (None, (_segment,)),
    "segment_set_patience": (None, (_segment, ctypes.c_int64)),
    "segment_epoch": (_u64, (_segment,)),
    "segment_retries": (_u64, (_segment,)),
    "segment_latest": (_u64_p, (_segment,)),
    "segment_is_linked": (ctypes.c_bool, (_segment,)),
    "segment_heartbeat_age": (ctypes.c_int64, (_segment,)),
    "segment_wake_word": (ctypes.c_uint32, (_segment,)),
    "segment_sleep": (ctypes.c_int, (_segment, ctypes.c_uint32, ctypes.c_double)),
    "segment_get": (ctypes.c_int, (_segment, POINTER(Part), _size, ctypes.c_void_p, _size, _size_p, _u64_p, _fault)),
    "segment_get_at_once": (
        ctypes.c_int,
        (_segment, POINTER(Part), _size, ctypes.c_void_p, _size, _size_p, _u64_p, _fault),
    ),
    "segment_copy": (ctypes.c_int, (_segment, ctypes.c_int, ALLOCATE, ctypes.c_void_p, POINTER(Snapshot), _fault)),
    "segment_verify": (ctypes.c_int, (_segment, _u64_p, _fault)),
    "segment_status": (ctypes.c_int, (_segment, ctypes.c_void_p, _size_p, _fault)),
    "path_parse": (ctypes.c_ssize_t, (_path, _size, ctypes.c_void_p, POINTER(Part), _size)),
    "find": (ctypes.c_int, (ctypes.c_char_p, _size, ctypes.c_char_p, _size, POINTER(Part), _size, _size_p, _size_p)),
}

for _kind, _cell in CELLS.items():
    _SIGNATURES[f"{_kind}_cell_init"] = (None, (POINTER(_cell), _reader, _path))
    _SIGNATURES[f"test_{_kind}_cell_get"] = (ctypes.c_int, (POINTER(_cell), POINTER(_cell.value_type)))


class Library:
    """The functions of the header without their prefix: `library.get(...)` is shmconf_get. `header_names` are all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        loaded = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, f"shmconf_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        sizes = (ctypes.c_size_t * len(STRUCTURES)).in_dll(loaded, "shmconf_test_sizes")
        assert list(sizes) == [ctypes.sizeof(one) for one in STRUCTURES], "c_reader.py is not what the header declares"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"c_reader.py declares no shmconf_{name}")

    @contextmanager
    def reader(self, name: str, directory: os.PathLike[str] | None) -> Iterator[Reader]:
        opened, result, fault = self.try_open(name, directory)
        assert result is Result.OK, str(fault)
        try:
            yield Reader(self, opened)
        finally:
            self.close(opened)

    def try_open(self, name: str, directory: os.PathLike[str] | None) -> tuple[ctypes.c_void_p, Result, Fault]:
        opened, fault = ctypes.c_void_p(1), Fault()
        place = None if directory is None else os.fsencode(directory)
        result = Result(self.open(byref(opened), name.encode(), place, byref(fault)))
        assert (result is Result.OK) == bool(opened)
        assert result is Result.OK or fault.result == result
        return opened, result, fault

    @contextmanager
    def segment(self, directory: Path, name: str = "web") -> Iterator[ctypes.c_void_p]:
        opened, fault = ctypes.c_void_p(1), Fault()
        result = Result(self.segment_open(byref(opened), os.fsencode(directory), True, name.encode(), byref(fault)))
        assert result is Result.OK, str(fault)
        try:
            yield opened
        finally:
            self.segment_close(opened)

    def value_in(self, payload: bytes, index: bytes, parts: tuple[Any, ...], textual: bool) -> bytes | None:
        """shmconf_find; None for a miss."""
        taken = as_parts(parts, textual)
        offset, length = ctypes.c_size_t(), ctypes.c_size_t()
        result = Result(
            self.find(payload, len(payload), index, len(index), taken, len(parts), byref(offset), byref(length))
        )
        if result is Result.MISSING:
            return None
        assert result is Result.OK, result
        return payload[offset.value : offset.value + length.value]


class Reader:
    """A shmconf_reader; what C returns through pointers comes back as (Result, value)."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle
        self.kept: list[Any] = []

    @property
    def fault(self) -> Fault:
        return self.library.last_fault(self.handle).contents

    @property
    def version(self) -> int:
        return self.library.version(self.handle)

    @property
    def epoch(self) -> int:
        return self.library.epoch(self.handle)

    def get(self, path: str, capacity: int = 1 << 16) -> tuple[Result, bytes, int]:
        """The result, what is in the buffer, and the length told."""
        buffer, length = ctypes.create_string_buffer(b"\xee" * capacity, capacity), ctypes.c_size_t(77)
        result = Result(self.library.get(self.handle, path.encode(), buffer, capacity, byref(length)))
        return result, buffer.raw[: length.value if result is Result.OK else capacity], length.value

    def value(self, path: str) -> Any:
        """What is there, decoded."""
        result, encoded, _ = self.get(path)
        assert result is Result.OK, f"{result!r}: {self.fault}"
        return msgpack.unpackb(encoded, strict_map_key=False)

    def typed(self, kind: str, path: str) -> tuple[Result, Any]:
        """shmconf_get_int and its kin; None for a value that was not stored."""
        types = {"int": ctypes.c_int64, "uint": ctypes.c_uint64, "double": ctypes.c_double, "bool": ctypes.c_bool}
        value = types[kind]()
        before = bytes(value)
        result = Result(getattr(self.library, f"get_{kind}")(self.handle, path.encode(), byref(value)))
        if result is not Result.OK:
            assert bytes(value) == before
            return result, None
        return result, value.value

    def string(self, path: str, capacity: int = 1 << 16) -> tuple[Result, bytes | None, int]:
        """The result, the text in the buffer (None where none was stored), and the length told."""
        buffer, length = ctypes.create_string_buffer(b"\xee" * capacity, capacity), ctypes.c_size_t(77)
        result = Result(self.library.get_string(self.handle, path.encode(), buffer, capacity, byref(length)))
        if result is not Result.OK:
            assert buffer.raw == b"\xee" * capacity
            return result, None, length.value
        assert buffer.raw[length.value] == 0
        return result, buffer.raw[: length.value], length.value

    def wait(self, after: int, timeout: float) -> tuple[Result, int]:
        version = ctypes.c_uint64(77)
        return Result(self.library.wait(self.handle, after, timeout, byref(version))), version.value

    def status(self) -> Status:
        status = Status()
        assert self.library.status_take(self.handle, byref(status)) == Result.OK
        return status

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        snapshot = Snapshot()
        ctypes.memset(byref(snapshot), 0xEE, ctypes.sizeof(snapshot))
        result = Result(self.library.snapshot_take(self.handle, byref(snapshot)))
        assert result is Result.OK, f"{result!r}: {self.fault}"
        try:
            yield snapshot
        finally:
            self.library.snapshot_free(byref(snapshot))
            assert bytes(snapshot) == bytes(ctypes.sizeof(snapshot))

    def cell(self, path: str, kind: str = "int") -> Cell:
        """A cell that the reader knows until it is closed, or the cell released."""
        cell = CELLS[kind]()
        ctypes.memset(byref(cell), 0xEE, ctypes.sizeof(cell))
        path_bytes = path.encode()
        getattr(self.library, f"{kind}_cell_init")(byref(cell), self.handle, path_bytes)
        self.kept += [cell, path_bytes]  # the reader points to the one, the cell to the other
        return cell

    def read(self, cell: Cell) -> tuple[Result, Any]:
        """The inline function that reads a cell; None for a value that is not there."""
        value = cell.value_type(77 if cell.kind != "bool" else True)
        result = Result(getattr(self.library, f"test_{cell.kind}_cell_get")(byref(cell), byref(value)))
        if result is not Result.OK:
            assert value.value == 0, "a value without a result"
            return result, None
        return result, value.value


def as_parts(path: tuple[Any, ...], textual: bool) -> Any:
    """An array of shmconf_part for a path of keys (dates and times as msgpack.ExtType)."""
    parts = (Part * max(len(path), 1))()
    parts.kept = []  # the bytes that the parts point to
    for part, key in zip(parts, path, strict=False):
        fill_part(part, key, textual, parts.kept)
    return parts


def fill_part(part: Part, key: Any, textual: bool, kept: list[Any]) -> None:
    data: bytes | None = None
    if isinstance(key, str):
        part.kind, data = (Kind.TEXT if textual else Kind.STRING), key.encode()
    elif isinstance(key, msgpack.ExtType):
        part.kind, part.extension, data = Kind.EXTENSION, key.code, key.data
    elif isinstance(key, bytes):
        part.kind, data = Kind.BINARY, key
    elif isinstance(key, bool):
        part.kind, part.number = Kind.BOOLEAN, int(key)
    elif isinstance(key, int):
        part.kind, part.number, part.negative = Kind.INTEGER, key % 2**64, key < 0
    elif isinstance(key, float):
        part.kind, part.real = Kind.FLOAT, key
    else:
        assert key is None
        part.kind = Kind.NIL
    if data is not None:
        buffer = ctypes.create_string_buffer(data, len(data) or 1)
        kept.append(buffer)
        part.bytes, part.length = ctypes.addressof(buffer), len(data)
