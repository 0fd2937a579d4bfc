"""Writing a checkpoint: chunks first, several at once, and its manifest last, only where there is none.

A chunk's name holds its digest, so that nobody can write something else over it. Where several workers have the same
state, each of the others writes its share of the chunks of what is the same on all (see `Share`). The first one, which
commits, has the whole state: it knows what every chunk must be, looks for those in the listing, and writes itself what
does not come.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from headway.checkpoint.found import FORMAT, MANIFEST, SKELETON, Checkpoint, at_once, sealed
from headway.storage.commit import commit
from headway.storage.protocol import ABSENT, Buffer, Storage

if TYPE_CHECKING:
    import torch

WRITERS = 4
"""Chunks that are written at a time."""
SHARED = ("model", "optimizer")
"""Parts that are the same on all workers."""
BEGUN_S = 10.0
"""For so long a worker waits until the first one has begun."""
WAITED_S = 60.0
"""A commit that had to wait for so long looks whether somebody took its chunks for those of a dead writer."""
PATIENCE_S = 1.0
"""The least for which the first one waits for news of the others' chunks."""


@dataclass(frozen=True)
class Place:
    """Where a checkpoint goes, the same on all workers that write it.

    Args:
        step: number of steps committed.
        epoch: of the process that leads the run.
        nonce: tells it from other attempts.
    """

    step: int
    epoch: int
    nonce: str

    @property
    def name(self) -> str:
        return f"step-{self.step:08d}/e{self.epoch:06d}-{self.nonce}"


@dataclass(frozen=True)
class Share:
    """Which chunks a worker writes: every `of`-th, from its rank on."""

    rank: int = 0
    of: int = 1


def write(
    root: Storage,
    place: Place,
    job: str,
    parts: dict[str, Any],
    facts: dict[str, Any],
    allowed: Callable[[], bool] = lambda: True,
    of: int = 1,
) -> Checkpoint | None:
    """Write and commit a checkpoint. What an attempt that failed has left is the caller's to remove.

    Args:
        root: of all checkpoints of the run.
        place: of this one.
        job: digest of what decides the run's result.
        parts: trees of tensors in host memory and plain values by part name.
        facts: kept in the manifest.
        allowed: asked just before the commit; False commits nothing.
        of: how many workers write it.

    Returns:
        The checkpoint, or None if it was not allowed.

    Raises:
        Conflict: there is another of that place.
        BadCheckpoint: somebody removed some of it meanwhile.
        OutOfReach: it may be committed or not. The same may be written again: it is then the same checkpoint.
    """
    from headway.checkpoint import flat

    here = root.at(f"{place.name}/")
    laid = flat.layout({**_shared(parts), **parts})  # these come first, so that their chunks are the same on all
    chunks = laid.chunks(flat.CHUNK_BYTES)
    there: dict[int, dict[str, Any]] = {}
    theirs: dict[int, dict[str, Any]] = {}

    def put(number: int) -> None:
        there[number] = _put(here, number, flat.content(chunks[number], laid.spans))

    def put_or_digest(number: int) -> None:
        if number in others:
            theirs[number] = _part(flat.content(chunks[number], laid.spans))
        else:
            put(number)

    others = {number for number in range(_num_shared(parts) if of > 1 else 0) if number % of}
    here.put(SKELETON, laid.skeleton)
    begun = time.monotonic()
    at_once(put_or_digest, sorted(range(len(chunks)), key=others.__contains__), WRITERS)
    sizes = {_name(number, part): (number, chunks[number].bytes) for number, part in theirs.items()}
    patience = max(PATIENCE_S, time.monotonic() - begun)
    for missing in _awaited(here, sizes, patience):
        at_once(put, missing, WRITERS)
    there |= theirs
    skeleton = {"bytes": len(laid.skeleton), "sha256": hashlib.sha256(laid.skeleton).hexdigest()}
    written = {_name(number, there[number]): there[number] for number in range(len(chunks))}
    size = len(laid.skeleton) + sum(chunk.bytes for chunk in chunks)
    body = {"format": FORMAT, "step": place.step, "epoch": place.epoch, "job": job, "bytes": size, "skeleton": skeleton}
    body |= {"chunk_bytes": flat.CHUNK_BYTES, "chunks": [{"name": n, **part} for n, part in written.items()]}
    kept = (place.step, job, size, {SKELETON: skeleton, **written}, facts, place.epoch)
    checkpoint = Checkpoint(here, place.name, *kept, chunk_bytes=flat.CHUNK_BYTES)
    asked = time.monotonic()
    if not allowed():
        return None
    if time.monotonic() - asked > WAITED_S:
        checkpoint.glance()
    commit(here, MANIFEST, sealed({**body, "facts": facts}), ABSENT)
    return checkpoint


def discard(root: Storage, name: str, objects: Iterable[str] | None = None) -> None:
    """Remove a checkpoint, or what is there of one: the manifest first, so that no half of it is ever one.

    Args:
        objects: names of all in it, where they are known.
    """
    found = [each.name for each in root.list(f"{name}/")] if objects is None else [f"{name}/{o}" for o in objects]
    root.delete([f"{name}/{MANIFEST}"])
    root.delete([each for each in found if not each.endswith(f"/{MANIFEST}")])


class Shares:
    """What one of the other workers writes; the memory for it is used again."""

    def __init__(self) -> None:
        self._rooms: dict[int, torch.Tensor] = {}
        self._held: list[int] = []

    def take(self, parts: dict[str, Any], share: Share) -> bool:
        """Copy the share of a state, of any device. Returns whether there is any."""
        import torch

        from headway.checkpoint import flat

        laid = flat.layout(_shared(parts))
        chunks = laid.chunks(flat.CHUNK_BYTES)
        self._held = [number for number in range(_num_shared(parts)) if number % share.of == share.rank]
        for number in self._held:
            room = self._rooms.get(number)
            if room is None:
                room = self._rooms[number] = torch.empty(chunks[number].bytes, dtype=torch.uint8)
            flat.copy(chunks[number], laid.spans, room)
        for number in self._rooms.keys() - set(self._held):
            del self._rooms[number]
        return bool(self._held)

    def write(self, root: Storage, place: Place, waits: Callable[[], bool] = lambda: True) -> None:
        """Write what was taken, once the first worker has begun; not at all where it does not.

        Args:
            waits: whether that is waited for; asked again and again.

        Raises:
            OutOfReach: the first one writes what is missing.
        """
        here, deadline = root.at(f"{place.name}/"), time.monotonic() + BEGUN_S
        while not here.list(SKELETON):
            if time.monotonic() > deadline or not waits():
                return
            time.sleep(0.1)

        def put(number: int) -> None:
            _put(here, number, self._rooms[number].numpy().data)

        at_once(put, self._held, WRITERS)


def _awaited(here: Storage, missing: dict[str, tuple[int, int]], patience_s: float) -> Iterator[list[int]]:
    """Wait until the others' chunks are there; gives numbers of some that are to be written here when no more come.

    Args:
        missing: number and bytes of each by its name.
        patience_s: how long they may give no news.
    """
    missing, news, pause = dict(missing), time.monotonic(), 0.05
    while missing:
        before = len(missing)
        for entry in here.list():
            if entry.name in missing and missing[entry.name][1] == entry.bytes:
                del missing[entry.name]
        now = time.monotonic()
        if len(missing) < before:
            news = now
        elif now - news > patience_s:
            late = sorted(missing)[-WRITERS:]  # from the end: whoever is slow writes in order
            yield [missing.pop(name)[0] for name in late]
            continue
        if missing:
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)


def _shared(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: parts[name] for name in SHARED if name in parts}


def _num_shared(parts: dict[str, Any]) -> int:
    """How many chunks hold nothing but what is the same on all workers: those that it fills."""
    from headway.checkpoint import flat

    return sum(chunk.bytes == flat.CHUNK_BYTES for chunk in flat.layout(_shared(parts)).chunks(flat.CHUNK_BYTES))


def _put(here: Storage, number: int, content: Buffer) -> dict[str, Any]:
    """Write a chunk; returns what a manifest says of it."""
    part = _part(content)
    here.put(_name(number, part), content)
    return part


def _part(content: Buffer) -> dict[str, Any]:
    sha256, xxh3 = hashlib.sha256(content).hexdigest(), xxhash.xxh3_128(content).hexdigest()
    return {"bytes": len(content), "sha256": sha256, "xxh3": xxh3}


def _name(number: int, part: dict[str, Any]) -> str:
    return f"{number:05d}-{part['sha256'][:32]}"
