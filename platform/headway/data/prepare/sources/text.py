"""Text as blocks of bytes, for language models that predict the next byte.

Files are laid end to end, each ended by a zero byte (END), and the line is cut into overlapping blocks of `length` + 1
bytes: bytes [0, length) of a block are the input, [1, length + 1) the target, and each byte of the line is a target
once. The last block is filled up with END. A vocabulary is the 256 bytes; END never occurs in text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headway.data.prepare.sources.listing import Piece, Plan, unreadable
from headway.data.tensors import TensorType, column
from headway.data.write.sizing import GROUP_ROWS
from headway.errors import BadData

END = 0
LENGTH = 256
PACK_BYTES = 8 << 20


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


def plan_text(files: list[Path], length: int = LENGTH) -> Plan:
    """Packs of whole files, a few MiB each, in the order of paths; `tokens` uint8 [length + 1].

    A pack ends in at most `length` filling bytes, and packs depend on the files' sizes alone.
    """
    pieces = [{"paths": paths, "length": length} for paths in _packs(files)]
    return Plan(pa.schema([("tokens", TensorType("uint8", (length + 1,)))]), pieces, read_text)


def read_text(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The blocks of a pack of files."""
    try:
        rows = blocks([Path(path) for path in piece["paths"]], piece["length"])
    except OSError as error:
        raise unreadable(error.filename or piece["paths"][0], error) from None
    except ValueError as error:
        raise BadData(str(error), "", "Remove it, or give only text files.") from None
    for at in range(0, len(rows), GROUP_ROWS):
        yield pa.table({"tokens": column(rows[at : at + GROUP_ROWS]).storage})


def plan_documents(files: list[Path]) -> Plan:
    """The same packs, as a row per file: `path` and `text`."""
    pieces = [{"paths": paths} for paths in _packs(files)]
    return Plan(pa.schema([("path", pa.string()), ("text", pa.string())]), pieces, read_documents)


def read_documents(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The files of a pack, whole."""
    texts = []
    for path in piece["paths"]:
        try:
            texts.append(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from None
    yield pa.table({"path": piece["paths"], "text": texts}, schema=schema)


def _packs(files: list[Path]) -> list[list[str]]:
    packs: list[list[str]] = [[]]
    size = 0
    for path in files:
        try:
            weight = path.stat().st_size
        except OSError as error:
            raise unreadable(path, error) from None
        if packs[-1] and size + weight > PACK_BYTES:
            packs.append([])
            size = 0
        packs[-1].append(str(path))
        size += weight
    return packs
