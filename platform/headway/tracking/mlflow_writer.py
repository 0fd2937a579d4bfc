"""Carries a run's spool to MLflow from a background thread, so that no training thread ever waits for a server.

What is in the spool arrives once, in order: after a kill, after hours without a server, after a resume that replays.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from headway.errors import BadInput, HeadwayError
from headway.tracking import entities, lineage, pages, progress
from headway.tracking.admission import SETTINGS
from headway.tracking.recording import Batch, Recording, is_sound, open_run
from headway.tracking.spool import FILE, Event, Spool
from headway.tracking.store import DATABASE, check_uri, connect, default_uri, locked, redact, with_password

POLL_S = 2.0
BACK_OFF_S = (0.5, 30.0)
POINTS = (50, 1000)
FILES_S = 30.0
"""Between two attempts to store files that could not be, while the records could."""
WINDOW = 8
"""Batches that are sent together where many wait for a server."""
LAST_ATTEMPTS = 3
LAST_PAUSE_S = 0.3
LOCK = "tracking.lock"
MACHINE = ".machine"
"""See `headway.runs.place`."""


@dataclass(frozen=True)
class Summary:
    """What became of a run's records. A point is one value of one metric at one step.

    Args:
        sent: points sent by this writer.
        waiting: points still only in the spool; `headway sync` sends them.
        error: why they wait, in a line; empty when nothing is wrong.
        run_id: MLflow's; None when the store was never reached.
        uri: of the store, without a password.
        page: address of the run's page, where the store has pages.
        whole: whether all that is in the spool was sent: its end, its checkpoints, its tags and its files, too.
    """

    sent: int
    waiting: int
    error: str
    run_id: str | None
    uri: str
    page: str | None = None
    whole: bool = True


class Writer:
    """The background writer of one run.

    Args:
        run_folder: holds the spool `spool.jsonl`, and `tracking.json` with how far it was sent; its name is the run's.
        uri: from `check_uri`; None for the sqlite store of the runs folder, which is the folder's parent.
        experiment: MLflow's; made when it is not there.
        run_name: MLflow's name of the run; the folder's name when not given.
        poll_s: seconds between two looks at the spool.
        say: told in words when the records begin to wait, and when they do so no more; called in the thread.
    """

    def __init__(
        self,
        run_folder: str | Path,
        uri: str | None = None,
        experiment: str = "headway",
        run_name: str | None = None,
        poll_s: float = POLL_S,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = Path(run_folder).resolve()
        self._uri = uri or default_uri(self._folder.parent)
        # The default store keeps its name in tracking.json when the runs folder is moved.
        self._store = redact(uri) if uri else _beside(self._folder.parent)
        self._experiment = experiment
        self._run_name = run_name or self._folder.name
        self._poll_s, self._say = poll_s, say
        self._waits = False
        self._spool = Spool(self._folder / FILE)
        self._progress = progress.Progress()
        self._recording: Recording | None = None
        self._points = POINTS[1]
        self._sent = 0
        self._error = self._owes = ""
        self._paid_at = 0.0
        self._closing = False
        self._news = threading.Condition()
        self._nudged = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; nothing is asked of any server here."""
        self._progress = progress.load(self._folder, self._store)
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until MLflow has all that is in the spool now; False when it has not within the time."""
        goal = self._spool.size()
        with self._news:
            self._nudge()
            return self._news.wait_for(lambda: self._progress.offset >= goal or not self._alive(), timeout_s) and (
                self._progress.offset >= goal
            )

    def close(self, timeout_s: float) -> Summary:
        """Send what can be sent, and end the thread. Returns within the time; what was not sent stays in the spool."""
        with self._news:
            self._closing = True
            self._nudge()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self.summary()

    def summary(self) -> Summary:
        """How it stands now."""
        with self._news:
            kept, sent, error = self._progress, self._sent, self._error
        waiting = _points(self._spool.path, kept.offset)
        uri = redact(self._uri)
        page = pages.of_run(uri, kept.experiment_id, kept.run_id)
        whole = kept.offset >= self._spool.size() and not kept.owed
        return Summary(sent, waiting, error, kept.run_id, uri, page, whole)

    @property
    def waiting_bytes(self) -> int:
        """Of the spool, that MLflow has not yet."""
        return max(0, self._spool.size() - self._progress.offset)

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _nudge(self) -> None:
        self._nudged = True
        self._news.notify_all()

    def _work(self) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        failures = last_attempts = 0
        while True:
            closing = self._closing
            try:
                with locked(self._folder / LOCK, wait=False):
                    self._restore()
                    while self._carry():
                        failures = 0
                        if not self._closing:
                            self._pause(self._poll_s)
                return
            except Exception as error:
                failures += 1
                self._failed(error, failures)
            last_attempts += closing
            if last_attempts >= LAST_ATTEMPTS:
                return
            wait = min(BACK_OFF_S[0] * 2 ** min(failures - 1, 10), BACK_OFF_S[1])
            self._pause(LAST_PAUSE_S if self._closing else wait)

    def _restore(self) -> None:
        """Forget what was not saved: whatever failed half-way is found out from the store."""
        kept = progress.load(self._folder, self._store)
        if self._spool.size() < kept.offset:
            kept.offset = kept.upto = 0  # another spool; the marks keep its points from being sent twice
        self._recording = None
        with self._news:
            self._progress = kept

    def _carry(self) -> bool:
        """Send all that is in the spool; False when the writer is closing and nothing came meanwhile."""
        closing = self._closing
        while entries := list(self._spool.entries(self._progress.offset)):
            self._deliver(entries)
        self._pay(closing)
        with self._news:
            self._error = self._owes
        if self._waits:
            self._say("the tracking store takes the records again")
        self._waits = False
        return not closing

    def _pay(self, closing: bool) -> None:
        """What files could not be stored before, now and then, and at the end."""
        if not self._progress.owed:
            self._owes = ""
        elif closing or time.monotonic() >= self._paid_at + FILES_S:
            recording = self._recording or self._open({})
            told, self._owes = self._owes, redact(recording.files.pay())
            self._paid_at = time.monotonic()
            if bool(told) != bool(self._owes):
                self._say(
                    f"the tracking store has the records, but {self._owes}" if self._owes else "the files are stored"
                )
            self._save(self._progress.offset)

    def _deliver(self, entries: list[tuple[Event | None, int]]) -> None:
        batch, end = Batch(), self._progress.offset
        for event, after in entries:
            if event is None or not is_sound(event):
                end = after
                continue
            recording = self._recording or self._open(event)
            if event["kind"] == "points":
                room = self._points * self._together(recording) - len(batch.metrics)
                if batch.metrics and len(event["values"]) > room:
                    batch = self._send(recording, batch, end)
                recording.add(batch, event)
            else:
                batch = self._send(recording, batch, end)
                recording.apply(event)
                self._save(after)
            end = after
        if self._recording is not None:
            self._send(self._recording, batch, end)
        else:
            self._save(end)

    def _together(self, recording: Recording) -> int:
        """So many batches are sent at once: one while a server is found out to be well again."""
        return WINDOW if recording.has_server and self._points == POINTS[1] else 1

    def _send(self, recording: Recording, batch: Batch, end: int) -> Batch:
        if len(batch.metrics) > POINTS[1] and recording.has_server:
            # Whoever dies meanwhile leaves gaps in what the store has, and is followed by one who knows of it.
            self._progress.upto = max(self._progress.upto, end)
            self._save(self._progress.offset)
        sent = recording.send(batch, POINTS[1])
        with self._news:
            self._sent += sent
        self._points = min(self._points * 2, POINTS[1])
        if end > self._progress.offset:
            self._save(end)
        return Batch()

    def _open(self, first: Event) -> Recording:
        with warnings.catch_warnings():
            # MLflow and SQLAlchemy warn about each other while they are imported.
            warnings.simplefilter("ignore")
            import_module("mlflow.store.tracking.sqlalchemy_store")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        kept = self._progress
        client, artifacts = connect(self._uri, self._folder.parent)
        if kept.run_id is None:
            # Saved first: whoever dies between making the MLflow run and saving its id finds it again by this key.
            kept.key = lineage.key(first) or kept.key
            self._save(kept.offset)
            above = lineage.parent(first)
            alone = above is None and lineage.key(first) is None
            with nullcontext() if alone else lineage.making(self._folder.parent):
                kept.run_id = open_run(
                    client, artifacts, self._experiment, self._run_name, kept.key, float(first["time"]), above
                )
            self._save(kept.offset)
        recording = Recording(client, self._folder, kept)
        recording.catch_up(gaps=kept.upto > kept.offset)
        kept.experiment_id = recording.experiment
        self._recording = recording
        return recording

    def _save(self, offset: int) -> None:
        with self._news:
            self._error = ""  # before the offset: whoever waits for that reads the error next
        kept = self._progress
        before, kept.offset = kept.offset, offset
        try:
            progress.save(self._folder, self._store, kept)
        except OSError:
            kept.offset = before
            raise
        with self._news:
            self._news.notify_all()

    def _failed(self, error: Exception, failures: int) -> None:
        self._points = max(self._points // 2, POINTS[0])
        busy = isinstance(error, BlockingIOError)
        with self._news:
            self._error = "another process is sending this run's records" if busy else _reason(error)
        if failures > 1 and not (busy or self._waits or self._closing):  # once is nothing: a database that is busy
            self._waits = True
            self._say(f"the tracking store takes no records ({self._error}); they wait, and training goes on")

    def _pause(self, seconds: float) -> None:
        with self._news:
            self._news.wait_for(lambda: self._nudged, seconds)
            self._nudged = False


def sync(run_folder: str | Path, uri: str | None = None, timeout_s: float = 300, begin: bool = True) -> Summary:
    """Send what a run's spool still holds, to the store that its job names, and return when done or out of time.

    Args:
        begin: whether a runs folder may get a store of its own by this, where it has none.

    Raises:
        BadInput: there is no such run, or its tracking URI cannot be used.
    """
    folder = Path(run_folder).resolve()
    if not (folder / FILE).is_file():
        remedy = "`headway runs` lists the runs; give --runs if they are elsewhere."
        raise BadInput(f"no records in {folder}", f"{FILE} is missing", remedy)
    tracking = _tracking(folder)
    uri = uri or tracking.get("uri")
    writer = Writer(
        folder, check_uri(with_password(uri)) if uri else None, str(tracking.get("experiment") or "headway")
    )
    if not begin and not uri and not (folder.parent / DATABASE).is_file():
        return writer.summary()
    writer.start()
    return writer.close(timeout_s)


def _beside(runs: Path) -> str:
    """What the sqlite store of a runs folder is called in tracking.json: where that travels with the run, each machine
    has one of its own."""
    try:
        return f"runs folder {(runs / MACHINE).read_text(encoding='utf-8')}"
    except OSError:
        return "runs folder"


def _tracking(folder: Path) -> dict[str, str]:
    """The tracking section of the job as the run was last started."""
    section: dict[str, str] = {}
    for event in Spool(folder / FILE).events():
        if event["kind"] == "run" and isinstance(event.get("job"), dict):
            section = event["job"].get("tracking") or {}
    return section


def _points(path: Path, offset: int) -> int:
    points = (event for event in Spool(path).events(offset) if event["kind"] == "points")
    return sum(1 for event in points for _ in entities.numbers(event.get("values")))


def _reason(error: Exception) -> str:
    if isinstance(error, HeadwayError):
        return redact(str(error))[:600]
    lines = redact(str(error)).strip().splitlines() or [""]
    # SQLAlchemy begins with where it noticed, and says in the next line what it was.
    first = next((line for line in lines if not line.startswith("(raised as a result")), lines[0])
    return f"{type(error).__name__}: {first}"[:300]
