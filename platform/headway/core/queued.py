"""What the queue is told, and what it answers: jobs, nodes, quotas, rules; starts, new sizes, pauses, refusals.

The decision itself is `headway.core.queue.decide`. All here are values: times are Unix seconds, or a simulator's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["waiting", "running", "pausing", "paused", "ended"]
"""waiting: has never run. pausing: writes a checkpoint, and holds workers until it is through. paused: its state is
kept."""


@dataclass(frozen=True, slots=True)
class Each:
    """What one worker takes, or a node has. memory: bytes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True, slots=True)
class Speedup:
    """How much faster a job is on more workers than on one.

    Args:
        points: (workers, speed) as measured, ascending; between them a straight line, beyond them Amdahl's law from the
            last. Empty: Amdahl's law alone.
        serial: share of a step that does not become shorter (Amdahl, 1967).
    """

    points: tuple[tuple[int, float], ...] = ()
    serial: float = 0.02

    def at(self, workers: int) -> float:
        """Speed on so many, as a multiple of that on one; 0 on none."""
        if workers < 1:
            return 0.0
        before = (1, 1.0)
        for point in self.points:
            if point[0] >= workers:
                if point[0] == before[0]:
                    return point[1]
                part = (workers - before[0]) / (point[0] - before[0])
                return before[1] + part * (point[1] - before[1])
            before = point
        return before[1] * _amdahl(workers, self.serial) / _amdahl(before[0], self.serial)


def _amdahl(workers: int, serial: float) -> float:
    return workers / (1.0 + serial * (workers - 1))


@dataclass(frozen=True, slots=True)
class Queued:
    """A job, as the queue sees it.

    Args:
        job: its name, unlike all others.
        user, team: whose quotas and shares it counts against; "" is no team.
        priority: the higher goes first.
        least, most: workers that it may have (`workers.min`, `workers.max`).
        wanted: workers that it asks for: beyond them it is given more only where that pays. None: most.
        sizes: the numbers of workers it may have, ascending; empty: all from least to most.
        each: what one worker takes.
        submitted_at: when it came.
        state: see `State`.
        size: workers that it was last given by this queue; 0 unless it runs, or pauses.
        resized_at: when its size last changed; None: never.
        waited_s: how long it has waited so far, for its start and while it was paused, all spells together.
        rest_s: what is left of it, in seconds on one worker; None while nobody knows.
        done_s: what is done of it, in seconds on one worker.
        held_s: worker-seconds that it has held so far.
        speedup: its curve; None: that of `Rules`.
    """

    job: str
    user: str
    team: str = ""
    priority: int = 0
    least: int = 1
    most: int = 1
    wanted: int | None = None
    sizes: tuple[int, ...] = ()
    each: Each = Each()
    submitted_at: float = 0.0
    state: State = "waiting"
    size: int = 0
    resized_at: float | None = None
    waited_s: float = 0.0
    rest_s: float | None = None
    done_s: float = 0.0
    held_s: float = 0.0
    speedup: Speedup | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Args:
        node: its name.
        has: what it has for workers of jobs in this queue, of all that are or could be there.
        held: (job, workers) that are on it now.
        draining: no more are put on it.
        total: what it has in all, with what others than this queue's jobs hold at the moment; None: has.
    """

    node: str
    has: Each
    held: tuple[tuple[str, int], ...] = ()
    draining: bool = False
    total: Each | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """What the jobs of a user, or of a team, may hold together at most; None: as much as there is.

    Args:
        user, team: whose; exactly one of them.
        workers, cpus, gpus, memory: of all its jobs together.
        jobs: that run at a time.
        share: its part of what several want, as a weight against others of its kind.
    """

    user: str = ""
    team: str = ""
    workers: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    memory: float | None = None
    jobs: int | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """How the queue decides.

    Args:
        most_running: jobs at a time; None: as many as fit.
        quotas: see `Quota`.
        snooze_s: after a change of its size a job is left alone for so long, unless somebody of a higher priority, or
            a job that would wait otherwise, needs its workers.
        held_for_s: a job that has waited so long has room held for it: nothing behind it starts that would delay it.
        raised_s: with each such time of waiting a job counts as one priority higher where it is decided who runs.
        worth: beyond what it wanted a job is given a worker that adds at least this part of one worker's speed.
        ahead: with each priority higher a worker counts so many times more, beyond what all have at least and up to
            what was wanted.
        dearer: where those that run have cost so much more worker-seconds, as a part, than they would have at the
            sizes that they asked for, none is given a worker beyond those; and the nearer they come to it, the more
            such a worker has to bring.
        keeps: another job must gain this many times more by a worker for it to be taken from where it is.
        fair: among whom turns and spare room are shared by `Quota.share` (1 for those that have none); None: nobody.
        could_come: kinds of machine that may join, and how many of each; None: nobody knows, and no job is refused for
            its size.
        speedup: the curve of jobs that have none of their own.
    """

    most_running: int | None = None
    quotas: tuple[Quota, ...] = ()
    snooze_s: float = 60.0
    held_for_s: float = 28800.0
    raised_s: float = 86400.0
    worth: float = 0.5
    dearer: float = 0.16
    ahead: float = 4.0
    keeps: float = 1.25
    fair: Literal["user", "team"] | None = None
    could_come: tuple[tuple[Each, int], ...] | None = None
    speedup: Speedup = Speedup()


@dataclass(frozen=True, slots=True)
class Start:
    """A job that has never run begins with so many workers.

    Args:
        after: jobs that give workers up for it first.
        not_before: those of them that hold what its quota, or the number of jobs at a time, does not allow beside it:
            it is put off until they have given that up. For room alone nobody needs to: it waits for it by itself.
    """

    job: str
    size: int
    reason: str
    after: tuple[str, ...] = ()
    not_before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resize:
    """A job that runs goes on with so many, live.

    Args:
        after, not_before: as in `Start`; empty when it shrinks.
        leave: (node, workers) that had best leave; empty when it grows.
    """

    job: str
    size: int
    reason: str
    after: tuple[str, ...] = ()
    leave: tuple[tuple[str, int], ...] = ()
    not_before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """A job writes a checkpoint and gives all its workers up."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """A paused job goes on from its checkpoint. after, not_before: as in `Start`."""

    job: str
    size: int
    reason: str
    after: tuple[str, ...] = ()
    not_before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """A job can never run here: what a user would be told as `BadInput(fact, reason, remedy)`."""

    job: str
    fact: str
    reason: str
    remedy: str


Action = Start | Resize | Pause | Resume | Refuse


@dataclass(frozen=True, slots=True)
class Decision:
    """Args:
    actions: in order: refusals, then who gives up (`Resize` to fewer, `Pause`), then who is given.
    waits: why each job that waits does, in words, by job, in the order in which they will be looked at.
    again_at: when to ask again though nothing has changed; None: no need.
    """

    actions: tuple[Action, ...]
    waits: dict[str, str] = field(default_factory=dict)
    again_at: float | None = None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Of the quotas: what a user would be told as `BadInput(fact, reason, remedy)`."""

    fact: str
    reason: str
    remedy: str
