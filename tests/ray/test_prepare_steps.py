"""What `headway data prepare` does to rows on a cluster, and how it goes on after kill -9."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.tiers import SOAK, examples

from headway.data import manifest as manifests
from headway.data.arrays import arrays
from headway.data.manifest import Manifest
from headway.data.prepare import prepare
from headway.data.prepare.progress import Progress
from headway.data.tensors import column
from headway.data.write.writer import write_dataset
from headway.errors import BadData, BadInput

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]

GOLDEN = Path(__file__).parents[1] / "golden"


def rows_in(folder: Path) -> pa.Table:
    """All rows of a dataset that is verified."""
    found = manifests.load(folder)
    manifests.verify(folder, found)
    manifests.verify_versions(folder, found)
    return pa.concat_tables([pq.read_table(folder / shard.path) for shard in found.shards])


def people(src: Path, rows: int = 24_000, files: int = 4, first: int = 0) -> pa.Table:
    """CSV files of people, of whom every third has the e-mail address of another."""
    src.mkdir(exist_ok=True)
    ids = np.arange(first, first + rows)
    table = pa.table({"id": ids, "mail": [f"p{i - i % 3 // 2}@x.org" for i in ids], "age": ids % 90, "label": ids % 3})
    each = rows // files
    for i in range(files):
        csv.write_csv(table.slice(i * each, each), src / f"{first:06d}-{i}.csv")
    return table


def test_all_steps_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = people(tmp_path / "src")
    (tmp_path / "steps.py").write_text(
        "import numpy as np\n\n\ndef step(batch: dict[str, np.ndarray]):\n"
        "    return {**batch, 'x': np.stack([batch['age'], batch['label']], 1).astype(np.float32)}\n"
    )
    monkeypatch.setenv("SALT", "a secret of ours")
    told: list[Progress] = []
    found = prepare(
        tmp_path / "src",
        tmp_path / "out",
        transform=f"{tmp_path}/steps.py:step",
        filter="age >= 10",
        dedup="mail",
        split="train=0.8,test=0.2",
        split_by="mail",
        mask=("mail=hash:SALT", "age=generalise:10"),
        label="label",
        progress=told.append,
    )
    assert isinstance(found, dict)
    parts = {name: rows_in(tmp_path / "out" / name) for name in ("train", "test")}
    assert {name: part.num_rows for name, part in parts.items()} == {name: m.rows for name, m in found.items()}
    ids = [i for part in parts.values() for i in part["id"].to_pylist()]
    kept = table.filter(pa.array(np.asarray(table["age"]) >= 10)).to_pylist()
    first = {row["mail"]: row["id"] for row in reversed(kept)}
    assert sorted(ids) == sorted(first.values())
    assert all(part["id"].to_pylist() == sorted(part["id"].to_pylist()) for part in parts.values())
    assert 0.18 < parts["test"].num_rows / len(ids) < 0.22
    assert set(parts["train"]["age"].to_pylist()) == set(range(10, 90, 10))
    assert arrays(parts["train"].select(["x"]))["x"].shape == (found["train"].rows, 2)
    assert sum((found["train"].label_counts or {}).values()) == found["train"].rows
    assert told[-1] == Progress("reading", 4, 4, len(ids))
    said = (tmp_path / "out" / "train" / "manifest.json").read_text()
    assert "a secret of ours" not in said
    assert json.loads(said)["made"]["1"]["options"]["mask"] == ["mail=hash:SALT", "age=generalise:10"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "src", "steps.py"]


def test_a_global_shuffle(tmp_path: Path) -> None:
    people(tmp_path / "src")
    one = prepare(tmp_path / "src", tmp_path / "one", shuffle=True, seed=1)
    again = prepare(tmp_path / "src", tmp_path / "again", shuffle=True, seed=1)
    other = prepare(tmp_path / "src", tmp_path / "other", shuffle=True, seed=2)
    assert isinstance(one, Manifest)
    assert isinstance(again, Manifest)
    assert isinstance(other, Manifest)
    assert one.digest == again.digest != other.digest
    ids = np.asarray(rows_in(tmp_path / "one")["id"])
    assert sorted(ids.tolist()) == list(range(24_000))
    assert abs(np.corrcoef(ids, np.arange(24_000))[0, 1]) < 0.03
    distances = np.abs(np.diff(ids))
    assert abs(distances.mean() / 8000 - 1) < 0.05  # a third of the rows, as in a full permutation


def test_a_shuffle_in_many_files_is_the_shuffle_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.data.prepare.stages import shuffle

    people(tmp_path / "src")
    digests = set()
    for files in (1, 2, 16):
        monkeypatch.setattr(shuffle, "files_for", lambda source_bytes, files=files: files)
        found = prepare(tmp_path / "src", tmp_path / f"in-{files}", shuffle=True, split="a=0.7,b=0.3")
        assert isinstance(found, dict)
        digests.add(tuple(part.digest for part in found.values()))
    assert len(digests) == 1


def test_appending(tmp_path: Path) -> None:
    people(tmp_path / "src")
    out = tmp_path / "out"
    options = {"split": "train=0.8,test=0.2", "split_by": "mail", "dedup": "mail", "label": "label"}
    first = prepare(tmp_path / "src", out, **options)
    before = {name: rows_in(out / name)["id"].to_pylist() for name in ("train", "test")}
    people(tmp_path / "more", first=24_000 - 600)
    second = prepare(tmp_path / "more", out, append=True, **options)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    for name in ("train", "test"):
        assert second[name].version == 2
        assert second[name].shards[: len(first[name].shards)] == first[name].shards
        ids = rows_in(out / name)["id"].to_pylist()
        assert ids[: len(before[name])] == before[name]
        assert len(set(ids)) == len(ids)
        assert sum((second[name].label_counts or {}).values()) == len(ids)
        assert manifests.load(out / name, 1).rows == len(before[name])
        assert second[name].made["2"]["rows"] == len(ids) - len(before[name])
    whole = prepare(tmp_path / "src", tmp_path / "alone", split=options["split"], split_by="mail")
    assert isinstance(whole, dict)
    alone = set(rows_in(tmp_path / "alone" / "train")["id"].to_pylist())
    assert set(before["train"]) <= alone  # a row's part is the same whatever else is there


def test_a_crash_between_the_parts_of_an_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is appended to once, though the first had been and the second had not."""
    from headway.data.prepare import publishing as module

    people(tmp_path / "src")
    people(tmp_path / "more", first=24_000)
    out, split = tmp_path / "out", "train=0.8,test=0.2"
    prepare(tmp_path / "src", out, split=split)
    write = module.write

    def crashing(folder: Path, manifest: Manifest) -> None:
        if folder == out / "test":
            raise KeyboardInterrupt
        write(folder, manifest)

    monkeypatch.setattr(module, "write", crashing)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "more", out, split=split, append=True)
    monkeypatch.undo()
    assert [manifests.load(out / name).version for name in ("train", "test")] == [2, 1]
    prepare(tmp_path / "more", out, split=split, append=True)
    assert [manifests.load(out / name).version for name in ("train", "test")] == [2, 2]
    ids = [i for name in ("train", "test") for i in rows_in(out / name)["id"].to_pylist()]
    assert sorted(ids) == list(range(48_000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more", "out", "src"]


def test_appending_what_does_not_fit(tmp_path: Path) -> None:
    people(tmp_path / "src")
    prepare(tmp_path / "src", tmp_path / "out")
    (tmp_path / "other").mkdir()
    csv.write_csv(pa.table({"id": [1], "mail": ["x"], "size": [3], "label": [0]}), tmp_path / "other" / "a.csv")
    with pytest.raises(BadInput, match="column 'age' is gone; column 'size' is new"):
        prepare(tmp_path / "other", tmp_path / "out", append=True)
    with pytest.raises(BadData, match="no dataset at"):
        prepare(tmp_path / "src", tmp_path / "nowhere", append=True)
    assert manifests.load(tmp_path / "out").version == 1


def test_what_is_appended_must_be_made_like_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALT", "a secret of ours")
    people(tmp_path / "src", 400, 1)
    people(tmp_path / "more", 40, 1, first=400)
    made = {"mask": ["mail=hash:SALT"], "split": "train=0.5,test=0.5", "seed": 3}
    prepare(tmp_path / "src", tmp_path / "out", **made)
    for option, other in (("mask", []), ("split", "train=0.9,test=0.1"), ("seed", 4)):
        with pytest.raises(BadInput, match=f"--append with --{option}"):
            prepare(tmp_path / "more", tmp_path / "out", append=True, **{**made, option: other})
    prepare(tmp_path / "more", tmp_path / "out", append=True, **made)


def test_codes_keep_their_names_when_appending(tmp_path: Path) -> None:
    for name, kinds in (("one", "ab"), ("two", "bc")):
        for kind in kinds:
            folder = tmp_path / name / kind
            folder.mkdir(parents=True)
            Image.new("L", (4, 4)).save(folder / "x.png")
        prepare(tmp_path / name, tmp_path / f"set-{name}")
    with pytest.raises(BadInput, match="has other categories: a, b"):
        prepare(tmp_path / "set-two", tmp_path / "set-one", append=True)


def test_tensors_are_not_taken_for_others_when_appending(tmp_path: Path) -> None:
    for name, shape in (("tall", (6, 4)), ("wide", (4, 6))):
        write_dataset(
            tmp_path / name, [pa.table({"x": column(np.zeros((9, *shape), np.uint8))})], name=name, source="t"
        )
    prepare(tmp_path / "tall", tmp_path / "out")
    with pytest.raises(BadInput, match="does not fit"):
        prepare(tmp_path / "wide", tmp_path / "out", append=True)


def test_times_keep_their_part_when_appending(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    times = [f"2026-01-01 {i // 60:02d}:{i % 60:02d}:00" for i in range(600)]
    csv.write_csv(pa.table({"when": times}), folder / "a.csv")
    made = prepare(folder, tmp_path / "out", split="train=0.5,test=0.5")
    again = prepare(folder, tmp_path / "out", split="train=0.5,test=0.5", append=True)
    assert {name: manifest.rows for name, manifest in again.items()} == {n: 2 * m.rows for n, m in made.items()}


def test_datasets_of_an_older_format_are_appended_to_by_their_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty field of text stays empty text in them, folders' names are no columns, and all else goes on too."""
    monkeypatch.setenv("SALT", "a secret of ours")
    out = tmp_path / "people"
    shutil.copytree(GOLDEN / "format-2" / "people", out)
    (tmp_path / "src" / "year=2026").mkdir(parents=True)
    (tmp_path / "src" / "year=2026" / "c.csv").write_text("id,name,x,label\n51,again,1,c0\n60,,2,c1\n61,n,,\n")
    made = {"split": "train=0.7,test=0.3", "split_by": "name,id", "mask": ["name=hash:SALT"], "seed": 3, "dedup": "id"}
    with pytest.raises(BadInput, match="--append with --null-values NA"):
        prepare(tmp_path / "src", out, append=True, null_values="NA", **made)
    found = prepare(tmp_path / "src", out, append=True, **made)
    rows = [row for name in found for row in rows_in(out / name).to_pylist()]
    new = {row["id"]: row for row in rows if row["id"] >= 52}
    assert (len(rows), sorted(new)) == (54, [60, 61])  # 51 was there
    assert new[61]["label"] == ""
    assert new[61]["x"] is None
    assert new[60]["name"] is not None
    for name, manifest in found.items():
        manifests.verify(out / name, manifest)
        manifests.verify_versions(out / name, manifest)
        assert manifest.rules == 2
    fresh = prepare(tmp_path / "src", tmp_path / "fresh")
    assert isinstance(fresh, Manifest)
    assert fresh.rules == 3
    assert [row["label"] for row in rows_in(tmp_path / "fresh").to_pylist()] == ["c0", "c1", None]
    assert [name for name, _ in fresh.schema] == ["id", "name", "x", "label", "year"]


@pytest.mark.parametrize("name", ["lines", "kinds", "pictures"])
def test_columns_of_an_older_format_keep_their_types_when_appending(tmp_path: Path, name: str) -> None:
    """Nested ones from JSON lines; dictionaries, wide text, decimals and times from Parquet; codes of classes."""
    out, src = tmp_path / "out", tmp_path / "src"
    shutil.copytree(GOLDEN / "format-2" / name, out)
    before, had = manifests.load(out), rows_in(out)
    if name == "pictures":
        for kind in "bz":
            (src / kind).mkdir(parents=True)
            Image.new("L", (3, 4), 7).save(src / kind / "x.png")
    else:
        src.mkdir()
        pq.write_table(had, src / "a.parquet")
    found = prepare(src, out, append=True)
    assert isinstance(found, Manifest)
    manifests.verify(out, found)
    manifests.verify_versions(out, found)
    assert (found.schema, found.shards[:1]) == (before.schema, before.shards)
    rows = rows_in(out)
    if name == "pictures":
        assert (found.categories, found.label_counts) == ({"label": ["a", "b", "z"]}, {"0": 6, "1": 7, "2": 1})
    else:
        assert rows.slice(len(had)).equals(had.cast(rows.schema))


def test_what_is_not_kept_is_said_and_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people(tmp_path / "src", 40, 1)
    (tmp_path / "src" / "about.pdf").write_text("about")
    found = prepare(tmp_path / "src", tmp_path / "out")
    assert isinstance(found, Manifest)
    assert "note: 1 of the files is not csv and not read: about.pdf" in capsys.readouterr().err
    assert found.made["1"]["notes"] == ["1 of the files is not csv and not read: about.pdf"]


def test_frames_and_tables_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"id": range(6), "name": ["a", None, "c", "NA", "", "f"], "y": [1.5, None, 2, 3, 4, 5]})
    how = {"label": "name", "split": "a=0.5,b=0.5", "split_by": "id"}
    prepare(frame.set_index(pd.Index(list("uvwxyz"), name="row")), tmp_path / "out", **how)
    found = prepare(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "out", append=True, **how)
    for part in found:
        assert manifests.load(tmp_path / "out" / part, 1).source == "a pandas frame"
        assert found[part].made["2"]["source"] == "an Arrow table"
        manifests.verify(tmp_path / "out" / part, found[part])
    rows = sorted((row for part in found for row in rows_in(tmp_path / "out" / part).to_pylist()), key=itemgetter("id"))
    columns = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    assert rows[::2] == rows[1::2] == columns
    assert "note: the index 'row' is not kept" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    for source, options, fact in (
        (frame, {"format": "csv"}, "a pandas frame is no file"),
        ([1, 2], {}, "neither a path nor a table"),
        (frame, {"label": "z"}, "no such column"),
        (frame.head(0), {}, "a pandas frame has zero rows"),
    ):
        with pytest.raises(BadInput, match=fact):
            prepare(source, tmp_path / "other", **options)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_frame_is_gone_on_with(tmp_path: Path) -> None:
    """What tells it from another is what it holds, not the file in which it passes."""
    table = pa.table({"id": np.arange(4000)})

    def broken_off(progress: Progress) -> None:
        if progress.stage == "sorting":
            raise KeyboardInterrupt

    places = []
    for source in (table, table, table.slice(1)):
        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "out", progress=broken_off, shuffle=True)
        places += tmp_path.glob(".out.*.partial")
        assert sum('"kind": "scattered"' in line for line in journal(tmp_path)) == 1
    assert places[0] == places[1] != places[2]
    prepare(table, tmp_path / "out", shuffle=True)
    assert sorted(rows_in(tmp_path / "out")["id"].to_pylist()) == list(range(4000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_how_text_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "a.csv").write_bytes("id,land\n1,NA\n2,-\n3,é\n".encode("cp1252"))
    prepare(folder, tmp_path / "out", encoding="cp1252", null_values=["-", "x"])
    assert rows_in(tmp_path / "out")["land"].to_pylist() == ["NA", None, "é"]
    assert manifests.load(tmp_path / "out").made["1"]["options"] == {"encoding": "cp1252", "null_values": "-,x"}
    prepare(folder, tmp_path / "pandas", encoding="cp1252", null_values="pandas")
    assert rows_in(tmp_path / "pandas")["land"].to_pylist() == [None, "-", "é"]
    prepare(folder, tmp_path / "out", encoding="cp1252", null_values="-,x", append=True)
    for options, fact in (
        ({"encoding": "klingon"}, "--encoding klingon: no encoding of text has this name"),
        ({}, "a.csv is not UTF-8"),
    ):
        with pytest.raises(BadInput, match=fact):
            prepare(folder, tmp_path / "other", **options)
    (folder / "a.csv").rename(tmp_path / "a.txt")
    for options in ({"encoding": "cp1252"}, {"null_values": "-"}):
        with pytest.raises(BadInput, match=r"holds text\. Leave it out"):
            prepare(tmp_path / "a.txt", tmp_path / "other", **options)


def test_a_crash_behind_publishing_harms_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people(tmp_path / "src", 400, 1)
    remove = shutil.rmtree

    def killed(path: Any, **options: Any) -> None:
        if str(path).endswith(".partial"):
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "src", tmp_path / "out", force=True)
    monkeypatch.undo()
    prepare(tmp_path / "src", tmp_path / "out", force=True)
    assert rows_in(tmp_path / "out").num_rows == 400
    assert not list(tmp_path.glob(".*"))


def test_a_linked_folder_is_part_of_the_source(tmp_path: Path) -> None:
    people(tmp_path / "real", 40, 1)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "round").symlink_to(tmp_path / "src")
    assert prepare(tmp_path / "src", tmp_path / "out").rows == 40


@pytest.mark.parametrize("dst", ["s3://bucket/x", "s3:/bucket/x"])
def test_datasets_are_made_in_folders(tmp_path: Path, dst: str) -> None:
    people(tmp_path / "src", 40, 1)
    with pytest.raises(BadInput, match="is an address"):
        prepare(tmp_path / "src", dst)


def test_a_part_without_its_manifest_is_not_passed_over(tmp_path: Path, headway: Callable) -> None:
    people(tmp_path / "src", 400, 1)
    prepare(tmp_path / "src", tmp_path / "out", split="train=0.5,test=0.5")
    (tmp_path / "out" / "train" / "manifest.json").unlink()
    code, _, said = headway("data", "check", f"{tmp_path / 'out'}/").end()
    assert code == 2
    assert "train is not a dataset" in said


def test_odd_values_are_shown(tmp_path: Path, headway: Callable) -> None:
    pairs = pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"t": ["[/INST] [redacted]", ":100:"], "n": [2**60, 1], "m": pairs})
    write_dataset(tmp_path / "odd", [table], name="odd", source="t")
    for command in ("head", "stats"):
        code, out, err = headway("data", command, tmp_path / "odd").end()
        assert code == 0, err
        assert "[redacted]" in out or command == "stats"


def test_types_of_the_dataset_hold_when_appending(tmp_path: Path) -> None:
    for name, text in (("src", "x\n1.5\n"), ("more", "x\n2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text(text)
    prepare(tmp_path / "src", tmp_path / "out")
    prepare(tmp_path / "more", tmp_path / "out", append=True)
    assert rows_in(tmp_path / "out")["x"].to_pylist() == [1.5, 2.0]


def tar(path: Path, first: int, rows: int, odd: dict[str, bytes] | None = None) -> None:
    from PIL import Image

    with tarfile.open(path, "w") as file:
        for i in range(first, first + rows):
            png = io.BytesIO()
            Image.fromarray(np.full((4, 5, 3), i % 200, np.uint8)).save(png, "png")
            about = json.dumps({"width": 5, "by": f"artist {i % 3}", "key": f"{i:06d}"}).encode()
            members = {"png": png.getvalue(), "cls": b"%d" % (i % 7), "json": about, "txt": f"no. {i}".encode()}
            last = i == first + rows - 1
            for ending, content in {**members, **(odd if odd and last else {})}.items():
                info = tarfile.TarInfo(f"set/{i:06d}.{ending}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))


def test_webdataset(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for i in range(3):
        tar(tmp_path / "src" / f"{i}.tar", 500 * i, 500)
    found = prepare(tmp_path / "src", tmp_path / "out")
    assert isinstance(found, Manifest)
    rows = rows_in(tmp_path / "out")
    assert dict(found.schema) == {
        "key": "string",
        "image": "tensor<uint8>[4, 5, 3]",
        "label": "int64",
        "width": "int64",
        "by": "string",
        "text": "string",
    }
    assert rows["key"].to_pylist() == [f"set/{i:06d}" for i in range(1500)]
    assert rows["text"].to_pylist() == [f"no. {i}" for i in range(1500)]
    assert arrays(rows.select(["image"]))["image"][:, 0, 0, 0].tolist() == [i % 200 for i in range(1500)]
    assert (found.label, found.label_counts) == ("label", {str(c): len(range(c, 1500, 7)) for c in range(7)})
    small = prepare(tmp_path / "src", tmp_path / "small", image_size="2x2", filter="by == 'artist 1'")
    assert isinstance(small, Manifest)
    assert (small.rows, dict(small.schema)["image"]) == (500, "tensor<uint8>[2, 2, 3]")


@pytest.mark.parametrize(
    ("odd", "fact"),
    [
        ({"cls": b"seven"}, "000800.cls is 'seven'"),
        ({"json": b"[1]"}, "no JSON object"),
        ({"png": b"no picture"}, "000800.png cannot be read"),
    ],
)
def test_bad_webdataset(tmp_path: Path, odd: dict[str, bytes], fact: str) -> None:
    (tmp_path / "src").mkdir()
    tar(tmp_path / "src" / "0.tar", 0, 500)
    tar(tmp_path / "src" / "1.tar", 500, 301, odd)
    with pytest.raises(BadData, match=fact):
        prepare(tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tar_cut_short(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", 0, 300)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:200_000])
    with pytest.raises(BadData, match=r"a\.tar cannot be read"):
        prepare(tmp_path / "a.tar", tmp_path / "out")


def test_documents_are_packed(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    texts = [f"document {i} " * (1 + i % 5) for i in range(400)]
    (tmp_path / "src" / "a.jsonl").write_text(
        "".join(json.dumps({"n": i, "text": t}) + "\n" for i, t in enumerate(texts))
    )
    found = prepare(tmp_path / "src", tmp_path / "out", pack="64", filter="n < 399")
    assert isinstance(found, Manifest)
    assert found.schema == (("tokens", "tensor<uint8>[65]"), ("segments", "tensor<int32>[65]"))
    columns = arrays(rows_in(tmp_path / "out"))
    line = columns["tokens"][:, 1:].tobytes().rstrip(b"\0").decode()
    assert line == "\0".join(texts[:399])
    (tmp_path / "files").mkdir()
    for i, text in enumerate(texts[:399]):
        (tmp_path / "files" / f"{i:03d}.txt").write_text(text)
    prepare(tmp_path / "files", tmp_path / "from-files", pack="64:text")
    np.testing.assert_array_equal(arrays(rows_in(tmp_path / "from-files"))["segments"], columns["segments"])


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"split": "a=1,b=1"}, "add up to 2"),
        ({"filter": "size > 3"}, "Columns: id, mail"),
        ({"dedup": "size"}, "--dedup size"),
        ({"mask": ("age=hash:NO_SUCH",)}, "no variable NO_SUCH"),
        ({"pack": "x"}, "not a number of tokens"),
        ({"transform": "nowhere.py:f"}, "does not exist"),
        ({"filter": "age > 1000"}, "zero rows"),
        ({"split": "a=0.999999999,b=0.000000001"}, "part 'b' is empty"),
        ({"label": "size"}, "no such column"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict, fact: str) -> None:
    people(tmp_path / "src", 300, 1)
    with pytest.raises(BadInput, match=fact):
        prepare(tmp_path / "src", tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_a_transform_that_raises_on_the_cluster(tmp_path: Path) -> None:
    people(tmp_path / "src")
    (tmp_path / "steps.py").write_text(
        "def step(batch):\n    assert batch['id'][0].as_py() < 100, 'too far'\n    return batch\n"
    )
    with pytest.raises(BadInput, match="AssertionError: too far") as caught:
        prepare(tmp_path / "src", tmp_path / "out", transform=f"{tmp_path}/steps.py:step")
    assert "steps.py" in caught.value.traceback


def test_stats_and_head(tmp_path: Path, headway: Callable) -> None:
    people(tmp_path / "src")
    prepare(tmp_path / "src", tmp_path / "out", split="train=0.75,test=0.25", label="label")
    prepare(tmp_path / "src", tmp_path / "out", split="train=0.75,test=0.25", append=True)
    found = headway("data", "stats", tmp_path / "out" / "train", "--json").report()
    rows = rows_in(tmp_path / "out" / "train")
    ages = np.asarray(rows["age"])
    column = found["columns"]["age"]
    assert (column["min"], column["max"], column["nulls"]) == (ages.min(), ages.max(), 0)
    assert column["mean"] == pytest.approx(ages.mean())
    assert found["columns"]["id"]["distinct"] == pytest.approx(len(set(rows["id"].to_pylist())), rel=0.05)
    assert (found["version"], sorted(found["versions"])) == (2, ["1", "2"])
    code, out, _ = headway("data", "stats", tmp_path / "out", "--versions").end()
    assert (code, out.count("split=train=0.75,test=0.25")) == (0, 4)  # two versions of each part
    code, out, _ = headway("data", "head", tmp_path / "out" / "train", "-n", "2", "--columns", "id,mail").end()
    assert (code, len(out.splitlines())) == (0, 4)
    assert "@x.org" in out
    assert headway("data", "check", tmp_path / "out", "--json").report()["ok"] is True
    shard = tmp_path / "out" / "test" / "shard-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    code, _, err = headway("data", "check", tmp_path / "out").end()
    assert (code, "altered in row group 0" in err) == (2, True)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 300)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("csv", {}, marks=pytest.mark.long),
        pytest.param("csv", {"dedup": "mail", "shuffle": True, "split": "train=0.8,test=0.2"}, marks=pytest.mark.long),
        ("parquet", {}),
    ],
)
def test_kill_9_at_random_moments(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """Two kills each, then to the end: the bytes of a quiet run, and nothing that was written is written again.

    What is killed has a Ray of its own; what is not need not wait for one.
    """
    table = people(tmp_path / "src", 200_000, 40)
    if kind == "parquet":
        shutil.rmtree(tmp_path / "src")
        (tmp_path / "src").mkdir()
        pq.write_table(table, tmp_path / "src" / "people.parquet", row_group_size=3333)
    options = {**options, "row_group_rows": 1000, "shard_rows": 50_000}
    prepare(tmp_path / "src", tmp_path / "quiet", **options)
    command = [sys.executable, "-m", "headway.cli.app", "data", "prepare", str(tmp_path / "src"), str(tmp_path / "out")]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    env = {k: v for k, v in os.environ.items() if k == "RAY_TMPDIR" or not k.startswith("RAY_")}
    written: list[str] = []
    for moment in sorted(random.Random(len(options)).sample(range(5, 120), examples(2, 30))):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        while process.poll() is None:
            if len(journal(tmp_path)) >= moment:
                process.kill()
                process.wait()
            time.sleep(0.002)  # what is watched needs the processors
        assert process.returncode == -signal.SIGKILL, f"ended before line {moment}"
        assert groups(tmp_path)[: len(written)] == written
        written = groups(tmp_path)
    seen: list[list[str]] = []
    prepare(tmp_path / "src", tmp_path / "out", progress=lambda _: seen.append(groups(tmp_path)), **options)
    assert seen[0][: len(written)] == written
    ours = sorted((tmp_path / "out").rglob("shard-*.parquet"))
    quiet = sorted((tmp_path / "quiet").rglob("shard-*.parquet"))
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in quiet]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "quiet", "src"]


def groups(folder: Path) -> list[str]:
    """Of these, those that say that a row group is written."""
    return [line for line in journal(folder) if '"kind": "group"' in line]


def journal(folder: Path) -> list[str]:
    """The lines that are whole of the journal of the prepare under way."""
    found = list(folder.glob(".out.*.partial/work/journal.jsonl"))
    return found[0].read_text().splitlines() if found else []


MEASURED = """
import sys
from pathlib import Path
from headway.data.prepare import prepare

peak = 0

def look(progress):
    global peak
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
    peak = max(peak, int(line.split()[1]))

prepare(sys.argv[1], sys.argv[2], shuffle=sys.argv[3] == "shuffle", dedup="id", progress=look)
print(peak // 1024)
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("way", ["in order", "shuffle"])
def test_memory_does_not_grow_with_the_source(tmp_path: Path, way: str) -> None:
    """This process's own memory, in MiB, for 60 MB and 480 MB of rows."""
    env = {k: v for k, v in os.environ.items() if k == "RAY_TMPDIR" or not k.startswith("RAY_")}
    peaks = []
    noise = np.random.default_rng(0)
    for files in (1, 8):
        src = tmp_path / f"of-{files}"
        src.mkdir()
        for i in range(files):
            x = column(noise.random((60_000, 125)))
            table = pa.table({"id": np.arange(60_000 * i, 60_000 * (i + 1)), "x": x})
            pq.write_table(table, src / f"{i}.parquet", row_group_size=5000)
        command = [sys.executable, "-c", MEASURED, str(src), str(tmp_path / f"out-{files}"), way]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout))
    assert peaks[1] < peaks[0] + 100, peaks
