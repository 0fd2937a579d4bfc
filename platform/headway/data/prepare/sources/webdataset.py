"""WebDataset tars: members that share a name up to its first dot are one sample, in the order of the tar.

Columns: `key`; `image` (uint8 [H, W] or [H, W, 3]) from an image member; `label` (int64) from .cls; `text` from .txt;
the fields of the object in .json, each by its name; any other member as binary, by its ending. A tar is read as a
stream, a sample at a time.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.data.prepare.sources import images
from headway.data.prepare.sources.listing import SUFFIXES, Piece, Plan, unreadable
from headway.data.prepare.sources.tables import sampled, unified
from headway.data.tensors import TensorType
from headway.data.write.sizing import GROUP_BYTES
from headway.errors import BadData

SAMPLED = 256
BATCH_ROWS = 4096
SAMPLE_BYTES = 512 << 20
"""The most that a sample may take: it is held in memory whole, several times over while it is encoded. A compressed or
sparse tar of a few KB may claim any size."""
HEADER_BYTES = 1 << 20
"""The most that a long name or an extended header may take: tarfile reads it whole."""
LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
Sample = dict[str, bytes]


class _Member(tarfile.TarInfo):
    """A tar's member. Python's own takes a header that is damaged, or cut short, for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise EOFError(f"{error}, before its end mark") from None

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in LONG_HEADERS and self.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes, more than {HEADER_BYTES:,}")
        return super()._proc_member(tar)  # type: ignore[misc]


def plan_webdataset(files: list[Path], size: tuple[int, int] | None) -> Plan:
    """A piece per tar. Columns and types are those of the first samples of up to 16 tars.

    Args:
        files: the tars.
        size: height and width to which images are resized.

    Raises:
        BadData: a tar cannot be read, or two members make one column.
    """
    schemas, shape, first = [], None, ""
    chosen = sampled(files)
    for path in chosen:
        columns: dict[str, list[Any]] = {}
        for number, (key, sample) in enumerate(islice(samples(path), SAMPLED)):
            image = next((ending for ending in sample if _is_image(ending)), None)
            if image is not None and shape is None:
                first = f"{path}: {key}.{image}"
                shape = images.shape_of(io.BytesIO(sample[image]), first, size)
            for name, value in _values(path, key, sample).items():
                columns.setdefault(name, [None] * number).append(value)
            for values in columns.values():
                values.extend([None] * (number + 1 - len(values)))
        schemas.append(_schema(path, columns, shape))
    resized = size is not None
    pieces = [{"path": str(path), "shape": shape, "resized": resized, "first": first} for path in files]
    schema = unified(chosen, schemas)
    return Plan(schema, pieces, read_webdataset, "label" if "label" in schema.names else None)


def read_webdataset(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The samples of a tar, a few MiB at a time; a column that a sample has not is null."""
    rows: list[dict[str, Any]] = []
    size = 0
    for key, sample in samples(Path(piece["path"])):
        values = _values(piece["path"], key, sample)
        odd = sorted(set(values) - set(schema.names))
        if odd:
            fact, reason = f"{piece['path']}: {key} has {odd[0]!r}", "the first samples have not"
            raise BadData(fact, reason, "Make the samples alike.")
        name = next((ending for ending in sample if _is_image(ending)), None)
        if name is not None:
            where = f"{piece['path']}: {key}.{name}"
            shape = tuple(piece["shape"])
            pixels = images.pixels_of(io.BytesIO(sample[name]), where, shape, piece["resized"], piece["first"])
            values["image"] = pixels.tobytes()
        elif "image" in schema.names:
            raise BadData(f"{piece['path']}: {key} has no image", "the first samples have", "Make the samples alike.")
        rows.append(values)
        size += sum(map(len, sample.values())) + len(values.get("image", b""))
        if size >= GROUP_BYTES or len(rows) >= BATCH_ROWS:
            yield _table(piece["path"], rows, schema)
            rows, size = [], 0
    if rows:
        yield _table(piece["path"], rows, schema)


def samples(path: Path) -> Iterator[tuple[str, Sample]]:
    """Samples of a tar: pairs of (key, members by their ending).

    Raises:
        BadData: naming the tar, and the member where a sample has two of one ending or is too large.
    """
    key, members, size = "", Sample(), 0
    try:
        with tarfile.open(path, "r|*", tarinfo=_Member) as tar:
            for member in tar:
                if member.size > SAMPLE_BYTES:  # also of what is passed over: it would be unpacked all the same
                    raise _too_large(path, member.name, member.size)
                folder, _, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isfile() or not stem or not dot:
                    continue
                found = f"{folder}/{stem}" if folder else stem
                if found != key and members:
                    yield key, members
                    members, size = {}, 0
                key = found
                size += member.size
                if size > SAMPLE_BYTES:
                    raise _too_large(path, f"{key} up to its {ending}", size)
                if ending.lower() in members:
                    raise BadData(f"{path} has {member.name} twice", "a sample has one of each", "Mend the tar.")
                content = tar.extractfile(member)
                assert content is not None
                members[ending.lower()] = content.read()
                tar.members.clear()  # type: ignore[attr-defined]  # a tar keeps all that it has seen
    except (OSError, tarfile.TarError, EOFError) as error:
        raise unreadable(path, error) from None
    if members:
        yield key, members


def _too_large(path: Path, name: str, size: int) -> BadData:
    reason = f"a sample is held in memory whole, and may take {SAMPLE_BYTES:,}"
    return BadData(f"{path}: {name} takes {size:,} bytes", reason, "Leave it out of the tar, or cut it up.")


def _is_image(ending: str) -> bool:
    return f".{ending}" in SUFFIXES["images"]


def _values(path: str | Path, key: str, sample: Sample) -> dict[str, Any]:
    """A sample's columns, except the pixels of its image, of which only the place is kept."""
    values: dict[str, Any] = {"key": key}
    for ending, content in sample.items():
        where = f"{path}: {key}.{ending}"
        try:
            found = _columns(ending, content)
        except (ValueError, RecursionError) as error:  # not text, not JSON, or nested too deeply
            raise unreadable(where, error) from None
        odd = sorted(set(values) & set(found))
        if odd:
            raise BadData(f"{where} makes a second {odd[0]!r}", "a sample has one of each", "Rename one.")
        values |= found
    return values


def _columns(ending: str, content: bytes) -> dict[str, Any]:
    if _is_image(ending):
        return {"image": None}
    if ending == "cls":
        return {"label": int(content)}
    if ending in ("txt", "text"):
        return {"text": content.decode()}
    if ending == "json":
        tree = json.loads(content)
        if not isinstance(tree, dict):
            raise ValueError("it is no JSON object")
        return tree
    return {ending: content}


def _schema(path: Path, columns: dict[str, list[Any]], shape: tuple[int, ...] | None) -> pa.Schema:
    fields = []
    for name, values in columns.items():
        try:
            kind = TensorType("uint8", shape) if name == "image" and shape else pa.array(values).type
        except (pa.ArrowException, OverflowError) as error:  # a number of more than 64 bits
            raise unreadable(f"{path}: {name!r}", error) from None
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _table(path: str, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = []
    for column in schema:
        kind = column.type.storage_type if isinstance(column.type, TensorType) else column.type
        try:
            columns.append(pa.array([row.get(column.name) for row in rows], kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise unreadable(f"{path}: {column.name!r} of {rows[0]['key']} and those after it", error) from None
    return pa.table(columns, names=schema.names)
