"""The most memory that workers took: kept for a bounded number of them, and told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 64
"""Workers that are kept: those that took the most."""
NAMES = ("host", "base", "device")

Peaks = Mapping[str, Mapping[str, int]]
"""By worker: host, the process's most bytes of memory; base, those that it had before there was a model; device, the
most bytes of tensors on its device. What is not known is left out."""


def grown(known: Peaks, record: Mapping[str, Any]) -> dict[str, dict[str, int]] | None:
    """What is known, with what a worker tells; None where that changes nothing.

    Args:
        known: so far.
        record: with the worker's name, and its bytes.
    """
    worker = str(record["worker"])
    told = {name: int(record[name]) for name in NAMES if isinstance(record.get(name), int)}
    before = known.get(worker, {})
    now = {name: max(size, before.get(name, 0)) for name, size in told.items()}
    if not now or {**before, **now} == before:
        return None
    if now.get("host", 0) == before.get("host"):  # the base goes with the process whose host memory counts
        now["base"] = before.get("base", now.get("base", 0))
    found = {name: dict(each) for name, each in known.items()} | {worker: {**before, **now}}
    if len(found) > MOST:
        least = min(found, key=lambda name: (_size(found[name]), name))
        del found[least]
        if least == worker:
            return None
    return found


def largest(known: Peaks) -> tuple[str, dict[str, int]] | None:
    """The worker that took the most, and what it took; None where nothing is known."""
    if not known:
        return None
    worker = max(sorted(known), key=lambda name: _size(known[name]))
    return worker, dict(known[worker])


def sentence(known: Peaks, planned: int | None) -> str:
    """For people; empty where nothing is known.

    Args:
        known: of the workers.
        planned: bytes that the plan said beside the process itself, of each worker where there are fewest.
    """
    found = largest(known)
    if found is None:
        return ""
    worker, sizes = found
    said = f"plan said {_words(planned)}" if planned else ""
    if "device" in sizes:
        more = f" ({said})" if said else ""
        return f"{_words(sizes['device'])} of the device{more}, {_words(sizes['host'])} of the host ({worker})"
    base = sizes.get("base", 0)
    own = f"{_words(max(0, sizes['host'] - base))} of it for the training" if base else ""
    more = "; ".join(text for text in (own, said) if text)
    return f"{_words(sizes['host'])} ({worker}{'; ' if more else ''}{more})"


def _size(sizes: Mapping[str, int]) -> int:
    return sizes.get("device", sizes.get("host", 0))


def _words(size: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"
