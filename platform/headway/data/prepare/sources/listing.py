"""What lies under a source: which files, in which order, of which format."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.data.prepare.sources.pixels import ENDINGS, FETCH, POINTER
from headway.errors import BadData, BadInput, nearest

PACKED = ("", ".gz", ".bz2", ".zst")
SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "csv": tuple(end + packed for end in (".csv", ".tsv") for packed in PACKED),
    "jsonl": tuple(end + packed for end in (".jsonl", ".ndjson", ".json") for packed in PACKED),
    "images": ENDINGS,
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "text": (".txt", ".text", ".md", ".rst", ".py"),
}
OURS = re.compile(r"manifest(-\d+)?\.json")

Piece = dict[str, Any]

NULLS_OF_PANDAS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""What pandas.read_csv takes for null unless told otherwise; Namibia's code is among them."""


@dataclass(frozen=True)
class Reading:
    """How text files are read.

    Args:
        encoding: of CSV and JSON lines, by Python's name for it; UTF-8, or what a byte order mark says, when None.
        null_values: fields of a CSV that are null, quoted or not.
        text_has_nulls: they are also where the column is text; not so in datasets begun by format 2.

    Raises:
        BadInput: there is no such encoding.
    """

    encoding: str | None = None
    null_values: tuple[str, ...] = ("",)
    text_has_nulls: bool = True

    def __post_init__(self) -> None:
        try:
            known = self.encoding is None or codecs.lookup(self.encoding)._is_text_encoding
        except LookupError:
            known = False
        if not known:
            remedy = "Write one like utf-16, cp1252 (Windows, Western Europe), latin-1 or shift_jis."
            raise BadInput(f"--encoding {self.encoding}", "no encoding of text has this name", remedy)

    @classmethod
    def asked(cls, encoding: str | None, null_values: str | None) -> Reading:
        """As on the command line.

        Args:
            encoding: as above.
            null_values: pandas for NULLS_OF_PANDAS; else values separated by commas, beside the empty one.
        """
        if null_values is None:
            return cls(encoding)
        if null_values == "pandas":
            return cls(encoding, NULLS_OF_PANDAS)
        return cls(encoding, tuple(dict.fromkeys(["", *null_values.split(",")])))


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
        notes: what is not kept or was changed, in words.
    """

    schema: pa.Schema
    pieces: list[Piece]
    read: Callable[[Piece, pa.Schema], Iterator[pa.Table]]
    label: str | None = None
    categories: dict[str, list[str]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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
            yield from (Path(place, name) for name in (*shown, *files) if not _hidden(name))
        seen.add(real)


def _hidden(name: str) -> bool:
    """Whether a file is passed over: .DS_Store, ._1.jpg, _SUCCESS; but not _DSC0001.JPG, as cameras name pictures."""
    return name.startswith(".") or (name.startswith("_") and not name.lower().endswith(SUFFIXES["images"]))


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
    files = sorted(set(files) - beside_tars(files))
    kinds = sorted({found for p in files if (found := _kind(p)) is not None})
    if not kinds:
        known = ", ".join(ending for endings in SUFFIXES.values() for ending in endings)
        reason = f"no file ends in {known}" if files else "the folder is empty"
        raise BadData(f"{src} is of no format that can be guessed", reason, "Give another source, or say --format.")
    if len(kinds) > 1:
        raise BadInput(f"{src} holds {' and '.join(kinds)}", "a dataset is made of one", "Say which with --format.")
    return kinds[0], [p for p in files if _kind(p) == kinds[0]]


def beside_tars(files: list[Path]) -> set[Path]:
    """What img2dataset writes beside its tars: 00000.parquet and 00000_stats.json beside 00000.tar."""
    tars = [path for path in files if path.name.endswith(".tar")]
    beside = {path.with_name(f"{path.stem}{rest}") for path in tars for rest in (".parquet", "_stats.json")}
    return beside & set(files)


def left_out(files: list[Path], of_kind: list[Path], kind: str) -> list[str]:
    """In words, which of the listed files are not read."""
    others = sorted(set(files) - set(of_kind))
    if not others:
        return []
    shown = ", ".join(path.name for path in others[:5]) + (", ..." if len(others) > 5 else "")
    return [f"{len(others)} of the files {'is' if len(others) == 1 else 'are'} not {kind} and not read: {shown}"]


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for kind, endings in SUFFIXES.items() if name.endswith(endings)), None)


def unreadable(path: str | Path, error: Exception) -> BadData:
    """The error for a file that cannot be read, in one line."""
    if _is_pointer(path):
        return BadData(f"{path} cannot be read", *FETCH)
    lines = str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__]
    return BadData(f"{path} cannot be read", lines[0].rstrip("."), "Mend or remove it.")


def _is_pointer(path: str | Path) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False
