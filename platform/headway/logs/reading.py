"""What drivers and workers printed, read from the run's folder or store: each line once, however often it is asked.

Readers remember a position in each stream. What is listed may be gone when it is read, put together with its
neighbours: then it is listed again. Logs of earlier releases (flat files in `logs/`, without times) are read too.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from headway.logs.layout import DRIVER, LOGS, STAMP, Segment, chain, folder_of, next_of, segment

if TYPE_CHECKING:
    from headway.storage.protocol import Storage

AT_ONCE = 16
TRIES = 5
"""Listings, where each finds segments that are gone by the time they are read."""
_STAMPED = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
_PLAIN = re.compile(rf"{LOGS}([A-Za-z0-9][A-Za-z0-9._-]*?)(\.earlier|\.end\.old|\.end)?\.log")
_ORDER = {".earlier": "!0", None: "!1", ".end.old": "!2", ".end": "!3"}
"""Streams of an earlier release, before all others."""


@dataclass(frozen=True)
class Line:
    """A line that somebody printed.

    Args:
        source: "driver" or "worker-NAME".
        time: when it was read from the process, by its machine's clock, in Unix seconds; None where it is not known.
        text: without its end.
        note: whether it is no line of the source's, but says what is missing there.
    """

    source: str
    time: float | None
    text: str
    note: bool = False


@dataclass
class _Stream:
    """Of one process: what is listed of it, and how far it is read."""

    source: str
    name: str
    segments: list[Segment] = field(default_factory=list)
    position: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is of an earlier release."""
        return self.name.startswith("!")

    @property
    def prefix(self) -> str:
        return f"{LOGS}{self.source}." if self.plain else folder_of(self.source, self.name)

    @property
    def ended(self) -> bool:
        return not self.segments or any(each.last and self.position >= each.end for each in self.segments)

    def skip(self) -> None:
        self.position = max((each.end for each in self.segments), default=0)


@dataclass(frozen=True)
class _Chunk:
    """Bytes [begin, …) of a stream; missing: so many before them are not kept."""

    begin: int
    content: bytes
    missing: int = 0


class Reader:
    """Reads a run's logs. Not for several threads.

    Args:
        storage: of the run.
        sources: only of these; all when not given.

    Methods raise OutOfReach and BadInput as the storage does; they may be called again then, and nothing is lost.
    """

    def __init__(self, storage: Storage, sources: Sequence[str] | None = None) -> None:
        self._storage, self._only = storage, sources
        self._streams: dict[tuple[str, str], _Stream] = {}

    @property
    def ended(self) -> bool:
        """Whether each process that was heard of wrote its last, and all of it was read."""
        return all(stream.ended for stream in self._streams.values())

    def skip(self, lines: int) -> None:
        """Before anything is read: leave out all but the last so many lines of each source."""
        self._list()
        by_source: dict[str, list[_Stream]] = {}
        for stream in sorted(self._streams.values(), key=lambda each: each.name, reverse=True):
            by_source.setdefault(stream.source, []).append(stream)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="logs") as pool:
            list(pool.map(lambda streams: self._skip(streams, lines), by_source.values()))

    def news(self) -> Iterator[Line]:
        """What came since the last time, all of it when it is the first: by time, and those of one process in their
        order. A line counts as read when the next one is asked for; ask until there is none."""
        self._list()
        by_age = sorted(self._streams.values(), key=lambda each: each.name)
        news = [stream for stream in by_age if next_of(stream.segments, stream.position) is not None]
        if not news:
            return
        pool = ThreadPoolExecutor(min(AT_ONCE, len(news)), thread_name_prefix="logs")
        try:
            flows = [self._flow(stream, pool, pool.submit(self._fetch, stream, stream.position)) for stream in news]
            for _, line in heapq.merge(*flows, key=lambda found: found[0]):
                yield line
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _list(self) -> None:
        found: dict[tuple[str, str], list[Segment]] = {}
        for each in _listed(self._storage, self._only):
            found.setdefault((each.source, each.stream), []).append(each)
        for key in {**self._streams, **found}:
            self._streams.setdefault(key, _Stream(*key)).segments = found.get(key, [])

    def _flow(
        self, stream: _Stream, pool: ThreadPoolExecutor, coming: Future[_Chunk | None]
    ) -> Iterator[tuple[float, Line]]:
        """The lines of one process, with what they are sorted by."""
        at = 0.0
        while (chunk := coming.result()) is not None:
            coming = pool.submit(self._fetch, stream, chunk.begin + len(chunk.content))
            if chunk.missing:
                text = f"... {chunk.missing:,} bytes are not kept: the beginning of a log is, and the newest ..."
                yield at, Line(stream.source, at or None, text, note=True)
            stream.position = chunk.begin
            for raw in chunk.content.splitlines(keepends=True) if stream.plain else _split(chunk.content):
                line = _parsed(stream.source, raw, stream.plain)
                at = max(at, line.time or 0.0)
                yield at, line
                stream.position += len(raw)

    def _fetch(self, stream: _Stream, position: int) -> _Chunk | None:
        """The next lines of a stream, whole ones; None where there are none yet, or none any more."""
        was_missing = False
        for _ in range(TRIES):
            found = next_of(stream.segments, position)
            if found is None:
                return None
            begin = max(found.begin, position)
            if begin > position and not was_missing:
                was_missing = True  # or it was put together with its neighbours while they were listed
            else:
                try:
                    content = bytes(self._storage.read(found.name, begin - found.begin, found.end - begin))
                    whole = content if stream.plain else content[: content.rfind(b"\n") + 1]
                    return _Chunk(begin, whole, begin - position) if whole else None
                except (FileNotFoundError, EOFError):
                    pass
            listed = _listed_at(self._storage, stream.prefix)
            stream.segments = [each for each in listed if (each.source, each.stream) == (stream.source, stream.name)]
        return None

    def _skip(self, streams: list[_Stream], lines: int) -> None:
        """Of the streams of one source, newest first."""
        for stream in streams:
            if lines:
                lines = self._skip_in(stream, lines)
            else:
                stream.skip()

    def _skip_in(self, stream: _Stream, lines: int) -> int:
        """Stand before the last so many lines of a stream. Returns how many more are wanted."""
        for each in reversed(chain(stream.segments)):
            try:
                content = bytes(self._storage.read(each.name, 0, each.end - each.begin))
            except (FileNotFoundError, EOFError):
                return lines  # put together meanwhile: rather too many than too few
            content += b"" if content.endswith(b"\n") else b"\n"
            count = content.count(b"\n")
            if count >= lines:
                at = len(content)
                for _ in range(lines + 1):
                    at = content.rfind(b"\n", 0, max(0, at))
                stream.position = each.begin + at + 1
                return 0
            lines -= count
        return lines


def sources(storage: Storage) -> list[str]:
    """Those that have a log in a run, the driver first."""
    return sorted({found.source for found in _listed(storage, None)}, key=lambda name: (name != DRIVER, name))


def _listed(storage: Storage, only: Sequence[str] | None) -> Iterator[Segment]:
    if only is None:
        yield from _listed_at(storage, LOGS)
    for source in only or ():
        yield from _listed_at(storage, f"{LOGS}{source}/")
        yield from (each for each in _listed_at(storage, f"{LOGS}{source}.") if each.source == source)


def _listed_at(storage: Storage, prefix: str) -> Iterator[Segment]:
    for found in storage.list(prefix):
        known = segment(found.name, found.bytes)
        if known is None and (plain := _PLAIN.fullmatch(found.name)) is not None:
            known = Segment(plain[1], _ORDER[plain[2]], 0, found.bytes, True, found.name)
        if known is not None:
            yield known


def _split(content: bytes) -> Iterable[bytes]:
    return (line + b"\n" for line in content.split(b"\n")[:-1])


def _parsed(source: str, raw: bytes, plain: bool) -> Line:
    raw, at = raw.rstrip(b"\n"), None
    if not plain and _STAMPED.match(raw):
        raw, at = raw[STAMP:], datetime.fromisoformat(raw[: STAMP - 1].decode()).timestamp()
    return Line(source, at, raw.decode(errors="replace"))
