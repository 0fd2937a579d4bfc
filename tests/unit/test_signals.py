"""What signals do to a command's process, in processes of their own; a run under them is in tests/ray."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.ray.conftest import wait_until

from headway.cluster.local.processes import session_of
from headway.driver.signals import AGAIN_S

BEGIN = """
import os, signal, subprocess, sys, threading, time
from headway.driver import signals
signals.begin()

def say(*words):
    print(*words, flush=True)

def wait(condition, seconds=30):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)

"""
WAIT = """
try:
    say("ready")
    wait(lambda: False)
except KeyboardInterrupt:
    say("interrupted")
    sys.exit(130)
"""
STOP = """
stop = threading.Event()
with signals.asking(stop):
    say("ready")
    wait(stop.is_set)
    say("asked", stop.is_set())
    wait(lambda: os.path.exists(sys.argv[1]))
say("after")
wait(lambda: os.path.exists(sys.argv[1] + "2"), 5)
"""
CHILDREN = """
import subprocess
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {deaf!r}], process_group=0)"
child = subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
stop = threading.Event()
with signals.asking(stop):
    say("ready")
    wait(stop.is_set)
    say("asked")
    wait(lambda: False)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(program: str, before: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", before + BEGIN + program, str(tmp_path / "on")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        for pid in session_of(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_is_interrupted(start: Start, number: int) -> None:
    process = start(WAIT)
    process.send_signal(number)
    assert line(process) == "interrupted"
    assert process.wait(30) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_is_asked_and_what_comes_after_it_is_not_interrupted(start: Start, number: int, tmp_path: Path) -> None:
    process = start("signals.AGAIN_S = 20.0  # however late the second comes\n" + STOP)
    process.send_signal(number)
    os.killpg(process.pid, number)  # as `timeout` does: one request
    assert line(process) == "asked True"
    (tmp_path / "on").touch()
    assert line(process) == "after"
    (tmp_path / "on2").touch()
    assert process.wait(30) == 0


def test_a_signal_after_the_run_does_not_change_how_it_ended(start: Start, tmp_path: Path) -> None:
    (tmp_path / "on").touch()
    process = start(STOP.replace("wait(stop.is_set)", "pass"))
    assert line(process) == "asked False"
    assert line(process) == "after"
    process.send_signal(signal.SIGTERM)
    (tmp_path / "on2").touch()
    assert process.wait(30) == 0


def test_asked_twice_it_ends_with_all_that_it_started(start: Start) -> None:
    process = start(CHILDREN)
    assert len(session_of(process.pid)) == 3
    process.send_signal(signal.SIGTERM)
    assert line(process) == "asked"
    time.sleep(2 * AGAIN_S)  # closer ones would be one request
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert "ended at once" in (line(process) or line(process))
    wait_until(lambda: not session_of(process.pid), "the end of all", 30)


def test_under_nohup_a_hangup_stays_ignored(start: Start) -> None:
    process = start(WAIT, before="import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert line(process) == "interrupted"
    assert process.wait(30) == 130


def test_a_script_keeps_its_own_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from headway.driver import signals

    monkeypatch.setattr(signals, "_ear", signals._Ear())  # other tests run commands in this process
    mine = lambda number, frame: None  # noqa: E731
    before = {number: signal.signal(number, mine) for number in signals.ASKING}
    try:
        stop = threading.Event()
        with signals.asking(stop):
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait(10)
        assert all(signal.getsignal(number) is mine for number in signals.ASKING)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


UNTOLD = """
say("ready")
wait(lambda: os.path.exists(sys.argv[1]))
say("nobody told this process that its terminal is gone")
"""


@pytest.mark.parametrize("told", [True, False], ids=["told by a signal", "not told yet"])
def test_a_terminal_that_is_gone_is_not_written_to(tmp_path: Path, told: bool) -> None:
    """The command's terminal hangs up in mid-run: it is asked, and what it says from then on is no error."""
    end = 'print("more", file=sys.stderr, flush=True)\nopen(sys.argv[1] + "3", "w")'
    program = BEGIN + (STOP.replace('say("after")', end) if told else UNTOLD + end)

    def take_terminal() -> None:
        if not told:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "on")],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(follower)
    assert b"ready" in os.read(leader, 100)
    os.close(leader)  # the kernel sends SIGHUP to the session's foreground
    (tmp_path / "on").touch()
    (tmp_path / "on2").touch()
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "on3").exists()
