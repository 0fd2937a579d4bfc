"""What job.yaml can hold, and so what an argument may be: None, bool, int, float, str, date, datetime, lists of these,
and mappings with such keys. Everything else is refused by its dotted name, since a run is resumed from its job.yaml.

The types are taken exactly: an `IntEnum`, a NumPy scalar or an `OrderedDict` is no int, no float and no dict to whoever
asks for its type, and would come back from the file as something else than what was checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum
from pathlib import PurePath
from typing import Any

DEEPEST = 50
"""Levels of lists and mappings in one another; PyYAML goes down in Python's own recursion."""
MOST = 1_000_000
"""Values in all; aliases of YAML make many of few characters."""
LONGEST_INT_BITS = 14_000
"""Python reads no decimal number of more than 4,300 digits unless it is told to."""
SHOWN_FAULTS = 10

_SCALARS = (type(None), bool, int, float, str, date, datetime)
_MARK = "\udc00"
"""Begins what stands for a value that JSON has not; no text that is let in can hold it."""

Place = tuple[Any, ...]


def admit(value: Any, faults: list[str], at: Place = ()) -> Any:
    """A copy of the value that shares nothing with it, in plain types.

    Args:
        value: of anything.
        faults: gets what cannot be held, in words that begin with the dotted name.
        at: keys and positions that lead to the value.
    """
    return _Copy(faults).of(value, at)


def dotted(at: Place) -> str:
    """Keys and positions as one name, as `--set` takes it."""
    return ".".join(_key(key) for key in at)


def _key(key: Any) -> str:
    if type(key) is not str:
        return shown_key(key)
    return key if key and not set(key) & set(". =\"'") and key.isprintable() else json.dumps(key)


class _Copy:
    def __init__(self, faults: list[str]) -> None:
        self._faults, self._count, self._above = faults, 0, set[int]()

    def of(self, value: Any, at: Place) -> Any:
        self._count += 1
        if self._count > MOST:
            if self._count == MOST + 1:
                self._refuse(at[:1], "holds over a million values", "Put them in a file, and give its path")
            return None
        if type(value) in _SCALARS:
            return self._scalar(value, at)
        if type(value) not in (list, dict):
            self._refuse(at, f"is {named(value)}, which job.yaml cannot hold", _remedy(value))
            return None
        if id(value) in self._above:
            self._refuse(at, "holds itself", "Write it out")
            return None
        if len(self._above) >= DEEPEST:
            self._refuse(at, f"lies under {DEEPEST} others", "Make it flatter, or put it in a file")
            return None
        self._above.add(id(value))
        try:
            if type(value) is list:
                return [self.of(each, (*at, number)) for number, each in enumerate(value)]
            return {key: self.of(each, (*at, key)) for key, each in value.items() if self._may_be_key(key, at)}
        finally:
            self._above.discard(id(value))

    def _may_be_key(self, key: Any, at: Place) -> bool:
        if type(key) not in _SCALARS:
            reason = f"has the key {key!r}, {named(key)}, which job.yaml cannot hold"
            self._refuse(at, reason, "Use text, numbers or dates as keys")
            return False
        if isinstance(key, float) and math.isnan(key):
            self._refuse(at, "has the key nan, which is not even equal to itself", "Use text")
            return False
        before = len(self._faults)
        self._scalar(key, (*at, key))
        return len(self._faults) == before

    def _scalar(self, value: Any, at: Place) -> Any:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                place = at if at and at[-1] != value else (*at[:-1], ascii(value))
                self._refuse(place, "holds half a character (a surrogate)", "Write it as text that UTF-8 can hold")
        elif isinstance(value, datetime) and value.tzinfo is not None:
            offset = value.utcoffset()
            if type(value.tzinfo) is not timezone or offset is None or offset % timedelta(minutes=1):
                remedy = "Write its offset in whole minutes: value.astimezone(timezone.utc)"
                self._refuse(at, "is in a time zone that job.yaml cannot hold", remedy)
        elif type(value) is int and value.bit_length() > LONGEST_INT_BITS:
            self._refuse(at, "is a number of over 4,200 digits", "Write it as text")
        return value

    def _refuse(self, at: Place, reason: str, remedy: str) -> None:
        if len(self._faults) < SHOWN_FAULTS:
            self._faults.append(f"{dotted(at)} {reason}. {remedy}")


def named(value: Any) -> str:
    """The type of a value with its article, in words."""
    kind = type(value)
    if kind is type or isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return "a lambda" if value.__name__ == "<lambda>" else f"the function {value.__name__}"
    home = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    name = f"{home}{kind.__qualname__}".replace("<locals>.", "")
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _remedy(value: Any) -> str:
    library = type(value).__module__.partition(".")[0]
    if isinstance(value, Enum):
        return "Write its value: .value"
    if library in ("numpy", "torch", "pandas", "pyarrow", "polars"):
        if not hasattr(value, "item") and not hasattr(value, "tolist"):
            return "Write its name as text, and look it up in the task"
        if getattr(value, "shape", ()) != ():
            return "Write a list: .tolist(), or the path of a file that holds it"
        return "Write it as a plain value: .item()"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return "Write a list or a mapping: list(value), value._asdict()"
    for kinds, remedy in _REMEDIES:
        if isinstance(value, kinds):
            return remedy
    if callable(value):
        return "Write its name as text, and look it up in the task"
    return "Write text, numbers, dates, lists and mappings of them"


_REMEDIES: tuple[tuple[Any, str], ...] = (
    (PurePath, "Write it as text: str(path)"),
    ((bytes, bytearray, memoryview), "Write it as text, or the path of a file that holds it"),
    (bool, "Write it as a plain value: bool(value)"),
    (int, "Write it as a plain value: int(value)"),
    (float, "Write it as a plain value: float(value)"),
    (str, "Write it as plain text: str(value)"),
    (Mapping, "Write a plain mapping: dict(value)"),
    (datetime, "Write it as a plain datetime"),
    (timedelta, "Write it as a number of seconds: .total_seconds()"),
    (time, "Write it as text: .isoformat()"),
    ((Sequence, Set, range), "Write a list: list(value)"),
)


def canonical(value: Any) -> Any:
    """The value as JSON can hold it, and no two values alike: the same as ever for what JSON has itself.

    For digests; 1 and "1" differ, as keys too, and a date and its text.
    """
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: canonical(each) for key, each in value.items()}
        pairs = [[canonical(key), canonical(each)] for key, each in value.items()]
        return {f"{_MARK}mapping": sorted(pairs, key=lambda pair: json.dumps(pair[0]))}
    if isinstance(value, list):
        return [canonical(each) for each in value]
    if isinstance(value, datetime):
        return f"{_MARK}datetime {value.isoformat()}"
    if isinstance(value, date):
        return f"{_MARK}date {value.isoformat()}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{_MARK}float {value}"
    return value


def shown(value: Any) -> Any:
    """The value as JSON can hold it, for people: dates, infinities and keys as YAML writes them."""
    if isinstance(value, dict):
        names = [key if isinstance(key, str) else shown_key(key) for key in value]
        if len(set(names)) < len(names):  # 1 and "1" in one mapping
            names = [json.dumps(key) if isinstance(key, str) else shown_key(key) for key in value]
        return {name: shown(each) for name, each in zip(names, value.values(), strict=True)}
    if isinstance(value, list):
        return [shown(each) for each in value]
    if isinstance(value, date) or (isinstance(value, float) and not math.isfinite(value)):
        return shown_key(value)
    return value


def shown_key(value: Any) -> str:
    """A scalar as YAML writes it, without quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.isoformat() if isinstance(value, date) else str(value)
