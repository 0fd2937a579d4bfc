"""Every scheduler with every searcher through the real loop: the sweep comes to its end, the same way again."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from typing import Any

import pytest

from headway.sweeps import file
from headway.sweeps import schedule as schedulers
from headway.sweeps import search as searchers
from headway.sweeps.events import (
    Action,
    Ask,
    Clone,
    Config,
    GoOn,
    Over,
    Pause,
    Reported,
    Start,
    Stop,
    Suggested,
    Tell,
    Width,
)
from headway.sweeps.file import Sweep
from headway.sweeps.loop import Loop
from headway.sweeps.rules import Rules, Way
from headway.sweeps.schedule import Lengths

STEPS = 32
JOB: dict[str, Any] = {
    "name": "digits",
    "task": "task.py:Digits",
    "data": {"train": "d/train", "validation": "d/test"},
    "steps": STEPS,
    "optimizer": {"name": "sgd", "lr": 0.1},
}
SPACE: dict[str, Any] = {
    "optimizer.lr": {"loguniform": [1e-4, 1.0]},
    "optimizer.momentum": {"uniform": [0.0, 0.99]},
    "arguments.width": {"choice": [16, 32, 64, 128]},
}
SCHEDULERS: list[Any] = [
    "none",
    "asha",
    {"name": "asha", "promote": False},
    "hyperband",
    "median",
    {"name": "pbt", "every": 8},
]


def loss_of(config: Config, step: int) -> float:
    rate = math.log10(config["optimizer.lr"])
    return (
        math.nan if rate > -0.2 and step > 2 else (rate + 2) ** 2 + abs(config["optimizer.momentum"] - 0.9) + 2 / step
    )


class Run:
    """A sweep on a clock on which every step takes one, with some places."""

    def __init__(self, sweep: Sweep, width: int) -> None:
        self.loop = Loop(
            Rules("loss", "min", trials=sweep.trials, way=lambda config: Way(STEPS, 1)),
            schedulers.create(sweep, Lengths(STEPS, 1)),
        )
        self.searcher = searchers.create(sweep)
        self.done: Counter[str] = Counter()
        self.asked: deque[Suggested] = deque()
        self.due: list[tuple[int, int, Reported]] = []
        self.now = 0
        self._do(self.loop.feed(Width(width)))
        while self.loop.over is None:
            if self.asked:
                self._do(self.loop.feed(self.asked.popleft()))
                continue
            assert self.due, "nobody runs, and it is not over"
            self.now, _, event = heapq.heappop(self.due)
            self._do(self.loop.feed(event))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            self.done[type(action).__name__] += 1
            match action:
                case Ask(trial):
                    self.asked.append(Suggested(trial, self.searcher.suggest(trial)))
                case Tell():
                    self.searcher.told(action.trial, action.step, action.value, action.final)
                case Start() | GoOn() | Clone():
                    trial = self.loop.trials[action.trial]
                    event = Reported(trial.number, action.until, {"loss": loss_of(trial.config, action.until)}, True)
                    heapq.heappush(self.due, (self.now + action.until - trial.step, sum(self.done.values()), event))
                case Pause() | Stop() | Over():
                    pass


def sweep(scheduler: Any, search: Any, trials: int) -> Sweep:
    return file.taken({"job": JOB, "trials": trials, "space": SPACE, "search": search, "scheduler": scheduler})


@pytest.mark.parametrize("search", ["random", "sobol", "density", {"name": "tpe", "startup": 5}], ids=str)
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_a_sweep_comes_to_its_end(scheduler: Any, search: Any) -> None:
    run = Run(sweep(scheduler, search, 14), 4)
    assert run.loop.over is not None
    assert run.loop.over.state == "finished"
    assert len(run.loop.trials) == 14
    assert all(trial.over for trial in run.loop.trials.values())
    assert any(trial.state == "finished" for trial in run.loop.trials.values()), "somebody went its whole way"
    best = run.loop.best
    assert best is not None
    assert not math.isnan(best.best or math.nan)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_it_goes_the_same_way_again(scheduler: Any) -> None:
    one, other = (Run(sweep(scheduler, "density", 14), 3) for _ in range(2))
    assert one.done == other.done
    assert [trial.config for trial in one.loop.trials.values()] == [
        trial.config for trial in other.loop.trials.values()
    ]
    assert [trial.step for trial in one.loop.trials.values()] == [trial.step for trial in other.loop.trials.values()]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_a_searcher_that_has_fewer_ends_it_sooner(scheduler: Any) -> None:
    """Of 12 settings 20 trials are wanted; a population would wait for the others."""
    few = {**SPACE, "optimizer.lr": {"grid": [0.001, 0.01, 0.1]}, "optimizer.momentum": {"constant": 0.9}}
    if scheduler == {"name": "pbt", "every": 8}:
        scheduler = {**scheduler, "mutate": ["optimizer.lr"]}
    tree = {"job": JOB, "trials": 20, "space": few, "search": "grid", "scheduler": scheduler}
    run = Run(file.taken(tree), 5)
    assert len(run.loop.trials) == 12
    assert all(trial.over for trial in run.loop.trials.values())
    assert any(trial.state == "finished" for trial in run.loop.trials.values())
