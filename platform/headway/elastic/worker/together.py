"""Lanes in one pass, as a worker does it: which go together, whether that was the same, and what is told of it.

What is decided is in `headway.core.lanes_together`; why it is done so, in docs/decisions/0017.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from headway.core.lanes_together import (
    Buffers,
    Group,
    Look,
    Mismatch,
    Tolerance,
    Watch,
    fitting,
    groups,
    lanes_at_once,
    larger,
    says_nothing,
    verdict,
)
from headway.elastic.worker.headroom import Headroom
from headway.strategies import PeerLost

if TYPE_CHECKING:
    from headway.elastic.worker.footprint import Footprint
    from headway.elastic.worker.journal import Journal
    from headway.elastic.worker.replica import Replica
    from headway.job import Job

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass
class Trial:
    """A group's lanes one by one, whose gradients are thrown away.

    Args:
        group: that they are compared with, whose batch is there already; none where they are only measured.
        losses: of each, weighed by its share of the step's rows.
        changes: what they changed in buffers, summed; None before the first.
        drew: whether random numbers were drawn.
    """

    group: Group = ()
    losses: list[torch.Tensor] = field(default_factory=list)
    changes: torch.Tensor | None = None
    drew: bool = False


class Together:
    """Of one worker.

    Args:
        job: to be followed.
        replica: its state, which keeps why lanes are kept apart.
        journal: that is told.
        footprint: of the worker.
    """

    def __init__(self, job: Job, replica: Replica, journal: Journal, footprint: Footprint) -> None:
        self._job, self._replica, self._journal = job, replica, journal
        whole = job.part_rows == job.lane_batch and not job.strategy.compresses
        self._wanted = job.lanes_together == "auto" and job.reproducible == "order" and whole
        self._watch = Watch(job.seed)
        self._headroom = Headroom(replica.device, job.workers.memory, footprint.look)
        given = None if job.rows_together == "auto" else lanes_at_once(job.rows_together, job.lane_batch)
        self._most = given
        """Lanes of a group, as far as they do not follow from memory."""
        self._lane_bytes: int | None = None if given is None else 0
        """That a lane takes; None while it is not known."""
        self._coming_bytes = 0
        """That the optimiser was still to take when that was measured."""
        self._largest: Look | None = None
        self.neighbours = 1
        """Workers of this machine now, which share its memory."""
        self._told: set[str] = set()
        self._agreed = False

    @property
    def allowed(self) -> bool:
        """Whether lanes may go together at all."""
        return self._wanted and self._replica.apart is None

    @property
    def said(self) -> str | None:
        """Why lanes are apart, in words; empty where both ways agreed; None where that is not known."""
        if self._replica.apart is not None:
            return self._replica.apart.reason.value
        return "" if self._agreed else None

    @property
    def measured(self) -> bool:
        """Whether it is known how many fit."""
        return self._lane_bytes is not None

    def measure(self) -> None:
        """A lane's pass begins by which that will be known."""
        if self._wanted and not self.measured:
            self._headroom.begin()

    def measure_done(self, rows: int) -> None:
        """It has come to its end. rows: that it had; at an epoch's end a lane may have few."""
        if self._wanted and not self.measured:
            self._lane_bytes = -(-self._headroom.end() * self._job.lane_batch // rows)
            self._coming_bytes = self._coming()
            if self.most == 1:
                self._tell(
                    "room",
                    "lanes are computed one by one: it is not known that there is memory for two of them at once "
                    "(rows_together in the job says how many rows may go together)",
                )

    @property
    def most(self) -> int:
        """Lanes of a group. It follows the workers of this machine, which come and go."""
        found = [] if self._most is None else [self._most]
        if self._job.rows_together == "auto":
            left = max(0, self._headroom.free(self.neighbours) - self._coming_bytes)
            found.append(fitting(self._lane_bytes or 0, left, self._headroom.share))
        return min(found)

    def _coming(self) -> int:
        """Bytes that the optimiser's state will take, where it has none yet."""
        updates = self._replica.updates
        if any(each.optimizer.state for each in updates):
            return 0
        return 2 * sum(p.numel() * p.element_size() for p in self._replica.trained)

    def groups(self, lanes: Sequence[int]) -> list[Group]:
        """That these lanes go in."""
        return groups(lanes, self.most if self.allowed else 1)

    def mode(self, update: str) -> Hashable:
        """All that a loss may be another by, as far as it can be known."""
        trained = bytes(parameter.requires_grad for parameter in self._replica.known)
        return update, self._replica.modules.modes, trained

    def due(self, mode: Hashable, parted: Sequence[Group], step: int) -> bool:
        """Whether a pass is to be done both ways."""
        return self._watch.due(mode, parted, step)

    def done(self, mode: Hashable, parted: Sequence[Group], looked: bool) -> None:
        """A pass was done with lanes together; looked: both ways, and they agreed."""
        self._watch.done(mode, parted, looked)
        self._agreed |= looked

    # What was seen

    def look(self, losses: Sequence[torch.Tensor], drew: bool) -> Look:
        """What the gradients say that are there now, and these losses; waits for the device."""
        parameters = self._replica.trained
        there = {at: p.grad for at, p in enumerate(parameters) if p.grad is not None}
        norms = [0.0] * len(parameters)
        if there:
            found = torch.stack([each.float() for each in torch._foreach_norm(list(there.values()))]).tolist()
            for at, norm in zip(there, found, strict=True):
                norms[at] = norm
        parts = torch.stack(list(losses)).double().tolist()
        return Look(sum(parts), sum(map(abs, parts)), tuple(norms), drew)

    def compare(self, apart: Look, together: Look, buffers: Sequence[Buffers]) -> tuple[Mismatch | None, bool]:
        """The verdict, None where they do not differ; and whether there was something to compare."""
        if says_nothing(apart, together, self._replica.scaler.is_enabled()):
            return None, False
        single = self._job.precision == "fp32" and not any(p.dtype.itemsize < 4 for p in self._replica.trained)
        tolerance = Tolerance.of(single, self._replica.device.type != "cpu")
        found = verdict(apart, together, buffers, tolerance, self._largest)
        self._largest = larger(self._largest, apart)
        return found, True

    # What comes of it

    def part(self, why: Mismatch, step: int, leads: bool) -> None:
        """From now on lanes are kept apart, here and on every other worker."""
        if self._replica.apart is not None:
            return
        self._replica.apart = why
        if leads:
            by = f" (by {why.amount:.1e} of it)" if why.amount else ""
            text = f"lanes are computed one by one from step {step} on: {why.reason.value}{by}"
            self._journal.lanes(text, step=step, apart=why.reason.name.lower(), why=text)

    def halve(self, group: Group, rows: int, step: int) -> None:
        """A group was too large for the memory."""
        self._most = max(1, len(group) // 2)
        if self._replica.device.type == "cuda":
            torch.cuda.empty_cache()
        self._tell(
            "memory",
            f"{len(group)} lanes ({rows} rows) in one pass were too much for a worker's memory in step {step}: it is "
            "done again, and fewer go together there from now on",
        )

    def raised(self, error: Exception) -> None:
        """The user's code raised this for the rows of several lanes."""
        words = str(error).strip().splitlines() or [""]
        self._tell("raised", f"the loss raised {type(error).__name__} for several lanes' rows: {words[0][:200]}")

    def unlike(self, why: str) -> None:
        """Lanes could not become one batch in this step."""
        self._tell("shapes", f"lanes whose batches differ in shape are computed one by one: {why}")

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._journal.lanes(text)


def is_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory for something."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def is_theirs(error: Exception) -> bool:
    """Whether an error may come of how many rows the user's code was given. After most errors of a device's own nothing
    can be computed on it any more; not so after one of its memory."""
    from headway.errors import HeadwayError

    if isinstance(error, HeadwayError | PeerLost):
        return False
    return not isinstance(error, torch.AcceleratorError) or is_memory(error)
