"""The types in which columns are kept: one for all of Arrow's ways to encode the same values, as Parquet has them.

Views and large types become plain ones, dictionaries and run-ends their values, extension types what they store,
Arrow's tensors our own (see `headway.data.tensors`). A column of nulls alone is text. Structs without fields hold
nothing, and Parquet cannot write them: they are left out. All that is done to rows, and training, sees these types.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headway.data.arrays import numpy_dtype
from headway.data.tensors import TensorType
from headway.data.tensors import column as tensors
from headway.errors import BadData

TEXT = (pa.string(), pa.large_string(), pa.string_view())
NULL = pa.string()
"""As what a column of nothing but nulls is kept."""
BINARY = (pa.binary(), pa.large_binary(), pa.binary_view())


class Unkept(TypeError):
    """A type that no dataset can hold; says why."""


def kept(kind: pa.DataType, null: pa.DataType = NULL, empty: bool = False) -> pa.DataType | None:
    """The type in which values of a type are kept; None where there is nothing to keep: a struct without fields.

    Args:
        kind: as it comes.
        null: what becomes of the type that has nothing but nulls.
        empty: leave structs without fields where they are.

    Raises:
        Unkept: Parquet knows no such type.
    """
    if isinstance(kind, TensorType):
        return kind
    if isinstance(kind, pa.FixedShapeTensorType):
        is_bool = pa.types.is_boolean(kind.value_type)
        return kind if is_bool else TensorType(numpy_dtype(kind.value_type).name, tuple(kind.shape))
    if isinstance(kind, pa.BaseExtensionType):
        return kept(kind.storage_type, null, empty)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return kept(kind.value_type, null, empty)
    if pa.types.is_struct(kind):
        fields = [(field.name, inner) for field in kind if (inner := kept(field.type, null, empty)) is not None]
        if len({name for name, _ in fields}) < len(fields):
            raise Unkept("two fields of it have one name")
        return pa.struct(fields) if fields or empty else None
    if pa.types.is_map(kind):
        key, item = kept(kind.key_type, null, empty), kept(kind.item_type, null, empty)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_fixed_size_list(kind):
        inner = kept(kind.value_type, null, empty)
        return None if inner is None else pa.list_(pa.field("element", inner), kind.list_size)
    if _is_list(kind):
        inner = kept(kind.value_type, null, empty)
        return None if inner is None else pa.list_(pa.field("element", inner))
    if pa.types.is_union(kind) or pa.types.is_interval(kind):
        raise Unkept("Parquet has no such type")
    return null if pa.types.is_null(kind) else _plain(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    if kind in TEXT:
        return pa.string()
    if kind in BINARY:
        return pa.binary()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return pa.time32("ms") if kind == pa.time32("s") else pa.date32() if kind == pa.date64() else kind


def _is_list(kind: pa.DataType) -> bool:
    one = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(one or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def stored(schema: pa.Schema, whence: object) -> pa.Schema:
    """The columns as a dataset has them, just as Parquet gives them back.

    Args:
        schema: of a source, or of what a transform gave.
        whence: what has these columns, for errors.

    Raises:
        BadData: naming the column that cannot be kept, or two of one name; or it is nested too deeply.
    """
    fields = []
    for column in schema:
        try:
            kind = kept(column.type)
        except Unkept as error:
            remedy = "Turn it into numbers or text, or leave it out."
            raise BadData(f"column {column.name!r} of {whence} is {column.type}", str(error), remedy) from None
        if kind is not None:
            fields.append(pa.field(column.name, kind))
    names = [field.name for field in fields]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise BadData(f"{whence} has two columns named {repeated!r}", "names must differ", "Rename one.")
    sink = BytesIO()
    pq.write_table(pa.schema(fields).empty_table(), sink)
    try:
        back = pq.read_schema(BytesIO(sink.getvalue()))
    except (OSError, pa.ArrowException):  # flatbuffers of more than 128 levels
        reason = "more than about 60 lists or objects lie within each other"
        raise BadData(f"{whence} is nested too deeply", reason, "Keep the innermost of them as text.") from None
    return pa.schema([pa.field(column.name, column.type) for column in back])


def joined(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of two types, as `kept` gives them but for what holds nothing.

    Raises:
        ArrowInvalid, ArrowTypeError: none does.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if isinstance(one, TensorType) or isinstance(other, TensorType):
        raise pa.ArrowTypeError("tensors of two kinds")
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = joined(fields.get(field.name, field.type), field.type)
        return pa.struct(list(fields.items()))
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(pa.field("element", joined(one.value_type, other.value_type)))
    if {one, other} == {pa.int64(), pa.uint64()}:
        return pa.uint64()  # what is negative is refused as it is read
    if pa.types.is_string(one) or pa.types.is_string(other):
        raise pa.ArrowTypeError("text is text alone")
    schemas = [pa.schema([("x", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def told(schema: pa.Schema) -> list[str]:
    """In words, what of these columns is not kept or is changed, beyond the way in which it is encoded."""
    notes = []
    for column in schema:
        name, kind = column.name, column.type
        found = kept(kind)
        if found is None:
            notes.append(f"column {name!r} is left out: it holds nothing but objects without fields")
        elif pa.types.is_null(kind):
            notes.append(f"column {name!r} holds nothing but nulls, and is kept as text")
        elif pa.types.is_dictionary(kind):
            notes.append(f"column {name!r} is kept as plain {found}: its categories' codes and order are not")
        elif isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, TensorType | pa.FixedShapeTensorType):
            notes.append(f"column {name!r} is {kind}, kept as {found}")
        elif _has_empty(kind):
            notes.append(f"column {name!r} is kept without its objects that have no fields, as {found}")
    return notes


def _has_empty(kind: pa.DataType) -> bool:
    """Whether fields within it hold nothing."""
    if pa.types.is_struct(kind):
        return not kind.num_fields or any(_has_empty(field.type) for field in kind)
    if pa.types.is_map(kind):
        return _has_empty(kind.item_type)
    return hasattr(kind, "value_type") and pa.types.is_nested(kind) and _has_empty(kind.value_type)


def plain(table: pa.Table, whence: object) -> pa.Table:
    """A table with its columns in the types that are kept.

    Args:
        table: of any types.
        whence: it came, for errors.

    Raises:
        BadData: naming the column that cannot be kept.
    """
    if all(_is_plain(column) for column in table.columns):
        return table
    schema = stored(table.schema, whence)
    columns = []
    for column in schema:
        try:
            columns.append(recast(table[column.name], column.type))
        except pa.ArrowException as error:
            fact, reason = f"column {column.name!r} of {whence} cannot be kept", str(error).splitlines()[0].rstrip(".")
            raise BadData(fact, reason, "Turn it into numbers or text, or leave it out.") from None
    return pa.table(columns, schema=schema)


def value_of(scalar: pa.Scalar) -> Any:
    """A value as Python has it; as text where Python has none such: a date beyond the year 9999, an unknown zone."""
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        pass
    try:
        return scalar.cast(pa.string()).as_py()
    except (OverflowError, ValueError, pa.ArrowException):
        return " ".join(pa.repeat(scalar, 1).to_string().strip("[]\n ").split())


def kept_or_none(kind: pa.DataType) -> pa.DataType | None:
    """`kept`, and None too for what cannot be."""
    try:
        return kept(kind)
    except Unkept:
        return None


def _is_plain(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return bool(kind == kept_or_none(kind)) and not (pa.types.is_fixed_size_list(kind) and column.null_count)


def recast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The same values in a type that is kept.

    Raises:
        ArrowException: a value cannot be, without loss.
    """
    if column.type == kind and not pa.types.is_nested(kind):
        return column
    return pa.chunked_array([_recast(chunk, kind) for chunk in column.chunks], kind)


def _recast(values: Any, kind: pa.DataType) -> Any:
    found = values.type
    if isinstance(kind, TensorType):
        return _as_tensors(values, kind)
    if isinstance(found, pa.BaseExtensionType) and found != kind:
        return _recast(values.storage, kind)
    if pa.types.is_null(found):
        return pa.nulls(len(values), kind)
    if pa.types.is_dictionary(found):
        inner = _recast(values.dictionary, kind)
        return inner.take(values.indices)
    if pa.types.is_run_end_encoded(found):
        return _recast(pc.run_end_decode(values), kind)
    if pa.types.is_fixed_size_list(kind):
        return _as_fixed(values, kind)
    if found == kind:
        return values
    if pa.types.is_struct(kind) and pa.types.is_struct(found):
        return _as_struct(values, kind)
    if _is_list(kind) and (_is_list(found) or pa.types.is_fixed_size_list(found)):
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        mask = values.is_null() if values.null_count else None
        return pa.ListArray.from_arrays(offsets, _recast(values.flatten(), kind.value_type), type=kind, mask=mask)
    if pa.types.is_map(kind) and pa.types.is_map(found):
        return pa.array(values.to_pylist(), kind)
    return values.cast(kind)


def _as_struct(values: Any, kind: pa.DataType) -> Any:
    names = [field.name for field in values.type]
    for field in values.type:
        if kind.get_field_index(field.name) < 0 and kept_or_none(field.type) is not None:
            raise pa.ArrowInvalid(f"it has a field {field.name!r}, which is new")
    children = [
        _recast(values.field(field.name), field.type) if field.name in names else pa.nulls(len(values), field.type)
        for field in kind
    ]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=values.is_null())


def _as_fixed(values: Any, kind: pa.DataType) -> Any:
    if values.null_count:
        reason = f"{values.null_count} nulls among lists of {kind.list_size}, which Parquet cannot hold: fill them"
        raise pa.ArrowInvalid(f"{reason}, or make them lists of any length")
    if not pa.types.is_fixed_size_list(values.type) or values.type.list_size != kind.list_size:
        return values.cast(kind)
    return pa.FixedSizeListArray.from_arrays(_recast(values.flatten(), kind.value_type), type=kind)


def _as_tensors(values: Any, kind: TensorType) -> Any:
    found = values.type
    if isinstance(found, TensorType):
        if found != kind:
            raise pa.ArrowInvalid(f"it is {found}, not {kind}")
        return values
    if not isinstance(found, pa.FixedShapeTensorType):
        raise pa.ArrowInvalid(f"it is {found}, not {kind}")
    if values.null_count:
        raise pa.ArrowInvalid(f"{values.null_count} nulls among tensors")
    if numpy_dtype(found.value_type) != kind.dtype or tuple(found.shape) != kind.shape:
        raise pa.ArrowInvalid(f"it is {found}, not {kind}")
    return tensors(values.to_numpy_ndarray().astype(kind.dtype, copy=False))
