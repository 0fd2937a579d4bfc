"""Buffers by lane: the same whoever carries which lane."""

from __future__ import annotations

import torch
from torch import nn

from headway.elastic.worker.buffers import LaneBuffers

WEIGHTS = (0.5, 0.3, 0.2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 0.1]))
        self.register_buffer("third", torch.tensor([1 / 3], dtype=torch.float64))
        self.register_buffer("seen", torch.tensor(2**40 + 12345))
        self.register_buffer("on", torch.tensor([True, False]))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.register_buffer("average", torch.zeros(1))


def do_lane(net: Net, lane: int) -> None:
    net.norm.train()(torch.randn(6, 3, generator=torch.Generator().manual_seed(lane)))
    net.seen += lane + 1
    net.average = net.average * 0.9 + lane  # puts a new tensor in the buffer's place
    net.scratch += 1


def step(net: Net, buffers: LaneBuffers, lanes: tuple[int, ...]) -> torch.Tensor:
    buffers.begin()
    summed = torch.zeros(buffers.size)
    for lane in lanes:
        buffers.enter()
        do_lane(net, lane)
        summed += buffers.leave(WEIGHTS[lane], counters=lane == 0)
    return summed


def after(*parts: tuple[int, ...], steps: int = 2) -> list[Net]:
    """The nets of workers that carry the given lanes."""
    nets = [Net() for _ in parts]
    buffers = [LaneBuffers(net) for net in nets]
    for _ in range(steps):
        summed = [step(*args) for args in zip(nets, buffers, parts, strict=True)]
        for each in buffers:
            each.accept(torch.stack(summed).sum(0))
    return nets


def state(net: Net) -> dict[str, torch.Tensor]:
    return {name: buffer for name, buffer in net.named_buffers() if name != "scratch"}


def test_they_do_not_depend_on_who_carries_which_lane_nor_in_which_order() -> None:
    (alone,) = after((0, 1, 2))
    for nets in (after((2, 1, 0)), after((0,), (1, 2)), after((2,), (), (1, 0))):
        for net in nets:
            for name, buffer in state(net).items():
                assert torch.allclose(buffer.double(), state(alone)[name].double(), rtol=1e-6), name


def test_floats_are_the_lanes_mean_by_rows() -> None:
    (net,) = after((0, 1, 2), steps=1)
    wanted = torch.zeros(3)
    for lane, weight in enumerate(WEIGHTS):
        fresh = Net()
        do_lane(fresh, lane)
        wanted += weight * fresh.norm.running_mean  # type: ignore[operator]
    assert torch.allclose(net.norm.running_mean, wanted, atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(net.average, torch.tensor([0.3 * 1 + 0.2 * 2]))


def test_counters_are_what_the_fullest_lane_made_of_them() -> None:
    (net,) = after((2, 0, 1), steps=3)
    assert net.norm.num_batches_tracked == 3, "once a step, not once a lane"
    assert net.seen == 2**40 + 12345 + 3, "exactly, though it crosses a float32 sum"
    assert net.on.tolist() == [True, False]


def test_a_constant_stays_to_the_bit() -> None:
    """A weighted mean of equal numbers is not that number: after many steps it would have crept away."""
    for net in after((0, 1), (2,), steps=200):
        assert torch.equal(net.mask, Net().mask)
        assert torch.equal(net.third, Net().third)


def test_those_that_the_state_dict_does_not_hold_are_left_alone() -> None:
    (net,) = after((0, 1, 2), steps=1)
    assert net.scratch.tolist() == [3.0, 3.0]


def test_a_model_without_buffers() -> None:
    buffers = LaneBuffers(nn.Linear(1, 1))
    assert buffers.size == 0
    buffers.begin()
    buffers.enter()
    buffers.accept(buffers.leave(1.0, counters=True))


def test_negative_counters() -> None:
    net = nn.Module()
    net.register_buffer("count", torch.tensor([-1, -(2**62), 2**62]))
    buffers = LaneBuffers(net)
    buffers.begin()
    buffers.enter()
    part = buffers.leave(1.0, counters=True)
    net.count.zero_()
    buffers.accept(part)
    assert net.count.tolist() == [-1, -(2**62), 2**62]


def test_a_step_that_broke_leaves_no_trace() -> None:
    """Repeated with other lanes, it ends as if it had not been begun before."""
    broken, calm = Net(), Net()
    for net in (broken, calm):
        buffers = LaneBuffers(net)
        buffers.accept(step(net, buffers, (0, 1, 2)))
        if net is broken:
            before = {name: buffer.clone() for name, buffer in state(net).items()}
            step(net, buffers, (2,))
            buffers.rewind()
            assert all(torch.equal(buffer, before[name]) for name, buffer in state(net).items())
        buffers.accept(step(net, buffers, (0, 1, 2)))
    assert all(torch.equal(buffer, state(calm)[name]) for name, buffer in state(broken).items())


def test_rewinding_before_the_first_step_changes_nothing() -> None:
    net = Net()
    LaneBuffers(net).rewind()
    assert torch.equal(net.third, Net().third)


def test_2_22_a_counter_that_becomes_nought_stays_nought() -> None:
    net = nn.Module()
    net.register_buffer("left", torch.tensor(1))
    buffers = LaneBuffers(net)
    buffers.begin()
    buffers.enter()
    net.left -= 1
    buffers.accept(buffers.leave(1.0, counters=True))
    assert net.left == 0
    buffers.begin()
    buffers.enter()
    net.left += 5
    buffers.accept(buffers.leave(1.0, counters=False))
    assert net.left == 0, "no lane spoke for it"
