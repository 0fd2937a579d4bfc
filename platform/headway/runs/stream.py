"""The records of a run as a stream: what was done to the files of its folder, in order. Done again, they give it.

    {"do": "append", "name": "steps.jsonl", "at": 1200, "bytes": 88}    and 88 bytes behind the line's end
    {"do": "replace", "name": "run.json", "bytes": 310}                 and 310 bytes
    {"do": "stored", "name": "code/big.py", "object": "files/...", "bytes": 90000, "sha256": "..."}
    {"do": "cut", "name": "steps.jsonl", "at": 400}
    {"do": "remove", "name": "notes.txt"}

Each says what the file is afterwards, not only what changes, so that a stretch of the stream may be done twice.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

CHUNK_BYTES = 256 << 10
"""Of one append."""
INLINE_BYTES = 64 << 10
"""A file that is replaced and larger is an object of its own."""
ELSEWHERE = ("ray", "checkpoints", "logs", "leaders", "mlruns", "mlartifacts")
"""Folders in a run's that are no records: kept elsewhere, or nowhere."""
_NOT = re.compile(r"\..*|mlflow\.db.*|(keeper|now)\.json|.*\.(lock|kept|tmp)")
"""(What `keeper.json` holds is secret; what `now.json` holds is in the head.)"""
_NOT_CODE = re.compile(r"__pycache__|.*\.pyc|\..*\.pulled")


@dataclass(frozen=True)
class Append:
    """A file grows at its end, which is `at`."""

    name: str
    at: int
    content: bytes


@dataclass(frozen=True)
class Replace:
    """A file is this from now on."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Stored:
    """A file is what an object holds."""

    name: str
    object: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Cut:
    """A file ends at `at`."""

    name: str
    at: int


@dataclass(frozen=True)
class Remove:
    name: str


Operation = Append | Replace | Stored | Cut | Remove


def is_record(name: str) -> bool:
    """Whether a file of a run's folder, by its path in it, is of the records. (And whether a name out of a store may
    become a path: none that leads elsewhere may.)"""
    parts = PurePosixPath(name).parts
    if not parts or "/".join(parts) != name or "\0" in name or name.startswith("/"):
        return False
    if ".." in parts or parts[0] in ELSEWHERE:
        return False
    return not any((_NOT_CODE if parts[0] == "code" else _NOT).fullmatch(part) for part in parts)


def grows(name: str) -> bool:
    """Whether a file is one to which whole lines are added; what the user's code brings along has any ending."""
    return name.endswith(".jsonl") and "/" not in name


def encode(operations: Iterable[Operation]) -> bytes:
    return b"".join(map(_frame, operations))


def _frame(operation: Operation) -> bytes:
    match operation:
        case Append(name, at, content):
            return _line(do="append", name=name, at=at, bytes=len(content)) + content
        case Replace(name, content):
            return _line(do="replace", name=name, bytes=len(content)) + content
        case Stored(name, held, size, sha256):
            return _line(do="stored", name=name, object=held, bytes=size, sha256=sha256)
        case Cut(name, at):
            return _line(do="cut", name=name, at=at)
        case Remove(name):
            return _line(do="remove", name=name)


def _line(**content: str | int) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def decode(pieces: Iterable[bytes]) -> Iterator[Operation]:
    """Operations from whole frames, which come in pieces of any sizes. Raises ValueError where these are none."""
    source, held = iter(pieces), bytearray()

    def more() -> bool:
        piece = next(source, None)
        held.extend(piece or b"")
        return piece is not None

    while held or more():
        searched = 0
        while (end := held.find(b"\n", searched)) < 0:
            searched = len(held)
            if not more():
                if not held:
                    return
                raise ValueError("the last record has no end")
        head = _head(bytes(held[:end]))
        del held[: end + 1]
        size = int(head["bytes"]) if head["do"] in ("append", "replace") else 0
        while len(held) < size:
            if not more():
                raise ValueError(f"the last record, of {head['name']}, is cut short")
        content = bytes(held[:size])
        del held[:size]
        yield _operation(head, content)


def _head(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
        name, kind = head["name"], head["do"]
        if not isinstance(name, str) or not is_record(name):
            raise ValueError(f"{name!r} is no file of a run")
        wanted = FIELDS[kind]
        if not all(type(head[field]) is (str if field in ("object", "sha256") else int) for field in wanted):
            raise ValueError(f"a field of {head!r}")
    except (KeyError, TypeError) as error:
        raise ValueError(f"no record: {line[:80]!r} ({error!r})") from None
    return dict(head)


FIELDS = {
    "append": ("at", "bytes"),
    "replace": ("bytes",),
    "stored": ("object", "bytes", "sha256"),
    "cut": ("at",),
    "remove": (),
}


def _operation(head: dict[str, Any], content: bytes) -> Operation:
    name = head["name"]
    match head["do"]:
        case "append":
            return Append(name, head["at"], content)
        case "replace":
            return Replace(name, content)
        case "stored":
            return Stored(name, head["object"], head["bytes"], head["sha256"])
        case "cut":
            return Cut(name, head["at"])
        case _:
            return Remove(name)


def pack(raw: bytes) -> bytes:
    """Records as they are stored: a gzip member; several behind each other are the same as one of all."""
    return gzip.compress(raw, 6, mtime=0)


def unpack(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Members that come in pieces of any sizes, unpacked bit by bit. Raises ValueError where they are damaged."""
    member = None
    for piece in pieces:
        while piece:
            member = member or zlib.decompressobj(31)
            try:
                raw = member.decompress(piece, CHUNK_BYTES)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            if raw:
                yield raw
            if member.eof:
                piece, member = member.unused_data, None
            else:
                piece = member.unconsumed_tail
    if member is not None:
        raise ValueError("it ends too early")
