"""Arrays of pixels as PNG files, which need no library of pictures: rows of bytes, compressed."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Of PIL's images that it writes as PNG without loss."""
CHANNELS = {1: 0, 3: 2, 4: 6}
"""PNG's word for so many values a pixel: grey, colours, colours and alpha."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def pixels(image: Any) -> Pixels | None:
    """An image as bytes of shape [height, width, channels]; None where it is no array of pixels.

    Args:
        image: NumPy's or torch's, of shape [height, width], [height, width, channels] or [channels, height, width],
            with 1, 3 or 4 channels; what could be both is channels first in torch's, last in NumPy's. Whole numbers
            are from 0 to 255, others from 0 to 1.

    Raises:
        ValueError: values that are none of pixels.
    """
    of_torch = callable(getattr(image, "detach", None))
    if of_torch:
        image = image.detach().cpu()
        image = (image if not image.is_floating_point() else image.float()).numpy()
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "buif" or not image.size:
        return None
    if image.ndim == 2:
        image = image[:, :, None]
    elif image.ndim == 3 and image.shape[0] in CHANNELS and (of_torch or image.shape[2] not in CHANNELS):
        image = image.transpose(1, 2, 0)
    return _bytes(image) if image.ndim == 3 and image.shape[2] in CHANNELS else None


def _bytes(image: np.ndarray[Any, Any]) -> Pixels:
    if image.dtype.kind == "b":
        return image.astype(np.uint8) * 255
    low, high = float(image.min()), float(image.max())
    top = 1.0 if image.dtype.kind == "f" else 255
    if not (low >= 0 and high <= top):
        raise ValueError(f"its values are from {low:g} to {high:g}, and pixels' from 0 to {top:g}")
    return np.round(image * 255.0).astype(np.uint8) if image.dtype.kind == "f" else image.astype(np.uint8)


def png(image: Pixels) -> bytes:
    """The file. image: shape [height, width, channels]."""
    height, width, channels = image.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = image.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, CHANNELS[channels], 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
