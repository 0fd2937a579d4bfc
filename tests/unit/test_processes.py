"""What belongs to a node, and ends with it: with a PID namespace everything, without one its session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.cluster.local.machine import Node
from headway.cluster.local.processes import belonging_to, isolation, kill_below, marked, numbers, only_child, session_of

LEADER = """
import os, sys, time
if "--adopt" in sys.argv:
    from headway.cluster.local.processes import adopt
    adopt()
if os.getsid(0) != os.getpid():
    os.setsid()
if os.fork() == 0:  # a daemon: forked twice, in a session of its own
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


class Machine:
    """A node without Ray: a leader, and a daemon that left its session."""

    def __init__(self, folder: Path, spaces: tuple[str, ...], *more: str) -> None:
        program = [sys.executable, "-c", LEADER, str(folder / "daemon"), *more]
        command = ["unshare", *spaces, "--", *program] if spaces else program
        self.process: subprocess.Popen[Any] = subprocess.Popen(command, start_new_session=True)
        leader = only_child(self.process.pid) if spaces else self.process.pid
        self.node = Node(0, self.process, leader, folder, bool(spaces))
        until(lambda: (folder / "daemon").exists())
        self.inner = int((folder / "daemon").read_text())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    started: list[Machine] = []

    def begin(spaces: tuple[str, ...], *more: str) -> Machine:
        started.append(Machine(tmp_path, spaces, *more))
        return started[-1]

    yield begin
    for machine in started:
        machine.node.end()
        if not machine.node.alone and running(machine.inner):
            os.kill(machine.inner, signal.SIGKILL)


def test_a_killed_node_takes_a_daemon_along(start: Callable[..., Machine]) -> None:
    if not isolation():
        pytest.skip("no PID namespaces can be made here")
    machine = start(isolation())
    node = machine.node
    daemon = node.process_of(machine.inner)
    assert daemon is not None
    assert numbers(daemon)[-1] == machine.inner
    assert numbers(node.pid)[-1] == 1
    assert node.process_of(1) == node.pid
    assert daemon not in session_of(node.pid)
    assert set(node.processes()) == {node.pid, daemon}
    node.signal(signal.SIGSTOP)
    until(lambda: state(daemon) == state(node.pid) == "T")
    node.end()  # one that stands still ends too
    assert not running(daemon)
    assert not running(node.pid)
    assert node.processes() == []
    assert node.process_of(machine.inner) is None


def test_without_a_namespace_whoever_adopts_takes_it_along(start: Callable[..., Machine]) -> None:
    """What nodes do where no namespace can be made."""
    machine = start((), "--adopt")
    node = machine.node
    until(lambda: set(node.processes()) == {node.pid, machine.inner}, "the daemon's parents have gone")
    assert machine.inner not in session_of(node.pid)
    node.end()
    assert not running(machine.inner)
    assert not running(node.pid)


def test_processes_are_known_by_their_mark(tmp_path: Path) -> None:
    mark = f"HEADWAY_TEST={tmp_path.name}-{os.getpid()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, name: value})
    try:
        until(lambda: marked(mark) == [process.pid], "it is found by what it was started with")
        assert marked(mark[:-1]) == []
    finally:
        process.kill()
        process.wait()
    assert marked(mark) == []


def test_a_session_does_not(start: Callable[..., Machine]) -> None:
    """The reason why nodes have a namespace, or adopt."""
    machine = start(())
    until(lambda: belonging_to(machine.node.pid) == [machine.node.pid], "the daemon's parent has gone")
    kill_below(machine.node.pid)
    machine.process.wait()
    assert running(machine.inner)


def test_a_machine_ends_with_its_owner(tmp_path: Path) -> None:
    """unshare is killed, as when its owner gives a node up that says nothing: the kernel takes the rest along."""
    if not isolation():
        pytest.skip("no PID namespaces can be made here")
    machine = Machine(tmp_path, isolation())
    everything = machine.node.processes()
    assert len(everything) == 2
    machine.process.kill()
    machine.process.wait()
    until(lambda: not any(map(running, everything)))


def test_one_that_is_gone_has_no_numbers() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert numbers(ended.pid) == ()
    assert belonging_to(ended.pid) == []


def test_without_unshare_there_are_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    isolation.cache_clear()
    try:
        assert isolation() == ()
    finally:
        isolation.cache_clear()


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def running(pid: int) -> bool:
    return state(pid) not in "ZX"
