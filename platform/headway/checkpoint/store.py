"""The checkpoints of one run: saved in the background, kept by a policy, found again when they are needed."""

from __future__ import annotations

import copy
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headway.checkpoint import folder
from headway.checkpoint.folder import Checkpoint
from headway.core.retention import Kept, surplus
from headway.errors import BadCheckpoint, BadInput

if TYPE_CHECKING:
    from headway import job as jobs

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, set)

Outcome = Callable[[Checkpoint | None, str | None], None]


class Store:
    """Saves from the training thread, writes in a thread of its own.

    Args:
        root: folder of the run's checkpoints.
        job: digest of what decides the run's result; a checkpoint of another job is refused.
        policy: which ones stay.
        outcome: called from the writing thread with the committed checkpoint, or with None and why there is none.
        allowed: asked just before the commit; False (the run went on elsewhere) commits nothing.
    """

    def __init__(
        self,
        root: Path,
        job: str,
        policy: jobs.Checkpoint,
        outcome: Outcome = lambda checkpoint, error: None,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.root, self.job, self.policy = root, job, policy
        self._outcome, self._allowed = outcome, allowed
        self._thread: threading.Thread | None = None
        self._buffers: dict[tuple[str, ...], Any] = {}
        self.error: str | None = None

    def save(self, step: int, state: Callable[[], dict[str, Any]], facts: dict[str, Any]) -> float:
        """Copy the state and write it in the background; waits for the write before it, if that still goes on.

        Args:
            step: number of steps committed.
            state: gives trees of tensors and plain values by part name; they are copied before this returns.
            facts: kept in the manifest.

        Returns:
            Seconds for which the training thread was held up.
        """
        begun = time.monotonic()
        self.wait()
        parts = self._copy(state(), ())
        self._thread = threading.Thread(target=self._write, args=(step, parts, facts), name="checkpoint", daemon=True)
        self._thread.start()
        return time.monotonic() - begun

    def wait(self) -> None:
        """Wait until the checkpoint under way is committed or has failed; `error` says which."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def committed(self) -> list[Checkpoint]:
        """Committed checkpoints with a readable manifest, oldest first."""
        found = []
        for path in sorted(self.root.glob("step-*")):
            try:
                found.append(folder.read(path))
            except BadCheckpoint:
                continue
        return found

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, and why each newer one was passed over.

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
            return checkpoint, passed_over
        return None, passed_over

    def clean(self) -> None:
        """Remove what an interrupted write left behind. Not while another process may be writing."""
        folder.clean(self.root)

    def _write(self, step: int, parts: dict[str, Any], facts: dict[str, Any]) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            checkpoint = folder.write(self.root, step, self.job, parts, facts, self._allowed)
            if checkpoint is None:
                return
            self._prune(step)
        except Exception as error:  # the thread's end would hide it; it is told to whoever listens instead
            self.error = f"{type(error).__name__}: {error}"
            self._outcome(None, self.error)
        else:
            self.error = None
            self._outcome(checkpoint, None)

    def _prune(self, newest: int) -> None:
        # Those of later steps were damaged and passed over when the run went on from an earlier one. If they counted,
        # the one just written could be surplus.
        there = {c.step: c for c in self.committed() if c.step <= newest}
        name = self.policy.metric
        kept = [Kept(c.step, c.facts.get("metrics", {}).get(name)) for c in there.values()]
        for step in surplus(kept, self.policy.keep_last, self.policy.keep_best, self.policy.mode):
            shutil.rmtree(there[step].folder, ignore_errors=True)

    def _copy(self, tree: Any, at: tuple[Any, ...]) -> Any:
        """A copy in host memory; memory of the copy before is used again, since touching new pages costs more.

        Raises:
            BadInput: a value that could not be loaded again without running code from the file.
        """
        import torch

        if isinstance(tree, torch.Tensor):
            buffer = self._buffers.get(at)
            if buffer is None or buffer.shape != tree.shape or buffer.dtype != tree.dtype:
                buffer = self._buffers[at] = torch.empty(tree.shape, dtype=tree.dtype)
            return buffer.copy_(tree.detach())
        if isinstance(tree, dict):
            copied = copy.copy(tree)  # keeps the kind, and the versions that a module's state dict carries beside it
            for key, value in tree.items():
                copied[key] = self._copy(value, (*at, key))
            return copied
        if type(tree) in (list, tuple):
            return type(tree)([self._copy(value, (*at, i)) for i, value in enumerate(tree)])
        if isinstance(tree, np.generic):
            return tree.item()
        if isinstance(tree, (*_PLAIN, torch.dtype, torch.device, torch.Size)):
            return copy.copy(tree)
        raise BadInput(
            f"{'.'.join(map(str, at))} holds a {type(tree).__module__}.{type(tree).__qualname__}",
            "a checkpoint takes tensors, numbers, text, and dicts and lists of them",
            "Return such values from its state_dict().",
        )
