"""Where this worker process belongs: told by the controller before the train function starts."""

from __future__ import annotations

from headway.elastic.control import Place

_place: Place | None = None


def enter(place: Place) -> None:
    """Called in the worker's process."""
    global _place
    _place = place


def current() -> Place:
    """Raises RuntimeError outside a worker."""
    if _place is None:
        raise RuntimeError("this process is no worker of a run")
    return _place
