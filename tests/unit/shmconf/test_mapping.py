"""Both implementations of the mapping, held to one contract, alone and against each other in two processes."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf import _pure

try:
    from shmconf import _native
except ImportError:
    _native = None

PAGE = 4096
SECONDS = 100  # until something that should happen counts as not happening

needs_native = pytest.mark.skipif(_native is None, reason="the native module is not built")
NATIVE = pytest.param("native", marks=needs_native)
IMPLEMENTATIONS = [NATIVE, "pure"]
PAIRS = [
    pytest.param("native", "native", marks=needs_native),
    pytest.param("native", "pure", marks=needs_native),
    pytest.param("pure", "native", marks=needs_native),
    ("pure", "pure"),
]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")


def mapping_class(name):
    return {"native": _native, "pure": _pure}[name].Mapping


@pytest.fixture(params=IMPLEMENTATIONS)
def name(request):
    return request.param


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "web.shmconf"
    path.write_bytes(bytes(2 * PAGE))
    return path


@contextlib.contextmanager
def mapped(name, file, length=2 * PAGE, *, writable=True):
    fd = os.open(file, os.O_RDWR if writable else os.O_RDONLY)
    try:
        mapping = mapping_class(name)(fd, length, writable=writable)
    finally:
        os.close(fd)
    try:
        yield mapping
    finally:
        mapping.close()


def eventually(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.001)


def python(source, *arguments, name):
    """Another process that runs `source`, with `mapped` and the implementation's name there."""
    prelude = """
        import os, sys
        from shmconf.mapping import IMPLEMENTATION, open_mapping

        assert IMPLEMENTATION == sys.argv[1], IMPLEMENTATION
        def map_file(path, length, writable):
            fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
            mapping = open_mapping(fd, length, writable=writable)
            os.close(fd)
            return mapping
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(source), name, *map(str, arguments)],
        env=os.environ | {"SHMCONF_PURE": "1" if name == "pure" else "0"},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    return output


# --- words and copies -------------------------------------------------------------------------------------------------


def test_words_are_in_the_file_at_once_and_in_the_machine_s_order(name, file):
    with mapped(name, file) as mapping:
        mapping.store(8, 0xFFFF_FFFF_0000_0001)
        mapping.store32(20, 0xFEDC_BA98)
        assert file.read_bytes()[8:24] == struct.pack("=QII", 0xFFFF_FFFF_0000_0001, 0, 0xFEDC_BA98)
        assert mapping.load(8) == 0xFFFF_FFFF_0000_0001
        assert (mapping.load32(16), mapping.load32(20)) == (0, 0xFEDC_BA98)
        file_fd = os.open(file, os.O_WRONLY)
        os.pwrite(file_fd, struct.pack("=Q", 7), 8)
        os.close(file_fd)
        assert mapping.load(8) == 7
        mapping.fence()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@given(word=st.integers(0, 20), data=st.binary(max_size=100))
def test_write_pads_its_last_word_and_read_gives_any_length(tmp_path_factory, implementation, word, data):
    file = tmp_path_factory.getbasetemp() / "padding.shmconf"
    file.write_bytes(b"\xff" * PAGE)
    with mapped(implementation, file, PAGE) as mapping:
        mapping.write(8 * word, data)
        padded = data + bytes(-len(data) % 8)
        expected = b"\xff" * 8 * word + padded + b"\xff" * (PAGE - 8 * word - len(padded))
        assert file.read_bytes() == expected
        for length in (0, 1, len(data), len(data) + 3):
            assert mapping.read(8 * word, length) == expected[8 * word : 8 * word + length]


@pytest.mark.parametrize("length", [64 * 1024, 64 * 1024 + 8, 200_003])
def test_copies_of_many_pieces(name, file, length):
    data = os.urandom(length)
    os.truncate(file, 256 * 1024)
    with mapped(name, file, 256 * 1024) as mapping:
        for buffer in (data, bytearray(data), memoryview(data)):
            mapping.write(16, buffer)
            assert mapping.read(16, length) == data
            assert mapping.read(0, 16) == bytes(16)
            assert file.read_bytes()[16 + length :].strip(b"\0") == b""
            mapping.write(16, bytes(length))


# --- bounds and misuse ------------------------------------------------------------------------------------------------


def test_what_is_past_the_end_of_the_file_is_there_once_the_file_has_grown(name, file):
    with mapped(name, file, 64 * PAGE) as writer, mapped(name, file, 64 * PAGE, writable=False) as reader:
        assert (writer.length, reader.length) == (64 * PAGE, 64 * PAGE)
        for touch in (
            lambda: reader.load(2 * PAGE),
            lambda: reader.load32(2 * PAGE),
            lambda: reader.read(2 * PAGE - 8, 9),
            lambda: reader.wait(2 * PAGE, 0, 0),
            lambda: reader.wake(2 * PAGE),
            lambda: writer.store(2 * PAGE, 1),
            lambda: writer.write(2 * PAGE - 8, b"123456789"),
        ):
            with pytest.raises(IndexError, match="not within the file of 8192"):
                touch()
        os.truncate(file, 3 * PAGE)
        writer.write(2 * PAGE - 8, b"123456789")
        assert reader.read(2 * PAGE - 8, 9) == b"123456789"
        with pytest.raises(IndexError):
            reader.load(3 * PAGE)


def test_an_empty_file_and_a_last_word_that_is_not_whole(name, tmp_path):
    file = tmp_path / "empty.shmconf"
    file.touch()
    with mapped(name, file, PAGE) as mapping:
        assert mapping.read(0, 0) == b""
        with pytest.raises(IndexError):
            mapping.load(0)
        os.truncate(file, 12)
        assert mapping.read(0, 8) == bytes(8)
        with pytest.raises(IndexError):
            mapping.read(8, 4)


@pytest.mark.parametrize(
    ("error", "misuse"),
    [
        (IndexError, lambda m: m.load(-8)),
        (IndexError, lambda m: m.load(2 * PAGE)),
        (IndexError, lambda m: m.load(2**64)),
        (IndexError, lambda m: m.load32(2 * PAGE - 3)),
        (IndexError, lambda m: m.read(0, 2 * PAGE + 1)),
        (IndexError, lambda m: m.read(8, 2**63 - 1)),
        (IndexError, lambda m: m.read(2**63 - 8, 2**63 - 8)),
        (IndexError, lambda m: m.read(-8, 8)),
        (IndexError, lambda m: m.write(2 * PAGE - 8, b"123456789")),
        (IndexError, lambda m: m.wait(2 * PAGE, 0, 0)),
        (IndexError, lambda m: m.wake(-4)),
        (ValueError, lambda m: m.load(4)),
        (ValueError, lambda m: m.store(1, 0)),
        (ValueError, lambda m: m.load32(2)),
        (ValueError, lambda m: m.store32(6, 0)),
        (ValueError, lambda m: m.read(4, 8)),
        (ValueError, lambda m: m.read(0, -1)),
        (ValueError, lambda m: m.write(4, b"1")),
        (ValueError, lambda m: m.wait(2, 0, 0)),
        (ValueError, lambda m: m.wait(0, 0, float("nan"))),
        (OverflowError, lambda m: m.store(0, 2**64)),
        (OverflowError, lambda m: m.store(0, -1)),
        (OverflowError, lambda m: m.store32(0, 2**32)),
        (OverflowError, lambda m: m.store32(0, -1)),
        (OverflowError, lambda m: m.wait(0, 2**32, 0)),
        (TypeError, lambda m: m.store(0, "1")),
        (TypeError, lambda m: m.load("0")),
        (TypeError, lambda m: m.write(0, "text")),
        (TypeError, lambda m: m.store(0)),
        (BufferError, lambda m: m.write(0, memoryview(b"12345678")[::2])),
    ],
)
def test_misuse_is_the_same_exception_in_both_and_stores_nothing(name, file, error, misuse):
    with mapped(name, file) as mapping:
        with pytest.raises(error):
            misuse(mapping)
        assert file.read_bytes() == bytes(2 * PAGE)


def test_a_read_only_mapping_refuses_stores(name, file):
    with mapped(name, file, writable=False) as mapping:
        assert mapping.writable is False
        for store in (lambda: mapping.store(0, 1), lambda: mapping.store32(0, 1), lambda: mapping.write(0, b"1")):
            with pytest.raises(TypeError, match="the mapping is read-only"):
                store()


@pytest.mark.parametrize("length", [0, -8, 12, 2**64])
def test_a_length_is_a_positive_multiple_of_eight(name, file, length):
    with pytest.raises(ValueError, match=r"multiple of 8|cannot fit"), mapped(name, file, length):
        pass


def test_writing_needs_a_descriptor_that_may_write(name, file):
    with open(file, "rb") as opened, pytest.raises(PermissionError):
        mapping_class(name)(opened.fileno(), PAGE, writable=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        mapping_class(name)(opened.fileno() if not opened.closed else 1_000_000, PAGE)


# --- closing ----------------------------------------------------------------------------------------------------------


def is_mapped(file, process="self"):
    return str(file) in Path(f"/proc/{process}/maps").read_text()


@on_linux
def test_close_gives_back_memory_and_descriptor_and_may_be_repeated(name, file):
    descriptors = os.listdir("/proc/self/fd")
    with mapped(name, file) as mapping:
        assert is_mapped(file)
        mapping.close()
        mapping.close()
        assert not is_mapped(file)
        assert os.listdir("/proc/self/fd") == descriptors
        for use in (
            lambda: mapping.load(0),
            lambda: mapping.load32(0),
            lambda: mapping.store(0, 1),
            lambda: mapping.store32(0, 1),
            lambda: mapping.read(0, 0),
            lambda: mapping.write(0, b"1"),
            lambda: mapping.wait(0, 0, 0),
            lambda: mapping.wake(0),
        ):
            with pytest.raises(ValueError, match="the mapping is closed"):
                use()


@on_linux
def test_a_mapping_that_nobody_holds_is_closed(name, file):
    descriptors = os.listdir("/proc/self/fd")
    with open(file, "rb") as opened:
        mapping_class(name)(opened.fileno(), PAGE)
    assert not is_mapped(file)
    assert os.listdir("/proc/self/fd") == descriptors


def is_asleep(thread_id):
    """In a futex wait between processes, which no lock of Python's own is."""
    number, *arguments = Path(f"/proc/self/task/{thread_id}/syscall").read_text().split()
    return number == {"x86_64": "202"}.get(os.uname().machine, "98") and arguments[1] == "0x0"


@on_linux
def test_close_during_a_wait_in_another_thread_keeps_the_memory_until_the_wait_is_over(name, file):
    with mapped(name, file, writable=False) as mapping, mapped("pure", file, PAGE) as waker:
        expected = len(Path("/proc/self/maps").read_text().split(str(file)))
        sleeper = threading.Thread(target=mapping.wait, args=(0, 0, SECONDS))
        sleeper.start()
        eventually(lambda: is_asleep(sleeper.native_id), "the thread waits")
        mapping.close()
        with pytest.raises(ValueError, match="the mapping is closed"):
            mapping.load(0)
        assert len(Path("/proc/self/maps").read_text().split(str(file))) == expected
        assert waker.wake(0) == 1
        sleeper.join(SECONDS)
        assert not sleeper.is_alive()
        assert len(Path("/proc/self/maps").read_text().split(str(file))) == expected - 1


def test_close_under_threads_that_read_and_grow_is_the_closed_error_and_nothing_else(name, file):
    for round_ in range(30):
        os.truncate(file, 2 * PAGE)
        with mapped(name, file, 64 * PAGE, writable=False) as mapping:
            started, wrong = threading.Barrier(4), []

            def read(mapping=mapping, started=started, wrong=wrong):
                started.wait()
                try:
                    while True:
                        mapping.read(0, 2 * PAGE)
                        mapping.load(8)
                        with contextlib.suppress(IndexError):
                            mapping.load(2 * PAGE)
                except ValueError as error:
                    wrong.extend([error] if str(error) != "the mapping is closed" else [])

            threads = [threading.Thread(target=read) for _ in range(3)]
            for thread in threads:
                thread.start()
            started.wait()
            os.truncate(file, (3 + round_) * PAGE)
            mapping.close()
            for thread in threads:
                thread.join(SECONDS)
                assert not thread.is_alive()
            assert wrong == []


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_wait_returns_at_once_on_another_value_and_in_the_end_on_the_same(name, file):
    with mapped(name, file) as mapping:
        mapping.store32(4, 9)
        mapping.wait(4, 8, SECONDS * 1000)
        begun = time.monotonic()
        mapping.wait(4, 9, 0.05)
        assert time.monotonic() - begun >= 0.04
        mapping.wait(4, 9, 0)
        mapping.wait(4, 9, -1)
        assert mapping.wake(4) in (0, None)


@on_linux
def test_a_signal_ends_a_wait_after_its_handler_has_run(name, file):
    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    def send():
        eventually(lambda: is_asleep(os.getpid()), "the main thread waits")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=send)
    try:
        with mapped(name, file, writable=False) as mapping:
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                mapping.wait(0, 0, 10 * SECONDS)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("waker", "waiter"), PAIRS)
def test_a_wake_in_one_process_ends_the_wait_in_another(file, waker, waiter):
    process = python(
        """
        mapping = map_file(sys.argv[2], 8192, False)
        mapping.wait(64, 0, float(sys.argv[3]))
        print(mapping.load(72))
        """,
        file,
        10 * SECONDS,
        name=waiter,
    )
    with mapped(waker, file) as mapping:
        mapping.store(72, 41)  # the word slept on stays: only the wake ends the sleep
        eventually(lambda: mapping.wake(64) == 1, "somebody waits")
    assert finish(process) == "41\n"


def test_without_a_futex_pure_python_polls(file, monkeypatch):
    monkeypatch.setattr(_pure, "_FUTEX_NUMBER", None)
    with mapped("pure", file) as mapping:
        mapping.wait(0, 0, 0.01)
        waiter = threading.Thread(target=mapping.wait, args=(0, 0, 10 * SECONDS))
        waiter.start()
        mapping.store32(0, 1)
        assert mapping.wake(0) is None
        waiter.join(SECONDS)
        assert not waiter.is_alive()


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("writer", "reader"), PAIRS)
def test_another_process_sees_only_whole_words(file, writer, reader):
    process = python(
        """
        mapping = map_file(sys.argv[2], 8192, True)
        mapping.store(8, 1)
        while mapping.load(16) == 0:
            for _ in range(1000):
                mapping.store(64, 0x1111_1111_1111_1111)
                mapping.store32(72, 0x1111_1111)
                mapping.write(128, b"\\x11" * 8)
                mapping.store(64, 0xEEEE_EEEE_EEEE_EEEE)
                mapping.store32(72, 0xEEEE_EEEE)
                mapping.write(128, b"\\xee" * 8)
        """,
        file,
        name=writer,
    )
    allowed = {0x1111_1111_1111_1111, 0xEEEE_EEEE_EEEE_EEEE}
    with mapped(reader, file, writable=False) as mapping, mapped("pure", file) as switch:
        eventually(lambda: mapping.load(8) == 1 and mapping.load(128) != 0, "the writer runs")
        seen = set()

        def look():
            for _ in range(30_000):
                seen.add(mapping.load(64))
                seen.add(mapping.load32(72) * 0x1_0000_0001)
                seen.add(int.from_bytes(mapping.read(128, 8), sys.byteorder))
            return len(seen) > 1

        look()
        eventually(look, "the reader sees the writer at work")
        switch.store(16, 1)
    finish(process)
    assert seen == allowed


@pytest.mark.parametrize(("writer", "reader"), PAIRS)
def test_fences_keep_a_counted_copy_whole(file, writer, reader):
    length = 200 * 1024
    os.truncate(file, 256 * 1024)
    process = python(
        """
        import random

        mapping, length = map_file(sys.argv[2], 256 * 1024, True), int(sys.argv[3])
        version = 0
        while mapping.load(16) == 0:
            version += 1
            payload = version.to_bytes(8, sys.byteorder) * (length // 8)
            mapping.store(8, 2 * version - 1)
            mapping.fence()
            mapping.write(4096, payload)
            mapping.store(8, 2 * version)
            for _ in range(random.randrange(1000)):  # sometimes long enough for a copy, sometimes not
                mapping.load(8)
        """,
        file,
        length,
        name=writer,
    )
    copies = 0
    deadline = time.monotonic() + SECONDS
    with mapped(reader, file, 256 * 1024, writable=False) as mapping, mapped("pure", file) as switch:
        while copies < 200 and time.monotonic() < deadline:
            counter = mapping.load(8)
            copy = mapping.read(4096, length)
            mapping.fence()
            if counter and counter % 2 == 0 and mapping.load(8) == counter:
                assert copy == (counter // 2).to_bytes(8, sys.byteorder) * (length // 8)
                copies += 1
        switch.store(16, 1)
    finish(process)
    assert copies == 200


@on_linux
def test_a_forked_child_has_no_writable_mapping_and_does_no_harm_where_it_was(file, name):
    process = python(
        """
        import gc, mmap

        path, length = sys.argv[2], 64 * 8192
        os.truncate(path, length)
        writer, reader = map_file(path, length, True), map_file(path, length, False)
        writer.store(8, 5)
        assert "rw-s" in "".join(line for line in open("/proc/self/maps") if path in line)
        child = os.fork()
        if child == 0:
            try:
                assert [line.split()[1] for line in open("/proc/self/smaps") if path in line] == ["r--s"]
                assert reader.load(8) == 5
                for use in (lambda: writer.load(8), lambda: writer.store(8, 6), lambda: writer.write(0, b"1")):
                    try:
                        use()
                    except ValueError as error:
                        assert "its children" in str(error), error
                    else:
                        raise AssertionError("the child used the writer's mapping")
                # Something else comes to lie where the writer's mapping was, and must survive the end of that.
                others = [mmap.mmap(-1, length) for _ in range(8)]
                for other in others:
                    other.write(b"x" * length)
                writer.close()
                del writer, use
                gc.collect()
                assert all(other[:] == b"x" * length for other in others)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        writer.store(8, 7)
        print(os.waitstatus_to_exitcode(status), reader.load(8))
        """,
        file,
        name=name,
    )
    assert finish(process) == "0 7\n"


# --- which one is used ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "expected"), [("1", "pure"), ("yes", "pure"), ("0", None), ("", None)])
def test_the_environment_chooses_pure_python(setting, expected):
    expected = expected or ("native" if _native else "pure")
    result = subprocess.run(
        [sys.executable, "-c", "from shmconf import mapping as m; print(m.IMPLEMENTATION, m.NATIVE_MISSING)"],
        env=os.environ | {"SHMCONF_PURE": setting},
        capture_output=True,
        text=True,
        check=True,
    )
    implementation, reason = result.stdout.strip().split(" ", 1)
    assert implementation == expected
    assert (reason == "None") == (expected == "native")


def test_pure_python_reads_but_does_not_write_where_stores_have_no_order(file, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    try:
        elsewhere = importlib.reload(_pure)
        with open(file, "r+b") as opened:
            with pytest.raises(RuntimeError, match=r"safe on x86-64 only, and this is riscv64: install a C compiler"):
                elsewhere.Mapping(opened.fileno(), PAGE, writable=True)
            reader = elsewhere.Mapping(opened.fileno(), PAGE)
            assert reader.read(0, 16) == bytes(16)
            reader.close()
    finally:
        monkeypatch.undo()
        importlib.reload(_pure)
