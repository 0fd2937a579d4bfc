"""Checkpoints on disk: how one is written so that it is there whole or not at all, and how it is verified.

    checkpoints/step-00000400/manifest.json   sizes and digests of the parts, the cursor, the job, versions
                              model.pt  optimizer.pt  session.pt

Parts are written into `.writing-EPOCH-OWNER-STEP-*` and synced; one rename of that folder commits the checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from headway.durable import sync_folder, take_place
from headway.errors import BadCheckpoint

FORMAT = "headway-checkpoint/2"
EARLIER = ("headway-checkpoint/1",)  # without epoch, and never looked at for NaN when it was written
MANIFEST = "manifest.json"
LEAVING_S = 300.0
"""For so long after the last write in it, what another worker was writing may yet be committed."""
_WRITING = re.compile(r"\.writing-e(\d+)-(.*)-\d{8,}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint.

    Args:
        folder: where it is.
        step: the number of steps committed before it was taken.
        job: digest of what decides the run's result.
        bytes: of all parts.
        parts: size and SHA-256 of each part by file name.
        facts: run, reason, cursor, metrics, versions.
        epoch: of the process that led the run; 0 in those of an earlier release.
        finite: whether it was looked at for NaN before it was written.
    """

    folder: Path
    step: int
    job: str
    bytes: int
    parts: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    epoch: int = 0
    finite: bool = False

    def load(self, device: Any = "cpu") -> dict[str, Any]:
        """The parts as trees of tensors and plain values."""
        import pickle

        import torch

        loaded = {}
        for name in self.parts:
            try:
                loaded[name.removesuffix(".pt")] = torch.load(
                    self.folder / name, map_location=device, weights_only=True
                )
            except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise BadCheckpoint(f"{self.folder / name} cannot be loaded", reason, "") from error
        return loaded

    def verify(self) -> None:
        """Read every part and compare its digest.

        Raises:
            BadCheckpoint: naming the part.
        """
        for name, part in self.parts.items():
            path = self.folder / name
            if not path.is_file():
                raise BadCheckpoint(f"{path} is missing", "the checkpoint is incomplete", "")
            size = path.stat().st_size
            if size != part["bytes"]:
                raise BadCheckpoint(f"{path} has {size} bytes", f"its manifest says {part['bytes']}", "")
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise BadCheckpoint(f"{path} cannot be read", str(error), "") from error
            if digest != part["sha256"]:
                raise BadCheckpoint(f"{path} was altered", "its digest is not the manifest's", "")


def read(folder: Path) -> Checkpoint:
    """The checkpoint in a folder, by its manifest.

    Raises:
        BadCheckpoint: no manifest, or one that is damaged.
    """
    try:
        tree = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        body, digest = tree["checkpoint"], tree["sha256"]
        if _digest(body) != digest:
            raise BadCheckpoint(f"{folder / MANIFEST} was altered", "its own digest does not match", "")
        if body["format"] not in (FORMAT, *EARLIER):
            raise BadCheckpoint(
                f"{folder} has format {body['format']!r}",
                f"this Headway reads {FORMAT!r}",
                "Resume with the release that wrote it, or move it away.",
            )
        kept = (body["step"], body["job"], body["bytes"], body["parts"], body["facts"])
        return Checkpoint(folder, *kept, epoch=body.get("epoch", 0), finite=body["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{folder} is no checkpoint", f"its manifest cannot be read ({error})", "") from error


def write(
    root: Path,
    step: int,
    job: str,
    parts: dict[str, Any],
    facts: dict[str, Any],
    allowed: Callable[[], bool] = lambda: True,
    owner: str = "",
    epoch: int = 0,
) -> Checkpoint | None:
    """Write and commit a checkpoint.

    Args:
        root: folder of all checkpoints of the run.
        step: number of steps committed.
        job: digest of what decides the run's result.
        parts: trees of tensors and plain values by part name.
        facts: kept in the manifest.
        allowed: asked just before the commit; False commits nothing.
        owner: who writes.
        epoch: of the process that leads the run.

    Returns:
        The checkpoint, or None if it was not allowed.

    Raises:
        OSError: the disk is full or gone; nothing half-written stays.
    """
    target = root / f"step-{step:08d}"
    temporary = root / f".writing-e{epoch:06d}-{owner}-{step:08d}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    try:
        written = {f"{name}.pt": _write_part(temporary / f"{name}.pt", tree) for name, tree in parts.items()}
        size = sum(part["bytes"] for part in written.values())
        body = {
            "format": FORMAT,
            "step": step,
            "epoch": epoch,
            "job": job,
            "bytes": size,
            "parts": written,
            "facts": facts,
        }
        text = json.dumps({"checkpoint": body, "sha256": _digest(body)}, indent=1)
        _write_file(temporary / MANIFEST, lambda file: file.write(text.encode()))
        sync_folder(temporary)
        if not allowed():
            shutil.rmtree(temporary, ignore_errors=True)
            return None
        _take_place(temporary, target)
        sync_folder(root)
    except BaseException:  # raised again: nothing half-written stays, whatever the cause
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Checkpoint(target, step, job, size, written, facts, epoch, finite=True)


def clean(root: Path, owner: str = "", epoch: int = 0) -> None:
    """Remove what an interrupted write left behind, and put back what it had moved aside.

    What somebody else of this epoch is writing stays until nothing in it has changed for `LEAVING_S`: a worker that
    leaves may be finishing it. What was begun in an earlier epoch, or by `owner`, nobody will finish.
    """
    for path in root.glob(".replaced-*"):
        target = root / path.name.removeprefix(".replaced-")
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)
    for path in root.glob(".writing-*"):
        named = _WRITING.fullmatch(path.name)
        theirs = named is not None and int(named[1]) >= epoch and named[2] != owner
        if not theirs or time.time() - _touched(path) > LEAVING_S:
            shutil.rmtree(path, ignore_errors=True)


def _touched(folder: Path) -> float:
    """When something in a folder was last written; 0.0 where it is gone."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return 0.0


def _take_place(temporary: Path, target: Path) -> None:
    """Rename; what has the name already is a damaged one, or one of an earlier attempt."""
    aside = target.with_name(f".replaced-{target.name}")
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    take_place(temporary, target, aside)
    shutil.rmtree(aside, ignore_errors=True)


class _Tee(io.RawIOBase):
    """Counts and digests what is written through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.bytes = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)


def _write_part(path: Path, tree: Any) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {}

    def save(file: IO[bytes]) -> None:
        tee = _Tee(file)
        torch.save(tree, cast(IO[bytes], tee))
        found.update(bytes=tee.bytes, sha256=tee.digest.hexdigest())

    _write_file(path, save)
    return found


def _write_file(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    with path.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
