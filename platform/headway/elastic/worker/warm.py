"""What a worker's process imports before it is told what to do."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

MODULES = (
    "headway.elastic.worker.main",
    "headway.elastic.worker.session",
    "headway.elastic.worker.loop",
    "headway.elastic.worker.journal",
    "headway.elastic.worker.saver",
    "headway.elastic.worker.members",
    "headway.data.read.streams",
    "headway.strategies.all_reduce",
    "headway.strategies.tree",
    "headway.checkpoint.store",
)
"""They take seconds, once."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports make objects that stay: to look through them again and again for garbage is a fifth of their time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def warm() -> None:
    """Import them, and leave out what nobody needs who does not compile."""
    with uncollected():
        for name in MODULES:
            importlib.import_module(name)
    from headway.elastic.worker import dynamo

    dynamo.leave_for_later()
