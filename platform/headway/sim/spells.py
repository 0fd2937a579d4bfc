"""Recordings of whether spot machines were to be had, for games of deadlines.

A CSV of `region,trace,gap_s,availability`; availability as runs, `0x3 1x17`: three looks that found none, then 17 that
found some, `gap_s` seconds apart. Rows of one region are recordings of the same pool, and may overlap.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from headway.errors import BadInput

COLUMNS = ("region", "trace", "gap_s", "availability")
RUN = re.compile(r"([01])x([1-9][0-9]{0,6})")
LIKE = f"Rows are `{','.join(COLUMNS)}`, for example `us-west-2a_k80_8,0,600,0x3 1x17`."


@dataclass(frozen=True)
class Spell:
    """One recording.

    Args:
        pool: whose.
        name: of this one among the pool's.
        gap_s: seconds between two looks.
        there: of each look, whether machines were to be had.
    """

    pool: str
    name: str
    gap_s: float
    there: tuple[bool, ...]


def read(path: Path) -> list[Spell]:
    """All of a file.

    Raises:
        BadInput: it cannot be read, or a line is not as it should be; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"the file {path} cannot be read", str(error.strerror), "Name a file that is there.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"the file {path} is no text", str(error.reason), LIKE) from error
    rows = csv.reader(lines)
    heads = next(rows, [])
    if tuple(heads) != COLUMNS:
        raise BadInput(f"line 1 of {path} is {','.join(heads)!r}", "its columns are others", LIKE)
    try:
        found = [_spell(row, f"line {rows.line_num} of {path}") for row in rows if row]
    except csv.Error as error:
        raise BadInput(f"line {rows.line_num} of {path} is no CSV", str(error), LIKE) from error
    if not found:
        raise BadInput(f"{path} has no recording in it", remedy=LIKE)
    return found


def _spell(row: Sequence[str], where: str) -> Spell:
    if len(row) != len(COLUMNS):
        raise BadInput(f"{where} has {len(row)} fields", f"{len(COLUMNS)} are needed", LIKE)
    pool, name, gap, runs = row
    try:
        gap_s = float(gap)
    except ValueError:
        gap_s = 0.0
    if not 1.0 <= gap_s <= 86400.0:
        raise BadInput(f"{where}: gap_s is {gap!r}", "it is no number of seconds from 1 to 86400", LIKE)
    there: list[bool] = []
    for run in runs.split():
        match = RUN.fullmatch(run)
        if match is None:
            raise BadInput(f"{where}: {run!r} is no run", "it is 0 or 1, an x, and how many", LIKE)
        there += [match[1] == "1"] * int(match[2])
    if len(there) < 2:
        raise BadInput(f"{where}: availability has {len(there)} looks", "two at least are needed", LIKE)
    return Spell(pool, name, gap_s, tuple(there))


def halves(spells: Sequence[Spell], every: bool = False) -> Iterator[tuple[list[Spell], list[Spell]]]:
    """(to learn from, to be judged by): whole pools either way, each pool on both sides in turn; none for one pool.

    Args:
        every: by every way to halve them, not the one by name.
    """
    pools = sorted({spell.pool for spell in spells})
    if len(pools) < 2:
        return
    half = len(pools) // 2
    ways = list(combinations(pools, half)) if every else [tuple(pools[:half])]
    sides = dict.fromkeys(side for way in ways for side in (way, tuple(p for p in pools if p not in way)))
    for taught in sides:
        yield [s for s in spells if s.pool in taught], [s for s in spells if s.pool not in taught]
