"""A thousand reloads, valid and not, leave no more behind than a few; nothing of what did not change is made again."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shmconf_agent import formats
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.pipeline import Pipeline
from shmconf_agent.problems import Invalid, Key
from shmconf_agent.progress import Progress
from shmconf_agent.sources import SourceFiles


def test_memory_is_bounded_after_a_thousand_reloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: Counter[str] = Counter()
    parse_documents = formats.parse_documents

    def counted(data: bytes, *, file: str, limits: formats.Limits) -> list[dict[Key, Any]]:
        parsed[file] += 1
        return parse_documents(data, file=file, limits=limits)

    monkeypatch.setattr(formats, "parse_documents", counted)
    (tmp_path / "still.yaml").write_text("".join(f"key-{number}: [{number}, text]\n" for number in range(2000)))
    config = SegmentConfig("web", tmp_path, (Source("still.yaml"), Source("edited.yaml")))
    files, pipeline, progress = SourceFiles(config), Pipeline(config), Progress()

    def reload(number: int) -> None:
        text = f"a: {number}\nb: &x [{number}]\nc: *x\n"
        (tmp_path / "edited.yaml").write_text(text if number % 5 else "a: [\n")
        view = files.look(at_once=True)
        progress.begin()
        with contextlib.suppress(Invalid):
            pipeline.run(view, progress)
        files.reject(view)  # it is judged

    for number in range(100):
        reload(number)
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(100, 1100):
        reload(number)
    gc.collect()
    assert sys.getallocatedblocks() - before < 1000
    assert parsed["still.yaml"] == 1
    assert parsed["edited.yaml"] >= 1000
