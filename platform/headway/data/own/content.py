"""What a dataset is, in a digest: so that a run is gone on with on the same rows, and no worker reads others."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Any

import numpy as np
import xxhash

LOOKED_AT = 64
"""Rows that stand for a dataset which tells no digest of its own."""


def chosen(rows: int) -> list[int]:
    """Numbers of the rows that are looked at: the first, the last, and evenly between."""
    count = min(rows, LOOKED_AT)
    return [] if not count else sorted({round(at * (rows - 1) / max(count - 1, 1)) for at in range(count)})


def told_by(dataset: Any) -> str | None:
    """The dataset's own `digest`, a text or a method that gives one; None where it has none."""
    found = getattr(dataset, "digest", None)
    found = found() if callable(found) else found
    return found if isinstance(found, str) else None


class Content:
    """Takes in values, and gives their SHA-256: the same for equal values in every process."""

    def __init__(self, *first: Any) -> None:
        self._hash = sha256()
        for value in first:
            self.add(value)

    def add(self, value: Any) -> None:
        """Take in a row, or a part of one. Of what is of no known kind, its type counts alone."""
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            self._array("tensor", value.dtype, value.shape, _bytes_of(torch, value))
        elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            array = np.asarray(value)
            self._array("array", array.dtype, array.shape, np.ascontiguousarray(array).view(np.uint8))
        elif isinstance(value, str | bytes | int | float | complex | bool | None):
            self._hash.update(f"{type(value).__name__}:{value!r}\0".encode(errors="surrogatepass"))
        elif isinstance(value, dict):
            self._hash.update(f"dict:{len(value)}\0".encode())
            for name, part in value.items():
                self.add(name)
                self.add(part)
        elif isinstance(value, list | tuple | np.ndarray):
            self._hash.update(f"list:{len(value)}\0".encode())
            for part in value:
                self.add(part)
        elif hasattr(value, "tobytes") and hasattr(value, "size") and hasattr(value, "mode"):  # an image of Pillow's
            self._array("image", value.mode, value.size, value.tobytes())
        else:
            self._hash.update(f"{type(value).__module__}.{type(value).__qualname__}\0".encode())

    def hexdigest(self) -> str:
        """In hex."""
        return self._hash.hexdigest()

    def _array(self, kind: str, dtype: Any, shape: Any, content: Any) -> None:
        self._hash.update(f"{kind}:{dtype}:{tuple(shape)}\0".encode())
        self._hash.update(xxhash.xxh3_128_digest(content))  # whole tables are taken in: a tenth of SHA's time


def _bytes_of(torch: Any, tensor: Any) -> Any:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""
