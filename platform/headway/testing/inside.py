"""The worker's part of a drill: faults that only the worker itself can bring about.

Where HEADWAY_TROUBLE in its environment names `cause`, a worker looks into the run's `faults/` folder before each step,
and does what is ordered of it there: hang, flip a bit, raise. Each order is taken once, by renaming its file.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ENVIRONMENT = {"HEADWAY_TROUBLE": "headway.testing.inside:cause"}
FOLDER = "faults"


class InjectedFault(Exception):
    """Raised in a worker because a drill ordered it."""


@dataclass(frozen=True)
class Order:
    """What one worker is to do.

    Args:
        verb: hang, flip, raise or die.
        worker: its id.
        step: before which it is done, or any later one.
        parameter: name of the one to flip a bit of; the first when None.
        bit: which bit of its first element, 0 being the lowest.
        point: where in the step: compute (its beginning), exchange, regroup, join or checkpoint.
    """

    verb: str
    worker: str
    step: int = 0
    point: str = "compute"
    parameter: str | None = None
    bit: int = 20


def give(run: Path, order: Order) -> Path:
    """Leave an order in a run's folder."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.time_ns()}-{order.worker}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(order.__dict__), encoding="utf-8")
    temporary.replace(path)
    return path


def cause(run: Path, worker: str, point: str, model: nn.Module, step: int) -> None:
    """Called by the worker where drills do their mischief."""
    for order in poll(run, worker, step, point):
        obey(order, model)


def poll(run: Path, worker: str, step: int, point: str = "compute") -> list[Order]:
    """The orders for a worker that are due at a point of a step, each of them once."""
    due = []
    for path in sorted((run / FOLDER).glob(f"*-{worker}.json")):
        order = Order(**json.loads(path.read_text(encoding="utf-8")))
        if order.worker == worker and order.step <= step and order.point == point:
            path.rename(path.with_suffix(".taken"))
            due.append(order)
    return due


def obey(order: Order, model: nn.Module) -> None:
    """Do what is ordered, in the calling thread.

    Raises:
        InjectedFault: where that is the order.
    """
    if order.verb == "hang":
        threading.Event().wait()
    elif order.verb == "flip":
        flip(model, order.parameter, order.bit)
    elif order.verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order.verb == "raise":
        raise InjectedFault(f"ordered of worker {order.worker} by a drill")


def flip(model: nn.Module, parameter: str | None = None, bit: int = 20) -> str:
    """Turn one bit of a parameter's first element, and nothing else.

    Args:
        model: to be damaged.
        parameter: by name; the first when None.
        bit: of the element's bits, 0 being the lowest.

    Returns:
        The parameter's name.
    """
    import torch

    named = dict(model.named_parameters())
    name = parameter or next(iter(named))
    values = named[name].detach()
    size = values.element_size()
    element = values[(0,) * values.dim()].reshape(1).cpu()
    words = element.view(torch.uint8).clone()
    words[bit // 8 % size] ^= 1 << bit % 8
    values[(0,) * values.dim()] = words.view(values.dtype)[0]
    return name
