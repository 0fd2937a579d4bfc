"""What a process prints, on its way to its run: nobody who writes waits for a disk or a store."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headway.errors import HeadwayError
from headway.logs import sinks
from headway.logs.layout import SOURCE, new_stream
from headway.logs.lines import Lines, Waiting, pieces, stamped

EVERY_S = 2.0
"""A source that writes without an end is shipped to a store so often at most."""
FOLDER_EVERY_S = 0.2
SOON_S = 0.2
"""What comes after a silence waits so long for more of its kind."""
AGAIN_S = 1.0
AGAIN_MOST_S = 30.0
MOST_BYTES = 1 << 20
"""That wait, beside the first `sinks.HEAD_BYTES`."""
PIECE_BYTES = 64 << 10
CLOSE_S = 20.0


class Writer:
    """Keeps what a process prints.

    Args:
        source: "driver", or "worker-NAME".
        every_s: how often it is shipped to a store at most.

    Nothing is written anywhere before `open`: of what never becomes a run nothing is left.
    """

    def __init__(self, source: str, every_s: float = EVERY_S) -> None:
        if SOURCE.fullmatch(source) is None:
            raise ValueError(f"{source!r} is no source of a log")
        self.source, self.stream = source, new_stream()
        self._every_s = every_s
        self._lines = Lines()
        self._waiting = Waiting(sinks.HEAD_BYTES, MOST_BYTES)
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._why = ""
        """What went wrong since lines were taken last."""
        self.error = ""
        """Why nothing can be kept at present; empty where nothing is wrong."""

    def write(self, data: bytes) -> None:
        """Take what was printed, cut anywhere. For any thread; waits for nobody."""
        with self._news:
            was_partial = self._lines.partial
            for at in range(0, len(data), PIECE_BYTES):
                self._take(self._lines.take(data[at : at + PIECE_BYTES]))
            if self._lines.partial and not was_partial:
                self._news.notify_all()

    def open(self, where: str, options: Mapping[str, Any] | None = None) -> None:
        """From now on it is kept in a run; once.

        Args:
            where: the run's folder or URL, see `headway.runs.RunFolder.where`.
            options: how its store is spoken to, see `headway.storage.options.Options`.
        """
        if "://" in where:
            self.ship(lambda: _objects(where, options or {}, self.source, self.stream), self._every_s)
        else:
            self.ship(lambda: sinks.Files(Path(where), self.source, self.stream), FOLDER_EVERY_S)

    def ship(self, connect: Callable[[], sinks.Sink], every_s: float) -> None:
        """The same, to a sink; connect: opens it, in the thread that ships."""
        if self._thread is None:
            self._every_s = every_s
            name = f"log of {self.source}"
            self._thread = threading.Thread(target=self._ship, args=(connect,), name=name, daemon=True)
            self._thread.start()

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Keep what waits. Returns whether all of it is kept; else it is tried on, while this process lives."""
        with self._news:
            self._take(self._lines.late(end=True))
            self._closing.set()
            self._news.notify_all()
        if self._thread is None:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _take(self, lines: list[bytes]) -> None:
        """With the lock."""
        for piece in pieces(stamped(lines, time.time()), PIECE_BYTES):
            self._waiting.add(piece)
        if lines:
            self._news.notify_all()

    def _ship(self, connect: Callable[[], sinks.Sink]) -> None:
        sink: sinks.Sink | None = None
        held: deque[bytes] = deque()
        failures, shipped_at = 0, -self._every_s
        while True:
            if not held:
                self._gather(shipped_at)
            try:
                if sink is None:
                    made = connect()
                    held.extend(_of_earlier(made.begin()))
                    sink = made
                ends = self._hold(held)
                while held:
                    sink.add(held[0])
                    held.popleft()
                failures, self.error, shipped_at = 0, "", time.monotonic()
                if ends:
                    sink.finish()
                    return
            except (HeadwayError, OSError) as error:
                failures += 1
                self.error = self._why = _reason(error)
                self._pause(failures)

    def _pause(self, failures: int) -> None:
        """Before another try; none where it is being closed from now on."""
        if self._closing.is_set():
            time.sleep(AGAIN_S)
        else:
            self._closing.wait(min(AGAIN_MOST_S, AGAIN_S * 2 ** min(failures - 1, 8)))

    def _hold(self, held: deque[bytes]) -> bool:
        """Take what waits, where nothing is held. Returns whether nothing will come after it."""
        with self._news:
            if not held:
                held.extend(pieces(self._waiting.take(time.time(), self._why), sinks.BLOCK_BYTES))
                self._why = ""
            return self._closing.is_set() and not self._waiting

    def _gather(self, shipped_at: float) -> None:
        """Wait until there is something to ship, and it is time."""
        with self._news:
            while not (self._waiting or self._closing.is_set()):
                self._news.wait(1.0 if self._lines.partial else None)
                self._take(self._lines.late())
        due = max(shipped_at + self._every_s, time.monotonic() + min(SOON_S, self._every_s))
        self._closing.wait(max(0.0, due - time.monotonic()))


def _of_earlier(gone: int) -> list[bytes]:
    notice = f"... {gone:,} bytes that earlier processes wrote are not kept any more ..."
    return [stamped([notice.encode()], time.time())] if gone else []


def _reason(error: Exception) -> str:
    if isinstance(error, HeadwayError):
        return error.reason or error.fact
    return getattr(error, "strerror", None) or str(error)


def _objects(where: str, options: Mapping[str, Any], source: str, stream: str) -> sinks.Sink:
    from headway.storage.opener import open_storage
    from headway.storage.options import Options

    return sinks.Objects(open_storage(where, Options(**options)), source, stream)
