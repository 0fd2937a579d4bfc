"""What is handed to the cluster: archives, named by their content, so that none is sent that is there.

gcs://_ray_pkg_SHA256.zip
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from headway.errors import BadInput
from headway.jobs.api.client import LARGEST, RayJobs

_WHEN = (1980, 1, 1, 0, 0, 0)
"""Of all files, as archives have no earlier time."""
SAID = 8 << 20
"""Bytes from which on it is told that they are sent."""
_NEVER = {"__pycache__", ".mypy_cache", ".ruff_cache"}
_PACKED = (".pyc", ".pyo")


@dataclass(frozen=True)
class Parcel:
    """An archive.

    Args:
        content: a zip; the same bytes for the same files.
        files: how many are in it.
    """

    content: bytes = field(repr=False)
    files: int

    @property
    def uri(self) -> str:
        """Ray's name for it."""
        return f"gcs://_ray_pkg_{hashlib.sha256(self.content).hexdigest()[:40]}.zip"

    @property
    def bytes(self) -> int:
        return len(self.content)


def packed(files: Mapping[str, Path | bytes]) -> Parcel:
    """An archive of files, by their names in it.

    Raises:
        BadInput: one cannot be read, or they are too many bytes for the cluster to take.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            given = files[name]
            content, mode = (given, 0o644) if isinstance(given, bytes) else _read(given)
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.create_system, entry.external_attr = 3, (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
            if made.tell() > LARGEST:
                raise _too_large(files)
    if made.tell() > LARGEST:
        raise _too_large(files)
    return Parcel(made.getvalue(), len(files))


def below(folder: Path, inside: str = "") -> dict[str, Path | bytes]:
    """The files of a folder, by their names in an archive.

    Args:
        inside: what those names begin with.

    Raises:
        BadInput: a folder cannot be read.
    """
    found: dict[str, Path | bytes] = {}
    for path in _walk(folder):
        found[str(Path(inside) / path.relative_to(folder))] = path
    return found


def _walk(folder: Path) -> Iterator[Path]:
    def cannot(error: OSError) -> None:
        raise BadInput(f"{error.filename} cannot be read", error.strerror or str(error), "It travels with the task.")

    for top, folders, names in os.walk(folder, onerror=cannot):
        folders[:] = sorted(name for name in folders if name not in _NEVER)
        yield from (Path(top) / name for name in sorted(names) if not name.endswith(_PACKED))


def _read(path: Path) -> tuple[bytes, int]:
    with _opened(path) as file:
        return file.read(), 0o755 if os.fstat(file.fileno()).st_mode & 0o100 else 0o644


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        reason = f"{error.strerror or error}, and it is to travel with the task"
        remedy = 'Mend that, or leave it behind: `files: ["!NAME"]` in the job.'
        raise BadInput(f"{path} cannot be read", reason, remedy) from None


def readable(path: Path) -> None:
    """Raises BadInput: a file that is to travel cannot be read."""
    _opened(path).close()


def _too_large(files: Mapping[str, Path | bytes]) -> BadInput:
    sizes = {name: len(given) if isinstance(given, bytes) else given.stat().st_size for name, given in files.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    fact = f"what is to travel is too large: {len(files)} files of {sum(sizes.values()) / 2**20:,.0f} MiB"
    most = f"Ray's job API takes {LARGEST >> 20} MiB as an archive"
    reason = f"{most}; the largest is {largest}, {sizes[largest] / 2**20:,.0f} MiB"
    return BadInput(fact, reason, 'Put large files into a store, and leave them behind: `files: ["!NAME"]` in the job.')


def headway() -> Parcel:
    """Headway's own package, as `py_modules` takes it: a folder of that name at the top."""
    import headway as package

    return packed(below(Path(package.__file__).parent, "headway"))


def deliver(api: RayJobs, parcels: list[Parcel], say: Callable[[str], None] = lambda _: None) -> int:
    """See to it that the cluster holds them; gives the bytes that were sent for that."""
    sent = 0
    for parcel in parcels:
        if not api.has_package(parcel.uri):
            if parcel.bytes > SAID:
                say(f"sending {parcel.bytes / 2**20:,.0f} MiB of {parcel.files} files")
            api.put_package(parcel.uri, parcel.content)
            sent += parcel.bytes
    return sent
