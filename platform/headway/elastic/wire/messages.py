"""What the coordinator and its workers say to each other: a JSON object a line, over one connection per worker.

What is said again and again, beats and their answers, is a frame instead (see `headway.elastic.wire.frames`): a byte
with which no line begins, and a size that follows from it.

Whatever comes in is read strictly: a kind that is not known, a field that is missing, unknown or of another type, and a
line that is too long are a ValueError, and nothing else.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from headway.core.roll import Runs
from headway.core.watch import PULSE_S
from headway.elastic.wire import frames

HELLO_BYTES = 4096
"""Longest line of one that has not shown the run's token."""
LINE_BYTES = 2**20
"""Longest line of a worker."""
WORD_BYTES = 2**26
"""Longest line of the coordinator: it may name thousands of members."""
TRACE_BYTES = 2**16
MOST_LOCATED = 64
"""Addresses that are asked for at a time."""
_LARGEST = 2**63

# From a worker


@dataclass(frozen=True)
class Hello:
    """The first line.

    Args:
        age_s: seconds since the worker's account began.
        probe_port: where its heart answers peers that ask whether they reach it; 0: nowhere.
    """

    worker: str
    token: str = field(repr=False)
    age_s: float
    pid: int
    node_ip: str
    probe_port: int


@dataclass(frozen=True)
class Beat:
    """How a worker is, a few times a second.

    Args:
        number: grows from beat to beat.
        heard: `Lease.at` of the newest that it has had; 0 before the first.
        mark: moves with the training thread.
        at: index of a `core.watch.At`.
        waiting: for the others.
        lane_s: typical seconds of a lane; 0 while not known.
        ledger: its account, in seconds, in the order of `core.ledger.BOOKED`.
        exchanged: bytes to and from other workers so far.
    """

    number: int
    heard: float
    mark: int
    at: int
    waiting: bool
    step: int
    lane_s: float
    ledger: tuple[float, ...]
    exchanged: int = 0


@dataclass(frozen=True)
class Ready:
    """It has warmed up.

    Args:
        rounding: how its machine rounds, as digest or name; empty where that is not known.
    """

    rounding: str = ""


@dataclass(frozen=True)
class Arrived:
    """It has stopped before a generation. See `core.events.Arrived`."""

    generation: int
    step: int
    exchanges: int
    busy: bool


@dataclass(frozen=True)
class Committed:
    """Its first step in a generation is committed."""

    generation: int
    step: int
    pause_s: float


@dataclass(frozen=True)
class Lost:
    """Its exchange broke. peers: those that it cannot reach."""

    generation: int
    reason: str
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Diverged:
    """A member's replica differed, and was healed."""

    worker: str
    step: int


@dataclass(frozen=True)
class Raised:
    """It cannot go on. fault: user or machine; failure: kind, fact, reason, remedy, traceback."""

    fault: str
    failure: dict[str, str]


@dataclass(frozen=True)
class Finished:
    """It has done all steps."""


@dataclass(frozen=True)
class Put:
    """A value (base64) for the other members of a generation, while they build their group."""

    generation: int
    key: str
    value: str


@dataclass(frozen=True)
class Want:
    """Asks for such a value, as soon as it is there."""

    generation: int
    key: str


@dataclass(frozen=True)
class Locate:
    """Asks which members of a generation are at these addresses, and can be probed where."""

    generation: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Keeper:
    """Its node has a keeper (see `headway.elastic.worker.keeper`), which others reach there."""

    host: str
    port: int


@dataclass(frozen=True)
class Evaluated:
    """All were evaluated after `step` steps; said by the member of rank 0, and again where another comes in its place.

    Args:
        values: validation metrics, each as Python writes it (JSON has no NaN).
        stands: at the gate, see `Until`, or at the run's end.
    """

    step: int
    values: dict[str, str]
    stands: bool


# From the coordinator


@dataclass(frozen=True)
class Welcome:
    """The answer to a hello.

    Args:
        running: the others train already.
        keepers: see `Keepers`.
        until: see `Until`; -1: there is no gate.
        leave: see `Leave`; empty: nobody is to leave.
    """

    running: bool
    keepers: tuple[tuple[str, int], ...] = ()
    until: int = -1
    leave: str = ""


@dataclass(frozen=True)
class Keepers:
    """Where the run's keepers are, those of nodes that carry workers first; a few of many."""

    places: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Publish:
    """A new generation.

    Args:
        members: that came to the end of those of `base`, in runs (see `headway.core.roll`).
        lanes: of the one whom this is said to; none if it is no member.
        base: the newest generation before it that was said on this line; 0: `members` are all there are.
        gone: ranks of that one who are in it no more, in runs.
    """

    number: int
    members: tuple[str, ...]
    urgent: bool
    lanes: tuple[int, ...]
    base: int = 0
    gone: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Pause:
    """Too few are left. See `core.events.Pause`."""

    number: int
    urgent: bool
    save: bool


@dataclass(frozen=True)
class Go:
    """All members have stopped.

    Args:
        source: rank of who holds the newest state; None: nobody does.
        newest: its (steps, exchanges); (-1, 0) if nobody does.
        behind: (first rank, how many, steps, exchanges) of those in a row that are alike, and elsewhere.
        lease_s: how long word of the coordinator lasts in this generation.
        spot: of the one whom this is said to, as of `headway.core.spots.Spot`: rank, local rank, local size, rank of
            its node, number of nodes.
    """

    number: int
    source: int | None
    newest: tuple[int, int]
    behind: tuple[tuple[int, int, int, int], ...]
    lease_s: float
    spot: tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Seats:
    """The answer to `Locate`. seats: (worker, address, port that answers probes) of each that is there."""

    generation: int
    addresses: tuple[str, ...]
    seats: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Lease:
    """The answer to a beat. at: the coordinator's clock, to be told again; period_s: until the next is wanted."""

    number: int
    at: float
    period_s: float = PULSE_S


@dataclass(frozen=True)
class Save:
    """Take a checkpoint."""

    reason: str


@dataclass(frozen=True)
class Until:
    """Where the gate is: after so many steps all stand, and wait for it to be moved, or for `Leave`.

    This, `Leave` and `Publish` are said to all in one order: who stands at the gate goes by what came first.
    """

    step: int


@dataclass(frozen=True)
class Leave:
    """Give the workers away: at the gate, or after the step that is under way, with a checkpoint. why: paused, stopped
    or finished."""

    why: str


@dataclass(frozen=True)
class Dismiss:
    """The run goes on without this worker. graceful: it may finish what it writes."""

    graceful: bool
    reason: str


@dataclass(frozen=True)
class Value:
    """The answer to `Want`, and what comes with it. more: another follows at once, so that it is not asked for."""

    generation: int
    key: str
    value: str
    more: bool = False


FromWorker = (
    Hello
    | Beat
    | Ready
    | Arrived
    | Committed
    | Lost
    | Diverged
    | Raised
    | Finished
    | Put
    | Want
    | Locate
    | Keeper
    | Evaluated
)
FromLead = Welcome | Publish | Pause | Go | Seats | Lease | Save | Dismiss | Value | Keepers | Until | Leave
Message = FromWorker | FromLead


def encode(message: Message) -> bytes:
    """One line, or frame."""
    if isinstance(message, Beat):
        return frames.beat(tuple(vars(message).values()))
    if isinstance(message, Lease):
        return frames.lease(message.number, message.at, message.period_s)
    tree = {"kind": type(message).__name__.lower(), **{f.name: getattr(message, f.name) for f in fields(message)}}
    return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def publish(number: int, change: tuple[Runs, tuple[str, ...]], urgent: bool, base: int) -> Callable[[Any], bytes]:
    """Makes the line of a `Publish` from lanes. What is the same for thousands of members is encoded once.

    Args:
        change: ranks of `base` that are gone, and names that came, in runs.
    """
    gone, came = change
    return _but_for(Publish(number, came, urgent, (), base, gone), "lanes")


def go(word: Go) -> Callable[[Any], bytes]:
    """Likewise the line of a `Go` from spots."""
    return _but_for(replace(word, spot=()), "spot")  # type: ignore[arg-type]


def _but_for(message: Message, name: str) -> Callable[[Any], bytes]:
    whole, place = encode(message), f',"{name}":['.encode()
    at = whole.rindex(place) + len(place)  # what comes after it has no such field
    head, end = whole[:at], whole[at:]
    return lambda numbers: head + ",".join(map(str, numbers)).encode() + end


def from_worker(line: bytes) -> FromWorker:
    """What a worker says. Raises ValueError for anything else."""
    if line[:1] == frames.BEAT:
        return Beat(*frames.read_beat(line))
    message: FromWorker = _decode(line, _FROM_WORKER, LINE_BYTES)
    return message


def from_lead(line: bytes) -> FromLead:
    """What the coordinator says. Raises ValueError for anything else."""
    if line[:1] == frames.LEASE:
        return Lease(*frames.read_lease(line))
    message: FromLead = _decode(line, _FROM_LEAD, WORD_BYTES)
    return message


def _decode(line: bytes, known: dict[str, _Kind], most: int) -> Any:
    if len(line) > most:
        raise ValueError(f"a line of {len(line)} bytes is longer than {most}")
    if line[:1] and line[0] in frames.SIZES:  # the other side's
        raise ValueError("not a message")
    try:
        tree = json.loads(line, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str) or tree["kind"] not in known:
        raise ValueError("not a message")
    kind, read = known[tree.pop("kind")]
    if tree.keys() != read.keys():
        raise ValueError(f"{kind.__name__} with the fields {sorted(tree)[:20]}")
    return kind(**{name: read[name](value) for name, value in tree.items()})


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no number")


_Read = Callable[[Any], Any]
_Kind = tuple[type, dict[str, _Read]]


def _plain(wanted: type) -> _Read:
    def read(value: Any) -> Any:
        if type(value) is not wanted:
            raise ValueError(f"{str(value)[:80]!r} is no {wanted.__name__}")
        return value

    return read


def _whole(value: Any) -> int:
    if type(value) is not int or not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"{str(value)[:80]!r} is no int")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < _LARGEST:
        raise ValueError(f"{str(value)[:80]!r} is no number")
    return float(value)


def _reader(hint: Any) -> _Read:
    """Checks a value of JSON against a field's type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and inner[-1] is Ellipsis:
        each = _reader(inner[0])
        return lambda value: tuple(each(v) for v in _plain(list)(value))
    if origin is tuple:
        parts = [_reader(part) for part in inner]
        return lambda value: tuple(read(v) for read, v in zip(parts, _plain(list)(value), strict=True))
    if origin is dict:
        each = _reader(inner[1])
        return lambda value: {name: each(v) for name, v in _plain(dict)(value).items()}
    if origin is types.UnionType:
        (some,) = [_reader(part) for part in inner if part is not type(None)]
        return lambda value: None if value is None else some(value)
    return {float: _number, int: _whole}.get(hint) or _plain(hint)


def _kinds(union: Any) -> dict[str, _Kind]:
    return {
        kind.__name__.lower(): (kind, {name: _reader(hint) for name, hint in typing.get_type_hints(kind).items()})
        for kind in typing.get_args(union)
        if kind not in (Beat, Lease)  # which are frames
    }


_FROM_WORKER, _FROM_LEAD = _kinds(FromWorker), _kinds(FromLead)
