"""What the service manager hears: READY once there is something to serve, the reason before, and signs of real life."""

from __future__ import annotations

import signal
import socket
import threading
import time

import pytest

HANGING = """
import os, time
import shmconf_agent.pipeline as pipeline
pipeline._STAGE_SECONDS = 0.5
merge = pipeline.merge
def merge_or_hang(layers):
    tree = merge(layers)
    while tree.get("hang") and not os.path.exists("go on"):
        time.sleep(0.01)
    return tree
pipeline.merge = merge_or_hang
"""


class Manager:
    """Listens where $NOTIFY_SOCKET leads; messages with the time at which they came."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[tuple[float, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(65536):
            fields = dict(line.split("=", 1) for line in message.decode().splitlines())
            self.heard.append((time.monotonic(), fields))

    def values(self, name: str) -> list[str]:
        return [fields[name] for _, fields in list(self.heard) if name in fields]

    def latest(self, name: str) -> str:
        return ["", *self.values(name)][-1]

    def last(self, name: str) -> float:
        """When this was heard last."""
        return max((at for at, fields in list(self.heard) if name in fields), default=0.0)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@shmconf-test-{tmp_path}"[:100]
    made = Manager(address)
    yield made
    made.close()


def test_ready_is_sent_once_there_is_something_to_serve(home, manager, eventually):
    home.segment("base.yaml")
    home.segment("jobs.yaml", name="jobs")
    home.write("base.yaml", "a: [\n")
    home.write("jobs.yaml", "a: 1\n")
    agent = home.start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000000")
    eventually(lambda: any("rejected: base.yaml:2:1" in text for text in manager.values("STATUS")), "the reason")
    eventually(lambda: len(manager.values("WATCHDOG")) > 1, "it lives, though it serves nothing")
    assert manager.values("READY") == []
    assert "web: nothing to serve yet" in manager.latest("STATUS")
    home.write("base.yaml", "a: 1\n")
    eventually(lambda: manager.values("READY") == ["1"], "READY")
    assert manager.values("MAINPID") == [str(agent.pid)]
    eventually(lambda: manager.latest("STATUS") == "web: version 1; jobs: version 1", "the status")
    home.write("base.yaml", "a: [\n")
    eventually(lambda: "web: version 1, rejected: base.yaml:2:1" in manager.latest("STATUS"), "the reason")
    assert manager.values("STOPPING") == []
    assert agent.stop() == 0
    eventually(lambda: manager.values("STOPPING") == ["1"], "STOPPING")
    assert manager.values("READY") == ["1"]


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_reconciler_that_hangs_is_given_no_sign_of_life(home, manager, eventually):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    home.start(before=HANGING, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000000")
    reader = home.attach()
    eventually(lambda: len(manager.values("WATCHDOG")) > 2, "signs of life")
    home.write("base.yaml", "hang: true\n")
    eventually(lambda: not reader.status().agent_alive, "no heartbeat for 3 s")
    assert time.monotonic() - manager.last("WATCHDOG") > 2.0
    assert home.status()[0] == 4
    assert reader["a"] == 1
    (home.root / "go on").touch()
    stopped = manager.last("WATCHDOG")
    assert reader.wait(after=1, timeout=60)["hang"] is True
    eventually(lambda: manager.last("WATCHDOG") > stopped, "signs of life again")
    eventually(lambda: reader.status().agent_alive, "the heartbeat")


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_reload_by_signal_lasts_until_the_files_are_judged(home, manager, eventually):
    home.segment("base.yaml")
    home.write("base.yaml", "a: [\n")
    agent = home.start(before=HANGING, NOTIFY_SOCKET=manager.address)
    eventually(lambda: "rejected" in manager.latest("STATUS"), "the reason")
    agent.process.send_signal(signal.SIGHUP)  # nobody waits for the end of it: the start has not ended
    home.write("base.yaml", "a: 1\n")
    eventually(lambda: manager.values("READY") == ["1"], "READY")
    assert manager.values("RELOADING") == []

    home.write("base.yaml", "hang: true\n")
    began = time.monotonic_ns() // 1000
    agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: manager.values("RELOADING") == ["1"], "RELOADING")
    [since] = manager.values("MONOTONIC_USEC")
    assert began <= int(since) <= time.monotonic_ns() // 1000
    eventually(lambda: not home.status()[1]["agent_alive"], "a reader sees that it hangs")
    assert manager.values("READY") == ["1"]
    (home.root / "go on").touch()
    eventually(lambda: manager.values("READY") == ["1", "1"], "READY again")
    assert home.status()[1]["version"] == 2

    home.write("base.yaml", "a: [\n")
    agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: manager.values("READY") == ["1", "1", "1"], "a refusal is an end as well")
    assert home.status()[0] == 3


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_manager_that_does_not_listen_harms_nobody(home, manager, eventually):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    home.start(NOTIFY_SOCKET=str(home.root / "nobody"))
    reader = home.attach()
    home.write("base.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    assert home.status()[0] == 0
