"""Leaders that are killed (SIGKILL), or stopped and woken, at random moments; a store in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from headway.runs.folder import RunFolder
from headway.runs.mirror import Mirror
from headway.runs.remote import RemoteRun
from headway.storage.opener import open_storage
from headway.testing.forks import forks

LEASE_S = 0.6
ROUNDS = 30


def lead(store: str, folder: str, told: str) -> None:
    """A process that leads the run: writes steps, and tells which of them the store has, until it is killed."""
    run = RemoteRun(open_storage(store), "run")
    with Path(told).open("a", buffering=1) as out:
        lease = run.claim()
        run.pull(Path(folder))
        ended: list[str] = []
        mirror = Mirror(Path(folder), lease, 0.02, fail=lambda failure: ended.append(failure["kind"]))
        at, waiting = RunFolder(Path(folder)).last_step() + 1, []
        out.write(f"leads {lease.epoch}\n")
        with (Path(folder) / "steps.jsonl").open("a") as file:
            while not ended:
                file.write(json.dumps({"step": at, "text": "x" * 2000}) + "\n")
                file.flush()
                waiting.append((mirror.mark(), at))
                at += 1
                done = [step for mark, step in waiting if mark <= mirror.shipped]
                if done:
                    out.write(f"shipped {done[-1]}\n")
                    waiting = [entry for entry in waiting if entry[0] > mirror.shipped]
                time.sleep(0.001)
        out.write(f"{ended[0]}\n")


def words(told: Path) -> list[list[str]]:
    """What a process has told so far; a torn line is not heard."""
    text = told.read_text() if told.exists() else ""
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def heard(told: Path, word: str, timeout_s: float = 30.0) -> list[str]:
    deadline = time.monotonic() + timeout_s
    while True:
        for line in words(told):
            if line[0] == word:
                return line
        assert time.monotonic() < deadline, f"no {word!r} in {told.read_text() if told.exists() else ''!r}"
        time.sleep(0.005)


def stop(pid: int, lock: Path) -> None:
    """Have a process stand still, at a moment at which it does not hold the store's own lock."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        with lock.open("a") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)


@pytest.mark.slow
def test_thirty_leaders_that_are_killed(tmp_path: Path) -> None:
    seed = 12
    draw = random.Random(seed)
    store = str(tmp_path / "store")
    reader = RemoteRun(open_storage(store), "run")
    reader.create({}, lease_s=LEASE_S).release()
    asleep: list[tuple[BaseProcess, Path]] = []
    shipped, epochs = -1, []
    processes: list[BaseProcess] = []
    try:
        for number in range(ROUNDS):
            told, folder = tmp_path / f"told-{number}", tmp_path / f"copy-{draw.randrange(3) if not asleep else number}"
            process = forks.Process(target=lead, args=(store, str(folder), str(told)))
            process.start()
            processes.append(process)
            epochs.append(int(heard(told, "leads")[1]))
            time.sleep(draw.uniform(0.0, 0.4))  # the moment is what is random
            assert process.pid is not None
            if number % 6 == 5:
                stop(process.pid, Path(store) / "run" / ".lock")
                asleep.append((process, told))
            else:
                process.kill()
                process.join()
            steps = [int(line[1]) for line in words(told) if line[0] == "shipped"]
            shipped = max([shipped, *steps])
            reader.pull(tmp_path / "reader")
            found = [line["step"] for line in RunFolder(tmp_path / "reader").steps()]
            assert found == list(range(len(found))), "no step twice, and none left out"
            assert len(found) > shipped, f"round {number}, seed {seed}"
            if asleep and asleep[0][1] != told:
                sleeper, its = asleep.pop()
                assert sleeper.pid is not None
                os.kill(sleeper.pid, signal.SIGCONT)
                assert heard(its, "superseded")
                sleeper.join(20.0)
        assert epochs == sorted(set(epochs))
        assert shipped > 100
        print(f"seed {seed}: {shipped} steps shipped, epoch {epochs[-1]}, {len(reader.head().segments)} segments")
    finally:
        for process in processes:
            with suppress(OSError, ValueError):
                process.kill()
                process.join(10.0)
