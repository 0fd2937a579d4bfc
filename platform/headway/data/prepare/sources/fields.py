"""Values of JSON as columns: one Arrow type for all that a field was seen to hold, and values brought to that.

Whole numbers among others become floats, where that is exact. What is of several kinds (text here, a number there)
becomes text: what is text as it is, all else as JSON writes it. An object that never has a field does too, as no
Parquet file can hold it, and what was only ever null. A value that does not fit what was seen before is refused, never
cut or left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

KINDS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "str": "text",
    "list": "a list",
    "dict": "an object",
}
LEAST, MOST = -(2**63), 2**63 - 1
Path = tuple[str, ...]
ITEM = "[]"
NULL = "null"
DEEPEST = 32


@dataclass
class Held:
    """What a field was seen to hold.

    Args:
        kinds: Python's names of them, but of None.
        items: of lists.
        fields: of objects.
    """

    kinds: set[str] = field(default_factory=set)
    items: Held | None = None
    fields: dict[str, Held] = field(default_factory=dict)

    def add(self, value: Any, depth: int = 0) -> None:
        """Look at one value, that many lists and objects deep.

        Raises:
            ValueError: it is a whole number of more than 64 bits, or nested too deeply.
        """
        if value is None:
            return
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        kind = type(value).__name__
        self.kinds.add(kind)
        if kind == "int" and not LEAST <= value <= MOST:
            raise ValueError(f"{value} is a whole number beyond 64 bits with a sign; as text (in quotes) it is kept")
        if kind == "list":
            self.items = self.items or Held()
            for item in value:
                self.items.add(item, depth + 1)
        elif kind == "dict":
            for name, below in value.items():
                self.fields.setdefault(name, Held()).add(below, depth + 1)

    @property
    def mixed(self) -> bool:
        """Whether it is kept as text because no type holds it."""
        return len(self.kinds - {"int"} if "float" in self.kinds else self.kinds) > 1 or self.empty

    @property
    def empty(self) -> bool:
        """Whether it was only ever an object without fields."""
        return self.kinds == {"dict"} and not self.fields

    def type(self) -> pa.DataType:
        """The Arrow type."""
        if self.mixed or not self.kinds:
            return pa.string()
        if self.items is not None:
            return pa.list_(pa.field("element", self.items.type()))  # as Parquet gives it back
        if self.fields:
            return pa.struct([pa.field(name, held.type()) for name, held in self.fields.items()])
        simple = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string()}
        return simple["float" if "float" in self.kinds else next(iter(self.kinds))]

    def as_text(self, path: Path = ()) -> Iterator[tuple[Path, str]]:
        """The places of what is kept as text without being it, and in words what was seen there."""
        if not self.kinds:
            yield path, NULL
        elif self.empty:
            yield path, "an object without fields"
        elif self.mixed:
            yield path, " and ".join(sorted({KINDS[kind] for kind in self.kinds}))
        else:
            if self.items is not None:
                yield from self.items.as_text((*path, ITEM))
            for name, held in self.fields.items():
                yield from held.as_text((*path, name))


def fitted(value: Any, kind: pa.DataType, as_text: frozenset[Path] | set[Path] = frozenset(), path: Path = ()) -> Any:
    """A value as one of an Arrow type, in Python.

    Args:
        value: of JSON.
        kind: the type.
        as_text: places where values become text.
        path: of this value.

    Raises:
        ValueError: it does not fit, or would lose something.
    """
    if value is None:
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if isinstance(value, str):
            return value
        if path in as_text:
            return json.dumps(value, ensure_ascii=False)
    elif pa.types.is_boolean(kind):
        if isinstance(value, bool):
            return value
    elif pa.types.is_integer(kind):
        if isinstance(value, int) and not isinstance(value, bool) and LEAST <= value <= MOST:
            return value
        if isinstance(value, float) and value.is_integer() and LEAST <= value <= MOST:
            return int(value)
    elif pa.types.is_floating(kind):
        if isinstance(value, float):
            return value
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and LEAST <= value <= MOST
            and int(float(value)) == value
        ):
            return float(value)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if isinstance(value, list):
            return [fitted(item, kind.value_type, as_text, (*path, ITEM)) for item in value]
    elif pa.types.is_struct(kind):
        if isinstance(value, dict):
            return _object(value, kind, as_text, path)
    else:
        return value  # a type of a dataset that is appended to; Arrow says whether it fits
    raise ValueError(f"{_place(path)}{_shown(value)} is not {_expected(kind)}")


def _object(value: dict[str, Any], kind: pa.StructType, as_text: Any, path: Path) -> dict[str, Any]:
    names = [kind.field(at).name for at in range(kind.num_fields)]
    odd = next((name for name in value if name not in names and value[name] is not None), None)
    if odd is not None:
        raise ValueError(f"{_place(path)}{odd!r} is a field that objects there did not have before")
    return {name: fitted(value.get(name), kind.field(name).type, as_text, (*path, name)) for name in names}


def _place(path: Path) -> str:
    return f"in {'.'.join(path[1:])}: " if len(path) > 1 else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _expected(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "a whole number of 64 bits"
    if pa.types.is_floating(kind):
        return "a number that a float holds exactly"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_string(kind):
        return "text"
    return "a list" if pa.types.is_list(kind) else "an object"
