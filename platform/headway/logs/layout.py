"""Where what a process prints is kept in a run, and by what names.

logs/SOURCE/STREAM/BEGIN.log               in a folder: grows at its end
                   BEGIN-END.log           in a store: written once
                   BEGIN[-END].last.log    the process wrote nothing after it

A source is "driver" or "worker-w3". Each of its processes has a stream of its own, whose name begins with the time at
which it began, so that nobody writes where another does: not a worker of that name in a later start, and not one that
was given up and lives on. BEGIN and END are positions in the stream, in bytes; every segment ends with a line's end.
What a segment holds may be in another as well, which is longer: small ones are put together, and then removed.

Each line begins with the time at which it was read, by that machine's clock: "2026-11-26T06:15:00.123Z ".
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

LOGS = "logs/"
DRIVER = "driver"
WORKER = "worker-"
SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
STAMP = len("2026-11-26T06:15:00.123Z ")
_DIGITS = 14
_NAME = re.compile(rf"{LOGS}({SOURCE.pattern})/([A-Za-z0-9._-]+)/(\d+)(-\d+)?(\.last)?\.log")


@dataclass(frozen=True, order=True)
class Segment:
    """A piece of a stream.

    Args:
        source: whose it is.
        stream: of which process.
        begin: where it begins in the stream, in bytes.
        end: where it ends.
        last: whether the stream ends with it.
        name: of its file or object in the run.
    """

    source: str
    stream: str
    begin: int
    end: int
    last: bool
    name: str


def worker_source(worker: str) -> str:
    return f"{WORKER}{worker}"


def new_stream(now: float | None = None) -> str:
    """A name for what this process will write; later ones sort behind earlier ones."""
    at = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    return f"{at:%Y%m%dT%H%M%S}.{at.microsecond:06d}Z-{uuid.uuid4().hex[:8]}"


def folder_of(source: str, stream: str) -> str:
    return f"{LOGS}{source}/{stream}/"


def growing_name(begin: int, last: bool = False) -> str:
    """Of a file that grows, within its stream's folder."""
    return f"{begin:0{_DIGITS}d}{'.last' if last else ''}.log"


def fixed_name(begin: int, end: int, last: bool = False) -> str:
    """Of an object that is written once, within its stream's folder."""
    return f"{begin:0{_DIGITS}d}-{end:0{_DIGITS}d}{'.last' if last else ''}.log"


def segment(name: str, size: int) -> Segment | None:
    """What a name in the run means; None where it is no segment. size: in bytes."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    source, stream, begin, _, last = found.groups()
    return Segment(source, stream, int(begin), int(begin) + size, last is not None, name)


def stamp(now: float) -> bytes:
    """What a line begins with; now: in Unix seconds."""
    whole = int(now)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{int((now - whole) * 1000):03d}Z ", time.gmtime(whole)).encode()


def next_of(segments: Iterable[Segment], position: int) -> Segment | None:
    """Of one stream's segments, the one to go on with at a position: it may begin earlier, and of several the longest
    is taken. Where there is none, but later ones are, the first of these; None where nothing comes."""
    here = [each for each in segments if each.begin <= position < each.end]
    if here:
        return max(here, key=lambda each: (each.end, each.last))
    later = [each for each in segments if each.begin > position and each.end > each.begin]
    return min(later, key=lambda each: (each.begin, -each.end), default=None)


def chain(segments: Sequence[Segment]) -> list[Segment]:
    """Of one stream's segments, those that hold all of it that is kept, in their order."""
    found, position = [], 0
    while (each := next_of(segments, position)) is not None:
        found.append(each)
        position = each.end
    return found


def middle(blocks: Sequence[tuple[int, int]], head: int, tail: int) -> list[tuple[int, int]]:
    """Of a stream's blocks (begin, end) that are written for good, oldest first, those that are not kept: they lie
    behind the first `head` bytes, and before the newest `tail`."""
    end = blocks[-1][1] if blocks else 0
    return [block for block in blocks if block[0] >= head and block[1] <= end - tail]


@dataclass(frozen=True)
class Kept:
    """What is kept of a stream.

    Args:
        source, stream: see `Segment`.
        bytes: of it.
        over: whether its process has ended, as far as one can tell.
        names: of its files or objects.
    """

    source: str
    stream: str
    bytes: int
    over: bool
    names: tuple[str, ...]


def streams_of(found: Iterable[tuple[Segment, float]], quiet_s: float) -> list[Kept]:
    """The streams of a run, oldest first.

    Args:
        found: segments, and the seconds since each was written.
        quiet_s: a process that was not heard of for so long has ended.
    """
    streams: dict[tuple[str, str], list[tuple[Segment, float]]] = {}
    for each, age_s in found:
        streams.setdefault((each.stream, each.source), []).append((each, age_s))
    return [
        Kept(
            source,
            stream,
            sum(each.end - each.begin for each, _ in of),
            any(each.last for each, _ in of) or min(age_s for _, age_s in of) > quiet_s,
            tuple(each.name for each, _ in of),
        )
        for (stream, source), of in sorted(streams.items())
    ]


def outlived(streams: Sequence[Kept], source: str, of_source: int, of_run: int) -> list[Kept]:
    """Streams that are not kept any more, now that another one of `source` begins: the oldest of that source, beyond
    `of_source` bytes of it; and the oldest that are over, beyond `of_run` bytes in all. streams: oldest first."""
    gone: list[Kept] = []
    left = sum(each.bytes for each in streams if each.source == source)
    whole = sum(each.bytes for each in streams)
    for each in streams:
        mine = each.source == source and left > of_source
        if mine or (each.over and whole > of_run):
            gone.append(each)
            whole -= each.bytes
            left -= each.bytes if each.source == source else 0
    return gone
