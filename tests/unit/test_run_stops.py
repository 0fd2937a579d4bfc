"""Whatever stops a leader, at whatever request: the run stays readable, one leads, and what was acknowledged is there.

A world of its own, in one thread: a store in memory, a clock that only this moves, and processes one after the other,
each of which claims the run, writes records and is stopped for ever at one of its requests; some are paused instead and
wake when another leads, some claim at once, answers are lost, and writes land late.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.tiers import examples

from headway.errors import BadInput
from headway.runs import changes, head, shipping
from headway.runs.head import HEAD, Head, read
from headway.runs.lease import Lease
from headway.runs.remote import Clock, RemoteRun
from headway.runs.shipping import Shipping
from headway.storage.protocol import ABSENT, OutOfReach
from headway.testing.memory_storage import Memory, Stopped, Troubles

Lines = tuple[str, ...]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is so small that it is sealed, merged and removed all the time."""
    for module, name, value in (
        (head, "TAIL_RAW_BYTES", 400),
        (head, "TOGETHER", 3),
        (head, "LEVELS", 8),
        (shipping, "BATCH_BYTES", 200),
        (shipping, "GARBAGE", 2),
        (changes, "INLINE_BYTES", 64),
        (changes, "TICK_NS", 0),
    ):
        monkeypatch.setattr(module, name, value)


class World:
    """The store, the clock, and what everybody should find."""

    def __init__(self, seed: int, tmp: Path) -> None:
        self.draw, self.tmp, self.now = random.Random(seed), tmp, 0.0
        self.store = Memory(lambda: self.now)
        self.store.written = self.saw
        self.heads: list[Head] = []
        self.checkpoints: dict[str, bool] = {}
        """Folders of manifests that were written; whether that was acknowledged by a fence after it."""
        self.told: Counter[str] = Counter()
        self.asleep: list[Process] = []
        self.busy = False
        self.processes = 0

    def saw(self, name: str, content: bytes) -> None:
        """Of the heads: each follows the one before it, and no leader writes again once another did."""
        if name != f"run/{HEAD}":
            return
        new = read(content, name)
        if self.heads:
            old = self.heads[-1]
            assert new.beat == old.beat + 1
            assert new.position >= old.position
            if new.epoch != old.epoch:
                assert new.epoch == old.epoch + 1
            elif new.nonce != old.nonce:
                raise AssertionError("two lead in one epoch")
        self.heads.append(new)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.asleep and not self.busy:
            process = self.draw.choice(self.asleep)
            if self.draw.random() < (0.3 if process.outlived() else 0.01):
                self.elsewhere(lambda: process.live(1))

    def elsewhere(self, action: Callable[[], None]) -> None:
        """Something that another process does meanwhile."""
        self.busy = True
        try:
            with suppress(Stopped):
                action()
        finally:
            self.busy = False

    def troubles(self) -> Troubles:
        """Of a process that is stopped somewhere, unless it is only paused."""
        draw = self.draw
        some = frozenset(draw.sample(range(1, 60), draw.choice([0, 0, 1, 4])))
        late = {number: draw.randrange(1, 25) for number in draw.sample(range(1, 60), draw.choice([0, 0, 1, 3]))}
        begin = self.now + draw.uniform(0.0, 100.0)
        outages = ((begin, begin + draw.uniform(0.0, 90.0)),) if draw.random() < 0.1 else ()
        return Troubles(draw.randrange(1, 70), draw.random() < 0.5, some, late, outages)


class Process:
    """One that leads the run, or tries to; with a folder of its own."""

    def __init__(self, world: World, troubles: Troubles | None) -> None:
        world.processes += 1
        self.world, self.number = world, world.processes
        self.folder = world.tmp / f"{self.number:05d}"
        self.run = RemoteRun(world.store.client(troubles), "run", Clock(lambda: world.now, world.sleep))
        self.states: list[Lines] = []
        """What steps.jsonl was after each thing that was done to it, since this process has led."""
        self.marks: list[tuple[int, int]] = []
        self.failures: list[str] = []
        self.shipping: Shipping | None = None
        self.lease: Lease | None = None
        self.superseded = False

    def begin(self, first: bool = False) -> None:
        """Lead the run."""
        self.folder.mkdir()
        if first:
            self.lease = self.run.create({"state": "running"})
        else:
            self.lease = self.run.claim()
            self.run.pull(self.folder)
        self.states = [lines(self.folder)]
        self.shipping = Shipping(
            self.lease,
            self.folder,
            lambda: {"count": len(self.states)},
            5.0,
            lambda _: None,
            lambda failure: self.failures.append(failure["kind"]),
            None,
            lambda: self.world.now,
            lambda action: action(),
        )
        self.shipping.open()

    def live(self, turns: int) -> None:
        """Write and ship for a while."""
        assert self.shipping is not None
        for _ in range(turns):
            self.write()
            self.marks.append((self.shipping.mark(), len(self.states) - 1))
            if self.world.draw.random() < 0.2:
                self.shipping.want()
            pause = self.shipping.turn()
            if self.world.draw.random() < 0.2:
                self.checkpoint()
            self.world.now += min(pause, 5.0) + self.world.draw.uniform(0.0, 2.0)
            if self.failures:
                return

    def write(self) -> None:
        draw, path, now = self.world.draw, self.folder / "steps.jsonl", self.states[-1]
        if draw.random() < 0.15 and now:
            now = now[: draw.randrange(len(now))]
            kept = path.with_suffix(".kept")
            kept.write_text("".join(now))
            kept.replace(path)
        else:
            new = tuple(f'"{self.number}-{len(self.states)}-{i}"\n' for i in range(draw.randrange(1, 12)))
            with path.open("a") as file:
                file.write("".join(new))
            now = now + new
        self.states.append(now)
        (self.folder / "run.json").write_text(json.dumps({"lines": len(now)}))
        if draw.random() < 0.2:
            (self.folder / "report.json").write_text("x" * draw.randrange(150))

    def checkpoint(self) -> None:
        """Its manifest is written, then this process sees that it leads still: only then is it acknowledged."""
        assert self.shipping is not None
        assert self.lease is not None
        name = f"checkpoints/step-{self.number:08d}/e{self.lease.epoch:06d}-{len(self.states)}"
        try:
            self.run.storage.put(f"{name}/manifest.json", b"{}", ABSENT)
        except OutOfReach:
            return
        self.world.checkpoints[name] = False
        if self.world.draw.random() < 0.5:
            with suppress(OutOfReach):
                self.world.checkpoints[name] = self.run.head().epoch == self.lease.epoch
            return
        wanted = self.shipping.want()
        self.shipping.turn()
        self.world.checkpoints[name] = self.shipping.fenced >= wanted

    def outlived(self) -> bool:
        """Whether another leads by now, though nobody told this one."""
        return self.lease is not None and self.lease.epoch < self.world.heads[-1].epoch

    def acknowledged(self) -> int:
        """The newest state of which this process knows that the store has it."""
        if self.shipping is None:
            return 0
        return max((state for mark, state in self.marks if mark <= self.shipping.shipped), default=0)

    def end(self) -> None:
        if self.shipping is not None:
            self.shipping.free()
        shutil.rmtree(self.folder, ignore_errors=True)


def lines(folder: Path) -> Lines:
    path = folder / "steps.jsonl"
    return tuple(path.read_text().splitlines(keepends=True)) if path.exists() else ()


def check(world: World, last: Process | None) -> None:
    """A reader finds the run, with all that was acknowledged to the one that led last."""
    world.store.land()
    reader = Process(world, None)
    reader.folder.mkdir()
    at = reader.run.pull(reader.folder)
    found = lines(reader.folder)
    if last is not None and last.shipping is not None and last.lease is not None and at.epoch == last.lease.epoch:
        since = last.acknowledged()
        assert found in last.states[since:], f"acknowledged {since} of {len(last.states)}"
        world.told["unacknowledged"] += (
            len(last.states) - 1 - max(i for i, state in enumerate(last.states) if state == found)
        )
        facts = reader.folder / "run.json"
        assert not facts.exists() or json.loads(facts.read_text())["lines"] in {len(state) for state in last.states}
    for name, acknowledged in world.checkpoints.items():
        assert not acknowledged or reader.run.counts(f"{name}/manifest.json", at), name
    reader.end()


def life(world: World) -> None:
    """One process from its claim to its stop, with whatever else happens meanwhile."""
    draw = world.draw
    paused = draw.random() < 0.15
    troubles = Troubles() if paused else world.troubles()
    process = Process(world, troubles)
    with suppress(Stopped):
        try:
            process.begin(first=not world.heads)
            process.live(draw.randrange(1, 12) if paused else draw.choice([5, 15, 60]))
            if not paused and process.shipping is not None and draw.random() < 0.5:
                process.shipping.end(released=True)
                world.told["released"] += 1
        except BadInput:
            world.told["led elsewhere"] += 1
        except OutOfReach:
            world.told["out of reach"] += 1
    world.told["paused" if paused else "stopped"] += 1
    world.told["superseded"] += "superseded" in process.failures
    check(world, process)
    if paused and process.shipping is not None:
        world.asleep.append(process)
        if len(world.asleep) > 3:
            world.asleep.pop(0).end()
    else:
        process.end()


def two_at_once(world: World) -> Iterator[Process]:
    """Two claim while the other one does: exactly one leads."""
    epoch = world.heads[-1].epoch
    one, other = Process(world, None), Process(world, None)
    at = world.draw.randrange(1, 40)
    seen = 0

    def between() -> None:
        nonlocal seen
        seen += 1
        if seen == at and not world.busy:
            world.elsewhere(lambda: attempt(other))

    def attempt(process: Process) -> None:
        with suppress(BadInput):
            process.begin()

    world.store.between = between
    attempt(one)
    world.store.between = lambda: None
    if other.lease is None and not other.folder.exists():
        attempt(other)
    leads = [p for p in (one, other) if p.lease is not None and p.lease.head.mine == world.heads[-1].mine]
    if not leads:  # one that was thought to be dead was heard of meanwhile: neither may lead
        assert world.heads[-1].epoch == epoch
        return
    world.told["two at once"] += 1
    assert len(leads) == 1
    for process in (one, other):
        if process.shipping is not None:
            process.live(3)
            if process not in leads:
                assert process.failures == ["superseded"]
    assert leads[0].failures == []
    yield from (one, other)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(examples(4, 100)))
def test_hundreds_of_stops(part: int, tmp_path: Path) -> None:
    """A hundred in each world; the seed is in the test's name."""
    world = World(part, tmp_path)
    while world.told["stopped"] < 100:
        life(world)
        if world.draw.random() < 0.05 and world.heads:
            for process in two_at_once(world):
                process.end()
            check(world, None)
        for process in [process for process in world.asleep if process.outlived() and world.draw.random() < 0.5]:
            world.elsewhere(lambda process=process: process.live(2))  # type: ignore[misc]
            assert process.failures == ["superseded"]
            world.told["woke too late"] += 1
            world.asleep.remove(process)
            process.end()
    for process in world.asleep:
        process.end()
    print(f"seed {part}: {dict(world.told)}, {len(world.heads)} heads, epoch {world.heads[-1].epoch}")
    assert world.told["woke too late"] > 0
    assert world.told["two at once"] > 0
    assert world.heads[-1].epoch > 50
    assert any(segment.level for head in world.heads for segment in head.segments), "nothing was merged"
    rubbish = {name for name in world.store.objects if name.startswith("run/records/")}
    named = {f"run/{segment.name}" for segment in world.heads[-1].segments}
    assert named <= rubbish
