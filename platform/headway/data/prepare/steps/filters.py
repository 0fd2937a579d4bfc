"""Row filters written as expressions, such as `label != 3 and age > 20`: parsed, checked, never evaluated as Python.

Names are columns (col("two words") for those that are no Python names). There are comparisons, also chained; and, or,
not; in and not in a list; + - * / %; is None, is not None; len(COLUMN) of text. A comparison with null is not true, as
in SQL.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
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
                return pc.utf8_length(self._value(of, table))
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return pa.scalar(value)
            case ast.BoolOp(op=op, values=values):
                joined = [self._value(value, table) for value in values]
                found = joined[0]
                for other in joined[1:]:
                    found = pc.and_kleene(found, other) if isinstance(op, ast.And) else pc.or_kleene(found, other)
                return found
            case ast.UnaryOp(op=ast.Not(), operand=of):
                return pc.invert(self._value(of, table))
            case ast.UnaryOp(op=ast.USub(), operand=of):
                return pc.negate_checked(_wide(self._value(of, table)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTED:
                return COMPUTED[type(op)](self._value(left, table), self._value(right, table))
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
                among = pc.is_in(value, value_set=pa.array([item.as_py() for item in scalars]).cast(value.type))
                among = pc.if_else(pc.is_valid(value), among, pa.scalar(None, pa.bool_()))
                return among if isinstance(op, ast.In) else pc.invert(among)
        if type(op) not in COMPARED:
            raise self._refused(right, "that comparison is not known")
        return COMPARED[type(op)](value, self._value(right, table))

    def _column(self, name: str, table: pa.Table) -> Value:
        if name not in table.column_names:
            columns = ", ".join(table.column_names)
            raise BadInput(f"--filter {self.text!r} names {name!r}", "there is no such column", f"Columns: {columns}.")
        return table[name]

    def _refused(self, node: ast.expr, reason: str) -> BadInput:
        return BadInput(f"--filter {self.text!r}: {ast.unparse(node)}", reason, REMEDY)
