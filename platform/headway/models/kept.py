"""A run as those see it who want its model: the job, the code, and the checkpoint that is meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway import runs
from headway.checkpoint import store as checkpoints
from headway.checkpoint.found import Checkpoint
from headway.errors import BadCheckpoint, BadInput
from headway.job import Job, load
from headway.models import choosing
from headway.models.choosing import Known
from headway.runs.place import Place
from headway.storage.protocol import OutOfReach

WANTED = ("model", "session")
"""Parts of a checkpoint that make a model; the optimiser's is left where it is."""


@dataclass(frozen=True)
class Trained:
    """What a run has made.

    Args:
        run: its folder, or its working copy.
        job: as it was run.
        checkpoint: that is meant.
        parts: of its state, without the optimiser's, in host memory.
        notes: for people: what was passed over.
    """

    run: runs.RunFolder
    job: Job
    checkpoint: Checkpoint
    parts: dict[str, Any] = field(repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 over those of the checkpoint's parts: another one where its bytes are others."""
        return self.checkpoint.digest


def find(run: str | Path | runs.RunFolder, runs_folder: str | Path | None = None) -> runs.RunFolder:
    """A run by its name, folder or URL.

    Raises:
        BadInput: there is none; names the nearest.
        OutOfReach: the store does not answer.
    """
    return run if isinstance(run, runs.RunFolder) else runs.find(Place.of(runs_folder), str(run))


def there(run: runs.RunFolder) -> list[Known]:
    """Its checkpoints that are committed and can be read, oldest first."""
    found = checkpoints.committed(run.checkpoint_root, run.counting)
    return [Known(each.name, each.step, dict(each.facts.get("metrics", {}))) for each in found]


def read(run: runs.RunFolder, step: str | int = choosing.BEST) -> Trained:
    """The state of a run at the step that is meant, verified.

    Args:
        run: the run.
        step: "best" by the job's `checkpoint.metric` (of those that are there), "last", or the number of a step.

    Raises:
        BadInput: there is no such checkpoint.
        BadCheckpoint: it is damaged.
        OutOfReach: the store does not answer.
    """
    job, asked = load(run.job_file), choosing.taken(step)
    policy, passed_over, notes = job.checkpoint, [], []
    known = there(run)
    judged = asked == choosing.BEST and choosing.best(known, policy.metric, policy.mode) is not None
    for each in choosing.order(run.name, known, asked, policy.metric, policy.mode):
        try:
            checkpoint = checkpoints.read(run.checkpoint_root, each.name)
            parts = checkpoint.load(WANTED)
        except (BadCheckpoint, OutOfReach) as error:
            if isinstance(asked, int) or judged or isinstance(error, OutOfReach):
                raise _with_others(error, [other.step for other in known if other.name != each.name]) from None
            passed_over.append(f"passed over a damaged checkpoint: {error}")
            continue
        if asked == choosing.BEST and not judged:
            notes.append(f"{_why(known, policy.metric)}: the last one is taken, of step {each.step}")
        return Trained(run, job, checkpoint, parts, [*passed_over, *notes])
    raise BadCheckpoint(f"run {run.name} has no sound checkpoint", "; ".join(passed_over), "")


def _why(known: list[Known], metric: str) -> str:
    """Why none is the best."""
    names = choosing.metrics_of(known)
    if not names:
        return "no checkpoint was evaluated"
    return f"best goes by checkpoint.metric, {metric}, which no checkpoint has (they have {', '.join(names)})"


def _with_others(error: BadCheckpoint | OutOfReach, others: list[int]) -> BadCheckpoint | BadInput | OutOfReach:
    """The error of a checkpoint that was asked for, with the steps of those that may be sound."""
    if isinstance(error, OutOfReach) or not others:
        return error
    steps = ", ".join(map(str, sorted(set(others))))
    return BadCheckpoint(error.fact, error.reason, f"There are others, of step {steps}: name one, or last.")
