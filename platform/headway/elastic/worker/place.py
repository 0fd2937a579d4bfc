"""Where this worker process belongs: told by the controller before the train function starts."""

from __future__ import annotations

from collections.abc import Callable

from headway.elastic.worker.line import Place

Show = Callable[[int, tuple[str, ...]], None]
_place: Place | None = None
_show: Show | None = None


def enter(place: Place, show: Show) -> None:
    """Called in the worker's process. show: told (rank, nodes) when the membership changed."""
    global _place, _show
    _place, _show = place, show


def current() -> Place:
    """Raises RuntimeError outside a worker."""
    if _place is None:
        raise RuntimeError("this process is no worker of a run")
    return _place


def show(rank: int, nodes: tuple[str, ...]) -> None:
    """Tell whoever started this worker what its place among the members is now."""
    if _show is not None:
        _show(rank, nodes)
