"""A job in the queue from its submission to its end: which states it goes through, and by what. All of it is a value
that is written down before anything is done about it.

    waiting -> starting -> running -> over
                  ^           |  (pausing)
                  +- paused <-+

What was decided is what an entry says (`state`, `workers`, `starts`, `orders`); carrying it out is to bring about what
it says, again and again, until it is seen to be so. So whoever takes over from a keeper that died needs nothing but
this. A start has a name, which follows from the entry alone: done twice it is one start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from headway.core.queued import Each, Queued

State = Literal["waiting", "starting", "running", "pausing", "paused", "finished", "failed", "stopped", "removed"]
"""starting: begun, and has not trained yet. pausing: asked for a checkpoint and its end. paused: may go on from it."""
Phase = Literal["unknown", "absent", "pending", "running", "over"]
"""unknown: nobody could be asked. absent: there is no such start. pending: it has not begun to train."""

HOLDS: tuple[State, ...] = ("starting", "running", "pausing")
WAITS: tuple[State, ...] = ("waiting", "paused")
OVER: tuple[State, ...] = ("finished", "failed", "stopped", "removed")
QUEUE = "the queue"
"""Who asks for a pause: a run's end names whom it was stopped by."""
NEVER_S = 5.0
"""After so long a start that is not there will not come any more, since it was asked for its end."""
FEWER_S = 120.0
"""After so long what a job that minds money has left of what it was given is had back."""
CONTENT_S = 600.0
"""After so long it may have that again: its policy may think otherwise now."""
MOST_IN_VAIN = 3
"""Starts in a row that the platform failed, without a step between them, after which a job has failed."""


@dataclass(frozen=True)
class Seen:
    """What is seen of an entry's newest start.

    Args:
        phase: see `Phase`.
        end: of one that is over: finished, stopped, interrupted or failed, see `headway.core.ends`.
        message, cause: of that end.
        steps: committed by the run.
        workers: that train.
        request: the size that its leader heard of last, by `Entry.order`.
        rest_s, done_s: what is left and done, in seconds on one worker; None where that is not known.
    """

    phase: Phase
    end: str = ""
    message: str = ""
    cause: str = ""
    steps: int = 0
    workers: int = 0
    request: str = ""
    rest_s: float | None = None
    done_s: float | None = None


_NEVER = Seen("over", "stopped", f"stopped by {QUEUE} before it came")


@dataclass(frozen=True)
class Entry:
    """A job in the queue.

    Args:
        run: the name of its run, and its own.
        attempt: of its submission; names its starts.
        by: who submitted it, for people.
        user, team, priority: see `headway.core.queued.Queued`.
        rank: its place among those of its priority: the smaller goes first. Seconds of its submission, unless it was
            moved.
        at: Unix seconds of its submission.
        least, most, sizes, each: workers that it may have, and what one takes, by Ray's names.
        warm: so many processes of its workers are to stand by while it is the next.
        minds: whether it minds money or time, and may train on fewer workers than it is given.
        parcels: what travels with it, by their names in the queue's store: its code and files, and Headway.
        state: see `State`.
        workers: that it is to have; 0 unless it holds any.
        starts: how often it was started.
        orders: how often its size was set.
        leave: nodes that had best be left by its newest change of size, once for each worker there.
        resized_at, since: Unix seconds of its last change of size, and of its state.
        why: it is in that state, or waits, for people.
        prepared: whether its next start has begun already, and has all ready but its workers.
        leaving: whether it is to be stopped, and not to wait again.
        steps: committed, as last seen.
        in_vain: starts in a row that the platform failed, without a step.
        held_s: worker-seconds that it has held; waited_s: seconds that it has waited, in spells that are over.
        trained_at: Unix seconds at which its first step of its newest start was seen; None before.
        rest_s, done_s: see `Seen`.
        fewer_at: Unix seconds, since when it trains on fewer than it was given; None: it does not.
        content, content_at: so many it was left when what it did not use was had back, and when.
    """

    run: str
    attempt: str
    by: str = ""
    user: str = ""
    team: str = ""
    priority: int = 0
    rank: float = 0.0
    at: float = 0.0
    least: int = 1
    most: int = 1
    sizes: tuple[int, ...] = ()
    each: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})
    warm: int = 0
    minds: bool = False
    parcels: tuple[str, ...] = ()
    state: State = "waiting"
    workers: int = 0
    starts: int = 0
    orders: int = 0
    leave: tuple[str, ...] = ()
    resized_at: float | None = None
    since: float = 0.0
    why: str = ""
    prepared: bool = False
    leaving: bool = False
    steps: int = 0
    in_vain: int = 0
    held_s: float = 0.0
    waited_s: float = 0.0
    trained_at: float | None = None
    rest_s: float | None = None
    done_s: float | None = None
    fewer_at: float | None = None
    content: int = 0
    content_at: float | None = None

    @property
    def start(self) -> str:
        """The attempt of its newest start, or of the one that is prepared: nobody else's, and the same for whoever
        carries it out."""
        return f"{self.attempt}-{self.starts + self.prepared}"

    @property
    def order(self) -> str:
        """Names its newest change of size."""
        return f"{self.start}-{self.orders}"

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def holds(self) -> bool:
        """Whether it holds workers, or is about to."""
        return self.state in HOLDS

    def _is_content(self, now: float) -> bool:
        """Whether it has had no use for more in this start, and not long ago."""
        at = self.content_at
        return at is not None and at >= (self.trained_at or math.inf) and now - at < CONTENT_S

    def queued(self, now: float) -> Queued:
        """As the decision sees it."""
        state: Any = {"starting": "running"}.get(self.state, "ended" if self.over else self.state)
        return Queued(
            job=self.run,
            user=self.user,
            team=self.team,
            priority=self.priority,
            least=self.least,
            most=self.content if self._is_content(now) else self.most,
            sizes=self.sizes,
            each=each_of(self.each),
            submitted_at=self.rank,
            state=state,
            size=self.workers,
            resized_at=self.resized_at,
            waited_s=self.waited_s + (max(0.0, now - self.since) if self.state in WAITS else 0.0),
            rest_s=self.rest_s,
            done_s=self.done_s or 0.0,
            held_s=self.held_s,
        )


def each_of(resources: Mapping[str, float]) -> Each:
    """What Ray's names come to."""
    return Each(resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0))


def granted(entry: Entry, workers: int, now: float, why: str, leave: tuple[str, ...] = ()) -> Entry:
    """It is to have so many workers: it begins, goes on, or changes its size. One that pauses or is over does not.
    leave: see `Entry`."""
    if workers < 1 or entry.over or entry.state == "pausing":
        return entry
    if entry.state in WAITS:
        waited_s = entry.waited_s + max(0.0, now - entry.since)
        begun = replace(entry, state="starting", workers=workers, starts=entry.starts + 1, orders=0, since=now)
        begun = replace(begun, waited_s=waited_s, prepared=False, orders=int(entry.prepared))
        return replace(begun, resized_at=now, why=why, leave=(), trained_at=None)
    if workers == entry.workers:
        return entry
    grown = replace(entry, workers=workers, orders=entry.orders + 1, leave=leave, resized_at=now, why=why)
    return _accounted(grown, entry, now)


def prepared(entry: Entry) -> Entry:
    """Its next start is to begin, and to have all ready but its workers."""
    return replace(entry, prepared=True, orders=0) if entry.state in WAITS else entry


def paused(entry: Entry, now: float, why: str) -> Entry:
    """It is to write a checkpoint and give its workers up."""
    if entry.state not in ("starting", "running"):
        return entry
    return replace(entry, state="pausing", since=now, why=why)


def left(entry: Entry, now: float, by: str) -> Entry:
    """Somebody takes it off the queue: one that waits goes at once, and one that runs after a checkpoint."""
    if entry.over:
        return entry
    why = f"taken off the queue by {by}"
    if entry.prepared:
        gone = replace(entry, state="pausing", starts=entry.starts + 1, prepared=False)
        return replace(gone, leaving=True, since=now, why=why)
    if entry.state in WAITS:
        return replace(entry, state="removed", since=now, why=why)
    return replace(entry if entry.state == "pausing" else paused(entry, now, why), leaving=True, why=why)


def saw(entry: Entry, seen: Seen, now: float) -> Entry:
    """What becomes of it by what is seen of its newest start. The entry itself where nothing does."""
    if entry.prepared:
        return _prepared(entry, seen, now)
    if not entry.holds or seen.phase == "unknown":
        return entry
    if seen.phase == "absent":  # it is begun again, under the same name
        never = entry.state == "pausing" and now - entry.since > NEVER_S
        return _ended(entry, replace(entry, workers=0, since=now), _NEVER, now) if never else entry
    known = _learnt(entry, seen, now)
    if seen.phase == "pending":
        return known
    if seen.phase == "running":
        begun = known.state == "starting" and known.trained_at is not None
        return replace(known, state="running", since=now) if begun else _used(known, seen, now)
    gone = replace(known, held_s=known.held_s + held_s(known, now), workers=0, since=now, rest_s=None)
    return _ended(entry, gone, seen, now)


def _prepared(entry: Entry, seen: Seen, now: float) -> Entry:
    """Of one that waits, and whose next start has begun: it may have failed, or been lost."""
    if seen.phase != "over":
        return entry
    used = replace(entry, prepared=False, starts=entry.starts + 1)
    if seen.end == "stopped":
        return replace(used, state="stopped", why=seen.message, since=now)
    if seen.end == "failed" and seen.cause != "platform":
        return replace(used, state="failed", why=seen.message, since=now)
    if entry.in_vain + 1 >= MOST_IN_VAIN:
        return replace(used, state="failed", since=now, why=f"{seen.message} ({MOST_IN_VAIN} times, without a step)")
    return replace(used, in_vain=entry.in_vain + 1)


def _learnt(entry: Entry, seen: Seen, now: float) -> Entry:
    found = entry
    if seen.steps > entry.steps:
        found = replace(found, steps=seen.steps, in_vain=0)
    trains = seen.workers > 0 and (seen.steps > entry.steps or entry.steps == 0 < seen.steps)
    if found.trained_at is None and trains and seen.phase == "running":
        found = replace(found, trained_at=now)
    if (seen.rest_s, seen.done_s) != (None, None) and seen.steps > entry.steps:
        found = replace(found, rest_s=seen.rest_s, done_s=seen.done_s)
    return found


def _used(entry: Entry, seen: Seen, now: float) -> Entry:
    """Of one that trains, and minds money: what its own policy has let go is had back after a while."""
    heard = not entry.orders or seen.request == entry.order
    if not entry.minds or not heard or entry.state != "running" or seen.workers < entry.least:
        return entry
    uses = next((size for size in entry.sizes if size >= seen.workers), seen.workers)
    if uses >= entry.workers or entry.fewer_at is None:
        fewer_at = None if uses >= entry.workers else now
        return entry if fewer_at is entry.fewer_at is None else replace(entry, fewer_at=fewer_at)
    if now - max(entry.fewer_at, entry.resized_at or 0.0, entry.trained_at or 0.0) < FEWER_S:
        return entry
    why = f"of {entry.workers} workers that it was given it trains on {seen.workers}, by its own policy"
    return replace(granted(entry, uses, now, why), fewer_at=None, content=uses, content_at=now)


def _ended(before: Entry, gone: Entry, seen: Seen, now: float) -> Entry:
    """Of one whose start is over."""
    if seen.end == "finished":
        return replace(gone, state="finished", why=seen.message)
    if seen.end == "failed" and seen.cause != "platform":
        return replace(gone, state="failed", why=seen.message)
    if before.leaving:
        return replace(gone, state="stopped" if before.workers else "removed")
    ours = seen.end == "interrupted" or (seen.end == "stopped" and QUEUE in seen.message)
    if before.state == "pausing" and ours:  # stopped by somebody else meanwhile it stays so
        return replace(gone, state="paused", why=before.why)
    if seen.end == "stopped":
        return replace(gone, state="stopped", why=seen.message)
    if gone.in_vain + 1 >= MOST_IN_VAIN:
        return replace(gone, state="failed", why=f"{seen.message} ({MOST_IN_VAIN} times, without a step between)")
    return replace(gone, state="paused", in_vain=gone.in_vain + 1, why=f"it goes on again: {seen.message}")


def held_s(entry: Entry, now: float) -> float:
    """Worker-seconds since its size last changed."""
    return entry.workers * max(0.0, now - (entry.resized_at if entry.resized_at is not None else now))


def _accounted(after: Entry, before: Entry, now: float) -> Entry:
    return replace(after, held_s=before.held_s + held_s(before, now))


def to_tree(entry: Entry) -> dict[str, Any]:
    """As plain values; what is as it is from the beginning is left out."""
    usual = {each.name: each.default for each in fields(Entry)}
    return {name: value for name, value in asdict(entry).items() if name == "each" or value != usual[name]}


def from_tree(tree: Mapping[str, Any]) -> Entry:
    """Raises ValueError: it is damaged; what it does not know is of a later release, and passed over."""
    try:
        known = {each.name: _READ.get(str(each.type), _plain) for each in fields(Entry) if each.name in tree}
        found = Entry(**{name: _as(name, read, tree[name]) for name, read in known.items()})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a damaged entry ({error})") from None
    if not found.run or not found.attempt:
        raise ValueError("a damaged entry (it has no name)")
    return found


def _as(name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"a damaged entry ({name} is {value!r})") from None


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _state(value: Any) -> Any:
    if value not in (*HOLDS, *WAITS, *OVER):
        raise ValueError
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool | str) or int(value) != float(value):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, str) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _perhaps(value: Any) -> float | None:
    return None if value is None else _number(value)


def _sizes(value: Any) -> tuple[int, ...]:
    return tuple(sorted({_whole(each) for each in value}))


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError
    return tuple(_text(each) for each in value)


def _resources(value: Any) -> dict[str, float]:
    found = {_text(name): _number(amount) for name, amount in value.items()}
    if min(found.values(), default=0.0) < 0:
        raise ValueError
    return found


_READ: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "State": _state,
    "bool": _truth,
    "int": _whole,
    "float": _number,
    "float | None": _perhaps,
    "tuple[int, ...]": _sizes,
    "tuple[str, ...]": _texts,
    "Mapping[str, float]": _resources,
}
"""How what a field is told to be is read; others are taken as they are."""
