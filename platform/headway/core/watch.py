"""What workers' signs of life mean, and whether it is the observer itself that is ill.

A `Watch` takes a sign of each worker and gives verdicts, at each look anew. It trusts a silence only where that can be
the worker's own: when most of the nodes fall silent together, the one thing that they have in common is the observer,
and nobody is judged by silence until somebody is heard again or the silence has lasted very long. All seconds are those
that the observer was awake for (`Clock`): what it slept through, it cannot have heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

TICK_S = 0.1
PULSE_S = 0.1
"""Shortest time between two signs of life of a worker."""
EACH_S = 2e-4
"""Each worker makes it so much longer: a sign costs the lead some 20 microseconds."""
IN_A_SILENCE = 4
"""So many signs come in the silence after which a worker is given up."""
LOOK_EACH_S = 5e-5
STALL_S = 0.5
START_SILENCE_S = 60.0  # before it is a member nobody waits for it, and its node may be busy
STOPPED_PATIENCE = 2.0  # times silence_s: a process that is stopped may be about to go on
LOST_S, LOST_PATIENCE = 30.0, 10.0  # what silence_s is for one, this is for all of them
STUCK_PATIENCE, STUCK_EXCHANGES = 2.0, 10.0
EXCHANGES_KEPT = 50
LATELY = 60  # looks
LEASED = 0.8  # of the time after which a worker may be given up


class At(StrEnum):
    """What a worker's training thread is at."""

    STARTING = "starting"
    RESTORING = "restoring"
    FIRST_STEP = "first_step"
    STEP = "step"
    EXCHANGE = "exchange"
    EVALUATION = "evaluation"
    USER = "user"
    SAVING = "saving"
    IDLE = "idle"


SLOW = frozenset({At.STARTING, At.RESTORING, At.FIRST_STEP, At.SAVING})
"""Known to be slow: imports, compiles and stores may take minutes."""


@dataclass(frozen=True)
class Patience:
    """How long what is waited for, in seconds; `of` fills in what the job does not say.

    Args:
        silence_s: one worker's silence, before its link is held for cut.
        hang_s: without progress in a step, while others wait.
        slow_s: the same while it starts, restores, does its first step, or saves.
        lost_s: a silence of most workers at once.
    """

    silence_s: float
    hang_s: float
    slow_s: float
    lost_s: float

    @classmethod
    def of(cls, silence_s: float = 2.0, hang_s: float = 300.0, slow_s: float = 900.0) -> Self:
        """The patience of a job."""
        return cls(silence_s, hang_s, max(slow_s, hang_s), max(LOST_S, LOST_PATIENCE * silence_s))

    def at(self, at: At) -> float:
        """Seconds without progress at something, before it is held for a hang."""
        return self.slow_s if at in SLOW else self.hang_s


def period_s(workers: int, silence_s: float) -> float:
    """Seconds between two signs of life of each worker.

    So long that all of them together cost the lead no more than a tenth of a core, as far as is known, and so short
    that several may be lost before a silence counts.

    Args:
        workers: that are heard.
        silence_s: of the job.
    """
    return min(max(PULSE_S, workers * EACH_S), max(PULSE_S, silence_s / IN_A_SILENCE))


def examine_s(workers: int, silence_s: float) -> float:
    """Least seconds between two looks at so many workers: a look at thousands costs milliseconds, and a tenth of the
    silence is soon enough."""
    return min(workers * LOOK_EACH_S, silence_s / 10.0)


def lease_s(patience: Patience, nodes: int) -> float:
    """For how long an answered beat lets a member commit without further word.

    It ends before the observer could have given up all of the generation, so that no other begins beside it: one
    silence is enough for that where all are on one node.

    Args:
        nodes: number of distinct nodes of the generation.
    """
    return LEASED * (patience.silence_s if nodes <= 1 else patience.lost_s)


class Clock:
    """Seconds that the observer was awake for. What it slept through counts as one tick: it could not listen.

    Args:
        tick_s: what a gap that is too long counts as.
        stall_s: longest gap between two ticks that is no stall.
    """

    def __init__(self, tick_s: float = TICK_S, stall_s: float = STALL_S) -> None:
        self._tick_s, self._stall_s = tick_s, stall_s
        self._last: float | None = None
        self._awake = 0.0

    def advance(self, now: float) -> float:
        """Take a tick at `now` (any clock that does not go back); returns the awake seconds since the first."""
        gap = 0.0 if self._last is None else max(0.0, now - self._last)
        self._last = now
        self._awake += gap if gap <= self._stall_s else self._tick_s
        return self._awake


@dataclass(frozen=True)
class Sign:
    """What is known of a connected worker now.

    Args:
        at: what it said last that it is at.
        silent_s: seconds since it was last heard, by whatever way.
        deaf_s: seconds since the sending of the newest word to it that it is known to have heard.
        answers: whether its machine acknowledges what is sent to it.
        still_s: seconds since its training thread, or its part in an exchange, got on.
        stopped: its process is stopped (state T), as a process beside it says.
        waiting: it waits for the others in an exchange or regroup.
        member: it is in the generation that trains, or, while that is broken, has been in it.
        node: where it is.
        pulsed: its heart, which no code of the worker's can hold up, was heard as long as anything was.
        standing: it is ready, and waits for a seat: whoever seats it will count on it.
    """

    at: At
    silent_s: float
    deaf_s: float
    answers: bool
    still_s: float
    stopped: bool
    waiting: bool
    member: bool
    node: str
    pulsed: bool = False
    standing: bool = False

    @property
    def unheard_s(self) -> float:
        """Seconds for which the link failed one way: it says nothing, or said last that it hears nothing.

        The two are not added up: a few words that were lost before it fell silent are no silence.
        """
        return max(self.silent_s, self.deaf_s - self.silent_s)


def is_well(
    patience: Patience, silent_s: float, deaf_s: float, still_s: float, at: At, waiting: bool, stopped: bool
) -> bool:
    """Whether nothing of a connected worker needs a closer look, so that it may be in the `Rest`. Arguments as of
    `Sign`."""
    half_s = patience.silence_s / 2
    if silent_s >= half_s or deaf_s >= half_s or stopped:
        return False
    return still_s <= patience.hang_s or waiting or at is At.IDLE


@dataclass(frozen=True)
class Rest:
    """Connected workers that are well (see `is_well`), all together: among thousands nearly all are.

    Args:
        names: holds all that are connected.
        members, waiting: how many of the well ones are members; and how many of these wait.
        nodes: gives where they are.
        stands: gives how long the one of their members that got on last has stood still, and what they are at.
    """

    names: Container[str] = ()
    members: int = 0
    waiting: int = 0
    nodes: Callable[[], Collection[str]] = tuple
    stands: Callable[[], tuple[float, Collection[At]]] = lambda: (float("inf"), ())


NOBODY = Rest()


@dataclass(frozen=True)
class Verdict:
    """A worker is to be held for gone; `events.Gone` takes all of it.

    Args:
        cause: as of `events.Gone`.
        seconds: how long it was silent, or stood still.
        heard_s: seconds since it was heard last.
    """

    worker: str
    cause: str
    seconds: float
    heard_s: float


@dataclass(frozen=True)
class Look:
    """What comes of a look.

    Args:
        condemned: workers to be held for gone.
        stuck: all members wait, and none gets on: the generation must be broken.
        doubt: why no silence counts now, in words; None: they count.
    """

    condemned: tuple[Verdict, ...]
    stuck: bool
    doubt: str | None


class Watch:
    """See the module.

    Args:
        patience: of the job.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._doubting = False
        self._excused: dict[str, float] = {}
        """Until what silence those are spared that were not heard yet when the last doubt ended."""
        self._late: dict[str, int] = {}
        """Workers that were not heard for a while, and for how many looks to remember that."""
        self._stopped_at: dict[str, float] = {}
        """How long a worker had stood still already when it was first seen to be stopped."""
        self._exchanges: deque[float] = deque(maxlen=EXCHANGES_KEPT)
        """How long all waited before one got on, of late."""
        self._waited_s = 0.0
        self._broken = 0
        """Exchanges in a row that were held for stuck."""

    def look(self, signs: Mapping[str, Sign], rest: Rest = NOBODY) -> Look:
        """Judge the workers that are connected, several times a second.

        Args:
            signs: of all that are not well; others may be among them.
            rest: all others.
        """
        here = rest.names
        self._late = {w: looks - 1 for w, looks in self._late.items() if looks > 1 and (w in signs or w in here)}
        self._late |= {w: LATELY for w, s in signs.items() if s.unheard_s > self._patience.silence_s / 2}
        doubt = self._doubt(signs, rest)
        members = rest.members + sum(s.member for s in signs.values())
        waiting = rest.waiting + sum(s.member and s.waiting for s in signs.values())
        self._stopped_at = {w: s for w, s in self._stopped_at.items() if w in signs and signs[w].stopped}
        condemned: list[Verdict] = []
        for worker, sign in signs.items():
            others = waiting - (sign.member and sign.waiting)
            verdict = self._judge(worker, sign, others > 0, doubt is not None)
            if verdict is not None:
                condemned.append(verdict)
        if doubt is not None or condemned:
            self._waited_s, stuck = 0.0, False  # it is known what they wait for
        else:
            stuck = self._is_stuck(signs, rest, members > 1 and waiting == members)
        return Look(tuple(condemned), stuck, doubt)

    def credible(self, worker: str, peers: Iterable[str]) -> tuple[str, ...]:
        """Whom of those that a worker says it cannot reach to believe it about.

        Only what both ends kept being heard for is a fault between the two. Where one was silent here as well, of late,
        its own link was down, or ours: silence is for `look` to judge, and may be over already.
        """
        return () if worker in self._late else tuple(p for p in peers if p not in self._late)

    def _judge(self, worker: str, sign: Sign, others_wait: bool, doubting: bool) -> Verdict | None:
        found = self._silence(worker, sign, doubting)
        if found is None and sign.stopped and (sign.member or sign.standing):
            found = self._stopped(worker, sign, others_wait or sign.standing)
        elif found is None and sign.member and not sign.stopped:
            found = self._hung(sign, others_wait)
        return Verdict(worker, *found, sign.silent_s) if found else None

    def _silence(self, worker: str, sign: Sign, doubting: bool) -> tuple[str, float] | None:
        patience, unheard_s = self._patience, sign.unheard_s
        if not sign.answers:
            usual_s = patience.silence_s if sign.member else max(START_SILENCE_S, patience.silence_s)
            if sign.standing and not sign.member:  # nobody waits for it yet, so it may take as long as one that stops
                usual_s = STOPPED_PATIENCE * patience.silence_s
            cause = "link_cut" if sign.member or sign.standing else "start_failed"
            return (cause, unheard_s) if unheard_s > self._limit(worker, usual_s, doubting) else None
        # Its machine is well, and nobody speaks for it. Where no heart was ever heard, what it was at may hold the
        # interpreter's lock.
        lock_s = 0.0 if sign.pulsed else patience.at(sign.at)
        limit = max(lock_s, STOPPED_PATIENCE * patience.silence_s)
        return ("stopped", sign.silent_s) if (sign.member or sign.standing) and sign.silent_s > limit else None

    def _stopped(self, worker: str, sign: Sign, others_wait: bool) -> tuple[str, float] | None:
        # Its mark stands still, and so tells the time since it was first seen to be stopped.
        stopped_s = sign.still_s - self._stopped_at.setdefault(worker, sign.still_s)
        limit = STOPPED_PATIENCE * self._patience.silence_s if others_wait else self._patience.hang_s
        return ("stopped", stopped_s) if stopped_s > limit else None

    def _hung(self, sign: Sign, others_wait: bool) -> tuple[str, float] | None:
        if not others_wait or sign.waiting or sign.at is At.IDLE:
            return None
        if sign.silent_s > self._patience.silence_s:
            return None  # what it said last is old
        return ("hung", sign.still_s) if sign.still_s > self._patience.at(sign.at) else None

    def _limit(self, worker: str, usual_s: float, doubting: bool) -> float:
        """The silence from which on a worker is held for gone."""
        if doubting:
            return max(usual_s, self._patience.lost_s)
        return max(usual_s, min(self._excused.get(worker, 0.0), self._patience.lost_s))

    def _doubt(self, signs: Mapping[str, Sign], rest: Rest) -> str | None:
        """Whether most nodes fell silent together, on at least two of them."""
        silence_s = self._patience.silence_s
        longest = max(_silences(signs), default=0.0)
        self._excused = {w: s for w, s in self._excused.items() if w in signs and signs[w].unheard_s > silence_s / 2}
        if longest <= silence_s and not self._doubting:
            return None
        # Whoever is not heard for half as long as the first that would be judged fell silent with it.
        heard = {s.node for s in signs.values() if s.unheard_s <= silence_s / 2 or s.answers} | set(rest.nodes())
        quiet = {s.node for s in signs.values()} - heard
        if len(quiet) >= 2 and len(quiet) > len(heard):
            self._doubting = True
            return f"{len(quiet)} of {len(quiet) + len(heard)} nodes fell silent together: the link here may be down"
        if self._doubting:  # somebody is heard again, and the others are given the time to be heard as well
            self._doubting = False
            late = {w: s.unheard_s for w, s in signs.items() if s.unheard_s > silence_s / 2}
            self._excused = {w: unheard_s + silence_s for w, unheard_s in late.items()}
        return None

    def _is_stuck(self, signs: Mapping[str, Sign], rest: Rest, all_wait: bool) -> bool:
        """Whether all members have waited for each other for much longer than an exchange takes."""
        if not all_wait:
            self._note_exchange()
            return False
        members = [s for s in signs.values() if s.member]
        stood_s, doing = rest.stands() if rest.members else (float("inf"), ())
        at = {s.at for s in members} | set(doing)
        if At.IDLE in at:
            self._note_exchange()
            return False
        waited_s = min([stood_s, *(s.still_s for s in members)])
        if waited_s < self._waited_s:
            self._note_exchange()
        self._waited_s = waited_s
        # Not the longest: that may have been one that broke.
        exchange_s = sorted(self._exchanges)[-2] if len(self._exchanges) > 1 else 0.0
        usual_s = max(STUCK_PATIENCE * self._patience.silence_s, STUCK_EXCHANGES * exchange_s)
        slow_s = self._patience.slow_s if at & SLOW else 0.0
        # An exchange that is only long will be through before the limit has doubled often.
        if waited_s <= max(slow_s, usual_s * 2.0**self._broken):
            return False
        self._broken += 1
        self._waited_s = 0.0
        return True

    def _note_exchange(self) -> None:
        if self._waited_s > 0.0:
            self._exchanges.append(self._waited_s)
            self._broken = 0
        self._waited_s = 0.0


def _silences(signs: Mapping[str, Sign]) -> Iterator[float]:
    return (s.unheard_s for s in signs.values() if not s.answers)
