"""What the membership hears, and what it asks for: plain values, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Generation:
    """A published membership.

    Args:
        number: grows by at least one from each to the next.
        members: worker ids in order of rank.
        lanes: what each member carries.
        urgent: a member of the one before is gone: leave the exchange at once.
        reason: in words.
    """

    number: int
    members: tuple[str, ...]
    lanes: tuple[tuple[int, ...], ...]
    urgent: bool
    reason: str

    def carries(self) -> dict[str, tuple[int, ...]]:
        """Lanes by worker."""
        return dict(zip(self.members, self.lanes, strict=True))

    @cached_property
    def seated(self) -> frozenset[str]:
        """The members, to be asked for one."""
        return frozenset(self.members)


# Events. `at` is the time in seconds on any one clock that does not go back.


@dataclass(frozen=True)
class Placed:
    """A worker that was launched has a place and starts to warm up."""

    worker: str
    node: str
    at: float


@dataclass(frozen=True)
class Ready:
    """A worker has warmed up and could enter."""

    worker: str
    at: float


@dataclass(frozen=True)
class Arrived:
    """A member of a generation has stopped and waits for the others.

    Args:
        step: steps it has committed; -1 for one that holds no state.
        exchanges: completed exchanges of any kind, which tell apart workers of one step.
        busy: it is in the middle of an evaluation, and cannot hand its state on before that is through.
    """

    worker: str
    generation: int
    step: int
    exchanges: int
    busy: bool
    at: float


@dataclass(frozen=True)
class Committed:
    """A member's first step in a generation is committed. pause_s: seconds since its last step before that."""

    worker: str
    generation: int
    step: int
    pause_s: float
    at: float


@dataclass(frozen=True)
class Lost:
    """A member's exchange with the others broke off. peers: whom it cannot reach, if that is `Watch.credible`."""

    worker: str
    generation: int
    peers: tuple[str, ...]
    at: float


@dataclass(frozen=True)
class Stuck:
    """All members of a generation wait for each other, and none gets on."""

    generation: int
    at: float


@dataclass(frozen=True)
class Gone:
    """A worker is no more, or is to be held for gone.

    Args:
        cause: process_died, node_died, link_cut, stopped, hung, start_failed, parted, hardware, diverged, unreachable.
        silent_s: how long it was silent, or stood still, before this event.
        heard_s: seconds since anything of it was heard last; 0 where that is not known. Its lease counts from then.
    """

    worker: str
    cause: str
    at: float
    silent_s: float = 0.0
    heard_s: float = 0.0


@dataclass(frozen=True)
class Drained:
    """Notice that a worker's machine will be taken away at a deadline; at `inf` it is only at risk, and leaves when it
    is replaced."""

    worker: str
    deadline: float
    at: float


@dataclass(frozen=True)
class HeadDrained:
    """Notice that the machine that leads the run will be taken away at a deadline."""

    deadline: float
    at: float


@dataclass(frozen=True)
class Slow:
    """A member takes `factor` times as long per lane as the others; 1.0 says that it no longer does."""

    worker: str
    factor: float
    at: float


@dataclass(frozen=True)
class Diverged:
    """A member's replica differed from the majority's, and was healed."""

    worker: str
    at: float


@dataclass(frozen=True)
class Raised:
    """A worker ended by an error. kind: "user" (of their code) or "machine" (of the hardware, a disk, a mount)."""

    worker: str
    message: str
    kind: str
    at: float


@dataclass(frozen=True)
class Resized:
    """Somebody asks for another size of the run: so few and so many workers. by: who, for people; leave: nodes that had
    best be left where some are to go, once for each worker there."""

    min: int
    max: int
    by: str
    at: float
    leave: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A member has done all steps; what it leaves behind (the last checkpoint) is safe."""

    worker: str
    at: float


@dataclass(frozen=True)
class Tick:
    """Time passes."""

    at: float


Event = (
    Placed
    | Ready
    | Arrived
    | Committed
    | Lost
    | Stuck
    | Gone
    | Drained
    | HeadDrained
    | Slow
    | Diverged
    | Raised
    | Resized
    | Finished
    | Tick
)

# Actions


@dataclass(frozen=True)
class Launch:
    """Find a place for a new worker and start it, `after_s` seconds from now.

    Args:
        avoid: nodes on which it should not be placed.
        apart: it will stand by: nodes that carry others, whose end it had better not share.
    """

    worker: str
    after_s: float
    reason: str
    avoid: tuple[str, ...] = ()
    apart: tuple[str, ...] | None = None

    @property
    def spare(self) -> bool:
        """Whether as many as train were there, or on their way, without it."""
        return self.apart is not None


@dataclass(frozen=True)
class Publish:
    """Tell all workers of a generation."""

    generation: Generation


@dataclass(frozen=True)
class Go:
    """All members have arrived: build the group.

    Args:
        source: the member whose state is the newest, if anybody holds one; None: begin from the newest checkpoint.
        positions: (steps, exchanges) of each member, in order of rank; (-1, _) for one without state.
        lease_s: for how long, from its sending, a beat that was answered lets a member commit.
    """

    generation: Generation
    source: str | None
    positions: tuple[tuple[int, int], ...]
    reason: str
    lease_s: float


@dataclass(frozen=True)
class Pause:
    """Too few are left: members stop and hold their state.

    Args:
        number: takes a generation's number, so that members can tell it from older news.
        urgent: as for a generation.
        save: they write a checkpoint once they have stopped, since all of them will be gone.
    """

    number: int
    urgent: bool
    save: bool
    reason: str


@dataclass(frozen=True)
class Dismiss:
    """End a worker's process and free its place; graceful: it has handed over, and may finish what it writes."""

    worker: str
    reason: str
    graceful: bool = False


@dataclass(frozen=True)
class Save:
    """Take a checkpoint now."""

    reason: str


@dataclass(frozen=True)
class Recovered:
    """Training goes on after an incident.

    Args:
        cause: of the first event of the incident; joined, drained and resized for planned changes.
        pause_s: longest time between two committed steps of one member.
    """

    cause: str
    workers: tuple[str, ...]
    generation: int
    step: int
    detected_at: float
    resumed_at: float
    silent_s: float
    pause_s: float
    reason: str


@dataclass(frozen=True)
class End:
    """All is done."""

    reason: str


@dataclass(frozen=True)
class Fail:
    """The run cannot go on. worker: whose error it is; None: of nobody in particular."""

    reason: str
    worker: str | None = None


Action = Launch | Publish | Go | Pause | Dismiss | Save | Recovered | End | Fail
