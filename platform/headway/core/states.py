"""Where a run stands between one generation and the next: exactly one of these."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.events import Generation


@dataclass
class Waiting:
    """No generation: before the first, or while training is paused.

    Args:
        ready_at: since when somebody new is ready, and waits.
        stopping: whose members a planned pause asked to stop; they may be in a last exchange.
    """

    ready_at: float | None = None
    stopping: Generation | None = None


@dataclass
class Gathering:
    """A generation is published, and not all of its members have arrived.

    Args:
        arrived: (steps, exchanges, busy) of those that have.
        awaited: the others.
        before: the generation that goes on training until then; None: it is broken.
        after: the number of the one that broke before this was published.
    """

    generation: Generation
    arrived: dict[str, tuple[int, int, bool]]
    awaited: set[str]
    before: Generation | None
    after: int


@dataclass
class Training:
    """A generation was told to go. busy: it has an evaluation to end before it can take in anybody new."""

    generation: Generation
    busy: bool


@dataclass
class Broken:
    """A generation's exchange broke, and its members are heard until some time before it is said who must go."""

    generation: Generation
    until: float


@dataclass
class Ended:
    """The run is over. generation: the last."""

    generation: Generation | None


State = Waiting | Gathering | Training | Broken | Ended
