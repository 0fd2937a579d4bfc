"""Shows how far the run is while this process's own thread trains, keeps its account, and sees what ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from headway.core import ledger
from headway.core.ends import Asked
from headway.core.ledger import Ledger
from headway.driver.in_process.member import NAME, Orders, Seat
from headway.driver.progress import Progress, Watch

POLL_S = 0.2
ACCOUNT_S = 1.0


class Follower:
    """A thread of its own, from `start` to `close`.

    Args:
        run: its name.
        seat: the recorder's.
        account: of the training thread.
        orders: given where the recorder says that the run cannot go on.
        watch: told of the progress, in this thread; what it raises ends the run, and is `trouble` from then on.
        asked: gives who asked for the end, where somebody did.
        begun: called once the first step is done.
    """

    def __init__(
        self,
        run: str,
        seat: Seat,
        account: Ledger,
        orders: Orders,
        watch: Watch | None,
        asked: Callable[[], Asked],
        begun: Callable[[], None],
    ) -> None:
        self._run, self._seat, self._account, self._orders, self._watch = run, seat, account, orders, watch
        self._seen, self._first = 0, int(seat.ask("progress", 0)["step"])
        self._accounted_at = 0.0
        self._asked, self._has_asked = asked, False
        self._begun = begun
        self._has_begun = False
        self._over = threading.Event()
        self.trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Look a last time."""
        self._over.set()
        self._thread.join()

    def begin(self) -> None:
        """The run has begun for sure. Only from now on the tracking store is sent to, whose library takes seconds to
        import."""
        if not self._has_begun:
            self._has_begun = True
            self._begun()
            self._seat.ask("send")

    def _work(self) -> None:
        while True:
            last = self._over.wait(POLL_S)
            self._guarded(self._look, last)
            if last:
                return

    def _guarded(self, look: Callable[[bool], None], last: bool) -> None:
        try:
            look(last)
        except BaseException as error:  # the watch's, which is the caller's: raised in the caller's thread
            self.trouble = self.trouble or error
            self._orders.cut.set()

    def _look(self, last: bool) -> None:
        now = time.monotonic()
        if self._orders.stop.is_set() and not self._has_asked:
            self._has_asked, why = True, self._asked()
            self._seat.ask("request_stop", why.by, why.now)
        if last or now - self._accounted_at >= ACCOUNT_S:
            self._accounted_at = now
            snapshot = self._account.snapshot(now)
            seconds = {cause: snapshot[cause] for cause in ledger.CAUSES}
            lane_s = {} if last or not self._orders.lane.seconds else {NAME: self._orders.lane.seconds}
            told = {"seconds": seconds, "goodput": ledger.goodput(seconds), "workers": 0 if last else 1}
            self._seat.event("ledger", **told, lane_s=lane_s)
        found: dict[str, Any] = self._seat.ask("progress", self._seen)
        if found["step"] > self._first:
            self.begin()
        self._seen = found["messages_seen"]
        if found["failure"] is not None:
            self._orders.cut.set()
        elif found["stopping"]:  # of itself: its money is spent
            self._has_asked = True
            self._orders.stop.set()
        if self._watch is not None and self.trouble is None:
            shown = {field.name: found[field.name] for field in fields(Progress) if field.name in found}
            self._watch(Progress(run=self._run, **shown))
