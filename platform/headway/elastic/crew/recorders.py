"""The recorders of all runs of a sweep in one actor, and the seat of each, which stands for a recorder's actor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headway.core.figures import Sample
from headway.elastic.lead.recorder import Recorder
from headway.tracking.prometheus.way import Way

if TYPE_CHECKING:
    from headway.tracking.prometheus.exporter import Exporter

ENDS = 4
"""Runs whose books are closed at a time, and for which a tracking store is waited for; all else is done in order, and
quick."""
OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "max_concurrency": 1,
    "concurrency_groups": {"ends": ENDS, "sends": ENDS},
}
"""Of the actor."""


class Recorders:
    """Runs as a Ray actor with threads of its own for ends (`OPTIONS`). Each recorder is called by one at a time."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Recorder, threading.Lock]] = {}
        self._sending: dict[str, Recorder] = {}
        """Whose books are closed, and whose tracking store is still to be waited for."""
        self._exporter: Exporter | None = None
        self._figures: Sequence[Sample] = ()
        """The sweep's own."""

    def export(self, sweep: str, way: Way) -> None:
        """Give the sweep's own figures to Prometheus, and those of its runs beside them."""
        from headway.tracking.prometheus.exporter import Exporter

        self._exporter = Exporter("sweep", sweep, lambda: self._figures, way)
        self._exporter.open()

    def figures(self, samples: Sequence[Sample]) -> None:
        """Those of the sweep, by now."""
        self._figures = samples

    def end(self) -> None:
        """Nobody is to find them any more."""
        if self._exporter is not None:
            self._exporter.close()

    def open(self, key: str, options: dict[str, Any]) -> None:
        """Begin to keep a run's records. options: of its `Recorder`; some by reference."""
        import ray

        given = {name: ray.get(value) if isinstance(value, ray.ObjectRef) else value for name, value in options.items()}
        self._open[key] = Recorder(**given), threading.Lock()

    def call(self, key: str, verb: str, *arguments: Any) -> Any:
        """Call a run's recorder.

        Raises:
            KeyError: it is closed.
        """
        recorder, lock = self._open[key]
        with lock:
            return getattr(recorder, verb)(*arguments)

    def close(self, key: str, lingers: bool, *end: Any) -> dict[str, Any]:
        """Close a run's books, see `Recorder.finish`, and forget it; where it lingers, by `sent`."""
        try:
            found: dict[str, Any] = self.call(key, "finish", *end)
            if lingers:
                self._sending[key] = self._open[key][0]
            return found
        finally:
            self.call(key, "release")  # there may be another leg before this one's memory is let go
            del self._open[key]

    def sent(self, key: str, timeout_s: float, last: bool) -> None:
        """Wait for the tracking store of one that lingers, see `Recorder.sent`; for the last time, or not."""
        recorder = self._sending.pop(key) if last else self._sending[key]
        recorder.sent(timeout_s)

    def progress(self, seen: dict[str, int]) -> dict[str, dict[str, Any]]:
        """How far runs are, see `Recorder.progress`. seen: of each run, the messages that the caller has seen."""
        found = {}
        for key, messages in seen.items():
            if key in self._open:
                found[key] = self.call(key, "progress", messages)
        return found


class _Verb:
    def __init__(self, recorders: Any, key: str, verb: str) -> None:
        self._recorders, self._key, self._verb = recorders, key, verb

    def remote(self, *arguments: Any) -> Any:
        """As an actor's method."""
        return self._recorders.call.remote(self._key, self._verb, *arguments)


class Seat:
    """A run's recorder, as whoever had an actor of its own would call it.

    Args:
        recorders: the actor's handle.
        key: of the run.
    """

    def __init__(self, recorders: Any, key: str) -> None:
        self._recorders, self.key = recorders, key
        self.push, self.event = self._verb("push"), self._verb("event")
        self.given, self.fail = self._verb("given"), self._verb("fail")
        self.done, self.own_end = self._verb("done"), self._verb("own_end")
        self.end_reason = self._verb("end_reason")
        self.request_stop, self.ship = self._verb("request_stop"), self._verb("ship")
        self.failure = self._verb("failure")

    def _verb(self, name: str) -> _Verb:
        return _Verb(self._recorders, self.key, name)

    def open(self, options: dict[str, Any]) -> Any:
        """Begin; see `Recorders.open`."""
        return self._recorders.open.remote(self.key, options)

    def finish(self, *end: Any, lingers: bool = False) -> Any:
        """Close its books; see `Recorders.close`."""
        return self._recorders.close.options(concurrency_group="ends").remote(self.key, lingers, *end)

    def sent(self, timeout_s: float, last: bool) -> Any:
        """See `Recorders.sent`; for a moment."""
        return self._recorders.sent.options(concurrency_group="ends").remote(self.key, timeout_s, last)

    def linger(self, timeout_s: float) -> Any:
        """See `Recorders.sent`; for long, and for the last time."""
        return self._recorders.sent.options(concurrency_group="sends").remote(self.key, timeout_s, True)
