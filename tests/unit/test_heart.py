"""The heart of a worker: beats whatever its interpreter does, says that it is stopped, and dies with it."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from headway.elastic.wire import pulse
from headway.elastic.worker.heart import Heart, Page
from headway.elastic.worker.probe import reachable

HOST, TOKEN, WORKER = "127.0.0.1", "token", "w0"
DEADLINE_S = 20.0
SECRET = pulse.key(TOKEN, WORKER)
BESIDE = """
import ctypes, os, sys
from headway.elastic.worker.heart import Heart

heart = Heart("w0", ("127.0.0.1", int(sys.argv[1])), "127.0.0.1", "token")
heart.start()
heart.page.write(7, 3, 4, True)
print(heart._process.pid, heart.probe_port, flush=True)
while sys.stdin.buffer.raw.read(1):
    print("holds", flush=True)
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)  # holds the interpreter's lock until a byte comes
    print("back", flush=True)
"""


class Lead:
    """Takes pulses."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.settimeout(DEADLINE_S)
        self.address: tuple[str, int] = self.socket.getsockname()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hear(self) -> pulse.Pulse:
        data, self.back = self.socket.recvfrom(512)
        return pulse.opened(data, SECRET)

    def hear_until(self, condition: Callable[[pulse.Pulse], bool]) -> pulse.Pulse:
        deadline = time.monotonic() + DEADLINE_S
        while not condition(said := self.hear()):
            assert time.monotonic() < deadline, said
        return said

    def answer(self, number: int, at: float) -> None:
        self.socket.sendto(pulse.answer(pulse.Answer(number, at), SECRET), self.back)


@contextmanager
def worker(lead: Lead) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A worker's process; gives its heart's pid and probe port too."""
    command = [sys.executable, "-c", BESIDE, str(lead.address[1])]
    made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    pid, port = map(int, made.stdout.readline().split())
    try:
        yield made, pid, port
    finally:
        made.kill()
        made.communicate()


def ended(pid: int) -> bool:
    """Whether a process that is no child of this one is gone."""
    watch = os.pidfd_open(pid)
    try:
        return bool(select.select([watch], [], [], DEADLINE_S)[0])
    finally:
        os.close(watch)


def test_2_8_it_beats_while_the_interpreters_lock_is_held() -> None:
    with Lead() as lead, worker(lead) as (made, _, _):
        assert made.stdin is not None
        said = lead.hear_until(lambda said: said.mark == 7)
        assert (said.step, said.at, said.waiting, said.stopped) == (3, 4, True, False)
        assert made.stdout is not None
        made.stdin.write("x")
        made.stdin.flush()
        assert made.stdout.readline() == "holds\n"
        first = lead.hear()
        for _ in range(30):
            said = lead.hear()
            assert not said.stopped
        assert said.number >= first.number + 30
        assert not select.select([made.stdout], [], [], 0)[0], "it holds the lock still"
        made.stdin.write("x")
        made.stdin.flush()
        assert made.stdout.readline() == "back\n", "and was held until now"


def test_2_8_a_stopped_worker_is_seen_as_stopped_and_as_running_again() -> None:
    with Lead() as lead, worker(lead) as (made, _, _):
        assert not lead.hear().stopped
        made.send_signal(signal.SIGSTOP)
        lead.hear_until(lambda said: said.stopped)
        made.send_signal(signal.SIGCONT)
        lead.hear_until(lambda said: not said.stopped)


def test_2_8_it_dies_with_a_worker_that_is_killed() -> None:
    with Lead() as lead, worker(lead) as (made, pid, port):
        lead.hear()
        assert reachable(HOST, port)
        made.kill()
        assert ended(pid)


def test_2_19_a_lease_counts_from_the_sending_of_the_pulse_that_is_answered() -> None:
    with Lead() as lead:
        check_lease(lead)


def check_lease(lead: Lead) -> None:
    heart = Heart(WORKER, lead.address, HOST, TOKEN)
    before = time.monotonic()
    heart.start()
    try:
        first = lead.hear()
        heard = time.monotonic()
        lead.hear_until(lambda said: said.number >= first.number + 5)
        assert heart.page.leased_at == 0.0
        lead.answer(first.number, 41.5)
        lead.hear_until(lambda said: said.heard == 41.5)
        assert before < heart.page.leased_at <= heard, "not from the answer's coming"
        stamp = heart.page.leased_at
        lead.socket.sendto(b"x" * 36, lead.back)
        other = pulse.key(TOKEN, "w1")
        lead.socket.sendto(pulse.answer(pulse.Answer(first.number + 3, 99.0), other), lead.back)
        lead.answer(10**6, 42.0)  # of no pulse that was sent
        lead.hear_until(lambda said: said.heard == 42.0)
        assert heart.page.leased_at == stamp
    finally:
        heart.close()


def test_a_page_is_what_both_sides_see() -> None:
    descriptor = os.memfd_create("page")
    os.truncate(descriptor, 4096)
    mine, theirs = Page(descriptor), Page(descriptor)
    mine.write(5, -1, 8, True)
    mine.carry(3)
    assert (theirs.mark, theirs.step, theirs.at, theirs.waiting) == (8, -1, 8, True)
    theirs.lease(1.25)
    assert mine.leased_at == 1.25
    mine.close()
    theirs.close()
    os.close(descriptor)


def test_2_7_a_probe_says_who_answers() -> None:
    with socket.create_server((HOST, 0)) as listener:
        host, port = listener.getsockname()
        assert reachable(host, port)
    begun = time.monotonic()
    assert reachable(host, port, within_s=60.0), "a refusal is an answer of the machine"
    assert time.monotonic() - begun < 30.0


def test_2_7_a_probe_of_what_does_not_answer_takes_its_time_and_no_more() -> None:
    with socket.socket() as full:
        full.bind((HOST, 0))
        full.listen(0)
        place = full.getsockname()
        waiting = []
        for _ in range(3):  # its queue is full: further attempts are dropped, as on a cut link
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(place)
        begun = time.monotonic()
        assert not reachable(*place, within_s=0.8)
        assert 0.7 < time.monotonic() - begun < 30.0, "the kernel itself would try for minutes"
        for each in waiting:
            each.close()


def test_2_8_a_heart_starts_in_a_process_with_many_open_files() -> None:
    """It was a ValueError, which is no OSError, and the worker's end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    heart = Heart("w0", ("127.0.0.1", 9), "127.0.0.1", "token")
    try:
        heart.start()
        assert heart.probe_port
    finally:
        heart.close()
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
