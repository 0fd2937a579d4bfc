"""Where predictions go: Parquet, a part for each piece of the source, committed one by one.

    OUT/part-00000.parquet    rows of a piece, in order: `row`, what was kept of the source, the predictions
        _done-00000.json      with it the part counts: its rows, bytes, SHA-256
        _predictions.json     of what these are predictions: run, checkpoint, data, options; at the end all parts too

Names that begin with "_" are passed over by what reads a folder of Parquet (Arrow, pandas, Spark). A prediction that is
killed goes on with the parts that are not there.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headway.errors import BadData, BadInput
from headway.storage.opener import open_storage
from headway.storage.protocol import ABSENT, Conflict, Storage

FILE, FORMAT = "_predictions.json", "headway-predictions/1"
BLOCK_BYTES = 4 << 20
ROW = "row"
"""Column of each row's number in the source."""
_TOLD = ("run", "checkpoint", "data", "keep", "batch", "pieces")


@dataclass(frozen=True)
class Part:
    """A part that counts. name: of its object; rows, bytes and sha256: of it."""

    name: str
    rows: int
    bytes: int
    sha256: str


def part_of(number: int) -> str:
    return f"part-{number:05d}.parquet"


def claim(place: str, identity: dict[str, Any]) -> dict[int, Part]:
    """Begin a prediction there, or go on with it. Gives the parts that are there.

    Args:
        place: a folder, or the URL of an object store.
        identity: what all parts are of.

    Raises:
        BadInput: it holds other predictions, or other files.
    """
    with closing(open_storage(place)) as storage:
        content = json.dumps({"format": FORMAT, **identity}, indent=1).encode()
        try:
            _refuse_others(storage, place)
            storage.put(FILE, content, ABSENT)
            return {}
        except Conflict:
            told = read(storage, place)
        for name in _TOLD:
            if told.get(name) != json.loads(json.dumps(identity[name])):
                raise BadInput(
                    f"{place} holds other predictions",
                    f"their {name} is {told.get(name)}, here it is {identity[name]}",
                    "Give another --out, or remove what is there.",
                )
        if "parts" in told:
            return {number: Part(**part) for number, part in enumerate(told["parts"])}
        found = {}
        for name in _names(storage):
            if name.startswith("_done-"):
                found[int(name[6:11])] = Part(**json.loads(storage.get(name)))
        return found


def _names(storage: Storage) -> list[str]:
    return [entry.name for entry in storage.list()]


def _refuse_others(storage: Storage, place: str) -> None:
    """Raises BadInput: something else is there, and no predictions of ours, which begin with their file."""
    names = [name for name in _names(storage) if not name.rpartition("/")[2].startswith(".")]
    if names and FILE not in names:
        raise BadInput(f"{place} is not empty", f"it holds {names[0]}", "Give another --out: nothing is overwritten.")


def read(storage: Storage, place: str) -> dict[str, Any]:
    """What a place says its predictions are of. Raises BadInput: it is none of ours."""
    try:
        told: dict[str, Any] = json.loads(storage.get(FILE))
        if told.get("format") != FORMAT:
            raise ValueError(f"format {told.get('format')!r}")
    except (FileNotFoundError, ValueError) as error:
        raise BadInput(f"{place} holds no predictions", f"{FILE}: {error}", "") from None
    return told


def write(storage: Storage, number: int, tables: Iterable[pa.Table]) -> Part:
    """Write a part, and have it count: it is seen whole or not at all, whoever else writes it too.

    Raises:
        BadData: it has no rows.
        OutOfReach, BadInput: of the place.
    """
    with tempfile.TemporaryFile(prefix="headway-predictions-") as file:
        rows = _written(file, tables)
        size, sha256 = file.tell(), hashlib.sha256()
        file.seek(0)
        storage.upload(part_of(number), _blocks(file, sha256))
        part = Part(part_of(number), rows, size, sha256.hexdigest())
    storage.put(f"_done-{number:05d}.json", json.dumps(vars(part)).encode())
    return part


def _written(file: IO[bytes], tables: Iterable[pa.Table]) -> int:
    rows = size = 0
    gathered: list[pa.Table] = []
    with ExitStack() as opened:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            gathered, size, rows = [*gathered, table], size + table.nbytes, rows + table.num_rows
            if writer is None:
                text = [each.name for each in table.schema if pa.types.is_string(each.type)]  # numbers seldom repeat
                writer = opened.enter_context(pq.ParquetWriter(file, table.schema, use_dictionary=text))
            if size > BLOCK_BYTES:
                writer.write_table(pa.concat_tables(gathered))
                gathered, size = [], 0
        if writer is None:
            raise BadData("a part of the data has no rows any more", "it had some before", "Use data that rests.")
        if gathered:
            writer.write_table(pa.concat_tables(gathered))
    return rows


def _blocks(file: IO[bytes], digest: Any) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
        yield block


def finish(place: str, identity: dict[str, Any], parts: list[Part]) -> dict[str, Any]:
    """Say that all is there. Returns what is said."""
    whole = {"format": FORMAT, **identity, "rows": sum(part.rows for part in parts)}
    whole["parts"] = [vars(part) for part in parts]
    with closing(open_storage(place)) as storage:
        storage.put(FILE, json.dumps(whole, indent=1).encode())
        storage.delete([f"_done-{number:05d}.json" for number in range(len(parts))])
    return whole
