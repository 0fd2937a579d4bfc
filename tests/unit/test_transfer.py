"""A state arrives as it was sent: nested, of all kinds, in any number of buckets."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headway.elastic.worker import transfer
from headway.elastic.worker.replica import Replica
from headway.strategies import PeerLost
from headway.strategies.group import Group
from headway.testing import workers
from headway.testing.workers import CREWS, Crew, die, run


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


def on(device: torch.device, value: Any) -> Any:
    """The tree with its tensors of large sizes on a device: Adam's counters and random states stay on the CPU."""
    if isinstance(value, dict):
        return {key: on(device, each) for key, each in value.items()}
    return value.detach().to(device) if isinstance(value, torch.Tensor) and value.dim() > 1 else value


def exchanged(group: Group, bucket_bytes: int, chain: list[int]) -> bool:
    """The first of the chain gives its tree to the others; the rest do nothing."""
    transfer.BUCKET_BYTES = bucket_bytes
    sent = on(group.device, tree())
    if group.rank == chain[0]:
        transfer.send(group, sent, chain[1:])
    elif group.rank in chain:
        found = transfer.receive(group, chain[0], chain[1:])
        assert same(found, sent)
        assert found["strided"].device == sent["strided"].device
        assert found["scalar"].device.type == "cpu"
    group.barrier()
    return same(sent, on(group.device, tree()))


@pytest.fixture(params=CREWS, name="crew")
def _crew(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    monkeypatch.setattr(transfer, "BUCKET_BYTES", transfer.BUCKET_BYTES)
    return workers.crew(request.param, tmp_path)


@pytest.mark.parametrize(
    ("bucket_bytes", "chain"), [(2**23, [0, 1]), (1000, [1, 0]), (100, [3, 0, 2, 1]), (2**23, [2, 3, 0])]
)
def test_2_2_a_tree_arrives_as_it_was_sent(crew: Crew, bucket_bytes: int, chain: list[int]) -> None:
    """Mixed trees, over every backend: what lives on the CPU passes through a group of another device."""
    assert crew(exchanged, max(chain) + 1, bucket_bytes, chain) == [True] * (max(chain) + 1)


def test_a_tree_goes_to_many_by_way_of_two_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten receivers of a few buckets: in a chain the last would wait for nine others."""
    monkeypatch.setattr(transfer, "BUCKET_BYTES", transfer.BUCKET_BYTES)
    chain = [4, 0, 1, 10, 3, 2, 5, 9, 7, 6, 8]
    assert transfer.fan_out(10, len(transfer._chunks([]))) == 2
    assert workers.crew("threads", tmp_path)(exchanged, 11, 2**23, chain) == [True] * 11


@pytest.mark.parametrize("receivers", [1, 2, 5, 6, 9, 100, 1000])
@pytest.mark.parametrize("chunks", [0, 1, 2, 30, 3000])
def test_each_has_one_that_it_is_handed_on_by_and_all_have_it_soon(receivers: int, chunks: int) -> None:
    chain = [7 * rank % 1009 for rank in range(receivers + 1)]
    ways = [transfer._route(chain, place, chunks) for place in range(receivers + 1)]
    for place in range(1, receivers + 1):
        assert [chain[at] for at, (_, to) in enumerate(ways) if chain[place] in to] == [ways[place][0]]
    arrived, rounds = {chain[0]: 0}, transfer.fan_out(receivers, chunks)
    for place in range(1, receivers + 1):
        arrived[chain[place]] = arrived[ways[place][0]] + 1
    hops = max(arrived.values())
    assert rounds * (chunks + hops) <= 2 * (chunks + 2 * math.log2(receivers + 1))


def in_place(group: Group) -> None:
    sent = on(group.device, tree())
    if group.rank == 0:
        transfer.send(group, sent, [1, 2])
    else:
        own = on(group.device, tree())
        own[3]["bf16"].zero_()
        own["strided"].zero_()
        own["channels"].zero_()
        own["large"] = torch.zeros(2)  # another shape
        del own["whole"]
        found = transfer.receive(group, 0, [1, 2], own)
        assert same(found, sent)
        assert all(found[name] is own[name] for name in ("strided", "channels", "scalar"))
        assert found[3]["bf16"] is own[3]["bf16"]
        assert own["large"].tolist() == [0, 0]
    group.barrier()


def test_2_12_tensors_of_the_same_kind_are_filled_in_place(crew: Crew) -> None:
    crew(in_place, 3)


def late(group: Group) -> None:
    if group.rank == 0:
        time.sleep(1.0)  # a slow source, not a wait for something
        transfer.send(group, tree(), [1, 2])
    else:
        assert same(transfer.receive(group, 0, [1, 2]), tree())
    group.barrier()


def test_a_source_that_begins_late_is_waited_for(crew: Crew) -> None:
    crew(late, 3)


def sender_dies(group: Group) -> str:
    if group.rank == 0:
        time.sleep(0.05)
        die()
    with pytest.raises(PeerLost):
        transfer.receive(group, 0, [1, 2])
    return "told"


def test_2_1_a_sender_that_dies_is_a_lost_peer(crew: Crew) -> None:
    assert crew(sender_dies, 3)[1:] == ["told", "told"]


MIB = 2**20


def peak_mib(group: Group) -> tuple[float, float]:
    """Memory that a transfer of 300 MB takes beside the state, and the state's own, on this worker."""
    chain = [0, 1, 2]
    state = {
        "weights": [torch.ones(25 * MIB // 4) for _ in range(11)],
        "small": [torch.ones(1000) for _ in range(5000)],
    }
    group.barrier()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    before = _peak_mib()
    if group.rank == 0:
        transfer.send(group, state, chain[1:])
    else:
        transfer.receive(group, 0, chain[1:], state)
    after = _peak_mib()
    group.barrier()
    return after - before, sum(t.nbytes for t in (*state["weights"], *state["small"])) / MIB


def _peak_mib() -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def test_2_12_a_transfer_takes_at_most_64_mib_beside_the_state(tmp_path: Path) -> None:
    for extra, whole in run(peak_mib, 3, tmp_path):
        assert whole > 290
        assert extra < transfer.EXTRA_BYTES / MIB


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
    replica = Replica(model, optimizer, None, "fp32")
    whole = replica.words()
    assert (Replica(*adam(), None, "fp32").words() == whole).all(), "it depends on nothing else"
    moment = optimizer.state[model[0].weight]["exp_avg_sq"]  # type: ignore[index]
    for tensor in (model[0].weight, model[1].running_var, model[1].num_batches_tracked, moment):  # type: ignore[index]
        raw = tensor.detach().view(torch.uint8) if tensor.dim() else tensor.detach().reshape(1).view(torch.uint8)  # type: ignore[operator]
        raw.reshape(-1)[0] ^= 1
        assert (replica.words() != whole).any()
        raw.reshape(-1)[0] ^= 1
    assert (replica.words() == whole).all()
