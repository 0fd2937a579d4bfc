"""The tables of a run's records: their columns, and how they come from its files, a stretch at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from headway.records.reading import Line, Lines

if TYPE_CHECKING:
    from headway.runs import RunFolder

WHEN = pa.timestamp("us", tz="UTC")
_NODE = ("cpu", "memory", "gpu", "gpu_memory", "received", "sent", "read", "written")
_RECOVERY = {
    "time": WHEN,
    "cause": pa.string(),
    "workers": pa.list_(pa.string()),
    "generation": pa.int64(),
    "step": pa.int64(),
    "detected_at": WHEN,
    "resumed_at": WHEN,
    "silent_s": pa.float64(),
    "pause_s": pa.float64(),
    "lost_steps": pa.int64(),
}


def _schema(columns: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema(list(columns.items()))


SCHEMAS = {
    "steps": _schema(
        {
            "step": pa.int64(),
            "epoch": pa.int64(),
            "loss": pa.float64(),
            "lr": pa.float64(),
            "rows": pa.int64(),
            "time": WHEN,
            "samples": pa.string(),
        }
    ),
    "metrics": _schema(
        {"step": pa.int64(), "time": WHEN, "name": pa.string(), "value": pa.float64(), "table": pa.string()}
    ),
    "events": _schema({"time": WHEN, "kind": pa.string(), "step": pa.int64(), "details": pa.string()}),
    "recoveries": _schema(_RECOVERY),
    "ledger": _schema({"time": WHEN, "step": pa.int64(), "cause": pa.string(), "seconds": pa.float64()}),
    "nodes": _schema({"time": WHEN, "step": pa.int64(), "node": pa.string(), **dict.fromkeys(_NODE, pa.float64())}),
    "checkpoints": _schema(
        {
            "step": pa.int64(),
            "path": pa.string(),
            "bytes": pa.int64(),
            "digest": pa.string(),
            "reason": pa.string(),
            "metrics": pa.string(),
        }
    ),
    "logged": _schema(
        {
            "step": pa.int64(),
            "time": WHEN,
            "name": pa.string(),
            "kind": pa.string(),
            "path": pa.string(),
            "mime": pa.string(),
            "bytes": pa.int64(),
            "caption": pa.string(),
        }
    ),
}
"""Columns by table. Times are of UTC; `details`, `metrics` and `table` are JSON."""

Rows = list[dict[str, Any]]


@dataclass
class Told:
    """What the reading of a table came to. damaged: lines that were left out."""

    damaged: int = 0


def stretches(run: RunFolder, name: str, told: Told) -> Iterator[pa.Table]:
    """A table of a run, a stretch at a time. name: of `SCHEMAS`."""
    schema = SCHEMAS[name]
    if name == "checkpoints":
        yield _table(_checkpoints(run), schema)
        return
    if name == "metrics":  # an earlier release kept them in run.json
        yield _table([row for line in run.read().get("metrics", []) for row in _metrics(line)], schema)
    lines = Lines(run.path / f"{_FILES.get(name, name)}.jsonl")
    if name in ("steps", "logged"):
        yield from (_timed(found, schema) for found in lines.stretches(_untimed(schema)))
    else:
        yield from (_table(_sound(line, _ROWS[name], lines), schema) for line in lines.each())
    told.damaged = lines.damaged


def _sound(found: list[Line], rows: Callable[[Line], Rows], lines: Lines) -> Rows:
    """Of a stretch; a line that has not what its file's lines have is left out."""
    made: Rows = []
    for line in found:
        try:
            made += rows(line)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            lines.damaged += 1
    return made


def _metrics(line: Line) -> Rows:
    time = line.get("time")  # an earlier release had none
    head = {"step": int(line["step"]), "time": None if time is None else _micros(time)}
    rows = [{**head, "name": name, "value": float(value)} for name, value in line["values"].items()]
    return rows + [{**head, "name": n, "table": json.dumps(table)} for n, table in (line.get("tables") or {}).items()]


def _events(line: Line) -> Rows:
    step = line.get("step")
    row = {"time": _micros(line["time"]), "kind": str(line["kind"]), "step": None if step is None else int(step)}
    return [{**row, "details": json.dumps(line)}]


def _recoveries(line: Line) -> Rows:
    if line["kind"] != "recovery":
        return []
    row = {name: line.get(name) for name in _RECOVERY}
    row |= {name: _micros(row[name]) for name, kind in _RECOVERY.items() if kind == WHEN and row[name] is not None}
    row["workers"] = [str(worker) for worker in row["workers"] or ()]
    return [{n: float(v) if _RECOVERY[n] == pa.float64() and v is not None else v for n, v in row.items()}]


def _ledger(line: Line) -> Rows:
    head = {"time": _micros(line["time"]), "step": int(line["step"])}
    return [{**head, "cause": cause, "seconds": float(seconds)} for cause, seconds in line["seconds"].items()]


def _nodes(line: Line) -> Rows:
    head = {"time": _micros(line["time"]), "step": int(line["step"])}
    return [
        {**head, "node": node, **{name: float(found[name]) for name in _NODE if found.get(name) is not None}}
        for node, found in line["nodes"].items()
    ]


_ROWS: Mapping[str, Callable[[Line], Rows]] = {
    "metrics": _metrics,
    "events": _events,
    "recoveries": _recoveries,
    "ledger": _ledger,
    "nodes": _nodes,
}
_FILES = {"recoveries": "events"}
"""Where a table comes from a file of another name."""


def _checkpoints(run: RunFolder) -> Rows:
    from headway.checkpoint.store import committed

    return [
        {
            "step": found.step,
            "path": found.where,
            "bytes": found.bytes,
            "digest": found.digest,
            "reason": found.facts.get("reason"),
            "metrics": json.dumps(found.facts.get("metrics", {})),
        }
        for found in committed(run.checkpoint_root, run.counting)
    ]


def _table(rows: Rows, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema)


def _untimed(schema: pa.Schema) -> pa.Schema:
    """As the files have it: times are seconds since 1970."""
    return pa.schema([pa.field(f.name, pa.float64() if f.type == WHEN else f.type) for f in schema])


def _timed(found: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        column = found[field.name]
        if field.type == WHEN:
            column = pc.cast(pc.cast(pc.round(pc.multiply(column, 1e6)), pa.int64()), field.type)
        columns.append(column)
    return pa.table(columns, schema)


def _micros(seconds: Any) -> int:
    return round(float(seconds) * 1e6)
