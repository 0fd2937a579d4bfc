"""Real runs of small jobs through the product's engine, without Ray: what workers saw of them, and what comes of it."""

from __future__ import annotations

import hashlib
import importlib.util
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from headway.elastic.worker.context import Context
from headway.errors import BadInput
from headway.job import Job, parse
from headway.strategies.options import Strategy
from headway.testing.elastic import Outcome, Run, advance

HERE = Path(__file__).parent
PICTURES = f"{HERE / 'pictures.py'}:Pictures"
GPT = f"{HERE.parent.parent / 'trainers' / 'language_model' / 'task.py'}:LanguageModel"
ACKNOWLEDGED_S = 0.06
"""After which the kernel has acknowledged what was sent: only then are bytes counted."""
TAIL = 20
"""The loss at the end is a mean over so much of the run: the last twentieth."""


class LeftOut(Exception):
    """A strategy refuses, or cannot be run here; says why."""


@dataclass(frozen=True)
class Pace:
    """Computing that is emulated by sleeping, in the body of a lane.

    Args:
        seconds: of a lane's batch.
        chance: with which one takes `times` as long, drawn by seed, step and rank: the same under all strategies.
        rank: of a worker all of whose batches do; -1: none.
        times: see there.
        seed: of the draws.
    """

    seconds: float = 0.0
    chance: float = 0.0
    rank: int = -1
    times: float = 1.0
    seed: int = 0

    def of(self, step: int, rank: int) -> float:
        """Seconds of a batch."""
        slow = rank == self.rank or random.Random(f"{self.seed} {step} {rank}").random() < self.chance
        return self.seconds * (self.times if slow else 1.0)


@dataclass(frozen=True)
class How:
    """What a worker does.

    Args:
        task: its file and class.
        arguments: of the class.
        round: steps of an exchange: bytes are counted over whole ones, from the end of the first.
        pace: of computing.
        snapshots: rank 0 keeps the common weights so often, in steps, at exchanges; 0: never.
        evaluate: at the end.
        patch: called as patch() first, in the worker's process; importable by name.
        weights: that the model begins with; None: its own.
    """

    task: str = PICTURES
    arguments: dict[str, Any] = field(default_factory=dict)
    round: int = 1
    pace: Pace = Pace()
    snapshots: int = 0
    evaluate: bool = True
    patch: Callable[[], None] | None = None
    weights: dict[str, Any] | None = None


@dataclass
class Seen:
    """By one worker. Steps count committed ones.

    Args:
        times: by the step that was done then, on a clock that all share.
        seconds: that each took.
        marks: steps done, and bytes to and from peers so far, at exchanges' ends: the first and the last.
        snapshots: seconds since the first step's end, steps, and weights.
        values: of the evaluation.
        digest: of the weights at the end.
        rank: at the last step.
    """

    times: dict[int, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)
    snapshots: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    digest: str = ""
    rank: int = -1


def made(task: str, arguments: dict[str, Any]) -> Any:
    """A task from its file."""
    file, _, name = task.rpartition(":")
    module = f"benchmarked_{hashlib.sha256(file.encode()).hexdigest()[:8]}"
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    return getattr(sys.modules[module], name)(**arguments)


def train(context: Context, how: How) -> Seen:
    """A worker's whole run."""
    import torch

    from headway.elastic.worker import update
    from headway.elastic.worker.loop import run_step, session_of

    torch.set_num_threads(1)
    if how.patch is not None:
        how.patch()
    task, seen = made(how.task, how.arguments), Seen()
    if how.weights is not None:
        task.model = partial(loaded, task.model, how.weights)
    context.use(task.transform)
    with session_of(task) as training:
        if how.pace.seconds:
            task.loss = _paced(task.loss, how.pace, training)
        exchanges = due = 0
        for step in training.steps():
            before, begun = training.step, time.monotonic()
            run_step(task, training, step)
            now = training.step
            if now <= before:
                continue
            ended = time.monotonic()
            seen.times[now], seen.rank = ended, training.rank
            seen.seconds.append(ended - begun)
            if now == how.round or now == training.total_steps:
                time.sleep(ACKNOWLEDGED_S)
                group = training.engine.pact.group
                seen.marks.append((now, group.bytes_moved() if group is not None else 0))
            served = context.job.strategy.is_asynchronous
            newer = served or training.replica.exchanges != exchanges
            if how.snapshots and training.rank == 0 and now >= due and newer:
                exchanges, due = training.replica.exchanges, now + how.snapshots
                state = _pulled(training) if served else training.model.state_dict()
                kept = {name: value.detach().clone().numpy() for name, value in state.items()}
                seen.snapshots.append((ended - min(seen.times.values()), now, kept))
            advance(now)
            if how.evaluate and now == training.total_steps:
                seen.values = training.evaluate(task.metrics, task.measures())
    seen.digest = update.weights_sha256(training.model)
    return seen


def loaded(model: Callable[[], Any], weights: dict[str, Any]) -> Any:
    """What `model` makes, with these weights."""
    import torch

    found = model()
    found.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return found


def _pulled(training: Any) -> dict[str, Any]:
    """Weights that this worker was given by servers last; of a model without buffers."""
    rounds = training.engine.rounds
    body = next((each.body for each in rounds.live.values() if each.body is not None), None)
    if body is None:  # all have met, and have the same
        found: dict[str, Any] = training.model.state_dict()
        return found
    number = {id(parameter): at for at, parameter in enumerate(rounds.bodies.parameters)}
    return {name: body.weights[number[id(parameter)]] for name, parameter in training.model.named_parameters()}


def _paced(loss: Callable[..., Any], pace: Pace, training: Any) -> Callable[..., Any]:
    def sleeping(model: Any, batch: Any, *update: Any) -> Any:
        if model.training:
            time.sleep(pace.of(training.step, training.rank))
        return loss(model, batch, *update)

    return sleeping


@dataclass(frozen=True)
class Plan:
    """Of a run.

    Args:
        data: folder with train and test.
        strategy: the job's section.
        workers: that are there from the beginning.
        lanes: of the run.
        lane_batch: rows of each.
        steps: of the run.
        seed: of the job.
        how: what a worker does.
        fields: of the job besides.
        run: arguments of `headway.testing.elastic.Run` besides.
        least: workers with which it goes on.
        deadline_s: of all of it.
    """

    data: Path
    strategy: dict[str, Any]
    workers: int
    lanes: int
    lane_batch: int
    steps: int
    seed: int = 0
    how: How = How()
    fields: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    least: int | None = None
    deadline_s: float = 3600.0

    def job(self) -> Job:
        """Raises LeftOut: there can be no such job."""
        tree = {
            "name": "strategies",
            "task": "task.py:Task",
            "data": {"train": str(self.data / "train"), "validation": str(self.data / "test"), "eval_batch": 250},
            "lanes": self.lanes,
            "lane_batch": self.lane_batch,
            "steps": self.steps,
            "seed": self.seed,
            "checkpoint": {"every_steps": None},
            "replica_check_every": None,
            "lanes_together": "never",
            "strategy": self.strategy,
            "workers": {
                "min": self.workers if self.least is None else self.least,
                "max": self.workers,
                "silence_s": 5.0,
                "hang_s": 120.0,
            },
        }
        try:
            return parse({**tree, **self.fields})
        except BadInput as error:
            raise LeftOut(str(error).replace("\n", " ")) from None


@dataclass(frozen=True)
class Done:
    """What came of a run.

    Args:
        outcome: as the recorder has it.
        seen: by worker.
        wall_s: seconds from the first step's end to the last's, of whoever was the last.
        steps: committed.
    """

    outcome: Outcome
    seen: dict[str, Seen]
    wall_s: float
    steps: int

    @property
    def first(self) -> Seen:
        """Of rank 0 at the end."""
        return min(self.seen.values(), key=lambda each: each.rank)

    @property
    def loss(self) -> float:
        """In training, a mean over the last steps."""
        losses = [line["loss"] for line in self.outcome.steps]
        return statistics.mean(losses[-max(1, len(losses) // TAIL) :])

    @property
    def sent(self) -> float:
        """Bytes that a worker sent for a step, on average over workers and whole rounds."""
        return statistics.mean(sent(seen.marks) for seen in self.seen.values())

    @property
    def step_s(self) -> float:
        """Of rank 0; see `step_s`."""
        return step_s(self.first.seconds)


def sent(marks: Sequence[tuple[int, int]]) -> float:
    """Bytes that a worker sent for a step, by `Seen.marks`: over whole rounds after the first."""
    (first, before), (last, after) = marks[0], marks[-1]
    return ((after - before) / (last - first) if last > first else after / last) / 2


def step_s(seconds: Sequence[float]) -> float:
    """Median, in which a fixed few steps at the beginning do not count."""
    return statistics.median(seconds[min(4, len(seconds) // 2) :])


def run(plan: Plan, folder: Path, during: Callable[[Run], None] | None = None) -> Done:
    """Do it. during: called with it, while it goes on.

    Raises:
        LeftOut: it failed, or there can be no such job.
    """
    job = plan.job()
    how = replace(plan.how, round=Strategy.model_validate(plan.strategy).round_steps)
    with Run(folder, job, train, how, **plan.run) as running:
        try:
            if during is not None:
                during(running)
            outcome = running.result(plan.deadline_s)
        except AssertionError as error:
            raise LeftOut(running.failure or str(error)) from None
    if outcome.failure is not None or not outcome.results:
        raise LeftOut((outcome.failure or "no worker came to its end").splitlines()[0])
    times: dict[int, float] = {}
    for seen in outcome.results.values():
        for step, at in seen.times.items():
            times[step] = max(times.get(step, 0.0), at)
    return Done(outcome, outcome.results, times[max(times)] - times[min(times)], max(times))


def accuracy(data: Path, arguments: dict[str, Any]) -> Callable[[dict[str, Any]], float]:
    """Of weights, over the test set."""
    import torch

    from strategies_parts import material

    images, labels = material.read(data / "test")
    task = made(PICTURES, arguments)
    prepared = sys.modules[type(task).__module__].tensors(images)
    inputs, targets = torch.from_numpy(prepared), torch.from_numpy(labels)
    model = task.model().eval()

    def of(state: dict[str, Any]) -> float:
        model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        with torch.no_grad():
            return float((model(inputs).argmax(1) == targets).float().mean())

    return of
