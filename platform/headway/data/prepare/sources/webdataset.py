"""WebDataset tars, as img2dataset and others write them: a sample is a row, in the order of the tar.

Columns: `key`; `image` (uint8 [H, W] or [H, W, 3]) from an image member; `label` from .cls (int64, or text if no
number); `text` from .txt; the fields of the object in .json, each by its name; any other member as binary, by its
ending. A field of the JSON that has the name of another column is kept once where it says the same, as img2dataset's
`key`, and is named `json.NAME` where not. Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.data.prepare.sources.fields import NULL, Held, fitted
from headway.data.prepare.sources.images import Seen, look_of
from headway.data.prepare.sources.listing import SUFFIXES, Piece, Plan, unreadable
from headway.data.prepare.sources.pixels import header_of, largest, pixels_of
from headway.data.prepare.sources.tars import Passed, Sample, samples
from headway.data.tensors import TensorType
from headway.data.write.sizing import GROUP_BYTES
from headway.errors import BadData, BadInput

SAMPLED_TARS = 16
SAMPLED = 256
SAMPLED_BYTES = 4 << 20
BATCH_ROWS = 4096
JSON, LABEL = "json", "label"
PICKLES = frozenset(("pyd", "pkl", "pickle", "pth", "pt"))
ALIKE = "Make the samples alike, or have a tar that begins with such a sample come first by its name."
NUMBER = re.compile(r"[+-]?\d+(?P<rest>(\.\d*)?([eE][+-]?\d+)?)", re.ASCII)


@dataclass
class _Row:
    """A sample's columns: those of its members, and apart from them the fields of its JSON.

    What is no JSON object is a field named json.
    """

    members: dict[str, Any]
    fields: dict[str, Any]
    is_object: bool | None = None
    image: str | None = None


@dataclass
class _Column:
    """What was seen of a column."""

    held: Held = field(default_factory=Held)
    binary: bool = False


def plan_webdataset(files: list[Path], size: tuple[int, int] | None) -> Plan:
    """A piece per tar. Columns and types are those of the first samples of up to 16 tars.

    Args:
        files: the tars.
        size: height and width to which images are resized.

    Raises:
        BadData: a tar cannot be read, or two members make one column.
        BadInput: there is a size, and there are no images.
    """
    looked = _Looked(Seen(size, " looked at"))
    for path in files[:: max(1, len(files) // SAMPLED_TARS)][:SAMPLED_TARS]:
        num_bytes = 0
        for number, (key, sample) in enumerate(samples(path, looked.passed)):
            if number >= SAMPLED and num_bytes >= SAMPLED_BYTES:
                break
            num_bytes += sum(map(len, sample.values()))
            looked.add(path, key, sample)
    if size is not None and not looked.seen.count:
        raise BadInput(f"--image-size {size[0]}x{size[1]}", "the samples have no images", "Leave it out.")
    look = asdict(looked.seen.look()) if looked.seen.count else None
    schema = looked.schema()
    known = {"look": look, "once": looked.once(), "renamed": looked.renamed(), "as_text": looked.as_text()}
    pieces = [{"path": str(path), **known} for path in files]
    return Plan(schema, pieces, read_webdataset, LABEL if LABEL in schema.names else None, notes=looked.notes())


def read_webdataset(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The samples of a tar, a few MiB at a time; a column that a sample has not is null."""
    path, look = Path(piece["path"]), look_of(piece["look"]) if piece["look"] else None
    as_text = {tuple(place) for place in piece["as_text"]}
    types = {column.name: column.type for column in schema}
    rows: list[dict[str, Any]] = []
    size = 0
    for key, sample in samples(path):
        row = _row(path, key, sample)
        values = _fitted(path, key, _merged(path, key, row, piece), types, as_text)
        if row.image is not None:
            assert look is not None
            values["image"] = pixels_of(io.BytesIO(sample[row.image]), f"{path}: {key}.{row.image}", look).tobytes()
        elif "image" in types:
            raise BadData(f"{path}: {key} has no image", "the first samples have", ALIKE)
        rows.append(values)
        size += sum(map(len, sample.values())) + len(values.get("image", b""))
        if size >= GROUP_BYTES or len(rows) >= BATCH_ROWS:
            yield _table(path, rows, schema)
            rows, size = [], 0
    if rows:
        yield _table(path, rows, schema)


class _Looked:
    """What the first samples of some tars hold."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.passed = seen, Passed()
        self._columns: dict[str, _Column] = {}
        self._fields: dict[str, Held] = {}
        self._differ: set[str] = set()
        self._objects: set[bool | None] = set()
        self._order: dict[tuple[bool, str], None] = {}

    def add(self, path: Path, key: str, sample: Sample) -> None:
        """One sample."""
        row = _row(path, key, sample)
        for name, value in row.members.items():
            column = self._columns.setdefault(name, _Column())
            self._order.setdefault((False, name))
            try:
                column.binary |= isinstance(value, bytes)
                column.held.add(value)
            except ValueError as error:
                raise unreadable(f"{path}: {key}.cls", error) from None
        for name, value in row.fields.items():
            self._order.setdefault((True, name))
            try:
                self._fields.setdefault(name, Held()).add(value)
            except ValueError as error:
                raise unreadable(f"{path}: {name!r} in {key}.{JSON}", error) from None
            if not _same(name, value, row):
                self._differ.add(name)
        if row.image is not None:
            where, image = f"{path}: {key}.{row.image}", sample[row.image]
            header = header_of(io.BytesIO(image), where)
            self.seen.add(where, header)
            if isinstance(header.deep, str):
                self.seen.found(header.deep, largest(io.BytesIO(image), where), where)
        self._objects.add(row.is_object)
        if {True, False} <= self._objects:
            reason = f"it is {'an' if row.is_object else 'no'} JSON object, and others are not like it"
            raise BadData(f"{path}: {key}.{JSON} cannot be read", reason, ALIKE)
        if LABEL in self._columns and self._columns[LABEL].held.mixed:
            raise BadData(f"{path}: {key}.cls is {row.members[LABEL]!r}", "others are not of its kind", ALIKE)

    def once(self) -> list[str]:
        """Fields of the JSON that say what another column does."""
        return [name for name in self._fields if name in self._taken() and name not in self._differ]

    def renamed(self) -> dict[str, str]:
        """Fields of the JSON that have another column's name, and theirs."""
        return {name: f"{JSON}.{name}" for name in self._fields if name in self._taken() and name in self._differ}

    def as_text(self) -> list[list[str]]:
        """Places in fields of the JSON that are kept as text."""
        return [list(place) for place, _ in self._as_text()]

    def schema(self) -> pa.Schema:
        """The columns, in the order in which they were first seen."""
        once, renamed, fields = self.once(), self.renamed(), {}
        for is_field, name in self._order:
            if not is_field:
                fields[name] = self._member_type(name)
            elif name not in once:
                fields[renamed.get(name, name)] = self._fields[name].type()
        return pa.schema(list(fields.items()))

    def notes(self) -> list[str]:
        """What of the samples is not kept, or changed, in words."""
        found = self.seen.notes() if self.seen.count else []
        if "image" not in self._columns and self._columns:
            found.append("the samples have no image member (as 0001.jpg): no column is made of pixels")
        kept = sorted(name for name, column in self._columns.items() if column.binary)
        if kept:
            pickled = " (pickles are not unpacked)" if {name.rpartition(".")[2] for name in kept} & PICKLES else ""
            found.append(f"members that end in {', '.join(f'.{name}' for name in kept)} are kept as they are{pickled}")
        found += [f"{name!r} in the JSON says what the column {name!r} does, and is kept once" for name in self.once()]
        found += [
            f"{name!r} in the JSON is kept as {new!r}: another column has its name"
            for name, new in self.renamed().items()
        ]
        as_text = [(".".join(place), what) for place, what in self._as_text()]
        found += [f"{place!r} in the JSON is {what}: kept as text" for place, what in as_text if what != NULL]
        null = [repr(place) for place, what in as_text if what == NULL]
        if null:
            found.append(f"null in all samples looked at, and kept as text: {', '.join(null)} in the JSON")
        if self.passed.names:
            some = f"{self.passed.names[0]}{', ...' * (len(self.passed.names) > 1)}"
            found.append(f"members that belong to no sample are not read ({some})")
        return found

    def _taken(self) -> set[str]:
        return {"key", *self._columns}

    def _as_text(self) -> Iterator[tuple[tuple[str, ...], str]]:
        once, renamed = self.once(), self.renamed()
        for name, held in self._fields.items():
            if name not in once:
                yield from held.as_text((renamed.get(name, name),))

    def _member_type(self, name: str) -> pa.DataType:
        if name == "image" and self.seen.count:
            return TensorType("uint8", self.seen.look().shape)
        return pa.binary() if self._columns[name].binary else self._columns[name].held.type()


def _row(path: Path, key: str, sample: Sample) -> _Row:
    """A sample's values, except the pixels of its image."""
    row = _Row({"key": key}, {})
    try:
        key.encode()
    except UnicodeError:
        raise BadData(f"{path}: {key!r} is no text", "a member's name is not UTF-8", "Pack it anew.") from None
    for ending, content in sample.items():
        try:
            if ending == JSON:
                tree = json.loads(content)
                row.is_object = isinstance(tree, dict)
                row.fields = tree if row.is_object else {JSON: tree}
                if b"\\ud" in content.lower():
                    json.dumps(tree, ensure_ascii=False).encode()  # half a surrogate pair is no text
                continue
            name, value = _member(ending, content)
        except (ValueError, RecursionError) as error:  # not text, not JSON, or nested too deeply
            raise unreadable(f"{path}: {key}.{ending}", error) from None
        if name == "image":
            if row.image is not None:
                fact, reason = f"{path}: {key} has two images, .{row.image} and .{ending}", "a row has one"
                raise BadData(fact, reason, "Leave one out, or name it like 0001.second.jpg: it is kept as it is.")
            row.image = ending
        elif name in row.members:
            raise BadData(f"{path}: {key}.{ending} makes a second {name!r}", "a sample has one of each", "Rename one.")
        row.members[name] = value
    return row


def _member(ending: str, content: bytes) -> tuple[str, Any]:
    """The column of a member, and its value."""
    if f".{ending}" in SUFFIXES["images"]:
        return "image", None
    if ending == "cls":
        return LABEL, _label(content.decode("utf-8-sig").strip())
    if ending in ("txt", "text"):
        return "text", content.decode("utf-8-sig")
    return ending, content


def _label(text: str) -> int | float | str:
    number = NUMBER.fullmatch(text)
    if number is None:
        return text
    return float(text) if number["rest"] else int(text)


def _same(name: str, value: Any, row: _Row) -> bool:
    """Whether a field of the JSON says what the column of its name does, or nothing."""
    if value is None or (name == "key" and value in (row.members["key"], row.members["key"].rpartition("/")[2])):
        return True
    own = row.members.get(name)
    return type(own) is type(value) and bool(own == value)


def _merged(path: Path, key: str, row: _Row, piece: Piece) -> dict[str, Any]:
    """All columns of a sample, but its pixels."""
    values = dict(row.members)
    for name, value in row.fields.items():
        if name in piece["once"] and _same(name, value, row):
            continue
        new = piece["renamed"].get(name, name)
        if value is not None and (new in values or name in piece["once"]):
            raise BadData(f"{path}: {key}.{JSON} makes a second {new!r}", "it says something else", "Rename one.")
        values.setdefault(new, value)
    return values


def _fitted(
    path: Path, key: str, values: dict[str, Any], types: dict[str, pa.DataType], as_text: set[tuple[str, ...]]
) -> Any:
    """A sample's values as those of the columns' types."""
    found = {}
    for name, value in values.items():
        kind = types.get(name)
        if kind is None:
            if value is None and name != "image":
                continue
            odd = " (it is no JSON object)" if name == JSON else ""
            raise BadData(f"{path}: {key} has {name!r}{odd}", "the first samples have not", ALIKE)
        if isinstance(kind, TensorType) or value is None:
            continue
        try:
            if isinstance(value, bytes) != pa.types.is_binary(kind):
                raise ValueError("it is bytes in some samples, and not in others")
            found[name] = value if isinstance(value, bytes) else fitted(value, kind, as_text, (name,))
        except (ValueError, RecursionError) as error:
            where = f"{path}: {key}.cls" if name == LABEL else f"{path}: {name!r} of {key}"
            raise unreadable(where, error) from None
    return found


def _table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = []
    for column in schema:
        kind = column.type.storage_type if isinstance(column.type, TensorType) else column.type
        try:
            columns.append(pa.array([row.get(column.name) for row in rows], kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise unreadable(f"{path}: {column.name!r} of {rows[0]['key']} and those after it", error) from None
    return pa.table(columns, names=schema.names)
