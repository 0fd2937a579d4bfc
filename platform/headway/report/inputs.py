"""What a run was trained on, for its page: as noted when it began; with the ranges of its columns, where its files are
there still, and the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.report.curves import number
from headway.report.shape import Data
from headway.runs import datasets

SHARDS = 64
"""Whose footers are read for the ranges."""
COLUMNS, VALUES = 60, 20
"""That are told of a set, and of a column's values."""
PRIMITIVE = (int, float)


def told(folder: Path, facts: Mapping[str, Any]) -> list[Data]:
    """Args:
    folder: of the run, or its working copy.
    facts: of its run.json.
    """
    noted, full = facts.get("datasets") or {}, datasets.read(folder)
    aside = facts.get("quarantine") or {}
    found = []
    for role in dict.fromkeys((*noted, *full)):
        of = {**(noted.get(role) or {}), **(full.get(role) or {})}
        rows = sum((aside.get(f"data.{role}") or aside.get(role) or {}).values())
        found.append(_of(role, of, rows))
    return found


def _of(role: str, of: Mapping[str, Any], quarantined: int) -> Data:
    label, counts = str(of.get("label") or ""), of.get("label_counts") or {}
    ranges = _ranges(str(of.get("place") or ""), of)
    columns = []
    for name, kind in list(of.get("schema") or ())[:COLUMNS]:
        column = {"name": name, "type": kind, **ranges.get(name, {})}
        if name == label and counts:
            top = sorted(counts.items(), key=lambda each: -each[1])
            column |= {"top": [list(each) for each in top[:VALUES]], "distinct": len(counts)}
        columns.append(column)
    return Data(
        role=role,
        name=str(of.get("name") or ""),
        digest=str(of.get("digest") or ""),
        rows=of.get("rows"),
        bytes=of.get("bytes"),
        version=of.get("version"),
        source=str(of.get("source") or ""),
        label=label,
        place=str(of.get("place") or ""),
        columns=columns,
        quarantined=quarantined,
    )


def _ranges(place: str, of: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Lowest and highest value of each plain column, and how many are missing, by the footers of the files; nothing
    where these are far away, many, or not those of the run."""
    from headway.errors import HeadwayError

    if not place or "://" in place or not (Path(place) / "manifest.json").is_file():
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headway.data import manifest as manifests

    try:
        found = manifests.load(place, of.get("version") or None)
        if found.digest != of.get("digest") or len(found.shards) > SHARDS:
            return {}
        ranges: dict[str, dict[str, Any]] = {}
        for shard in found.shards:
            _add(ranges, pq.read_metadata(Path(place) / shard.path))
        return ranges
    except (HeadwayError, OSError, ValueError, pa.ArrowException):
        return {}


def _add(ranges: dict[str, dict[str, Any]], footer: Any) -> None:
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            name, counted = column.path_in_schema, column.statistics
            if "." in name or counted is None:
                continue
            known = ranges.setdefault(name, {"missing": 0})
            known["missing"] += counted.null_count or 0
            if counted.has_min_max and isinstance(counted.min, PRIMITIVE):
                low, high = number(counted.min), number(counted.max)  # None for an infinity
                if low is not None:
                    known["min"] = min(known.get("min", low), low)
                if high is not None:
                    known["max"] = max(known.get("max", high), high)
