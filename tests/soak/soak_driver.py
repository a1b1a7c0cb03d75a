"""The soak itself: rounds of edits and faults, after each of which every reader has what the files say.

    python tests/soak/soak_driver.py ROOT SECONDS SEED

ROOT is an empty directory that others may enter. Prints one line of JSON: what was done and seen. Exits with 1, and
says why, when a version was published that the files never were, or when readers don't come to what the files are.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from soak_edits import Site
from soak_faults import FAULTS, NOBODY, SECONDS, Agent, Fault, enter_namespaces, fail, mount_tmpfs, until
from soak_model import Model, Wrong
from soak_texts import Tree, equal, merge

import shmconf

MORE_SECONDS = 300.0  # for a machine that does not come to everything in time


class Checker(threading.Thread):
    """Holds each version that it sees against the model."""

    def __init__(self, directory: Path, model: Model) -> None:
        super().__init__(daemon=True)
        self._directory, self._model = directory, model
        self.wrong: str | None = None
        self.seen = 0
        self.version = 0
        self.tree: Tree | None = None
        self.stopping = False

    def run(self) -> None:
        try:
            self._follow()
        except Wrong as wrong:
            self.wrong = str(wrong)
        except Exception as error:
            self.wrong = f"{type(error).__name__}: {error}"

    def _follow(self) -> None:
        with shmconf.attach("soak", directory=self._directory, wait=SECONDS) as config:
            while not self.stopping:
                snapshot = config.wait(after=self.version, timeout=0.2)
                if snapshot is None:
                    continue
                tree = snapshot.to_dict()
                self._model.check(tree, f"version {snapshot.version}")
                if snapshot.version <= self.version:
                    raise Wrong(f"version {snapshot.version} after {self.version}")
                self.seen += 1
                self.tree, self.version = tree, snapshot.version


def main(root: Path, seconds: float, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    why_not = enter_namespaces()
    for directory in ("run", "state"):
        (root / directory).mkdir(mode=0o755)
        if why_not is None:
            mount_tmpfs(root / directory, "24m")
        elif os.geteuid() == 0:
            os.chown(root / directory, NOBODY, NOBODY)
    site = Site(root, chance)
    agent = Agent(root)
    agent.start()
    checker = Checker(root / "run", site.model)
    checker.start()
    followers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("soak_follower.py")), str(root / "run")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip

    def converge() -> None:
        def done() -> bool:
            if checker.wrong is not None:
                fail(f"{checker.wrong}\n(seed {seed})")
            if not agent.is_alive():
                fail(f"the agent ended by itself:\n{agent.text()[-3000:]}\n(seed {seed})")
            expected = site.model.expected()
            return expected is not None and checker.tree is not None and equal(checker.tree, expected)

        until(done, lambda: f"readers have what the files say (seed {seed}); the agent said\n{agent.text()[-3000:]}")

    faults: list[type[Fault]] = [each for each in FAULTS if why_not is None or not each.needs_namespace]
    if os.geteuid() == 0 and why_not is not None:
        faults = [each for each in faults if each.name != "no file descriptors"]
    skipped = [each.name for each in FAULTS if each not in faults]
    met: Counter[str] = Counter()
    rounds = 0
    converge()
    began = time.monotonic()
    bag: list[type[Fault]] = []
    while True:
        passed = time.monotonic() - began
        complete = all(site.counts[kind] for kind in site.kinds) and all(met[each.name] for each in faults)
        if passed >= seconds and complete:
            break
        if passed >= seconds + MORE_SECONDS:
            fail(f"not everything was come to: {site.counts}, {met}")
        if not bag:
            bag = list(faults)
            chance.shuffle(bag)
        fault = bag.pop()(site, agent) if chance.random() < 0.8 or not complete else None
        if fault is not None:
            fault.begin()
        _edits(site, chance)
        if fault is not None:
            fault.end()
            met[fault.name] += 1
        _edits(site, chance)
        site.repair()
        converge()
        rounds += 1
    expected = merge([_mounted(place, tree) for place, tree in site.read_all()])
    if not equal(checker.tree, expected):
        fail(f"independent parsers read the files otherwise than they were written (seed {seed})")
    checker.stopping = True
    checker.join(SECONDS)
    if checker.wrong is not None:
        fail(f"{checker.wrong}\n(seed {seed})")
    wanted = hashlib.sha256(repr(expected).encode()).hexdigest()
    seen = []
    for follower in followers:
        said, _ = follower.communicate(f"{checker.version}\n", timeout=SECONDS)
        versions, _, digest = said.partition(" ")
        if follower.returncode != 0 or digest.strip() != wanted:
            fail(f"another reader has something else: {said} (seed {seed})")
        seen.append(int(versions))
    code = agent.end(signal.SIGTERM)
    text = agent.text()
    if code != 0 or "Traceback" in text or "internal error" in text:
        fail(f"the agent ended with {code}; it said\n{text[-5000:]}\n(seed {seed})")
    return {
        "seed": seed, "seconds": round(time.monotonic() - began, 1), "rounds": rounds, "states": site.model.edits,
        "edits": dict(site.counts), "faults": dict(met), "skipped": skipped, "because": why_not,
        "published": text.count(" published in "), "rejected": text.count(": rejected, "), "versions": checker.version,
        "seen": [checker.seen, *seen], "starts": agent.starts,
    }  # fmt: skip


def _edits(site: Site, chance: random.Random) -> None:
    for _ in range(chance.randrange(4, 16)):
        site.edit()
        if chance.random() < 0.7:
            time.sleep(chance.uniform(0.0, 0.06))


def _mounted(place: tuple[str, ...], tree: Tree) -> Tree:
    for key in reversed(place):
        tree = {key: tree}
    return tree


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
