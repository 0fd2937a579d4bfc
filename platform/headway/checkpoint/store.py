"""The checkpoints of one run: written and verified, kept by a policy, found again when they are needed.

A checkpoint counts when its manifest is there, and, in a run whose head says so, when the head counts it; a listing
only proposes.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.checkpoint import earlier, writing
from headway.checkpoint import found as manifests
from headway.checkpoint.finite import flaw
from headway.checkpoint.found import MANIFEST, Checkpoint
from headway.checkpoint.writing import Place, Shares
from headway.core.retention import Kept, surplus
from headway.errors import BadCheckpoint, BadInput
from headway.runs import epochs
from headway.storage.commit import nonce
from headway.storage.folder import LOCK, FolderStorage
from headway.storage.protocol import Conflict, OutOfReach, Storage

if TYPE_CHECKING:
    from headway import job as jobs

LEAVING_S = 300.0
"""For so long after the last write in it, what a worker of this epoch was writing may yet be committed."""
Counts = Callable[[list[str]], Collection[str]]
BELOW = "checkpoints"
"""The folder's name in a run, which `counts` is asked with."""
_NAME = re.compile(r"(step-(\d{8,})/e(\d{6,})-[0-9a-z-]+)/(.+)")


def every(manifests: list[str]) -> Collection[str]:
    """Counts all."""
    return manifests


def names(root: Path | Storage, counts: Counts = every) -> list[str]:
    """Of the checkpoints that count, oldest first. Arguments as of `Store`.

    Raises:
        OutOfReach: the place does not answer.
    """
    listed = (_NAME.fullmatch(entry.name) for entry in _storage(root).list("step-"))
    there = {f"{BELOW}/{each[0]}": each[1] for each in listed if each is not None and each[4] == MANIFEST}
    counted = counts(list(there)) if there else []
    found = [there[manifest] for manifest in counted]
    if isinstance(root, Path):
        found += earlier.names(root)
    return sorted(found, key=lambda name: (step_of(name), name))


def read(root: Path | Storage, name: str) -> Checkpoint:
    """A checkpoint by one of those names, of whatever format.

    Raises:
        BadCheckpoint: no manifest, or one that is damaged.
        OutOfReach: the place does not answer.
    """
    if isinstance(root, Path) and "/" not in name:
        return earlier.read(root / name)
    return manifests.read(_storage(root), name)


def committed(root: Path | Storage, counts: Counts = every) -> list[Checkpoint]:
    """Those that count and have a readable manifest, oldest first. Arguments and errors as of `names`."""
    there = []
    for name in names(root, counts):
        with suppress(BadCheckpoint):
            there.append(read(root, name))
    return there


def committed_last(root: Path | Storage, counts: Counts = every) -> Checkpoint | None:
    """The newest of those, by its manifest alone. Arguments and errors as of `names`."""
    for name in reversed(names(root, counts)):
        with suppress(BadCheckpoint):
            return read(root, name)
    return None


class Store:
    """Every verb reads or writes, and may take as long as the place does; none belongs in the training thread.

    Args:
        root: the run's checkpoints: a folder, or any storage.
        job: digest of what decides the run's result; a checkpoint of another job is refused.
        policy: which ones stay.
        epoch: of the process that leads the run; see `headway.runs.epochs`.
        counts: which of these manifests count, by their names in the run; asked after each listing. All do where not
            given.
        fence: raises Superseded where a process of a higher epoch leads; for a folder that of `headway.runs.epochs`.
        pinned: steps whose checkpoints stay, whatever the policy says.
    """

    def __init__(
        self,
        root: Path | Storage,
        job: str,
        policy: jobs.Checkpoint,
        epoch: int = 0,
        counts: Counts = every,
        fence: Callable[[], None] | None = None,
        pinned: Collection[int] = (),
    ) -> None:
        self._place = root
        self.folder = root if isinstance(root, Path) else None
        self.root = _storage(root)
        self.job, self.policy, self.epoch = job, policy, epoch
        self._counts, self._fence = counts, fence or self._verify_epoch
        self._pinned = frozenset(pinned)
        self._known: dict[str, Checkpoint] = {}
        """Of those that were read or written here, for the policy."""
        self._left: set[str] = set()
        """What attempts that failed, and what removals that failed, may have left."""
        self.unpruned: str | None = None
        """Why those that the policy lets go could not be removed when one was written last."""
        self.let_go: list[int] = []
        """Steps of those that went, by the policy, when one was written last."""

    def write(
        self,
        step: int,
        parts: dict[str, Any],
        facts: dict[str, Any],
        allowed: Callable[[], bool] = lambda: True,
        attempt: str | None = None,
        of: int = 1,
    ) -> Checkpoint | None:
        """Write and commit a checkpoint, and remove those that the policy lets go.

        Args:
            step: number of steps committed.
            parts: trees of tensors in host memory and plain values by part name.
            facts: kept in the manifest.
            allowed: asked just before the commit; False (the run went on elsewhere) commits nothing.
            attempt: tells it from other attempts at this step. Tried again under the same, it is the same checkpoint.
            of: how many workers write it, each with this `attempt`; see `write_share`.

        Returns:
            The checkpoint, or None if it was not allowed.

        Raises:
            OSError: the place is full or gone; what was there before is there still.
            Superseded: another process leads the run.
        """
        asked = [False]

        def may() -> bool:
            asked[0] = True
            if not allowed():
                return False
            self._fence()
            return True

        place = Place(step, self.epoch, attempt or nonce()[:12])
        self._remove_left(place.name)
        try:
            checkpoint = writing.write(self.root, place, self.job, parts, facts, may, of)
        except Conflict:  # what is there is no word of this attempt's
            self._fence()
            return self.write(step, parts, facts, allowed)
        except BaseException as error:  # raised again: nothing half-written stays, where it can be removed
            self._left.add(place.name)
            if not (asked[0] and isinstance(error, OutOfReach)):  # then it may be committed all the same
                self._remove_left()
            raise
        if checkpoint is None:
            self._left.add(place.name)
            self._remove_left()
            return None
        self._known[place.name] = checkpoint
        self.unpruned, self.let_go = None, []
        self._fence()  # whoever leads by now has seen this one; else what it goes on from might be removed here
        try:
            self._prune(checkpoint)
        except (OSError, BadInput) as error:  # this one is committed, whatever becomes of the others
            self.unpruned = str(error)
        return checkpoint

    def write_share(self, step: int, attempt: str, taken: Shares, waits: Callable[[], bool]) -> None:
        """Write what this worker has of a checkpoint that another one commits.

        Args:
            step: number of steps committed.
            attempt: the same on all workers.
            taken: its share of the state.
            waits: whether it is waited for that the other one begins; asked again and again.

        Raises:
            OSError: the other one writes what is missing.
        """
        taken.write(self.root, Place(step, self.epoch, attempt), waits)

    def committed(self) -> list[Checkpoint]:
        """Committed checkpoints with a readable manifest, oldest first.

        Raises:
            OutOfReach: the place does not answer.
        """
        return committed(self._place, self._counts)

    def newest(self, parameters: Mapping[str, bool] | None = None) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, and why each newer one was passed over. What is far away is not read for
        that, and only sizes are compared; see `restore`.

        Args:
            parameters: see `headway.checkpoint.finite`; one of an earlier release may hold a state that is not.

        Raises:
            BadCheckpoint: a checkpoint is sound but belongs to another job.
            OutOfReach: the place does not answer.
        """
        look = Checkpoint.glance if self.folder is None else Checkpoint.verify
        checkpoint, _, passed_over = self._first(lambda checkpoint: look(checkpoint), parameters)
        return checkpoint, passed_over

    def restore(
        self, parameters: Mapping[str, bool] | None = None
    ) -> tuple[Checkpoint | None, dict[str, Any], list[str]]:
        """As `newest`, and its parts, read once: in host memory, for some of them (the states of generators, the
        counters of optimisers) belong there, and a device need not hold the model twice."""
        return self._first(lambda checkpoint: checkpoint.load(), parameters)

    def clean(self) -> None:
        """Remove what nobody will finish. What somebody of this epoch is writing stays until nothing in it has changed
        for `LEAVING_S`: a worker that leaves may be finishing it."""
        if self.folder is not None:
            earlier.clean(self.folder)
            _sweep(self.folder, self.epoch)
            return
        ages: dict[str, float] = {}
        there: dict[str, list[str]] = {}
        for entry in self.root.list("step-"):
            named = _NAME.fullmatch(entry.name)
            if named is not None:
                ages[named[1]] = min(entry.age_s, ages.get(named[1], entry.age_s))
                there.setdefault(named[1], []).append(named[4])
        whole = {f"{BELOW}/{name}/{MANIFEST}" for name, objects in there.items() if MANIFEST in objects}
        counted = set(self._counts(sorted(whole))) if whole else set()
        for name, objects in there.items():
            manifest = f"{BELOW}/{name}/{MANIFEST}"
            old = _epoch(name) < self.epoch
            if manifest not in counted and (old or (manifest not in whole and ages[name] > LEAVING_S)):
                writing.discard(self.root, name, objects)

    # Reading

    def _first(
        self, look: Callable[[Checkpoint], Any], parameters: Mapping[str, bool] | None
    ) -> tuple[Checkpoint | None, Any, list[str]]:
        """The newest that can be looked at, and what is seen there."""
        passed_over = []
        for name in reversed(names(self._place, self._counts)):
            try:
                checkpoint = read(self._place, name)
                seen = look(checkpoint)
            except BadCheckpoint as error:
                passed_over.append(str(error))
                continue
            except OutOfReach as error:
                if self.folder is None:
                    raise
                passed_over.append(str(error))  # of a disk, it is that file which cannot be read
                continue
            if checkpoint.job != self.job:
                raise BadCheckpoint(
                    f"{checkpoint.where} belongs to another job (run {checkpoint.facts.get('run')})",
                    "the job's task, data, lanes, seed, precision or optimiser differ from those it was written with",
                    "Resume with the job it was written by, or move it away.",
                )
            flawed = None if checkpoint.finite else flaw(checkpoint.load(), parameters)
            if flawed is not None:
                passed_over.append(f"{checkpoint.where} holds {flawed}, and nothing could be trained from there")
                continue
            return checkpoint, seen, passed_over
        return None, {}, passed_over

    # Removing

    def _prune(self, newest: Checkpoint) -> None:
        # Those of later steps were damaged and passed over when the run went on from an earlier one. If they counted,
        # the one just written could be surplus.
        there: dict[int, list[str]] = {}
        for name in names(self._place, self._counts):
            step = step_of(name)
            if step <= newest.step:
                there.setdefault(step, []).append(name)
        for name in there.get(newest.step, []):
            if name != newest.name:  # a damaged one, or one of an earlier attempt
                self._remove(name)
        there[newest.step] = [newest.name]
        kept, metric = [], self.policy.metric
        for step, found_there in there.items():
            with suppress(BadCheckpoint):
                facts = self._knows(found_there[-1]).facts
                kept.append(Kept(step, facts.get("metrics", {}).get(metric)))
        gone = surplus(kept, self.policy.keep_last, self.policy.keep_best, self.policy.mode)
        for step in (step for step in gone if step not in self._pinned):
            for name in there[step]:
                self._remove(name)
            self.let_go.append(step)
        self._known = {name: self._known[name] for each in there.values() for name in each if name in self._known}

    def _knows(self, name: str) -> Checkpoint:
        if name not in self._known:
            self._known[name] = read(self._place, name)
        return self._known[name]

    def _remove(self, name: str) -> None:
        self._known.pop(name, None)
        if "/" in name:
            self._left.add(name)
            writing.discard(self.root, name)
            self._left.discard(name)
        else:
            assert self.folder is not None
            earlier.remove(self.folder, name)

    def _remove_left(self, but: str = "") -> None:
        for name in sorted(self._left - {but}):
            with suppress(OSError, BadInput):
                if not any(entry.name.endswith(f"/{MANIFEST}") for entry in self.root.list(f"{name}/")):
                    writing.discard(self.root, name)
                self._left.discard(name)

    def _verify_epoch(self) -> None:
        if self.folder is not None:
            epochs.verify(self.folder.parent, self.epoch)


def _storage(root: Path | Storage) -> Storage:
    return FolderStorage(root) if isinstance(root, Path) else root


def step_of(name: str) -> int:
    """Of a checkpoint, by its name."""
    return int(name.partition("/")[0].removeprefix("step-"))


def _epoch(name: str) -> int:
    named = _NAME.fullmatch(f"{name}/-")
    return int(named[3]) if named is not None else 0


def _sweep(root: Path, epoch: int) -> None:
    """Of a folder: what writers that were killed have left, and no listing shows."""
    for path in root.glob("step-*/e*"):
        name = f"{path.parent.name}/{path.name}"
        if _NAME.fullmatch(f"{name}/-") is None or (path / MANIFEST).exists():
            continue
        with suppress(FileNotFoundError):
            touched = max(each.stat().st_mtime for each in (path, *path.iterdir()))
            if _epoch(name) < epoch or time.time() - touched > LEAVING_S:
                shutil.rmtree(path, ignore_errors=True)
                if all(each.name == LOCK for each in path.parent.iterdir()):
                    shutil.rmtree(path.parent, ignore_errors=True)
