"""A state as a row of bytes, and back."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, OrderedDict
from enum import IntEnum
from typing import Any

import pytest
import torch
from torch import nn

from headway.checkpoint import flat
from headway.errors import BadInput


def there_and_back(tree: Any, most: int = 1000, block: int = 333) -> Any:
    """Through chunks of at most so many bytes, given back in blocks."""
    found = flat.layout(tree)
    back, spans = flat.rooms(found.skeleton)
    for span in spans:
        span.fill_(0xAA)
    cut = found.chunks(most)
    assert cut == flat.chunks([len(span) for span in spans], most)
    blocks = []
    for chunk in cut:
        data = flat.content(chunk, found.spans)
        assert len(data) == chunk.bytes <= most
        room = torch.full((chunk.bytes,), 0xAA, dtype=torch.uint8)
        flat.copy(chunk, found.spans, room)
        assert room.numpy().tobytes() == data
        blocks += [(chunk, data[first : first + block], first) for first in range(0, chunk.bytes, block)]
    random.Random(1).shuffle(blocks)
    for chunk, data, first in blocks:
        flat.fill(chunk, spans, bytes(data), first)
    for chunk in cut:
        digest = hashlib.sha256(flat.content(chunk, found.spans)).hexdigest()
        assert flat.digest(chunk, spans) == flat.digest(chunk, found.spans) == digest
    return back


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


KINDS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool, torch.complex64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7,), (5, 3, 2), (1001,)], ids=str)
def test_every_dtype_and_shape_comes_back_to_the_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8)
    value = raw.view(dtype).view(shape)
    found = there_and_back({"before": torch.ones(3, dtype=torch.uint8), "value": value})["value"]
    assert (found.dtype, found.shape, found.stride()) == (value.dtype, value.shape, value.stride())
    assert bits(found) == bits(value)


def test_the_order_in_memory_comes_back() -> None:
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    found = there_and_back([images, images.permute(3, 1, 0, 2)])
    assert found[0].stride() == images.stride()
    assert torch.equal(found[0], images)
    assert torch.equal(found[1], images.permute(3, 1, 0, 2))


def test_what_has_gaps_or_lies_over_itself_comes_back_dense() -> None:
    wide = torch.arange(40.0).view(8, 5)
    tree = [wide[:, 1:3], wide[::2], torch.ones(3, 1).expand(3, 4), torch.tensor([1 + 2j]).conj()]
    for value, found in zip(tree, there_and_back(tree), strict=True):
        assert torch.equal(found, value)
        assert found.is_contiguous()


def test_tied_weights_are_written_once_and_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    model[1].weight = model[0].weight
    state = model.state_dict()
    state["turned"] = model[0].weight.detach().t()
    laid = flat.layout(state)
    assert sum(map(len, laid.spans)) == (30 * 30 + 2 * 30) * 4
    found = there_and_back(state)
    found["0.weight"].fill_(7.0)
    assert found["1.weight"].eq(7.0).all()
    assert found["turned"].eq(7.0).all()
    assert found._metadata == state._metadata


@pytest.mark.parametrize("most", [64, 100, 512])
def test_cuts_fall_anywhere(most: int) -> None:
    """Within a tensor, at its end, and between two."""
    sizes = random.Random(most)
    tree = [torch.randint(0, 256, (sizes.randrange(300),), dtype=torch.uint8) for _ in range(100)]
    for value, found in zip(tree, there_and_back(tree, most, 33), strict=True):
        assert torch.equal(value, found)


class Colour(IntEnum):
    RED = 3


def test_plain_values_come_back_as_what_they_are() -> None:
    tree = {
        1: "a", "1": [None, True, 2, -0.0, float("inf"), 1j], (1, "x"): {"set": {1, 2}, "tuple": (1, (2,))},
        "ordered": OrderedDict(b=1, a=torch.zeros(2)), "counter": Counter("aab"), "bytes": b"\0\1", "red": Colour.RED,
        "bytearray": bytearray(b"ab"), "size": torch.Size([2]), "dtype": torch.bfloat16, "device": torch.device("cpu"),
    }  # fmt: skip
    found = there_and_back(tree)
    assert list(found) == list(tree)
    assert torch.equal(found["ordered"].pop("a"), tree["ordered"].pop("a"))
    assert found == tree
    for name, value in tree.items():
        assert type(found[name]) is (int if name == "red" else type(value))


def test_large_tensors_are_cut_from_their_own_memory() -> None:
    tree = [torch.arange(900, dtype=torch.float32), torch.ones(3), torch.ones(5)]
    found = flat.layout(tree)
    first, *_, last = found.chunks(1024)
    view = torch.frombuffer(flat.content(first, found.spans), dtype=torch.float32)
    assert view.data_ptr() == tree[0].data_ptr()
    assert [piece.span for piece in last.pieces] == [0, 1, 2], "small ones share a chunk"
    assert all(piece.at % flat.ALIGN == 0 for piece in last.pieces)


@pytest.mark.parametrize("kind", ["sparse", "meta", "quantised"])
@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_what_is_no_plain_memory_is_refused(kind: str) -> None:
    value = torch.ones(2, 2)
    made = {
        "sparse": value.to_sparse,
        "meta": lambda: value.to("meta"),
        "quantised": lambda: torch.quantize_per_tensor(value, 1.0, 0, torch.quint8),
    }
    with pytest.raises(BadInput, match="a checkpoint takes dense tensors"):
        flat.layout({"a": made[kind]()})


def test_what_would_need_code_to_be_loaded_is_refused() -> None:
    with pytest.raises(BadInput, match="object"):
        flat.layout({"a": object()})


@pytest.mark.parametrize("place", [
    [0, "float32", [4], [1]], [1, "float32", [4], [0]], [0, "load", [4], [0]], [0, "float32", [-1], [0]],
    [0, "float32", ["x"], [0]], ["a", "float32", [4], [0]], [0, "float32", [1 << 60], [0]], 3, [],
])  # fmt: skip
def test_a_skeleton_that_is_none_is_no_more_than_a_value_error(place: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        flat.rooms(json.dumps({"dict": [["a", {"tensor": place}]]}).encode())
