"""`headway data prepare` on every kind of source, on one Ray; what cannot be read is named and leaves nothing."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from headway.data import manifest as manifests
from headway.data.arrays import arrays
from headway.data.prepare import prepare, whole
from headway.data.prepare.sources import tables
from headway.data.prepare.sources.listing import Plan
from headway.data.prepare.stages import pipeline
from headway.data.prepare.stages.pipeline import blocks, rows_of, runs
from headway.data.prepare.steps.recipe import Recipe
from headway.errors import BadInput

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


def table(start: int, rows: int) -> pa.Table:
    ids = np.arange(start, start + rows)
    return pa.table({"id": ids, "x": ids / 7, "label": [f"class {i % 3}" for i in ids]})


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """An empty folder for a source; the destination is tmp_path / 'out'."""
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


def prepared(src: Path, **options: object) -> tuple[manifests.Manifest, pa.Table]:
    """The manifest of what was made beside the source, verified, and all its rows."""
    folder = src.parent / "out"
    found = prepare(src, folder, **options)  # type: ignore[arg-type]
    assert isinstance(found, manifests.Manifest)
    assert manifests.load(folder) == found
    manifests.verify(folder, found)
    return found, pa.concat_tables([pq.read_table(folder / shard.path) for shard in found.shards])


def refused(src: Path, **options: object) -> str:
    """The message of the refusal, which left nothing beside the source."""
    before = sorted(src.parent.iterdir())
    with pytest.raises(BadInput) as caught:
        prepare(src, src.parent / "out", **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert sorted(src.parent.iterdir()) == before
    return str(caught.value)


def images(src: Path, shape: tuple[int, ...] = (6, 5, 3), classes: str = "ab", each: int = 40) -> None:
    from PIL import Image

    for code, name in enumerate(classes):
        (src / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(np.full(shape, 100 * code + i, np.uint8)).save(src / name / f"{i}.png")


def test_csv_files_in_order_with_labels_counted(src: Path) -> None:
    for i in range(3):
        csv.write_csv(table(7000 * i, 7000), src / f"part-{i}.csv")
    found, rows = prepared(src, label="label")
    assert rows["id"].to_pylist() == list(range(21_000))
    assert len(found.groups) == 16
    assert found.label_counts == {f"class {i}": 7000 for i in range(3)}
    assert found.schema == (("id", "int64"), ("x", "double"), ("label", "string"))


def test_packed_csv_with_line_breaks_in_quotes(src: Path) -> None:
    (src / "a.csv.gz").write_bytes(gzip.compress(b'id,words\n1,"two\nlines"\n2,one\n'))
    _, rows = prepared(src)
    assert rows.to_pylist() == [{"id": 1, "words": "two\nlines"}, {"id": 2, "words": "one"}]


def test_json_lines_packed_and_not(src: Path) -> None:
    lines = [json.dumps({"id": i, "x": i / 2, "inner": {"k": [i]}}) + "\n" for i in range(500)]
    (src / "a.jsonl").write_text("".join(lines[:300]))
    (src / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[300:]).encode()))
    found, rows = prepared(src)
    assert rows.to_pylist() == [json.loads(line) for line in lines]
    assert found.label_counts is None


def test_parquet_in_many_pieces_keeps_its_order_and_tensors(src: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3000, 9, 9), dtype=np.uint8)
    for i in range(6):
        part = slice(500 * i, 500 * i + 500)
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels[part])
        pq.write_table(pa.table({"image": tensors, "label": np.arange(3000)[part]}), src / f"{i}.parquet")
    found, rows = prepared(src, row_group_rows=700, shard_rows=1400)
    assert found.groups == (700, 700, 700, 700, 200)
    assert [shard.rows for shard in found.shards] == [1400, 1400, 200]
    assert found.schema == (("image", "tensor<uint8>[9, 9]"), ("label", "int64"))
    columns = arrays(rows)
    np.testing.assert_array_equal(columns["image"], pixels)
    np.testing.assert_array_equal(columns["label"], np.arange(3000))


def test_rows_read_where_they_are_encoded_give_the_bytes_that_ray_data_gives(
    src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pieces know their rows and none is left out, no row passes the object store."""
    random = np.random.default_rng(3)
    for i, (rows, group_rows) in enumerate([(3000, 170), (0, 10), (1, 1), (5000, 2048), (700, 700)]):
        names = pa.array(random.choice(["a", "bb", "ccc"], rows).astype(object))
        part = pa.table(
            {
                "x": random.normal(size=rows),
                "name": names if i % 2 else names.dictionary_encode().cast(pa.string()),
                "maybe": pa.array(random.integers(0, 9, rows), mask=random.random(rows) < 0.2),
                "list": pa.array([[int(n)] * (int(n) % 4) for n in random.integers(0, 9, rows)], pa.list_(pa.int64())),
            }
        )
        pq.write_table(part, src / f"{i}.parquet", row_group_size=group_rows)
    options = {"label": "name", "row_group_rows": 300, "mask": ("name=redact",)}
    other = prepare(src, src.parent / "other", **{**options, "filter": "x < 1e9"})
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "blocks", None)  # Ray Data is not asked
        found, rows = prepared(src, **options)
    assert found.rows == 8701
    assert len(rows) == 8701
    assert [shard.sha256 for shard in found.shards] == [shard.sha256 for shard in other.shards]
    assert (found.label_counts, found.schema) == (other.label_counts, other.schema)


def test_a_source_that_changes_meanwhile_is_named(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(0, 3000), src / "0.parquet", row_group_size=500)
    plan = tables.plan_parquet([src / "0.parquet"])
    monkeypatch.setattr(whole, "planned", lambda *of: replace(plan, files=[src / "0.parquet"]))
    pq.write_table(table(0, 3000), src / "0.parquet", row_group_size=499)
    assert "0.parquet has changed: 3000 rows were in some row groups of it, now 2994" in refused(src)


def test_a_dataset_cut_anew_keeps_its_label_and_names(src: Path) -> None:
    images(src)
    first = prepare(src, src.parent / "first")
    again = prepare(src.parent / "first", src.parent / "second")
    assert (again.label, again.categories, again.digest) == (first.label, first.categories, first.digest)


def test_images_by_class_come_mixed_and_the_same_each_time(src: Path) -> None:
    images(src, each=100)
    found, rows = prepared(src)
    columns = arrays(rows)
    assert found.schema == (("image", "tensor<uint8>[6, 5, 3]"), ("label", "int64"))
    assert found.categories == {"label": ["a", "b"]}
    assert found.label_counts == {"0": 100, "1": 100}
    assert 30 < columns["label"][:100].sum() < 70
    assert sorted((columns["image"][:, 0, 0, 0] - 100 * columns["label"]).tolist()) == sorted([*range(100)] * 2)
    assert prepare(src, src.parent / "again").digest == found.digest


def test_grey_images_resized(src: Path) -> None:
    images(src, shape=(8, 8))
    found, rows = prepared(src, image_size="4x3")
    assert found.schema[0] == ("image", "tensor<uint8>[4, 3]")
    columns = arrays(rows)
    assert set((columns["image"][:, 0, 0] - 100 * columns["label"]).tolist()) == set(range(40))


def test_text_in_blocks_of_bytes(src: Path) -> None:
    (src / "deep").mkdir()
    (src / "a.txt").write_text("first " * 100)
    (src / "deep" / "b.md").write_text("zweite Zeile äöü\n" * 100)
    found, rows = prepared(src)
    assert found.schema == (("tokens", "tensor<uint8>[257]"),)
    text = arrays(rows)["tokens"][:, 1:].tobytes().rstrip(b"\0").decode()
    assert text == "first " * 100 + "\0" + "zweite Zeile äöü\n" * 100


def test_rays_own_scheduling_does_not_show(tmp_path: Path) -> None:
    """The first piece ends only when a later one has."""

    def read(piece: dict, schema: pa.Schema) -> Iterator[pa.Table]:
        done, deadline = Path(piece["done"]), time.monotonic() + 60
        while piece["i"] == 0 and not done.exists():
            assert time.monotonic() < deadline, "no later piece ended"
            time.sleep(0.01)
        yield pa.table({"i": [piece["i"]]})
        if piece["i"] == 3:
            done.touch()

    pieces = [{"i": i, "done": str(tmp_path / "done")} for i in range(8)]
    plan = Plan(pa.schema([("i", pa.int64())]), pieces, read)
    step = partial(rows_of, Recipe(), plan.schema, "a piece")
    assert [run.piece for _, run in runs(blocks(plan, step), num_parts=1, ahead=4)] == list(range(8))


def test_tables_in_folders_with_nulls_and_codes(src: Path) -> None:
    """What pandas makes of it, but that Namibia stays; and a word of what is not kept."""
    for year, text in (("2023", "id,country,tags\n1,NA,\n2,,\n"), ("2024", 'id,country,tags\n3,"",\n4,DE,\n')):
        (src / f"year={year}").mkdir()
        (src / f"year={year}" / "part-0.csv").write_text(text)
    (src / "README").write_text("no table")
    found, rows = prepared(src, filter="country is None or year == 2024")
    assert rows.to_pylist() == [
        {"id": 2, "country": None, "tags": None, "year": 2023},
        {"id": 3, "country": None, "tags": None, "year": 2024},
        {"id": 4, "country": "DE", "tags": None, "year": 2024},
    ]
    said = " ".join(found.made["1"]["notes"])
    assert "column 'tags' holds nothing but nulls" in said
    assert "README" in said


def test_a_label_that_cannot_be_counted_is_told(src: Path) -> None:
    tags = pa.array([["cat", "dog"][: 1 + i % 2] for i in range(16)])
    pq.write_table(pa.table({"x": range(16), "label": tags}), src / "0.parquet")
    found, _ = prepared(src, label="label")
    assert found.label_counts is None
    assert "label 'label' is list<element: string>, of which values are not counted" in found.made["1"]["notes"]


def test_a_frame_is_prepared(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"x": [1.5, None], "kind": pd.Categorical(["a", "b"])}, index=["p", "q"])
    found = prepare(frame, tmp_path / "out")
    assert isinstance(found, manifests.Manifest)
    assert pq.read_table(tmp_path / "out" / found.shards[0].path).to_pylist() == [
        {"x": 1.5, "kind": "a"},
        {"x": None, "kind": "b"},
    ]
    assert "the index is not kept" in " ".join(found.made["1"]["notes"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


BAD = {
    "not there": (lambda src: src.rmdir(), {}, "it does not exist"),
    "empty": (lambda src: None, {}, "the folder is empty"),
    "of no known format": (lambda src: (src / "a.xyz").write_text("x"), {}, "no format that can be guessed"),
    "of two formats": (
        lambda src: ((src / "a.csv").write_text("x\n1\n"), (src / "a.jsonl").write_text("{}\n")),
        {},
        "csv and jsonl",
    ),
    "asked for a format that is not": (lambda src: None, {"format": "cvs"}, "Did you mean 'csv'"),
    "without files of the format": (lambda src: (src / "a.csv").write_text("x\n"), {"format": "parquet"}, "no parquet"),
    "a dead link": (lambda src: (src / "a.csv").symlink_to(src / "gone"), {}, "a link that leads nowhere"),
    "a folder named like a file": (lambda src: (src / "a.csv").mkdir(), {}, "no format that can be guessed"),
    "zero rows of CSV": (lambda src: (src / "a.csv").write_text("x,y\n"), {}, "has zero rows"),
    "zero bytes of JSON": (lambda src: (src / "a.jsonl").write_text(""), {}, "has zero rows"),
    "not Parquet": (lambda src: (src / "a.parquet").write_text("PAR1 no"), {}, "a.parquet cannot be read"),
    "bad JSON": (lambda src: (src / "a.jsonl").write_text('{"x": 1}\n{"x":\n'), {}, "a.jsonl cannot be read"),
    "no such label": (lambda src: (src / "a.csv").write_text("x,y\n1,2\n"), {"label": "z"}, "Columns: x, y"),
    "other columns": (
        lambda src: ((src / "a.csv").write_text("x,y\n1,2\n"), (src / "b.csv").write_text("x,z\n1,2\n")),
        {},
        "b.csv has other columns",
    ),
    "other types": (
        lambda src: ((src / "a.csv").write_text("x\n1\n"), (src / "b.csv").write_text("x\nword\n")),
        {},
        "b.csv has another schema",
    ),
    "two columns of one name": (lambda src: (src / "a.csv").write_text("x,x\n1,2\n"), {}, "two columns named 'x'"),
    "not text": (lambda src: (src / "a.txt").write_bytes(b"a\0b"), {}, "a.txt is not text"),
    "image size for text": (lambda src: (src / "a.txt").write_text("x"), {"image_size": "2x2"}, "not images"),
    "images that are none": (lambda src: (src / "a.png").write_text("x"), {}, "it is no image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_source(name: str, src: Path) -> None:
    make, options, fact = BAD[name]
    make(src)
    assert fact in refused(src, **options)


def test_damage_found_on_the_cluster_is_named(src: Path) -> None:
    rows = "".join(f"{i},{i}\n" for i in range(3_000_000))
    (src / "late.csv").write_text("x,y\n" + rows + "1,word\n")
    message = refused(src)
    assert "late.csv cannot be read" in message
    assert "Traceback" not in message


def spoilt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def odd_size(path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "fact"),
    [
        (lambda path: path.write_text("junk"), "7.png cannot be read"),
        (spoilt, "7.png cannot be read"),
        (odd_size, "7.png is 9x9: "),
    ],
    ids=["junk", "truncated", "odd size"],
)
def test_bad_image(src: Path, spoil: Callable[[Path], None], fact: str) -> None:
    images(src)
    spoil(src / "b" / "7.png")
    message = refused(src)
    assert fact in message
    assert ("--image-size" in message) == ("9x9" in message)


def test_photographs_come_upright(src: Path) -> None:
    from PIL import Image

    upright = np.full((48, 32), 30, np.uint8)
    upright[:24] = 220
    (src / "phone").mkdir()
    (src / "scanner").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(src / "phone" / "1.jpg", exif=exif)
    Image.fromarray(upright).save(src / "scanner" / "1.png")
    found, rows = prepared(src)
    assert found.schema[0] == ("image", "tensor<uint8>[48, 32]")
    np.testing.assert_allclose(arrays(rows)["image"].astype(int), np.stack([upright] * 2), atol=8)


def test_colour_among_grey(src: Path) -> None:
    images(src, shape=(6, 5), classes="a")
    images(src, shape=(6, 5, 3), classes="b")
    found, rows = prepared(src)
    assert found.schema[0] == ("image", "tensor<uint8>[6, 5, 3]")
    assert arrays(rows)["image"].min(axis=(1, 2)).sum(axis=0).std() == 0


@pytest.mark.parametrize("size", ["4", "0x4", "4x", "axb"])
def test_bad_image_size(src: Path, size: str) -> None:
    images(src, each=1)
    assert "not a height and a width" in refused(src, image_size=size)


def test_without_pillow(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(src, each=1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install 'headway[images]'" in refused(src)


def test_destination_taken_and_replaced(src: Path) -> None:
    csv.write_csv(table(0, 100), src / "a.csv")
    prepared(src)
    assert "already exists" in refused(src)
    csv.write_csv(table(0, 50), src / "a.csv")
    found, _ = prepared(src, force=True)
    assert found.rows == 50


def test_the_source_cannot_be_the_destination(src: Path) -> None:
    csv.write_csv(table(0, 100), src / "a.csv")
    for target in (src, src.parent):
        with pytest.raises(BadInput, match="would replace the source"):
            prepare(src, target, force=True)
    assert (src / "a.csv").exists()


def test_from_the_command_line_on_a_ray_of_its_own(src: Path, headway: Callable) -> None:
    csv.write_csv(table(0, 100), src / "a.csv")
    found = headway("data", "prepare", src, src.parent / "out", "--label", "label", "--json").report()
    assert (found["rows"], found["label_counts"]) == (100, {"class 0": 34, "class 1": 33, "class 2": 33})
    code, out, err = headway("data", "prepare", src, src.parent / "out", "--json").end()
    assert (code, out) == (2, "")
    assert "already exists" in err
    assert "Traceback" not in err


def test_a_ray_that_was_running_stays(src: Path) -> None:
    import ray

    csv.write_csv(table(0, 10), src / "a.csv")
    prepared(src)
    assert ray.is_initialized()
