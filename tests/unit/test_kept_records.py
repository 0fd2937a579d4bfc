"""The records of a run that goes on from a kept state: no hole, nothing twice, whoever lost what and when."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker.journal import Journal
from headway.runs import RunFolder

MADE = "made-{}"


class Kit:
    """A recorder on a folder, as a driver has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "run.json").exists():
            RunFolder(folder).write({"run": "r", "created": time.time()})
        self.recorder = Recorder(str(folder), None, {}, 10)
        self.push = self
        self.lost = False
        """Whether nothing reaches the disk any more."""
        scribe, done = self.recorder._scribe, self.recorder._scribe._done
        scribe._done = lambda tasks: done(tasks) if not self.lost else self._wait()  # type: ignore[method-assign]

    @staticmethod
    def _wait() -> bool:
        time.sleep(0.01)
        return False

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        return self.recorder.push(worker, records)

    def die(self) -> None:
        """What was not written by now never is."""
        self.lost = True
        self.recorder._scribe.close(0.0)
        self.recorder._hold.close()


@pytest.fixture(autouse=True)
def _ray_get(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)


class Worker:
    """A journal in a generation; nothing is sent but by `send`."""

    def __init__(self, kit: Kit, generation: int) -> None:
        self.journal = Journal(kit, f"w{generation}")
        self.journal._begin = lambda: None  # type: ignore[method-assign]
        self.generation, self.step, self.kit = generation, 0, kit

    def begin(self, step: int, kept: dict[str, Any] | None = None, of: str = "") -> None:
        if kept is not None:
            records = self.journal.records()
            assert records is not None
            assert min(step, kept["whole_from"]) <= records["step"], "what the worker asks before it takes it"
            self.journal.find(kept, records["start"])
        self.kit.recorder._leader = self.journal._worker
        self.step = step
        self.journal.restart(self.generation, kept is not None)
        self.journal.began(step, 10_000, 100, MADE.format(self.generation), of)
        self.journal.enter(leads=True)

    def train(self, steps: int) -> None:
        """With what a loop records: in lanes, and between steps."""
        for _ in range(steps):
            self.journal.recorded(self.step, {"lanes": float(self.step)})
            self.journal.step(self.step, 0, 1.0 / (self.step + 1), 0.1, 8, f"{self.step:04x}")
            self.step += 1
            self.journal.recorded(self.step, {"after": float(self.step)})

    def send(self) -> None:
        assert self.journal._send() is not None


def check(folder: Path, steps: int) -> None:
    run = RunFolder(folder)
    assert [line["step"] for line in run.steps()] == list(range(steps))
    assert [line["samples"] for line in run.steps()] == [f"{step:04x}" for step in range(steps)]
    found = {line["step"]: line["values"] for line in run.evaluations()}
    assert [step for step in range(steps) if found.get(step, {}).get("lanes") != step] == []
    assert [step for step in range(1, steps + 1) if found.get(step, {}).get("after") != step] == []


@pytest.mark.parametrize("seed", range(12))
def test_workers_die_again_and_again(tmp_path: Path, seed: int) -> None:
    """The driver lives, or dies with them; what was kept last is of some step before."""
    chance = random.Random(seed)
    kit, step, kept, of, generation = Kit(tmp_path), 0, None, "", 0
    for _ in range(8):
        generation += 1
        worker = Worker(kit, generation)
        worker.begin(step, kept, of)
        worker.train(chance.randrange(1, 4))
        kept, step, of = worker.journal.kept(), worker.step, MADE.format(generation)
        for _ in range(chance.randrange(6)):
            worker.train(chance.randrange(3))
            if chance.random() < 0.5:
                worker.send()
            if chance.random() < 0.3:
                kit.recorder._scribe.flush(5.0)
                worker.send()  # hears what is written
            if chance.random() < 0.5:
                kept, step = worker.journal.kept(), worker.step
        if kit.recorder._facts.get("made") != of:
            kept, step, of = None, 0, ""  # the recorder never heard of this start: its states do not count
        if chance.random() < 0.5:
            kit.die()
            kit, generation = Kit(tmp_path), 0
            if kit.recorder._facts.get("made") != of:
                kept, step, of = None, 0, ""
    last = Worker(kit, generation + 1)
    last.begin(step, kept, of)
    last.train(5)
    last.send()
    assert kit.recorder._scribe.flush(10.0)
    kit.die()
    check(tmp_path, last.step)


def test_what_is_on_the_disk_is_kept_no_longer(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    worker = Worker(kit, 1)
    worker.begin(0)
    for _ in range(20):
        worker.train(10)
        worker.send()
        assert kit.recorder._scribe.flush(5.0)
    worker.send()
    kept = worker.journal.kept()
    assert len(kept["entries"]) < 60
    assert 190 <= kept["whole_from"] <= 199
    kit.die()


def test_whoever_does_not_lead_keeps_what_is_new(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    worker = Worker(kit, 1)
    worker.begin(0)
    worker.journal.enter(leads=False)
    worker.train(5)
    for entry in worker.journal._entries:
        entry["time"] += 60.0  # however long this takes
    kept = worker.journal.kept()
    assert kept["whole_from"] == 0
    for entry in list(worker.journal._entries)[:4]:
        entry["time"] -= 120.0
    assert worker.journal.kept()["whole_from"] > 0
    kit.die()


def test_steps_that_are_done_again_are_told_whoever_recorded_them(tmp_path: Path) -> None:
    """Ten were on the disk, and the state is that after six."""
    kit = Kit(tmp_path)
    worker = Worker(kit, 1)
    worker.begin(0)
    worker.train(6)
    kept = worker.journal.kept()
    worker.train(4)
    worker.send()
    assert kit.recorder._scribe.flush(5.0)
    kit.die()
    kit = Kit(tmp_path)
    again = Worker(kit, 1)
    again.begin(6, kept, MADE.format(1))
    again.train(8)
    again.send()
    assert kit.recorder._scribe.flush(5.0)
    kit.die()
    check(tmp_path, 14)
    (restart,) = [event for event in RunFolder(tmp_path).events() if event["kind"] == "restart"]
    assert (restart["from_step"], restart["lost_steps"], restart["kept"]) == (6, 4, True)


def test_a_clock_that_was_set_back_makes_no_hole(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    worker = Worker(kit, 1)
    worker.begin(0)
    worker.journal._leads = False
    worker.train(40)
    for entry in worker.journal._entries:
        entry["time"] += 3600.0 if entry["step"] < 20 else -60.0 if entry["step"] < 30 else 0.0
    kept = worker.journal.kept()
    assert {e["step"] for e in kept["entries"]} >= set(range(kept["whole_from"], 40))
    kit.die()


def test_what_was_found_is_kept_again_before_anything_is_sent(tmp_path: Path) -> None:
    """By whoever goes on from it, and may be killed at once."""
    kit = Kit(tmp_path)
    first = Worker(kit, 1)
    first.begin(0)
    first.train(10)
    kept = first.journal.kept()
    for entry in kept["entries"]:
        entry["time"] -= 60.0
    again = Worker(kit, 2)
    again.journal.find(kept, 1)
    again.journal.restart(2, found=True)
    again.journal.began(10, 10_000, 100, MADE.format(2), MADE.format(1))
    assert again.journal.kept()["whole_from"] == kept["whole_from"]
    kit.die()
