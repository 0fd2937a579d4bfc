"""Text as blocks of bytes, for language models that predict the next byte.

Files are laid end to end, each ended by a zero byte (END), and the line is cut into overlapping blocks of `length` + 1
bytes: bytes [0, length) of a block are the input, [1, length + 1) the target, and each byte of the line is a target
once. The last block is filled up with END. A vocabulary is the 256 bytes; END never occurs in text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

END = 0
LENGTH = 256


def blocks(files: Iterable[Path], length: int = LENGTH) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Blocks of the files' bytes in the order of the files; uint8, shape [blocks, length + 1].

    Raises:
        OSError: naming the file that cannot be read.
        ValueError: naming the file that holds a zero byte, and so is not text.
    """
    line = bytearray([END])  # what comes before the first file is the end of another
    for path in files:
        content = path.read_bytes()
        if bytes([END]) in content:
            raise ValueError(f"{path} is not text: it holds a zero byte")
        line += content
        line.append(END)
    count = -(-(len(line) - 1) // length)
    line.extend(bytes([END]) * (count * length + 1 - len(line)))
    flat = np.frombuffer(line, np.uint8)
    return (
        np.lib.stride_tricks.sliding_window_view(flat, length + 1)[::length]
        if count
        else flat[:0].reshape(0, length + 1)
    )
