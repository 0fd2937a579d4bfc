"""The recorder's side of a run in a store: takes the lead over from the driver, and ships the working copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.errors import HeadwayError
from headway.runs.epochs import Superseded

if TYPE_CHECKING:
    from headway.runs.mirror import Mirror
    from headway.storage.protocol import Storage

AGAIN_S = 1.0


class Shipper:
    """One for each start of a run.

    Args:
        far: the run's `url`, and the store's `options`.
        folder: the working copy.
        epoch: in which the driver leads.
        fail_after: seconds without the store after which the run fails; None for never.
        say: takes a line for people.
        fail: takes the failure that ends the run.
    """

    def __init__(
        self,
        far: dict[str, Any],
        folder: Path,
        epoch: int,
        fail_after: float | None,
        say: Callable[[str], None],
        fail: Callable[[dict[str, Any]], None],
    ) -> None:
        self._far, self._folder, self._epoch, self._fail_after = far, folder, epoch, fail_after
        self._say, self._fail = say, fail
        self._mirror: Mirror | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, then: Callable[[Mirror], None]) -> None:
        """Take over, however long the store takes to answer. then: told of the mirror, once."""
        self._thread = threading.Thread(target=self._begin, args=(then,), name="shipper", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Ship what waits; returns whether all of it is in the store. The lead stays the driver's."""
        deadline = time.monotonic() + timeout_s
        self._closing.set()
        assert self._thread is not None
        self._thread.join(timeout_s)
        return self._mirror is not None and self._mirror.close(max(1.0, deadline - time.monotonic()))

    @property
    def storage(self) -> Storage:
        """Of the run."""
        from headway.runs.far import open_run

        return open_run(self._far).storage

    def _begin(self, then: Callable[[Mirror], None]) -> None:
        from headway.runs.far import brief_of, open_run
        from headway.runs.mirror import Mirror

        began, told = time.monotonic(), False
        while True:
            try:
                lease = open_run(self._far, leads=True).join(self._epoch)
                self._mirror = Mirror(
                    self._folder,
                    lease,
                    say=self._say,
                    fail=self._fail,
                    fail_after=self._fail_after,
                    brief=lambda: brief_of(self._folder),
                )
                then(self._mirror)
                return
            except Superseded as error:
                self._ended("superseded", error)
                return
            except (HeadwayError, OSError) as error:
                lasted = time.monotonic() - began
                if self._fail_after is not None and lasted > self._fail_after:
                    self._ended("records", error)
                    return
                if not told:
                    self._say(
                        f"the records cannot be written to {self._far['url']}: {error}; training goes on, they wait"
                    )
                told = True
            if self._closing.wait(AGAIN_S):
                return

    def _ended(self, kind: str, error: Exception) -> None:
        told = error if isinstance(error, HeadwayError) else HeadwayError("the records cannot be written", str(error))
        self._fail({"kind": kind, "fact": told.fact, "reason": told.reason, "remedy": told.remedy})
