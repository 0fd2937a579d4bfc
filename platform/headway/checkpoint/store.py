"""The checkpoints of one run on disk: written and verified, kept by a policy, found again when they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway import epochs
from headway.checkpoint import folder
from headway.checkpoint.finite import flaw
from headway.checkpoint.folder import Checkpoint
from headway.core.retention import Kept, surplus
from headway.errors import BadCheckpoint

if TYPE_CHECKING:
    from headway import job as jobs


class Store:
    """Every verb reads or writes, and may take as long as the file system does; none belongs in the training thread.

    Args:
        root: folder of the run's checkpoints.
        job: digest of what decides the run's result; a checkpoint of another job is refused.
        policy: which ones stay.
        epoch: of the process that leads the run; see `headway.epochs`.
    """

    def __init__(self, root: Path, job: str, policy: jobs.Checkpoint, epoch: int = 0) -> None:
        self.root, self.job, self.policy, self.epoch = root, job, policy, epoch

    def write(
        self,
        step: int,
        parts: dict[str, Any],
        facts: dict[str, Any],
        owner: str = "",
        allowed: Callable[[], bool] = lambda: True,
    ) -> Checkpoint | None:
        """Write and commit a checkpoint, and remove those that the policy lets go.

        Args:
            step: number of steps committed.
            parts: trees of tensors and plain values by part name.
            facts: kept in the manifest.
            owner: the worker that writes, and which start of it.
            allowed: asked just before the commit; False (the run went on elsewhere) commits nothing.

        Returns:
            The checkpoint, or None if it was not allowed.

        Raises:
            OSError: the disk is full or gone; what was there before is there still.
            Superseded: another process leads the run.
        """

        def may() -> bool:
            if not allowed():
                return False
            epochs.verify(self.root.parent, self.epoch)
            return True

        self.root.mkdir(parents=True, exist_ok=True)
        checkpoint = folder.write(self.root, step, self.job, parts, facts, may, owner, self.epoch)
        if checkpoint is not None:
            self._prune(step)
        return checkpoint

    def committed(self) -> list[Checkpoint]:
        """Committed checkpoints with a readable manifest, oldest first."""
        found = []
        for path in sorted(self.root.glob("step-*")):
            try:
                found.append(folder.read(path))
            except BadCheckpoint:
                continue
        return found

    def newest(self, parameters: Mapping[str, bool] | None = None) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, and why each newer one was passed over.

        Args:
            parameters: see `headway.checkpoint.finite`; one of an earlier release may hold a state that is not.

        Raises:
            BadCheckpoint: a checkpoint is sound but belongs to another job.
        """
        passed_over = []
        for path in sorted(self.root.glob("step-*"), reverse=True):
            try:
                checkpoint = folder.read(path)
                checkpoint.verify()
            except BadCheckpoint as error:
                passed_over.append(str(error))
                continue
            if checkpoint.job != self.job:
                raise BadCheckpoint(
                    f"{path} belongs to another job (run {checkpoint.facts.get('run')})",
                    "the job's task, data, lanes, seed, precision or optimiser differ from those it was written with",
                    "Resume with the job it was written by, or move it away.",
                )
            found = None if checkpoint.finite else flaw(checkpoint.load(), parameters)
            if found is not None:
                passed_over.append(f"{path} holds {found}, and nothing could be trained from there")
                continue
            return checkpoint, passed_over
        return None, passed_over

    def clean(self, owner: str = "") -> None:
        """Remove what nobody will finish, and put back what was moved aside. `owner` asks, and is writing nothing."""
        folder.clean(self.root, owner, self.epoch)

    def _prune(self, newest: int) -> None:
        # Those of later steps were damaged and passed over when the run went on from an earlier one. If they counted,
        # the one just written could be surplus.
        there = {c.step: c for c in self.committed() if c.step <= newest}
        name = self.policy.metric
        kept = [Kept(c.step, c.facts.get("metrics", {}).get(name)) for c in there.values()]
        for step in surplus(kept, self.policy.keep_last, self.policy.keep_best, self.policy.mode):
            shutil.rmtree(there[step].folder, ignore_errors=True)
