"""Names on a disk that change at once and stay changed: what datasets and checkpoints are committed with."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, renames in it among them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_place(folder: Path, target: Path, aside: Path) -> None:
    """Rename a folder to `target`; what has that name already goes to `aside`, and back if the rename fails.

    The caller removes `aside` when it is done. All three lie on one file system.

    Raises:
        OSError: as the file system says; `target` is then what it was.
    """
    if target.exists():
        target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
