"""Folders of images: rows are `image` (uint8 [H, W], or [H, W, 3] where one of them is in colour) and `label` (int64).

SRC/CLASS/.../NAME.png: the class is the first folder. Images that lie in SRC itself, all of them, have no label: rows
are `image` alone, in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from headway.core.keys import key
from headway.core.order import permutation
from headway.data.prepare.sources.listing import Piece, Plan
from headway.data.prepare.sources.pixels import WORDS, Header, Look, header_of, largest, pixels_of, white_for
from headway.data.tensors import TensorType, column
from headway.data.write.sizing import GROUP_BYTES
from headway.errors import BadData, BadInput

MAX_FILES = 512
LOOKED_INTO = 256
"""So many images of 32-bit integers, and of floats, are read to find what is white in them."""
PARTS = frozenset(("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"))
TOLD = 3


def size_of(text: str) -> tuple[int, int]:
    """(height, width) from text like 32x48.

    Raises:
        BadInput: it is not like that.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise BadInput(f"--image-size {text}", "not a height and a width", "Write it like --image-size 32x48.")
    return int(height), int(width)


class Seen:
    """What the headers of a set's images say, together.

    Args:
        size: height and width if images are resized.
        where: which images these are, for notes.
    """

    def __init__(self, size: tuple[int, int] | None, where: str = "") -> None:
        self._size, self._where = size, where
        self._kinds: dict[str, list[str]] = {}
        self._first: dict[str, str] = {}
        self._odd: tuple[str, Header] | None = None
        self._one: Header | None = None
        self._most: dict[str, tuple[float, str]] = {}
        self.count = 0

    def add(self, name: str, header: Header) -> None:
        """An image of the set."""
        self.count += 1
        self._first.setdefault("grey" if header.grey else "colour", name)
        self._first.setdefault("any", name)
        self._one = self._one or header
        if self._odd is None and (header.height, header.width) != (self._one.height, self._one.width):
            self._odd = name, header
        kinds = {
            "grey": header.grey,
            "alpha": header.alpha,
            "turned": header.orientation > 1,
            "no exif": header.orientation == 0,
            "CMYK": header.mode == "CMYK",
            "profile": header.profile and header.mode != "CMYK",
            "several": header.several,
            "deep": isinstance(header.deep, int) and header.deep > 0,
            "I": header.deep == "I",
            "F": header.deep == "F",
        }
        for kind, is_so in kinds.items():
            if is_so:
                self._kinds.setdefault(kind, []).append(name)

    def of(self, kind: str) -> list[str]:
        """The images of a kind, as I or F."""
        return self._kinds.get(kind, [])

    def found(self, deep: str, most: float, name: str) -> None:
        """The largest value of one image of 32-bit integers (I) or floats (F)."""
        if deep not in self._most or most > self._most[deep][0]:
            self._most[deep] = most, name

    def look(self) -> Look:
        """What all have in common.

        Raises:
            BadData: two are of different sizes, and nobody said to resize; or a range of values is not known.
        """
        assert self._one is not None
        first, one = self._first["any"], self._one
        if self._odd is not None and self._size is None:
            name, odd = self._odd
            fact, reason = f"{name} is {odd.height}x{odd.width}", f"{first} is {one.height}x{one.width}"
            raise BadData(fact, reason, "Resize all with --image-size HxW.")
        shape = self._size or (one.height, one.width)
        white = {deep: white_for(deep, most, name) for deep, (most, name) in self._most.items()}
        coloured = "colour" in self._first
        return Look((*shape, 3) if coloured else shape, self._size is not None, first, white)

    def notes(self) -> list[str]:
        """What of the images is not kept, or changed, in words."""
        look = self.look()
        said = {
            "alpha": ("transparent in part", "alpha is not kept, the colour under it is"),
            "CMYK": ("in CMYK", "brought to RGB by Pillow, without a colour profile"),
            "profile": ("with a colour profile that is not sRGB", "their numbers are kept, the profile is not"),
            "several": ("of several pictures in a file", "the first is kept"),
            "deep": ("greys of 12 or 16 bits", "their upper 8 are kept"),
            **{d: (f"{WORDS[d]}", f"0 is black and {white:,} is white") for d, white in look.white.items()},
            "turned": ("not stored upright", "turned as their EXIF orientation says"),
            "no exif": ("with an EXIF block that cannot be read", "taken as they are stored"),
        }
        if "colour" in self._first:
            said = {"grey": ("grey", "kept with three equal channels, as others are in colour"), **said}
        return [self._told(kind, *words) for kind, words in said.items() if self.of(kind)]

    def _told(self, kind: str, what: str, so: str) -> str:
        names = self.of(kind)
        example = f"{names[0]}{', ...' * (len(names) > 1)}"
        return f"{len(names):,} of {self.count:,} images{self._where}, {what} ({example}): {so}"


def plan_images(src: Path, files: list[Path], size: tuple[int, int] | None, known: Sequence[str] = ()) -> Plan:
    """Chunks of files in a seeded random order: by name they would come sorted by class, and shuffle badly.

    The headers of all are read: they are in colour if one is. Classes that are known keep their codes; new ones get the
    next.

    Args:
        src: absolute.
        files: absolute, at least one.
        size: height and width to which images are resized.
        known: classes of the dataset that is appended to.

    Raises:
        BadData: some have no class, some cannot be read, or they differ in size.
    """
    labelled = _have_classes(src, files)
    seen = _seen(files, size)
    look, notes = seen.look(), seen.notes()
    if labelled:
        classes = [*known, *sorted({path.relative_to(src).parts[0] for path in files} - set(known))]
        mixed = [files[at] for at in permutation(len(files), key("images", len(files)))]
        rows = [(str(path), classes.index(path.relative_to(src).parts[0])) for path in mixed]
        deeper = next((path for path in files if len(path.relative_to(src).parts) > 2), None)
        if deeper is not None:
            parts = deeper.relative_to(src).parts
            notes.append(f"folders within a class folder say no class: {'/'.join(parts[:-1])} is of class {parts[0]}")
    else:
        classes = []
        rows = [(str(path), -1) for path in files]
        notes.append("the images lie in no class folders (SRC/CLASS/NAME.png): rows have no label")
    count = max(1, min(MAX_FILES, GROUP_BYTES // int(np.prod(look.shape))))
    pieces = [{"rows": rows[at : at + count], "look": asdict(look)} for at in range(0, len(rows), count)]
    fields = [("image", TensorType("uint8", look.shape)), *([("label", pa.int64())] if labelled else [])]
    categories = {"label": classes} if labelled else {}
    return Plan(pa.schema(fields), pieces, read_images, "label" if labelled else None, categories, notes=notes)


def read_images(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The pixels and classes of some files; one table. Those that cannot be read are named together."""
    look, images, bad = look_of(piece["look"]), [], []
    for path, _ in piece["rows"]:
        try:
            images.append(pixels_of(path, path, look))
        except BadData as error:
            bad.append(error)
    if bad:
        raise _together(bad)
    table = pa.table({"image": column(np.stack(images)).storage})
    if "label" in schema.names:
        table = table.append_column("label", pa.array([label for _, label in piece["rows"]], pa.int64()))
    yield table


def look_of(plain: dict[str, object]) -> Look:
    """A look out of what a piece holds, which has been JSON."""
    look = Look(**plain)  # type: ignore[arg-type]
    return Look(tuple(look.shape), look.resized, look.first, look.white)


def _have_classes(src: Path, files: list[Path]) -> bool:
    """Whether images lie in class folders: all do, or none does."""
    loose = [path for path in files if path.parent == src or path == src]
    if loose and len(loose) < len(files):
        deep = next(path for path in files if path.parent != src)
        reason = f"others lie in class folders, as {deep.relative_to(src)}"
        raise BadData(f"{loose[0]} has no class", reason, "Lay all out as SRC/CLASS/NAME.png, or none in a folder.")
    tops = {} if loose else {path.relative_to(src).parts[0].lower(): path.relative_to(src).parts[0] for path in files}
    if len(tops) > 1 and set(tops) <= PARTS:
        names = sorted(tops.values())
        fact, reason = f"{src} holds {' and '.join(names)}", "these would be taken for classes"
        raise BadData(fact, reason, f"Prepare each by itself, as {src / names[0]}.")
    return not loose


def _seen(files: list[Path], size: tuple[int, int] | None) -> Seen:
    """The headers of all files; those that cannot be used are named together."""
    seen, bad = Seen(size), []
    for path in files:
        try:
            seen.add(str(path), header_of(path, str(path)))
        except BadData as error:
            bad.append(error)
    for deep in WORDS:
        names = seen.of(deep)
        for name in names[:: max(1, len(names) // LOOKED_INTO)][:LOOKED_INTO]:
            try:
                seen.found(deep, largest(name, name), name)
            except BadData as error:
                bad.append(error)
    if bad:
        raise _together(bad)
    return seen


def _together(errors: list[BadData]) -> BadData:
    """One error for all: the first, and the facts of some others."""
    first, others = errors[0], errors[1:]
    if not others:
        return first
    more = "; ".join(f"{error.fact}: {error.reason}" for error in others[:TOLD])
    rest = f"; and {len(others) - TOLD:,} more" if len(others) > TOLD else ""
    return BadData(first.fact, f"{first.reason}. Also: {more}{rest}", first.remedy)
