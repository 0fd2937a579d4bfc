"""Records of a run in columns: files of a million lines in about a second, without an object for each line.

A torn last line is no line yet. A damaged one is left out, and counted: what stands behind it is told all the same.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_BYTES = 16 << 20
"""Of a file that is in memory at once."""
STEPS = ("step", "epoch", "loss", "lr", "rows", "time")
"""Of steps.jsonl, what is numbers."""
TABLES = b'"tables"'
OWN = " (recorded)"
"""Behind a name that the task has recorded, where evaluations give that name too: they are two curves."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """The committed steps, in order; each once.

    Args:
        step: int64[steps].
        epoch, loss, lr, rows, time: float64[steps]; NaN where a release of before did not tell it. time: Unix seconds.
        damaged: lines that could not be read.
    """

    step: NDArray[np.int64]
    epoch: Floats
    loss: Floats
    lr: Floats
    rows: Floats
    time: Floats
    damaged: int = 0


@dataclass
class Measured:
    """What was recorded under one name, in order; each step once.

    Args:
        step: int64[points].
        time: float64[points], Unix seconds; NaN where that is not known.
        value: float64[points].
        recorded: by the task's own loop or hooks; else it is an evaluation's.
    """

    step: NDArray[np.int64]
    time: Floats
    value: Floats
    recorded: bool


@dataclass
class Measurements:
    """All that was recorded, by name, and how many lines of it could not be read."""

    by_name: dict[str, Measured] = field(default_factory=dict)
    damaged: int = 0


def steps(path: Path) -> Steps:
    """The lines of a steps.jsonl; none where the file is not there."""
    parts: dict[str, list[Floats]] = {name: [] for name in STEPS}
    damaged = 0
    for chunk in _chunks(path):
        found, bad = _numbers(chunk, STEPS)
        known = ~np.isnan(found["step"])
        damaged += bad + int((~known).sum())
        for name, values in found.items():
            parts[name].append(values[known])
    whole = {name: np.concatenate(part) if part else np.empty(0) for name, part in parts.items()}
    newest = _newest(whole["step"])
    whole = {name: values[newest] for name, values in whole.items()}
    return Steps(step=whole.pop("step").astype(np.int64), **whole, damaged=damaged)


def measurements(path: Path, earlier: Sequence[Mapping[str, Any]] = ()) -> Measurements:
    """The lines of a metrics.jsonl, see `steps`. earlier: lines that come before, as of runs of earlier releases."""
    parts: dict[tuple[str, bool], list[tuple[Floats, Floats, Floats, bool]]] = {}
    told = Measurements()
    before = "".join(f"{json.dumps(line)}\n" for line in earlier).encode()
    for chunk in chain([before] if before else [], _chunks(path)):
        for name, found in _values(chunk, told).items():
            for part in found:
                parts.setdefault((name, part[3]), []).append(part)
    for (name, own), found in parts.items():
        step, time, value = (np.concatenate([part[i] for part in found]) for i in range(3))
        newest = _newest(step)
        label = f"{name}{OWN}" if own and (name, False) in parts else name
        told.by_name[label] = Measured(step[newest].astype(np.int64), time[newest], value[newest], own)
    return told


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file that is not long, but for those that are damaged."""
    for chunk in _chunks(path):
        yield from _each(chunk)


def newest_tables(path: Path) -> dict[str, tuple[int, list[Any]]]:
    """Of a metrics.jsonl, the newest table of each name, with its step; all other lines are passed over unread."""
    found: dict[str, tuple[int, list[Any]]] = {}
    for chunk in _chunks(path):
        at = chunk.find(TABLES)
        while at >= 0:
            begin, end = chunk.rfind(b"\n", 0, at) + 1, chunk.find(b"\n", at)
            for line in _each(chunk[begin:end]):
                if isinstance(line.get("tables"), dict) and isinstance(line.get("step"), int):
                    found |= {name: (line["step"], table) for name, table in line["tables"].items()}
            at = chunk.find(TABLES, end)
    return {name: each for name, each in found.items() if isinstance(each[1], list)}


def _chunks(path: Path) -> Iterator[bytes]:
    """Whole lines, many at once."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        torn = b""
        while block := file.read(CHUNK_BYTES):
            whole, newline, rest = block.rpartition(b"\n")
            if newline:
                yield torn + whole + newline
                torn = rest
            else:
                torn += block


def _numbers(chunk: bytes, names: tuple[str, ...]) -> tuple[dict[str, Floats], int]:
    """Columns of numbers, NaN where there is none; and how many lines are damaged."""
    import pyarrow as pa
    from pyarrow import json as reader

    schema = pa.schema([(name, pa.float64()) for name in names])
    parsing = reader.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = reader.read_json(io.BytesIO(chunk), reader.ReadOptions(block_size=4 << 20), parsing)
        return {name: _floats(table[name]) for name in names}, 0
    except pa.ArrowException:
        found = list(_each(chunk))
        rows = np.array([[_number(line.get(name)) for name in names] for line in found], dtype=np.float64)
        rows = rows.reshape(len(found), len(names))  # [lines, names]
        return {name: rows[:, i] for i, name in enumerate(names)}, chunk.count(b"\n") - len(found)


def _values(chunk: bytes, told: Measurements) -> dict[str, list[tuple[Floats, Floats, Floats, bool]]]:
    """By name: steps, times, values, and whether they are the task's own."""
    import pyarrow as pa
    from pyarrow import json as reader

    try:
        table = reader.read_json(io.BytesIO(chunk), reader.ReadOptions(block_size=len(chunk) + 1))
        step, values = _floats(table["step"]), table["values"].combine_chunks()
        if not pa.types.is_struct(values.type) or np.isnan(step).any():
            return _values_slowly(chunk, told)
        time = _floats(table["time"]) if "time" in table.column_names else np.full(len(step), np.nan)
        own = np.zeros(len(step), bool)
        if "recorded" in table.column_names:
            own = _flags(table["recorded"])
        found: dict[str, list[tuple[Floats, Floats, Floats, bool]]] = {}
        for i in range(values.type.num_fields):
            column = values.field(i)
            there = _flags(column.is_valid())
            value = _floats(column)
            for whose in (False, True):
                which = there & (own == whose)
                if which.any():
                    part = step[which], time[which], value[which], whose
                    found.setdefault(values.type.field(i).name, []).append(part)
        return found
    except (pa.ArrowException, KeyError, ValueError, TypeError):
        return _values_slowly(chunk, told)


def _values_slowly(chunk: bytes, told: Measurements) -> dict[str, list[tuple[Floats, Floats, Floats, bool]]]:
    """The same, a line at a time: of lines with tables, and of damaged ones."""
    rows: dict[tuple[str, bool], list[tuple[float, float, float]]] = {}
    good = 0
    for line in _each(chunk):
        step, values = _number(line.get("step")), line.get("values")
        if step != step or not isinstance(values, Mapping):
            continue
        good += 1
        for name, value in values.items():
            whose = bool(line.get("recorded"))
            rows.setdefault((name, whose), []).append((step, _number(line.get("time")), _number(value)))
    told.damaged += chunk.count(b"\n") - good
    found: dict[str, list[tuple[Floats, Floats, Floats, bool]]] = {}
    for (name, whose), each in rows.items():
        made = np.array(each, dtype=np.float64)  # [points, 3]
        found.setdefault(name, []).append((made[:, 0], made[:, 1], made[:, 2], whose))
    return found


def _each(chunk: bytes) -> Iterator[dict[str, Any]]:
    for line in chunk.splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def _floats(column: pa.ChunkedArray | pa.Array) -> Floats:
    """NaN where nothing is. (Arrow's own way to NumPy imports pandas, which takes longer than the rest.)"""
    import pyarrow as pa

    whole = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    whole = whole.cast(pa.float64())
    values = np.frombuffer(whole.buffers()[1], np.float64, len(whole), whole.offset * 8)
    if not whole.null_count:
        return values
    return np.where(np.from_dlpack(whole.is_valid().cast(pa.uint8())) == 1, values, np.nan)


def _flags(column: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    import pyarrow as pa

    flags: NDArray[np.bool_] = _floats(column.cast(pa.uint8())) == 1.0
    return flags


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _newest(step: Floats) -> NDArray[np.int64] | slice:
    """Which lines count where steps came again: of each step its newest."""
    if (np.diff(step) > 0).all():
        return slice(None)
    _, first = np.unique(step[::-1], return_index=True)
    return len(step) - 1 - first
