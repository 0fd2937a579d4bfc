"""A run's copy of the task's code, for machines that do not see the run's folder: an archive that travels by Ray.

~/.cache/headway/code/SHA256/    unpacked, once on each machine; see HEADWAY_CACHE
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headway.errors import RunFailed
from headway.runs.place import cache_folder

KEPT_S = 7 * 86400.0
"""A copy that nobody used for so long goes, when another is made."""


@dataclass(frozen=True)
class Packed:
    """An archive of a folder.

    Args:
        fetch: gives its content, wherever it is called.
        sha256: of the content.
    """

    fetch: Callable[[], bytes]
    sha256: str


def pack(folder: Path) -> bytes:
    """A folder as an archive; the same bytes for the same files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for top, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = Path(top) / name
                entry = archive.gettarinfo(path, str(path.relative_to(folder)))
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                entry.mtime = int(entry.mtime)
                if not entry.isreg():
                    continue
                with path.open("rb") as content:
                    archive.addfile(entry, content)
    return made.getvalue()


def unpacked(packed: Packed) -> Path:
    """The folder of this machine that holds what was packed.

    Raises:
        RunFailed: it cannot be made here, or what came is not what was sent.
    """
    folder = cache_folder() / "code"
    target = folder / packed.sha256
    if target.is_dir():
        with suppress(OSError):
            os.utime(target)
        return target
    content = packed.fetch()
    if hashlib.sha256(content).hexdigest() != packed.sha256:
        raise RunFailed("the task's code did not arrive whole", "its digest is another", "Resume the run.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(beside, filter="data")
            beside.chmod(0o755)
            _take(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        _clean(folder, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFailed(f"the task's code cannot be unpacked in {folder}", reason, "Set HEADWAY_CACHE there.") from None
    return target


def _take(beside: Path, target: Path) -> None:
    try:
        beside.rename(target)
    except OSError:
        if not target.is_dir():  # else another worker of this machine was faster
            raise


def _clean(folder: Path, used: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if path != used and time.time() - path.stat().st_mtime > KEPT_S:
                shutil.rmtree(path, ignore_errors=True)


def as_kept(text: str, sha256: str, folder: Path) -> str:
    """A text in which files of an unpacked copy, on whatever machine, are called by the run's own copy."""
    return re.sub(rf"[^\s\"'(<]*/code/{sha256}(?=/|\b)", lambda _: str(folder), text)
