"""The same figures through Ray's exporter, from a process of Ray's: on each node its agent serves what processes there
say, as `ray_headway_...`, for whoever scrapes Ray already.

Ray's gauges are forgotten unless they are said again; its counters only take what is added to them, and keep it beyond
the process: so they count from when this begins, not over all starts of a run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from headway.core.families import COUNTER, FAMILIES, PREFIX
from headway.core.figures import Labels, Sample

EVERY_S = 5.0
"""Ray's agents are told every ten seconds."""


class ThroughRay:
    """A thread of its own, from `start` to `close`.

    Args:
        label, name: ("run", NAME) or ("sweep", NAME).
        samples: gives those of now.
        every_s: seconds between two times that they are said.
    """

    def __init__(
        self, label: str, name: str, samples: Callable[[], Sequence[Sample]], every_s: float = EVERY_S
    ) -> None:
        self._label, self._name, self._samples, self._every_s = label, name, samples, every_s
        self._metrics: dict[str, Any] = {}
        self._counted: dict[tuple[str, Labels], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="through-ray", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Say it a last time."""
        self._over.set()
        self._thread.join()

    def say(self, samples: Sequence[Sample]) -> None:
        """Hand them to Ray."""
        for name, labels, value in samples:
            tags = dict(zip((self._label, *FAMILIES[PREFIX + name].labels), (self._name, *labels), strict=True))
            if FAMILIES[PREFIX + name].kind != COUNTER:
                self._metric(name).set(value, tags=tags)
                continue
            before = self._counted.get((name, labels), 0.0)
            self._counted[name, labels] = value
            if value > before:
                self._metric(name).inc(value - before, tags=tags)

    def _work(self) -> None:
        self._counted = {
            (name, labels): value for name, labels, value in self._samples() if FAMILIES[PREFIX + name].kind == COUNTER
        }
        while True:
            last = self._over.wait(self._every_s)
            self.say(self._samples())
            if last:
                return

    def _metric(self, name: str) -> Any:
        if name not in self._metrics:
            from ray.util import metrics

            family = FAMILIES[PREFIX + name]
            kind = metrics.Counter if family.kind == COUNTER else metrics.Gauge
            # Ray's exporter adds the ending of a counter by itself.
            told = PREFIX + name.removesuffix("_total")
            self._metrics[name] = kind(told, description=family.help, tag_keys=(self._label, *family.labels))
        return self._metrics[name]
