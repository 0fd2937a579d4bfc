"""A checkpoint of one run as another's: the same bytes under another manifest, which says where they come from."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headway.checkpoint.found import FORMAT, MANIFEST, SKELETON, Checkpoint, at_once, sealed
from headway.checkpoint.writing import Place
from headway.durable import sync_folder
from headway.errors import BadCheckpoint
from headway.storage.commit import commit, nonce
from headway.storage.folder import FolderStorage
from headway.storage.protocol import ABSENT, Buffer, Storage

COPIES = 4
"""Chunks that are copied at a time, where they cannot be linked."""
BLOCK_BYTES = 4 << 20
ORIGIN = "origin"
"""Fact of a checkpoint that was another run's: run, step, exact."""


def fork(checkpoint: Checkpoint, root: Storage, epoch: int, job: str, facts: Mapping[str, Any]) -> Checkpoint:
    """Let another run have a checkpoint as its own.

    Args:
        checkpoint: of chunks.
        root: the other run's checkpoints.
        epoch: of the process that leads the other run.
        job: digest of what decides the other run's result.
        facts: of it, laid over the checkpoint's.

    Raises:
        BadCheckpoint: it is damaged, or of an earlier release.
        OutOfReach, BadInput: it cannot be written there; what is there counts for nothing.
    """
    if not checkpoint.chunk_bytes:
        raise BadCheckpoint(f"{checkpoint.where} cannot be begun with", "an earlier release wrote it", "")
    place = Place(checkpoint.step, epoch, f"of-{nonce()[:12]}")
    here = root.at(f"{place.name}/")
    try:
        at_once(lambda part: _bring(checkpoint, here, *part), checkpoint.parts.items(), COPIES)
    except (FileNotFoundError, EOFError):
        raise BadCheckpoint(f"{checkpoint.where} is incomplete", "a part of it is missing or too short", "") from None
    if isinstance(here, FolderStorage):
        sync_folder(Path(here.url))
    told = {**checkpoint.facts, **facts}
    body = {"format": FORMAT, "step": checkpoint.step, "epoch": epoch, "job": job, "bytes": checkpoint.bytes}
    chunks = [{"name": name, **part} for name, part in checkpoint.parts.items() if name != SKELETON]
    body |= {"skeleton": checkpoint.parts[SKELETON], "chunk_bytes": checkpoint.chunk_bytes, "chunks": chunks}
    commit(here, MANIFEST, sealed({**body, "facts": told}), ABSENT)
    return replace(checkpoint, place=here, name=place.name, job=job, facts=told, epoch=epoch)


def _bring(checkpoint: Checkpoint, here: Storage, name: str, part: dict[str, Any]) -> None:
    """One object. On one disk it gets a second name: nobody ever writes into one."""
    source = checkpoint.place
    if isinstance(source, FolderStorage) and isinstance(here, FolderStorage) and _linked(source, here, name, part):
        return
    here.upload(name, _blocks(source, name, int(part["bytes"])))


def _linked(source: FolderStorage, here: FolderStorage, name: str, part: dict[str, Any]) -> bool:
    old, new = Path(source.url) / name, Path(here.url) / name
    if old.stat().st_size != part["bytes"]:
        raise EOFError(f"{old} has another size")
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False  # another disk, or one that knows no second names
    return True


def _blocks(source: Storage, name: str, size: int) -> Iterator[Buffer]:
    for at in range(0, size, BLOCK_BYTES):
        yield source.read(name, at, min(BLOCK_BYTES, size - at))
