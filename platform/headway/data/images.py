"""Folders of images: one subfolder per class; rows are `image` (uint8 [H, W] or [H, W, 3]) and `label` (int64)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.keys import key
from headway.core.order import permutation
from headway.data.sizing import GROUP_BYTES
from headway.data.sources import Piece, Plan, unreadable
from headway.data.tensors import TensorType, column
from headway.errors import BadData, BadInput

GREY = ("1", "L", "LA", "I", "I;16", "F")
MAX_FILES = 512


def size_of(text: str) -> tuple[int, int]:
    """(height, width) from text like 32x48.

    Raises:
        BadInput: it is not like that.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise BadInput(f"--image-size {text}", "not a height and a width", "Write it like --image-size 32x48.")
    return int(height), int(width)


def plan_images(src: Path, files: list[Path], size: tuple[int, int] | None) -> Plan:
    """Chunks of files in a seeded random order: by name they would come sorted by class, and shuffle badly.

    The first image by name decides on grey or colour, and on the size unless it is given.
    """
    _pillow()
    loose = next((path for path in files if path.parent == src or path == src), None)
    if loose is not None:
        reason = "it lies in no class subfolder"
        raise BadData(f"{loose} has no class", reason, "Lay images out as SRC/CLASS/NAME.png.")
    classes = sorted({path.relative_to(src).parts[0] for path in files})
    shape = _shape(files[0], size)
    count = max(1, min(MAX_FILES, GROUP_BYTES // int(np.prod(shape))))
    mixed = [files[at] for at in permutation(len(files), key("images", len(files)))]
    rows = [(str(path), classes.index(path.relative_to(src).parts[0])) for path in mixed]
    resized = size is not None
    pieces = [
        {"rows": rows[at : at + count], "shape": shape, "resized": resized, "first": str(files[0])}
        for at in range(0, len(rows), count)
    ]
    schema = pa.schema([("image", TensorType("uint8", shape)), ("label", pa.int64())])
    return Plan(schema, pieces, read_images, "label", {"label": classes})


def read_images(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The pixels and classes of some files; one table."""
    images = np.stack([_pixels(path, piece) for path, _ in piece["rows"]])
    labels = pa.array([label for _, label in piece["rows"]], pa.int64())
    yield pa.table({"image": column(images).storage, "label": labels})


def _shape(path: Path, size: tuple[int, int] | None) -> tuple[int, ...]:
    try:
        with _pillow().open(path) as image:
            height, width = size or (image.height, image.width)
            return (height, width) if image.mode in GREY else (height, width, 3)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def _pixels(path: str, piece: Piece) -> np.ndarray[Any, Any]:
    """One image as uint8, of the piece's shape."""
    shape = tuple(piece["shape"])
    try:
        with _pillow().open(path) as image:
            if len(shape) == 2 and image.mode not in GREY:
                remedy = "Convert all to grey or all to colour."
                raise BadData(f"{path} is in colour", f"{piece['first']} is grey", remedy)
            if (image.height, image.width) != shape[:2] and not piece["resized"]:
                reason = f"{piece['first']} is {shape[0]}x{shape[1]}"
                raise BadData(f"{path} is {image.height}x{image.width}", reason, "Resize all with --image-size HxW.")
            pixels = _eight_bits(image).convert("L" if len(shape) == 2 else "RGB")
            resized = pixels if pixels.size == (shape[1], shape[0]) else pixels.resize((shape[1], shape[0]))
            return np.asarray(resized, np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from None


def _eight_bits(image: Any) -> Any:
    """A 16-bit grey image scaled to 8 bits: Pillow's own conversion clips instead."""
    if image.mode not in ("I", "I;16"):
        return image
    return _pillow().fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise BadInput(
            "images cannot be read", "Pillow is not installed", "Run pip install 'headway[images]'."
        ) from None
    return Image
