"""A Reader in forked children, under threads that close it, in an interpreter that ends, and as garbage.

Mostly in processes of their own: what goes wrong here is a crash or a hang. Warnings are errors in them.
"""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shmconf.mapping import IMPLEMENTATION

# In the process that has the native module both, so that the pure one is not tested twice by test_pure.py.
both = pytest.mark.parametrize("pure", ["", "1"] if IMPLEMENTATION == "native" else ["1"])


@pytest.fixture
def writer(place: Any, publish: Callable[..., int]) -> Any:
    writer = place.writer()
    publish(writer, {"n": 1, "text": "one", "list": [1]})
    writer.beat()
    return writer


# --- fork ---------------------------------------------------------------------------------------------------------

FORK = """
import asyncio, os, sys, threading, traceback, warnings, shmconf
from shmconf.mapping import IMPLEMENTATION
directory, when, cache = sys.argv[1:]

def attach():
    reader = shmconf.attach("web", directory=directory)
    if cache == "warm":
        look(reader, 1)
    return reader

def look(reader, n):
    for _ in range(3):
        assert reader.get("n") == reader["n"] == reader.get(("list", 0)) == reader.version == n, n
        assert reader.get("text") == ["none", "one", "two", "three"][n] == reader["text"]
        assert reader.get("list") == reader["list"] == [n]
        assert reader.get("absent") is None and "absent" not in reader
    assert reader.snapshot().to_dict() == {"n": n, "text": reader["text"], "list": [n]}

def by_wait_version(reader):
    assert reader.wait_version(after=1, timeout=60) == 2

def by_wait(reader):
    assert reader.wait(after=1, timeout=60)["n"] == 2

def by_changes(reader):
    assert next(reader.changes(after=1, timeout=60))["n"] == 2

def by_changes_async(reader):
    async def first():
        changes = reader.changes_async(after=1)
        found = await anext(changes)
        await changes.aclose()
        return found["n"]
    assert asyncio.run(first()) == 2

def by_grandchild(reader):
    pid = fork(lambda: by_wait(reader))
    assert os.waitpid(pid, 0)[1] == 0
    by_wait_version(reader)

def fork(work):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, which is what some programs do
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)

def in_child(wait):
    reader = attach() if when == "before attach" else inherited
    os.write(1, b"forked\\n")
    wait(reader)
    look(reader, 2)
    assert reader.status().version == 2
    if wait is not by_wait:
        reader.close()  # of its own: the others' goes on
    else:
        look(reader, 2)

inherited = None
if when != "before attach":
    inherited = attach()
if when == "with a thread that waits":
    threading.Thread(target=lambda: inherited.wait_version(after=10), daemon=True).start()
    threading.Thread(target=lambda: [inherited.get("n") for _ in iter(int, 1)], daemon=True).start()
waits = [by_wait_version, by_wait, by_changes, by_changes_async, by_grandchild]
pids = [fork(lambda: in_child(wait)) for wait in waits]
ended = [os.waitpid(pid, 0)[1] for pid in pids]
assert not any(ended), ended
reader = inherited or shmconf.attach("web", directory=directory)
look(reader, 2)
print(IMPLEMENTATION, flush=True)
sys.stdin.readline()
assert reader.wait_version(after=2, timeout=60) == 3
look(reader, 3)
"""


@both
@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize("when", ["before attach", "after attach", "with a thread that waits"])
def test_children_wait_and_look_up_whenever_they_were_forked(
    place: Any, writer: Any, publish: Callable[..., int], child: Any, when: str, cache: str, pure: str
) -> None:
    parent = child(FORK, place.run, when, cache, SHMCONF_PURE=pure)
    for _ in range(5):
        parent.expect("forked")
    publish(writer, {"n": 2, "text": "two", "list": [2]})
    parent.expect("pure" if pure else "native")
    publish(writer, {"n": 3, "text": "three", "list": [3]})
    parent.tell("go on")
    parent.finish()


PARENT_ENDS = """
import os, sys, shmconf
reader = shmconf.attach("web", directory=sys.argv[1])
assert reader.get("n") == 1
if os.fork():
    reader.close()
    os._exit(0)  # its mapping and descriptor go with it; the child has its own
os.write(1, b"alone\\n")
assert reader.wait_version(after=1, timeout=60) == 2
assert reader.get("n") == 2 and reader.snapshot()["n"] == 2
os.write(1, b"done\\n")
"""


@both
def test_a_child_outlives_its_parent(
    place: Any, writer: Any, publish: Callable[..., int], child: Any, pure: str
) -> None:
    orphan = child(PARENT_ENDS, place.run, SHMCONF_PURE=pure)
    orphan.process.wait(60)
    orphan.expect("alone")
    publish(writer, {"n": 2})
    orphan.expect("done")


# --- threads ------------------------------------------------------------------------------------------------------

CLOSE = """
import faulthandler, sys, threading, shmconf
from shmconf.mapping import IMPLEMENTATION
faulthandler.enable()
directory, rounds = sys.argv[1], int(sys.argv[2])
sys.setswitchinterval(1e-5)
looks = {
    "cached": lambda reader: reader.get("n"),
    "scalars": lambda reader: (reader.get("text"), reader["text"], "n" in reader),
    "containers": lambda reader: (reader["list"], reader.get(("list", 0))),
    "misses": lambda reader: (reader.get("absent"), ("list", 7) in reader),
    "versions": lambda reader: reader.version,
    "snapshots": lambda reader: reader.snapshot()["n"],
    "statuses": lambda reader: reader.status(),
    "waits": lambda reader: reader.wait_version(timeout=0),
}
failures = []
begun = closed_early = 0
for number in range(rounds):
    reader = shmconf.attach("web", directory=directory)
    chosen = [list(looks.values())[(number + step) % len(looks)] for step in (0, 3, 5)]
    counts = [0] * len(chosen)
    barrier = threading.Barrier(len(chosen) + 2)

    def read(place, look):
        barrier.wait()
        try:
            while True:
                look(reader)
                counts[place] += 1
        except shmconf.Error as error:
            if str(error) != "the Reader of segment 'web' is closed":
                failures.append(error)
        except BaseException as error:
            failures.append(error)

    def close():
        barrier.wait()
        for _ in range(number % 50):
            pass
        while number % 3 and not all(counts):  # in the midst of it; else perhaps at once
            pass
        reader.close()

    threads = [threading.Thread(target=read, args=pair) for pair in enumerate(chosen)]
    threads += [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            faulthandler.dump_traceback()
            sys.exit("a thread hangs")
    begun += all(counts)
    closed_early += not all(counts)
    assert not failures, failures
    with open("/proc/self/maps") as maps:
        assert "web.shmconf" not in maps.read(), "it stays mapped"
print(IMPLEMENTATION, begun, closed_early)
"""


@both
def test_closing_under_threads_that_read_each_way(place: Any, writer: Any, child: Any, pure: str) -> None:
    rounds = 300
    closing = child(CLOSE, place.run, rounds, SHMCONF_PURE=pure)
    variant, begun, early = closing.finish(seconds=250).split()
    assert variant == ("pure" if pure else "native")
    assert int(begun) + int(early) == rounds
    assert int(begun) >= rounds / 2, "they did not overlap"


SHARE = """
import sys, threading, shmconf
sys.setswitchinterval(1e-5)
reader = shmconf.attach("web", directory=sys.argv[1])
failures = []
seen = [set() for _ in range(4)]
enough = open(sys.argv[2], "w")

def read(mine):
    floor = 0
    try:
        while not reader.get("stop", False):
            before = reader.version
            found = [reader.get("n"), reader["n"], int(reader.get("text")), reader.get(("list", 0)), *reader["list"]]
            after = reader.version
            assert before >= floor, (before, floor)
            assert found == sorted(found) and before <= found[0] and found[-1] <= after, (before, found, after)
            floor = found[-1]
            mine.add(floor)
            if min(map(len, seen)) >= 20:
                enough.write("enough\\n")
                enough.flush()
    except (TypeError, KeyError) as error:
        if not reader.get("stop", False):  # a version that has nothing else
            failures.append(error)
    except BaseException as error:
        failures.append(error)

threads = [threading.Thread(target=read, args=(mine,)) for mine in seen]
for thread in threads:
    thread.start()
print("reading", flush=True)
for thread in threads:
    thread.join(60)
    assert not thread.is_alive(), "a thread hangs"
assert not failures, failures
"""


@both
def test_threads_that_share_a_reader_never_see_a_value_from_before(
    place: Any, tmp_path: Path, writer: Any, publish: Callable[..., int], child: Any, until: Any, pure: str
) -> None:
    """What one thread looks up is cached for the others: never beyond the version that it is of."""
    publish(writer, {"n": 2, "text": "2", "list": [2]})
    reading = child(SHARE, place.run, tmp_path / "enough", SHMCONF_PURE=pure)
    reading.expect("reading")
    numbers = itertools.count(3)

    def publish_more() -> bool:
        number = next(numbers)
        publish(writer, {"n": number, "text": str(number), "list": [number]})
        return reading.process.poll() is not None or (tmp_path / "enough").stat().st_size > 0

    until(publish_more, "every thread sees 20 versions")
    publish(writer, {"stop": True})
    reading.finish(seconds=120)


# --- the end of the interpreter -----------------------------------------------------------------------------------

ENDS: dict[str, str] = {
    "a daemon thread waits": """
        thread(lambda: reader.wait_version(after=5))
    """,
    "a daemon thread iterates": """
        thread(lambda: list(reader.changes()))
    """,
    "daemon threads look up": """
        for _ in range(3):
            thread(lambda: [(reader.get("n"), reader["text"], reader["list"], reader.snapshot()) for _ in iter(int, 1)])
    """,
    "a thread waits for a second": """
        thread(lambda: reader.wait_version(after=5, timeout=1), daemon=False)
    """,
    "an abandoned asynchronous iteration": """
        import asyncio
        loop = asyncio.new_event_loop()
        changes = reader.changes_async(after=0)
        assert loop.run_until_complete(anext(changes))["n"] == 1
        loop.run_until_complete(changes.aclose())
        loop.close()
    """,
    "a loop in a daemon thread iterates": """
        import asyncio
        async def follow():
            async for snapshot in reader.changes_async(after=0):
                begun.set()
        thread(lambda: asyncio.run(follow()))
        begun.wait()
    """,
    "asyncio.run is left by an exception": """
        import asyncio
        async def follow():
            async for snapshot in reader.changes_async(after=0):
                raise SystemExit(0)
        try:
            asyncio.run(follow())
        except SystemExit:
            pass
    """,
    "at exit something is looked up": """
        import atexit
        atexit.register(lambda: print(reader.get("n"), flush=True) or reader.close())
        thread(lambda: reader.wait_version(after=5))
    """,
    "a cycle is left": """
        kept = {"reader": reader, "wait": reader.wait}
        kept["kept"] = kept
        class Kept:
            def __del__(self):
                reader.get("n")
        kept["last"] = Kept()
    """,
}
END = """
import sys, threading, shmconf
begun = threading.Event()
def thread(work, daemon=True):
    running = threading.Event()
    def run():
        running.set()
        work()
    threading.Thread(target=run, daemon=daemon).start()
    running.wait()
reader = shmconf.attach("web", directory=sys.argv[1])
reader.get("n")
"""


@both
@pytest.mark.parametrize("what", ENDS)
def test_the_interpreter_ends_in_time_and_in_silence(place: Any, writer: Any, child: Any, what: str, pure: str) -> None:
    code = END + textwrap.dedent(ENDS[what])
    children = [child(code, place.run, SHMCONF_PURE=pure) for _ in range(3)]
    for one in children:
        said = one.finish(check=True, seconds=120)
        assert said == ("1\n" if "looked up" in what else "")
    for one in children:
        assert one.process.returncode == 0


# --- garbage ------------------------------------------------------------------------------------------------------

GARBAGE = """
import gc, os, sys, tracemalloc, weakref, shmconf
from shmconf.mapping import IMPLEMENTATION
directory, times = sys.argv[1], int(sys.argv[2])

def mapped():
    with open("/proc/self/maps") as maps:
        return sum(line.rstrip().endswith("web.shmconf") for line in maps)

def use(reader):
    assert reader.get("n") == reader["n"] == 1 and reader.get("absent") is None and reader["list"] == [1]

def closed():
    reader = shmconf.attach("web", directory=directory)
    use(reader)
    reader.close()

def let_go():
    use(shmconf.attach("web", directory=directory))

def with_statement():
    with shmconf.attach("web", directory=directory) as reader:
        use(reader)
        reader.snapshot()["n"]

def cycle():
    reader = shmconf.attach("web", directory=directory)
    use(reader)
    box = [reader]
    box.append(box)
    seen.append(weakref.ref(reader))
    del seen[:-1]

class Own(shmconf.Reader):
    pass

def own_cycle():
    reader = Own("web", shmconf.attach("web", directory=directory).attachment(), None)
    use(reader)
    reader.itself = reader

def refused():
    for ask in (lambda: reader.get(""), lambda: reader["absent"], lambda: reader.get(), lambda: reader.get("n", 1, 2)):
        try:
            ask()
        except (shmconf.PathError, KeyError, TypeError):
            pass

PATHS = ("list.0", "n", "absent.x", "list", ("list", 0), ("n",), ("absent",), ("n", True), (b"x",), (None,), (2**70,))

def answers():
    for path in PATHS:
        reader.get(path)
        path in reader

seen = []
reader = shmconf.attach("web", directory=directory)
base = mapped()
for work in (closed, let_go, with_statement, cycle, own_cycle, refused, answers):
    for _ in range(5):  # a leak is in each of them; what the interpreter keeps for itself is not
        gc.collect()
        fds = len(os.listdir("/proc/self/fd"))
        tracemalloc.start()
        before, blocks = tracemalloc.get_traced_memory()[0], sys.getallocatedblocks()
        for _ in range(times):
            work()
        gc.collect()
        grown, blocks = tracemalloc.get_traced_memory()[0] - before, sys.getallocatedblocks() - blocks
        tracemalloc.stop()
        assert len(os.listdir("/proc/self/fd")) == fds, f"{work.__name__}: descriptors"
        assert mapped() == base, f"{work.__name__}: {mapped() - base} mappings are left"
        if grown < 100_000 + 12 * times and blocks < 500 + times / 10:
            break
    else:
        sys.exit(f"{work.__name__}: {grown} bytes and {blocks} blocks in {times} times")
assert seen[0]() is None
print(IMPLEMENTATION)
"""


@both
@pytest.mark.timeout(300)
def test_ten_thousand_readers_leave_nothing_behind(place: Any, writer: Any, child: Any, pure: str) -> None:
    times = 1_500 if pure else 10_000
    assert child(GARBAGE, place.run, times, SHMCONF_PURE=pure).finish(seconds=250) == ("pure\n" if pure else "native\n")


CYCLES = """
import gc, sys, weakref, shmconf
gc.disable()

def mapped():
    with open("/proc/self/maps") as maps:
        return "web.shmconf" in maps.read()

class Asked:
    '''Collected together with a Reader, which it asks when it goes.'''
    def __init__(self, reader):
        self.reader, self.said = reader, said
    def __del__(self):
        self.said.append(self.reader.get("n"))
        self.said.append(self.reader["text"])
        self.said.append(self.reader.version)

said = []
reader = shmconf.attach("web", directory=sys.argv[1])
reader.get("n")
box = [reader, Asked(reader)]
box.append(box)
left = weakref.ref(reader, lambda _: said.append("gone"))
del reader, box
assert mapped() and left() is not None and not said
gc.collect()
assert sorted(said, key=str) == [1, 1, "gone", "one"], said
assert not mapped() and left() is None

# One that is brought back from the dead goes on.
class Saved:
    def __init__(self, reader):
        self.reader = reader
    def __del__(self):
        global back
        back = self.reader
saved = [Saved(shmconf.attach("web", directory=sys.argv[1]))]
saved.append(saved)
del saved
gc.collect()
assert back.get("n") == 1 and back["list"] == [1] and back.snapshot()["n"] == 1
back.close()
"""


@both
def test_readers_in_cycles_are_collected_and_may_be_asked_until_then(
    place: Any, writer: Any, child: Any, pure: str
) -> None:
    child(CYCLES, place.run, SHMCONF_PURE=pure).finish()


# --- subinterpreters ----------------------------------------------------------------------------------------------

SUBINTERPRETERS = """
import os, sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import shmconf
from shmconf.mapping import IMPLEMENTATION
code = '''
import sys
sys.path[:] = %r
import shmconf
from shmconf.mapping import IMPLEMENTATION, NATIVE_MISSING
reader = shmconf.attach("web", directory=%r)
assert reader.get("n") == reader["n"] == reader.snapshot()["n"] == 1
assert reader.get("list") == [1] and "absent" not in reader
for ask, error in ((lambda: reader.get(""), shmconf.PathError), (lambda: reader["absent"], KeyError)):
    try:
        ask()
    except error:
        pass
    else:
        raise AssertionError(error)
print(IMPLEMENTATION, NATIVE_MISSING, flush=True)
''' % (sys.path, sys.argv[1])
reader = shmconf.attach("web", directory=sys.argv[1])
def held():
    return sum(os.stat(f"/proc/self/fd/{fd}").st_ino == file.st_ino for fd in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{fd}"))
file = os.stat(sys.argv[1] + "/web.workers")
assert held() == 1
for _ in range(3):
    assert reader.get("n") == 1
    one = interpreters.create()
    failed = interpreters.run_string(one, code)
    assert failed is None, failed
    interpreters.destroy(one)
    assert held() == 1, "the interpreter that ended has left its descriptor"
assert reader.get("n") == 1 and reader["list"] == [1]
"""


def test_subinterpreters_attach_on_their_own(
    place: Any, writer: Any, child: Any, require: Callable[[object, str], None]
) -> None:
    """With the native module, or without it where an interpreter has a lock of its own, which the module does not."""
    said = child(SUBINTERPRETERS, place.run).finish().splitlines()
    assert len(said) == 3
    for line in said:
        variant, missing = line.split(maxsplit=1)
        assert variant == IMPLEMENTATION or (variant == "pure" and "interpreter" in missing), line
        if sys.version_info < (3, 12):
            assert variant == IMPLEMENTATION
