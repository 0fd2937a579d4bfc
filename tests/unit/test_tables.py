"""Tables as they are in the world: what is read is what pandas reads, or is refused by file, row and column."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.files import tables as random_files
from tests.tiers import SOAK, examples

from headway.core import parts
from headway.core.order import Order
from headway.data import kinds, stats
from headway.data.arrays import arrays
from headway.data.manifest import verify
from headway.data.prepare.sources import delimited, frames, lines
from headway.data.prepare.sources.listing import NULLS_OF_PANDAS, Plan, Reading, chosen, left_out, listed
from headway.data.prepare.sources.tables import plan_parquet
from headway.data.prepare.sources.tabular import plan_tables
from headway.data.prepare.stages import shuffle
from headway.data.prepare.steps import masks
from headway.data.prepare.steps.filters import Filter
from headway.data.prepare.steps.recipe import Recipe, fitted, typed
from headway.data.read.direct import DirectReader
from headway.data.read.groups import Groups
from headway.data.store.files import LocalFiles
from headway.data.write.writer import write_dataset
from headway.errors import BadData, BadInput

SEEDS = range(1000, 1000 + examples(2, 300))


@pytest.mark.parametrize("kind", random_files.kinds())
def test_random_files_are_read_as_pandas_reads_them(kind: str, tmp_path: Path) -> None:
    for seed in SEEDS:
        found = random_files.case(kind, seed, tmp_path / str(seed))
        assert found.outcome != "different", found


@pytest.fixture
def src(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


def plan_of(src: Path, reading: Reading | None = None) -> Plan:
    kind, files = chosen(src, listed(src), None)
    return plan_tables(kind, src, files, reading or Reading())


def rows_of(plan: Plan) -> list[dict[str, Any]]:
    tables = [table for piece in plan.pieces for table in plan.read(json.loads(json.dumps(piece)), plan.schema)]
    return pa.concat_tables(tables).to_pylist() if tables else []


def column(src: Path, name: str, data: bytes | str, reading: Reading | None = None) -> tuple[str, list[Any], list[str]]:
    """Type and values of the first column of a file, and the notes."""
    (src / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    plan = plan_of(src, reading)
    return str(plan.schema.field(0).type), [row[plan.schema.names[0]] for row in rows_of(plan)], plan.notes


def refused(src: Path, reading: Reading | None = None) -> str:
    with pytest.raises(BadData) as caught:
        rows_of(plan_of(src, reading))
    return str(caught.value)


DAY, NOON = datetime.date(2024, 1, 5), datetime.datetime(2024, 1, 5, 12, tzinfo=datetime.UTC)
CSV = {
    "an empty field of text is null": ("a,b\nx,1\n,2\n", "string", ["x", None]),
    "a quoted one too": ('a\nx\n""\n', "string", ["x", None]),
    "a code that pandas takes for null is none": ("a\nNA\nDE\n", "string", ["NA", "DE"]),
    "whole numbers beside nulls": ("a,b\n1,1\n,2\n", "int64", [1, None]),
    "numbers that only an unsigned one holds": (f"a\n{2**63}\n", "uint64", [2**63]),
    "more digits than any number has": (f"a\n{2**64}\n1\n", "string", [str(2**64), "1"]),
    "of both signs": (f"a\n-1\n{2**63}\n", "string", ["-1", str(2**63)]),
    "hexadecimal": ("a\n0xFFFFFFFFFFFFFFFF\n", "string", ["0xFFFFFFFFFFFFFFFF"]),
    "whole, then not": ("a\n1\n2.5\n", "double", [1.0, 2.5]),
    "whole, then text": ("a\n1\nword\n", "string", ["1", "word"]),
    "numbers and truth": ("a\n1\ntrue\n", "string", ["1", "true"]),
    "truth": ("a\nTrue\nfalse\n", "bool", [True, False]),
    "infinite": ("a\ninf\n-1\n", "double", [float("inf"), -1.0]),
    "a day": ("a\n2024-01-05\n", "date32[day]", [DAY]),
    "a moment of a zone": ("a\n2024-01-05T12:00:00Z\n", "timestamp[ms, tz=UTC]", [NOON]),
    "days and words": ("a\n2024-01-05\nsoon\n", "string", ["2024-01-05", "soon"]),
    "a mark of UTF-8": (b"\xef\xbb\xbfa,b\n\xc3\xa4,1\n", "string", ["ä"]),
    "UTF-16 with its mark": ("a,b\nä,1\n".encode("utf-16"), "string", ["ä"]),
    "big-endian": (b"\xfe\xff" + "a,b\nä,1\n".encode("utf-16-be"), "string", ["ä"]),
    "semicolons": ("a;b\nx,y;2\n", "string", ["x,y"]),
    "what Excel says": ("sep=;\r\na;b\r\nx,y;2\r\n", "string", ["x,y"]),
    "bars": ("a|b\nx|2\n", "string", ["x"]),
    "a semicolon in text": ("a\nx;y\nz;w\n", "string", ["x;y", "z;w"]),
    "line breaks in quotes": ('"a\nb",c\r\n"x\r\ny",1\r\n', "string", ["x\r\ny"]),
    "blank lines above": ("\n\na,b\nx,1\n", "string", ["x"]),
    "a cell larger than a block": ("a,b\n" + "x" * (9 << 20) + ",1\ny,2\n", "string", ["x" * (9 << 20), "y"]),
    "no line break at the end": ("a\n1\n2", "int64", [1, 2]),
    "no value at all": ("a,b\n,1\n,2\n", "string", [None, None]),
}  # fmt: skip


@pytest.mark.parametrize("name", CSV)
def test_csv(name: str, src: Path) -> None:
    data, kind, values = CSV[name]
    found = column(src, "a.csv", data)
    assert found[:2] == (kind, values)


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", None)])
def test_packed_csv(src: Path, ending: str, pack: Any) -> None:
    pack = pack or (lambda data: pa.compress(data, codec="zstd", asbytes=True))
    assert column(src, f"a.csv.{ending}", pack(b"a\n1\n"))[:2] == ("int64", [1])


def test_csv_says_what_it_changes(src: Path) -> None:
    assert "without the zeros" in column(src, "a.csv", "a\n01067\n")[2][0]
    assert "'Unnamed: 0'" in column(src, "a.csv", ",b\n0,1\n")[2][0]
    assert "semicolons" in column(src, "a.csv", "a;b\n0;1\n")[2][0]
    assert "nan is one of them" in column(src, "a.csv", "a\n1.5\nnan\n")[2][0]
    assert "nothing but nulls" in column(src, "a.csv", "a,b\n,1\n")[2][0]


def test_nulls_as_pandas_takes_them(src: Path) -> None:
    every = Reading.asked(None, "pandas")
    assert every.null_values == NULLS_OF_PANDAS
    assert column(src, "a.csv", "a\nNA\nDE\n", every)[:2] == ("string", [None, "DE"])
    assert column(src, "a.csv", "a\n-\n5\n", Reading.asked(None, "-,?"))[:2] == ("int64", [None, 5])


def test_encodings(src: Path) -> None:
    (src / "a.csv").write_bytes("a,b\nx,1\nMüller,2\n".encode("cp1252"))
    said = refused(src)
    assert "a.csv is not UTF-8: line 3 has the byte 0xFC; as cp1252 it reads 'Müller,2'. Say --encoding cp1252" in said
    assert rows_of(plan_of(src, Reading("cp1252")))[1] == {"a": "Müller", "b": 2}
    (src / "a.csv").write_bytes("a,b\nMüller,2\n".encode("utf-16-le"))
    assert "Say --encoding utf-16-le" in refused(src)
    (src / "a.csv").write_bytes(b"a,b\n\xff\xff,2\n")
    assert "a.csv is not utf-16" in refused(src, Reading("utf-16-le")) or "cannot be read" in refused(src)
    with pytest.raises(BadInput, match="no encoding of text has this name"):
        Reading("utf-nine")
    with pytest.raises(BadInput, match="no encoding of text has this name"):
        Reading("zlib")


def test_what_comes_too_late_is_named(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MOST_SAMPLE_BYTES", 1 << 10)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1 << 10)
    (src / "a.csv").write_text("n,x\n" + "1,2\n" * 5000 + "1,word\n")
    assert "a.csv cannot be read: row 5,002 has 'word' in column 'x': the first rows" in refused(src)
    (src / "a.csv").write_bytes(b"n,x\n" + b"1,a\n" * 5000 + b"1,\xe4\n")
    assert "a.csv is not UTF-8: line 5,002" in refused(src)
    (src / "a.csv").unlink()
    (src / "a.jsonl").write_text('{"x": 1}\n' * 500 + '{"x": 1.5}\n')
    assert "a.jsonl cannot be read: line 501 does not fit in column 'x': it has 1.5" in refused(src)
    (src / "a.jsonl").write_text('{"x": 1}\n' * 500 + '{"x": 1, "y": 2}\n')
    assert "a.jsonl cannot be read: line 501 has a field 'y'" in refused(src)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.csv": "x,y\n1,2\n", "b.csv": "x,z\n1,2\n"}, "b.csv has other columns: column 'y' is in only one of it"),
        ({"a.csv": "x\n1\n", "b.csv": "x\nw\n"}, "b.csv has another schema: column 'x' is string there and int64 in"),
        ({"a.csv": "x,x\n1,2\n"}, "a.csv has two columns named 'x'"),
        ({"a.csv": "x,y\n1\n"}, "a.csv cannot be read: CSV parse error: Row #2: Expected 2 columns, got 1"),
        ({"a.jsonl": '{"x": 1}\n', "b.jsonl": '{"x": "w"}\n'}, "b.jsonl has another schema: column 'x' is string"),
        ({"a.jsonl": '{"x": {"y": 1}}\n{"x": 5}\n'}, "a.jsonl, line 2: 'x' is of two kinds"),
        ({"a.jsonl": "null\n"}, "a.jsonl cannot be read: line 1 is no object: it is null"),
        ({"a.jsonl": '{"x": 1}\n{"x":\n'}, "a.jsonl cannot be read: line 2 is no JSON"),
        ({"a.jsonl": '{"x": "\\ud800"}\n'}, "a.jsonl cannot be read: line 1 does not fit in column 'x'"),
        ({"a.jsonl": b'{"x": "\xe4"}\n'}, "a.jsonl is not UTF-8: line 1 has the byte 0xE4"),
        ({"a.json": "[1, 2]"}, "a.json cannot be read: item 1 is no object"),
        ({"a.csv": LFS}, "a.csv cannot be read: it is a pointer of Git LFS, not the file. Run git lfs pull."),
        ({"a.jsonl": LFS}, "a.jsonl cannot be read: it is a pointer of Git LFS"),
        ({"a.parquet": LFS}, "a.parquet cannot be read: it is a pointer of Git LFS"),
        ({"a.csv": gzip.compress(b"x,y\n1,2\n")}, "a.csv cannot be read: it is packed by gzip. Let its name end in"),
        ({"a.csv": b"PK\x03\x04\x14\x00\x06"}, "a.csv cannot be read: it is a zip, as Excel's files are"),
    ],
)
def test_what_does_not_fit_is_named(src: Path, files: dict[str, Any], words: str) -> None:
    for name, data in files.items():
        (src / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    assert words in refused(src)


JSON = {
    "whole, then not": ([{"a": 1}, {"a": 2.5}], "double", [1.0, 2.5]),
    "numbers, then text": ([{"a": 1}, {"a": "x"}], "string", ["1", "x"]),
    "null first": ([{"a": None}, {"a": [1]}], "list<element: int64>", [None, [1]]),
    "a field that comes late": ([{}, {"a": 1}], "int64", [None, 1]),
    "dates are text": ([{"a": "2024-01-05"}], "string", ["2024-01-05"]),
    "digits are text": ([{"a": "007"}], "string", ["007"]),
    "large": ([{"a": 2**63 + 1}, {"a": 1}], "uint64", [2**63 + 1, 1]),
    "larger": ([{"a": 10**30}], "string", [str(10**30)]),
    "exact": ([{"a": 2**60 + 1}, {"a": None}], "int64", [2**60 + 1, None]),
    "objects that grow": ([{"a": {"b": 1}}, {"a": {"c": "x"}}], "struct<b: int64, c: string>", None),
    "objects within that are empty": ([{"a": {"b": {}, "c": 1}}], "struct<c: int64>", [{"c": 1}]),
    "empty at first": ([{"a": {}}, {"a": {"b": 1}}], "struct<b: int64>", [{"b": None}, {"b": 1}]),
    "empty lists": ([{"a": []}], "list<element: string>", [[]]),
    "not a number": ([{"a": float("nan")}, {"a": float("inf")}], "double", None),
}


@pytest.mark.parametrize("name", JSON)
def test_json_lines(name: str, src: Path) -> None:
    rows, kind, values = JSON[name]
    found = column(src, "a.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert found[0] == kind
    assert values is None or found[1] == values
    (src / "a.jsonl").unlink()
    assert str(column(src, "a.json", json.dumps(rows, indent=1))[:2]) == str(found[:2])


def test_json_says_what_it_changes(src: Path) -> None:
    _, values, notes = column(src, "a.jsonl", '{"b": 1, "a": {}}\n{"b": true, "a": {}}\n')
    assert values == ["1", "true"]
    assert any("'b' holds values of different kinds (int64 and bool)" in note for note in notes)
    assert any("column 'a' is left out" in note for note in notes)


BEYOND = 2**53 + 1
ROUNDED = "kept as numbers of double precision: some of its whole ones have more digits"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("'x'", {"a.jsonl": [{"x": 1.5}, {"x": BEYOND}]}),
        ("'x'", {"a.jsonl": [{"x": BEYOND}], "b.jsonl": [{"x": 1.5}]}),
        ("'g.c[]'", {"a.jsonl": [{"g": {"c": [BEYOND], "id": BEYOND}}, {"g": {"c": [1.5], "id": 1}}]}),
        ("'x'", {"a.csv": f"x\n{BEYOND}\n", "b.csv": "x\n1.5\n"}),
        ("'x'", {"a.csv": f"x\n1.5\n{BEYOND}\n"}),
    ],
)
def test_whole_numbers_are_rounded_with_a_word(src: Path, name: str, files: dict[str, Any]) -> None:
    for at, rows in files.items():
        (src / at).write_text(rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows)))
    plan, rows = random_files.made(src, src.parent / "out", Reading())
    assert [note for note in plan.notes if ROUNDED in note and name in note] == plan.notes
    assert str(float(BEYOND)) in str(rows)
    assert "'id'" not in str(rows) or rows[0]["g"]["id"] == BEYOND


def test_a_whole_number_that_comes_late_is_not_rounded(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1 << 10)
    floats = '{"x": 1.5}\n' * 500
    (src / "a.jsonl").write_text(f'{floats}{{"x": {BEYOND}}}\n')
    assert f"a.jsonl cannot be read: line 501 has {BEYOND} in column 'x'" in refused(src)
    (src / "a.jsonl").write_text(f'{floats}{{"x": {2**60}}}\n{{"x": {BEYOND}.0}}\n{{"x": 1e300}}\n')
    _, rows = random_files.made(src, src.parent / "exact", Reading())
    assert [row["x"] for row in rows[500:]] == [2.0**60, 2.0**53, 1e300]


def test_a_whole_number_that_comes_late_in_csv_is_not_rounded(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MOST_SAMPLE_BYTES", 1 << 10)
    floats = "x,y\n" + "1.5,\n" * 5000
    (src / "a.csv").write_text(f"{floats}{BEYOND},\n")
    assert f"a.csv cannot be read: row 5,002 has {BEYOND} in column 'x'" in refused(src)
    (src / "a.csv").write_text(f"{floats}{2**60},a\n{BEYOND}.0,b\n1e300,\n,\n")
    _, rows = random_files.made(src, src.parent / "exact", Reading())
    assert [row["x"] for row in rows[5000:]] == [2.0**60, 2.0**53, 1e300, None]


@pytest.mark.parametrize("depth", [200, 1200])
def test_json_that_is_nested_too_deeply_is_named(src: Path, depth: int) -> None:
    (src / "a.jsonl").write_text(f'{{"x": {"[" * depth}1{"]" * depth}}}\n')
    assert "a.jsonl" in refused(src)


def hive(src: Path, **folders: str) -> None:
    for number, (at, text) in enumerate(folders.items()):
        path = src.joinpath(*at.replace("__", "=").split("/"))
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.csv").write_text(text)


def test_folders_that_are_columns(src: Path) -> None:
    for number, (year, name) in enumerate([("2024", "a%20b"), ("__HIVE_DEFAULT_PARTITION__", "%C3%A4")]):
        (src / f"year={year}" / f"the%20name={name}").mkdir(parents=True)
        (src / f"year={year}" / f"the%20name={name}" / f"{number}.csv").write_text(f"x\n{number}\n")
    (src / "_SUCCESS").touch()
    plan = plan_of(src)
    assert [str(kind) for kind in plan.schema.types] == ["int64", "int32", "string"]
    assert rows_of(plan) == [
        {"x": 0, "year": 2024, "the name": "a b"},
        {"x": 1, "year": None, "the name": "ä"},
    ]


@pytest.mark.parametrize(("own", "agrees"), [("2024", True), ("2023", False), ("", False)])
def test_a_column_that_a_folder_names_too(src: Path, own: str, agrees: bool) -> None:
    (src / "year=2024").mkdir()
    (src / "year=2024" / "a.csv").write_text(f"x,year\n1,{own}\n")
    if agrees:
        assert rows_of(plan_of(src)) == [{"x": 1, "year": 2024}]
    else:
        assert "lies in a folder year=" in refused(src)


def test_files_that_are_not_read_are_told(src: Path) -> None:
    for name in ("a.csv", "README", "b.csv", "notes.docx"):
        (src / name).write_text("x\n1\n")
    files = listed(src)
    kind, of_kind = chosen(src, files, None)
    assert left_out(files, of_kind, kind) == ["2 of the files are not csv and not read: README, notes.docx"]


MIXED = [
    (pa.array([1], pa.int8()), pa.array([2.5]), "double", [1.0, 2.5]),
    (pa.array(["a"]), pa.array(["b"], pa.string_view()), "string", ["a", "b"]),
    (pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode(), "string", ["a", "b"]),
    (pa.nulls(1), pa.array([3]), "int64", [None, 3]),
    (pa.array([{"a": 1}]), pa.array([{"b": "x"}]), "struct<a: int64, b: string>", None),
    (pa.array([0], pa.timestamp("ms")), pa.array([10**18], pa.timestamp("ns")), "timestamp[ns]", None),
    (pa.array([decimal.Decimal("1.5")]), pa.array([decimal.Decimal("10.25")]), "decimal128(4, 2)", None),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "kind", "values"), MIXED)
def test_parquet_files_of_different_types(src: Path, one: Any, other: Any, kind: str, values: Any) -> None:
    pq.write_table(pa.table({"x": one, "n": [0]}), src / "a.parquet")
    pq.write_table(pa.table({"n": [1], "x": other}), src / "b.parquet")
    plan = plan_of(src)
    assert str(plan.schema.field("x").type) == kind
    rows = rows_of(plan)
    assert [row["n"] for row in rows] == [0, 1]
    assert values is None or [row["x"] for row in rows] == values


def test_lists_of_dictionaries_in_many_row_groups(src: Path) -> None:
    lists = pa.array([["a"], ["b", "c"], [], None, ["a"]]).cast(pa.list_(pa.dictionary(pa.int32(), pa.string())))
    pq.write_table(pa.table({"x": lists}), src / "a.parquet", row_group_size=2)
    assert [row["x"] for row in rows_of(plan_of(src))] == [["a"], ["b", "c"], [], None, ["a"]]


def test_empty_objects_that_only_some_files_have(src: Path) -> None:
    (src / "a.jsonl").write_text('{"x": {"y": 1, "e": {}}, "z": {}}\n')
    (src / "b.jsonl").write_text('{"x": {"y": 2.5}, "z": null}\n')
    plan = plan_of(src)
    assert rows_of(plan) == [{"x": {"y": 1.0}}, {"x": {"y": 2.5}}]
    assert len([note for note in plan.notes if "'x'" in note or "'z'" in note]) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array(["a"]), pa.array([1])),
        (pa.array(["a"]), pa.array([b"a"])),
        (pa.array([True]), pa.array([1])),
        (pa.array([2**60 + 1]), pa.array([0.5])),
        (pa.array([[1]]), pa.array([1])),
        (pa.array([0], pa.timestamp("s", "UTC")), pa.array([0], pa.timestamp("s"))),
    ],
)
def test_parquet_files_that_do_not_fit_are_named(src: Path, one: Any, other: Any) -> None:
    pq.write_table(pa.table({"x": one}), src / "a.parquet")
    pq.write_table(pa.table({"x": other}), src / "b.parquet")
    said = refused(src)
    assert "'x'" in said
    assert ".parquet" in said


def every_kind() -> dict[str, pa.Array]:
    import random

    made = {name: make() for name, make in random_files.arrays_of(random.Random(5), 24).items()}
    return {**made, "run ends": pc.run_end_encode(pa.array([1] * 12 + [2] * 12))}


@pytest.mark.parametrize("name", every_kind())
def test_every_step_knows_every_kind_of_column(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step does its work, or is refused in words that name the column; nothing else is raised."""
    monkeypatch.setenv("SALT", "x")
    raw = pa.table({"x": every_kind()[name], "n": range(24)})
    if name == "run ends":  # in no Parquet file
        raw = kinds.plain(raw, "it")
    pq.write_table(raw, tmp_path / "a.parquet")
    plan = plan_parquet([tmp_path / "a.parquet"])
    whole = pa.concat_tables(list(tables_of(plan)))
    values = whole["x"].to_pylist()
    assert str(whole["x"].to_pylist()) == str(raw["x"].to_pylist())
    kept = pa.concat_tables(list(Recipe(filter=Filter("x is not None")).changed(tables_of(plan))))
    assert len(kept) == sum(value is not None for value in values)
    for text in ("x == x", "x > 1", "x != 'a'", "x in [1, 2]", "len(x) > 0", "x + 1 < 3", "x % 2 == 0", "-x < 1"):
        named(lambda text=text: list(Recipe(filter=Filter(text)).changed(tables_of(plan))))
    for text in ("hash:SALT", "redact", "generalise:2", "generalise:day"):
        named(lambda text=text: masks.parse(f"x={text}").applied(whole))
    halves = Recipe(parts=parts.parse("a=0.5,b=0.5"), split_by=("x",), dedup=("x",))
    assert len(halves.keys(whole)) == 24
    assert sum(table.num_rows for _, table in halves.parted(tables_of(plan), None)) == 24
    assert list(shuffle.scattered(Recipe(shuffle=True), plan.schema, "it", 4, 0, tables_of(plan), None))
    named(lambda: arrays(whole))
    folder = tmp_path / "out"
    stored = [typed(fitted(table, plan.schema, "it"), plan.schema) for table in tables_of(plan)]
    manifest = write_dataset(folder, stored, name="out", source="it", label="x")
    verify(folder, manifest)
    assert manifest.label_counts is None or sum(manifest.label_counts.values()) == 24
    assert stats.described(folder)["columns"]["x"]["nulls"] == sum(value is None for value in values)
    assert len(stats.first_rows(folder, 3)) == 3
    seen = []

    def transform(table: pa.Table, random: Any, training: bool) -> dict[str, Any]:
        seen.extend(table.to_pylist())
        return {"n": table["n"].to_numpy().copy()}

    order = Order(manifest.groups, seed=1, lanes=2, lane_batch=5, window=4)
    with closing(DirectReader([Groups(LocalFiles(folder, manifest))], order, seed=1)) as reader:
        reader.use(transform)
        for step in range(order.steps_per_epoch):
            for lane in range(2):
                reader.batch(0, step, lane)
    assert str(sorted(seen, key=lambda row: row["n"])) == str(whole.to_pylist())


def tables_of(plan: Plan) -> Any:
    return (typed(table, plan.schema) for piece in plan.pieces for table in plan.read(piece, plan.schema))


def named(step: Any) -> None:
    """Run a step; what it refuses, it names."""
    said = ""
    try:
        step()
    except BadInput as error:
        said = str(error)
    assert not said or "x" in said
    assert "kernel" not in said or "column 'x'" in said


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("big > 5", [1]),
        ("big == 18446744073709551615", [1]),
        ("big in [1, 2]", [0]),
        ("half >= 0.5", [1]),
        ("price in [1.5]", [0]),
        ("price < 2", [0]),
        ('day > "2024-01-01"', [1]),
        ('day in ["2024-01-01"]', [0]),
        ("len(tags) == 2", [1]),
    ],
)
def test_filters_of_uncommon_columns(text: str, rows: list[int]) -> None:
    table = pa.table(
        {
            "big": pa.array([1, 2**64 - 1], pa.uint64()),
            "half": pa.array([np.float16(0.25), np.float16(0.5)]),
            "price": pa.array([decimal.Decimal("1.5"), decimal.Decimal("2.5")]),
            "day": [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)],
            "tags": [["a"], ["a", "b"]],
            "id": [0, 1],
        }
    )
    assert Filter(text).kept(table)["id"].to_pylist() == rows


def test_kinds_that_no_dataset_holds_are_named() -> None:
    table = pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(BadData, match="column 'x' of it is month_day_nano_interval: Parquet has no such type"):
        kinds.plain(table, "it")
    nulls = pa.table({"x": pa.array([[1, 2], None], pa.list_(pa.int8(), 2))})
    with pytest.raises(BadData, match="column 'x' of it cannot be kept: 1 nulls among lists of 2"):
        kinds.plain(nulls, "it")


def test_many_different_values_are_an_estimate(tmp_path: Path) -> None:
    rows = stats.COUNTED + 5000
    folder = tmp_path / "out"
    write_dataset(folder, [pa.table({"many": range(rows), "few": [i % 7 for i in range(rows)]})], name="o", source="s")
    found = stats.described(folder)["columns"]
    assert (found["few"]["distinct"], found["few"]["estimated"]) == (7, [])
    assert found["many"]["estimated"] == ["distinct"]
    assert found["many"]["distinct"] == pytest.approx(rows, rel=0.05)


def test_a_soak_draws_more() -> None:
    assert len(SEEDS) == (300 if SOAK else 2)


# Frames


def test_pandas_frames() -> None:
    frame = pd.DataFrame(
        {
            "f": [1.5, float("nan")],
            "s": ["a", None],
            "c": pd.Categorical(["x", "y"]),
            "i": pd.array([1, None], "Int64"),
            "zoned": pd.to_datetime(["2024-01-01", "2024-01-02"]).tz_localize("Europe/Berlin"),
            "view": pd.array(["a", "b"], dtype=pd.ArrowDtype(pa.string_view())),
            "sparse": pd.arrays.SparseArray([0, 1]),
            "arrays": [np.arange(2), np.arange(3)],
            "empty": [{}, {}],
            7: [1, 2],
        },
        index=pd.Index(["p", "q"], name="who"),
    )
    found = frames.framed(frame)
    assert found.table.to_pylist()[0]["zoned"] == frame["zoned"].iloc[0]
    assert [row["f"] for row in found.table.to_pylist()] == [1.5, None]
    plain = {column.name: str(column.type) for column in found.table.schema}
    assert plain["c"] == plain["s"] == plain["view"] == "string"
    assert (plain["i"], plain["sparse"], plain["arrays"], plain["7"]) == (
        "int64",
        "int64",
        "list<element: int64>",
        "int64",
    )
    assert "empty" not in plain
    said = " ".join(found.notes)
    assert all(word in said for word in ("the index 'who' is not kept", "such as 7", "column 'c'", "column 'empty'"))
    assert frames.framed(pd.DataFrame({"x": [1, 2]})).notes == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (pd.DataFrame({"x": [1, "a"]}), "column 'x' of a pandas frame is object, which no dataset can hold"),
        (pd.DataFrame({"x": [1j]}), "column 'x' of a pandas frame is complex128"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'"),
        (pd.DataFrame({("a", "b"): [1]}), "its columns have 2 levels"),
        (pd.Series([1]), "is no table"),
        (5, "prepare was given a builtins.int: that is neither a path nor a table"),
    ],
)
def test_frames_that_cannot_be_prepared(source: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        frames.framed(source)
    assert words in str(caught.value)


class Streaming:
    """What Polars and others give: an Arrow stream."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, schema: object = None) -> object:
        return self._table.__arrow_c_stream__(schema)


def test_whatever_gives_an_arrow_stream(tmp_path: Path) -> None:
    table = pa.table({"s": pa.array(["a", None], pa.string_view()), "c": pa.array(["x", "y"]).dictionary_encode()})
    found = frames.framed(Streaming(table))
    with frames.written(found, tmp_path / "deep" / "out") as path:
        plan = plan_parquet([path])
        assert rows_of(plan) == [{"s": "a", "c": "x"}, {"s": None, "c": "y"}]
    assert list((tmp_path / "deep").iterdir()) == []
    assert frames.framed(pa.record_batch({"x": [1]})).table.to_pylist() == [{"x": 1}]


def test_two_columns_of_one_name_in_a_parquet_file_are_refused(src: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, src / "a.parquet")
    assert "a.parquet has two columns named 'a'" in refused(src)


def test_folders_must_agree_and_fit(src: Path) -> None:
    hive(src, y__1="x\n1\n")
    plan = plan_of(src)
    (src / "y=1").rename(src / "y=u")
    with pytest.raises(BadData, match="lies in a folder y=u: the dataset has int32 there"):
        list(plan_of(src).read(plan_of(src).pieces[0], plan.schema))
    (src / "y=1").mkdir()
    (src / "y=u").rename(src / "y=1" / "y=u")
    assert "lies in two folders y=...: they say '1' and 'u'" in refused(src)


DAY = datetime.datetime(2024, 1, 1, 5)


@pytest.mark.parametrize(
    "values",
    [
        [datetime.date(2024, 1, 1), DAY],
        [None, DAY, DAY.replace(tzinfo=datetime.UTC)],
        [b"x", "y"],
        [datetime.timedelta(1), 5],
    ],
    ids=["dates", "zones", "bytes", "durations"],
)
def test_a_frame_of_mixed_values_is_not_made_one(values: list[Any]) -> None:
    with pytest.raises(BadInput, match="column 'c' of a pandas frame is mixed"):
        frames.framed(pd.DataFrame({"c": pd.Series(values, dtype=object)}))


def test_what_is_missing_from_a_frame_is_not_mixed() -> None:
    for values in ([datetime.date(2024, 1, 1), pd.NaT], [DAY.replace(tzinfo=datetime.UTC), pd.NaT, None], ["x", pd.NA]):
        frame = pd.DataFrame({"c": pd.Series(values, dtype=object)})
        assert frames.framed(frame).table["c"].null_count == len(values) - 1


@pytest.mark.parametrize(("zone", "kept"), [("UTC", [True]), ("Asia/Tokyo", [True]), ("America/New_York", [])])
def test_a_day_beside_times_of_a_zone_is_a_day_there(zone: str, kept: list[bool]) -> None:
    at = pa.table({"t": pa.array([datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)], pa.timestamp("us", zone))})
    assert Filter("t >= '2024-01-01'").kept(at).num_rows == len(kept)
    assert Filter("t >= '2024-01-01T00:00:00Z'").kept(at).num_rows == 1


FAR = {
    "date": (pa.array([10_000_000, 1, None], pa.int32()).cast(pa.date32()), "29349-01-26"),
    "time of a zone": (pa.array([10**18, 1, None]).cast(pa.timestamp("us", "UTC")), "-31878-09-27 01:46:40.000000Z"),
    "duration": (pa.array([10**17, 1, None]).cast(pa.duration("s")), "100000000000000000"),
    "unknown zone": (pa.array([10**6, 1, None], pa.timestamp("us", "Foo/Bar")), "1970-01-01 00:00:01.000000Z"),
}


@pytest.mark.parametrize("name", FAR)
def test_values_that_python_has_not_are_counted_and_shown(name: str, tmp_path: Path) -> None:
    column, text = FAR[name]
    manifest = write_dataset(tmp_path / "out", [pa.table({"x": column})], name="out", source="it", label="x")
    assert manifest.label_counts is not None
    assert manifest.label_counts[text] == manifest.label_counts["None"] == 1
    assert stats.first_rows(tmp_path / "out", 1) == [{"x": text}]
    found = stats.described(tmp_path / "out")["columns"]["x"]
    assert name == "duration" or text in (str(found["min"]), str(found["max"]))


def test_times_of_a_day_are_compared_with_text() -> None:
    at = pa.table({"t": pa.array([datetime.time(9), None, datetime.time(17, 30)], pa.time64("us"))})
    assert Filter("t > '12:00'").kept(at)["t"].to_pylist() == [datetime.time(17, 30)]
    assert Filter("t in ['09:00:00', '10:00']").kept(at)["t"].to_pylist() == [datetime.time(9)]
    with pytest.raises(BadInput, match="does not fit the columns"):
        Filter("t > 'noon'").kept(at)
