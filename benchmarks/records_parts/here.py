"""A recorder in this process, behind the calls that an actor's handle has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from headway.elastic.lead.recorder import Recorder


class Here:
    """The recorder as an actor's handle."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder, self.push = recorder, self

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        return self._recorder.push(worker, records)


@contextmanager
def answered_at_once() -> Iterator[None]:
    """What `Here` answers is no reference: `ray.get` gives it back."""
    before = ray.get
    ray.get = lambda answer, timeout=None: answer
    try:
        yield
    finally:
        ray.get = before
