"""Row filters written as expressions, such as `label != 3 and age > 20`: parsed, checked, never evaluated as Python.

Names are columns (col("two words") for those that are no Python names). There are comparisons, also chained; and, or,
not; in and not in a list; + - * / %; is None, is not None; len(COLUMN) of text or lists. Dates and times are compared
with text like "2024-01-31". A comparison with null is not true, as in SQL.
"""

from __future__ import annotations

import ast
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headway.errors import BadInput

Value = Any  # an Arrow array or scalar
COMPARED: dict[type, Callable[[Value, Value], Value]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
COMPUTED: dict[type, Callable[[Value, Value], Value]] = {
    ast.Add: lambda a, b: pc.add_checked(_wide(a), _wide(b)),
    ast.Sub: lambda a, b: pc.subtract_checked(_wide(a), _wide(b)),
    ast.Mult: lambda a, b: pc.multiply_checked(_wide(a), _wide(b)),
    ast.Div: lambda a, b: pc.divide(pc.cast(a, pa.float64()), b),
    ast.Mod: lambda a, b: pc.subtract(a, pc.multiply(pc.floor(pc.divide(pc.cast(a, pa.float64()), b)), b)),
}


def _wide(value: Value) -> Value:
    """Whole numbers with room for what is computed: sums of small ones must not wrap around."""
    return value.cast(pa.int64()) if pa.types.is_integer(value.type) else value


def _length(value: Value) -> Value:
    """Characters of text, bytes of binary, items of a list."""
    kind = value.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pc.list_value_length(value)
    return pc.binary_length(value) if pa.types.is_binary(kind) else pc.utf8_length(value)


def _among(value: Value, items: list[Value]) -> Value:
    """Whether it is one of the items; null where it is null."""
    if pa.types.is_decimal(value.type) or pa.types.is_temporal(value.type):
        found = pa.scalar(False)
        for item in items:
            found = pc.or_kleene(found, pc.equal(*_dated(value, item)))
        among = found
    else:
        among = pc.is_in(value, value_set=pa.array([item.as_py() for item in items]).cast(value.type))
    return pc.if_else(pc.is_valid(value), among, pa.scalar(None, pa.bool_()))


def _dated(one: Value, other: Value) -> tuple[Value, Value]:
    """Both, a plain text beside dates or times as one of them."""
    if pa.types.is_temporal(one.type) and isinstance(other, pa.StringScalar):
        return one, _moment(other, one.type)
    if pa.types.is_temporal(other.type) and isinstance(one, pa.StringScalar):
        return _moment(one, other.type), other
    return one, other


def _moment(text: pa.StringScalar, kind: pa.DataType) -> Value:
    """A date or time; without a zone of its own it is of the column's."""
    if pa.types.is_time(kind):  # Arrow casts no text to them
        try:
            return pa.scalar(datetime.time.fromisoformat(text.as_py()), kind)
        except ValueError as error:
            raise pa.ArrowInvalid(str(error)) from None
    try:
        return pc.cast(text, kind)
    except pa.ArrowInvalid:
        if not pa.types.is_timestamp(kind) or kind.tz is None:
            raise
        return pc.assume_timezone(pc.cast(text, pa.timestamp(kind.unit)), kind.tz)


REMEDY = 'Write it like --filter "label != 3 and age > 20".'


@dataclass(frozen=True)
class Filter:
    """Which rows stay.

    Args:
        text: the expression.
    """

    text: str

    @cached_property
    def _tree(self) -> ast.expr:
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or str(error)
            raise BadInput(f"--filter {self.text!r} cannot be read", reason, REMEDY) from None

    def mask(self, table: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Which rows stay: boolean, shape [rows].

        Raises:
            BadInput: the expression is not of the kinds above, names no column, or does not fit its type.
        """
        try:
            found = self._value(self._tree, table)
            if found.type != pa.bool_():
                raise self._refused(self._tree, f"it gives {found.type}, not true or false")
        except (pa.ArrowException, OverflowError, UnicodeError, RecursionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise BadInput(f"--filter {self.text!r} does not fit the columns", reason, REMEDY) from None
        if isinstance(found, pa.Scalar):
            return pa.array([found.as_py()] * table.num_rows, pa.bool_())
        return pc.fill_null(found, False)

    def kept(self, table: pa.Table) -> pa.Table:
        """The rows that stay, in their order."""
        mask = self.mask(table)
        return table if pc.all(mask, min_count=0).as_py() else table.filter(mask)

    def _value(self, node: ast.expr, table: pa.Table) -> Value:
        match node:
            case ast.Name(id=name):
                return self._column(name, table)
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
                return self._column(name, table)
            case ast.Call(func=ast.Name(id="len"), args=[of], keywords=[]):
                return self._applied(node, _length, self._value(of, table))
            case ast.Constant(value=bool() | int() | float() | str() as value):
                is_long = isinstance(value, int) and 2**63 <= value < 2**64
                return pa.scalar(Decimal(value)) if is_long else pa.scalar(value)
            case ast.BoolOp(op=op, values=values):
                joined = [self._value(value, table) for value in values]
                found = joined[0]
                for other in joined[1:]:
                    found = pc.and_kleene(found, other) if isinstance(op, ast.And) else pc.or_kleene(found, other)
                return found
            case ast.UnaryOp(op=ast.Not(), operand=of):
                return self._applied(node, pc.invert, self._value(of, table))
            case ast.UnaryOp(op=ast.USub(), operand=of):
                return self._applied(node, lambda value: pc.negate_checked(_wide(value)), self._value(of, table))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTED:
                return self._applied(node, COMPUTED[type(op)], self._value(left, table), self._value(right, table))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._compared(left, ops, comparators, table)
        raise self._refused(node, "that is not allowed in a filter")

    def _compared(self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr], table: pa.Table) -> Value:
        found = None
        for op, right in zip(ops, rights, strict=True):
            one = self._pair(left, op, right, table)
            found = one if found is None else pc.and_kleene(found, one)
            left = right
        return found

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr, table: pa.Table) -> Value:
        value = self._value(left, table)
        match op, right:
            case ((ast.Is() | ast.IsNot()), ast.Constant(value=None)):
                return pc.is_null(value) if isinstance(op, ast.Is) else pc.is_valid(value)
            case ((ast.In() | ast.NotIn()), (ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items))):
                scalars = [self._value(item, table) for item in items]
                if not all(isinstance(item, pa.Scalar) for item in scalars):
                    raise self._refused(right, "a list holds plain values")
                among = self._applied(right, lambda column: _among(column, scalars), value)
                return among if isinstance(op, ast.In) else pc.invert(among)
        if type(op) not in COMPARED:
            raise self._refused(right, "that comparison is not known")
        pair = ast.Compare(left, [op], [right])
        return self._applied(pair, lambda *both: COMPARED[type(op)](*_dated(*both)), value, self._value(right, table))

    def _applied(self, node: ast.expr, compute: Callable[..., Value], *values: Value) -> Value:
        """What is computed of values.

        Raises:
            BadInput: their types do not allow it; names the columns.
        """
        try:
            return compute(*values)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
            said = str(error).splitlines()[0].rstrip(".")
            kinds = " and ".join(str(value.type) for value in values)
            reason = f"{ast.unparse(node)} is of {kinds}" + ("" if "no kernel" in said else f": {said}")
            raise BadInput(f"--filter {self.text!r} does not fit the columns", reason, REMEDY) from None

    def _column(self, name: str, table: pa.Table) -> Value:
        if name not in table.column_names:
            columns = ", ".join(table.column_names)
            raise BadInput(f"--filter {self.text!r} names {name!r}", "there is no such column", f"Columns: {columns}.")
        column = table[name]
        if column.type == pa.float16():
            return column.cast(pa.float32())  # Arrow computes nothing with the narrow ones
        if column.type == pa.uint64() and pc.any(pc.greater(column, pa.scalar(2**63 - 1, pa.uint64()))).as_py():
            return column.cast(pa.decimal128(20, 0))  # else compared as signed
        return column

    def _refused(self, node: ast.expr, reason: str) -> BadInput:
        return BadInput(f"--filter {self.text!r}: {ast.unparse(node)}", reason, REMEDY)
