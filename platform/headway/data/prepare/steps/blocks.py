"""Documents laid end to end and cut into blocks of one length, with the document that each token is of.

As in `headway.data.prepare.sources.text`, a block holds `length` + 1 tokens and shares its first with the last of the
block before: tokens [0, length) are the input, [1, length + 1) the target. Text becomes its UTF-8 bytes, each document
ended by a zero byte (END), and one END stands before the first. Tokens (lists of integers) are laid as they are.
`segments` numbers the documents of a block from 1, so that attention can keep them apart; 0 is filling, after the last
document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.data.prepare.sources.text import END
from headway.data.tensors import column as tensors
from headway.data.write.sizing import GROUP_ROWS
from headway.errors import BadData, BadInput

Tokens = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pack:
    """What is packed.

    Args:
        length: of the input, in tokens.
        column: that holds the documents; the only one of text or lists of integers when None.
    """

    length: int
    column: str | None = None

    def named(self, schema: pa.Schema) -> str:
        """The column that holds the documents.

        Raises:
            BadInput: there is none, or more than one, or it holds neither text nor tokens.
        """
        fit = [c.name for c in schema if _is_documents(c.type)]
        if self.column is not None and self.column not in fit:
            fact = f"--pack {self.length}:{self.column}"
            raise BadInput(
                fact, "it is no column of text or of lists of integers", f"Columns: {', '.join(schema.names)}."
            )
        if self.column is None and len(fit) != 1:
            reason = f"{len(fit)} columns hold text or lists of integers: {', '.join(fit) or 'none'}"
            raise BadInput(f"--pack {self.length}", reason, f"Say which: --pack {self.length}:COLUMN.")
        return self.column or fit[0]


class Packer:
    """Packs documents as they come. The last block is filled up, so what is packed by one packer stands by itself."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._tokens: list[Tokens] = []
        self._owners: list[Tokens] = []
        self._documents = self._size = 0

    def add(self, table: pa.Table) -> Iterator[pa.Table]:
        """Lay documents at the end; the blocks that are full now."""
        column = table[self._pack.named(table.schema)]
        column = column.filter(column.is_valid()).combine_chunks()
        is_text = not hasattr(column.type, "value_type")
        tokens, lengths = _bytes_of(column) if is_text else _tokens_of(column)
        owners = np.repeat(np.arange(self._documents, self._documents + len(lengths)), lengths)
        if is_text and not self._documents and len(lengths):
            tokens, owners = np.insert(tokens, 0, END), np.insert(owners, 0, 0)
        self._documents += len(lengths)
        self._tokens.append(tokens)
        self._owners.append(owners)
        self._size += len(tokens)
        full = max(0, self._size - 1) // self._pack.length
        if full:
            yield from self._cut(full)

    def rest(self) -> Iterator[pa.Table]:
        """The last block, filled up, if any token is in it that was not the end of another."""
        if self._size > 1:
            missing = self._pack.length + 1 - self._size
            dtype = self._tokens[0].dtype
            self._tokens.append(np.zeros(missing, dtype))
            self._owners.append(np.full(missing, -1))
            yield from self._cut(1)

    def _cut(self, blocks: int) -> Iterator[pa.Table]:
        length = self._pack.length
        tokens, owners = np.concatenate(self._tokens), np.concatenate(self._owners)
        used = blocks * length
        self._tokens, self._owners, self._size = [tokens[used:]], [owners[used:]], len(tokens) - used
        for first in range(0, blocks, GROUP_ROWS):
            window = slice(first * length, min(blocks, first + GROUP_ROWS) * length + 1)
            rows = np.lib.stride_tricks.sliding_window_view(tokens[window], length + 1)[::length]
            of = np.lib.stride_tricks.sliding_window_view(owners[window], length + 1)[::length]
            segments = np.where(of < 0, 0, of - of[:, :1] + 1).astype(np.int32)
            yield pa.table({"tokens": tensors(rows), "segments": tensors(segments)})


def _is_documents(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or (is_list and pa.types.is_integer(kind.value_type)))


def _bytes_of(column: pa.Array) -> tuple[Tokens, Tokens]:
    """The bytes of documents, each with END behind it, and how many they are with it."""
    lengths = pc.binary_length(column).to_numpy().astype(np.int64)
    flat = np.frombuffer(b"".join(text.as_buffer() for text in column), np.uint8)
    if (flat == END).any():
        raise BadData("a document holds a zero byte", "that is what ends a document", "Filter it out, or clean it.")
    return np.insert(flat, np.cumsum(lengths), END), lengths + 1


def _tokens_of(column: pa.Array) -> tuple[Tokens, Tokens]:
    flat = column.flatten()
    if flat.null_count:
        raise BadData("a document holds a null token", "a token is an integer", "Filter it out, or clean it.")
    return flat.to_numpy(), pc.list_value_length(column).to_numpy().astype(np.int64)
