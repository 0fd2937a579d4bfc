"""A run's working copy on its way to the store: how soon, at what cost, and what becomes of it while there is none."""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import time as times
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.errors import BadInput
from headway.runs import head as heads
from headway.runs import working_copy
from headway.runs.epochs import Superseded
from headway.runs.folder import RunFolder
from headway.runs.head import SEGMENT_BYTES, TAIL_BYTES, _text
from headway.runs.mirror import Mirror
from headway.runs.remote import Clock, RemoteRun
from headway.runs.shipping import Shipping
from headway.storage.protocol import OutOfReach
from headway.testing.memory_storage import Memory, MemoryStorage, Troubles

HOUR_S = 3600


class Life:
    """A leader on a clock of its own: what it writes, and what it ships."""

    def __init__(self, tmp: Path, troubles: Troubles | None = None, fail_after: float | None = None) -> None:
        self.now, self.tmp, self.folder = 0.0, tmp, tmp / "leader"
        self.folder.mkdir()
        self.store = Memory(lambda: self.now)
        self.client = self.store.client(troubles)
        self.run = RemoteRun(self.client, "run", Clock(lambda: self.now))
        self.said: list[str] = []
        self.failures: list[dict[str, Any]] = []
        self.step = 0
        self.marks: list[tuple[int, float]] = []
        self.most_lag_s = 0.0
        self.lease = self.run.create({"state": "running"})
        self.shipping = Shipping(
            self.lease,
            self.folder,
            lambda: {"state": "running", "step": self.step},
            5.0,
            self.said.append,
            self.failures.append,
            fail_after,
            lambda: self.now,
            lambda action: action(),
        )
        self.shipping.open()
        self._next = 0.0

    def write(self, steps: int) -> None:
        """The records of a second."""
        with (self.folder / "steps.jsonl").open("a") as file:
            for _ in range(steps):
                line = {"step": self.step, "loss": 1 / (self.step + 3), "lanes": [3, 4, 5], "took_s": 0.05, "w": 4}
                file.write(json.dumps(line) + "\n")
                self.step += 1
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "values": {"loss": 1 / (self.step + 3)}}) + "\n")
        (self.folder / "run.json").write_text(json.dumps({"state": "running", "step": self.step, "x": "y" * 800}))

    def second(self, steps: int) -> None:
        if steps:
            self.write(steps)
            self.marks.append((self.shipping.mark(), self.now))
        self.now += 1.0
        while self._next <= self.now:
            self._next = self.now + max(self.shipping.turn(), 0.001)
        self.marks = [(mark, at) for mark, at in self.marks if mark > self.shipping.shipped]
        self.most_lag_s = max(self.most_lag_s, self.now - self.marks[0][1] if self.marks else 0.0)

    def hurry(self) -> None:
        """Somebody waits: the thread would look at once."""
        self.shipping.want()
        self._next = self.now

    def finish(self) -> None:
        self.shipping.closing = True
        self.shipping.want()
        while not self.shipping.finished():
            self.shipping.turn()
        assert self.shipping.end(released=True)
        self.shipping.free()

    def same(self) -> bool:
        """Whether a reader finds what the leader wrote."""
        other = self.tmp / "reader"
        RemoteRun(self.store.client(), "run").pull(other)
        return contents(other) == contents(self.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name, _ in working_copy.walk(folder)}


def test_an_hour_costs_few_writes_and_nothing_waits_longer_than_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "TOGETHER", 8)  # so that some are merged within the hour
    life = Life(tmp_path)
    for second in range(HOUR_S):
        life.second(steps=20)
        if second % 300 == 299:
            life.shipping.want()  # a checkpoint is committed after its records
    life.finish()
    print(
        f"{life.client.writes} writing requests, {len(life.lease.head.segments)} segments, lag {life.most_lag_s:.1f} s"
    )
    assert life.step == 72_000
    assert life.client.writes <= 1000
    assert life.most_lag_s <= 6.0  # of which one is the test's
    assert life.same()
    levels = [segment.level for segment in life.lease.head.segments]
    assert levels == sorted(levels, reverse=True)
    assert max(levels) == 1
    named = {segment.name for segment in life.lease.head.segments}
    assert {name.removeprefix("run/") for name in life.store.objects if name.startswith("run/records/")} == named
    assert max(request.bytes for request in life.client.requests if request.name == "head.json") < TAIL_BYTES + 16_384


def test_an_idle_hour_only_renews_the_lease(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.write(1)
    for _ in range(HOUR_S):
        life.second(steps=0)
    print(f"{life.client.writes} writing requests")
    assert 350 <= life.client.writes <= 370


def test_who_hurries_all_the_time_waits_a_little(tmp_path: Path) -> None:
    """Ten times at once, then in turn: so that an hour never costs too much. (A third of one here.)"""
    life = Life(tmp_path)
    done = []
    for second in range(HOUR_S // 3):
        life.hurry()
        life.second(steps=1)
        done.append(life.shipping.fenced)
        if second == 8:
            assert done[-1] == 9
    print(f"{life.client.writes} writing requests")
    assert life.client.writes <= 1500 / 3
    assert all(later - now <= 4 for now, later in itertools.pairwise(done))
    life.finish()
    assert life.same()


def test_ten_minutes_without_the_store_lose_nothing(tmp_path: Path) -> None:
    life = Life(tmp_path, Troubles(outages=((200.0, 800.0),)))
    tracemalloc.start()
    for second in range(1000):
        with (life.folder / "spool.jsonl").open("ab") as file:  # 40 MB in all, of which little can be packed
            file.write(random.Random(second).randbytes(20_000).hex().encode() + b"\n")
        life.second(steps=1)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    begun, ended = life.said
    assert begun == "the records cannot be written to memory://store/run: an outage; training goes on, they wait"
    assert re.fullmatch(r"the records are in the store again after (59\d|60\d) s; none was lost", ended)
    assert life.failures == []
    assert most - sum(len(content) for content, *_ in life.store.objects.values()) < 16 << 20
    life.finish()
    assert life.same()
    put = [
        request for request in life.client.requests if request.kind in ("put", "upload") and "records/0" in request.name
    ]
    assert len(put) > 10
    assert max(request.bytes for request in put) <= SEGMENT_BYTES
    assert len(_text(life.lease.head.tail)) <= TAIL_BYTES


def test_a_run_fails_that_is_without_its_store_for_longer_than_it_may(tmp_path: Path) -> None:
    life = Life(tmp_path, Troubles(outages=((20.0, 200.0),)), fail_after=60.0)
    for _ in range(70):
        life.second(steps=1)
    assert life.failures == []
    for _ in range(30):
        life.second(steps=1)
    (failure,) = life.failures
    assert failure["kind"] == "records"
    assert "for 60 s" in failure["fact"]
    assert "an outage" in failure["reason"]
    assert life.shipping.error


def test_what_the_store_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired keys, a full bucket: somebody may mend it, and the run goes on meanwhile."""
    life = Life(tmp_path)
    life.second(steps=1)
    with monkeypatch.context() as patch:

        def refused(*_: object, **__: object) -> str:
            raise BadInput("the keys expired", "", "Renew them.")

        patch.setattr(MemoryStorage, "put", refused)
        for _ in range(30):
            life.second(steps=1)
        assert "the keys expired" in life.shipping.error
        assert "the keys expired" in life.said[0]
    for _ in range(10):
        life.second(steps=1)
    life.finish()
    assert life.same()
    assert len(life.said) == 2


def test_a_disk_that_cannot_be_read_costs_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before the failure is shipped, and marks are not passed on before a whole round was."""
    life = Life(tmp_path)
    walk = working_copy.walk
    fail = True

    def failing(folder: Path) -> Iterator[Any]:
        for number, entry in enumerate(walk(folder)):
            if fail and number == 2:
                raise OSError(5, "Input/output error")
            yield entry

    monkeypatch.setattr(working_copy, "walk", failing)
    life.write(5)
    mark = life.shipping.mark()
    for _ in range(30):
        life.second(steps=0)
    assert life.shipping.shipped < mark
    assert "Input/output error" in life.shipping.error
    fail = False
    for _ in range(10):
        life.second(steps=0)
    assert life.shipping.shipped >= mark
    life.finish()
    assert life.same()


def test_a_file_that_changes_while_it_is_uploaded_is_shipped_as_it_is_then(tmp_path: Path) -> None:
    life = Life(tmp_path)
    (life.folder / "code").mkdir()
    big = life.folder / "code/big.bin"
    big.write_bytes(b"a" * 3_000_000)
    upload = life.client.__class__.upload

    def changing(self: MemoryStorage, name: str, blocks: Any) -> int:
        if big.read_bytes()[:1] == b"a":
            big.write_bytes(b"b" * 3_000_000)
        return upload(self, name, blocks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStorage, "upload", changing)
        for _ in range(15):
            life.second(steps=1)
    life.finish()
    assert life.same()
    assert len([name for name in life.store.objects if "/files/" in name]) == 1


def test_a_removal_that_lands_late_takes_nothing_that_is_there_again(tmp_path: Path) -> None:
    """A large file is one thing, another, and the first again; its first object is removed after that."""
    life = Life(tmp_path)
    late: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStorage, "delete", lambda _, names: late.append(list(names)))
        for content in (b"a", b"b", b"a"):
            (life.folder / "report.json").write_bytes(content * 100_000)
            life.hurry()
            life.second(steps=0)
        life.finish()
    removed = [name for names in late for name in names]
    assert len(removed) == 2
    life.run.storage.delete(removed)
    assert life.same()


def test_what_a_stopped_leader_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """A segment and a file that no head names; but nothing of a leader that came later."""
    life = Life(tmp_path)
    life.second(steps=1)
    left = ["records/0-e000001-00000000000009-ab-cd", "files/e000001-ab-1-cd"]
    later = ["records/0-e000009-00000000000009-ab-cd", "files/e000009-ab-1-cd"]
    for name in (*left, *later):
        life.run.storage.put(name, b"")
    life.shipping.free()
    life.lease.release()
    run = RemoteRun(life.store.client(), "run")
    lease = run.claim()
    run.pull(life.folder)
    mirror = Mirror(life.folder, lease)
    assert mirror.close(20.0, release=True)
    there = {found.name for found in run.storage.list()}
    assert there & {*left, *later} == set(later)
    assert life.same()


def test_what_cannot_be_removed_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no right to it; records are shipped, and the run ends well. Once there is one, it is made use of."""
    life = Life(tmp_path, fail_after=60.0)

    def large() -> None:
        for number in range(40):
            (life.folder / "report.json").write_bytes(bytes([number]) * 100_000)
            life.hurry()
            life.second(steps=1)

    tried = 0

    def refuse(_: MemoryStorage, names: list[str]) -> None:
        nonlocal tried
        tried += 1
        raise BadInput("report.json cannot be removed", "AccessDenied")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStorage, "delete", refuse)
        large()
        for _ in range(120):
            life.second(steps=1)
        life.finish()
    assert life.failures == []
    assert life.most_lag_s <= 6
    assert [text for text in life.said if "cannot be removed" in text] == life.said
    assert len(life.said) == 1
    assert tried <= 4
    assert life.same()
    lease = life.run.claim()
    mirror = Mirror(life.folder, lease)
    assert mirror.close(20.0, release=True)
    assert len(life.run.storage.list("files/")) == 1


# In its thread


class Led:
    """A run with a mirror that looks all the time."""

    def __init__(self, tmp: Path, **options: Any) -> None:
        self.folder = RunFolder(tmp / "led")
        self.folder.path.mkdir()
        self.store = Memory(times.monotonic)
        self.run = RemoteRun(self.store.client(options.pop("troubles", None)), "run")
        self.lease = self.run.create({"state": "running"}, lease_s=options.pop("lease_s", 30.0))
        self.said: list[str] = []
        self.failures: list[dict[str, Any]] = []
        every_s = options.pop("every_s", 0.02)
        self.mirror = Mirror(
            self.folder.path, self.lease, every_s, say=self.said.append, fail=self.failures.append, **options
        )


@pytest.fixture
def led(tmp_path: Path) -> Iterator[Callable[..., Led]]:
    made: list[Led] = []

    def lead(**options: Any) -> Led:
        made.append(Led(tmp_path, **options))
        return made[-1]

    yield lead
    for one in made:
        one.mirror.close(timeout_s=5.0)


def test_what_is_written_is_shipped_by_itself(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led()
    run.folder.write({"state": "running"})
    mark = run.mirror.mark()
    until(lambda: run.mirror.shipped >= mark)
    run.run.pull(tmp_path / "copy")
    assert RunFolder(tmp_path / "copy").read() == {"state": "running"}


def test_who_waits_does_not_wait_for_the_next_round(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led(every_s=1000.0)
    run.folder.write({"step": 1})
    assert run.mirror.flush(20.0)
    run.folder.write({"step": 2})
    mark = run.mirror.mark()
    run.mirror.hurry()
    until(lambda: run.mirror.shipped >= mark)
    assert run.mirror.close(20.0, release=True)
    run.run.pull(tmp_path / "copy")
    assert RunFolder(tmp_path / "copy").read() == {"step": 2}
    assert run.run.head().released


def test_a_flush_is_a_fence(led: Callable[..., Led]) -> None:
    """It ends with a write, though there is nothing to tell: only that shows that nobody else leads."""
    run = led(every_s=1000.0)
    assert run.mirror.flush(20.0)
    beat = run.run.head().beat
    assert run.mirror.flush(20.0)
    assert run.run.head().beat == beat + 1
    RemoteRun(run.store.client(), "run").join(1)
    assert not run.mirror.flush(20.0)
    until(lambda: bool(run.failures))
    assert [failure["kind"] for failure in run.failures] == ["superseded"]


def test_who_is_superseded_as_it_ends_does_not_wait(led: Callable[..., Led]) -> None:
    one = led()
    assert one.mirror.flush(10.0)
    with pytest.MonkeyPatch.context() as patch:
        ended = threading.Event()

        def release() -> None:
            ended.set()
            raise Superseded("another process leads the run")

        patch.setattr(one.lease, "release", release)
        began = times.monotonic()
        assert one.mirror.close(30.0, release=True), "all of it is in the store"
    assert ended.is_set()
    assert times.monotonic() - began < 15.0


def test_the_superseded_one_writes_no_more(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led(lease_s=0.5, every_s=1000.0)
    assert run.mirror.flush(20.0)
    other = RemoteRun(run.store.client(), "run").join(1)
    run.folder.write({"of": "the old one"})
    until(lambda: bool(run.failures))
    assert "another process leads run run" in run.failures[0]["fact"]
    assert not run.mirror.close(5.0, release=True)
    head = run.run.head()
    assert (head.nonce, head.released) == (other.head.nonce, False)
    assert b"the old one" not in head.tail


def test_the_lead_is_handed_on_with_the_folder(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led()
    run.folder.write({"by": "driver"})
    assert run.mirror.close(20.0)
    assert not run.run.head().released
    recorder = RemoteRun(run.store.client(), "run")
    lease = recorder.join(1)
    before = len(recorder.storage.requests)  # type: ignore[attr-defined]
    recorder.pull(run.folder.path)
    assert len(recorder.storage.requests) == before + 1  # type: ignore[attr-defined]
    mirror = Mirror(run.folder.path, lease, 0.02)
    run.folder.write({"by": "recorder"})
    assert mirror.close(20.0, release=True)
    recorder.pull(tmp_path / "copy")
    assert RunFolder(tmp_path / "copy").read() == {"by": "recorder"}


def test_a_folder_has_one_mirror_and_is_a_copy(
    led: Callable[..., Led], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = led()
    hold = working_copy.hold
    monkeypatch.setattr(working_copy, "hold", lambda folder, timeout_s: hold(folder, 0.1))
    with pytest.raises(BadInput, match="is in use"):
        Mirror(run.folder.path, run.lease)
    run.folder.write({})
    assert run.mirror.close(20.0, release=True)
    lease = run.run.claim()
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="is no copy of run run"):
        Mirror(tmp_path / "empty", lease)


def test_it_ends_in_time_where_the_store_does_not_answer(led: Callable[..., Led]) -> None:
    others, troubles = set(threading.enumerate()), Troubles()
    run = led(troubles=troubles)
    begin = times.monotonic()
    troubles.outages = ((begin, begin + 1000.0),)
    run.folder.write({"late": True})
    until(lambda: bool(run.mirror.error))
    assert not run.mirror.flush(0.1)
    assert not run.mirror.close(0.2)
    assert not any(thread.name == "mirror" for thread in set(threading.enumerate()) - others)
    assert len(run.said) == 1
    with pytest.raises(OutOfReach):
        run.run.head()
