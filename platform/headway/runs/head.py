"""The one object of a run in a store that decides: who leads it, what its records are, and which checkpoints count.

    RUN/head.json    {"layout": "headway-run/1", "head": {...}, "sha256": of the head}

It is written whole, on the condition that nobody else has written it since: records, lease and fence are one request.
Times in it are for people.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headway.errors import BadData, BadInput
from headway.runs.stream import pack, unpack

LAYOUT = "headway-run/1"
HEAD = "head.json"
TAIL_BYTES = 64 << 10
"""The newest records are in the head itself, up to so many bytes of it."""
TAIL_RAW_BYTES = 256 << 10
SEGMENT_BYTES = 4 << 20
TOGETHER = 32
"""Segments that become one of the next level."""
LEVELS = 2
"""Above the first, of which a segment has at most 4 MiB: 32 times that, and 32 times that."""
_EPOCH = re.compile(r"(?:^|[/-])e(\d+)-")


@dataclass(frozen=True)
class Owner:
    """The process that leads, or led last; since: Unix seconds, for people."""

    host: str
    pid: int
    since: float

    @classmethod
    def this(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), time.time())

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


@dataclass(frozen=True)
class Segment:
    """A sealed part of the run's records.

    Args:
        name: of its object; ends with the digest of the object's content.
        bytes: of its object.
        end: where it ends in the stream, in bytes before compression; it begins where the one before it ends.
        level: how often it was merged.
    """

    name: str
    bytes: int
    end: int
    level: int

    @property
    def sha256(self) -> str:
        return self.name.rpartition("-")[2]


def segment_name(level: int, epoch: int, end: int, nonce: str, sha256: str) -> str:
    """Of a segment's object. A name that was removed is never used again: a late removal would take what is new."""
    return f"records/{level}-e{epoch:06d}-{end:014d}-{nonce}-{sha256}"


@dataclass(frozen=True)
class Head:
    """What a run is at one moment.

    Args:
        run: its name.
        id: of the run, for ever; another run that once has its name has another.
        epoch: rises by one whenever another process takes the lead.
        nonce: of the process that wrote it last.
        beat: rises by one with every write.
        owner: for people.
        at: when it was written, in Unix seconds, for people.
        lease_s: after so many seconds without a write, anybody may take the lead.
        released: whether nobody leads.
        removed: whether it is being removed, and nothing of it is to be read any more.
        brief: what a listing of runs shows.
        adopted: folders of checkpoints of earlier epochs that count.
        open: earlier epochs of which all checkpoints count still, until the present leader has looked which are there.
        segments: of the records, oldest first.
        tail: the records after them.
    """

    run: str
    id: str
    epoch: int
    nonce: str
    beat: int
    owner: Owner
    at: float
    lease_s: float
    released: bool = False
    removed: bool = False
    brief: Mapping[str, Any] | None = None
    adopted: tuple[str, ...] = ()
    open: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = ()
    tail: bytes = b""

    @property
    def sealed(self) -> int:
        """Where the tail begins in the stream."""
        return self.segments[-1].end if self.segments else 0

    @property
    def position(self) -> int:
        """Where the stream ends."""
        return self.sealed + len(self.tail)

    @property
    def mine(self) -> tuple[int, str, int]:
        """What no other write has."""
        return self.epoch, self.nonce, self.beat

    def with_records(self, records: bytes) -> tuple[Head, tuple[Segment, bytes] | None]:
        """The head with more records; and the segment that must be there before it, where the tail became too long."""
        tail = self.tail + records
        if len(tail) <= TAIL_RAW_BYTES and len(_text(tail)) <= TAIL_BYTES:
            return replace(self, tail=tail), None
        content, end = pack(tail), self.sealed + len(tail)
        name = segment_name(0, self.epoch, end, self.nonce, hashlib.sha256(content).hexdigest())
        segment = Segment(name, len(content), end, 0)
        return replace(self, segments=(*self.segments, segment), tail=b""), (segment, content)

    def mergeable(self) -> tuple[Segment, ...]:
        """The oldest neighbours of one level that are enough for one of the next; empty where there are none."""
        for level in range(LEVELS):
            same = tuple(segment for segment in self.segments if segment.level == level)
            if len(same) >= TOGETHER:
                return same[:TOGETHER]
        return ()

    def merged(self, old: tuple[Segment, ...], new: Segment) -> Head:
        """The head that names one segment for several. They must be neighbours in it."""
        at = self.segments.index(old[0])
        if self.segments[at : at + len(old)] != old or new.end != old[-1].end:
            raise ValueError("not the segments of this head")
        return replace(self, segments=(*self.segments[:at], new, *self.segments[at + len(old) :]))

    def counts(self, checkpoint: str) -> bool:
        """Whether a checkpoint may be gone on from, by its folder or its manifest: one of the present epoch, or of
        those that were there when the present leader took over. What a leader wrote after that does not."""
        epoch = epoch_of(checkpoint)
        folder = checkpoint.removesuffix("/manifest.json").rstrip("/")
        return epoch is not None and (epoch == self.epoch or epoch in self.open or folder in self.adopted)

    def content(self) -> bytes:
        """As it is written."""
        body = {
            "run": self.run,
            "id": self.id,
            "epoch": self.epoch,
            "nonce": self.nonce,
            "beat": self.beat,
            "owner": {"host": self.owner.host, "pid": self.owner.pid, "since": self.owner.since},
            "at": self.at,
            "lease_s": self.lease_s,
            "released": self.released,
            "removed": self.removed,
            "brief": dict(self.brief or {}),
            "adopted": list(self.adopted),
            "open": list(self.open),
            "segments": [[s.name, s.bytes, s.end, s.level] for s in self.segments],
            "tail": _text(self.tail),
        }
        return json.dumps({"layout": LAYOUT, "head": body, "sha256": _digest(body)}).encode()


def read(content: bytes, where: str) -> Head:
    """A head from what was written.

    Raises:
        BadInput: it is of another layout.
        BadData: it is damaged.
    """
    try:
        tree = json.loads(content)
        layout = tree["layout"]
        if layout == LAYOUT:
            body = tree["head"]
            if _digest(body) != tree["sha256"]:
                raise ValueError("its own digest does not match")
            owner = Owner(str(body["owner"]["host"]), int(body["owner"]["pid"]), float(body["owner"]["since"]))
            return Head(
                run=str(body["run"]),
                id=str(body["id"]),
                epoch=int(body["epoch"]),
                nonce=str(body["nonce"]),
                beat=int(body["beat"]),
                owner=owner,
                at=float(body["at"]),
                lease_s=float(body["lease_s"]),
                released=bool(body["released"]),
                removed=bool(body["removed"]),
                brief=dict(body["brief"]),
                adopted=tuple(map(str, body["adopted"])),
                open=tuple(map(int, body["open"])),
                segments=tuple(Segment(str(n), int(b), int(e), int(level)) for n, b, e, level in body["segments"]),
                tail=b"".join(unpack([base64.b64decode(body["tail"], validate=True)])),
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "Nothing was guessed: put an older copy of it back, or copy the run from elsewhere."
        raise BadData(f"{where} is damaged", str(error) or type(error).__name__, remedy) from None
    reason = f"this Headway reads {LAYOUT!r}"
    raise BadInput(f"{where} has layout {layout!r}", reason, "Use the release that wrote it, or a newer one.")


def epoch_of(name: str) -> int | None:
    """The epoch in an object's name ("checkpoints/step-00000400/e000003-ab12/manifest.json")."""
    found = _EPOCH.search(name)
    return int(found[1]) if found else None


def _text(tail: bytes) -> str:
    return base64.b64encode(pack(tail)).decode()


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
