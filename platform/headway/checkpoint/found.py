"""What a checkpoint is to those who read it: its manifest, its bytes straight into tensors, and digests on the way.

    step-00000400/e000003-1f0c/skeleton.json         the tree without its tensors (see `headway.checkpoint.flat`)
                               00000-8c1e…  00001-…  chunks of the tensors' bytes, by number and digest
                               manifest.json         sizes and digests of all that, the cursor, the job, facts

The manifest is written last, and only where there is none: with it the checkpoint is there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import xxhash

from headway.errors import BadCheckpoint
from headway.storage.protocol import Storage

FORMAT = "headway-checkpoint/3"
MANIFEST, SKELETON = "manifest.json", "skeleton.json"
READERS = 16
"""Ranges that are read at a time."""
BLOCK_BYTES = 4 << 20
"""Of one range."""

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint.

    Args:
        place: its folder.
        name: of that among all checkpoints: "step-00000400/e000003-1f0c".
        step: the number of steps committed before it was taken.
        job: digest of what decides the run's result.
        bytes: of all parts.
        parts: size and SHA-256 of each object by name; of chunks also XXH3, for whoever reads them to go on from there:
            it keeps up with memory, and finds accidents.
        facts: run, reason, cursor, metrics, versions.
        epoch: of the process that led the run; 0 in those of an earlier release.
        finite: whether it was looked at for NaN before it was written.
        chunk_bytes: of each chunk but the last; 0 where it is not of chunks.
    """

    place: Storage = field(compare=False, repr=False)
    name: str
    step: int
    job: str
    bytes: int
    parts: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    epoch: int = 0
    finite: bool = True
    chunk_bytes: int = 0

    @property
    def where(self) -> str:
        """Its path or URL."""
        return self.place.url.rstrip("/")

    @property
    def digest(self) -> str:
        """SHA-256 over those of its parts: another one where its bytes are others."""
        found = {name: part["sha256"] for name, part in self.parts.items()}
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    def load(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """The parts as trees of tensors and plain values, in host memory; digests are checked on the way.

        Args:
            only: names of the parts that are wanted; chunks that hold nothing of them are not read. All when not given.

        Raises:
            BadCheckpoint: naming what is damaged.
            OutOfReach: the store does not answer.
        """
        from headway.checkpoint import flat

        parts = dict(self.parts)
        skeleton = parts.pop(SKELETON)
        text = self._whole(SKELETON, skeleton)
        try:
            tree, spans = flat.rooms(bytes(text))
        except ValueError as error:
            raise BadCheckpoint(f"{self.where} cannot be loaded", str(error), "") from error
        chunks = flat.chunks([len(span) for span in spans], self.chunk_bytes)
        if [chunk.bytes for chunk in chunks] != [part["bytes"] for part in parts.values()]:
            raise BadCheckpoint(f"{self.where} cannot be loaded", "its chunks are not those of its skeleton", "")
        left = [-(-chunk.bytes // BLOCK_BYTES) for chunk in chunks]
        lock = threading.Lock()

        def fill(task: tuple[int, int]) -> None:
            number, first = task
            name = names[number]
            size = min(BLOCK_BYTES, chunks[number].bytes - first)
            flat.fill(chunks[number], spans, self._read(name, first, size), first)
            with lock:
                left[number] -= 1
                last = left[number] == 0
            if last and flat.digest(chunks[number], spans, xxhash.xxh3_128) != parts[name]["xxh3"]:
                raise self._altered(name)

        names = list(parts)
        found: dict[str, Any] = tree if only is None else {name: tree[name] for name in tree if name in only}
        wanted = flat.held(found, spans) if only is not None else range(len(spans))
        read = [n for n, chunk in enumerate(chunks) if any(piece.span in wanted for piece in chunk.pieces)]
        blocks = ((number, first) for number in read for first in range(0, chunks[number].bytes, BLOCK_BYTES))
        at_once(fill, blocks, READERS)
        return found

    def verify(self) -> None:
        """Read all of it and compare digests.

        Raises:
            BadCheckpoint: naming what is damaged.
            OutOfReach: the store does not answer.
        """
        at_once(lambda part: self._whole(*part), self.parts.items(), 4)

    def glance(self) -> None:
        """Compare the sizes that a listing tells. Errors are those of `verify`."""
        sizes = {entry.name: entry.bytes for entry in self.place.list()}
        for name, part in self.parts.items():
            if sizes.get(name) != part["bytes"]:
                reason = f"it has {sizes[name]} bytes" if name in sizes else "it is missing"
                raise BadCheckpoint(f"{self.where}/{name} is not that of its manifest", reason, "")

    def _whole(self, name: str, part: dict[str, Any]) -> Any:
        data = self._read(name, 0, part["bytes"])
        if hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise self._altered(name)
        return data

    def _altered(self, name: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.where}/{name} was altered", "its digest is not the manifest's", "")

    def _read(self, name: str, first: int, size: int) -> Any:
        try:
            return self.place.read(name, first, size)
        except FileNotFoundError:
            raise BadCheckpoint(f"{self.where}/{name} is missing", "the checkpoint is incomplete", "") from None
        except EOFError:
            reason = f"its manifest says {self.parts[name]['bytes']} bytes"
            raise BadCheckpoint(f"{self.where}/{name} is shorter", reason, "") from None


def read(place: Storage, name: str) -> Checkpoint:
    """The checkpoint of that name among all of a run's, by its manifest.

    Raises:
        BadCheckpoint: no manifest, or one that is damaged.
        OutOfReach: the store does not answer.
    """
    here = place.at(f"{name}/")
    where = here.url.rstrip("/")
    try:
        body = opened(here.get(MANIFEST), f"{where}/{MANIFEST}", (FORMAT,))
        parts = {SKELETON: body["skeleton"]} | {chunk.pop("name"): chunk for chunk in body["chunks"]}
        kept = (body["step"], body["job"], body["bytes"], parts, body["facts"], body["epoch"])
        return Checkpoint(here, name, *kept, chunk_bytes=body["chunk_bytes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{where} is no checkpoint", f"its manifest cannot be read ({error})", "") from error


def opened(text: bytes, where: str, formats: tuple[str, ...]) -> dict[str, Any]:
    """What a manifest says.

    Raises:
        BadCheckpoint: it was altered, or is of another release.
        ValueError, KeyError, TypeError: it is none.
    """
    tree = json.loads(text)
    body, digest = tree["checkpoint"], tree["sha256"]
    if _digest(body) != digest:
        raise BadCheckpoint(f"{where} was altered", "its own digest does not match", "")
    if body["format"] not in formats:
        raise BadCheckpoint(
            f"{where} has format {body['format']!r}",
            f"this Headway reads {FORMAT!r}",
            "Resume with the release that wrote it, or move it away.",
        )
    found: dict[str, Any] = body
    return found


def sealed(body: dict[str, Any]) -> bytes:
    """A manifest that says this."""
    return json.dumps({"checkpoint": body, "sha256": _digest(body)}, indent=1).encode()


def at_once(work: Callable[[T], Any], tasks: Iterable[T], threads: int) -> None:
    """Do work on each, in several threads; the first error ends it, and is raised when none is under way any more."""
    source, lock = iter(tasks), threading.Lock()
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set():
                with lock:
                    task = next(source, None)
                if task is None:
                    return
                work(task)
        except BaseException:  # raised again
            stop.set()
            raise

    with ThreadPoolExecutor(threads, thread_name_prefix="checkpoint") as pool:
        running = [pool.submit(run) for _ in range(threads)]
    for each in running:
        each.result()


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
