"""A state arrives as it was sent: nested, of all kinds, in any number of buckets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headway.elastic.worker import transfer, vote
from headway.strategies import PeerLost
from headway.strategies.group import Group
from headway.testing.workers import die, run


def tree() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(300, 7, generator=generator)
    return {
        "plain": [1, 2.5, "text", None, True, b"bytes", (1, (2, "three"))],
        3: {"bf16": weights.bfloat16(), "half": weights.half(), "double": weights.double()},
        "whole": (torch.arange(5), torch.tensor([True, False]), torch.tensor([1, 255], dtype=torch.uint8)),
        "scalar": torch.tensor(2.5),
        "counter": torch.tensor(2**53 + 1),
        "empty": torch.empty(0, 3),
        "empties": [torch.empty(0, dtype=torch.int64)],
        "odd": [torch.tensor([math.nan, math.inf, -0.0])],
        "strided": weights.t(),
        "channels": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "shared": weights[:2],
        "parameter": nn.Parameter(weights[:3]),
        "large": torch.randn(3000, generator=generator),
        "nothing": {},
    }


def same(found: Any, sent: Any) -> bool:
    if isinstance(sent, torch.Tensor):
        bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (found, sent)]
        return found.dtype == sent.dtype and found.shape == sent.shape and torch.equal(*bits)
    if isinstance(sent, dict):
        return list(found) == list(sent) and all(same(found[key], sent[key]) for key in sent)
    if isinstance(sent, (list, tuple)):
        return type(found) is type(sent) and len(found) == len(sent) and all(map(same, found, sent))
    return bool(found == sent)


def exchanged(group: Group, bucket_bytes: int, source: int) -> tuple[bool, bool]:
    transfer.BUCKET_BYTES = bucket_bytes
    sent = tree()
    if group.rank == source:
        transfer.send(group, sent)
        return True, same(sent, tree())
    found = transfer.receive(group, source, torch.device("cpu"))
    first, second = found["shared"], found["strided"]
    first.zero_()
    return same({**found, "shared": sent["shared"]}, sent), bool((second != 0).any())


@pytest.mark.parametrize(("bucket_bytes", "source"), [(2**25, 0), (1000, 1), (1, 0)])
def test_a_tree_arrives_as_it_was_sent(tmp_path: Path, bucket_bytes: int, source: int) -> None:
    assert run(exchanged, 2, tmp_path, bucket_bytes, source) == [(True, True)] * 2


def sender_dies(group: Group) -> str:
    if group.rank == 0:
        die()
    with pytest.raises(PeerLost):
        transfer.receive(group, 0, torch.device("cpu"))
    return "told"


def test_a_sender_that_dies_is_a_lost_peer(tmp_path: Path) -> None:
    assert run(sender_dies, 3, tmp_path)[1:] == ["told", "told"]


def test_a_copy_shares_nothing() -> None:
    sent = tree()
    copy = transfer.copied(sent)
    assert same(copy, sent)
    sent["large"].zero_()
    sent["plain"].append("more")
    assert copy["large"].count_nonzero()
    assert copy["plain"] == tree()["plain"]


def adam() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_digest_sees_every_bit_of_weights_buffers_and_optimiser() -> None:
    model, optimizer = adam()
    whole = vote.words(model, optimizer)
    assert (vote.words(*adam()) == whole).all(), "it depends on nothing else"
    moment = optimizer.state[model[0].weight]["exp_avg_sq"]  # type: ignore[index]
    for tensor in (model[0].weight, model[1].running_var, model[1].num_batches_tracked, moment):  # type: ignore[index]
        raw = tensor.detach().view(torch.uint8) if tensor.dim() else tensor.detach().reshape(1).view(torch.uint8)  # type: ignore[operator]
        raw.reshape(-1)[0] ^= 1
        assert (vote.words(model, optimizer) != whole).any()
        raw.reshape(-1)[0] ^= 1
    assert (vote.words(model, optimizer) == whole).all()
