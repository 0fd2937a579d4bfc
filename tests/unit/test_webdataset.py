"""Tars that claim more than fits into memory are refused by name, before anything of that size is read."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headway.data.prepare.sources import images, webdataset
from headway.errors import BadData


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
    monkeypatch.setattr(webdataset, "SAMPLE_BYTES", 8 << 20)


@pytest.mark.parametrize("name", ["0001.txt", "0001.bin", "README", "folder/"])
def test_2_21_a_member_that_unpacks_to_more_than_fits_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = bomb(tmp_path / "a.tar", header(name, 64 << 20), 64 << 20, bytes(1024))
    assert path.stat().st_size < 1 << 20
    with little_memory(), pytest.raises(BadData, match=rf"a\.tar: {name.rstrip('/')}/? takes 67,108,864 bytes"):
        list(webdataset.samples(path))


def test_2_21_a_member_that_only_claims_a_size_is_refused(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.tar", header("0001.txt", 7 << 40), 512)
    with little_memory(), pytest.raises(BadData, match="may take 8,388,608"):
        list(webdataset.samples(path))


def test_2_21_a_sample_of_many_members_is_refused(tmp_path: Path) -> None:
    parts = [part for number in range(9) for part in (header(f"0001.part{number}", 1 << 20), 1 << 20)]
    path = bomb(tmp_path / "a.tar", *parts, bytes(1024))
    with pytest.raises(BadData, match=r"0001 up to its part8 takes 9,437,184 bytes"):
        list(webdataset.samples(path))


def test_2_21_many_samples_may_take_more_than_one(tmp_path: Path) -> None:
    parts = [part for number in range(20) for part in (header(f"{number:04}.bin", 1 << 20), 1 << 20)]
    assert sum(1 for _ in webdataset.samples(bomb(tmp_path / "a.tar", *parts, bytes(1024)))) == 20


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_2_21_a_header_that_does_not_fit_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = bomb(tmp_path / "a.tar", header("0001.txt", 64 << 20, kind), 64 << 20, bytes(1024))
    with little_memory(), pytest.raises(BadData, match="a header of 67,108,864 bytes, more than 1,048,576"):
        list(webdataset.samples(path))


def test_2_21_long_names_are_still_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("ä" * 300 + "/0001.txt")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    assert [members for _, members in webdataset.samples(tmp_path / "a.tar")] == [{"txt": b"hi"}]


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
    pytest.importorskip("PIL")
    body = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + body
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = b"IDAT" + zlib.compress(b"")
    png += struct.pack(">I", len(end) - 4) + end + struct.pack(">I", zlib.crc32(end))
    with pytest.raises(BadData, match=r"big\.png cannot be read"):
        images.shape_of(io.BytesIO(png), "big.png", None)
    with pytest.raises(BadData, match=r"big\.png cannot be read"):
        images.pixels_of(io.BytesIO(png), "big.png", (8, 8), True, "first.png")
