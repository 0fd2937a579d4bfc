"""WebDataset tars as img2dataset and others write them: what becomes of each member, and what is refused by name.

Tars that claim more than fits into memory are, before anything of that size is read.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.files.images import made, rows_of, write

from headway.data.prepare.sources import pixels, tars, webdataset
from headway.errors import BadData, BadInput


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def bomb(path: Path, *parts: bytes | int) -> Path:
    """A compressed tar of these parts; a number is so many zeros, of which a thousandth lies on the disk."""
    with gzip.open(path, "wb", 6) as file:
        for part in parts:
            if isinstance(part, bytes):
                file.write(part)
            else:
                for _ in range(0, part, 1 << 20):
                    file.write(bytes(min(part, 1 << 20)))
    return path


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "SAMPLE_BYTES", 8 << 20)


@pytest.mark.parametrize("name", ["0001.txt", "0001.bin", "README", "folder/"])
def test_2_21_a_member_that_unpacks_to_more_than_fits_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = bomb(tmp_path / "a.tar", header(name, 64 << 20), 64 << 20, bytes(1024))
    assert path.stat().st_size < 1 << 20
    with little_memory(), pytest.raises(BadData, match=rf"a\.tar: {name.rstrip('/')}/? takes 67,108,864 bytes"):
        list(tars.samples(path))


def test_2_21_a_member_that_only_claims_a_size_is_refused(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.tar", header("0001.txt", 7 << 40), 512)
    with little_memory(), pytest.raises(BadData, match="may take 8,388,608"):
        list(tars.samples(path))


def test_2_21_a_sample_of_many_members_is_refused(tmp_path: Path) -> None:
    parts = [part for number in range(9) for part in (header(f"0001.part{number}", 1 << 20), 1 << 20)]
    path = bomb(tmp_path / "a.tar", *parts, bytes(1024))
    with pytest.raises(BadData, match=r"0001 up to its part8 takes 9,437,184 bytes"):
        list(tars.samples(path))


def test_2_21_many_samples_may_take_more_than_one(tmp_path: Path) -> None:
    parts = [part for number in range(20) for part in (header(f"{number:04}.bin", 1 << 20), 1 << 20)]
    assert sum(1 for _ in tars.samples(bomb(tmp_path / "a.tar", *parts, bytes(1024)))) == 20


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_2_21_a_header_that_does_not_fit_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = bomb(tmp_path / "a.tar", header("0001.txt", 64 << 20, kind), 64 << 20, bytes(1024))
    with little_memory(), pytest.raises(BadData, match="a header of 67,108,864 bytes, more than 1,048,576"):
        list(tars.samples(path))


def test_2_21_long_names_are_still_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("ä" * 300 + "/0001.txt")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    assert [members for _, members in tars.samples(tmp_path / "a.tar")] == [{"txt": b"hi"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [("0001.json", b"[" * 100_000), ("0001.json", b'{"n": ' + b"9" * 30 + b"}"), ("0001.cls", b"9" * 30)],
)
def test_what_no_column_holds_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    block = content + bytes(-len(content) % 512)
    path = bomb(tmp_path / "a.tar", header(name, len(content)), block, bytes(1024))
    with pytest.raises(BadData, match=r"a\.tar: "):
        webdataset.plan_webdataset([path], None)


def test_2_21_an_image_that_unpacks_to_more_than_fits_is_refused() -> None:
    body = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + body
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = b"IDAT" + zlib.compress(b"")
    png += struct.pack(">I", len(end) - 4) + end + struct.pack(">I", zlib.crc32(end))
    with pytest.raises(BadData, match=r"big\.png is too large"):
        pixels.header_of(io.BytesIO(png), "big.png")
    with pytest.raises(BadData, match=r"big\.png is too large"):
        pixels.pixels_of(io.BytesIO(png), "big.png", pixels.Look((8, 8), True))


def image(values: int | np.ndarray = 0, **more: object) -> bytes:
    file = io.BytesIO()
    array = np.full((2, 3, 3), values, np.uint8) if isinstance(values, int) else values
    Image.fromarray(array).save(file, "PNG", **more)
    return file.getvalue()


def said(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def tar(path: Path, *members: tuple[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    write(path, members, mode)
    return path


def rows(path: Path) -> list[dict]:
    return rows_of(made(path)[1])


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        made(path)
    return str(caught.value)


def test_what_the_json_says_once_more_is_kept_once(tmp_path: Path) -> None:
    members = [("a/1.txt", b"one"), ("a/1.json", said(key="1", text="one", x=1)), ("a/2.json", said(key="a/2", x=2))]
    plan, table = made(tar(tmp_path / "0.tar", *members))
    assert table.to_pylist() == [{"key": "a/1", "text": "one", "x": 1}, {"key": "a/2", "text": None, "x": 2}]
    assert [note.partition(" in the JSON")[0] for note in plan.notes[1:]] == ["'key'", "'text'"]


def test_what_the_json_says_otherwise_is_kept_beside(tmp_path: Path) -> None:
    members = [("1.cls", b"3"), ("1.json", said(label=4, key=7)), ("2.cls", b"5"), ("2.json", said(label=5))]
    plan, table = made(tar(tmp_path / "0.tar", *members))
    assert table.to_pylist() == [
        {"key": "1", "label": 3, "json.label": 4, "json.key": 7},
        {"key": "2", "label": 5, "json.label": 5, "json.key": None},
    ]
    assert any("'label' in the JSON is kept as 'json.label'" in note for note in plan.notes)


def test_members_of_a_sample_may_lie_apart(tmp_path: Path) -> None:
    members = [("1.txt", b"a"), ("2.txt", b"b"), ("2.cls", b"2"), ("1.cls", b"1")]
    found = rows(tar(tmp_path / "0.tar", *members))
    assert found == [{"key": "1", "text": "a", "label": 1}, {"key": "2", "text": "b", "label": 2}]
    assert "1.cls lies apart: other members of 1 lie further up" in refused(
        tar(tmp_path / "p.tar", *members, mode="w:gz")
    )


def test_numbers_are_widened_where_nothing_is_lost(tmp_path: Path) -> None:
    fields = [{"x": 1, "y": None, "z": 1}, {"x": 2.5, "y": 3, "z": "one"}, {"x": 2**53, "y": None, "z": True}]
    plan, table = made(tar(tmp_path / "0.tar", *[(f"{at}.json", said(**own)) for at, own in enumerate(fields)]))
    assert table["x"].to_pylist() == [1, 2.5, 2**53]
    assert table["y"].to_pylist() == [None, 3, None]
    assert table["z"].to_pylist() == ["1", "one", "true"]
    assert "'z' in the JSON is a number and text and true or false: kept as text" in plan.notes


LATE = {
    "float": ({"x": 1}, {"x": 2.5}, "2.5 is not a whole number"),
    "text": ({"x": 1}, {"x": "1"}, "'1' is not a whole number"),
    "true": ({"x": 1}, {"x": True}, "True is not a whole number"),
    "inexact": ({"x": 1.5}, {"x": 2**53 + 1}, "is not a number that a float holds exactly"),
    "new": ({"x": 1}, {"x": 1, "y": 2}, "9 has 'y': the first samples have not"),
    "new within": ({"x": {"a": 1}}, {"x": {"a": 1, "b": 2}}, "'b' is a field that objects there did not have before"),
    "within": ({"x": {"a": [1]}}, {"x": {"a": ["b"]}}, "in a.[]: 'b' is not a whole number"),
    "list": ({"x": [1]}, {"x": {"a": 1}}, "is not a list"),
    "no object": ({"x": 1}, [1], "9 has 'json' (it is no JSON object)"),
    "key": ({"x": 1, "key": None}, {"x": 1, "key": "8"}, "makes a second 'key'"),
}


def test_what_was_null_at_first_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SAMPLED", 1)
    monkeypatch.setattr(webdataset, "SAMPLED_BYTES", 0)
    members = [("1.json", said(x=None)), ("2.json", said(x=[0.5])), ("3.json", said(x="y"))]
    plan, table = made(tar(tmp_path / "0.tar", *members))
    assert table["x"].to_pylist() == [None, "[0.5]", "y"]
    assert plan.notes[-1] == "null in all samples looked at, and kept as text: 'x' in the JSON"


@pytest.mark.parametrize("name", LATE)
def test_what_comes_late_is_never_bent(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SAMPLED", 1)
    monkeypatch.setattr(webdataset, "SAMPLED_BYTES", 0)
    first, late, fact = LATE[name]
    path = tar(tmp_path / "0.tar", ("1.json", json.dumps(first).encode()), ("9.json", json.dumps(late).encode()))
    message = refused(path)
    assert fact in message
    assert "9" in message and "0.tar" in message  # noqa: PT018
    alike = {"x": first["x"], "y": None} if isinstance(first, dict) else first
    assert len(rows(tar(tmp_path / "1.tar", ("1.json", said(**first)), ("9.json", said(**alike))))) == 2


def test_whole_floats_fit_whole_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SAMPLED", 1)
    monkeypatch.setattr(webdataset, "SAMPLED_BYTES", 0)
    assert [row["x"] for row in rows(tar(tmp_path / "0.tar", ("1.json", said(x=1)), ("2.json", said(x=2.0))))] == [1, 2]


def test_objects_without_fields_are_kept_as_text(tmp_path: Path) -> None:
    members = [("1.json", said(x={}, y={"a": {}, "b": []})), ("2.json", said(x=None, y={"b": [{"c": 1}, None]}))]
    plan, table = made(tar(tmp_path / "0.tar", *members))
    assert table["x"].to_pylist() == ["{}", None]
    assert table["y"].to_pylist() == [{"a": "{}", "b": []}, {"a": None, "b": [{"c": 1}, None]}]
    assert "'y.a' in the JSON is an object without fields: kept as text" in plan.notes
    pq.write_table(table, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").schema.equals(table.schema)


def test_other_members_are_kept_as_they_are(tmp_path: Path) -> None:
    members = [("1.seg.png", image()), ("1.0.jpg", b"no matter"), ("1.pth", b"\x80\x04."), ("1.png", image(7))]
    plan, table = made(tar(tmp_path / "0.tar", *members))
    (row,) = rows_of(table)
    assert (row["seg.png"], row["0.jpg"], row["pth"]) == (image(), b"no matter", b"\x80\x04.")
    assert row["image"].tolist() == [[[7, 7, 7]] * 3] * 2
    assert "members that end in .0.jpg, .pth, .seg.png are kept as they are (pickles are not unpacked)" in plan.notes


@pytest.mark.parametrize(
    ("classes", "found"), [(("3\n", "-1"), [3, -1]), (("1", "2.5"), [1.0, 2.5]), (("cat", "1_0"), ["cat", "1_0"])]
)
def test_a_class_is_a_number_or_a_name(tmp_path: Path, classes: tuple[str, ...], found: list) -> None:
    members = [(f"{at}.cls", text.encode()) for at, text in enumerate(classes)]
    plan, table = made(tar(tmp_path / "0.tar", *members))
    assert (plan.label, table["label"].to_pylist()) == ("label", found)


def test_folders_and_what_a_mac_leaves(tmp_path: Path) -> None:
    members = [("./", b""), ("./a.b/", b""), ("./a.b/1.txt", b"x"), ("./a.b/._1.txt", b"\0\5"), ("./.DS_Store", b"")]
    plan, table = made(tar(tmp_path / "0.tar", *members, ("./2.TXT", b"y"), ("README", b"z")))
    assert table.to_pylist() == [{"key": "a.b/1", "text": "x"}, {"key": "2", "text": "y"}]
    assert "members that belong to no sample are not read (README)" in plan.notes


def test_what_img2dataset_writes_beside_its_tars_is_no_format(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "00000_stats.json").write_text("{}")
    tar(tmp_path / "00000.tar", ("1.txt", b"x"))
    assert rows(tmp_path) == [{"key": "1", "text": "x"}]
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    assert "holds parquet and webdataset" in refused(tmp_path)


def test_images_of_tars_come_upright_and_in_colour_if_one_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    members = [("1.png", image(np.rot90(grey).copy(), exif=exif)), ("2.png", image(9))]
    plan, table = made(tar(tmp_path / "0.tar", *members))
    assert str(table.schema.field("image").type) == "tensor<uint8>[2, 3, 3]"
    assert rows_of(table)[0]["image"][..., 1].tolist() == grey.tolist()
    assert "1 of 2 images looked at, not stored upright" in " ".join(plan.notes)


BAD: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "two images": ([("1.png", b""), ("1.jpg", b"")], "1 has two images, .png and .jpg: a row has one"),
    "sizes": ([("1.png", b"small"), ("2.png", b"large")], "0.tar: 2.png is 9x9: "),
    "no image": ([("1.png", b"small"), ("2.txt", b"")], "0.tar: 2 has no image"),
    "empty image": ([("1.png", b"")], "0.tar: 1.png cannot be read: it is empty"),
    "no text": ([("1.txt", b"\xff\xfe")], "0.tar: 1.txt cannot be read"),
    "no JSON": ([("1.json", b"{")], "0.tar: 1.json cannot be read"),
    "deep JSON": ([("1.json", b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}")], "nested more than 32 deep"),
    "half a pair": ([("1.json", b'{"x": "\\ud800"}')], "0.tar: 1.json cannot be read"),
    "kinds of classes": ([("1.cls", b"1"), ("2.cls", b"two")], "0.tar: 2.cls is 'two': others are not of its kind"),
    "twice": ([("1.txt", b""), ("2.txt", b""), ("1.txt", b"")], "0.tar has 1.txt twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_samples_are_named(tmp_path: Path, name: str) -> None:
    members, fact = BAD[name]
    pictures = {b"small": image(), b"large": image(np.zeros((9, 9, 3), np.uint8))}
    assert fact in refused(tar(tmp_path / "0.tar", *[(n, pictures.get(content, content)) for n, content in members]))


def test_bad_tars_are_named(tmp_path: Path) -> None:
    whole = tar(tmp_path / "0.tar", ("1.txt", b"x" * 600), ("2.txt", b"y")).read_bytes()
    path = tmp_path / "b.tar"
    for size in (100, 512, 600, 1536, 2000, 2048, 2560):  # the last: whole members, and no end mark
        path.write_bytes(whole[:size])
        assert "b.tar cannot be read" in refused(path)
    path.write_bytes(gzip.compress(whole)[:-20])
    assert "b.tar cannot be read" in refused(path)
    path.write_bytes(gzip.compress(whole)[:-8] + bytes(8))  # another check sum
    assert "b.tar cannot be read" in refused(path)
    path.write_bytes(b"")
    assert "it is empty" in refused(path)
    path.write_bytes(whole + whole)
    assert "goes on after its end mark" in refused(path)
    path.write_bytes(b"\x28\xb5\x2f\xfd" + whole)
    assert "is packed by zstd" in refused(path)
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("2.txt")
        info.type, info.linkname = tarfile.LNKTYPE, "1.txt"
        file.addfile(info)
    assert "2.txt is a link" in refused(path)


def test_a_size_for_no_images_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "0.tar", ("1.txt", b"x"))
    with pytest.raises(BadInput, match="--image-size 4x5: the samples have no images"):
        made(path, (4, 5))


def test_a_tar_without_members_has_no_rows(tmp_path: Path) -> None:
    assert rows(tar(tmp_path / "0.tar")) == []
