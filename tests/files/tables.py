"""Random CSV, Parquet and JSON lines as people write them, held against pandas, without Ray.

`case(kind, seed, folder)` makes one of `kinds()`, and says what pandas reads in it and what `prepare` makes of it.
"""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from headway.data.kinds import plain
from headway.data.manifest import verify
from headway.data.prepare.sources.listing import NULLS_OF_PANDAS, Plan, Reading, chosen, listed
from headway.data.prepare.sources.tabular import plan_tables
from headway.data.prepare.steps.recipe import Recipe, fitted, typed
from headway.data.write.writer import write_dataset
from headway.errors import BadInput

Rows = list[dict[str, Any]]
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Case:
    """One random source.

    Args:
        kind: of the source.
        seed: of its contents.
        oracle: its rows as pandas reads them, or the words with which it refuses.
        made: its rows as they are prepared, or the words of the refusal.
        notes: what was said not to be kept.
    """

    kind: str
    seed: int
    oracle: Rows | str
    made: Rows | str
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """same, refused (by both), declined (by ours alone), ours (by pandas alone), or different: silently wrong."""
        if isinstance(self.made, str):
            return "refused" if isinstance(self.oracle, str) else "declined"
        if isinstance(self.oracle, str):
            return "ours"
        return "same" if alike(self.oracle, self.made, self.notes) else "different"


def case(kind: str, seed: int, folder: Path) -> Case:
    """Make a source of a kind in an empty folder, and read it by both ways."""
    rng = random.Random(f"{kind} {seed}")
    source, out = folder / "src", folder / "out"
    source.mkdir(parents=True)
    reading, oracle = MAKE[kind](rng, source)
    try:
        expected: Rows | str = oracle()
    except Exception as error:  # whatever pandas raises
        expected = f"{type(error).__name__}: {error}"
    try:
        plan, rows = made(source, out, reading)
    except BadInput as error:
        return Case(kind, seed, expected, str(error))
    return Case(kind, seed, expected, rows, tuple(plan.notes))


def kinds() -> list[str]:
    """Kinds of sources."""
    return list(MAKE)


def made(source: Path, out: Path, reading: Reading) -> tuple[Plan, Rows]:
    """A source's rows as they are after reading, writing and reading again."""
    kind, files = chosen(source, listed(source), None)
    plan = plan_tables(kind, source, files, reading)
    recipe = Recipe()
    schema = recipe.schema(plan.schema.empty_table())
    pieces = [json.loads(json.dumps(piece)) for piece in plan.pieces]
    tables = (typed(table, plan.schema) for piece in pieces for table in plan.read(piece, plan.schema))
    stored = [typed(fitted(table, schema, "it"), schema) for _, table in recipe.parted(tables, None)]
    manifest = write_dataset(out, stored, name="out", source="it")
    verify(out, manifest)
    return plan, pa.concat_tables([pq.read_table(out / shard.path) for shard in manifest.shards]).to_pylist()


# Comparing


def alike(expected: Rows, found: Rows, notes: Sequence[str] = ()) -> bool:
    """Whether rows are the same, but for what was said."""
    if len(expected) != len(found):
        return False
    names = {name for row in expected for name in row}
    extra = {name for row in found for name in row} - names
    for name in names:
        if found and name not in found[0]:
            left = any(repr(name) in note and "left out" in note for note in notes)
            if not (left and all(_is_nothing(row.get(name)) for row in expected)):
                return False
            continue
        said = any(repr(name)[1:-1] in note for note in notes)
        if not all(same(one.get(name), other[name], said) for one, other in zip(expected, found, strict=True)):
            return False
    return not extra


def same(expected: Any, found: Any, said: bool = False) -> bool:
    """Whether two values are; times as text and as such, numbers of all widths; numbers as text where that is said."""
    one, other = _plain(expected), _plain(found)
    if one is None or other is None:
        return one is other or (said and _is_nothing(one) and _is_nothing(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same(one.get(name), other.get(name), said) for name in {*one, *other})
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b, said) for a, b in zip(one, other, strict=True))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other or (said and other == json.dumps(one))
    if isinstance(one, str) and isinstance(other, datetime.date | datetime.time | pd.Timestamp):
        if isinstance(other, datetime.time):
            return datetime.time.fromisoformat(one) == other
        return bool(pd.Timestamp(one) == pd.Timestamp(other))
    if isinstance(other, str) and not isinstance(one, str):
        return said and other == json.dumps(one)
    if isinstance(one, float) and isinstance(other, float) and one != one:
        return other != other
    numbers = _is_number(one) and _is_number(other)
    return (numbers or type(one) is type(other)) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool)


def _is_nothing(value: Any) -> bool:
    plain = _plain(value)
    if isinstance(plain, dict | list):
        return all(map(_is_nothing, plain.values() if isinstance(plain, dict) else plain))
    return plain is None


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.ndarray | tuple | list):
        return list(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime.timedelta | pd.Timedelta):
        return pd.Timedelta(value).as_unit("ns")
    if isinstance(value, datetime.datetime):
        return pd.Timestamp(value)
    return value


# CSV

WORDS = ("Müller", "a b", "it's", 'say "hi"', "x,y", "two\nlines", "tab\there", "semi;colon", "ünïcödé", "0x1F", "日本")
SAFE = ("alpha", "Beta", "gamma delta", "don't", "x-y", "Müller", "ä", "12a", "NaN value", "#hash")
CODES = ("NA", "DE", "US", "null", "None", "N/A", "nan")


def column_of_texts(rng: random.Random, rows: int, words: Sequence[str]) -> list[str]:
    """The cells of a column of CSV, empty for null."""

    def whole(most: int) -> Callable[[], str]:
        return lambda: str(rng.randint(-most, most))

    start = datetime.datetime(2024, 1, 1)

    def moment() -> datetime.datetime:
        return start + datetime.timedelta(seconds=rng.randint(0, 10**8))

    makers: dict[str, Callable[[], str]] = {
        "int": whole(1000),
        "long": whole(2**62),
        "huge": lambda: str(rng.randint(2**63, 2**64 - 1)),
        "beyond": lambda: str(rng.randint(2**64, 2**70)),
        "float": lambda: repr(rng.gauss(0, 10 ** rng.randint(-20, 20))),
        "int and float": lambda: rng.choice((str(rng.randint(0, 99)), f"{rng.random():.3f}")),
        "bool": lambda: rng.choice(("True", "False")),
        "lower bool": lambda: rng.choice(("true", "false")),
        "words": lambda: rng.choice(words),
        "codes": lambda: rng.choice(CODES[:3]),
        "int and words": lambda: rng.choice((str(rng.randint(0, 99)), rng.choice(words))),
        "int and bool": lambda: rng.choice(("0", "1", "true")),
        "date": lambda: moment().date().isoformat(),
        "moment": lambda: moment().isoformat(sep=rng.choice(" T")),
        "zoned": lambda: moment().isoformat() + "Z",
        "zip": lambda: f"{rng.randint(0, 99999):05d}",
        "hex": lambda: hex(rng.randint(0, 2**64 - 1)),
        "padded": lambda: f" {rng.randint(0, 99)} ",
        "plus": lambda: f"+{rng.randint(1, 99)}",
        "infinite": lambda: rng.choice(("inf", "-inf", "1.5")),
        "exponent": lambda: rng.choice(("1e5", "2E-3", "1.", ".5")),
        "empty": lambda: "",
    }
    make = makers[rng.choice(list(makers))]
    nulls = rng.choice((0, 0, 0.2, 0.7))
    return ["" if rng.random() < nulls else make() for _ in range(rows)]


def names_of(rng: random.Random, count: int) -> list[str]:
    """Names of columns."""
    pool = ["x", "Y", "two words", "ä", "a.b", "n%", "класс", "label", "1", "text"]
    return rng.sample(pool, count)


Made = tuple[Reading, Callable[[], Rows]]
Maker = Callable[[random.Random, Path], Made]


@dataclass(frozen=True)
class Style:
    """How CSV files are written."""

    encoding: str | None = None
    written: str = "utf-8"
    separator: str = ","
    ending: str = ".csv"
    newline: str = "\n"
    many: bool = False
    hive: bool = False
    reordered: bool = False
    nulls: tuple[str, ...] = ("",)
    index: bool = False
    blank: bool = False
    words: Sequence[str] = WORDS


def csv_of(rng: random.Random, folder: Path, style: Style) -> Made:
    """A folder of CSV files of one style, and what pandas reads."""
    count = rng.randint(1, 5)
    names = names_of(rng, count)
    files = rng.randint(2, 4) if style.many or style.hive else 1
    rows = [rng.randint(1, 30) for _ in range(files)]
    words = [word for word in style.words if _fits(word, style.written)]
    names = [name if _fits(name, style.written) else f"c{at}" for at, name in enumerate(names)]
    cells = [column_of_texts(rng, sum(rows), words) for _ in names]
    if style.nulls != ("",):
        cells[0] = [rng.choice(CODES) for _ in range(sum(rows))]
    begin, paths = 0, []
    for number, size in enumerate(rows):
        order = rng.sample(range(count), count) if style.reordered else list(range(count))
        table = [[cells[at][row] for at in order] for row in range(begin, begin + size)]
        header = [names[at] for at in order]
        if style.index:
            header, table = ["", *header], [[str(begin + at), *row] for at, row in enumerate(table)]
        path = _placed(rng, folder, number, style.ending, style.hive)
        _write(path, header, table, style, quoted=rng.random() < 0.3)
        paths.append(path)
        begin += size

    def oracle() -> Rows:
        read = partial(
            pd.read_csv,
            sep=style.separator,
            encoding=style.written if style.encoding or style.written != "utf-8" else None,
            keep_default_na=False,
            na_values=list(style.nulls),
            dtype_backend="numpy_nullable",
        )
        return [row for path in sorted(paths) for row in _with_hive(_records(read(path)), folder, path)]

    return Reading(style.encoding, style.nulls), oracle


def _fits(text: str, encoding: str) -> bool:
    try:
        return bool(text.encode(encoding))
    except UnicodeEncodeError:
        return False


def _placed(rng: random.Random, folder: Path, number: int, ending: str, hive: bool) -> Path:
    if not hive:
        return folder / f"part-{number}{ending}"
    year = rng.choice(("2023", "2024", HIVE_NULL))
    kind = rng.choice(("a%20b", "x", "%C3%A4"))
    path = folder / f"year={year}" / f"sort%20of={kind}" / f"part-{number}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _with_hive(rows: Rows, folder: Path, path: Path) -> Rows:
    for part in path.relative_to(folder).parts[:-1]:
        name, _, value = part.replace("%20", " ").replace("%C3%A4", "ä").partition("=")
        plain = None if value == HIVE_NULL else int(value) if value.isdecimal() else value
        rows = [{**row, name: plain} for row in rows]
    return rows


def _write(path: Path, header: list[str], rows: list[list[str]], style: Style, quoted: bool) -> None:
    sink = io.StringIO(newline="")
    if style.blank:
        sink.write(style.newline)
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(sink, delimiter=style.separator, lineterminator=style.newline, quoting=quoting)
    writer.writerow(header)
    for row in rows:
        writer.writerow(row)
        if style.blank:
            sink.write(style.newline)
    data = sink.getvalue().encode(style.written)
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": partial(pa.compress, codec="zstd", asbytes=True)}
    pack = packers.get(path.suffix)
    path.write_bytes(pack(data) if pack else data)


def _records(frame: pd.DataFrame) -> Rows:
    columns = {str(name): list(frame[name]) for name in frame.columns}
    for name, values in columns.items():
        if any(isinstance(value, str) and value == "" for value in values):  # pandas leaves uint64 beside nulls as text
            columns[name] = [int(value) if value else None for value in values]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# Parquet


def arrays_of(rng: random.Random, rows: int) -> dict[str, Callable[[], pa.Array]]:
    """Makers of a column of each of Arrow's types."""

    def some(make: Callable[[], Any], nulls: float = 0.2) -> list[Any]:
        return [None if rng.random() < nulls else make() for _ in range(rows)]

    def whole(bits: int, signed: bool = True) -> Callable[[], int]:
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return lambda: rng.randint(low, high)

    def word() -> str:
        return rng.choice(WORDS)

    small = whole(16)

    def typed_as(kind: pa.DataType, make: Callable[[], Any]) -> Callable[[], pa.Array]:
        return lambda: pa.array(some(make), kind)

    def coded() -> pa.Array:
        return pa.array(some(word), pa.string()).dictionary_encode()

    def ordered() -> pa.Array:
        levels = pa.array(["low", "high", "unused"])
        codes = pa.array(some(lambda: rng.randint(0, 1)), pa.int8())
        return pa.DictionaryArray.from_arrays(codes, levels, ordered=True)

    inner = pa.struct([("a", pa.int64()), ("b", pa.large_string())])  # pyarrow writes no views within lists
    structs = pa.struct([("a", pa.int64()), ("b", pa.string_view()), ("c", pa.list_(pa.int32()))])
    return {
        **{f"int{bits}": typed_as(getattr(pa, f"int{bits}")(), whole(bits)) for bits in (8, 16, 32, 64)},
        **{f"uint{bits}": typed_as(getattr(pa, f"uint{bits}")(), whole(bits, False)) for bits in (8, 16, 32, 64)},
        "float16": typed_as(pa.float16(), lambda: np.float16(rng.random())),
        "float32": typed_as(pa.float32(), lambda: float(np.float32(rng.gauss(0, 1)))),
        "float64": typed_as(pa.float64(), lambda: rng.choice((rng.gauss(0, 1), float("nan"), float("inf"), -0.0))),
        "bool": typed_as(pa.bool_(), lambda: rng.random() < 0.5),
        "string": typed_as(pa.string(), word),
        "large_string": typed_as(pa.large_string(), word),
        "string_view": typed_as(pa.string_view(), word),
        "binary": typed_as(pa.binary(), lambda: rng.randbytes(3)),
        "binary_view": typed_as(pa.binary_view(), lambda: rng.randbytes(3)),
        "large_binary": typed_as(pa.large_binary(), lambda: rng.randbytes(3)),
        "fixed binary": typed_as(pa.binary(4), lambda: rng.randbytes(4)),
        "dictionary": coded,
        "ordered": ordered,
        "decimal": typed_as(pa.decimal128(12, 3), lambda: decimal.Decimal(rng.randint(-(10**9), 10**9)).scaleb(-3)),
        "wide decimal": typed_as(pa.decimal256(60, 2), lambda: decimal.Decimal(rng.randint(0, 10**27)).scaleb(-2)),
        "date": typed_as(pa.date32(), lambda: datetime.date.fromordinal(rng.randint(600_000, 800_000))),
        "date64": typed_as(pa.date64(), lambda: datetime.date.fromordinal(rng.randint(600_000, 800_000))),
        **{
            f"moment {unit}": typed_as(pa.timestamp(unit), partial(rng.randint, 0, 10 ** (9 + 3 * at)))
            for at, unit in enumerate(("s", "ms", "us", "ns"))
        },
        "zoned": typed_as(pa.timestamp("us", "Europe/Berlin"), partial(rng.randint, 0, 10**15)),
        "zoned ns": typed_as(pa.timestamp("ns", "UTC"), partial(rng.randint, 0, 10**18)),
        "time": typed_as(pa.time64("us"), partial(rng.randint, 0, 86_399_999_999)),
        "time s": typed_as(pa.time32("s"), partial(rng.randint, 0, 86_399)),
        "duration": typed_as(pa.duration("ms"), partial(rng.randint, -(10**9), 10**9)),
        "duration ns": typed_as(pa.duration("ns"), partial(rng.randint, -(10**15), 10**15)),
        "list": typed_as(pa.list_(pa.int64()), lambda: [small() for _ in range(rng.randint(0, 3))]),
        "large list": typed_as(pa.large_list(pa.string_view()), lambda: [word() for _ in range(rng.randint(0, 3))]),
        "list view": typed_as(pa.list_view(pa.int16()), lambda: [small() for _ in range(rng.randint(0, 3))]),
        "fixed list": lambda: pa.array(some(lambda: [small(), small()], 0), pa.list_(pa.int32(), 2)),
        "list of lists": typed_as(pa.list_(pa.list_(pa.float32())), lambda: [[0.5], [], None][: rng.randint(0, 3)]),
        "struct": typed_as(structs, lambda: {"a": rng.choice((1, None)), "b": word(), "c": rng.choice(([1], None))}),
        "list of structs": typed_as(pa.list_(inner), lambda: [{"a": small(), "b": None}] * rng.randint(0, 2)),
        "half empty struct": typed_as(pa.struct([("a", pa.int8())]), lambda: {"a": rng.choice((1, None))}),
        "map": typed_as(pa.map_(pa.string(), pa.int64()), lambda: [("k", 1), ("l", None)][: rng.randint(0, 2)]),
        "null": lambda: pa.nulls(rows),
        "list of nulls": typed_as(pa.list_(pa.null()), lambda: [None] * rng.randint(0, 2)),
        "coded list": lambda: pa.array(some(lambda: [word()]), pa.list_(pa.string())).cast(
            pa.list_(pa.dictionary(pa.int32(), pa.string()))
        ),
    }


WIDER = {
    "int8": "int32",
    "int32": "int64",
    "uint8": "uint32",
    "int16": "float64",
    "float32": "float64",
    "string": "large_string",
    "large_string": "string_view",
    "string_view": "dictionary",
    "dictionary": "string",
    "binary": "binary_view",
    "moment s": "moment ms",
    "moment ms": "moment us",
    "date": "date64",
    "list": "list view",
    "null": "string",
}


NOT_OF_PANDAS = (
    "large list", "struct", "list of structs", "coded list", "fixed binary", "binary_view", "large_binary", "binary",
    "float16", "list of nulls", "map",
)  # fmt: skip
"""What pyarrow gives to no frame, or takes from none."""


def parquet_of(
    rng: random.Random, folder: Path, *, mixed: bool = False, hive: bool = False, frame: bool = False
) -> Made:
    """A folder of Parquet files, and what pandas reads."""
    files = rng.randint(2, 3) if mixed or hive else rng.choice((1, 1, 3))
    known = list(arrays_of(rng, 0))
    known = [kind for kind in known if not frame or kind not in NOT_OF_PANDAS]
    kinds = [rng.choice(known if not mixed else list(WIDER)) for _ in range(rng.randint(1, 4))]
    indexed, annotated = rng.random() < 0.5, rng.random() < 0.9
    names = names_of(rng, len(kinds))
    paths = []
    for number in range(files):
        rows = rng.randint(1, 40)
        makers = arrays_of(rng, rows)
        here = [WIDER[kind] if mixed and rng.random() < 0.5 else kind for kind in kinds]
        columns = dict(zip(names, (makers[kind]() for kind in here), strict=True))
        if mixed and rng.random() < 0.5:
            columns = dict(reversed(columns.items()))
        path = _placed(rng, folder, number, ".parquet", hive)
        table = pa.table(columns)
        if frame:
            made = table.to_pandas()
            (made.set_index(pd.Index(rng.sample(range(99), rows), name="id")) if indexed else made).to_parquet(path)
        else:
            options: dict[str, Any] = {
                "compression": rng.choice(("snappy", "zstd", "none")),
                "use_dictionary": rng.random() < 0.5,
                "store_schema": annotated,
                "row_group_size": rng.choice((5, 1000)),
            }
            try:
                pq.write_table(table, path, **options)
            except pa.ArrowNotImplementedError:  # pyarrow cuts no views
                pq.write_table(plain(table, "it"), path, **options)
        paths.append(path)
    return Reading(), lambda: [r for p in sorted(paths) for r in _with_hive(_of_parquet(p), folder, p)]


def _of_parquet(path: Path) -> Rows:
    frame = pd.read_parquet(path, dtype_backend="pyarrow", partitioning=None)
    frame = frame.reset_index() if frame.index.name else frame
    return pa.table({name: _arrow(frame[name]) for name in frame.columns}).to_pylist()


def _arrow(column: pd.Series) -> Any:
    return pa.array(column, from_pandas=False) if hasattr(column.dtype, "pyarrow_dtype") else pa.array(column)


# JSON lines


def value_of(rng: random.Random, kind: str) -> Any:
    """A value of a field."""
    word = rng.choice(WORDS)
    return {
        "int": lambda: rng.randint(-1000, 1000),
        "long": lambda: rng.randint(-(2**62), 2**62),
        "huge": lambda: rng.randint(2**63, 2**64 - 1),
        "float": lambda: rng.gauss(0, 1),
        "int and float": lambda: rng.choice((rng.randint(0, 9), rng.random())),
        "int and text": lambda: rng.choice((rng.randint(0, 9), word)),
        "bool": lambda: rng.random() < 0.5,
        "text": lambda: word,
        "dates": lambda: f"2024-0{rng.randint(1, 9)}-01",
        "digits": lambda: str(rng.randint(0, 99999)).zfill(5),
        "null": lambda: None,
        "empty": dict,
        "object": lambda: {"a": rng.randint(0, 9), "b": word},
        "changing": lambda: {rng.choice("abc"): rng.choice((1, 2.5, None))},
        "deep": lambda: {"a": {"b": [{"c": rng.randint(0, 9)}, {}]}, "e": {}},
        "list": lambda: [rng.randint(0, 9) for _ in range(rng.randint(0, 3))],
        "list of texts": lambda: [word] * rng.randint(0, 2),
        "list of objects": lambda: [{"role": "user", "text": word}] * rng.randint(0, 2),
        "list of empty": lambda: [{}] * rng.randint(0, 2),
    }[kind]()


FIELDS = (
    "int", "long", "huge", "float", "int and float", "int and text", "bool", "text", "dates", "digits", "null", "empty",
    "object", "changing", "deep", "list", "list of texts", "list of objects", "list of empty",
)  # fmt: skip


@dataclass(frozen=True)
class Lines:
    """How JSON lines are written."""

    missing: float = 0.0
    nulls: float = 0.2
    ending: str = ".jsonl"
    encoding: str = "utf-8"
    many: bool = False
    hive: bool = False
    array: bool = False
    blank: bool = False
    ascii: bool = False


def jsonl_of(rng: random.Random, folder: Path, style: Lines) -> Made:
    """A folder of JSON lines, and what pandas reads."""
    kinds = [rng.choice(FIELDS) for _ in range(rng.randint(1, 4))] + ["int"]
    names = names_of(rng, len(kinds))
    paths = []
    for number in range(rng.randint(2, 3) if style.many or style.hive else 1):
        rows = []
        for _ in range(rng.randint(1, 25)):
            row = {}
            for name, kind in zip(names, kinds, strict=True):
                if rng.random() >= style.missing:
                    row[name] = None if rng.random() < style.nulls else value_of(rng, kind)
            rows.append(row)
        texts = [json.dumps(row, ensure_ascii=style.ascii) for row in rows]
        text = "[\n" + ",\n".join(texts) + "\n]" if style.array else "\n".join(texts) + "\n"
        text = text.replace("\n", "\n\n") if style.blank else text
        path = _placed(rng, folder, number, style.ending, style.hive)
        data = text.encode(style.encoding)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        paths.append(path)

    def oracle() -> Rows:
        found = []
        for path in sorted(paths):
            packed = "gzip" if path.suffix == ".gz" else None
            frame = pd.read_json(path, lines=not style.array, encoding=style.encoding, compression=packed)
            rows = _of_json(path, style)  # pandas makes floats of whole numbers beside nulls, and rounds them
            assert len(rows) == len(frame)
            found += _with_hive(rows, folder, path)
        return found

    return Reading("utf-8" if style.encoding == "utf-8-sig" else None), oracle


def _of_json(path: Path, style: Lines) -> Rows:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode(style.encoding)
    rows: Rows = json.loads(text) if style.array else [json.loads(line) for line in text.split("\n") if line]
    return rows


MAKE: dict[str, Maker] = {
    "csv": partial(csv_of, style=Style()),
    "csv many": partial(csv_of, style=Style(many=True)),
    "csv reordered": partial(csv_of, style=Style(many=True, reordered=True)),
    "csv hive": partial(csv_of, style=Style(hive=True)),
    "csv marked": partial(csv_of, style=Style(written="utf-8-sig")),
    "csv utf-16": partial(csv_of, style=Style(written="utf-16")),
    "csv cp1252": partial(csv_of, style=Style(encoding="cp1252", written="cp1252")),
    "csv semicolons": partial(csv_of, style=Style(separator=";", words=SAFE, many=True)),
    "csv tabs": partial(csv_of, style=Style(separator="\t", words=SAFE)),
    "tsv": partial(csv_of, style=Style(separator="\t", ending=".tsv")),
    "csv crlf": partial(csv_of, style=Style(newline="\r\n")),
    "csv gz": partial(csv_of, style=Style(ending=".csv.gz")),
    "csv bz2": partial(csv_of, style=Style(ending=".csv.bz2")),
    "csv zst": partial(csv_of, style=Style(ending=".csv.zst")),
    "csv index": partial(csv_of, style=Style(index=True)),
    "csv blank lines": partial(csv_of, style=Style(blank=True)),
    "csv nulls of pandas": partial(csv_of, style=Style(nulls=NULLS_OF_PANDAS)),
    "parquet": parquet_of,
    "parquet mixed": partial(parquet_of, mixed=True),
    "parquet hive": partial(parquet_of, hive=True),
    "parquet of pandas": partial(parquet_of, frame=True),
    "jsonl": partial(jsonl_of, style=Lines()),
    "jsonl missing": partial(jsonl_of, style=Lines(missing=0.3)),
    "jsonl many": partial(jsonl_of, style=Lines(many=True, missing=0.1)),
    "jsonl hive": partial(jsonl_of, style=Lines(hive=True)),
    "jsonl ascii": partial(jsonl_of, style=Lines(ascii=True)),
    "jsonl gz": partial(jsonl_of, style=Lines(ending=".jsonl.gz")),
    "jsonl blank lines": partial(jsonl_of, style=Lines(blank=True)),
    "json array": partial(jsonl_of, style=Lines(array=True, ending=".json")),
    "jsonl utf-16": partial(jsonl_of, style=Lines(encoding="utf-16")),
}
