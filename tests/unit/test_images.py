"""Folders of images as they are in the world: upright, of any depth, grey or in colour. What is refused is named."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.files import images as random_files
from tests.files.images import case, made, rows_of
from tests.tiers import examples

from headway.data.prepare.sources import pixels
from headway.data.prepare.sources.images import plan_images
from headway.data.prepare.sources.listing import listed
from headway.errors import BadData

ROW = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
"""2 high, 3 wide; no turn of it is like another."""
TURNED = {
    1: ROW,
    2: ROW[:, ::-1],
    3: ROW[::-1, ::-1],
    4: ROW[::-1],
    5: ROW.T,
    6: np.rot90(ROW, 1),
    7: ROW[::-1, ::-1].T,
    8: np.rot90(ROW, -1),
}
"""How a camera stores ROW, by the orientation that it notes: what is done to see it upright is undone here."""


@pytest.fixture
def src(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / "src" / name).mkdir(parents=True)
    return tmp_path / "src"


def save(path: Path, values: np.ndarray, turn: int = 1, **more: object) -> None:
    if turn != 1:
        more["exif"] = Image.Exif()
        more["exif"][0x0112] = turn
    Image.fromarray(values).save(path, **more)


def images_in(src: Path, size: tuple[int, int] | None = None) -> list[list]:
    """Pixels in the order of their names, or of their labels."""
    rows = rows_of(made(src, size)[1])
    return [row["image"].tolist() for row in sorted(rows, key=lambda row: row.get("label", 0))]


def refused(src: Path, size: tuple[int, int] | None = None) -> str:
    with pytest.raises(BadData) as caught:
        made(src, size)
    return str(caught.value)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_images_come_upright(tmp_path: Path, turn: int, ending: str) -> None:
    grey = TURNED[turn] if ending != "webp" else np.stack([TURNED[turn]] * 3, -1)
    save(tmp_path / f"1.{ending}", grey, turn, **({"lossless": True} if ending == "webp" else {}))
    found = np.array(images_in(tmp_path)[0])
    assert (found if found.ndim == 2 else found[..., 0]).tolist() == ROW.tolist()


def test_the_shape_is_that_of_the_first_upright_image(src: Path) -> None:
    values = np.zeros((20, 30), np.uint8)
    values[:10] = 220  # above
    save(src / "a" / "1.jpg", np.rot90(values, 1), 6)
    save(src / "b" / "1.png", values)
    found = np.array(images_in(src))
    assert found.shape == (2, 20, 30)
    assert (found[:, :8] > 200).all()
    assert (found[:, 12:] < 20).all()


@pytest.mark.parametrize("keyword", ["XML:com.adobe.xmp", "Comment"])
def test_an_orientation_that_a_png_says_after_its_pixels_counts(tmp_path: Path, keyword: str) -> None:
    said = io.BytesIO()
    Image.fromarray(TURNED[6]).save(said, "PNG")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    chunk = b"iTXt" + keyword.encode() + b"\0\0\0\0\0" + xmp
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "1.png").write_bytes(said.getvalue()[:-12] + late + said.getvalue()[-12:])
    assert np.array(images_in(tmp_path)[0]).shape == ((2, 3) if "xmp" in keyword else (3, 2))


def test_a_broken_exif_block_says_nothing(tmp_path: Path) -> None:
    save(tmp_path / "1.png", ROW, exif=b"broken")
    plan, table = made(tmp_path)
    assert rows_of(table)[0]["image"].tolist() == ROW.tolist()
    assert "EXIF block that cannot be read" in plan.notes[0]


DEEP = {
    "16 bits": (np.array([[0, 255, 256, 65535]], "<u2"), [0, 0, 1, 255]),
    "16 bits, big-endian": (np.array([[0, 255, 256, 65535]], ">u2"), [0, 0, 1, 255]),
    "integers up to 255": (np.array([[0, 7, 255]], np.int32), [0, 7, 255]),
    "integers up to 65,535": (np.array([[0, 255, 256, 65535]], np.int32), [0, 0, 1, 255]),
    "floats up to 1": (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
    "floats up to 255": (np.array([[0, 1.5, 254.9]], np.float32), [0, 1, 254]),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_greys_are_scaled(tmp_path: Path, name: str) -> None:
    values, expected = DEEP[name]
    save(tmp_path / "1.tif", values)
    assert images_in(tmp_path) == [[expected]]


def test_what_is_white_is_found_over_all_floats(src: Path) -> None:
    save(src / "a" / "1.tif", np.array([[0, 1]], np.float32))
    save(src / "b" / "1.tif", np.array([[0, 200]], np.float32))
    assert images_in(src) == [[[0, 1]], [[0, 200]]]


def test_a_16_bit_png_and_a_pgm_agree(src: Path) -> None:
    save(src / "a" / "1.png", np.array([[0, 256, 65535]], np.uint16))
    (src / "b" / "1.pgm").write_bytes(b"P5 3 1 65535\n" + np.array([0, 256, 65535], ">u2").tobytes())
    assert images_in(src) == [[[0, 1, 255]]] * 2


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        (np.array([[0, 1000.0]], np.float32), "1.tif holds floats up to 1000"),
        (np.array([[0, np.nan]], np.float32), "1.tif holds NaN or infinity"),
        (np.array([[0, -0.5]], np.float32), "1.tif holds numbers below zero, as -0.5"),
        (np.array([[0, 65536]], np.int32), "1.tif holds integers of 32 bits up to 65536"),
    ],
)
def test_numbers_that_are_no_greys_are_refused_by_name(src: Path, values: np.ndarray, fact: str) -> None:
    save(src / "a" / "1.tif", values)
    assert fact in refused(src)


def test_a_negative_of_16_bits_is_refused(tmp_path: Path) -> None:
    """Pillow turns 8 bits round, where 0 is white, and not 16."""
    save(tmp_path / "1.tif", np.array([[0, 65535]], np.uint16), tiffinfo={262: 0})
    assert "1.tif is a negative" in refused(tmp_path)


def test_grey_among_colours_is_in_colour_whichever_comes_first(src: Path) -> None:
    save(src / "a" / "1.png", ROW)
    save(src / "b" / "1.png", np.stack([ROW, ROW + 1, ROW + 2], -1))
    plan, table = made(src)
    found = {row["label"]: row["image"][0, 2].tolist() for row in rows_of(table)}
    assert found == {0: [80, 80, 80], 1: [80, 81, 82]}
    assert plan.notes[0].startswith(f"1 of 2 images, grey ({src / 'a' / '1.png'}): kept with three equal channels")


def test_alpha_is_left_out_and_told(src: Path) -> None:
    save(src / "a" / "1.png", np.array([[[10, 20, 30, 0]]], np.uint8))
    save(src / "b" / "1.png", np.array([[[10, 20, 30]]], np.uint8))
    plan, table = made(src)
    assert [row["image"].tolist() for row in rows_of(table)] == [[[[10, 20, 30]]]] * 2
    assert ["transparent in part" in note for note in plan.notes] == [True]


def test_profiles_and_further_pictures_are_told(tmp_path: Path) -> None:
    image, profile = Image.fromarray(np.stack([ROW] * 3, -1)), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image.save(tmp_path / "1.jpg", icc_profile=profile.tobytes())
    image.save(tmp_path / "2.jpg", icc_profile=b"desc" + "Display P3".encode("utf-16-be"))
    image.save(tmp_path / "3.jpg", "MPO", save_all=True, append_images=[image])
    plan, _ = made(tmp_path)
    assert [note.partition(" images, ")[2].partition(" (")[0] for note in plan.notes[:2]] == [
        "with a colour profile that is not sRGB",
        "of several pictures in a file",
    ]
    assert all(note.startswith("1 of 3 images") for note in plan.notes[:2])


def test_images_without_class_folders_have_no_label(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"_DSC{number}.JPG", np.full((2, 2), 60 * number, np.uint8))
        (tmp_path / f"._DSC{number}.JPG").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".DS_Store").write_bytes(b"Bud1")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf")
    plan, table = made(tmp_path)
    assert (table.column_names, plan.label, plan.categories) == (["image"], None, {})
    assert [row["image"][0, 0] for row in rows_of(table)] == [0, 60, 120, 180]
    assert "rows have no label" in plan.notes[-1]
    assert rows_of(made(tmp_path / "_DSC1.JPG")[1])[0]["image"].tolist() == [[60, 60], [60, 60]]


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (("1.png", "b/1.png"), "1.png has no class"),
        (("train/a/1.png", "val/a/1.png"), "holds train and val: these would be taken for classes"),
    ],
)
def test_classes_that_are_none_are_refused(tmp_path: Path, names: tuple[str, ...], fact: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / name, ROW)
    assert fact in refused(tmp_path)


def test_the_class_is_the_first_folder(src: Path) -> None:
    (src / "a" / "2024").mkdir()
    save(src / "a" / "2024" / "1.png", ROW)
    save(src / "b" / "1.png", ROW)
    plan, table = made(src)
    assert (table["label"].to_pylist(), plan.categories) in [
        ([0, 1], {"label": ["a", "b"]}),
        ([1, 0], {"label": ["a", "b"]}),
    ]
    assert plan.notes == ["folders within a class folder say no class: a/2024 is of class a"]


def frames(path: Path, **more: object) -> None:
    own = [Image.fromarray(np.full((2, 2), value, np.uint8)) for value in (0, 100, 200)]
    own[0].save(path, save_all=True, append_images=own[1:], **more)


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("1.png", lambda path: path.write_bytes(b""), "1.png cannot be read: it is empty"),
    "no image": ("1.png", lambda path: path.write_text("<html>"), "it is no image: it begins with b'<html>'"),
    "Git LFS": ("1.jpg", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "HEIC": ("1.HEIC", lambda path: path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0"), "1.HEIC is HEIC"),
    "HEIC by another name": ("1.jpg", lambda path: path.write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0"), "1.jpg is HEIC"),
    "GIF": ("1.gif", frames, "1.gif has 3 frames: a row has one image"),
    "APNG": ("1.png", frames, "1.png has 3 frames"),
    "WebP": ("1.webp", frames, "1.webp has 3 frames"),
    "TIFF": ("1.tif", frames, "1.tif has 3 pages"),
    "PostScript": ("1.png", lambda path: Image.new("RGB", (2, 2)).save(path, "EPS"), "1.png is EPS"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(src: Path, name: str) -> None:
    file, spoil, fact = REFUSED[name]
    save(src / "a" / "0.png", ROW)
    spoil(src / "b" / file)
    message = refused(src)
    assert fact in message
    assert str(src / "b" / file) in message


def test_all_broken_ones_are_named_together(src: Path) -> None:
    save(src / "a" / "1.png", ROW)
    for number in range(6):
        (src / "b" / f"{number}.png").write_bytes(b"")
    message = refused(src)
    assert "b/0.png cannot be read: it is empty. Also: " in message
    assert message.count("it is empty") == 4
    assert "; and 2 more" in message


def test_those_that_are_cut_short_are_named_together(src: Path) -> None:
    save(src / "a" / "1.bmp", np.zeros((50, 50), np.uint8))
    for name in ("1.bmp", "2.bmp"):
        (src / "b" / name).write_bytes((src / "a" / "1.bmp").read_bytes()[:-100])
    message = refused(src)
    assert "1.bmp cannot be read: image file is truncated" in message
    assert "2.bmp cannot be read: image file is truncated" in message


def test_sizes_that_differ_are_both_named(src: Path) -> None:
    save(src / "a" / "1.jpg", np.zeros((4, 6), np.uint8), 6)
    save(src / "b" / "1.png", np.zeros((4, 6), np.uint8))
    message = refused(src)
    assert "b/1.png is 4x6" in message
    assert "a/1.jpg is 6x4" in message
    assert "--image-size" in message
    assert np.array(images_in(src, (5, 5))).shape == (2, 5, 5)


def test_an_image_that_changes_after_the_headers_were_read_is_never_bent(src: Path) -> None:
    save(src / "a" / "1.png", ROW)
    plan = plan_images(src, listed(src), None)
    save(src / "a" / "1.png", ROW.T.copy())
    with pytest.raises(BadData, match="is 3x2"):
        list(plan.read(plan.pieces[0], plan.schema))


def test_a_very_large_image_is_refused_by_name(tmp_path: Path) -> None:
    body = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + body
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = b"IDAT" + zlib.compress(b"")
    png += struct.pack(">I", len(end) - 4) + end + struct.pack(">I", zlib.crc32(end))
    (tmp_path / "big.png").write_bytes(png)
    assert "big.png is too large: Image size (3600000000 pixels) exceeds limit" in refused(tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("kind", random_files.kinds())
def test_random_files_are_as_pillow_and_tarfile_read_them(kind: str, tmp_path: Path) -> None:
    outcomes = []
    for seed in range(examples(4, 300)):
        found = case(kind, seed, tmp_path / str(seed))
        outcomes.append(found.outcome)
        assert found.outcome in ("same", "refused"), (seed, found.oracle, found.made)
    assert "same" in outcomes or kind in NEVER_READ


NEVER_READ = (
    "images of several frames",
    "images in HEIC",
    "images without class",
    "tars that are bad",
    "images spoilt",
)


def test_pixels_of_an_open_file_are_those_of_its_path(tmp_path: Path) -> None:
    save(tmp_path / "1.tif", TURNED[8], 8)
    look = pixels.Look((2, 3))
    with (tmp_path / "1.tif").open("rb") as file:
        assert pixels.pixels_of(file, "1.tif", look).tolist() == ROW.tolist()
    assert pixels.pixels_of(tmp_path / "1.tif", "1.tif", look).tolist() == ROW.tolist()
