"""One agent for each segment; what is deleted under it comes back; several segments, signals, full file systems."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest

import shmconf


@pytest.fixture
def web(home):
    """A home with one segment of one file, with the value 1."""
    home.segment("base.yaml")
    home.write("base.yaml", "value: 1\n")
    return home


def edit(home, value: int) -> None:
    home.write("base.yaml", f"value: {value}\n")


def test_a_second_agent_exits_1_and_names_the_first(web):
    first = web.start()
    reader = web.attach()
    second = web.start()
    assert second.ends() == 1
    assert f"shmconf: segment 'web' already has an agent (process {first.pid})" in second.text()
    assert len(second.text().splitlines()) == 1
    assert first.process.poll() is None
    edit(web, 2)
    assert reader.wait(after=1, timeout=60)["value"] == 2


def test_a_second_agent_with_the_same_state_directory_is_refused_as_well(web):
    first = web.start()
    web.attach()
    second = web.start("--runtime-dir", str(web.root / "run2"), "run")
    assert second.ends() == 1
    assert f"(process {first.pid})" in second.text()


def test_an_agent_that_was_killed_keeps_nobody_out(web):
    first = web.start()
    reader = web.attach()
    first.kill()
    assert web.status()[0] in (0, 4)  # for three seconds nobody can know
    web.start()
    edit(web, 2)
    assert reader.wait(after=1, timeout=60).version == 2


def test_a_segment_file_deleted_under_a_live_agent_is_put_back(web, eventually):
    agent = web.start()
    reader = web.attach()
    epoch, version = reader.epoch, reader.version
    (web.runtime / "web.shmconf").unlink()
    snapshot = reader.wait(after=version, timeout=60)
    assert (snapshot.version > version, snapshot.epoch != epoch, snapshot["value"]) == (True, True, 1)
    agent.says("the segment file was removed; put back")
    assert reader.status().reopened == 1
    edit(web, 2)
    assert reader.wait(after=snapshot.version, timeout=60).version == snapshot.version + 1
    assert reader["value"] == 2
    assert web.attach().epoch == reader.epoch


def test_a_runtime_directory_wiped_under_a_live_agent_is_made_again(web, eventually):
    web.start()
    reader = web.attach()
    version = reader.version
    shutil.rmtree(web.runtime)
    assert reader["value"] == 1  # what is mapped stays
    assert reader.wait(after=version, timeout=60).version > version
    edit(web, 2)
    eventually(lambda: reader["value"] == 2, "the edit")
    assert web.status()[0] == 0


def test_a_runtime_directory_wiped_between_two_agents(web, eventually):
    first = web.start()
    reader = web.attach()
    edit(web, 2)
    version = reader.wait(after=1, timeout=60).version
    assert first.stop() == 0
    shutil.rmtree(web.runtime)
    edit(web, 3)
    web.start()
    snapshot = reader.wait(after=version, timeout=60)
    assert (snapshot.version > version, snapshot["value"]) == (True, 3)
    edit(web, 4)
    assert reader.wait(after=snapshot.version, timeout=60).version == snapshot.version + 1


def test_state_and_runtime_directory_lost_together_are_still_a_new_epoch(web, eventually):
    first = web.start()
    reader = web.attach()
    assert first.stop() == 0
    shutil.rmtree(web.runtime)
    shutil.rmtree(web.state)
    edit(web, 2)
    web.start()
    eventually(lambda: reader.snapshot()["value"] == 2, "the reader finds the new segment")
    edit(web, 3)
    eventually(lambda: reader["value"] == 3, "and follows it")


def test_the_locks_deleted_under_a_live_agent_still_keep_a_second_one_out(web, eventually):
    """It takes them again at its next look; whoever came in between has the segment then."""
    first = web.start()
    reader = web.attach()
    (web.runtime / "web.lock").unlink()
    (web.state / "web.lock").unlink()
    edit(web, 2)
    reader.wait(after=1, timeout=60)
    second = web.start()
    assert second.ends() == 1
    assert f"(process {first.pid})" in second.text()


def test_of_two_agents_that_deleted_locks_let_in_the_first_stops_before_it_writes(web, eventually):
    first = web.start()
    reader = web.attach()
    os.kill(first.pid, signal.SIGSTOP)  # it would take its locks again within a second
    (web.runtime / "web.lock").unlink()
    (web.state / "web.lock").unlink()
    second = web.start()
    eventually(lambda: reader.status().agent.pid == second.pid, lambda: f"the second one; {second.text()}")
    edit(web, 2)
    assert reader.wait(after=1, timeout=60)["value"] == 2
    os.kill(first.pid, signal.SIGCONT)
    assert first.ends() == 1
    assert f"(process {second.pid})" in first.text()
    assert reader.version == 2
    edit(web, 3)
    assert reader.wait(after=2, timeout=60)["value"] == 3
    assert second.process.poll() is None
    assert web.status()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_stops_the_agent_and_the_segment_stays(web, number):
    agent = web.start()
    reader = web.attach()
    assert agent.stop(number) == 0
    assert "Aborted" not in agent.text()
    assert reader["value"] == 1
    code, told = web.status()
    assert (code, told["agent_state"], told["agent_alive"], told["version"]) == (4, "stopped", False, 1)
    assert "stopped; readers go on" in web.run("status", "web").stdout
    assert web.run("get", "web", "value").stdout == "1\n"


def test_without_a_heartbeat_the_agent_counts_as_dead_and_alive_again_after(web, eventually):
    """SIGSTOP stands for whatever keeps the whole process from running."""
    agent = web.start()
    reader = web.attach()
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        eventually(lambda: not reader.status().agent_alive, "no heartbeat for 3 s")
        code, told = web.status()
        assert (code, told["state"]) == (4, "agent not alive")
        assert "readers go on" in web.run("status", "web").stdout
        edit(web, 2)
        assert reader["value"] == 1
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    assert reader.wait(after=1, timeout=60)["value"] == 2
    eventually(lambda: reader.status().agent_alive, "the heartbeat")
    assert web.status()[0] == 0


# --- several segments, and SIGHUP -------------------------------------------------------------------------------------


@pytest.fixture
def two(home):
    home.segment("web.yaml", name="web")
    home.segment("jobs.toml", name="jobs")
    home.write("web.yaml", "value: 1\n")
    home.write("jobs.toml", "value = 1\n")
    return home


def test_one_agent_serves_several_segments(two, eventually):
    agent = two.start()
    web, jobs = two.attach("web"), two.attach("jobs")
    two.write("web.yaml", "value: [\n")
    eventually(lambda: web.status().last_error, "a rejection")
    two.write("jobs.toml", "value = 2\n")
    assert jobs.wait(after=1, timeout=60)["value"] == 2  # whatever became of the other
    assert (web["value"], web.version) == (1, 1)
    result = two.run("status")
    assert result.returncode == 3
    assert re.search(r"^web +1 +serving last known good ", result.stdout, re.MULTILINE)
    assert re.search(r"^jobs +2 +healthy ", result.stdout, re.MULTILINE)
    assert agent.stop() == 0
    assert two.run("status").returncode == 4


def test_sighup_reads_the_agents_file_again(two, eventually):
    agent = two.start()
    web, jobs = two.attach("web"), two.attach("jobs")
    config = (two.root / "shmconf.toml").read_text()
    two.write("third.yaml", "value: 3\n")
    two.write("more.yaml", "more: 1\n")
    changed = config.replace('["web.yaml"]', '["web.yaml", "more.yaml"]').replace("jobs.toml", "jobs2.toml")
    two.write("jobs2.toml", "value = 5\n")
    two.write("shmconf.toml", changed + '[segment.third]\nsources = ["third.yaml"]\n')
    agent.process.send_signal(signal.SIGHUP)
    assert two.attach("third")["value"] == 3
    eventually(lambda: web.get("more") == 1, "a source more")
    assert (web.version, web["value"]) == (2, 1)
    eventually(lambda: jobs["value"] == 5, "another source")

    two.write("shmconf.toml", '[segment.web]\nsources = ["web.yaml"]\nsettle = 1\n')
    agent.process.send_signal(signal.SIGHUP)
    line = agent.says("the agent's file was not taken")
    assert "shmconf.toml:3:1: unknown key 'settle'" in line
    two.write("web.yaml", "value: 7\n")
    eventually(lambda: web["value"] == 7, "it goes on with the file from before")
    assert web["more"] == 1

    two.write("shmconf.toml", '[segment.web]\nsources = ["web.yaml"]\n')
    agent.process.send_signal(signal.SIGHUP)
    agent.says("jobs: no longer in the agent's file")
    eventually(lambda: "more" not in web.snapshot(), "a source less")
    assert jobs["value"] == 5
    assert two.status("jobs")[0] == 4
    assert two.status("web")[0] == 0
    assert agent.process.poll() is None


def test_sighup_without_any_change_publishes_nothing(two, eventually):
    agent = two.start()
    web = two.attach("web")
    for _ in range(3):
        agent.process.send_signal(signal.SIGHUP)
    two.write("web.yaml", "value: 2\n")
    assert web.wait(after=1, timeout=60)["value"] == 2
    agent.process.send_signal(signal.SIGHUP)
    two.write("web.yaml", "value: 3\n")
    assert web.wait(after=2, timeout=60).version == 3


def test_none_of_several_segments_is_opened_if_one_is_taken(two):
    first = two.start("run", "--segment", "jobs", "jobs.toml")
    two.attach("jobs")
    second = two.start()
    assert second.ends() == 1
    assert f"segment 'jobs' already has an agent (process {first.pid})" in second.text()
    with pytest.raises(shmconf.SegmentNotFound):
        shmconf.attach("web", directory=two.runtime)


# --- a full file system -----------------------------------------------------------------------------------------------


@pytest.fixture
def small(web, require):
    """The same home, with a tmpfs of 256 KiB as its runtime directory."""
    require(os.geteuid() == 0 and shutil.which("mount"), "only root may mount a tmpfs")
    web.runtime.mkdir()
    options = ["-o", "size=256k,mode=0755"]
    mounted = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", web.runtime], capture_output=True)
    require(mounted.returncode == 0, "a tmpfs can be mounted")
    yield web
    web.close()
    subprocess.run(["umount", "-l", web.runtime], check=True)


def fill(path) -> None:
    """Write there until the file system is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(descriptor, bytes(4096)):
            pass
    os.close(descriptor)
    assert os.statvfs(path).f_bavail == 0


def test_a_full_file_system_is_an_error_in_the_status_and_nothing_else(small, eventually):
    agent = small.start()
    reader = small.attach()
    small.write("base.yaml", f"value: 2\ntext: {'x' * 400_000}\n")
    error = eventually(lambda: reader.status().last_error, "an error")
    assert "cannot be published" in error
    code, told = small.status()
    assert (code, told["agent_alive"], told["version"]) == (3, True, 1)
    assert reader["value"] == 1
    assert reader.snapshot().to_dict() == {"value": 1}
    edit(small, 3)
    assert reader.wait(after=1, timeout=60).version == 2
    assert reader["value"] == 3
    assert small.status()[0] == 0
    assert agent.process.poll() is None


def test_what_did_not_fit_is_published_once_there_is_room(small, eventually):
    small.start()
    reader = small.attach()
    ballast = small.runtime / "ballast"
    fill(ballast)
    small.write("base.yaml", f"value: 2\ntext: {'x' * 50_000}\n")
    eventually(lambda: reader.status().last_error, "an error")
    ballast.unlink()
    assert reader.wait(after=1, timeout=60)["value"] == 2
    eventually(lambda: small.status()[0] == 0, "all is well")


def test_a_state_directory_that_cannot_be_used_stops_nothing(web):
    """The reservation and the last known good are a warning, publication goes on."""
    web.state.write_text("a file where the directory should be")
    web.start()
    reader = web.attach()
    edit(web, 2)
    assert reader.wait(after=1, timeout=60)["value"] == 2
    code, told = web.status()
    assert code == 0
    assert any("versions may go back" in warning for warning in told["warnings"])


def test_a_state_directory_lost_under_a_live_agent_stops_nothing(web, eventually):
    """A file has taken its place: the reservation and the last known good are a warning, publication goes on."""
    agent = web.start()
    reader = web.attach()
    shutil.rmtree(web.state)
    web.state.touch()
    edit(web, 2)
    assert reader.wait(after=1, timeout=60)["value"] == 2
    warnings = eventually(lambda: web.status()[1]["warnings"], "a warning")
    assert any("versions may go back" in warning and "Not a directory" in warning for warning in warnings)
    assert not any("the segment file was removed" in warning for warning in warnings)
    assert (web.status()[0], reader.status().last_error) == (0, None)
    web.state.unlink()
    eventually(lambda: (web.state / "web.versions").exists(), "versions are reserved again")
    eventually(lambda: not any("go back" in warning for warning in web.status()[1]["warnings"]), "no warning is left")
    assert "cannot be published" not in agent.text()


def test_a_runtime_directory_that_is_full_from_the_start_is_one_line(small):
    fill(small.runtime / "ballast")
    agent = small.start()
    assert agent.ends() == 1
    assert len(agent.text().splitlines()) == 1
    assert "No space left" in agent.text() or "full" in agent.text()


def test_a_waiting_reader_is_not_disturbed_by_any_of_this(web):
    """It sleeps through a death, and wakes with the successor's first version."""
    first = web.start()
    reader = web.attach()
    seen: list[shmconf.Snapshot | None] = []
    waiting = threading.Thread(target=lambda: seen.append(reader.wait(after=1, timeout=60)))
    waiting.start()
    first.kill()
    edit(web, 2)
    web.start()
    waiting.join(100)
    assert [snapshot and (snapshot.version, snapshot["value"]) for snapshot in seen] == [(2, 2)]
