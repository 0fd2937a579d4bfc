"""When and how the state is saved: copied in the training thread, and everything else in a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headway.checkpoint.copies import Copies
from headway.checkpoint.finite import flaw
from headway.checkpoint.writing import Share, Shares
from headway.core.outage import Outage
from headway.core.retention import due
from headway.errors import BadInput, HeadwayError, RunFailed
from headway.runs.epochs import Superseded
from headway.storage.commit import nonce
from headway.storage.protocol import OutOfReach

if TYPE_CHECKING:
    from headway.checkpoint.found import Checkpoint
    from headway.checkpoint.store import Store
    from headway.elastic.worker.journal import Journal
    from headway.job import Checkpoint as Rule

Snapshot = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Together:
    """All workers of a generation write a checkpoint.

    Args:
        share: this one's.
        attempt: of this step in this generation, the same on all.
    """

    share: Share
    attempt: str


class Saver:
    """Call its verbs on every worker alike. The one that leads copies the whole state, and commits it; each of the
    others copies and writes a share of what is the same on all. No verb but `finish`, `restore` and `newest_step` waits
    for the store, and those wait for the thread that does.

    Args:
        store: of the run's checkpoints.
        rule: when they are due, and for how long writing may fail.
        journal: hears of what was written; says who leads, and whether the run went on elsewhere.
        now: seconds on any one clock.
    """

    def __init__(self, store: Store, rule: Rule, journal: Journal, now: Callable[[], float] = time.monotonic) -> None:
        self.store, self._rule, self._journal, self._now = store, rule, journal, now
        self._copies, self._shares = Copies(), Shares()
        self._sharing = self._closing = False
        self._unpruned: str | None = None
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
        together: Together | None = None,
    ) -> bool:
        """Take a checkpoint of this moment. One that is still being written lets this one be skipped, and counted.

        Args:
            step: number of steps committed.
            snapshot: gives trees of tensors and plain values by part name; they are copied before this returns.
            facts: kept in the manifest.
            reason: why now.
            parameters: names in the part `model`, and whether each is trained.
            together: with whom; alone where not given.

        Returns:
            Whether it was begun here.

        Raises:
            BadInput: the state holds what cannot be kept.
            RunFailed: see `due`.
        """
        self._check()
        with self._lock:
            self._due_step, self._due_at = step, self._now()
            leads = self._journal.leads
            if not leads:
                self._saved_step, self._wanted = step, None
            elif self._writing:
                self.skipped += 1
                self._journal.checkpoint_skipped(step, reason)
                return False
            else:
                self._writing, self._wanted = True, None
        if not leads:
            self._share(step, snapshot, together)
            return False
        begun = self._now()
        try:
            parts = self._copies.take(snapshot())
        except BaseException:  # raised again: nothing is under way, whatever the snapshot raised
            self._writing = False
            raise
        self._saved_step = step
        self._journal.checkpoint_begun(step, reason, self._now() - begun)
        facts = {**facts, "reason": reason}
        attempt, of = (together.attempt, together.share.of) if together is not None else (nonce()[:12], 1)
        self._do(lambda: self._write(step, parts, facts, parameters, attempt, of))
        return True

    def _share(self, step: int, snapshot: Snapshot, together: Together | None) -> None:
        """Copy what this worker writes of a checkpoint that another one commits, and have it written; not while the one
        before is under way: the other one writes what does not come."""
        if together is None or together.share.of == 1 or self._sharing:
            return
        if not self._shares.take(snapshot(), together.share):
            return
        self._sharing, attempt = True, together.attempt
        self._do(lambda: self._write_share(step, attempt))

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
        together: Together | None = None,
    ) -> None:
        """Wait until this state is safe: saved by now, or saved here. Call it on every worker.

        Raises:
            RunFailed: it could not be written.
        """
        self.finish()
        if step != self._saved_step:
            self.save(step, snapshot, facts, reason, parameters, together)
            self.finish()

    def restore(
        self, parameters: Mapping[str, bool] | None = None
    ) -> tuple[Checkpoint | None, dict[str, Any], list[str]]:
        """The newest sound checkpoint, its parts in host memory, and a word for each that was passed over. Where the
        store does not answer it is asked again, for as long as the job lets writing fail.

        Raises:
            BadCheckpoint: it belongs to another job.
            RunFailed: the store gave no answer for too long.
        """
        found: tuple[Checkpoint | None, dict[str, Any], list[str]] = self._wait(lambda: self._find(parameters))
        return found

    def newest_step(self) -> int:
        """The step of the newest checkpoint that counts, by its manifest alone; -1 where there is none, or where the
        store does not answer."""
        found: int = self._wait(self._newest_step)
        return found

    def close(self) -> None:
        """End the thread, when it has done what it was asked to; nothing is tried again."""
        self._closing = True
        if self._thread is not None:
            self._tasks.put(self._stop)
            self._thread.join()
            self._thread = None

    # In the thread

    def _find(self, parameters: Mapping[str, bool] | None) -> tuple[Checkpoint | None, dict[str, Any], list[str]]:
        outage = Outage(self._rule.fail_after)
        while True:
            try:
                self.store.clean()
                return self.store.restore(parameters)
            except OutOfReach as error:
                pause = outage.failed(self._now(), str(error))
                if outage.too_long(self._now()):
                    raise RunFailed(
                        f"no checkpoint could be read for {outage.limit_s:g} s",
                        str(error),
                        "Mend the store, then resume the run; checkpoint.fail_after says how long to wait.",
                    ) from error
                self._journal.note(f"the checkpoints cannot be read, and are tried again: {error}")
                time.sleep(pause)

    def _newest_step(self) -> int:
        try:
            committed = self.store.committed()
        except (OSError, HeadwayError):
            return -1
        return committed[-1].step if committed else -1

    def _look(self) -> None:
        try:
            self.store.clean()
            committed = self.store.committed()
        except OSError as error:
            self._journal.note(f"the checkpoints cannot be looked at: {error}")
            return
        with self._lock:
            self._committed_step = committed[-1].step if committed else 0
            if not self._writing and self._committed_step < self._saved_step:
                self._saved_step = self._due_step = self._committed_step

    def _write(
        self,
        step: int,
        parts: dict[str, Any],
        facts: dict[str, Any],
        parameters: Mapping[str, bool] | None,
        attempt: str,
        of: int,
    ) -> None:
        found = flaw(parts, parameters)
        if found is not None:
            self._journal.note(f"no checkpoint is taken of step {step}: there is {found}; those before it stay")
            with self._lock:
                self._writing = False
            return
        while True:
            try:
                checkpoint = self.store.write(step, parts, facts, lambda: self._journal.allows(step), attempt, of)
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
            self._journal.checkpoint_done(checkpoint, None, self.store.let_go)
        unpruned, self._unpruned = self._unpruned, self.store.unpruned
        if self._unpruned is not None and unpruned is None:
            self._journal.note(f"checkpoints that are to go could not be removed: {self._unpruned}")

    def _write_share(self, step: int, attempt: str) -> None:
        try:
            self.store.write_share(step, attempt, self._shares, lambda: not self._closing)
        except (OSError, BadInput) as error:  # the worker that leads writes it, or says why it cannot be written
            self._journal.note(f"a share of the checkpoint of step {step} could not be written here: {error}")
        finally:
            self._sharing = False

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
