"""Random folders of images and random tars, held against Pillow's, tarfile's and json's own answers, without Ray.

`case(kind, seed, folder)` makes one of `kinds()`, and says what the oracle reads in it and what `prepare` makes of it.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from headway.data.prepare.sources.images import plan_images
from headway.data.prepare.sources.listing import Plan, chosen, listed
from headway.data.prepare.sources.webdataset import plan_webdataset
from headway.data.prepare.steps.recipe import typed
from headway.errors import BadInput

ENDINGS = ("png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff")
LIKE = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "gif": "GIF", "webp": "WEBP", "tif": "TIFF"}
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B"),
}
Rows = list[dict[str, Any]]
FIELDS = ""
"""Of a row: the fields of its JSON."""


@dataclass(frozen=True)
class Case:
    """One random source.

    Args:
        kind: of the source.
        seed: of its contents.
        oracle: its rows; None where it has none that one could agree on, so that it is to be refused.
        made: its rows as they are prepared, or the words of the refusal.
        plan: how it is read, if it is.
    """

    kind: str
    seed: int
    oracle: Rows | None
    made: Rows | str
    plan: Plan | None = None

    @property
    def outcome(self) -> str:
        """same, refused (by both), declined (by ours alone), or different: silently wrong."""
        if isinstance(self.made, str):
            return "refused" if self.oracle is None else "declined"
        return "same" if self.oracle is not None and alike(self.oracle, self.made) else "different"


def case(kind: str, seed: int, folder: Path) -> Case:
    """Make a source of a kind in an empty folder, and read it by both ways."""
    rng = random.Random(f"{kind} {seed}")
    folder.mkdir(parents=True, exist_ok=True)
    size, oracle = MAKE[kind](rng, folder)
    try:
        plan, table = made(folder, size)
    except BadInput as error:
        return Case(kind, seed, oracle, str(error))
    rows = rows_of(table)
    return Case(kind, seed, oracle, rows if kind.startswith("tar") else by_content(rows), plan)


def kinds() -> list[str]:
    """Kinds of sources."""
    return list(MAKE)


def made(src: Path, size: tuple[int, int] | None = None) -> tuple[Plan, pa.Table]:
    """The rows of a source, read piece by piece as tasks on a cluster do."""
    kind, files = chosen(src, listed(src), None)
    plan = plan_images(src, files, size) if kind == "images" else plan_webdataset(files, size)
    pieces = [json.loads(json.dumps(piece)) for piece in plan.pieces]
    tables = [typed(table, plan.schema) for piece in pieces for table in plan.read(piece, plan.schema)]
    return plan, pa.concat_tables(tables) if tables else plan.schema.empty_table()


def rows_of(table: pa.Table) -> Rows:
    """A table's rows, tensors as arrays."""
    columns = {
        name: list(column.combine_chunks().to_numpy_ndarray()) if name == "image" else column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def by_content(rows: Rows) -> Rows:
    """Rows in an order that has nothing to do with where they were."""
    return sorted(rows, key=lambda row: (row.get("label", -1), row["image"].shape, row["image"].tobytes()))


def alike(expected: Any, found: Any) -> bool:
    """Whether values are the same: what is missing is null, and what no column can hold is as JSON writes it."""
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and expected.shape == found.shape and bool((expected == found).all())
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(alike(expected.get(name), found.get(name)) for name in {*expected, *found})
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(alike, expected, found))
    if isinstance(found, str) and not isinstance(expected, str):
        return expected is not None and found == json.dumps(expected, ensure_ascii=False)
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    return bool(expected == found)


# Images


def picture(rng: random.Random, mode: str, size: tuple[int, int]) -> Image.Image:
    """A random image; size: width and height."""
    noise = np.random.default_rng(rng.randrange(2**32))
    shape = (size[1], size[0])
    if mode in ("I;16", "I;16B"):
        values = noise.integers(0, 65536, shape).astype("<u2" if mode == "I;16" else ">u2")
        return Image.fromarray(values)
    if mode == "1":
        return Image.fromarray(noise.integers(0, 256, shape).astype(np.uint8)).convert("1")
    if mode == "P":
        image = Image.fromarray(noise.integers(0, 256, shape).astype(np.uint8), "P")
        image.putpalette(noise.integers(0, 256, 768).astype(np.uint8).tobytes())
        return image
    if mode == "PA":
        return picture(rng, "P", size).convert("PA")
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = noise.integers(0, 256, (*shape, bands)).astype(np.uint8)
    return Image.merge(mode, [Image.fromarray(values[..., band]) for band in range(bands)])


def saved(rng: random.Random, image: Image.Image, path: Path, kind: str, turn: int = 1) -> None:
    """An image in a file of a kind of Pillow's."""
    more: dict[str, Any] = {}
    if turn != 1:
        more["exif"] = Image.Exif()
        more["exif"][0x0112] = turn
    if kind == "PNG" and image.mode == "P" and rng.random() < 0.5:
        more["transparency"] = rng.randrange(256)
    if kind == "TIFF":
        more["compression"] = rng.choice((None, "tiff_lzw", "tiff_deflate")) if image.mode != "YCbCr" else None
    if kind == "WEBP":
        more["lossless"] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **more)


def right(path: Path) -> Image.Image:
    """An image as Pillow reads it: upright, and with 8 bits; grey (L) or colour (RGB)."""
    with Image.open(io.BytesIO(path.read_bytes())) as image:  # by its path Pillow 13.0 scrambles TIFF on their side
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright).astype(np.uint16) // 256).astype(np.uint8))
    return upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB")


def read(paths: Iterable[tuple[Path, int | None]], size: tuple[int, int] | None = None) -> Rows | None:
    """What Pillow reads of images with their labels; None where they differ in size."""
    images = [(right(path), label) for path, label in paths]
    mode = "RGB" if any(image.mode == "RGB" for image, _ in images) else "L"
    if size is not None:
        images = [
            (image.convert(mode).resize((size[1], size[0])) if image.size != (size[1], size[0]) else image, label)
            for image, label in images
        ]
    if len({image.size for image, _ in images}) > 1:
        return None
    rows = [{"image": np.asarray(image.convert(mode)), "label": label} for image, label in images]
    return by_content([row if row["label"] is not None else {"image": row["image"]} for row in rows])


def paths_in(folder: Path) -> list[tuple[Path, int | None]]:
    """The images of a folder, and their classes."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix[1:].lower() in ENDINGS)
    files = [p for p in files if not p.name.startswith(".")]
    names = sorted({p.relative_to(folder).parts[0] for p in files if p.parent != folder})
    return [(p, names.index(p.relative_to(folder).parts[0]) if p.parent != folder else None) for p in files]


Made = tuple[tuple[int, int] | None, Rows | None]
Maker = Callable[[random.Random, Path], Made]


def images_of(modes: Callable[[str], bool], turns: bool = False, kinds: tuple[str, ...] = tuple(LIKE)) -> Maker:
    """A maker of folders of images of some modes in all formats that have them."""

    def make(rng: random.Random, folder: Path) -> Made:
        size = rng.randint(1, 9), rng.randint(1, 9)
        labelled = rng.random() < 0.7
        for number in range(rng.randint(1, 6)):
            ending = rng.choice([e for e in kinds if any(modes(m) for m in MODES[LIKE[e]])])
            mode = rng.choice([m for m in MODES[LIKE[ending]] if modes(m)])
            turn = rng.randint(1, 8) if turns and ending in ("jpg", "png", "webp", "tif") else 1
            own = (size[1], size[0]) if turn > 4 else size
            name = f"{number}.{rng.choice((ending, ending.upper()))}"
            path = folder / rng.choice(("cat", "dog/deep", "Äö ü")) / name if labelled else folder / name
            saved(rng, picture(rng, mode, own), path, LIKE[ending], turn)
        return None, read(paths_in(folder))

    return make


def resized(rng: random.Random, folder: Path) -> Made:
    """Images of any size, with --image-size."""
    size = rng.randint(1, 9), rng.randint(1, 9)
    for number in range(rng.randint(1, 4)):
        ending = rng.choice(list(LIKE))
        own = rng.randint(1, 20), rng.randint(1, 20)
        mode = rng.choice(MODES[LIKE[ending]])
        saved(rng, picture(rng, mode, own), folder / "a" / f"{number}.{ending}", LIKE[ending])
    return size, read(paths_in(folder), size)


def spoilt(rng: random.Random, folder: Path) -> Made:
    """One of the images is not whole, or is none."""
    images_of(lambda mode: mode == "RGB", kinds=("png", "jpg", "bmp", "webp", "tif"))(rng, folder)
    path = rng.choice(paths_in(folder))[0]
    content = path.read_bytes()
    flipped = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        flipped[rng.randrange(len(flipped))] = rng.randrange(256)
    cut = content[: rng.randrange(len(content))]
    path.write_bytes(rng.choice((b"", b"<html></html>", rng.randbytes(200), cut, cut, flipped, flipped, flipped)))
    try:
        return None, read(paths_in(folder))
    except Exception:  # whatever Pillow raises
        return None, None


def deep(kind: str, most: tuple[float, ...]) -> Maker:
    """A maker of folders of 32-bit greys (I or F) with values up to one of some."""

    def make(rng: random.Random, folder: Path) -> Made:
        noise = np.random.default_rng(rng.randrange(2**32))
        size, top = (rng.randint(1, 9), rng.randint(1, 9)), rng.choice(most)
        rows = []
        folder.mkdir(exist_ok=True)
        for number in range(rng.randint(1, 4)):
            values = noise.random(size) * top
            values.flat[0] = top
            values = values.astype(np.int32 if kind == "I" else np.float32)
            Image.fromarray(values).save(folder / f"{number}.tif")
            scale = {1: 255, 65535: 1 / 256}.get(top, 1)
            scaled = np.rint(values * np.float32(255)) if top == 1 else np.floor(values * scale)
            rows.append({"image": np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)})
        return None, by_content(rows) if 0 < top <= (255 if kind == "F" else 65535) else None

    return make


def animated(rng: random.Random, folder: Path) -> Made:
    """Several images in one file: a row holds one."""
    ending = rng.choice(("gif", "webp", "png", "tif"))
    frames = [picture(rng, "RGB", (5, 4)) for _ in range(rng.randint(2, 4))]
    (folder / "a").mkdir()
    frames[0].save(folder / "a" / f"0.{ending}", LIKE[ending], save_all=True, append_images=frames[1:])
    return None, None


def telephone(rng: random.Random, folder: Path) -> Made:
    """Pictures as a telephone and a Mac leave them."""
    size = rng.randint(1, 9), rng.randint(1, 9)
    for number in range(rng.randint(1, 4)):
        turn = rng.choice((1, 3, 6, 8))
        own = (size[1], size[0]) if turn > 4 else size
        path = folder / f"{rng.choice(('IMG_', '_DSC', 'DSC 0'))}{number}.{rng.choice(('JPG', 'jpeg', 'jpg'))}"
        if rng.random() < 0.3:
            exif = Image.Exif()
            exif[0x0112] = turn
            second = picture(rng, "RGB", own)
            picture(rng, "RGB", own).save(path, "MPO", save_all=True, append_images=[second], exif=exif)
        else:
            saved(rng, picture(rng, "RGB", own), path, "JPEG", turn)
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7AppleDouble")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return None, read(paths_in(folder))


def heic(rng: random.Random, folder: Path) -> Made:
    """A telephone's HEIC among its JPEGs."""
    telephone(rng, folder)
    (folder / f"IMG_9.{rng.choice(('HEIC', 'heic', 'jpg'))}").write_bytes(b"\0\0\0\x18ftypheic" + rng.randbytes(99))
    return None, None


def partly(rng: random.Random, folder: Path) -> Made:
    """Classes for some images only, or parts of a dataset in the place of classes."""
    image = picture(rng, "RGB", (3, 3))
    for path in rng.choice((("a/1.png", "2.png"), ("train/a/1.png", "val/a/2.png"), ("Train/1.png", "TEST/2.png"))):
        saved(rng, image, folder / path, "PNG")
    return None, None


# Tars


def write(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> None:
    """A tar of members: pairs of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, content in members:
            if name.endswith("/"):
                info = tarfile.TarInfo(name.rstrip("/"))
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def read_tars(folder: Path) -> Rows:
    """What tarfile, json and Pillow read of tars: a row for each name up to its first dot, in the order of the tars."""
    rows: Rows = []
    for path in sorted(folder.rglob("*.tar*")) + sorted(folder.rglob("*.tgz")):
        samples: dict[str, dict[str, Any]] = {}
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                name = member.name.removeprefix("./")
                where, _, last = name.rpartition("/")
                stem, dot, ending = last.partition(".")
                if not member.isfile() or not stem or not dot:
                    continue
                key = f"{where}/{stem}" if where else stem
                content = tar.extractfile(member)
                assert content is not None
                samples.setdefault(key, {})[ending] = content.read()
        rows += [_row(key, sample) for key, sample in samples.items()]
    for name in {name for row in rows for name in row[FIELDS]}:
        taken = any(name in row for row in rows)
        once = taken and all(_says_nothing_else(name, row) for row in rows)
        for row in rows:
            if name in row[FIELDS] and not once:
                row[f"json.{name}" if taken else name] = row[FIELDS][name]
    return [{name: value for name, value in row.items() if name != FIELDS} for row in rows]


def _says_nothing_else(name: str, row: dict[str, Any]) -> bool:
    said = row[FIELDS].get(name)
    if name == "key":
        return said in (None, row["key"], row["key"].split("/")[-1])
    return said is None or (not isinstance(row.get(name), np.ndarray) and said == row.get(name))


def _row(key: str, sample: dict[str, bytes]) -> dict[str, Any]:
    row: dict[str, Any] = {"key": key, FIELDS: {}}
    for ending, content in sample.items():
        if ending in ENDINGS:
            with Image.open(io.BytesIO(content)) as image:
                row["image"] = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        elif ending == "json":
            tree = json.loads(content)
            row[FIELDS] = tree if isinstance(tree, dict) else {"json": tree}
        elif ending == "cls":
            text = content.decode().strip()
            row["label"] = int(text) if text.lstrip("-").isdigit() else text
        elif ending == "txt":
            row["text"] = content.decode()
        else:
            row[ending] = content
    return row


def coded(rng: random.Random, size: tuple[int, int], ending: str) -> bytes:
    """An image in colour as bytes; size: width and height of it upright."""
    turn = rng.choice((1, 1, 6, 8)) if ending in ("jpg", "png") else 1
    exif = Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    own = (size[1], size[0]) if turn > 4 else size
    picture(rng, "RGB", own).save(file, LIKE[ending], **({"exif": exif} if turn > 1 else {}))
    return file.getvalue()


def value(rng: random.Random, depth: int = 2) -> Any:
    """A random value of JSON."""
    simple = [None, rng.random() < 0.5, rng.randint(-(2**40), 2**40), rng.random(), rng.choice(("", "a", "ä\n'", "NA"))]
    if depth == 0 or rng.random() < 0.6:
        return rng.choice(simple)
    if rng.random() < 0.5:
        return [value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return {f"f{at}": value(rng, depth - 1) for at in range(rng.randint(0, 3))}


def about(rng: random.Random, key: str) -> dict[str, Any]:
    """The JSON that img2dataset writes."""
    return {
        "url": f"http://example.org/{key}.jpg",
        "caption": rng.choice((None, "", "eine Brücke", "a cat")),
        "key": key,
        "status": "success",
        "error_message": None,
        "width": 8,
        "height": 8,
        "original_width": rng.choice((90, 120)),
        "original_height": 90,
        "exif": rng.choice(('{"Image Orientation": "Rotated 90 CW"}', "{}")),
        "sha256": rng.randbytes(32).hex(),
        "punsafe": rng.choice((None, 0, rng.random())),
    }


def tars_of(sample: Callable[[random.Random, str], dict[str, bytes]], most: int = 3, **way: Any) -> Maker:
    """A maker of tars.

    Args:
        sample: the members of one sample by their ending, of its key.
        most: tars.
        way: ending, mode, form of the tars; prefix of names; apart: members lie in any order; more: other members.
    """

    def make(rng: random.Random, folder: Path) -> Made:
        for number in range(rng.randint(1, most)):
            members = []
            for at in range(rng.randint(0 if number else 1, 6)):
                key = f"{number:05d}{at:04d}"
                own = sample(rng, key)
                members += [(f"{way.get('prefix', '')}{key}.{ending}", own[ending]) for ending in own]
            if way.get("apart"):
                rng.shuffle(members)
            members += way.get("more", [])
            path = folder / f"{number:05d}.{way.get('ending', 'tar')}"
            write(path, members, way.get("mode", "w"), way.get("form", rng.choice((0, 1, 2))))
        return None, read_tars(folder)

    return make


def img2dataset(rng: random.Random, key: str) -> dict[str, bytes]:
    said = about(rng, key)
    text = (said["caption"] or "").encode()
    return {"jpg": coded(rng, (8, 8), "jpg"), "txt": text, "json": json.dumps(said).encode()}


def classed(rng: random.Random, key: str) -> dict[str, bytes]:
    return {rng.choice(("png", "jpg")): coded(rng, (4, 3), "png"), "cls": b"%d\n" % rng.randint(0, 9)}


def named(rng: random.Random, key: str) -> dict[str, bytes]:
    return {"jpg": coded(rng, (4, 3), "jpg"), "cls": rng.choice((b"cat", b"dog", "Bär".encode()))}


def nested(rng: random.Random, key: str) -> dict[str, bytes]:
    tree: Any = {f"f{at}": value(rng) for at in range(4) if rng.random() < 0.8}
    return {"json": json.dumps(tree).encode()}


def listed_json(rng: random.Random, key: str) -> dict[str, bytes]:
    return {"json": json.dumps([rng.randint(0, 9) for _ in range(rng.randint(0, 3))]).encode()}


def colliding(rng: random.Random, key: str) -> dict[str, bytes]:
    label = rng.randint(0, 3)
    said = {"label": rng.choice((label, 7)), "text": key, "key": rng.choice((key, "other")), "image": "x.png"}
    return {
        "png": coded(rng, (4, 3), "png"),
        "cls": b"%d" % label,
        "txt": key.encode(),
        "json": json.dumps(said).encode(),
    }


def kept(rng: random.Random, key: str) -> dict[str, bytes]:
    many = ("seg.png", "0.jpg", "1.jpg", "npy", "pyd", "pth", "meta.json", "flac")
    return {ending: rng.randbytes(rng.randint(0, 50)) for ending in many} | {"jpg": coded(rng, (4, 3), "jpg")}


def captioned(rng: random.Random, key: str) -> dict[str, bytes]:
    some = {"txt": key.encode()} if rng.random() < 0.5 else {}
    return {"jpg": coded(rng, (4, 3), "jpg")} | some | ({"json": b"{}"} if rng.random() < 0.5 else {})


def beside(rng: random.Random, folder: Path) -> Made:
    """img2dataset's other files."""
    _, rows = tars_of(img2dataset)(rng, folder)
    for path in list(folder.glob("*.tar")):
        path.with_suffix(".parquet").write_bytes(b"PAR1")
        (folder / f"{path.stem}_stats.json").write_text('{"count": 3}')
    return None, rows


def bad_tar(rng: random.Random, folder: Path) -> Made:
    """A tar that is not whole, or not clear."""
    path = folder / "0.tar"
    image = coded(rng, (4, 3), "png")
    members = [(f"{at}.{ending}", content) for at in range(4) for ending, content in (("png", image), ("txt", b"hi"))]
    way = rng.randrange(8)
    if way == 0:
        write(path, members)
        whole = path.read_bytes()
        path.write_bytes(whole[: rng.randrange(10 * 512)])
    elif way == 1:
        write(path, members, "w:gz")
        whole = path.read_bytes()
        path.write_bytes(whole[: rng.randrange(1, len(whole))])
    elif way == 2:
        write(path, members)
        write(folder / "x", [(f"1{name}", content) for name, content in members])
        path.write_bytes(path.read_bytes() + (folder / "x").read_bytes())
        (folder / "x").unlink()
    elif way == 3:
        write(path, [*members, ("1.jpg", image)])
    elif way == 4:
        write(path, [*members, ("5.txt", b"no image")])
    elif way == 5:
        write(path, [*members, ("3.txt", b"twice")])
    elif way == 6:
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("1.png")
            info.size = len(image)
            tar.addfile(info, io.BytesIO(image))
            info = tarfile.TarInfo("2.png")
            info.type, info.linkname = rng.choice((tarfile.LNKTYPE, tarfile.SYMTYPE)), "1.png"
            tar.addfile(info)
    else:
        write(path, [*members, ("7.png", image[: len(image) // 2])])
    return None, None


MAKE: dict[str, Maker] = {
    "images": images_of(lambda mode: True),
    "images in grey": images_of(lambda mode: mode in ("1", "L", "LA", "I;16", "I;16B")),
    "images of 16 bits": images_of(lambda mode: mode.startswith("I;16")),
    "images with palettes": images_of(lambda mode: mode in ("P", "PA")),
    "images with alpha": images_of(lambda mode: mode in ("LA", "PA", "RGBA", "P")),
    "images in other colours": images_of(lambda mode: mode in ("CMYK", "YCbCr")),
    "images turned": images_of(lambda mode: True, turns=True),
    "images of any size, resized": resized,
    "images spoilt": spoilt,
    "images of 32-bit integers": deep("I", (255, 65535, 65536, -1)),
    "images of floats": deep("F", (1, 1, 255, 255, 1000, float("nan"), -2)),
    "images of several frames": animated,
    "images of a telephone": telephone,
    "images in HEIC": heic,
    "images without class": partly,
    "tars of img2dataset": tars_of(img2dataset),
    "tars of img2dataset, with its other files": beside,
    "tars with classes": tars_of(classed),
    "tars with names of classes": tars_of(named),
    "tars with members apart": tars_of(img2dataset, apart=True),
    "tars of folders": tars_of(
        img2dataset, prefix="./a.b/", more=[("./", b""), ("./a.b/", b""), ("./a.b/.DS_Store", b"")]
    ),
    "tars of ./": tars_of(classed, prefix="./", more=[("./", b""), ("._0.jpg", b"x"), ("README", b"read")]),
    "tars of long names": tars_of(classed, prefix="ä" * 120 + "/", form=tarfile.PAX_FORMAT),
    "tars packed": tars_of(img2dataset, ending="tar.gz", mode="w:gz"),
    "tars packed without a word": tars_of(classed, mode="w:xz"),
    "tars of nested JSON": tars_of(nested),
    "tars of lists": tars_of(listed_json),
    "tars with columns twice": tars_of(colliding),
    "tars with other members": tars_of(kept),
    "tars with and without captions": tars_of(captioned),
    "tars that are bad": bad_tar,
}
