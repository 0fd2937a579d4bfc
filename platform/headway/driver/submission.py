"""What it adds to a run that it was submitted to this cluster from somewhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headway import plan
from headway.errors import BadInput
from headway.job import Job
from headway.runs.place import Place, is_url


@dataclass(frozen=True)
class Began:
    """A run that begins now: its machines are asked for next.

    Args:
        run: its name.
        where: it is kept, for people and for those who open it again.
        far: what another process needs to open it in its store; None of a folder.
        epoch: of this lead.
        resumed_from: step of the checkpoint that is gone on from; None from the beginning.
    """

    run: str
    where: str
    far: dict[str, Any] | None
    epoch: int
    resumed_from: int | None


class Look(Protocol):
    """Something that is tried on the cluster meanwhile."""

    def done(self, checked: plan.Plan, given_up: Callable[[], bool]) -> None:
        """Wait for what was found.

        Args:
            checked: with what the task's trial gave.
            given_up: asked now and then; True ends the waiting.

        Raises:
            BadInput: the run could not go on here.
        """

    def close(self) -> None:
        """Leave nothing of it, whether it was waited for or not."""


@dataclass(frozen=True)
class Submission:
    """A run's beginning as whoever submitted it wants it.

    Args:
        id: Ray's of the job.
        attempt: of this submission; a run knows by whose it was begun last.
        by: who submitted, for people.
        code: folder in which the task's code came; None: a resumed run's own copy is used.
        look: begins to look at the cluster, once Ray is connected.
        began: told once nothing stands in the way any more.
        has_begun: whether it was.
        granted: so many workers' places are its own already, so that their processes may begin before all is tried, and
            it begins with these, whatever its job allows; 0: none are.
        held: whether no worker is asked for before somebody says of what size the run is to be.
        warm: so many of its workers' processes stand by meanwhile.
    """

    id: str
    attempt: str
    by: str
    code: Path | None
    look: Callable[[Job, plan.Plan, Place], Look]
    began: Callable[[Began], None]
    has_begun: Callable[[], bool]
    granted: int = 0
    held: bool = False
    warm: int = 0

    def sized(self, job: Job) -> Job:
        """The job as its workers are begun: with those that were granted, of all that it allows."""
        if not self.granted:
            return job
        most = min(max(self.granted, job.workers.min), job.workers.max)
        return job.model_copy(update={"workers": job.workers.model_copy(update={"max": most})})

    def demand_data(self, job: Job) -> None:
        """Raises BadInput: the job names a folder that is on the machine that submitted it, and not here."""
        for use, (path, _) in job.data.stored.items():
            if is_url(path) or os.path.isdir(path):  # noqa: PTH112 - which raises nothing
                continue
            bucket = "/".join(["s3://BUCKET", *Path(path).parts[-2:]])
            key = f"data.{use}" if use in ("train", "validation") else "data.train"
            remedy = (
                f"Put it where every machine of the cluster reads it, as `headway data cp {path} {bucket}` does, and "
                f"say where: --set {key}={bucket}"
            )
            reason = "its head has no such folder, and one of the machine that submits is of no use to it"
            raise BadInput(f"data.{use}={path} is not on the cluster", reason, remedy)

    @property
    def facts(self) -> dict[str, Any]:
        """Of the run's."""
        return {"submission": {"id": self.id, "attempt": self.attempt, "by": self.by}}
