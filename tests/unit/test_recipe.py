"""What prepare does to rows, step by step, without a cluster."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import parts
from headway.data.prepare.stages.duplicates import ENTRY, Duplicates, repeated
from headway.data.prepare.steps import masks
from headway.data.prepare.steps.blocks import Pack, Packer
from headway.data.prepare.steps.filters import Filter
from headway.data.prepare.steps.recipe import Recipe, fitted
from headway.data.prepare.steps.transform import as_arrays, as_table, load
from headway.data.rowhash import hashes
from headway.data.tensors import column
from headway.errors import BadData, BadInput

TABLE = pa.table(
    {
        "label": [0, 1, 2, 3, None, 3],
        "age": [10.0, 20.0, 30.0, 40.0, 50.0, float("nan")],
        "name": ["ann", "bob", "cyd", "ann", None, "dee"],
        "two words": [1, 2, 3, 4, 5, 6],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("label != 3 and age > 10", [1, 2]),
        ("label == 3", [3, 5]),
        ("not label == 3", [0, 1, 2]),
        ("label in [0, 3]", [0, 3, 5]),
        ("label not in (0, 3)", [1, 2]),
        ("label is None", [4]),
        ("label is not None", [0, 1, 2, 3, 5]),
        ("10 < age <= 30", [1, 2]),
        ("age / 10 + label * 2 == 4", [1]),
        ("label % 2 == 1", [1, 3, 5]),
        ('name == "ann" or col("two words") >= 6', [0, 3, 5]),
        ("len(name) == 3 and -label < 0", [1, 2, 3, 5]),
        ("True", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_filter(text: str, rows: list[int]) -> None:
    assert Filter(text).kept(TABLE)["two words"].to_pylist() == [row + 1 for row in rows]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("label ==", "cannot be read"),
        ("age", "not true or false"),
        ("height > 3", "no such column"),
        ("name > 3", "does not fit the columns"),
        ("__import__('os').system('true')", "not allowed in a filter"),
        ("age.real > 1", "not allowed in a filter"),
        ("[x for x in age]", "not allowed in a filter"),
        ("label in [age]", "a list holds plain values"),
        ("label is 3", "that comparison is not known"),
        ("label ** 2 > 3", "not allowed in a filter"),
        ("(lambda: 1)()", "not allowed in a filter"),
    ],
)
def test_bad_filter(text: str, fact: str) -> None:
    with pytest.raises(BadInput, match=fact):
        Filter(text).kept(TABLE)


def test_filters_fit_tables_without_rows() -> None:
    assert Filter("label != 3 and age > 10").kept(TABLE.slice(0, 0)).num_rows == 0


def numbered(rows: int, first: int = 0) -> pa.Table:
    return pa.table({"id": np.arange(first, first + rows)})


def test_split_by_shares() -> None:
    split = parts.parse("train=0.8,validation=0.1,test=0.1")
    found = split.of(hashes(numbered(20_000), ["id"])[:, 0], seed=1)
    counts = np.bincount(found)
    assert split.names == ("train", "validation", "test")
    np.testing.assert_allclose(counts / 20_000, [0.8, 0.1, 0.1], atol=0.01)
    assert (split.of(hashes(numbered(20_000), ["id"])[:, 0], seed=2) != found).mean() > 0.25


@given(st.integers(1, 300), st.integers(0, 300), st.integers(-(2**40), 2**40), st.integers(0, 5))
def test_a_rows_part_stays_when_data_is_added(rows: int, more: int, first: int, seed: int) -> None:
    split = parts.parse("a=0.5,b=0.3,c=0.2")
    alone = split.of(hashes(numbered(rows, first), ["id"])[:, 0], seed)
    both = pa.concat_tables([numbered(more, first + 10**6), numbered(rows, first)])
    among = split.of(hashes(both, ["id"])[:, 0], seed)
    np.testing.assert_array_equal(among[more:], alone)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("train=0.8", "add up to 0.8"),
        ("train", "not NAME=SHARE"),
        ("a=0.5,a=0.5", "twice"),
        ("a=x,b=1", "not a number"),
        ("a=0,b=1", "not above 0"),
        ("../a=0.5,b=0.5", "not NAME=SHARE"),
    ],
)
def test_bad_split(text: str, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        parts.parse(text)


def test_equal_values_hash_alike_in_whatever_form() -> None:
    forms = [
        pa.array([1, 2, None], pa.int8()),
        pa.array([1, 2, None], pa.int64()),
        pa.chunked_array([[1], [2, None]], pa.int32()),
    ]
    found = [hashes(pa.table({"x": form}), ["x"]) for form in forms]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    words = [
        pa.array(["a", None, "b"]),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array(["a", None, "b"], pa.large_string()),
    ]
    texts = [hashes(pa.table({"x": form}), ["x"]) for form in words]
    np.testing.assert_array_equal(texts[0], texts[1])
    np.testing.assert_array_equal(texts[0], texts[2])


def test_different_values_hash_differently() -> None:
    rows = 50_000
    table = pa.table(
        {
            "i": np.arange(rows) // 250,
            "j": np.arange(rows) % 250,
            "f": np.arange(rows) / 8,
            "s": [f"{i}" for i in range(rows)],
            "t": column(np.arange(rows * 2, dtype=np.int32).reshape(rows, 2)),
            "l": pa.array([[i, i + 1] for i in range(rows)]),
            "d": pa.array([datetime.date.fromordinal(1 + i) for i in range(rows)]),
        }
    )
    for names in (["i", "j"], ["f"], ["s"], ["t"], ["l"], ["d"]):
        found = hashes(table, names)
        for word in (0, 1):
            assert len(np.unique(found[:, word])) == rows
    assert not np.array_equal(hashes(table, ["i", "j"]), hashes(table, ["j", "i"]))


@given(st.lists(st.integers(0, 6), max_size=60))
def test_duplicates_are_all_but_the_first(keys: list[int]) -> None:
    entries = np.zeros(len(keys), ENTRY)
    entries["high"], entries["row"] = keys, np.arange(len(keys))
    first = [i for i, key in enumerate(keys) if key not in keys[:i]]
    rng = np.random.default_rng(len(keys))
    assert sorted(set(range(len(keys))) - set(repeated(entries[rng.permutation(len(keys))]).tolist())) == first


def test_duplicates_of_earlier_rows(tmp_path: Path) -> None:
    entries = np.zeros(5, ENTRY)
    entries["high"], entries["row"] = [7, 7, 8, 9, 9], [-2, 0, 1, 2, 3]
    found = Duplicates(tmp_path / "flags", [2, 0, 2])
    found.mark([entries])
    assert [found.of(piece).tolist() for piece in range(3)] == [[True, False], [], [False, True]]


def test_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEPPER", "one")
    one = masks.parse("name=hash:PEPPER")
    hashed = one.applied(TABLE)["name"].to_pylist()
    assert hashed[0] == hashed[3] != hashed[1]
    assert (hashed[4], len(hashed[0])) == (None, 32)
    monkeypatch.setenv("PEPPER", "two")
    assert masks.parse("name=hash:PEPPER").applied(TABLE)["name"][0].as_py() != hashed[0]
    assert "one" not in repr(one) + one.text
    assert masks.parse("name=redact").applied(TABLE)["name"].to_pylist() == ["[redacted]"] * 6
    assert masks.parse("label=redact").applied(TABLE)["label"].to_pylist() == [None] * 6
    assert masks.parse("label=generalise:2").applied(TABLE)["label"].to_pylist() == [0, 0, 2, 2, None, 2]
    assert masks.parse("age=generalise:20").applied(TABLE)["age"].to_pylist()[:5] == [0, 20, 20, 40, 40]
    below = pa.table({"x": [-1, -20, 2**60 + 7]})
    assert masks.parse("x=generalise:10").applied(below)["x"].to_pylist() == [-10, -20, (2**60 + 7) // 10 * 10]
    days = pa.table({"born": [datetime.date(1985, 6, 17)]})
    assert masks.parse("born=generalise:year").applied(days)["born"].to_pylist() == [datetime.date(1985, 1, 1)]
    pictures = pa.table({"x": column(np.ones((2, 3), np.uint8))})
    assert masks.parse("x=redact").applied(pictures)["x"].chunk(0).to_numpy_ndarray().tolist() == [[0] * 3] * 2


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("name", "not a column and a way"),
        ("name=blur", "not a column and a way"),
        ("name=hash", "not a column and a way"),
        ("name=redact:3", "not a column and a way"),
        ("name=hash:NO_SUCH_VARIABLE", "no variable NO_SUCH_VARIABLE"),
        ("age=generalise:0", "neither a number above 0"),
        ("age=generalise:decade", "neither a number above 0"),
        ("who=redact", "no column 'who'"),
        ("name=generalise:3", "only numbers, dates and times"),
        ("label=generalise:1.5", "not a whole number"),
    ],
)
def test_bad_mask(text: str, fact: str) -> None:
    with pytest.raises(BadInput, match=fact):
        masks.parse(text).applied(TABLE)


def packed(pack: Pack, *tables: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    packer = Packer(pack)
    found = [made for table in tables for made in packer.add(table)] + list(packer.rest())
    whole = pa.concat_tables(found)
    return tuple(np.concatenate([c.to_numpy_ndarray() for c in whole[n].chunks]) for n in ("tokens", "segments"))  # type: ignore[return-value]


def test_text_is_packed_with_its_documents() -> None:
    tokens, segments = packed(Pack(4), pa.table({"text": ["ab", "c"]}), pa.table({"text": ["defg", None]}))
    assert tokens.tobytes() == b"\0ab\0c" + b"c\0def" + b"fg\0\0\0"
    assert segments.tolist() == [[1, 1, 1, 1, 2], [1, 1, 2, 2, 2], [1, 1, 1, 0, 0]]


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=7), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 12)
)
def test_each_token_is_a_target_once(documents: list[list[int]], length: int, cut: int) -> None:
    table = pa.table({"ids": pa.array(documents, pa.list_(pa.int32()))})
    line = [token for document in documents for token in document]
    if len(line) < 2:
        return
    tokens, segments = packed(Pack(length), table.slice(0, cut), table.slice(cut))
    whole = packed(Pack(length), table)
    np.testing.assert_array_equal(tokens, whole[0])
    np.testing.assert_array_equal(segments, whole[1])
    targets = tokens[:, 1:][segments[:, 1:] > 0]
    assert targets.tolist() == line[1:]
    assert tokens.dtype == np.int32


def test_what_cannot_be_packed() -> None:
    with pytest.raises(BadInput, match="2 columns hold text"):
        packed(Pack(4), pa.table({"a": ["x"], "b": ["y"]}))
    with pytest.raises(BadInput, match="no column of text"):
        packed(Pack(4, "n"), pa.table({"a": ["x"], "n": [1]}))
    with pytest.raises(BadData, match="zero byte"):
        packed(Pack(4), pa.table({"a": ["x\0y"]}))


def test_arrays_and_back() -> None:
    table = pa.table({"x": [1.5, 2.5], "w": ["a", "b"], "image": column(np.arange(8, dtype=np.uint8).reshape(2, 2, 2))})
    found = as_arrays(table)
    assert found["image"].shape == (2, 2, 2)
    assert as_table(found).equals(table)


def module(folder: Path, body: str) -> str:
    path = folder / "own_steps.py"
    path.write_text("import numpy as np\nimport pyarrow as pa\n" + body)
    return f"{path}:step"


@pytest.mark.parametrize(
    ("body", "batch_format"),
    [
        ("def step(batch: dict[str, np.ndarray]):\n    return {'y': batch['id'][::2] * 2}\n", None),
        ("def step(batch):\n    return {'y': batch['id'][::2] * 2}\n", "numpy"),
        ("def step(batch: pa.Table):\n    return pa.table({'y': batch['id'].to_numpy()[::2] * 2})\n", None),
    ],
)
def test_transform(tmp_path: Path, body: str, batch_format: str | None) -> None:
    found = load(module(tmp_path, body), batch_format)(numbered(5))
    assert found.to_pydict() == {"y": [0, 4, 8]}


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        ("def step(batch):\n    return 3\n", "gave a int"),
        ("def step(batch):\n    return {'a': [1], 'b': [1, 2]}\n", "gave no table"),
        ("def step(batch):\n    raise KeyError('lost')\n", "KeyError: 'lost'"),
        ("def other(batch):\n    return batch\n", "no such class or function"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_bad_transform(tmp_path: Path, body: str, fact: str) -> None:
    with pytest.raises(BadInput, match=fact) as caught:
        load(module(tmp_path, body), None)(numbered(5))
    assert "task" not in str(caught.value)


def test_a_transform_keeps_to_its_first_columns() -> None:
    schema = pa.schema([("x", pa.float64())])
    assert fitted(pa.table({"x": [1]}), schema, "it").schema == schema
    for odd in ({"y": [1.0]}, {"x": ["word"]}, {"x": [1.0], "y": [1]}):
        with pytest.raises(BadInput, match=r"gave (other columns|another type)"):
            fitted(pa.table(odd), schema, "it")


def everything(recipe: Recipe, tables: list[pa.Table], dropped: Any = None) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for part, rows in recipe.parted(iter(tables), dropped):
        found.setdefault(part, []).extend(rows["id"].to_pylist())
    return found


def test_steps_in_their_order() -> None:
    recipe = Recipe(filter=Filter("id % 2 == 0"), parts=parts.parse("a=0.5,b=0.5"), split_by=("id",))
    dropped = np.zeros(50, bool)
    dropped[3] = True
    found = everything(recipe, [numbered(60), numbered(40, 60)], dropped)
    assert sorted(found[0] + found[1]) == [i for i in range(0, 100, 2) if i != 6]
    assert everything(recipe, [numbered(100)], dropped) == found


def test_a_source_that_changes_between_two_readings() -> None:
    for rows in (9, 11):
        with pytest.raises(BadData, match="read twice"):
            everything(Recipe(), [numbered(rows)], np.zeros(10, bool))


def test_unknown_columns_are_refused_at_the_door() -> None:
    for recipe in (Recipe(dedup=("z",)), Recipe(split_by=("z",)), Recipe(filter=Filter("z > 1"))):
        with pytest.raises(BadInput, match="Columns: id"):
            recipe.schema(numbered(0))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a + a > 250", [2]),
        ("a - 150 < 0", [0, 1]),
        ("-a < -100", [2]),
        ("not a in [5]", [1, 2]),
        ("not (a in [5])", [1, 2]),
        ("a not in [5]", [1, 2]),
    ],
)
def test_filters_neither_wrap_around_nor_keep_nulls(text: str, kept: list[int]) -> None:
    table = pa.table({"a": pa.array([5, 100, 200, None], pa.uint8()), "n": [0, 1, 2, 3]})
    assert Filter(text).kept(table)["n"].to_pylist() == kept


@pytest.mark.parametrize("text", ["n < 100000000000000000000", "not " * 5000 + "n == 1", "n == '\ud800'"])
def test_odd_filters_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--filter"):
        Filter(text).mask(pa.table({"n": [1]}))


def test_coarse_numbers_do_not_wrap_around() -> None:
    table = pa.table({"n": pa.array([-128, 127], pa.int8())})
    assert masks.parse("n=generalise:64").applied(table)["n"].to_pylist() == [-128, 64]
    with pytest.raises(BadInput, match="--mask n=generalise:5"):
        masks.parse("n=generalise:5").applied(table)
