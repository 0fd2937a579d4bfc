"""A cluster for a queue's keeper that is in memory, and trains in no time: what it was asked for is kept, and what is
there may be looked at at any moment.

    cluster = FakeCluster({"n0": 4}, clock)
    keeper = Keeper(place, lease, book, cluster, clock)
    keeper.turn(); clock.pass_s(1.0); cluster.live()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headway.core.enqueued import Entry, Seen
from headway.core.queued import Each, Node

Phase = Literal["pending", "running", "over"]


class Clock:
    """Goes on when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """As if it had been slept."""
        self.now += seconds

    pass_s = sleep


@dataclass
class Start:
    """A start of a run.

    Args:
        run, name: the run's, and its own.
        asked: workers that it was told to have; has: that work.
        by: who asked it to stop.
        begins_at: when it trains, if it has room.
    """

    run: str
    name: str
    asked: int
    begins_at: float
    has: int = 0
    phase: Phase = "pending"
    end: str = ""
    request: str = ""
    asked_to_stop: bool = False
    by: str = "the queue"


@dataclass
class Run:
    """What of a run lasts over its starts.

    Args:
        rest: work that is left, in seconds on one worker.
        done: that a checkpoint has.
    """

    rest: float
    done: float = 0.0
    starts: list[str] = field(default_factory=list)


class FakeCluster:
    """See the module. `live` lets its runs get on.

    Args:
        nodes: workers that each has room for, by its name.
        clock: seconds.
        works: seconds of work of a run, on one worker.
        start_s: seconds from a start to its first step.
        between: called before each act; raises what is to befall whoever acts.
    """

    def __init__(
        self,
        nodes: Mapping[str, int],
        clock: Clock,
        works: Mapping[str, float] | None = None,
        start_s: float = 3.0,
        between: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.has, self.clock, self.start_s, self.between = dict(nodes), clock, start_s, between
        self.works = dict(works or {})
        self.starts: dict[str, Start] = {}
        self.runs: dict[str, Run] = {}
        self.acts: list[str] = []
        self.refuses: dict[str, str] = {}
        """Runs whose starts fail, and how: task or platform."""
        self.away = False
        """Whether it cannot be asked."""
        self.content: dict[str, int] = {}
        """Runs that have no more workers than so many, by their own policy."""
        self.could_grow = False
        self.ordered: tuple[str, int] | None = None
        """For whom room is lacking, and for how many workers."""
        self.asked_to_leave: dict[str, tuple[str, ...]] = {}
        """Nodes, by the order that named some."""
        self.doubled: list[str] = []
        """Runs of which two starts trained at once: there must be none."""
        self.most = 0
        """Workers that trained at once."""
        self._seen_at = clock.now

    # What a keeper asks

    def nodes(self, runs: Sequence[str]) -> list[Node] | None:
        if self.away:
            return None
        where = self._where()
        return [
            Node(name, Each(float(room)), tuple(sorted(where.get(name, {}).items())))
            for name, room in sorted(self.has.items())
        ]

    def grows(self) -> bool:
        return self.could_grow

    def order(self, entry: Entry | None, workers: int) -> None:
        self.ordered = None if entry is None else (entry.run, workers)

    def seen(self, entry: Entry) -> Seen:
        if self.away:
            return Seen("unknown")
        start = self.starts.get(entry.start)
        if start is None:
            return Seen("absent")
        run = self.runs[entry.run]
        steps = int(10 * run.done)
        cause = self.refuses.get(entry.run, "") if start.end == "failed" else ""
        said = f"stopped by {start.by}" if start.end == "stopped" else start.end
        return Seen(start.phase, start.end, said, cause, steps, start.has, start.request, run.rest, run.done)

    def start(self, entry: Entry) -> None:
        self._act(f"start {entry.run} {entry.start} {entry.workers}")
        if entry.start in self.starts:
            return
        run = self.runs.setdefault(entry.run, Run(self.works.get(entry.run, 10.0)))
        run.starts.append(entry.start)
        self.starts[entry.start] = Start(entry.run, entry.start, entry.workers, self.clock.now + self.start_s)

    def resize(self, entry: Entry) -> None:
        self._act(f"resize {entry.run} {entry.order} {entry.workers}")
        start = self.starts.get(entry.start)
        if start is not None and start.phase != "over":
            start.asked, start.request = entry.workers, entry.order
            self.asked_to_leave |= {entry.order: entry.leave} if entry.leave else {}

    def pause(self, entry: Entry) -> None:
        self._act(f"pause {entry.run} {entry.start}")
        start = self.starts.get(entry.start)
        if start is not None:
            start.asked_to_stop = True

    # What becomes of it

    def live(self) -> None:
        """Let all get on, up to now."""
        passed_s, self._seen_at = self.clock.now - self._seen_at, self.clock.now
        for start in self.starts.values():
            run = self.runs[start.run]
            if start.phase == "running":
                done = min(run.rest, start.has * passed_s)
                run.rest, run.done = run.rest - done, run.done + done
                start.has = min(start.has, start.asked)
                if run.rest <= 0:
                    self._end(start, "finished")
                elif start.asked_to_stop:
                    self._end(start, "stopped")
            elif start.phase == "pending" and start.asked_to_stop:
                self._end(start, "stopped")
            elif start.phase == "pending" and self.clock.now >= start.begins_at and start.run in self.refuses:
                self._end(start, "failed")
        for start in self.starts.values():
            free = sum(self.has.values()) - sum(each.has for each in self.starts.values())
            if start.phase == "pending" and self.clock.now >= start.begins_at and free > 0:
                start.phase, start.has = "running", min(start.asked, free)
            elif start.phase == "running" and start.has < start.asked:
                start.has += max(0, min(start.asked - start.has, free))
        for start in self.starts.values():
            start.has = min(start.has, self.content.get(start.run, start.has))
        training = [start.run for start in self.starts.values() if start.phase == "running"]
        self.doubled += [run for run in set(training) if training.count(run) > 1]
        self.most = max(self.most, sum(start.has for start in self.starts.values()))

    def lose(self, run: str) -> None:
        """What leads the run is killed."""
        for start in self.starts.values():
            if start.run == run and start.phase != "over":
                self._end(start, "interrupted")

    def forget(self, run: str) -> None:
        """The cluster's list of jobs is lost, and what it led with it."""
        self.starts = {name: start for name, start in self.starts.items() if start.run != run}

    def _end(self, start: Start, how: str) -> None:
        start.phase, start.end, start.has = "over", how, 0

    def _act(self, what: str) -> None:
        self.between(what)
        if self.away:
            raise OSError("the cluster is away")
        self.acts.append(what)

    def _where(self) -> dict[str, dict[str, int]]:
        """Who works where: nodes are filled in order."""
        left, found = dict(self.has), dict[str, dict[str, int]]()
        for start in self.starts.values():
            for _ in range(start.has):
                node = next((name for name in sorted(left) if left[name] > 0), None)
                if node is None:
                    break
                left[node] -= 1
                held = found.setdefault(node, {})
                held[start.run] = held.get(start.run, 0) + 1
        return found
