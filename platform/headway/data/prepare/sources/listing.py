"""What lies under a source: which files, in which order, of which format."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.errors import BadData, BadInput, nearest

SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".jsonl.gz"),
    "images": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "text": (".txt", ".text", ".md", ".rst", ".py"),
}
OURS = re.compile(r"manifest(-\d+)?\.json")

Piece = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How a source is read: a list of pieces, each read by one task, in the order of rows.

    Args:
        schema: of the dataset, and so of the table that every piece becomes.
        pieces: plain values that `read` understands.
        read: gives the tables of one piece, a few MiB each; runs anywhere.
        label: the column that the format itself provides as the label.
        categories: the names behind integer codes.
        files: all that is read.
    """

    schema: pa.Schema
    pieces: list[Piece]
    read: Callable[[Piece, pa.Schema], Iterator[pa.Table]]
    label: str | None = None
    categories: dict[str, list[str]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def listed(src: Path) -> list[Path]:
    """The source's files by path: itself, or all below it but hidden ones, those named _..., and manifests.

    Raises:
        BadData: the source does not exist, cannot be listed, or holds a link that leads nowhere.
    """
    if "://" in str(src) or (not src.exists() and ":/" in str(src)):
        raise BadData(f"{src} is an address", "sources are files or folders of this machine", "Mount or copy it.")
    if not src.exists():
        reason = "it is a link that leads nowhere" if src.is_symlink() else "it does not exist"
        raise BadData(f"{src} cannot be read", reason, "Give a file, or a folder of files.")
    if not src.is_dir():
        return [src]
    try:
        below = sorted(_below(src))
        broken = next((p for p in below if p.is_symlink() and not p.exists()), None)
        files = [p for p in below if p.is_file() and not OURS.fullmatch(p.name)]
    except OSError as error:
        raise BadData(
            f"{error.filename or src} cannot be read", error.strerror or "", "Mend its permissions."
        ) from None
    if broken is not None:
        raise BadData(f"{broken} cannot be read", "it is a link that leads nowhere", "Remove or mend it.")
    return files


def _below(folder: Path) -> Iterator[Path]:
    """All in it and below but what is hidden; linked folders too, each but once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raised):
        real = os.path.realpath(place)
        shown = [] if real in seen else [name for name in folders if not name.startswith((".", "_"))]
        folders[:] = shown
        if real not in seen:
            yield from (Path(place, name) for name in (*shown, *files) if not name.startswith((".", "_")))
        seen.add(real)


def _raised(error: OSError) -> None:
    raise error


def chosen(src: Path, files: list[Path], kind: str | None) -> tuple[str, list[Path]]:
    """The format, guessed where it is not given, and the files that are of it.

    Raises:
        BadInput: no such format, no file of it, or no single guess.
    """
    if kind is not None:
        if kind not in SUFFIXES:
            raise BadInput(f"--format {kind}", "no such format", nearest(kind, list(SUFFIXES)))
        of_kind = files if kind == "text" or not src.is_dir() else [p for p in files if _kind(p) == kind]
        if not of_kind:
            raise BadData(
                f"{src} has no {kind} files", f"they end in {', '.join(SUFFIXES[kind])}", "Give another source."
            )
        return kind, of_kind
    kinds = sorted({found for p in files if (found := _kind(p)) is not None})
    if not kinds:
        known = ", ".join(ending for endings in SUFFIXES.values() for ending in endings)
        reason = f"no file ends in {known}" if files else "the folder is empty"
        raise BadData(f"{src} is of no format that can be guessed", reason, "Give another source, or say --format.")
    if len(kinds) > 1:
        raise BadInput(f"{src} holds {' and '.join(kinds)}", "a dataset is made of one", "Say which with --format.")
    return kinds[0], [p for p in files if _kind(p) == kinds[0]]


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for kind, endings in SUFFIXES.items() if name.endswith(endings)), None)


def unreadable(path: str | Path, error: Exception) -> BadData:
    """The error for a file that cannot be read, in one line."""
    lines = str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__]
    return BadData(f"{path} cannot be read", lines[0].rstrip("."), "Mend or remove it.")
