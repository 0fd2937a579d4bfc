"""Masks of columns that name or nearly name people: hashed with a secret salt, redacted, or made coarse."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.data.tensors import TensorType
from headway.errors import BadInput

REDACTED = "[redacted]"
UNITS = ("year", "quarter", "month", "week", "day", "hour")
REMEDY = "Write COLUMN=hash:VARIABLE, COLUMN=redact, or COLUMN=generalise:STEP."


@dataclass(frozen=True)
class Mask:
    """What becomes of one column.

    Args:
        column: its name.
        way: hash, redact or generalise.
        with_: name of the environment variable that holds the salt, or the step.
        salt: the secret itself; shown nowhere, written nowhere.
    """

    column: str
    way: str
    with_: str = ""
    salt: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """As the user wrote it."""
        return f"{self.column}={self.way}" + (f":{self.with_}" if self.with_ else "")

    def applied(self, table: pa.Table) -> pa.Table:
        """The table with the column masked.

        Raises:
            BadInput: there is no such column, or it cannot be masked in this way.
        """
        if self.column not in table.column_names:
            columns = ", ".join(table.column_names)
            raise BadInput(f"--mask {self.text}", f"there is no column {self.column!r}", f"Columns: {columns}.")
        at, column = table.column_names.index(self.column), table[self.column]
        try:
            masked = {"hash": self._hashed, "redact": self._redacted, "generalise": self._coarse}[self.way](column)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            reason = f"column {self.column!r} is {column.type}: {str(error).splitlines()[0].rstrip('.')}"
            raise BadInput(f"--mask {self.text}", reason, "Choose another way.") from None
        return table.set_column(at, self.column, masked)

    def _hashed(self, column: pa.ChunkedArray) -> Any:
        """Hex of a 128-bit keyed BLAKE2b of each value as text; equal values stay equal, null stays null."""
        key = hashlib.sha256(self.salt).digest()
        coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
        names = [
            hashlib.blake2b(value.encode(), key=key, digest_size=16).hexdigest()
            for value in coded.dictionary.to_pylist()
        ]
        return pa.array(names, pa.string()).take(coded.indices)

    def _redacted(self, column: pa.ChunkedArray) -> Any:
        """The same for every row, null or not: REDACTED for text, zeros for what is of one shape, else null."""
        kind, rows = column.type, len(column)
        if isinstance(kind, TensorType):
            zeros = pa.array([bytes(kind.storage_type.byte_width)] * rows, kind.storage_type)
            return pa.ExtensionArray.from_storage(kind, zeros)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return pa.array([REDACTED] * rows, kind)
        if pa.types.is_fixed_size_list(kind) and pa.types.is_primitive(kind.value_type):  # Parquet has no null ones
            return pa.array([[0] * kind.list_size] * rows, pa.list_(pa.int8(), kind.list_size)).cast(kind)
        return pa.nulls(rows, kind)

    def _coarse(self, column: pa.ChunkedArray) -> Any:
        """The greatest multiple of the step that is not above the value; or the beginning of the calendar unit."""
        kind = column.type
        if self.with_ in UNITS:
            return pc.floor_temporal(column, unit=self.with_).cast(kind)
        step = float(self.with_)
        if pa.types.is_integer(kind):
            if step != int(step):
                raise ValueError("the step is not a whole number")
            wide = np.uint64 if kind == pa.uint64() else np.int64
            values = pc.fill_null(column, 0).to_numpy().astype(wide)
            return pa.array(values // wide(step) * wide(step), kind, mask=column.is_null().to_numpy())
        if pa.types.is_floating(kind):
            column = column.cast(pa.float64())
            return pc.multiply(pc.floor(pc.divide(column, step)), step).cast(kind)
        raise ValueError("only numbers, dates and times can be made coarse")


def parse(text: str) -> Mask:
    """A mask from text like name=redact; reads the salt from the environment.

    Raises:
        BadInput: it is not like that, or the environment has no such variable.
    """
    column, _, rest = text.partition("=")
    way, _, detail = rest.partition(":")
    fact = f"--mask {text}"
    if not column or way not in ("hash", "redact", "generalise") or (way == "redact") == bool(detail):
        raise BadInput(fact, "not a column and a way to mask it", REMEDY)
    if way == "hash":
        salt = os.environ.get(detail, "")
        if not salt:
            reason = f"the environment has no variable {detail}, which is to hold the salt"
            raise BadInput(fact, reason, f"Set it to a secret of your own: export {detail}=...")
        return Mask(column, way, detail, salt.encode())
    if way == "generalise" and detail not in UNITS and not _is_step(detail):
        raise BadInput(fact, f"{detail!r} is neither a number above 0 nor one of {', '.join(UNITS)}", REMEDY)
    return Mask(column, way, detail)


def _is_step(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False
