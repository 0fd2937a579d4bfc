"""A list of prices: dollars per hour of a machine type in a zone, on demand and, where it is written down, spot.

    type,zone,per_hour,spot_per_hour
    m7i.large,eu-central-1,0.12075,
    m7i.large,*,0.1008,

`zone` is a zone, a region (which stands for its zones) or `*`; what is nearest to the machine's zone counts. The type
`storage` is a gigabyte for a month. The same may be YAML: a list of mappings with these keys. Lists of the package are
of the year in their first line; a cloud may ask for something else by now, so a list of one's own
(`provider.headway.prices`, a job's `prices`) goes before it.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from headway.errors import BadInput, nearest

COLUMNS = ("type", "zone", "per_hour", "spot_per_hour")
ANYWHERE = "*"
STORAGE = "storage"
SHIPPED = {"aws": "aws.csv", "gcp": "gcp.csv", "azure": "azure.csv", "this-machine": "local.csv"}
"""Lists of the package, by `provider.type`."""
_REGION = re.compile(r"^(.*\d)-?[a-z]$")


@dataclass(frozen=True)
class Price:
    """Of one type in one zone, region, or anywhere.

    Args:
        type, zone: the cloud's names; "*" for any.
        per_hour: dollars, on demand.
        spot_per_hour: dollars; None where it is not written down.
    """

    type: str
    zone: str
    per_hour: float
    spot_per_hour: float | None = None


class Book:
    """Lists of prices, of which the first that knows a machine counts.

    Args:
        lists: the user's first.
    """

    def __init__(self, *lists: Iterable[Price]) -> None:
        self._lists = [{(each.type, each.zone): each for each in one} for one in lists]

    def per_hour(self, type: str, zone: str = "", spot: bool = False) -> float | None:
        """Dollars per hour of such a machine; None where it is not written down."""
        for one in self._lists:
            for where in dict.fromkeys((zone, region(zone), ANYWHERE)):
                for name in (type,) if type == STORAGE else (type, ANYWHERE):
                    found = one.get((name, where))
                    price = None if found is None else found.spot_per_hour if spot else found.per_hour
                    if price is not None:
                        return price
        return None

    def needed(self, type: str, zone: str = "", spot: bool = False) -> float:
        """The same.

        Raises:
            BadInput: it is not written down; by type and zone, with what can be done.
        """
        found = self.per_hour(type, zone, spot)
        if found is None:
            raise missing(type, zone, spot, [name for one in self._lists for name, _ in one])
        return found


def missing(type: str, zone: str, spot: bool, known: Iterable[str] = ()) -> BadInput:
    """That nobody knows what such a machine costs."""
    where = f" in {zone}" if zone else ""
    line = f"{type},{zone or ANYWHERE},DOLLARS," + ("DOLLARS" if spot else "")
    near = nearest(type, sorted(set(known))) if known else ""
    remedy = (
        f"Write `{line}` into a list of prices ({','.join(COLUMNS)}) and name it by provider.headway.prices of the "
        f"cluster's file, or prices of the job; or give price_per_hour to the option in one_of."
    )
    reason = "the list of prices has no such machine" + (f" ({near})" if near else "")
    return BadInput(f"there is no price of {type}{where}{', spot' if spot else ''}", reason, remedy)


def region(zone: str) -> str:
    """The region of a zone, by the ways in which clouds name them: eu-central-1 of eu-central-1a, europe-west4 of
    europe-west4-b."""
    found = _REGION.match(zone)
    return found[1] if found else zone


@cache
def shipped(kind: str) -> tuple[Price, ...]:
    """The package's list of a cloud, by `provider.type`; empty where there is none."""
    name = SHIPPED.get(kind)
    if name is None:
        return ()
    path = Path(__file__).with_name(name)
    return parse(path.read_text(encoding="utf-8"), name)


def load(path: str | Path) -> tuple[Price, ...]:
    """A list from a file, CSV or YAML.

    Raises:
        BadInput: it cannot be read, or is no list of prices; by file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise BadInput(f"prices={path} cannot be read", reason, "Give a CSV or YAML file of prices.") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> tuple[Price, ...]:
    """The same of a text. Raises BadInput."""
    found = list(_of_yaml(text, name) if name.endswith((".yaml", ".yml")) else _of_csv(text, name))
    seen: dict[tuple[str, str], str] = {}
    for where, price in found:
        key = (price.type, price.zone)
        if key in seen:
            raise BadInput(f"{where}: {price.type} in {price.zone} has a price already", f"in {seen[key]}", "Keep one.")
        seen[key] = where
    return tuple(price for _, price in found)


def _of_csv(text: str, name: str) -> Iterator[tuple[str, Price]]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        raise BadInput(f"{name} holds no prices", "", f"Its first line is {','.join(COLUMNS)}.")
    head = next(csv.reader([lines[0][1]]))
    columns = [column.strip() for column in head]
    for column in columns:
        if column not in COLUMNS:
            raise BadInput(f"{name}, line {lines[0][0]}: column {column!r}", "", nearest(column, list(COLUMNS)))
    for (number, _), row in zip(
        lines[1:], csv.reader(StringIO("\n".join(line for _, line in lines[1:]))), strict=False
    ):
        if len(row) > len(columns):
            raise BadInput(f"{name}, line {number}", f"it has {len(row)} values for {len(columns)} columns", "")
        where = f"{name}, line {number}"
        yield where, _price(dict(zip(columns, (each.strip() for each in row), strict=False)), where)


def _of_yaml(text: str, name: str) -> Iterator[tuple[str, Price]]:
    import yaml

    try:
        rows = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{name} is no YAML", str(error).splitlines()[0]) from None
    yield from _of_rows(rows, name)


def of_rows(rows: Any, name: str) -> list[Price]:
    """Prices of plain values. Raises BadInput."""
    return [price for _, price in _of_rows(rows, name)]


def _of_rows(rows: Any, name: str) -> Iterator[tuple[str, Price]]:
    """Each with where it stands."""
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise BadInput(f"{name} is no list of prices", "", f"Give a list of mappings with {', '.join(COLUMNS)}.")
    for number, row in enumerate(rows):
        for column in row:
            if column not in COLUMNS:
                raise BadInput(f"{name}.{number}: key {column!r}", "", nearest(str(column), list(COLUMNS)))
        yield f"{name}.{number}", _price(row, f"{name}.{number}")


def _price(row: Mapping[str, Any], where: str) -> Price:
    type = str(row.get("type") or "")
    if not type:
        raise BadInput(f"{where}: type is missing", "", "Give the cloud's name of the machine type, or *.")
    per_hour = _dollars(row.get("per_hour"), f"{where}: per_hour")
    if per_hour is None:
        raise BadInput(f"{where}: per_hour is missing", "", "Give the dollars of an hour on demand.")
    return Price(
        type,
        str(row.get("zone") or ANYWHERE),
        per_hour,
        _dollars(row.get("spot_per_hour"), f"{where}: spot_per_hour"),
    )


def _dollars(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise BadInput(f"{where}={value!r}", "it is no number of dollars", "Give it as 0.12.")
    return found
