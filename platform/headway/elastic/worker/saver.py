"""When and how the state is saved: copied in the training thread, and everything else in a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.checkpoint import folder
from headway.checkpoint.copies import Copies
from headway.checkpoint.finite import flaw
from headway.core.outage import Outage
from headway.core.retention import due
from headway.epochs import Superseded
from headway.errors import HeadwayError, RunFailed

if TYPE_CHECKING:
    from headway.checkpoint.folder import Checkpoint
    from headway.checkpoint.store import Store
    from headway.elastic.worker.journal import Journal
    from headway.job import Checkpoint as Rule

Snapshot = Callable[[], dict[str, Any]]


class Saver:
    """Call its verbs on every worker alike; only the one that leads writes. No verb but `finish`, `restore` and `load`
    waits for the file system, and those wait for the thread that does.

    Args:
        store: of the run's checkpoints.
        rule: when they are due, and for how long writing may fail.
        journal: hears of what was written; says who leads, and whether the run went on elsewhere.
        owner: the worker and its start, for the names of what is being written.
        now: seconds on any one clock.
    """

    def __init__(
        self, store: Store, rule: Rule, journal: Journal, owner: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.store, self._rule, self._journal, self._owner, self._now = store, rule, journal, owner, now
        self._copies = Copies()
        self._lock = threading.Lock()
        self._tasks: queue.Queue[Callable[[], None]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._writing = False
        self._finishing = 0
        self._wanted: str | None = None
        self._due_step, self._due_at = 0, now()
        self._saved_step = 0
        self._committed_step = 0
        self._outage = Outage(rule.fail_after)
        self._retry_at = 0.0
        self._failure: HeadwayError | None = None
        self.skipped = 0
        """Checkpoints that were due while one was being written."""

    @property
    def saved_step(self) -> int:
        """The step whose state was copied last, and has not failed to be written; the step that the run began with."""
        return self._saved_step

    @property
    def error(self) -> str | None:
        """Why the newest writing failed; None if it did not."""
        return self._outage.reason if self._outage.since is not None else None

    def begin(self, step: int) -> None:
        """The run goes on from this state, which is saved already: a checkpoint's, or another worker's of that step."""
        with self._lock:
            self._saved_step = self._due_step = step
            self._committed_step, self._due_at = step, self._now()

    def lead(self) -> None:
        """This worker is rank 0 now. What the one before it began to write may never be committed: looked at behind."""
        self._do(self._look)

    def due(self, step: int, now: float, evaluated: bool = False, wanted: str | None = None) -> str | None:
        """Why a checkpoint is to be taken before `step`, or None.

        Args:
            step: number of steps committed.
            now: on the clock of the constructor's.
            evaluated: the metrics of this very state are known.
            wanted: somebody asks for one, for this reason; remembered until it is taken.

        Raises:
            RunFailed: none could be written for longer than the job allows.
        """
        self._check()
        self._wanted = wanted or self._wanted
        with self._lock:
            if step == self._saved_step:
                self._wanted = None
                return None
            if self._outage.since is not None and not self._writing and now >= self._retry_at:
                return "the one before could not be written"
            rule = self._rule
            reason = due(step, now, self._due_step, self._due_at, rule.every_steps, rule.every_s)
            if reason is None and rule.keep_best and evaluated and step != self._due_step:
                reason = "evaluation"  # the best by a metric are only known among those that were judged
            if reason is None and not self._writing:
                reason = self._wanted
            return reason

    def save(
        self,
        step: int,
        snapshot: Snapshot,
        facts: dict[str, Any],
        reason: str,
        parameters: Mapping[str, bool] | None = None,
    ) -> bool:
        """Take a checkpoint of this moment. One that is still being written lets this one be skipped, and counted.

        Args:
            step: number of steps committed.
            snapshot: gives trees of tensors and plain values by part name; they are copied before this returns.
            facts: kept in the manifest.
            reason: why now.
            parameters: names in the part `model`, and whether each is trained.

        Returns:
            Whether it was begun here.

        Raises:
            BadInput: the state holds what cannot be kept.
            RunFailed: see `due`.
        """
        self._check()
        with self._lock:
            self._due_step, self._due_at = step, self._now()
            if not self._journal.leads:
                self._saved_step, self._wanted = step, None
                return False
            if self._writing:
                self.skipped += 1
                self._journal.checkpoint_skipped(step, reason)
                return False
            self._writing, self._wanted = True, None
        begun = self._now()
        try:
            parts = self._copies.take(snapshot())
        except BaseException:  # raised again: nothing is under way, whatever the snapshot raised
            self._writing = False
            raise
        self._saved_step = step
        self._journal.checkpoint_begun(step, reason, self._now() - begun)
        facts = {**facts, "reason": reason}
        self._do(lambda: self._write(step, parts, facts, parameters))
        return True

    def finish(self) -> None:
        """Wait until what is under way is committed, or was not to be; what failed is tried again meanwhile.

        Raises:
            RunFailed: it failed for longer than the job allows.
        """
        self._finishing += 1
        try:
            self._wait(lambda: None)
        finally:
            self._finishing -= 1
        self._check()

    def end(
        self,
        step: int,
        snapshot: Snapshot,
        facts: dict[str, Any],
        reason: str,
        parameters: Mapping[str, bool] | None = None,
    ) -> None:
        """Wait until this state is safe: saved by now, or saved here. Call it on every worker.

        Raises:
            RunFailed: it could not be written.
        """
        self.finish()
        if step != self._saved_step:
            self.save(step, snapshot, facts, reason, parameters)
            self.finish()

    def restore(self, parameters: Mapping[str, bool] | None = None) -> tuple[Checkpoint | None, list[str]]:
        """The newest sound checkpoint, and a word for each that was passed over.

        Raises:
            BadCheckpoint: it belongs to another job.
        """
        found: tuple[Checkpoint | None, list[str]] = self._wait(lambda: self._find(parameters))
        return found

    def load(self, path: Path | str) -> tuple[Checkpoint, dict[str, Any]]:
        """A committed checkpoint by its folder, and its parts in host memory: some of it (the states of generators, the
        counters of optimisers) belongs there, and a device need not hold the model twice.

        Raises:
            BadCheckpoint: it cannot be read.
        """

        def read() -> tuple[Checkpoint, dict[str, Any]]:
            checkpoint = folder.read(Path(path))
            return checkpoint, checkpoint.load()

        found: tuple[Checkpoint, dict[str, Any]] = self._wait(read)
        return found

    def close(self) -> None:
        """End the thread, when it has done what it was asked to; nothing is tried again."""
        if self._thread is not None:
            self._tasks.put(self._stop)
            self._thread.join()
            self._thread = None

    # In the thread

    def _find(self, parameters: Mapping[str, bool] | None) -> tuple[Checkpoint | None, list[str]]:
        self.store.clean(self._owner)
        return self.store.newest(parameters)

    def _look(self) -> None:
        try:
            self.store.clean(self._owner)
            committed = self.store.committed()
        except OSError as error:
            self._journal.note(f"the checkpoints cannot be looked at: {error}")
            return
        with self._lock:
            self._committed_step = committed[-1].step if committed else 0
            if not self._writing and self._committed_step < self._saved_step:
                self._saved_step = self._due_step = self._committed_step

    def _write(
        self, step: int, parts: dict[str, Any], facts: dict[str, Any], parameters: Mapping[str, bool] | None
    ) -> None:
        found = flaw(parts, parameters)
        if found is not None:
            self._journal.note(f"no checkpoint is taken of step {step}: there is {found}; those before it stay")
            with self._lock:
                self._writing = False
            return
        while True:
            try:
                checkpoint = self.store.write(step, parts, facts, self._owner, lambda: self._journal.allows(step))
            except Superseded as error:
                with self._lock:
                    self._writing, self._failure = False, error
                return
            except Exception as error:  # the thread's end would hide it; it is told to whoever listens instead
                if not self._failed(step, f"{type(error).__name__}: {error}"):
                    return
                continue
            break
        with self._lock:
            self._writing = False
            self._outage.worked(self._now())
            if checkpoint is not None:
                self._committed_step = step
            elif self._saved_step == step and self._journal.leads:
                self._saved_step = self._committed_step
        if checkpoint is not None:
            self._journal.checkpoint_done(checkpoint, None)

    def _failed(self, step: int, reason: str) -> bool:
        """Returns whether to try again at once: somebody waits for it."""
        self._journal.checkpoint_done(None, reason)
        with self._lock:
            now = self._now()
            pause = self._outage.failed(now, reason)
            self._retry_at = now + pause
            given_up = self._outage.too_long(now)
            if given_up:
                self._failure = self._too_long()
            again = not given_up and self._finishing > 0
            if not again:
                self._writing, self._saved_step = False, self._committed_step
        if again:
            time.sleep(pause)
        return again

    def _too_long(self) -> HeadwayError:
        return RunFailed(
            f"no checkpoint could be written for {self._outage.limit_s:g} s",
            self._outage.reason,
            "Free space or mend the store, then resume the run; checkpoint.fail_after says how long to go on without.",
        )

    @staticmethod
    def _broken(error: BaseException) -> HeadwayError:
        remedy = "Resume the run from the newest checkpoint; where this comes again, see what the state holds."
        return RunFailed("the thread that saves checkpoints failed", f"{type(error).__name__}: {error}", remedy)

    # Between the two

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _do(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="saver", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def _wait(self, task: Callable[[], Any]) -> Any:
        """Have something done in the thread after all that was asked before, and wait for what it gives or raises."""
        done = threading.Event()
        found: list[Any] = []
        raised: list[BaseException] = []

        def run() -> None:
            try:
                found.append(task())
            except BaseException as error:  # raised again in the thread that waits
                raised.append(error)
            done.set()

        self._do(run)
        done.wait()
        if raised:
            raise raised[0]
        return found[0]

    @staticmethod
    def _stop() -> None:
        raise SystemExit

    def _run(self) -> None:
        while True:
            try:
                self._tasks.get()()
            except SystemExit:
                return
            except BaseException as error:  # the thread goes on: whoever waits for it is to hear of this
                with self._lock:
                    self._writing, self._failure = False, self._failure or self._broken(error)
