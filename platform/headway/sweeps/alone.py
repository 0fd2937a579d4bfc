"""A whole run in this process, which stands at each of its evaluations until it is told to go on."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headway import plan
from headway.carried import code
from headway.checkpoint import store as checkpoints
from headway.checkpoint.copies import Copies
from headway.checkpoint.fork import ORIGIN, fork
from headway.checkpoint.store import Store
from headway.data.manifest import Manifest
from headway.data.own.opening import opened
from headway.data.read.streams import open_readers
from headway.driver import determinism
from headway.elastic.worker import context as contexts
from headway.elastic.worker.context import Context
from headway.elastic.worker.journal import Journal
from headway.elastic.worker.main import run
from headway.elastic.worker.members import Alone
from headway.elastic.worker.memory import keep_freed
from headway.elastic.worker.saver import Saver, Snapshot, Together
from headway.fitting import work
from headway.job import Checkpoint, Job
from headway.storage.folder import FolderStorage

Keep = Callable[[Path], None]


@dataclass(frozen=True)
class Given:
    """What a run is made of, whatever its settings.

    Args:
        source: of the task's code, with the code.
        training: the training set's manifests.
        env: variables of the environment that the job names.
    """

    source: code.Source
    training: tuple[Manifest, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Stands:
    """It was evaluated. values: by name; over: this is its end."""

    step: int
    values: dict[str, float]
    over: bool


class Way:
    """A run's way. The thread that trains and the one that calls these verbs take turns: one waits for the other.

    Args:
        job: of this run.
        given: the rest.
        folder: for this run alone; it goes on from the checkpoint in it, where there is one.
    """

    def __init__(self, job: Job, given: Given, folder: Path) -> None:
        self._job, self._given = job, given
        self._digest = plan.digest(job, given.training)
        self.folder = folder
        self._words: queue.Queue[bool] = queue.Queue()
        """Whether to go on; else to leave."""
        self._told: queue.Queue[Stands | BaseException] = queue.Queue()
        self._keep: Keep | None = None
        self._newest: Stands | None = None
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)

    def begin_with(self, folder: Path) -> None:
        """Begin with the state that was kept in a folder. One of other settings gives its weights and what its
        optimiser has summed up; the optimiser's settings and the schedule are this run's own. Raises BadCheckpoint."""
        found = checkpoints.committed_last(folder)
        if found is not None:
            facts = {} if found.job == self._digest else {ORIGIN: {"run": "", "step": found.step, "exact": False}}
            fork(found, FolderStorage(self.folder), 0, self._digest, facts)

    def advance(self) -> Stands:
        """To the next evaluation, or to the end. Raises whatever the user's code raises."""
        if self._newest is not None and self._newest.over:
            return self._newest
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._words.put(True)
        told = self._told.get()
        if isinstance(told, BaseException):
            raise told
        self._newest = told
        return told

    def save(self, folder: Path) -> bool:
        """Keep the state of this evaluation in a folder, as a checkpoint. False: before the first one there is none."""
        if self._keep is None:
            return False
        self._keep(folder)
        return True

    def leave(self) -> None:
        """End it where it stands, for good."""
        if self._thread.is_alive():
            self._words.put(False)
            self._thread.join()

    # In the thread that trains

    def _stand(self, told: Stands, keep: Keep) -> None:
        self._keep = keep
        self._told.put(told)
        if not self._words.get():
            raise _Left
        self._keep = None

    def _run(self) -> None:
        try:
            self._train()
        except _Left:
            pass
        except BaseException as error:  # raised again in the thread that waits for it
            self._told.put(error)
        finally:
            self._keep = None

    def _train(self) -> None:
        job, journal = self._job, _Unheard(None, "w0")
        os.environ.update(self._given.env)
        keep_freed()
        torch.set_num_threads(job.workers.cpus)
        determinism.enforce(job)
        device = "cuda" if job.workers.gpus else "cpu"
        training, validation = open_readers(job, journal.quarantined, device, own=opened(job, self._given.source))
        policy = Checkpoint(every_steps=None, keep_last=1)
        saver = _Gates(Store(self.folder, self._digest, policy), policy, journal, self._stand)
        context = Context(job, device, training, validation, saver, journal, job.name, Alone(job.lanes))
        saver.total_steps = context.total_steps
        contexts.enter(context)
        try:
            found = code.load(self._given.source)
            run(job, found, self._given.source, work.run(job, found))
        finally:
            contexts.enter(None)
            saver.close()
            context.close()


class _Left(BaseException):
    """Leaves the user's loop, which may catch exceptions."""


class _Unheard(Journal):
    """Nobody hears of it: who stands tells of the evaluations, and of the rest there is no record."""

    def _begin(self) -> None:
        pass

    def _note(self, step: int, kind: str, what: str = "", **entry: Any) -> dict[str, Any]:
        return {}

    def _say(self, kind: str, **record: Any) -> None:
        pass

    def logged(self, step: int, kind: str, name: str, content: str, **about: Any) -> None:
        """No record, and nothing is held of it."""

    def settle(self, patience_s: float | None = None) -> bool:
        return True


class _Gates(Saver):
    """Takes no checkpoints of its own: where one would be due, after an evaluation, the run stands, and its state can
    be kept.

    Args:
        stand: called there; it returns when the run may go on.

    The others as of `Saver`.
    """

    def __init__(self, store: Store, rule: Checkpoint, journal: Journal, stand: Callable[[Stands, Keep], None]) -> None:
        super().__init__(store, rule, journal)
        self._stand, self._stood = stand, -1
        self.total_steps = 0

    def due(self, step: int, now: float, evaluated: bool = False, wanted: str | None = None) -> str | None:
        return "evaluation" if evaluated and step != self._stood else None

    def save(
        self,
        step: int,
        snapshot: Snapshot,
        facts: dict[str, Any],
        reason: str,
        parameters: Mapping[str, bool] | None = None,
        together: Together | None = None,
    ) -> bool:
        self._stop_here(step, snapshot, facts, over=step >= self.total_steps)
        return False

    def end(
        self,
        step: int,
        snapshot: Snapshot,
        facts: dict[str, Any],
        reason: str,
        parameters: Mapping[str, bool] | None = None,
        together: Together | None = None,
    ) -> None:
        self._stop_here(step, snapshot, facts, over=True)

    def _stop_here(self, step: int, snapshot: Snapshot, facts: dict[str, Any], over: bool) -> None:
        def keep(folder: Path) -> None:
            parts = Copies().take(snapshot())
            Store(folder, self.store.job, self.store.policy).write(step, parts, {**facts, "reason": "evaluation"})

        self._stood = step
        self._stand(Stands(step, dict(facts["metrics"]), over), keep)
