"""The one process beside a pool's process: a heart for each run, and a keeper of what it writes in each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import until

from headway.elastic.wire import pulse
from headway.elastic.worker import attendant as module
from headway.elastic.worker.attendant import Attendant, Attended
from headway.elastic.worker.probe import reachable
from headway.logs.reading import Reader
from headway.storage.folder import FolderStorage

HOST, TOKEN = "127.0.0.1", "token"
WORKER = """
import os, sys
from headway.elastic.worker.attendant import Attendant
from headway.elastic.worker.output import Output

attendant = Attendant()
attendant.start()
for name in sys.argv[1:]:
    output = Output("worker-w0", name, attendant=attendant)
    output.start()
    print("in", os.path.basename(name), flush=True)
    os.system("echo a child of it")
    if name == sys.argv[-1]:
        print("last words", flush=True)
        os.kill(os.getpid(), 9)
    output.close()
    print("between", flush=True)
"""


@pytest.fixture
def attendant() -> Iterator[Attendant]:
    made = Attendant()
    made.start()
    yield made
    made.close()


@pytest.fixture
def lead() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((HOST, 0))
        made.settimeout(20.0)
        yield made


def heard(lead: socket.socket, worker: str) -> pulse.Pulse:
    """The next pulse of a worker; those that another sent before are passed over."""
    while True:
        data, _ = lead.recvfrom(512)
        if pulse.claimed(data) == worker:
            return pulse.opened(data, pulse.key(TOKEN, worker))


def test_it_beats_in_one_run_after_the_other(attendant: Attendant, lead: socket.socket) -> None:
    for worker, step in (("w0", 3), ("w7", 5)):
        heart = Attended(attendant, worker, lead.getsockname(), HOST, TOKEN)
        assert heart.page.leased_at == 0.0
        heart.start()
        heart.page.write(step, step, 4, True)
        until(lambda worker=worker, step=step: heard(lead, worker).step == step, "its step was heard")
        assert reachable(HOST, heart.probe_port)
        heart.close()
    pid = attendant.pid
    attendant.close()
    until(lambda: not os.path.exists(f"/proc/{pid}"), "it ended")  # noqa: PTH110


def test_a_heart_that_rests_is_silent(attendant: Attendant, lead: socket.socket) -> None:
    for worker in ("w0", "w1"):
        heart = Attended(attendant, worker, lead.getsockname(), HOST, TOKEN)
        heart.start()
        heard(lead, worker)
        if worker == "w0":
            heart.close()
    for _ in range(5):  # whatever was under way is through
        assert pulse.claimed(lead.recvfrom(512)[0]) == "w1"
    heart.close()


def test_what_is_written_in_each_run_is_kept_with_it_to_the_last_word(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("one", "two")]
    for name in names:
        name.mkdir()
    given = [sys.executable, "-c", WORKER, *map(str, names)]
    done = subprocess.run(given, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.splitlines() == ["in one", "a child of it", "between", "in two", "a child of it", "last words"]
    assert words(names[0]) == ["in one", "a child of it"]
    until(lambda: words(names[1]) == ["in two", "a child of it", "last words"], "all of it is kept")


def words(run: Path) -> list[str]:
    return [line.text for line in Reader(FolderStorage(run)).news()]


def test_where_it_is_killed_the_worker_goes_on(attendant: Attendant, lead: socket.socket) -> None:
    os.kill(attendant.pid, signal.SIGKILL)
    until(lambda: not attendant.lives, "its end is known")
    heart = Attended(attendant, "w0", lead.getsockname(), HOST, TOKEN)
    with pytest.raises(OSError, match="not there"):
        heart.start()
    heart.close()


def test_a_worker_that_is_killed_before_its_word_was_heard_is_kept_all_the_same(tmp_path: Path) -> None:
    """The process beside it learns of both in one moment."""
    reads, writes = os.pipe()
    mine, theirs = socket.socketpair()
    word = {"do": "keep", "number": 1, "paths": [], "source": "worker-w0", "where": str(tmp_path), "options": None}
    line = json.dumps({**word, "every_s": 0.1, "patience_s": 5.0}).encode() + b"\n"
    through = os.open(os.devnull, os.O_WRONLY)
    socket.send_fds(mine, [line], [reads, through])
    os.write(writes, b"last words\n")
    for each in (writes, reads, through):
        os.close(each)
    mine.close()
    attending = module._Attending(theirs, -1, None)  # its worker is not its parent any more
    attending.run()
    attending.hear_out()
    for thread in attending.threads:
        thread.join(20)
    assert words(tmp_path) == ["last words"]
    theirs.close()
