"""One door to all sources that are tables: what they hold, and what the folders' names add to it."""

from __future__ import annotations

from pathlib import Path

from headway.data.prepare.sources.delimited import plan_csv
from headway.data.prepare.sources.lines import plan_jsonl
from headway.data.prepare.sources.listing import Plan, Reading
from headway.data.prepare.sources.partitions import with_partitions
from headway.data.prepare.sources.tables import plan_parquet

KINDS = ("parquet", "csv", "jsonl")


def plan_tables(kind: str, root: Path, files: list[Path], reading: Reading = Reading()) -> Plan:
    """How Parquet, CSV or JSON lines are read.

    Args:
        kind: one of KINDS.
        root: the source; names of folders below it may be columns.
        files: of the source, in their order; below the root, or the root itself.
        reading: how text is read.

    Raises:
        BadData: naming the file, and the row or column where that can be told.
    """
    return with_partitions(plan_files(kind, files, reading), root, files)


def plan_files(kind: str, files: list[Path], reading: Reading) -> Plan:
    """As `plan_tables`, of what the files themselves hold."""
    if kind == "parquet":
        return plan_parquet(files)
    return plan_csv(files, reading) if kind == "csv" else plan_jsonl(files, reading)
