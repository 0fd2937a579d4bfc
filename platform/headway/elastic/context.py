"""What a worker process knows of the run it works for. One per process, set before the user's code is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.checkpoint.folder import Checkpoint
    from headway.checkpoint.store import Store
    from headway.data.stream import Streams
    from headway.elastic.group import Group
    from headway.elastic.reporter import Reporter
    from headway.job import Job


@dataclass
class Context:
    """The worker's place in the run.

    Args:
        job: as checked on the driver.
        rank: of this worker, 0 to size - 1.
        size: number of workers.
        device: torch device, as text.
        train: lane streams of the training set.
        validation: the same of the validation set, if there is one.
        transform: turns Arrow rows into arrays: (table, random, training) -> dict of arrays.
        store: of checkpoints.
        start: checkpoint to begin from, verified, or None.
        reporter: takes records to the driver's side.
        run: name of the run.
        group: of all workers; None for a worker alone.
        at: where in the run the user's code is, in words.
    """

    job: Job
    rank: int
    size: int
    device: str
    train: Streams
    validation: Streams | None
    transform: Callable[..., dict[str, Any]]
    store: Store
    start: Checkpoint | None
    reporter: Reporter
    run: str
    group: Group | None = None
    at: str = "set-up"

    @property
    def handle(self) -> Any:
        """Torch's handle of the workers' group; None for a worker alone."""
        return self.group.handle if self.group else None

    def close(self) -> None:
        self.train.close()
        if self.validation:
            self.validation.close()


_current: Context | None = None


def enter(context: Context | None) -> None:
    """Make this the process's context (None: leave it)."""
    global _current
    _current = context


def current() -> Context:
    """The process's context.

    Raises:
        BadInput: the code runs outside a Headway run.
    """
    if _current is None:
        raise BadInput(
            "headway.session() was called outside a run",
            "it needs the job, the data and the other workers",
            "Name the function in a job (task: file.py:function) and start it with `headway train job.yaml`.",
        )
    return _current
