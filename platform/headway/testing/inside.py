"""The worker's part of a drill: faults that only the worker itself can bring about.

Where HEADWAY_TROUBLE in its environment names `cause`, a worker looks into the run's `faults/` folder before each step,
and does what is ordered of it there: hang, flip a bit, raise, be slow. Each order is taken once, by renaming its file;
a pace holds for all until another is set.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import HasFileno
    from torch import nn

ENVIRONMENT = {"HEADWAY_TROUBLE": "headway.testing.inside:cause"}
FOLDER = "faults"
PACE = "pace"
"""The file in it that says by how many seconds each step is held back."""
ANY = "any"
"""In place of a worker's id: whoever has the rank that the order names."""
RANK_S = 5.0
POINTS = {"compile": "compute", "restore": "restore"}
"""Where the orders are taken that concern a worker's beginning."""


class InjectedFault(Exception):
    """Raised in a worker because a drill ordered it."""


@dataclass(frozen=True)
class Order:
    """What one worker is to do.

    Args:
        verb: hang, lock, flip, raise, die, slow-store, or of a worker that begins: compile, restore.
        worker: its id, or ANY.
        step: before which it is done, or any later one.
        parameter: name of the one to flip a bit of; the first when None.
        bit: which bit of its first element, 0 being the lowest.
        point: where in the step: compute (its beginning), exchange, regroup, join or checkpoint; or restore.
        span_s: how long it takes.
        rank: of the worker that is meant by ANY, in whichever process has it next.
    """

    verb: str
    worker: str
    step: int = 0
    point: str = "compute"
    parameter: str | None = None
    bit: int = 20
    span_s: float = 0.0
    rank: int | None = None


def give(run: Path, order: Order) -> Path:
    """Leave an order in a run's folder."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.time_ns()}-{order.worker}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(order.__dict__), encoding="utf-8")
    temporary.replace(path)
    return path


def set_pace(run: Path, seconds: float) -> None:
    """Let every step of a run take so many seconds more, as one of a larger model does; 0: as fast as they go again."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    temporary = folder / f"{PACE}.new"
    temporary.write_text(f"{seconds:g}", encoding="utf-8")
    temporary.replace(folder / PACE)


def pace(run: Path) -> float:
    """What `set_pace` said last; 0 where it said nothing."""
    try:
        return float((run / FOLDER / PACE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def cause(run: Path, worker: str, point: str, model: nn.Module, step: int) -> None:
    """Called by the worker where drills do their mischief."""
    if point == "compute" and (seconds := pace(run)):
        time.sleep(seconds)
    for order in poll(run, worker, step, point):
        obey(order, model, run)


def poll(run: Path, worker: str, step: int, point: str = "compute") -> list[Order]:
    """The orders for a worker that are due at a point of a step, each of them once."""
    due = []
    mine = sorted((run / FOLDER).glob(f"*-{worker}.json"))
    for path, order in [*_orders(mine), *_at_the_beginning(run, worker, point)]:
        if order.worker in (worker, ANY) and order.step <= step and order.point == point:
            with suppress(FileNotFoundError):  # another took it
                path.rename(path.with_suffix(".taken"))
                due.append(order)
    return due


def taken(path: Path) -> bool:
    """Whether an order that was given has been taken."""
    return path.with_suffix(".taken").exists()


_begun: set[tuple[Path, str, str]] = set()


def _at_the_beginning(run: Path, worker: str, point: str) -> Iterator[tuple[Path, Order]]:
    """Orders for whoever has a rank, when a worker comes to a point for the first time."""
    if (run, worker, point) in _begun:
        return
    _begun.add((run, worker, point))
    waiting = [(path, order) for path, order in _orders(sorted((run / FOLDER).glob(f"*-{ANY}.json")))]
    rank = _rank(run, worker) if waiting else None
    seen = set()
    for path, order in waiting:
        if order.rank == rank and order.verb not in seen:  # one of a kind for each that begins
            seen.add(order.verb)
            yield path, order


def _rank(run: Path, worker: str) -> int | None:
    """A worker's rank as members.json tells it, which may come a little later than the worker's first step."""
    deadline = time.monotonic() + RANK_S
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            for member in json.loads((run / "members.json").read_text(encoding="utf-8"))["workers"]:
                if member["id"] == worker and member["rank"] is not None:
                    return int(member["rank"])
        time.sleep(0.02)
    return None


def _orders(paths: list[Path]) -> Iterator[tuple[Path, Order]]:
    for path in paths:
        with suppress(FileNotFoundError):  # another took it
            yield path, Order(**json.loads(path.read_text(encoding="utf-8")))


def obey(order: Order, model: nn.Module, run: Path | None = None) -> None:
    """Do what is ordered, in the calling thread.

    Args:
        order: what to do.
        model: to be damaged.
        run: the folder whose writes become slow.

    Raises:
        InjectedFault: where that is the order.
    """
    if order.verb == "hang":
        threading.Event().wait()
    elif order.verb == "lock":
        hold_the_interpreter(order.span_s)
    elif order.verb in POINTS:
        time.sleep(order.span_s)
    elif order.verb == "slow-store":
        slow_writes(run or Path(), order.span_s)
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


def hold_the_interpreter(seconds: float) -> None:
    """Let no other Python thread of this process run for so long, as native code does that keeps the lock."""
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


def slow_writes(folder: Path, seconds: float) -> None:
    """From now on and for so long, nothing that this process writes below a folder becomes durable.

    Whatever is written durably is synchronised; who does it waits, in whichever thread, until the time is over.
    """
    until, below, sync = time.monotonic() + seconds, str(folder.resolve()) + os.sep, os.fsync

    def slow(fd: int | HasFileno) -> None:
        descriptor = fd if isinstance(fd, int) else fd.fileno()
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        if path.startswith(below):
            time.sleep(max(0.0, until - time.monotonic()))
        sync(fd)

    os.fsync = slow
