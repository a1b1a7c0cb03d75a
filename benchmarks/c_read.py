"""The C reader's cached integer against the least that a reader can do: one acquire load."""

from __future__ import annotations

from shmconf import codec, layout

from . import sample
from .compiled import compile_c, run
from .place import place, writer
from .row import Outcome, Row


def measure() -> Outcome:
    """`shmconf_int_cell_get` against an acquire load of `latest`, in equal loops of read_int.c."""
    with place() as directory, writer(directory) as publisher:
        program = compile_c("read_int", directory)
        publisher.publish(codec.pack(sample.tree()))
        cell, load, empty = run(
            program, directory, sample.SCALAR_PATH, sample.SCALAR_VALUE, publisher.path, layout.LATEST
        )
    return Outcome(cell, load, "s", {"the loop alone": empty}, note="smallest of 50 interleaved rounds, loop included")


ROWS = [Row("c-read", "C: read of one integer, version unchanged", "an acquire load from the same line", 3, measure)]
