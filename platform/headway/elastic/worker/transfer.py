"""A session's whole state from the worker that is ahead to those that are behind, in buckets, over the group.

Only they take part, as a chain: each receiver hands a bucket on while the next one comes, so several cost little more
than one. Where there are more of them than buckets, each hands on to two instead: hundreds have a small state after a
few times what one takes. Buckets are cut from the tensors' own memory, and arrive in it, where it is in one piece and
on the group's device; others pass through a few buckets of room. Nobody needs more than 2 x WINDOW buckets beside the
state.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from headway.elastic.worker import hollow
from headway.elastic.worker.hollow import copied as copied
from headway.strategies import PeerLost, plain
from headway.strategies.group import Group, Work

BUCKET_BYTES = 4 * 2**20
WINDOW = 4
"""Buckets that are sent at a time, and received ahead."""
EXTRA_BYTES = 64 * 2**20
"""Most memory that a transfer takes on anybody beside the state; one up to this size may as well be held twice."""

Piece = tuple[int, int, int]
"""A tensor's number, and its bytes from first to last, in the order of its memory."""


@dataclass(frozen=True)
class Spec:
    """Of a tensor: `order` are its dimensions as they lie in memory; `host`: it belongs into host memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]
    host: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def send(group: Group, tree: Any, receivers: Sequence[int]) -> None:
    """Give a tree of tensors and plain values to those of these ranks, which call `receive`; others do nothing.

    Args:
        group: of all workers.
        tree: of dicts, lists and tuples; tensors are read in place.
        receivers: in the order of the chain; the same for all that take part.

    Raises:
        PeerLost: somebody went away.
        BadInput: something in the tree cannot travel, see `plain.pack`.
    """
    if not receivers:
        return
    values, tensors = hollow.pack(tree)
    specs, flats = [], []
    for tensor in tensors:
        order = _order(tensor)
        whole = tensor if order is not None else tensor.contiguous()
        spec = Spec(tensor.dtype, tuple(tensor.shape), order or tuple(range(tensor.dim())), tensor.device.type == "cpu")
        specs.append(spec)
        flats.append(_flat(whole, spec))
    head = plain.pack([values, [[s.dtype, s.shape, s.order, s.host] for s in specs]])
    chain = [group.rank, *receivers]
    for after in _route(chain, 0, 1)[1]:
        _send_bytes(group, head, after)
    chunks = _chunks(specs)
    room, under_way, to = _Room(group.device), _Sent(), _route(chain, 0, len(chunks))[1]
    for chunk in chunks:
        if len(under_way) == WINDOW:
            _end(under_way, room)
        bucket = room.of(chunk, flats)
        room.pack(bucket, chunk, flats)
        under_way.append(([group.start_send(bucket, after) for after in to], bucket))
    while under_way:
        _end(under_way, room)
    group.confirm()


def receive(group: Group, source: int, receivers: Sequence[int], into: Any = None) -> Any:
    """The tree that the member of rank `source` sends.

    Args:
        group: of all workers.
        source: who sends.
        receivers: in the order of the chain, this worker among them.
        into: this worker's own tree: its tensors that have the sent one's place, shape, dtype and order in memory are
            filled; others are made, in host memory if they are there at the source, else on the group's device.

    Raises:
        PeerLost: somebody went away; the tensors of `into` may hold anything.
    """
    chain = [source, *receivers]
    place = chain.index(group.rank)
    before, to = _route(chain, place, 1)
    head = _receive_bytes(group, before)
    for after in to:
        _send_bytes(group, head, after)
    tree, specs = _read(head)
    own = dict(hollow.beside(tree, into))
    tensors = [_target(own.get(number), spec, group.device) for number, spec in enumerate(specs)]
    flats = [_flat(tensor.detach(), spec) for tensor, spec in zip(tensors, specs, strict=True)]
    room, every = _Room(group.device), _chunks(specs)
    before, to = _route(chain, place, len(every))
    chunks = iter(every)
    coming = deque[tuple[Work, torch.Tensor, list[Piece]]]()
    leaving = _Sent()

    def ahead() -> None:
        for chunk in itertools.islice(chunks, WINDOW - len(coming)):
            bucket = room.of(chunk, flats)
            coming.append((group.start_receive(bucket, before), bucket, chunk))

    ahead()
    while coming:
        work, bucket, chunk = coming.popleft()
        work.wait()
        if len(leaving) == WINDOW:
            _end(leaving, room)
        if to:
            leaving.append(([group.start_send(bucket, after) for after in to], bucket))
        room.unpack(bucket, chunk, flats)
        if not to:
            room.give_back(bucket)
        ahead()
    while leaving:
        _end(leaving, room)
    group.confirm()
    return hollow.filled(tree, tensors)


class _Room:
    """Buckets of memory on the group's device, for what cannot be sent from where it is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: list[torch.Tensor] = []
        self._taken: dict[int, torch.Tensor] = {}

    def of(self, chunk: list[Piece], flats: list[torch.Tensor]) -> torch.Tensor:
        """Memory for a chunk: the tensor's own, or some of ours."""
        if self._direct(chunk, flats):
            ((number, first, last),) = chunk
            return flats[number][first:last]
        whole = self._free.pop() if self._free else torch.empty(BUCKET_BYTES, dtype=torch.uint8, device=self._device)
        bucket = whole[: sum(last - first for _, first, last in chunk)]
        self._taken[id(bucket)] = whole
        return bucket

    def give_back(self, bucket: torch.Tensor) -> None:
        whole = self._taken.pop(id(bucket), None)
        if whole is not None:
            self._free.append(whole)

    def pack(self, bucket: torch.Tensor, chunk: list[Piece], flats: list[torch.Tensor]) -> None:
        for (number, first, last), part in self._parts(bucket, chunk):
            part.copy_(flats[number][first:last])

    def unpack(self, bucket: torch.Tensor, chunk: list[Piece], flats: list[torch.Tensor]) -> None:
        for (number, first, last), part in self._parts(bucket, chunk):
            flats[number][first:last].copy_(part)

    def _parts(self, bucket: torch.Tensor, chunk: list[Piece]) -> list[tuple[Piece, torch.Tensor]]:
        if id(bucket) not in self._taken:
            return []
        return list(zip(chunk, bucket.split([last - first for _, first, last in chunk]), strict=True))

    def _direct(self, chunk: list[Piece], flats: list[torch.Tensor]) -> bool:
        return len(chunk) == 1 and flats[chunk[0][0]].device == self._device


_Sent = deque[tuple[list[Work], torch.Tensor]]
"""Buckets, each with its ways to all that it goes to."""


def _end(under_way: _Sent, room: _Room) -> None:
    works, bucket = under_way.popleft()
    for work in works:
        work.wait()
    room.give_back(bucket)


def fan_out(receivers: int, chunks: int) -> int:
    """To how many each hands on, so that all have it soonest: in a chain the last bucket arrives after as many times as
    there are buckets and receivers; where each sends to two, after twice as many as buckets and ranks of a tree."""
    return 1 if receivers <= chunks + 2 * math.log2(receivers + 1) else 2


def _route(chain: Sequence[int], place: int, chunks: int) -> tuple[int, list[int]]:
    """Rank of whom so many chunks come from, and of those that they are handed on to.

    Args:
        chain: ranks, the source's first; place: in it, of this worker.
    """
    many = fan_out(len(chain) - 1, chunks)
    return chain[max(0, place - 1) // many], list(chain[many * place + 1 : many * place + many + 1])


def _send_bytes(group: Group, data: bytes, to: int) -> None:
    group.send(torch.tensor([len(data)]), to)
    group.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), to)


def _receive_bytes(group: Group, source: int) -> bytes:
    size = torch.zeros(1, dtype=torch.int64)
    group.receive(size, source)
    if not 0 < int(size) <= plain.MOST_BYTES:
        raise PeerLost(f"the worker of rank {source} announced a value of {int(size)} bytes")
    data = torch.empty(int(size), dtype=torch.uint8)
    group.receive(data, source)
    return data.numpy().tobytes()


def _read(head: bytes) -> tuple[Any, list[Spec]]:
    try:
        values, found = plain.unpack(head)
        specs = [Spec(dtype, shape, order, host) for dtype, shape, order, host in found]
        return hollow.unpack(values), specs
    except (ValueError, TypeError) as error:
        raise PeerLost(f"what a peer sent is no state: {error}") from error


def _chunks(specs: Sequence[Spec]) -> list[list[Piece]]:
    """All bytes in messages: large tensors alone, in parts; small ones together."""
    found: list[list[Piece]] = []
    room = 0
    for number, spec in enumerate(specs):
        if spec.bytes > BUCKET_BYTES // 8:
            cuts = range(0, spec.bytes, BUCKET_BYTES)
            found += [[(number, first, min(first + BUCKET_BYTES, spec.bytes))] for first in cuts]
            room = 0
        elif spec.bytes:
            if spec.bytes > room:
                found.append([])
                room = BUCKET_BYTES
            found[-1].append((number, 0, spec.bytes))
            room -= spec.bytes
    return found


def _order(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The dimensions as they lie in memory; None: it has gaps, or lies over itself."""
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda d: (-strides[d], d)))
    return order if tensor.permute(order).is_contiguous() else None


def _flat(tensor: torch.Tensor, spec: Spec) -> torch.Tensor:
    """All its bytes, shape [bytes]."""
    return tensor.permute(spec.order).reshape(-1).view(torch.uint8)


def _target(own: Any, spec: Spec, device: torch.device) -> torch.Tensor:
    if isinstance(own, torch.Tensor) and (own.dtype, own.layout, own.shape) == (spec.dtype, torch.strided, spec.shape):
        in_order = own.permute(spec.order).is_contiguous()
        if in_order:
            return own
    shape = [spec.shape[d] for d in spec.order]
    made = torch.empty(shape, dtype=spec.dtype, device="cpu" if spec.host else device)
    back = sorted(range(len(spec.order)), key=spec.order.__getitem__)
    return made.permute(back)
