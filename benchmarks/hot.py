"""Reads of one scalar while the version is unchanged: against a plain dictionary, and against the rivals."""

from __future__ import annotations

from contextlib import ExitStack, closing

import shmconf
from shmconf import codec

from . import sample
from .place import place, writer
from .rivals import RIVALS, Rival
from .row import Outcome, Row, Unavailable
from .timing import Timed, interleaved

_EXPRESSION = f'config.get("{sample.SCALAR_PATH}")'
_OURS = "shmconf"
# What each rival is given: it favours those that read or decode the whole at each look-up.
_RIVALS_SERVICES = 20


def measure_scalar() -> Outcome:
    """`config.get` of the sample's scalar against three subscripts of the same sample as a dictionary."""
    tree = sample.tree()
    with ExitStack() as stack:
        directory = stack.enter_context(place())
        stack.enter_context(writer(directory)).publish(codec.pack(tree))
        config = stack.enter_context(shmconf.attach("web", directory=directory))
        timed = {
            _OURS: Timed(_EXPRESSION, {"config": config}),
            "dict": Timed('d["db"]["pool"]["size"]', {"d": tree}),
        }
        _check(timed)
        found = interleaved(timed, rounds=200)
    ours, plain = found[_OURS], found["dict"]
    return Outcome(
        ours.smallest,
        plain.smallest,
        "s",
        {"measured, median": ours.median, "against, median": plain.median},
        note="smallest of 200 interleaved rounds",
    )


def measure_rivals() -> Outcome:
    """`config.get` against the fastest of the rivals that this machine has."""
    tree = sample.tree(_RIVALS_SERVICES)
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        directory = stack.enter_context(place())
        stack.enter_context(writer(directory)).publish(codec.pack(tree))
        config = stack.enter_context(shmconf.attach("web", directory=directory))
        timed = {_OURS: Timed(_EXPRESSION, {"config": config})}
        rivals: dict[str, Rival] = {}
        for kind in RIVALS:
            rival = kind()
            stack.enter_context(closing(rival))
            try:
                rival.prepare(tree, directory)
            except Unavailable as reason:
                missing[rival.name] = str(reason)
                continue
            rivals[rival.name] = rival
            timed[rival.name] = rival.timed()
        _check(timed)
        found = interleaved(timed)
    seconds = {name: one.smallest for name, one in found.items()}
    ours = seconds.pop(_OURS)
    counted = {name: taken for name, taken in seconds.items() if rivals[name].counts}
    if not counted:
        raise Unavailable("none of the rivals is on this machine")
    nearest = min(counted, key=counted.__getitem__)
    return Outcome(
        ours,
        counted[nearest],
        "s",
        dict(sorted(seconds.items(), key=lambda one: one[1])),
        missing,
        note=f"the nearest is {nearest}; smallest of 60 interleaved rounds each",
    )


def _check(timed: dict[str, Timed]) -> None:
    for name, one in timed.items():
        value = one.value()
        assert value == sample.SCALAR_VALUE, f"{name} read {value!r}"


ROWS = [
    Row("scalar", 'get("db.pool.size"), version unchanged', 'd["db"]["pool"]["size"]', 1.0, measure_scalar),
    Row("rivals", "the same", "the nearest rival", 0.12, measure_rivals),
]
