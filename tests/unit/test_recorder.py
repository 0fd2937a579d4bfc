"""The recorder answers at once and keeps everything: on a full disk, beside another leader, in long runs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway import durable, report
from headway.core import footprints
from headway.elastic.lead import recorder as recorders
from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker import journal as journals
from headway.elastic.worker.journal import Journal
from headway.logs.writer import Writer
from headway.report.story import tell
from headway.runs import RunFolder, epochs


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "CLOSE_S", 20.0)


class Kit:
    def __init__(self, folder: Path, **options: Any) -> None:
        self.run = RunFolder(folder)
        if not (folder / "run.json").exists():
            self.run.write({"run": "r", "created": time.time()})
        self.recorder = Recorder(str(folder), None, {}, 10, **options)
        self.push, self.closed = self, False

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        return self.recorder.push(worker, records)

    def finish(self) -> dict[str, Any]:
        self.closed = True
        return self.recorder.finish("finished", "", 1.0)

    def messages(self) -> list[str]:
        found: list[str] = self.recorder.progress(0)["messages"]
        return found


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Kit]]:
    import ray

    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)
    made: list[Kit] = []

    def kit(folder: Path | None = None, **options: Any) -> Kit:
        made.append(Kit(folder or tmp_path, **options))
        return made[-1]

    yield kit
    for each in made:
        if not each.closed:
            monkeypatch.setattr(recorders, "CLOSE_S", 0.5)
            each.finish()
        each.recorder._hold.close()


def leading(kit: Kit, steps: int = 0) -> Journal:
    made = Journal(kit, "w0")
    made._begin = lambda: None  # type: ignore[method-assign]
    made.restart(1)
    made.enter(leads=True)
    made.began(0, 1000, 10)
    say(made, range(steps))
    return made


def say(to: Journal, steps: range) -> None:
    for step in steps:
        to.step(step, 0, 1.0, 0.1, 8, "00")
        to.metrics(step + 1, {"mine": float(step)})


class Full:
    """A disk that takes nothing while `full` is True."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        write = os.write
        opened = Path.open

        def writes(file: int, data: bytes) -> int:
            self.refuse()
            return write(file, data)

        def opens(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if "w" in mode:
                self.refuse()
            return opened(path, mode, *arguments, **named)

        monkeypatch.setattr(durable.os, "write", writes)
        monkeypatch.setattr(Path, "open", opens)

    def refuse(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


# -- 2.5: a disk that is full for a while ----------------------------------------------------------------------------


def test_2_5_a_full_disk_is_lived_through_and_told_for_what_it_is(make: Callable[..., Kit], disk: Full) -> None:
    kit = make()
    leader = leading(kit, 10)
    assert leader.settle()
    disk.full = True
    say(leader, range(10, 20))
    took = []
    for _ in range(3):  # the quickest counts: the machine may be busy
        begun = time.monotonic()
        assert not leader.settle(0.0)
        took.append(time.monotonic() - begun)
    assert min(took) < 2.0, "push answers at once"
    until(lambda: any("cannot be written" in m for m in kit.messages()))
    (said,) = [m for m in kit.messages() if "cannot be written" in m]
    assert said.startswith("the records cannot be written: No space left on device; training goes on, ")
    assert said.endswith(" waiting")
    assert kit.recorder.failure() is None
    disk.full = False
    assert leader.settle()
    assert any("are written again after" in m for m in kit.messages())
    kit.finish()
    assert [s["step"] for s in kit.run.steps()] == list(range(20))
    assert len(kit.run.evaluations()) == 20


def test_2_5_a_disk_that_stays_full_ends_the_run_with_that_reason(make: Callable[..., Kit], disk: Full) -> None:
    kit = make(fail_after=0.5)
    leader = leading(kit)
    disk.full = True
    say(leader, range(5))
    leader.settle(0.0)
    until(lambda: kit.recorder.failure() is not None)
    failure = kit.recorder.failure()
    assert failure is not None
    assert failure["fact"] == "the records could not be written for 0.5 s"
    assert failure["reason"] == "No space left on device"
    assert "checkpoint.fail_after" in failure["remedy"]


def test_2_5_no_checkpoint_is_allowed_before_its_records_are_on_the_disk(make: Callable[..., Kit], disk: Full) -> None:
    kit = make()
    leader = leading(kit, 3)
    disk.full = True
    assert not leader.settle(0.5)
    disk.full = False
    assert leader.allows(3)
    assert [s["step"] for s in kit.run.steps()] == [0, 1, 2]


def test_2_5_records_that_could_not_be_kept_at_the_end_are_said(
    make: Callable[..., Kit], disk: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "CLOSE_S", 0.5)
    kit = make()
    leader = leading(kit, 3)
    assert leader.settle()
    disk.full = True
    assert kit.finish()["unwritten"] == "No space left on device"


# -- 2.6: long runs --------------------------------------------------------------------------------------------------


def test_2_6_run_json_does_not_grow(make: Callable[..., Kit]) -> None:
    sizes = []
    kit = make()
    leader = leading(kit)
    for begin in (0, 1000):
        say(leader, range(begin, begin + 1000))
        kit.recorder.event({"kind": "generation", "members": ["w0"], "workers": 1, "step": begin + 1, "time": 0.0})
        assert leader.settle()
        leader.replicas(1000 + begin, "ab")
        assert leader.settle()
        sizes.append((kit.run.path / "run.json").stat().st_size)
    assert sizes[0] == sizes[1]
    assert len((kit.run.path / "metrics.jsonl").read_bytes().splitlines()) == 2000


def test_2_6_a_record_costs_the_same_however_many_there_were(make: Callable[..., Kit]) -> None:
    """Here 100,000; benchmarks/records.py does a million. 0.1 ms of the processor each at most: the quickest tenth
    counts, since caches are shared with whatever runs beside it."""
    kit = make()
    leader = Journal(kit, "w0")
    leader.restart(1)
    leader.enter(leads=True)
    leader.began(0, 10**6, 10)
    tenths = []
    try:
        for tenth in range(10):
            begun = time.thread_time()
            for step in range(10_000 * tenth, 10_000 * (tenth + 1)):
                leader.metrics(step, {"x": 1.0})
            tenths.append((time.thread_time() - begun) / 10_000)
            assert leader.settle(30.0)
    finally:
        leader.close()
    print(f"a record takes {tenths[0] * 1e6:.1f} us at first and {tenths[-1] * 1e6:.1f} us after 90,000")
    assert min(tenths) <= 1e-4
    assert min(tenths[5:]) <= 5 * min(tenths[:5]), "flat: it would be twenty times as long if each looked at all before"
    assert leader._dropped == 0
    kit.finish()
    assert "records_dropped" not in kit.run.read()
    assert len((kit.run.path / "metrics.jsonl").read_bytes().splitlines()) == 100_000


def test_2_6_what_does_not_fit_stays_with_the_worker(make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch) -> None:
    kit = make()
    monkeypatch.setattr(type(kit.recorder._scribe), "full", True)
    leader = leading(kit, 5)
    assert not leader.settle(0.3)
    monkeypatch.undo()
    monkeypatch.setattr("ray.get", lambda answer, timeout: answer)
    assert leader.settle()
    assert [s["step"] for s in kit.run.steps()] == [0, 1, 2, 3, 4]


def test_2_6_what_was_recorded_after_a_checkpoint_goes_with_the_steps(make: Callable[..., Kit]) -> None:
    kit = make()
    leader = leading(kit, 10)
    assert leader.settle()
    leader.restart(2)
    leader.began(4, 1000, 10)
    assert leader.settle()
    until(lambda: kit.recorder.progress(0)["metrics"] == {"mine": 3.0})
    say(leader, range(4, 6))
    assert leader.settle()
    assert [s["step"] for s in kit.run.steps()] == [0, 1, 2, 3, 4, 5]
    assert [e["step"] for e in kit.run.evaluations()] == [1, 2, 3, 4, 5, 6]
    assert any("6 steps are done again" in m for m in kit.messages())


def test_2_6_a_run_of_the_layout_before_is_read_and_goes_on(make: Callable[..., Kit], tmp_path: Path) -> None:
    old = {
        "run": "r", "created": 1.0, "state": "interrupted", "steps": 2, "total_steps": 4, "steps_per_epoch": 2,
        "metrics": [{"step": 1, "values": {"loss": 0.5}}, {"step": 2, "values": {"loss": 0.4}}],
        "workers": [{"step": 0, "workers": 2, "time": 1.0}],
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(old))
    lines = [{"step": n, "rows": 8, "loss": 1.0, "samples": "00"} for n in range(2)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = report.load(RunFolder(tmp_path))
    assert (found.steps, found.evaluations, found.workers) == (2, old["metrics"], old["workers"])
    kit = make()
    leader = Journal(kit, "w0")
    leader._begin = lambda: None  # type: ignore[method-assign]
    leader.restart(1)
    leader.enter(leads=True)
    leader.began(1, 4, 2)
    leader.metrics(2, {"loss": 0.3})
    assert leader.settle()
    kit.finish()
    found = report.load(kit.run)
    assert found.steps == 1
    assert found.evaluations == [{"step": 1, "values": {"loss": 0.5}}, {"step": 2, "values": {"loss": 0.3}}]
    assert found.metrics == {"loss": 0.3}


# -- 2.20: two drivers where flock does not reach --------------------------------------------------------------------


def test_2_20_only_the_later_of_two_drivers_leads(
    make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, kind: None)  # as on many network file systems
    run = RunFolder(tmp_path)
    run.write({"run": "r", "created": 0.0})
    with run.led() as first, run.led() as second:
        assert (first, second) == (1, 2)
        earlier, later = make(epoch=first), make(epoch=second)
        heard = leading(earlier, 3)
        assert not heard.settle(0.3)
        until(lambda: earlier.recorder.failure() is not None)
        failure = earlier.recorder.failure()
        assert failure is not None
        assert failure["kind"] == "superseded"
        assert "another process leads run" in failure["fact"]
        assert not list(run.steps()), "it writes nothing any more"
        assert leading(later, 5).settle()
        assert "unwritten" in earlier.finish()
        later.finish()
        assert [s["step"] for s in run.steps()] == [0, 1, 2, 3, 4]


def test_2_20_a_number_is_given_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: epochs.claim(tmp_path), range(40)))
    assert sorted(found) == list(range(1, 41))
    epochs.verify(tmp_path, 40)
    with pytest.raises(epochs.Superseded, match=r"its epoch is 40, this one's 39"):
        epochs.verify(tmp_path, 39)


def test_messages_that_nobody_asked_for_are_bounded(make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "MESSAGES", 5)
    kit = make()
    for n in range(20):
        kit.recorder._say(str(n))
    found = kit.recorder.progress(0)
    assert found["messages"] == ["(16 messages were not shown)", "16", "17", "18", "19"]
    assert kit.recorder.progress(found["messages_seen"])["messages"] == []
    kit.recorder._say("new")
    assert kit.recorder.progress(found["messages_seen"])["messages"] == ["new"]


def test_the_journals_own_thread_sends(make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "FLUSH_S", 0.01)
    kit = make()
    leader = Journal(kit, "w0")
    leader.restart(1)
    leader.enter(leads=True)
    leader.began(0, 10, 10)
    say(leader, range(3))
    try:
        until(lambda: kit.recorder.progress(0)["step"] == 3)
    finally:
        leader.close()


def test_rows_set_aside_are_told_by_whoever_finds_them(make: Callable[..., Kit]) -> None:
    kit = make()
    kit.recorder.event({"kind": "generation", "members": ["w0"], "workers": 2, "step": 0, "time": 0.0})
    other = Journal(kit, "w1")
    other.restart(1)
    other.enter(leads=False)
    other.note("not this")
    other.quarantined("data.train", "shard-0", 3, 8, "torn")
    try:
        until(lambda: any("8 rows of data.train are set aside: torn" in m for m in kit.messages()))
        assert "not this" not in kit.messages()
    finally:
        other.close()


def test_2_5_checkpoints_that_fail_for_one_reason_are_told_once(make: Callable[..., Kit]) -> None:
    kit = make()
    leader = leading(kit)
    for _ in range(5):
        leader.checkpoint_done(None, "OSError: No space left on device")
    assert leader.settle()
    assert sum("could not be written" in m for m in kit.messages()) == 1


# -- What workers warn of ----------------------------------------------------------------------------------------------


def warning(worker: str, text: str, at: float = 0.0) -> dict[str, Any]:
    return {"kind": "warned", "time": at, "worker": worker, "text": text}


def test_a_warning_is_said_once_over_all_workers_and_named(make: Callable[..., Kit]) -> None:
    kit = make()
    leading(kit, 1)
    kit.remote("w1", [warning("w1", "UserWarning: 3 rows are odd"), warning("w1", "ERROR theirs: broken")])
    kit.remote("w0", [warning("w0", "UserWarning: 4 rows are odd")])
    assert kit.messages()[-2:] == ["w1 warns: UserWarning: 3 rows are odd", "w1 warns: ERROR theirs: broken"]
    kit.finish()
    assert len([e for e in kit.run.events() if e["kind"] == "warned"]) == 2


def test_why_lanes_are_apart_is_said_once_and_kept(make: Callable[..., Kit]) -> None:
    kit = make()
    leading(kit, 1)
    apart = {"kind": "lanes", "time": 1.0, "text": "one by one", "step": 3, "apart": "random", "why": "one by one"}
    full = {"kind": "lanes", "time": 1.0, "text": "too much for the memory"}
    for worker in ("w0", "w1"):
        kit.remote(worker, [apart, full])
    assert [text for text in kit.messages() if text in ("one by one", "too much for the memory")] == [
        "one by one",
        "too much for the memory",
    ]
    kit.finish()
    assert kit.run.read()["lanes_apart"] == {"step": 3, "apart": "random", "why": "one by one"}
    assert report.load(kit.run).lanes_apart == "one by one"


def test_the_peak_of_memory_is_kept_of_a_few_and_reported(make: Callable[..., Kit]) -> None:
    kit = make()
    leading(kit, 1)
    for number in range(100):
        told = {"kind": "memory", "time": 1.0, "worker": f"w{number}", "host": (number + 1) * 10**8, "base": 10**7}
        kit.remote(f"w{number}", [told])
    kit.remote("w99", [{"kind": "memory", "time": 2.0, "worker": "w99", "host": 10**6, "base": 10**6}])
    kit.finish()
    kept = kit.run.read()["memory_peak"]
    assert len(kept) == footprints.MOST
    assert kept["w99"] == {"host": 10**10, "base": 10**7}, "of what took the most"
    kit.run.write({**kit.run.read(), "memory_planned": 9 * 10**9})
    found = report.load(kit.run).memory
    assert found["planned"] == 9 * 10**9
    sentence = "10.0 GB (w99; 10.0 GB of it for the training; plan said 9.0 GB)"
    assert footprints.sentence(found["workers"], found["planned"]) == sentence
    assert sentence in tell(kit.run).words.cost


def test_a_flood_of_warnings_is_cut_and_its_place_named(make: Callable[..., Kit]) -> None:
    kit = make()
    texts = [f"it is {chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26)]
    kit.remote("w0", [warning("w0", text, 100.0) for text in texts])
    assert len(kit.messages()) == recorders.WARNED_MOST + 1
    assert kit.messages()[-1] == f"there are more warnings: see `headway logs {kit.run.path}`"
    kit.remote("w0", [warning("w0", "later", 100.0 + recorders.WARNED_S)])
    assert kit.messages()[-1] == "w0 warns: later"


@pytest.mark.parametrize("asked", [False, True])
def test_a_loop_that_ends_by_itself_is_told_from_one_that_was_stopped(make: Callable[..., Kit], asked: bool) -> None:
    kit = make()
    leader = leading(kit, 3)
    assert not kit.recorder.own_end(), "it has not ended"
    if asked:
        kit.recorder.request_stop()
    leader.ended(3, "ab", "it is good enough")
    assert leader.settle()
    assert kit.recorder.own_end() is not asked
    assert kit.recorder.end_reason() == "it is good enough"
    assert kit.recorder.done() == 3


def test_the_books_say_why_a_loop_ended(make: Callable[..., Kit]) -> None:
    """Whichever worker's it was."""
    kit = make()
    leader = leading(kit, 3)
    kit.remote("w1", [{"kind": "note", "text": "the loop asked for the end", "ends": "it is good enough"}])
    leader.ended(3, "ab")
    assert leader.settle()
    assert kit.recorder.end_reason() == "it is good enough"


def test_the_books_say_who_asked_for_the_end_and_whose_it_was(make: Callable[..., Kit]) -> None:
    kit = make()
    assert json.loads((kit.run.path / "run.json").read_text()).get("state", "running") == "running"
    kit.recorder.request_stop("mary@laptop", True)
    kit.recorder.request_stop()
    kit.closed = True
    kit.recorder.finish("failed", "the task raised", 1.0, "task")
    facts = kit.run.read()
    assert (facts["state"], facts["message"], facts["cause"]) == ("failed", "the task raised", "task")
    told = [event for event in kit.run.events() if event["kind"] in ("stop", "end")]
    assert [(event.get("by"), event.get("now")) for event in told[:2]] == [("mary@laptop", True), (None, False)]
    assert (told[2]["state"], told[2]["cause"], told[2]["time"]) == ("failed", "task", facts["ended"])


def test_where_a_process_ended_its_last_words_are_said_or_its_log_is_named(make: Callable[..., Kit]) -> None:
    kit = make()
    lost = {"kind": "recovery", "cause": "process_died", "step": 4, "pause_s": 0.1, "time": 0.0}
    kit.recorder.event({**lost, "workers": ["w1"]})
    until(lambda: kit.messages())
    assert kit.messages()[-1].endswith(f"; see `headway logs {kit.run.path} --worker w1`")
    kept = Writer("worker-w2")
    kept.write(b"fine\nFatal Python error: Segmentation fault\n\nCurrent thread 0x1\n")
    kept.open(kit.run.where)
    assert kept.close()
    kit.recorder.event({**lost, "workers": ["w2"]})
    until(lambda: len(kit.messages()) == 2)
    assert kit.messages()[-1].endswith("Its last words: Fatal Python error: Segmentation fault (worker-w2)")


# -- whose names -----------------------------------------------------------------------------------------------------


def test_records_go_by_the_users_names_and_evaluations_by_ours(
    make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = make()
    points: list[tuple[int, str]] = []
    taken = lambda step, at, values: points.extend((step, name) for name in values)  # noqa: E731
    monkeypatch.setattr(kit.recorder._drawing, "_draw", taken)
    leader = leading(kit, 1)
    leader.recorded(0, {"train/d": 1.0})
    leader.recorded(1, {"loss": 0.5})
    assert leader.settle()
    assert [(step, name) for step, name in points if "/" in name] == [(1, "validation/mine"), (0, "train/d")]
    points.clear()
    for step in range(1, 11):
        leader.step(step, 0, 1.0, 0.1, 8, "00")
    assert leader.settle()
    assert (10, "lr") in points
    assert (10, "loss") not in points, "theirs is shown under that name"
    kit.finish()
    assert report.load(kit.run).metrics == {"mine": 0.0, "train/d": 1.0, "loss": 0.5}


def test_each_workers_own_records_come_from_itself_once(make: Callable[..., Kit]) -> None:
    kit = make()
    leader = leading(kit)
    other = Journal(kit, "w1")
    other._begin = lambda: None  # type: ignore[method-assign]
    other.restart(1)
    assert leader.settle()
    kit.recorder.event({"kind": "generation", "members": ["w0", "w1"], "workers": 2, "step": 0, "time": 0.0})
    for worker, made in (("w0", leader), ("w1", other)):
        for step in (1, 2):
            made.own(step, {f"free/{worker}": float(step)})
    sent = list(other._own)
    other._send()
    other._own.extend(sent)  # the answer was lost
    other._send()
    assert leader.settle()
    kit.finish()
    lines = [json.loads(line) for line in (kit.run.path / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], name) for line in lines for name in line["values"]]
    assert sorted(found) == [(1, "free/w0"), (1, "free/w1"), (2, "free/w0"), (2, "free/w1")]


def test_money_is_kept_for_the_step_that_is_under_way_however_long_it_takes(
    make: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, kept = make(), list[float]()
    monkeypatch.setattr(kit.recorder._spending, "look", lambda at, dollars, per_hour, step_s: kept.append(step_s) or "")
    account = {"kind": "ledger", "seconds": {"compute": 200.0}, "goodput": 1.0, "workers": 1}
    kit.recorder._recent.extend([(0.0, 8), (100.0, 8)])
    kit.recorder.event(account)
    kit.recorder._recent.clear()  # as at a new beginning
    kit.recorder.event(account)
    assert kept == [100.0, 100.0]
