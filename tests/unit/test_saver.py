"""State is copied in the training thread and written in another; what takes long, or fails, holds nobody up."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.waiting import until

from headway.checkpoint import flat
from headway.checkpoint.found import Checkpoint
from headway.checkpoint.store import Store
from headway.checkpoint.writing import Share
from headway.elastic.worker.saver import Saver, Together
from headway.errors import BadInput, RunFailed
from headway.job import Checkpoint as Rule
from headway.runs.epochs import claim
from headway.storage.protocol import OutOfReach

JOB = "a" * 64


class Heard:
    """Takes what a saver reports."""

    def __init__(self) -> None:
        self.leads = True
        self.begun: list[int] = []
        self.done: list[Checkpoint | None] = []
        self.errors: list[str] = []
        self.skipped: list[int] = []
        self.notes: list[str] = []

    def allows(self, step: int) -> bool:
        return True

    def checkpoint_begun(self, step: int, reason: str, blocked_s: float) -> None:
        self.begun.append(step)

    def checkpoint_done(self, checkpoint: Checkpoint | None, error: str | None, let_go: Any = ()) -> None:
        (self.errors.append(error or "") if checkpoint is None else self.done.append(checkpoint))

    def checkpoint_skipped(self, step: int, reason: str) -> None:
        self.skipped.append(step)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Slow(Store):
    """A store whose verbs wait for `go`, and fail while `full`."""

    def __init__(self, root: Path, rule: Rule, epoch: int = 0) -> None:
        super().__init__(root, JOB, rule, epoch)
        self.go, self.full, self.threads = threading.Event(), False, set[str]()
        self.go.set()

    def _wait(self) -> None:
        self.threads.add(threading.current_thread().name)
        assert self.go.wait(30)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, *arguments: Any, **named: Any) -> Checkpoint | None:
        self._wait()
        return super().write(*arguments, **named)

    def committed(self) -> list[Checkpoint]:
        self._wait()
        return super().committed()

    def restore(self, *arguments: Any) -> tuple[Checkpoint | None, dict[str, Any], list[str]]:
        self._wait()
        return super().restore(*arguments)

    def clean(self) -> None:
        self._wait()
        super().clean()


class Kit:
    def __init__(self, root: Path, **rule: Any) -> None:
        self.rule = Rule(**{"every_steps": 10, "keep_last": 9, **rule})
        self.root, self.store, self.heard = root, Slow(root, self.rule), Heard()
        self.saver = Saver(self.store, self.rule, self.heard)  # type: ignore[arg-type]
        self.live = {"model": {"w": torch.zeros(10)}, "session": {"list": [1], "tags": {"x"}}}

    def save(self, step: int, **named: Any) -> bool:
        self.live["model"]["w"].fill_(float(step))
        return self.saver.save(step, lambda: self.live, {"run": "r", "metrics": {}}, "test", **named)

    def steps(self) -> list[int]:
        return [c.step for c in Store(self.root, JOB, self.rule).committed()]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Kit]]:
    made: list[Kit] = []

    def kit(**rule: Any) -> Kit:
        made.append(Kit(tmp_path / "checkpoints", **rule))
        return made[-1]

    yield kit
    for each in made:
        each.store.go.set()
        each.store.full = False
        each.saver.close()


def test_the_copy_is_taken_before_save_returns(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.store.go.clear()
    kit.live["session"].update({1: torch.ones(1), "1": torch.zeros(1)})
    assert kit.save(1)
    kit.live["model"]["w"].fill_(9)
    kit.live["session"]["list"].append(2)
    kit.live["session"]["tags"].add("y")
    kit.store.go.set()
    kit.saver.finish()
    found, parts, _ = kit.saver.restore()
    assert found is not None
    assert kit.saver.newest_step() == found.step == 1
    assert parts["model"]["w"].tolist() == [1.0] * 10
    assert (parts["session"]["list"], parts["session"]["tags"]) == ([1], {"x"})
    assert (parts["session"][1].item(), parts["session"]["1"].item()) == (1.0, 0.0), "keys 1 and '1' are two keys"


def test_2_5_a_save_while_one_is_under_way_is_skipped_and_counted(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.store.go.clear()
    assert kit.save(10)
    assert not kit.save(20)
    assert not kit.save(30)
    assert (kit.saver.skipped, kit.heard.skipped) == (2, [20, 30])
    assert kit.saver.due(31, 0.0) is None, "the next is due in its turn"
    kit.store.go.set()
    kit.saver.finish()
    assert kit.steps() == [10]
    assert kit.saver.due(40, 0.0) == "10 steps"
    (kept,) = Store(kit.root, JOB, kit.rule).committed()
    assert kept.load()["model"]["w"].eq(10.0).all(), "and its memory was not written over meanwhile"


def test_2_5_no_verb_of_a_step_waits_for_the_store(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.store.go.clear()
    begun = time.monotonic()
    kit.saver.lead()
    for step in range(1, 100):
        if kit.saver.due(step, time.monotonic(), evaluated=True, wanted="a notice") is not None:
            kit.save(step)
    assert time.monotonic() - begun < 5.0
    assert kit.heard.done == []
    kit.store.go.set()
    kit.saver.finish()
    assert kit.store.threads == {"saver"}, "no file system in any other thread"


def test_2_5_restoring_reads_in_the_savers_thread(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.saver.restore()
    assert kit.store.threads == {"saver"}


def test_2_5_what_failed_is_tried_again_and_lived_through(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.store.full = True
    kit.save(10)
    until(lambda: bool(kit.heard.errors))
    assert "No space left" in kit.heard.errors[0]
    assert kit.saver.error is not None
    until(lambda: kit.saver.due(11, time.monotonic() + 60.0) is not None)
    assert kit.saver.due(11, time.monotonic() + 60.0) == "the one before could not be written"
    kit.store.full = False
    assert kit.save(11)
    kit.saver.finish()
    assert kit.steps() == [11]
    assert kit.saver.error is None


def test_2_5_the_last_one_is_tried_until_it_is_written(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.store.full = True

    def make_room() -> None:
        until(lambda: bool(kit.heard.errors), "it was tried in vain")
        kit.store.full = False

    thread = threading.Thread(target=make_room)
    thread.start()
    kit.saver.end(7, lambda: kit.live, {"metrics": {}}, "end of the run")
    thread.join()
    assert kit.steps() == [7]
    assert len(kit.heard.errors) >= 1
    kit.saver.end(7, lambda: pytest.fail("saved already"), {"metrics": {}}, "end of the run")


def test_2_5_the_run_ends_when_nothing_could_be_written_for_too_long(make: Callable[..., Kit]) -> None:
    kit = make(fail_after=0.5)
    kit.store.full = True
    with pytest.raises(RunFailed, match=r"no checkpoint could be written for 0\.5 s.*No space left.*fail_after"):
        kit.saver.end(7, lambda: kit.live, {"metrics": {}}, "end of the run")
    with pytest.raises(RunFailed):
        kit.saver.due(8, 0.0)


def test_a_new_leader_saves_what_the_one_before_did_not(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.save(10)
    kit.saver.finish()
    kit.heard.leads = False
    assert not kit.save(20)
    assert kit.saver.saved_step == 20
    kit.heard.leads = True
    kit.saver.lead()
    kit.saver.finish()
    assert kit.saver.saved_step == 10
    assert kit.saver.due(21, 0.0) == "10 steps"


def test_a_wanted_one_is_not_forgotten_while_another_is_written(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.store.go.clear()
    kit.save(3)
    assert kit.saver.due(4, 0.0, wanted="its machine is taken away") is None
    kit.store.go.set()
    kit.saver.finish()
    assert kit.saver.due(5, 0.0) == "its machine is taken away"
    kit.save(5)
    assert kit.saver.due(6, 0.0) is None


def test_2_16_a_state_with_nan_is_never_saved(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.save(10)
    kit.saver.finish()
    kit.live["model"]["w"][3] = float("nan")
    kit.saver.save(20, lambda: kit.live, {"metrics": {}}, "test", parameters={"w": True})
    kit.saver.finish()
    assert kit.steps() == [10]
    assert kit.heard.notes == ["no checkpoint is taken of step 20: there is NaN in w; those before it stay"]


def test_2_20_a_saver_of_an_earlier_epoch_ends_the_run(tmp_path: Path) -> None:
    rule, heard = Rule(keep_last=9), Heard()
    store = Slow(tmp_path / "checkpoints", rule, claim(tmp_path))
    saver = Saver(store, rule, heard)  # type: ignore[arg-type]
    claim(tmp_path)
    with pytest.raises(RunFailed, match="another process leads"):
        saver.end(5, lambda: {"model": {}}, {"metrics": {}}, "end of the run")
    assert Store(tmp_path / "checkpoints", JOB, rule).committed() == []
    saver.close()


def test_workers_write_a_checkpoint_together(make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "CHUNK_BYTES", 1024)
    kits, seen = [make(), make(), make()], []
    for rank, kit in enumerate(kits):
        kit.heard.leads = rank == 0
        kit.live["model"]["w"] = torch.zeros(2000)
        write_share = kit.store.write_share
        kit.store.write_share = lambda *a, real=write_share, r=rank: (seen.append(r), real(*a))  # type: ignore[method-assign]
    for rank, kit in enumerate(kits):
        assert kit.save(10, together=Together(Share(rank, 3), "g1")) == (rank == 0)
        kit.live["model"]["w"].fill_(11.0)
        assert kit.saver.saved_step == 10
    for kit in kits:
        kit.saver.finish()
    assert sorted(seen) == [1, 2]
    checkpoint, parts, passed_over = kits[1].saver.restore()
    assert checkpoint is not None
    assert (checkpoint.step, passed_over) == (10, [])
    assert parts["model"]["w"].eq(10.0).all()


def test_a_store_that_does_not_answer_is_asked_again_before_the_run_goes_on(
    make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin anew, as if there were no checkpoint, would lose the run."""
    kit, left = make(), [2]
    kit.save(10)
    kit.saver.finish()
    real = Store.restore

    def restore(self: Store, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OutOfReach("s3://b does not answer", "", "")
        return real(self, *arguments)

    monkeypatch.setattr(Store, "restore", restore)
    found, _, _ = kit.saver.restore()
    assert found is not None
    assert found.step == 10
    assert sum("tried again" in note for note in kit.heard.notes) == 2


def test_a_store_that_gives_no_answer_for_too_long_ends_the_run(
    make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(*arguments: Any) -> Any:
        raise OutOfReach("s3://b does not answer", "", "")

    kit = make(fail_after=0.3)
    monkeypatch.setattr(Store, "restore", restore)
    with pytest.raises(RunFailed, match=r"no checkpoint could be read for 0\.3 s"):
        kit.saver.restore()


def test_what_cannot_be_removed_is_told_once_and_fails_nothing(
    make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise BadInput("s3://b/x cannot be removed", "AccessDenied", "")

    kit = make(keep_last=1)
    monkeypatch.setattr("headway.checkpoint.writing.discard", refuse)
    for step in (1, 2, 3):
        kit.save(step)
        kit.saver.finish()
    assert kit.steps() == [1, 2, 3]
    assert kit.heard.errors == []
    assert [note.partition(":")[0] for note in kit.heard.notes] == ["checkpoints that are to go could not be removed"]


@pytest.mark.parametrize("verb", ["save", "lead"])
def test_2_5_what_nobody_foresaw_in_the_thread_ends_the_run_with_words(
    make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """It would end the thread, nothing would be saved any more, and the run's end would wait for it for ever."""

    def fail(*arguments: Any) -> Any:
        raise NotImplementedError("isinf")

    kit = make()
    monkeypatch.setattr("headway.elastic.worker.saver.flaw", fail)
    kit.store.committed = fail  # type: ignore[method-assign]
    ended: list[str] = []

    def work() -> None:
        kit.save(10) if verb == "save" else kit.saver.lead()
        try:
            kit.saver.finish()
        except RunFailed as error:
            ended.append(error.reason)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert ended == ["NotImplementedError: isinf"]
