"""One image as uint8: upright by its EXIF orientation, as grey [H, W] or as colour [H, W, 3].

Pillow's own conversion is what a value becomes, but where Pillow clips instead of scaling:

- 16-bit greys lose their lower 8 bits (65,535 becomes 255), 12-bit ones of TIFF their lower 4.
- 32-bit integers say of no value that it is white. They are taken as they are if none of the set passes 255, and like
  16-bit greys if none passes 65,535.
- Floats neither: white is 1 if none of the set passes 1, and 255 if none passes 255.

Other ranges, numbers below zero, NaN and infinity have no meaning as an image, and are refused. Alpha is left out: the
colour that lies under it stays, as with Pillow's `convert("RGB")`. Colour profiles are not applied, but that of LAB.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headway.errors import BadData, BadInput, HeadwayError

POINTER, FETCH = b"version https://git-lfs", ("it is a pointer of Git LFS, not the file", "Run git lfs pull.")
ENDINGS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif"),
)
FORMATS = frozenset(
    ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF")
)  # of Pillow's others some run programs, and some are no one image
GREY = frozenset(("1", "L", "LA", "La"))
COLOUR = frozenset(("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"))
ALPHA = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
ORIENTATION, WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 0x0112, 256, 257, 258, 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2
SIDEWAYS = (5, 6, 7, 8)
WHITES = {"I": (255, 65535), "F": (1, 255)}
"""What may be white, where the file does not say it."""
INTEGERS, FLOATS = "integers of 32 bits", "floats"
WORDS = {"I": INTEGERS, "F": FLOATS}
SAVE_AGAIN = "Save it with 8 or 16 bits, or leave it out."

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Header:
    """What an image says of itself, without its pixels.

    Args:
        height: of the upright image.
        width: of the upright image.
        mode: Pillow's name for what a pixel is.
        deep: how a grey of more than 8 bits is scaled: by so many bits (4 or 8), or I or F, where white is not said.
        alpha: some of it is transparent.
        orientation: EXIF's, 1 to 8; 0 if the EXIF block cannot be read.
        profile: it has a colour profile, other than sRGB.
        several: it is the first of several pictures, as a telephone's JPEG with its thumbnail or its depths (MPO).
    """

    height: int
    width: int
    mode: str
    deep: int | str = 0
    alpha: bool = False
    orientation: int = 1
    profile: bool = False
    several: bool = False

    @property
    def grey(self) -> bool:
        """Whether it has no colour."""
        return self.mode in GREY or self.deep != 0


@dataclass(frozen=True)
class Look:
    """What all images of a set have in common.

    Args:
        shape: [H, W] if all are grey, [H, W, 3] if not.
        resized: images are brought to that height and width; else they must have it.
        first: the image that gave the shape, for errors.
        white: the value that is white in 32-bit integers (I) and floats (F), where the set has such.
    """

    shape: tuple[int, ...]
    resized: bool = False
    first: str = ""
    white: dict[str, int] = field(default_factory=dict)


def header_of(file: Any, name: str) -> Header:
    """What an image says of itself.

    Args:
        file: path, or an open file.
        name: for errors.

    Raises:
        BadData: it is no image that can be used.
    """
    with _opened(file, name) as image:
        return _header(image, name)


def largest(file: Any, name: str) -> float:
    """The largest value of an image of 32-bit integers or floats.

    Raises:
        BadData: it cannot be read, or has values that mean no grey.
    """
    with _opened(file, name) as image:
        return float(_values(image, name).max(initial=0))


def white_for(deep: str, most: float, name: str) -> int:
    """The value that is white in a set, by the largest that it has.

    Args:
        deep: I or F.
        most: the largest value.
        name: of the image that has it, for errors.

    Raises:
        BadData: it is beyond what is known.
    """
    known = WHITES[deep]
    white = next((value for value in known if most <= value), None)
    if white is None:
        raise _beyond(deep, most, name, f"white is known to be {known[0]:,} or {known[1]:,}")
    return white


def pixels_of(file: Any, name: str, look: Look) -> Pixels:
    """One image as uint8, shape `look.shape`.

    Args:
        file: path, or an open file.
        name: for errors.
        look: of the set.

    Raises:
        BadData: it cannot be read, or does not look like the set.
    """
    with _opened(file, name) as image:
        header = _header(image, name)
        refuse_other(header, name, look)
        image.load()
        upright = _upright(image)
        plain = upright if not header.deep else _eight_bits(upright, header.deep, name, look)
        if plain.mode in ("RGBa", "La"):
            plain = plain.convert("RGBA" if plain.mode == "RGBa" else "LA")
        mode = "L" if len(look.shape) == 2 else "RGB"
        plain = plain if plain.mode == mode else plain.convert(mode)
        if plain.size != (header.width, header.height):
            raise ValueError(f"it unpacks to {plain.height}x{plain.width}, and says {header.height}x{header.width}")
        size = (look.shape[1], look.shape[0])
        return np.asarray(plain if plain.size == size else plain.resize(size), np.uint8)


def refuse_other(header: Header, name: str, look: Look) -> None:
    """Raise if an image does not look like the set.

    Raises:
        BadData: saying what it is, what the set is, and what to do.
    """
    if len(look.shape) == 2 and not header.grey:
        raise BadData(f"{name} is in colour", f"{look.first} is grey", "Convert all to grey or all to colour.")
    if (header.height, header.width) != look.shape[:2] and not look.resized:
        reason = f"{look.first} is {look.shape[0]}x{look.shape[1]}"
        raise BadData(f"{name} is {header.height}x{header.width}", reason, "Resize all with --image-size HxW.")


@contextmanager
def _opened(file: Any, name: str) -> Iterator[Any]:
    """An image of Pillow's. Its errors, of which there are all kinds for a broken file, become ones that name it."""
    pillow = _pillow()
    try:
        with warnings.catch_warnings(), _bytes_of(file) as opened:
            warnings.simplefilter("ignore")  # of large images, and of EXIF blocks that cannot be read
            with pillow.open(opened) as image:
                yield image
    except HeadwayError:
        raise
    except pillow.DecompressionBombError as error:
        reason = str(error).rstrip(".").replace(", could be decompression bomb DOS attack", "")
        raise BadData(f"{name} is too large", reason, "Make it smaller, or leave it out.") from None
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise _unreadable(file, name, error) from None


def _bytes_of(file: Any) -> Any:
    """An open file: one that Pillow opens by its path is mapped, and a TIFF on its side then comes scrambled (13.0)."""
    return nullcontext(file) if hasattr(file, "read") else Path(file).open("rb")


def _unreadable(file: Any, name: str, error: Exception) -> BadData:
    """What stands in the way of reading a file, by how it begins."""
    fact, remedy = f"{name} cannot be read", "Mend or remove it."
    if isinstance(error, PermissionError | FileNotFoundError):
        return BadData(fact, error.strerror or str(error), remedy)
    begin = _beginning(file)
    if not begin:
        return BadData(fact, "it is empty", remedy)
    if begin[4:8] == b"ftyp" and begin[8:12] in (
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"mif1",
        b"msf1",
    ):
        return BadData(
            f"{name} is HEIC",
            "Pillow does not read it",
            "Convert it to JPEG, as by heif-convert or an iPhone's export.",
        )
    if begin.startswith(POINTER):
        return BadData(fact, *FETCH)
    if type(error).__name__ == "UnidentifiedImageError":
        return BadData(fact, f"it is no image: it begins with {begin[:12]!r}", remedy)
    lines = str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__]
    return BadData(fact, lines[0].rstrip(".") or type(error).__name__, remedy)


def _beginning(file: Any) -> bytes:
    try:
        if hasattr(file, "read"):
            file.seek(0)
            return bytes(file.read(32))
        with Path(file).open("rb") as opened:
            return opened.read(32)
    except (OSError, ValueError):
        return b"?"


def _header(image: Any, name: str) -> Header:
    """Asked before the pixels are read: then Pillow has turned a TIFF."""
    if image.format not in FORMATS:
        raise BadData(f"{name} is {image.format}", "such images are not read", "Convert it to PNG or JPEG.")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        what = "pages" if image.format == "TIFF" else "frames"
        raise BadData(
            f"{name} has {image.n_frames} {what}", "a row has one image", "Take them apart, keep one, or leave it out."
        )
    deep = _deep(image, name)
    if not deep and image.mode not in GREY | COLOUR:
        raise BadData(f"{name} is of Pillow's mode {image.mode}", "such images are not read", "Convert it to PNG.")
    orientation = _orientation_before(image)
    width, height = _size(image)
    if orientation in SIDEWAYS:
        width, height = height, width
    alpha = image.mode in ALPHA or "transparency" in image.info
    profile = image.info.get("icc_profile") or b"sRGB"
    odd = b"sRGB" not in profile and "sRGB".encode("utf-16-be") not in profile
    return Header(height, width, image.mode, deep, alpha, orientation, odd, image.format == "MPO")


def _deep(image: Any, name: str) -> int | str:
    """How a grey of more than 8 bits is scaled: by so many bits, or as I or F."""
    mode = image.mode
    if not (mode in ("I", "F") or mode.startswith("I;")):
        return 0
    tags = getattr(image, "tag_v2", {})
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise BadData(f"{name} is a negative", "0 is white in it, in more than 8 bits", "Save it with 0 as black.")
    if mode.startswith("I;"):
        return 4 if tags.get(BITS, (16,))[0] == 12 else 8
    if mode == "I" and image.format != "TIFF":
        return 8  # Pillow's mode for 16 bits of PNG and PGM
    if tags.get(BITS, (32,))[0] == 16 and tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED:
        raise BadData(
            f"{name} holds numbers of 16 bits with a sign", "they say of no value that it is white", SAVE_AGAIN
        )
    return str(mode)


def _size(image: Any) -> tuple[int, int]:
    """Width and height as stored; Pillow gives those of the upright image for TIFF, by its version."""
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF" and WIDTH in tags and HEIGHT in tags:
        return int(tags[WIDTH]), int(tags[HEIGHT])
    return int(image.size[0]), int(image.size[1])


def _orientation_before(image: Any) -> int:
    """As `_orientation`, without reading pixels where it can be."""
    if image.format == "TIFF":
        found = image.tag_v2.get(ORIENTATION, 1)
        return found if found in range(1, 9) else 1
    if image.format == "PNG" and "exif" not in image.info and not _says_more(image.fp):
        return 1  # Pillow reads a PNG to its end to ask for EXIF
    return _orientation(image)


def _orientation(image: Any) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a broken EXIF block leads to: the image itself may be sound
        return 0
    return found if found in range(1, 9) else 1


def _says_more(file: Any) -> bool:
    """Whether a PNG has a chunk that may hold an orientation, anywhere."""
    here = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return True
            read = 0
            if head[4:] in (b"iTXt", b"tEXt", b"zTXt"):
                begin = file.read(min(length, 24))
                read = len(begin)
                if begin.startswith((b"XML:com.adobe.xmp", b"Raw profile type")):
                    return True
            file.seek(length - read + 4, 1)
        return False
    finally:
        file.seek(here)


def _upright(image: Any) -> Any:
    """As it is meant to be seen; once loaded, a TIFF of Pillow's is that already."""
    turns = _pillow().Transpose
    method = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _eight_bits(image: Any, deep: int | str, name: str, look: Look) -> Any:
    """A grey image of more bits scaled to 8."""
    if isinstance(deep, int):
        values = np.asarray(image).astype(np.int64)  # also of a PGM, which Pillow gives as 32 bits
        return _pillow().fromarray((values >> deep).clip(0, 255).astype(np.uint8))
    values, white = _values(image, name), look.white.get(deep)
    if white is None:
        raise BadData(f"{name} holds {WORDS[deep]}", f"{look.first} and those looked at first do not", SAVE_AGAIN)
    most = values.max(initial=0)
    if most > white:
        raise _beyond(deep, float(most), name, f"no other image that was looked at first passes {white:,}")
    if deep == "I":
        scaled = values if white == 255 else values >> 8
    else:
        scaled = values if white == 255 else np.rint(values * 255)
    return _pillow().fromarray(scaled.astype(np.uint8))


def _values(image: Any, name: str) -> np.ndarray[Any, Any]:
    """The numbers of an image of 32-bit integers or floats."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise BadData(f"{name} holds NaN or infinity", "these are no greys", "Mend or remove it.")
    if values.min(initial=0) < 0:
        raise BadData(f"{name} holds numbers below zero, as {values.min():g}", "these are no greys", SAVE_AGAIN)
    return values


def _beyond(deep: str, most: float, name: str, reason: str) -> BadData:
    return BadData(f"{name} holds {WORDS[deep]} up to {most:g}", reason, SAVE_AGAIN)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise BadInput(
            "images cannot be read", "Pillow is not installed", "Run pip install 'headway[images]'."
        ) from None
    return Image
