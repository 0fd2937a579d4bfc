"""Folders of images: one subfolder per class; rows are `image` (uint8 [H, W] or [H, W, 3]) and `label` (int64)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.keys import key
from headway.core.order import permutation
from headway.data.prepare.sources.listing import Piece, Plan, unreadable
from headway.data.tensors import TensorType, column
from headway.data.write.sizing import GROUP_BYTES
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


def plan_images(src: Path, files: list[Path], size: tuple[int, int] | None, known: Sequence[str] = ()) -> Plan:
    """Chunks of files in a seeded random order: by name they would come sorted by class, and shuffle badly.

    The first image by name decides on grey or colour, and on the size unless it is given. Classes that are known keep
    their codes; new ones get the next.
    """
    _pillow()
    loose = next((path for path in files if path.parent == src or path == src), None)
    if loose is not None:
        reason = "it lies in no class subfolder"
        raise BadData(f"{loose} has no class", reason, "Lay images out as SRC/CLASS/NAME.png.")
    classes = [*known, *sorted({path.relative_to(src).parts[0] for path in files} - set(known))]
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
    return shape_of(path, str(path), size)


def shape_of(file: Any, name: str, size: tuple[int, int] | None) -> tuple[int, ...]:
    """The shape that an image gives to all: [H, W] if it is grey, [H, W, 3] if not.

    Args:
        file: path, or an open file.
        name: for errors.
        size: height and width if images are resized.

    Raises:
        BadData: it cannot be read.
    """
    try:
        with _pillow().open(file) as image:
            height, width = size or (image.height, image.width)
            return (height, width) if image.mode in GREY else (height, width, 3)
    except (OSError, ValueError, _pillow().DecompressionBombError) as error:
        raise unreadable(name, error) from None


def _pixels(path: str, piece: Piece) -> np.ndarray[Any, Any]:
    return pixels_of(path, path, tuple(piece["shape"]), piece["resized"], piece["first"])


def pixels_of(
    file: Any, name: str, shape: tuple[int, ...], resized: bool, first: str
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One image as uint8 of a shape.

    Args:
        file: path, or an open file.
        name: for errors.
        shape: that it must have.
        resized: it is brought to that height and width.
        first: the image that gave the shape, for errors.

    Raises:
        BadData: it cannot be read, is in colour among grey ones, or of another size.
    """
    try:
        with _pillow().open(file) as image:
            if len(shape) == 2 and image.mode not in GREY:
                raise BadData(f"{name} is in colour", f"{first} is grey", "Convert all to grey or all to colour.")
            if (image.height, image.width) != shape[:2] and not resized:
                reason = f"{first} is {shape[0]}x{shape[1]}"
                raise BadData(f"{name} is {image.height}x{image.width}", reason, "Resize all with --image-size HxW.")
            pixels = _eight_bits(image).convert("L" if len(shape) == 2 else "RGB")
            fitting = pixels if pixels.size == (shape[1], shape[0]) else pixels.resize((shape[1], shape[0]))
            return np.asarray(fitting, np.uint8)
    except (OSError, ValueError, SyntaxError, _pillow().DecompressionBombError) as error:
        raise unreadable(name, error) from None


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
