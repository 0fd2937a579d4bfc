"""`headway records export`: a run's records as Parquet, for pandas, DuckDB, Spark and whatever reads it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.runs import RunFolder

FORMAT = "headway-records/1"


@dataclass
class Exported:
    """What was written.

    Args:
        run: its name.
        folder: that holds it.
        rows: by table; each is a file, NAME.parquet.
        bytes: of all files.
        damaged: lines of the run's files that are none, and were left out, by table.
    """

    run: str
    folder: str
    rows: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    damaged: dict[str, int] = field(default_factory=dict)


def export(run: RunFolder, folder: Path) -> Exported:
    """Write a run's records as they are now; a file of an earlier export is replaced, whole.

    Args:
        run: any, also one that runs still.
        folder: made where it is not there.

    Raises:
        BadInput: the folder cannot be written.
    """
    from headway.records.tables import SCHEMAS

    done = Exported(run.name, str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in SCHEMAS:
            _write(run, name, folder / f"{name}.parquet", done)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{folder} cannot be written", reason, "Give another folder: --to.") from None
    return done


def _write(run: RunFolder, name: str, path: Path, done: Exported) -> None:
    import pyarrow.parquet as pq

    from headway.records.tables import SCHEMAS, Told, stretches

    told, rows = Told(), 0
    about = {"headway.format": FORMAT, "headway.run": run.name, "headway.path": run.where}
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pq.ParquetWriter(part, SCHEMAS[name].with_metadata(about), compression="zstd") as file:
            for table in stretches(run, name, told):
                if table.num_rows:
                    file.write_table(table.replace_schema_metadata(about))
                    rows += table.num_rows
        part.replace(path)
    except BaseException:  # raised again: no half-written file stays
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    done.rows[name] = rows
    done.bytes += path.stat().st_size
    if told.damaged:
        done.damaged[name] = told.damaged
