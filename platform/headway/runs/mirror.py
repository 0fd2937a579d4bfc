"""A run's working copy is shipped to its store by a thread of its own, which goes on trying while it cannot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headway.core.allowance import Allowance
from headway.errors import HeadwayError
from headway.runs.epochs import Superseded
from headway.runs.lease import Lease
from headway.runs.shipping import EVERY_S, Shipping

AGAIN_S = 0.5


def _none() -> None:
    return None


class Mirror:
    """Ships what is written to a folder, and renews the lease, until it is closed. Nothing is waited for but in `flush`
    and `close`.

    Args:
        folder: its working copy on this machine: of a new run, or just pulled.
        lease: by which this process leads the run.
        every_s: how often changes are looked for; at most so much is lost with this process.
        say: takes a line for people; called in the thread, like the others.
        fail: takes the failure that ends the run: {"kind": "records" or "superseded", "fact", "reason", "remedy"}.
        fail_after: seconds without the store after which the run fails; None for never.
        brief: gives what a listing of runs shows of this one.
        hurries: how often `flush` and `hurry` are served at once.

    Raises:
        BadInput: another process of this machine writes to the folder, or it is no copy of what the store has.
    """

    def __init__(
        self,
        folder: Path,
        lease: Lease,
        every_s: float = EVERY_S,
        say: Callable[[str], None] = lambda _: None,
        fail: Callable[[dict[str, Any]], None] = lambda _: None,
        fail_after: float | None = None,
        brief: Callable[[], Mapping[str, Any] | None] = _none,
        hurries: Allowance | None = None,
    ) -> None:
        self.folder, self.lease = folder, lease
        self._fail = fail
        self._shipping = Shipping(lease, folder, brief, every_s, say, fail, fail_after, hurries=hurries)
        self._shipping.open()
        self._news = threading.Condition()
        self._closing_at: float | None = None
        self._release = False
        self._complete = False
        self._thread = threading.Thread(target=self._ship, name="mirror", daemon=True)
        self._thread.start()

    def mark(self) -> int:
        """A number for what is written so far: all of it is in the store once `shipped` has reached it."""
        return self._shipping.mark()

    @property
    def shipped(self) -> int:
        """The newest mark of which all that was written before it is in the store."""
        return self._shipping.shipped

    @property
    def error(self) -> str:
        """Why nothing can be shipped at present, or could be at the end; empty where nothing is wrong."""
        return self._shipping.error

    def hurry(self) -> None:
        """Somebody waits for what is written so far: let it be shipped now."""
        with self._news:
            self._shipping.want()
            self._news.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was written so far is in the store, and this process has been seen to lead still after that;
        False where it is not within the time, or another process leads."""
        with self._news:
            wanted = self._shipping.want()
            self._news.notify_all()
            self._news.wait_for(lambda: self._shipping.fenced >= wanted or self._hopeless(), timeout_s)
            return self._shipping.fenced >= wanted

    def close(self, timeout_s: float, release: bool = False) -> bool:
        """Ship what waits, and end; returns whether all of it is in the store.

        Args:
            release: whether nobody leads the run then; else another process of ours goes on (`RemoteRun.join`).
        """
        with self._news:
            self._closing_at = time.monotonic() + timeout_s
            self._shipping.closing = True
            self._shipping.want()
            self._release = release
            self._news.notify_all()
        self._thread.join(timeout_s + 10.0)
        return self._complete

    def _hopeless(self) -> bool:
        return self._shipping.superseded is not None or not self._thread.is_alive()

    # In the thread

    def _ship(self) -> None:
        try:
            while True:
                seen = self._shipping.wanted
                wait = self._shipping.turn()
                with self._news:
                    self._news.notify_all()
                    if self._over():
                        break
                    if self._closing_at is not None:
                        wait = min(wait, max(0.0, self._closing_at - time.monotonic()))
                    self._news.wait_for(lambda: self._shipping.wanted != seen, wait)  # noqa: B023 - now
            self._complete = self._ended()
        except Exception as error:  # none is known; a run must not go on without its records
            told = {"reason": repr(error), "remedy": "Resume the run; please report this."}
            self._fail({"kind": "records", "fact": "the thread that ships the records ended", **told})
            raise
        finally:
            self._shipping.free()
            with self._news:
                self._news.notify_all()

    def _over(self) -> bool:
        if self._closing_at is None:
            return False
        return self._shipping.finished() or self._shipping.superseded is not None or self._late()

    def _late(self) -> bool:
        return self._closing_at is not None and time.monotonic() >= self._closing_at

    def _ended(self) -> bool:
        while True:
            try:
                return self._shipping.end(self._release)
            except Superseded:  # everything is told, and nobody waits for this one to go
                return True
            except (HeadwayError, OSError):
                if self._late():
                    return False
                time.sleep(AGAIN_S)
