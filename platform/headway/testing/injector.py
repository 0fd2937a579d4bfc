"""Does to a run what a script of faults says, each as soon as its step is known to be committed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headway.errors import HeadwayError
from headway.testing.faults import Fault, in_order
from headway.testing.follower import Follower
from headway.testing.ground import Ground
from headway.testing.strike import NotYet, Strike

LOOK_S = 0.02


class Injector:
    """Follows a run from a thread of its own; use it as a context manager around the run.

    Args:
        run: the run's folder; it may come into being later.
        faults: what to do.
        cluster: where the run is; workers outside it are never touched.
        kill_driver: ends the process that leads the run, and returns its id; needed for `kill driver` only.
        ready: whether the time of a fault that is due has come; it is asked again and again until it has.

    `done` holds a record for each fault that was injected: the fault as text, the step after which it was due, the
    newest step known to be committed, Unix time right before the injection, and the target. `refused` says why a fault
    could not be injected.
    """

    def __init__(
        self,
        run: Path,
        faults: Iterable[Fault],
        cluster: Ground,
        kill_driver: Callable[[], int] | None = None,
        ready: Callable[[Fault], bool] = lambda _: True,
    ) -> None:
        self.done: list[dict[str, Any]] = []
        self.refused: dict[str, str] = {}
        self._strike = Strike(run, cluster, kill_driver)
        self._faults, self._ready = in_order(faults), ready
        self._waiting = list(self._faults)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="injector", daemon=True)
        self._steps = Follower(run / "steps.jsonl")

    @property
    def newest(self) -> int:
        """The newest step that is known to be committed; -1 before the first."""
        return self._steps.newest

    @property
    def repeated(self) -> Counter[int]:
        """How often each step was seen to be committed again."""
        return self._steps.repeated

    @property
    def left(self) -> list[Fault]:
        """Faults that have not been injected, or of which a worker was told that never came to it."""
        return [
            fault
            for fault in self._faults
            if str(fault) in self.refused or fault in self._waiting or self._strike.waits(fault)
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._steps.look()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_S):
            committed = self._steps.look()
            for fault in [fault for fault in self._waiting if fault.step <= committed and self._ready(fault)]:
                try:
                    record = self._strike(fault)
                except NotYet:
                    continue  # its target may come back
                except (HeadwayError, OSError) as error:
                    self.refused[str(fault)] = str(error)
                    self._waiting.remove(fault)
                    continue
                self.done.append({"fault": str(fault), "step": fault.step, "committed": committed, **record})
                self._waiting.remove(fault)
