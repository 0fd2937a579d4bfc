"""Checkpoints of formats 1 and 2, in folders: read, verified and let go; nothing writes them any more.

    step-00000400/manifest.json   sizes and digests of the parts
                  model.pt  optimizer.pt  session.pt

They were written beside their place, and put there by a rename.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.checkpoint.found import MANIFEST, Checkpoint, opened
from headway.errors import BadCheckpoint
from headway.storage.folder import FolderStorage

FORMATS = ("headway-checkpoint/1", "headway-checkpoint/2")
"""The first is without epoch, and was never looked at for NaN when it was written."""


@dataclass(frozen=True)
class Earlier(Checkpoint):
    """See the module."""

    def load(self, only: Collection[str] | None = None) -> dict[str, Any]:
        import pickle

        import torch

        self.verify()
        loaded = {}
        for name in self.parts:
            path = Path(self.where) / name
            if only is not None and name.removesuffix(".pt") not in only:
                continue
            try:
                loaded[name.removesuffix(".pt")] = torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise BadCheckpoint(f"{path} cannot be loaded", reason, "") from error
        return loaded

    def verify(self) -> None:
        for name, part in self.parts.items():
            path = Path(self.where) / name
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


def read(folder: Path) -> Earlier:
    """The checkpoint in a folder, by its manifest.

    Raises:
        BadCheckpoint: no manifest, or one that is damaged.
    """
    try:
        body = opened((folder / MANIFEST).read_bytes(), str(folder / MANIFEST), FORMATS)
        kept = (body["step"], body["job"], body["bytes"], body["parts"], body["facts"])
        more = {"epoch": body.get("epoch", 0), "finite": body["format"] != FORMATS[0]}
        return Earlier(FolderStorage(folder), folder.name, *kept, **more)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{folder} is no checkpoint", f"its manifest cannot be read ({error})", "") from error


def names(root: Path) -> list[str]:
    """Folders of them."""
    return sorted({path.parent.name for path in root.glob("step-*/*.pt")})


def remove(root: Path, name: str) -> None:
    """Let one go: its manifest first, and no folder in it."""
    for path in (root / name / MANIFEST, *(root / name).glob("*.pt")):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # another checkpoint of that step is in it
        (root / name).rmdir()


def clean(root: Path) -> None:
    """Put back what an interrupted write moved aside, and remove what it left."""
    for path in root.glob(".replaced-*"):
        target = root / path.name.removeprefix(".replaced-")
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)
    for path in root.glob(".writing-*"):
        shutil.rmtree(path, ignore_errors=True)
