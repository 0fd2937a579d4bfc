"""The figures of one run, or of one sweep, on their way out of the process that keeps its records.

Runs of one sweep have one server: the process that keeps their records has one for each entry, opened by the first that
needs it, and closed by the last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headway.core.figures import Figures, Sample
from headway.tracking.prometheus.serving import Serving, Sources
from headway.tracking.prometheus.way import Mute, Way


class _Shared:
    """A server, and how many hold it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.serving: Serving | None = None
        self.sources = Sources()


_shared: dict[tuple[Path, str], _Shared] = {}
_sharing = threading.Lock()


class Exporter:
    """Hands out samples from `open` to `close`.

    Args:
        label, name: ("run", NAME) or ("sweep", NAME).
        samples: gives those of now; called from any thread.
        way: how.
        say: takes a line for people.
    """

    def __init__(
        self,
        label: str,
        name: str,
        samples: Callable[[], Sequence[Sample]],
        way: Way,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._label, self._name, self._samples, self._way, self._say = label, name, samples, way, say
        self._opening = threading.Thread(target=self._open, name="prometheus-begins", daemon=True)
        self._ray: Any = None

    def open(self) -> None:
        """Begin, without waiting for it: a library is imported for it."""
        self._opening.start()

    def wait(self) -> None:
        """Until it has begun, or could not."""
        self._opening.join()

    def close(self) -> None:
        """End; the last one of an entry closes the server."""
        if self._opening.ident is None:
            return
        self._opening.join()
        shared = _shared_by(self._way)
        with shared.lock:
            shared.sources.remove(self._label, self._name, self._samples)
            shared.holders -= 1
            if not shared.holders and shared.serving is not None:
                shared.serving.close()
                shared.serving = None
        if self._ray is not None:
            self._ray.close()

    @property
    def url(self) -> str | None:
        """Of the figures; None where they are not served."""
        serving = _shared_by(self._way).serving
        return f"http://{serving.target}/metrics" if serving is not None else None

    def _open(self) -> None:
        shared = _shared_by(self._way)
        with shared.lock:
            shared.holders += 1
            shared.sources.add(self._label, self._name, self._samples)
            if shared.serving is None:
                shared.serving = self._served(shared.sources)
        if self._way.through_ray:
            from headway.tracking.prometheus.through_ray import ThroughRay

            self._ray = ThroughRay(self._label, self._name, self._samples)
            self._ray.start()

    def _served(self, sources: Sources) -> Serving | None:
        way = self._way
        serving = Serving(sources, way.host)
        try:
            self._listen(serving)
        except (OSError, ValueError) as error:  # ValueError: the host is no name at all
            reason = getattr(error, "strerror", None) or str(error)
            self._say(f"there are no figures for Prometheus at {way.host}: {reason}; training goes on")
            return None
        try:
            serving.announce(way.runs, way.entry)
        except OSError as error:
            reason = error.strerror or str(error)
            self._say(f"Prometheus cannot find http://{serving.target}/metrics by a file in {way.runs}: {reason}")
        return serving

    def _listen(self, serving: Serving) -> None:
        """At the port that is asked for, or at another where that is taken. Raises OSError."""
        asked = self._way.port
        try:
            serving.open(asked)
        except OSError as error:
            if not asked:
                raise
            serving.open(0)
            reason = error.strerror or str(error)
            self._say(f"port {asked} cannot be had ({reason}): figures for Prometheus are at {serving.target}")


class RunExporter(Mute):
    """The figures of a run: its recorder tells what it sees, from any thread.

    Args:
        run: its name.
        figures: to begin with.
        way: how they leave the process.
        spool_bytes: gives what waits for the tracking store; None where there is none.
        say: takes a line for people.
    """

    def __init__(
        self, run: str, figures: Figures, way: Way, spool_bytes: Callable[[], int] | None, say: Callable[[str], None]
    ) -> None:
        self._figures, self._spool_bytes, self._say = figures, spool_bytes, say
        self._lock, self._over, self._odd = threading.Lock(), False, False
        self._exporter = Exporter("run", run, self.samples, way, say)

    def open(self) -> None:
        if not self._over:
            self._exporter.open()

    def event(self, event: Mapping[str, Any]) -> None:
        self._fold(self._figures.event, event)

    def record(self, record: Mapping[str, Any]) -> None:
        self._fold(self._figures.record, record)

    def over(self, state: str) -> None:
        self._over = True
        self._fold(self._figures.over, state)

    def samples(self) -> list[Sample]:
        """Of now."""
        with self._lock:
            found = list(self._figures.samples())
        if self._spool_bytes is not None:
            found.append(("spool_bytes", (), float(self._spool_bytes())))
        return found

    def close(self) -> None:
        self._exporter.close()

    def _fold(self, into: Callable[[Any], None], said: Any) -> None:
        """What makes no figure is missing among them, and told once: the records go on, and training."""
        try:
            with self._lock:
                into(said)
        except Exception as error:  # a word of another release, say
            if not self._odd:
                self._say(f"figures for Prometheus lack something: {type(error).__name__}: {error}"[:300])
            self._odd = True


def _shared_by(way: Way) -> _Shared:
    with _sharing:
        return _shared.setdefault((way.runs, way.entry), _Shared())
