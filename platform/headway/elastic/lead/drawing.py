"""What becomes of a run's numbers in the tracking store: few curves, each thinned as it grows and drawn once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from headway.core import nodes
from headway.core.best import Best
from headway.core.curves import Curves, Point

EVALUATIONS = 256
"""Whose times are remembered, for the checkpoints of their steps."""

Track = Callable[[dict[str, Any]], None]


class Drawing:
    """See the module.

    Args:
        every: steps that a point of a training curve stands for at least.
        best: the metric and the mode of what is the best; None where nothing is.
        kept: of `Best.facts`, as a start before left them.
        last: by name, the newest step of which a start before has drawn a point.
        held: what that start held back when it came to its newest checkpoint; see `of_checkpoint`.
        track: takes an event for the tracking store.
        save: keeps facts of the run.
    """

    def __init__(
        self,
        every: int,
        best: tuple[str, str] | None,
        kept: Mapping[str, Any] | None,
        last: dict[str, int],
        held: Mapping[str, Iterable[Point]],
        track: Track,
        save: Callable[..., None],
    ) -> None:
        self._every, self._track, self._save = every, track, save
        self._curves = Curves(every, last)
        self._best = Best(best[0], "max" if best[1] == "max" else "min", kept) if best is not None else None
        self._theirs: set[str] = set()
        """Names of the user's records, which ours make way for."""
        self._evaluated: OrderedDict[int, float] = OrderedDict()
        self._lock = threading.Lock()  # what machines do comes from a thread of its own
        for name, points in held.items():
            for step, at, value in points:
                if step > last.get(name, -1):
                    self._draw(step, at, {name: value})

    def step(self, record: Mapping[str, Any], gauges: Callable[[], dict[str, float]]) -> None:
        """A step was committed. gauges: gives how things stand, now and then."""
        values = {"loss": record["loss"], "lr": record["lr"]}
        if record["step"] % self._every == 0:
            values |= gauges()
        self._draw(record["step"], record["time"], {n: v for n, v in values.items() if n not in self._theirs})

    def recorded(self, record: Mapping[str, Any]) -> None:
        """The task has recorded something under names of its own."""
        self._theirs.update(record["values"])
        self._draw(record["step"], record["time"], record["values"])

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """It was evaluated after so many steps."""
        step, at, values = record["step"], record["time"], record["values"]
        self._evaluated[step] = at
        if len(self._evaluated) > EVALUATIONS:
            self._evaluated.popitem(last=False)
        told = {f"validation/{name}": value for name, value in values.items()}
        best = self._best
        if best is not None and best.metric in values and best.take(step, float(values[best.metric])):
            told[f"best_validation/{best.metric}"] = values[best.metric]
            self._save(best=best.facts())
        self._draw(step, at, told)

    def machines(self, line: Mapping[str, Any], step: int) -> None:
        """What they did in an interval, see `headway.core.nodes.Nodes.line`."""
        self._draw(step, line["time"], nodes.together(line))

    def rewind(self, step: int) -> None:
        """The run goes on from this step."""
        if self._best is not None and self._best.newest is not None and self._best.newest[0] > step:
            self._best.rewind(step)
            self._save(best=self._best.facts())

    def of_checkpoint(self, step: int) -> dict[str, Any]:
        """For the event of a checkpoint of that step: when its metrics were measured, where they were; and what is held
        back, for whoever goes on from it after this process is killed."""
        with self._lock:
            held = self._curves.held()
        return {**({"measured": self._evaluated[step]} if step in self._evaluated else {}), "held": held}

    def rest(self) -> None:
        """What was held back: at the end."""
        with self._lock:
            self._emit(self._curves.rest())

    def _draw(self, step: int, at: float, values: Mapping[str, Any]) -> None:
        found: list[tuple[str, Point]] = []
        with self._lock:
            for name, value in values.items():
                if isinstance(value, int | float):
                    found += [(name, point) for point in self._curves.add(name, step, at, float(value))]
            self._emit(found)

    def _emit(self, points: Iterable[tuple[str, Point]]) -> None:
        """Those of one step in one event; steps of each name rise."""
        found: dict[tuple[int, float], dict[str, float]] = {}
        for name, (step, at, value) in points:
            found.setdefault((step, at), {})[name] = value
        for (step, at), values in sorted(found.items(), key=lambda each: each[0]):
            self._track({"kind": "points", "step": step, "time": at, "values": values})
