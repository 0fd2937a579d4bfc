"""Where a worker belongs: told to its process before anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headway.core.spots import Spot


@dataclass(frozen=True)
class Place:
    """Told to a worker's process before anything else.

    Args:
        worker: its id.
        host: of the coordinator.
        port: of the coordinator's connections.
        pulse_port: where it takes pulses (UDP), at the same host.
        token: shows that the worker belongs to the run.
    """

    worker: str
    host: str
    port: int
    pulse_port: int
    token: str = field(repr=False)


Show = Callable[[Spot], None]


@dataclass(frozen=True)
class Assignment:
    """A run that a process of a pool is to work for; see `headway.elastic.worker.serve`.

    Args:
        number: by which it is told again when the process comes back.
        place: in that run.
        show: told its spot when the run's membership changed.
        config: of the train function, see `headway.elastic.worker.main`.
    """

    number: int
    place: Place
    show: Show
    config: dict[str, Any]


_place: Place | None = None
_show: Show | None = None


def enter(place: Place, show: Show) -> None:
    """Called in the worker's process. show: told its spot when the membership changed."""
    global _place, _show
    _place, _show = place, show


def current() -> Place:
    """Raises RuntimeError outside a worker."""
    if _place is None:
        raise RuntimeError("this process is no worker of a run")
    return _place


def show(spot: Spot) -> None:
    """Tell whoever started this worker what its place among the members is now."""
    if _show is not None:
        _show(spot)
