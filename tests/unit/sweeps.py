"""A made-up sweep, of which there are events only: 40 trials of which the best quarter goes on at each rung."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headway.sweeps.crew import Holds
from headway.sweeps.events import Action, Event, Failed, GoOn, Over, Pause, Reported, Spent, Start, Stop, Suggested
from headway.sweeps.names import run_of
from headway.sweeps.seen.keeping import Seen
from headway.sweeps.seen.tracked import Tracking
from headway.sweeps.seen.view import Subject, View

NAME = "digits-lr"
SUBJECT = Subject(NAME, "accuracy", "max", trials=40, price=0.5, logarithmic=("optimizer.lr",))
FACTS = {"sweep": NAME, "key": "0123456789abcdef", "metric": "accuracy", "mode": "max", "trials": 40}
CREATED = 1_700_000_000.0


class Clock:
    """Unix seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.at = CREATED

    def __call__(self) -> float:
        return self.at


def folder_of(place: Path, **facts: Any) -> Path:
    """The folder of such a sweep, with nothing of it but its sweep.json."""
    folder = place / NAME
    folder.mkdir(parents=True)
    whole = {**FACTS, "state": "running", "message": "", "created": CREATED, "started": CREATED, "ended": None, **facts}
    (folder / "sweep.json").write_text(json.dumps(whole))
    return folder


def settings(trials: int = 40) -> list[dict[str, Any]]:
    """Of each trial: the learning rate decides, the width does not; momentum is there under one condition."""
    draw = random.Random(1)
    found: list[dict[str, Any]] = []
    for _ in range(trials):
        name = draw.choice(["sgd", "adamw"])
        each = {
            "optimizer.lr": 10 ** draw.uniform(-4, -0.5),
            "optimizer.name": name,
            "arguments.width": draw.choice([64, 128]),
        }
        found.append({**each, "optimizer.momentum": draw.uniform(0, 0.99)} if name == "sgd" else each)
    return found


def value(config: dict[str, Any], step: int) -> float:
    return 0.95 - 0.1 * abs(math.log10(config["optimizer.lr"]) + 2) - 0.5 * math.exp(-step / 40)


def events(trials: int = 40) -> Iterator[tuple[int, int, Event, list[Action]]]:
    """(trial, steps that it makes before, event, actions); trial 7 diverges, trial 9 fails."""
    configs = settings(trials)
    at: dict[int, list[int]] = {20: [], 80: []}
    for trial, config in enumerate(configs, 1):
        yield trial, 0, Suggested(trial, config), [Start(trial, config, 20)]
        if trial in (7, 9):
            kind = "diverged" if trial == 7 else "task"
            state = "stopped" if trial == 7 else "failed"
            reason = "the loss is nan at step 12" if trial == 7 else "ValueError: no such file"
            yield trial, 12, Failed(trial, 12, kind, reason), [Stop(trial, state, reason)]  # type: ignore[arg-type]
            continue
        at[20].append(trial)
        yield trial, 20, _report(trial, config, 20), [Pause(trial, "not among the best quarter at step 20")]
    for before, after in ((20, 80), (80, 320)):
        best = sorted(at[before], key=lambda trial: -value(configs[trial - 1], before))
        for trial in best[: max(1, len(best) // 4)]:
            config = configs[trial - 1]
            yield trial, 0, Spent(0.0, 0.0), [GoOn(trial, after)]
            stop: Action = (
                Stop(trial, "finished", "") if after == 320 else Pause(trial, "not among the best at step 80")
            )
            at.setdefault(after, []).append(trial)
            yield trial, after - before, _report(trial, config, after), [stop]
    yield 0, 0, Spent(0.0, 0.0), [Over("finished", "40 trials")]


def _report(trial: int, config: dict[str, Any], step: int) -> Reported:
    found = value(config, step)
    return Reported(trial, step, {"accuracy": found, "loss": 1 - found}, True)


def play(
    folder: Path,
    tracking: Tracking | None = None,
    watch: Callable[[View], None] = lambda view: None,
    until: int | None = None,
    trials: int = 40,
) -> Seen:
    """The sweep as it is seen, after so many events; a step takes a second of one worker."""
    clock = Clock()
    seen = Seen.begin(folder, SUBJECT, tracking, watch=watch, clock=clock)
    spent = 0.0
    for number, (trial, steps, event, actions) in enumerate(events(trials), 1):
        if until is not None and number > until:
            break
        if steps:
            workers = 1 + trial % 4
            seen.news([Holds({run_of(NAME, trial): workers}, {}, {"compute": spent})])
            clock.at += steps / workers
            spent += steps
        seen.news([Holds({}, {}, {"compute": spent, "idle": spent / 20})])
        seen.heard(number, event, actions)
    return seen
