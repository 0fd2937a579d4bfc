"""A state as a row of bytes, and back: the tree without its tensors, and the tensors' memory, one after the other.

The row is cut into chunks of one size; where a chunk's bytes are follows from the spans' sizes alone. Nothing here
reads or writes, and no tensor is copied that lies in host memory in one piece. What is read is data, never code.

    skeleton   JSON of `headway.strategies.plain`: {"tensor": [span, dtype, shape, order in memory]} for each tensor
    spans      each the bytes of some memory, from a multiple of ALIGN on; tensors of the same memory share one (tied
               weights come back tied)
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headway.errors import BadInput
from headway.strategies import plain

CHUNK_BYTES = 16 << 20
ALIGN = 64


@dataclass(frozen=True)
class Piece:
    """Bytes [first, last) of a span, which lie in the chunk from `at` on."""

    span: int
    first: int
    last: int
    at: int


@dataclass(frozen=True)
class Chunk:
    """A cut of the row: its size, and what is in it, in order; zeros are between."""

    bytes: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """A tree taken apart.

    Args:
        skeleton: the tree without tensors.
        spans: bytes of the tensors, shape [bytes]; of the tensors' own memory where that is in one piece.
    """

    skeleton: bytes
    spans: list[torch.Tensor]

    def chunks(self, most: int = CHUNK_BYTES) -> list[Chunk]:
        return chunks([len(span) for span in self.spans], most)


def layout(tree: Any) -> Layout:
    """Take a tree apart.

    Args:
        tree: tensors of any device, what `plain.pack` takes, bytearrays, and OrderedDicts and Counters as such.

    Raises:
        BadInput: something in it could not be loaded again.
    """
    spans: list[torch.Tensor] = []
    known: dict[tuple[torch.device, int, int], int] = {}

    def taken(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return {"tensor": _placed(value.detach(), spans, known)}
        if isinstance(value, OrderedDict):  # a module's state dict carries versions beside it
            beside = getattr(value, "_metadata", None)
            return {"ordered": [plain.encoded(dict(value), taken), plain.encoded(beside, taken)]}
        if isinstance(value, Counter):
            return {"counter": plain.encoded(dict(value), taken)}
        if type(value) is bytearray:
            return {"bytearray": base64.b64encode(value).decode("ascii")}
        for kind in (int, float, str):
            if isinstance(value, kind) and type(value) not in (bool, kind):  # a number with a name, say
                return plain.encoded(kind(value), None)
        return None

    return Layout(plain.pack(tree, taken), spans)


def rooms(skeleton: bytes) -> tuple[Any, list[torch.Tensor]]:
    """The tree with tensors in host memory that hold anything yet, and their bytes by span, for `fill`.

    Raises:
        ValueError: it is no skeleton.
    """
    spans: dict[int, torch.Tensor] = {}

    def given(kind: str, content: Any) -> Any:
        if kind == "tensor":
            return _made(content, spans)
        if kind == "ordered":
            found = OrderedDict(plain.decoded(content[0], given))
            if content[1] is not None:
                found._metadata = plain.decoded(content[1], given)  # type: ignore[attr-defined]
            return found
        if kind == "counter":
            return Counter(plain.decoded(content, given))
        if kind == "bytearray":
            return bytearray(base64.b64decode(content, validate=True))
        raise ValueError(f"unknown kind of value: {kind[:40]!r}")

    try:
        tree = plain.unpack(skeleton, given)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    if sorted(spans) != list(range(len(spans))):
        raise ValueError("its spans are not numbered in a row")
    return tree, [spans[number] for number in range(len(spans))]


def chunks(sizes: Sequence[int], most: int = CHUNK_BYTES) -> list[Chunk]:
    """Cut the row of spans of these sizes; all chunks but the last have `most` bytes."""
    pieces: list[list[Piece]] = []
    end = 0
    for span, size in enumerate(sizes):
        begin = -(-end // ALIGN) * ALIGN
        first = 0
        while first < size:
            number, at = divmod(begin + first, most)
            last = min(size, first + most - at)
            pieces += [[] for _ in range(number + 1 - len(pieces))]
            pieces[number].append(Piece(span, first, last, at))
            first = last
        end = begin + size if size else end
    return [Chunk(min(most, end - number * most), tuple(found)) for number, found in enumerate(pieces)]


def content(chunk: Chunk, spans: Sequence[torch.Tensor]) -> bytes | memoryview:
    """A chunk's bytes, of spans in host memory: the tensor's own memory where one fills it, else a copy."""
    if len(chunk.pieces) == 1 and chunk.pieces[0].last - chunk.pieces[0].first == chunk.bytes:
        return _bytes(spans, chunk.pieces[0])
    parts: list[bytes | memoryview] = []
    end = 0
    for piece in chunk.pieces:
        parts += [bytes(piece.at - end), _bytes(spans, piece)]
        end = piece.at + piece.last - piece.first
    parts.append(bytes(chunk.bytes - end))
    return b"".join(parts)


def copy(chunk: Chunk, spans: Sequence[torch.Tensor], room: torch.Tensor) -> None:
    """Copy a chunk's bytes, of spans on any device, into host memory of its size."""
    end = 0
    for piece in chunk.pieces:
        room[end : piece.at].zero_()
        end = piece.at + piece.last - piece.first
        room[piece.at : end].copy_(spans[piece.span][piece.first : piece.last])
    room[end:].zero_()


def fill(chunk: Chunk, spans: Sequence[torch.Tensor], data: Any, begin: int = 0) -> None:
    """Put a part of a chunk's bytes, from `begin` of the chunk on, where they belong: spans in host memory."""
    given = np.frombuffer(data, dtype=np.uint8)
    for piece in chunk.pieces:
        first = max(piece.at, begin)
        last = min(piece.at + piece.last - piece.first, begin + len(given))
        if first < last:
            shift = piece.first - piece.at
            spans[piece.span].numpy()[first + shift : last + shift] = given[first - begin : last - begin]


def digest(chunk: Chunk, spans: Sequence[torch.Tensor], kind: Callable[[], Any] = hashlib.sha256) -> str:
    """Of a chunk whose spans are in host memory, in hexadecimal figures."""
    found, end = kind(), 0
    for piece in chunk.pieces:
        found.update(bytes(piece.at - end))
        found.update(_bytes(spans, piece))
        end = piece.at + piece.last - piece.first
    found.update(bytes(chunk.bytes - end))
    return str(found.hexdigest())


def held(tree: Any, spans: Sequence[torch.Tensor]) -> set[int]:
    """Numbers of the spans in whose memory the tree's tensors are, as `rooms` gave both."""
    at = {span.untyped_storage().data_ptr(): number for number, span in enumerate(spans) if len(span)}
    found: set[int] = set()

    def look(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if value.numel():
                found.add(at[value.untyped_storage().data_ptr()])
        elif isinstance(value, dict):
            for each in value.values():
                look(each)
        elif isinstance(value, list | tuple):
            for each in value:
                look(each)

    look(tree)
    return found


def _bytes(spans: Sequence[torch.Tensor], piece: Piece) -> memoryview:
    return spans[piece.span][piece.first : piece.last].numpy().data


def _placed(
    tensor: torch.Tensor, spans: list[torch.Tensor], known: dict[tuple[torch.device, int, int], int]
) -> list[Any]:
    """A tensor's place; its bytes are added to the spans, unless they are there."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        kind = "quantised" if tensor.is_quantized else "meta" if tensor.is_meta else str(tensor.layout)
        raise BadInput(
            f"a tensor cannot be kept: it is {kind}",
            "a checkpoint takes dense tensors",
            "Let state_dict() give dense tensors.",
        )
    tensor = tensor.resolve_conj().resolve_neg()
    order = _order(tensor)
    if order is None:
        tensor, order = tensor.contiguous(), tuple(range(tensor.dim()))
    flat = tensor.permute(order).reshape(-1).view(torch.uint8)
    key = (tensor.device, tensor.data_ptr(), len(flat))
    number = known.get(key, len(spans))
    if number == len(spans):
        spans.append(flat)
        if len(flat) and tensor.data_ptr():  # what has no address is its own
            known[key] = number
    return [number, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), list(order)]


def _made(content: Any, spans: dict[int, torch.Tensor]) -> torch.Tensor:
    number, name, shape, order = content
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    whole = all(type(each) is int and each >= 0 for each in (number, *shape))
    if not isinstance(dtype, torch.dtype) or not whole or sorted(order) != list(range(len(shape))):
        raise ValueError(f"no tensor: {str(content)[:80]}")
    size = math.prod(shape) * dtype.itemsize
    flat = spans.setdefault(number, torch.empty(0, dtype=torch.uint8))
    if len(flat) != size:
        if len(flat):
            raise ValueError(f"span {number} has two sizes")
        flat = spans[number] = torch.empty(size, dtype=torch.uint8)
    made = flat.view(dtype).view([shape[d] for d in order])
    return made.permute(sorted(range(len(order)), key=order.__getitem__))


def _order(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The dimensions as they lie in memory; None: it has gaps, or lies over itself."""
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda d: (-strides[d], d)))
    return order if tensor.permute(order).is_contiguous() else None
