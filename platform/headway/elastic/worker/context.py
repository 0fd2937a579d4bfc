"""What a worker process knows of the run it works for. One per process, set before the user's code is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headway.core.ledger import Ledger
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.data.read.reader import Collate, Reader, Transform
    from headway.elastic.worker.journal import Journal
    from headway.elastic.worker.keeping import Keeping
    from headway.elastic.worker.members import Members
    from headway.elastic.worker.saver import Saver
    from headway.job import Job


@dataclass
class Context:
    """The worker's part of the run.

    Args:
        job: as checked on the driver.
        device: torch device, as text.
        train: reads the training set.
        validation: reads the validation set, if there is one.
        saver: of checkpoints.
        journal: takes records to the driver's side.
        run: name of the run.
        members: who else is there, and this worker's place among them.
        ledger: the account of the training thread's seconds.
        trouble: called as trouble(point, model, step) where drills do their mischief: when a step's lanes begin
            (compute), before its exchange, in regroup, before a worker joins, after a checkpoint was begun.
        keeping: has the newest state kept in the node's memory; None where that is off.
        save_at: steps at which a checkpoint is taken in any case, for other runs.
        goes_on: it ends here for now, and its newest state stays in the node's memory.
        at: where in the run the user's code is, in words.
        rank: of this worker at present.
    """

    job: Job
    device: str
    train: Reader
    validation: Reader | None
    saver: Saver
    journal: Journal
    run: str
    members: Members
    ledger: Ledger = field(default_factory=lambda: Ledger(0.0))
    trouble: Callable[[str, Any, int], None] = lambda point, model, step: None
    keeping: Keeping | None = None
    save_at: frozenset[int] = frozenset()
    goes_on: bool = False
    at: str = "set-up"
    rank: int = 0

    @property
    def total_steps(self) -> int:
        """That the job asks for."""
        return self.job.steps or (self.job.epochs or 0) * self.train.order.steps_per_epoch

    def use(self, transform: Transform | None, collate: Collate | None = None) -> None:
        """Turn rows into arrays in the user's way, not column by column; and those of their own datasets into batches,
        not by torch's."""
        self.train.use(transform, collate)
        if self.validation:
            self.validation.use(transform, collate)

    def close(self) -> None:
        self.train.close()
        if self.validation:
            self.validation.close()


_current: Context | None = None


def enter(context: Context | None) -> None:
    """Make this the process's context (None: leave it)."""
    global _current
    _current = context


def entered() -> bool:
    """Whether this process works for a run."""
    return _current is not None


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
