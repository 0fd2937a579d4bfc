"""The run's records on their way to the disk: a thread of its own writes them, and goes on trying while it cannot."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from headway.core.outage import Outage
from headway.durable import Lines, replace
from headway.errors import HeadwayError, RunFailed
from headway.logged import index
from headway.logged.paths import FOLDER
from headway.runs import epochs

if TYPE_CHECKING:
    from headway.runs import RunFolder
    from headway.runs.mirror import Mirror
    from headway.tracking.spool import Spool

WAITING = 100_000  # tasks that may wait; more are not taken, and stay with the workers
TOGETHER = 1000  # lines in one write
BYTES = 256 << 20  # of files that may wait

Task = tuple[str, Any]


class Scribe:
    """Tasks are done in order, each until it has succeeded. Nothing here is waited for, but in `close`.

    Args:
        run: whose records these are.
        epoch: of the process that leads it; nothing is written once another process leads.
        fail_after: seconds for which writing may fail before the run ends; None for ever.
        say: takes a line for people; called in the thread, like the others.
        fail: takes the failure that ends the run.
        spool: of the tracking store, if there is one.
        far: the run lives in a store: nothing counts as written before that has it, see `ship`.
    """

    def __init__(
        self,
        run: RunFolder,
        epoch: int,
        fail_after: float | None,
        say: Callable[[str], None],
        fail: Callable[[dict[str, Any]], None],
        spool: Spool | None = None,
        far: bool = False,
    ) -> None:
        self._run, self._epoch, self._say, self._fail, self._spool = run, epoch, say, fail, spool
        self._files: dict[str, Lines] = {}
        self._tasks: deque[Task] = deque()
        self._facts: str | None = None
        self._bytes = 0
        """Of the files that wait."""
        self._news = threading.Condition()
        self._closing_at: float | None = None
        self._outage = Outage(fail_after)
        self._given_up = False
        self.taken = self._kept = self._safe = 0
        """Tasks so far; those that are done on the disk; of these, those that are where the run is."""
        self._far = far
        self._mirror: Mirror | None = None
        self._marks: deque[tuple[int, int]] = deque()
        """Of the mirror: once it has shipped the first, so many tasks are safe."""
        self._thread = threading.Thread(target=self._work, name="scribe", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should come."""
        return len(self._tasks) >= WAITING or self._bytes >= BYTES

    @property
    def error(self) -> str:
        """Why nothing can be written at present, or could be at the end; empty where nothing is wrong."""
        if self._outage.since is not None:
            return self._outage.reason
        return self._mirror.error if self._mirror is not None else ""

    @property
    def written(self) -> int:
        """Tasks that are done, and outlive this machine where the run lives in a store."""
        if not self._far:
            return self._kept
        with self._news:
            while self._mirror is not None and self._marks and self._marks[0][0] <= self._mirror.shipped:
                self._safe = self._marks.popleft()[1]
            return self._safe

    def ship(self, mirror: Mirror) -> None:
        """From now on what is written here is shipped by it."""
        with self._news:
            self._mirror = mirror
            self._marks.append((mirror.mark(), self._kept))

    def line(self, file: str, content: dict[str, Any]) -> None:
        """A line for a file of that name: steps, metrics, events, and what else there is."""
        self._add(("line", (file, content)))

    def file(self, path: str, data: bytes) -> None:
        """A file of the run's folder. path: in it."""
        with self._news:
            self._bytes += len(data)
        self._add(("whole", (path, data)))

    def cut(self, step: int, then: Callable[[dict[str, float]], None], logged: bool = True) -> None:
        """The run goes on from this step: what was recorded of later ones goes, and where `logged` what was logged.
        then: called with the metrics left."""
        self._add(("cut", (step, then, logged)))

    def facts(self, facts: dict[str, Any]) -> None:
        """Let these be the facts of run.json."""
        text = json.dumps(facts, indent=1)
        with self._news:
            waits, self._facts = self._facts is not None, text
        if not waits:
            self._add(("keep", None))

    def members(self, members: dict[str, Any]) -> None:
        self._add(("members", json.dumps(members)))

    def track(self, event: dict[str, Any]) -> None:
        """An event for the tracking store."""
        if self._spool is not None:
            self._add(("track", {"time": time.time(), **event}))

    def sync(self) -> None:
        """Make what was written durable."""
        self._add(("sync", None))

    def close(self, timeout_s: float) -> bool:
        """Write what waits, and end; returns whether all of it was written."""
        with self._news:
            self._closing_at = time.monotonic() + timeout_s
            self._news.notify_all()
        self._thread.join(timeout_s + 10.0)
        return not self._tasks and not self._given_up

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was taken so far is on the disk; False where it is not within the time."""
        mark = self.taken
        with self._news:
            self._news.wait_for(lambda: self._kept >= mark or not self._thread.is_alive(), timeout_s)
            return self._kept >= mark

    def _add(self, task: Task) -> None:
        with self._news:
            self._tasks.append(task)
            self.taken += 1
            self._news.notify_all()

    # In the thread

    def _work(self) -> None:
        while not self._given_up:
            with self._news:
                self._news.wait_for(lambda: self._tasks or self._closing_at is not None)
                if not self._tasks:
                    break
                together = list(_lines(self._tasks)) or [self._tasks[0]]
            if not self._done(together):
                break
            with self._news:
                for _ in together:
                    self._tasks.popleft()
                self._kept += len(together)
                if self._mirror is not None:
                    self._marks.append((self._mirror.mark(), self._kept))
                self._news.notify_all()
        for file in self._files.values():
            file.close()

    def _done(self, tasks: list[Task]) -> bool:
        """Whether these tasks were done, however often they had to be tried."""
        if tasks[0][0] != "line":
            ((kind, content),) = tasks
            return self._tried(lambda: getattr(self, "_" + kind)(content))
        by_file: dict[str, list[bytes]] = {}
        for _, (file, content) in tasks:
            by_file.setdefault(file, []).append(json.dumps(content).encode() + b"\n")
        return all(self._tried(partial(self._file(file).append, b"".join(lines))) for file, lines in by_file.items())

    def _file(self, name: str) -> Lines:
        return self._files.setdefault(name, Lines(self._run.path / f"{name}.jsonl"))

    def _tried(self, action: Callable[[], None]) -> bool:
        while True:
            try:
                if self._epoch:
                    epochs.verify(self._run.path, self._epoch)
                action()
            except epochs.Superseded as error:
                self._end("superseded", error)
                return False
            except (OSError, RunFailed) as error:
                if not self._waited(error):
                    return False
                continue
            lasted = self._outage.worked(time.monotonic())
            if lasted is not None:
                self._say(f"the records are written again after {lasted:.0f} s; none was lost")
            return True

    def _waited(self, error: Exception) -> bool:
        """After a failure; returns whether to try again."""
        reason = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
        reason = error.reason if isinstance(error, RunFailed) and error.reason else reason
        first = self._outage.since is None
        pause = self._outage.failed(time.monotonic(), reason)
        if first:
            self._say(f"the records cannot be written: {reason}; training goes on, {len(self._tasks)} waiting")
        now = time.monotonic()
        if self._closing_at is not None and now >= self._closing_at:
            return False
        if self._outage.too_long(now) and self._closing_at is None:
            fact = f"the records could not be written for {self._outage.limit_s:g} s"
            remedy = "Free space or mend the folder, then resume; checkpoint.fail_after says how long to go on without."
            self._fail({"kind": "records", "fact": fact, "reason": reason, "remedy": remedy})
        with self._news:
            self._news.wait_for(lambda: self._closing_at is not None and now >= self._closing_at, pause)
        return True

    def _end(self, kind: str, error: HeadwayError) -> None:
        """Another process leads: this one writes nothing any more."""
        self._given_up = True
        self._fail({"kind": kind, "fact": error.fact, "reason": error.reason, "remedy": error.remedy})
        with self._news:
            self._news.notify_all()

    def _cut(self, content: tuple[int, Callable[[dict[str, float]], None], bool]) -> None:
        step, then, logged = content
        for name in ("steps", "metrics", FOLDER):
            self._file(name).close()
        self._run.cut("steps", step - 1)
        self._run.cut("metrics", step)
        if logged:
            index.cut(self._run.path, step)
        then(self._run.latest_metrics())

    def _whole(self, content: tuple[str, bytes]) -> None:
        path, data = self._run.path / content[0], content[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, data)
        with self._news:
            self._bytes -= len(data)

    def _keep(self, _: None) -> None:
        with self._news:
            text, self._facts = self._facts, None
        try:
            replace(self._run.path / "run.json", text or "{}")
        except OSError:
            with self._news:
                self._facts = self._facts or text  # it is tried again, with newer facts where there are any
            raise

    def _members(self, text: str) -> None:
        replace(self._run.path / "members.json", text)

    def _track(self, event: dict[str, Any]) -> None:
        assert self._spool is not None
        self._spool.append(event)

    def _sync(self, _: None) -> None:
        for file in self._files.values():
            file.sync()
        if self._mirror is not None:
            self._mirror.hurry()


def _lines(tasks: deque[Task]) -> Iterator[Task]:
    """The lines that wait first."""
    for number, task in enumerate(tasks):
        if task[0] != "line" or number >= TOGETHER:
            return
        yield task
