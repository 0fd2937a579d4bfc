"""Ranges whose steps are complete with the first of the replicas: what is in an update, what is late, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from tests.unit.test_parameter_server_sockets import MOMENTUM, RANGES, Crew, gradients, model, require_equal
from torch import nn

from headway.core.clocks import FirstOf
from headway.strategies.parameter_server.apart import Apart
from headway.strategies.parameter_server.averaged import Averaged
from headway.strategies.parameter_server.client import Client
from headway.strategies.parameter_server.server import Role
from headway.strategies.parameter_server.slab import packed

NEEDED = 2
SHARES = {0: 0.5, 1: 0.25, 2: 0.25}


class Backed(Crew):
    def slab(self, server: int, number: int, ahead: int | None) -> Averaged:
        parameters = list(self.models[server].parameters())
        return Averaged(self.optimizers[server], parameters, self.cut.ranges[number], FirstOf(NEEDED))

    def offer(self, client: Client, replica: int, step: int, share: float | None = None) -> list[tuple[int, bool]]:
        """A gradient that hangs on the replica and the step. Returns versions and whether it was taken, by range."""
        share = SHARES[replica] if share is None else share
        found = {n: g * share for n, g in enumerate(gradients(self.parameters, 10 * replica + step))}
        return [
            client.offer(each, packed(self.cut.ranges[each], found), replica, step, 0, share) for each in range(RANGES)
        ]


@contextmanager
def backed(servers: int = 2) -> Iterator[Backed]:
    made = Backed(servers=servers, make=MOMENTUM)
    try:
        yield made
    finally:
        made.close()


def plainly(steps: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """A plain loop: each step's gradient is the mean of these replicas', by their rows."""
    parameters = list(model().parameters())
    optimizer = MOMENTUM(parameters)
    for step, replicas in enumerate(steps):
        whole = sum(SHARES[replica] for replica in replicas)
        for at, parameter in enumerate(parameters):
            each = [gradients(parameters, 10 * replica + step)[at] * SHARES[replica] for replica in replicas]
            parameter.grad = torch.stack(each).sum(0) / whole
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def close(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_an_update_is_the_mean_of_those_that_came_first() -> None:
    with backed() as made:
        client = made.client()
        assert made.offer(client, 2, 0) == [(0, True)] * RANGES
        require_equal(made.pulled(client), plainly([]))
        assert made.offer(client, 0, 0) == [(1, True)] * RANGES
        assert made.offer(client, 1, 0) == [(1, False)] * RANGES, "late"
        made.offer(client, 1, 1)
        assert made.offer(client, 2, 1) == [(2, True)] * RANGES
        close(made.pulled(client), plainly([(2, 0), (1, 2)]))


def test_what_comes_again_is_taken_once_and_is_not_late() -> None:
    with backed() as made:
        client = made.client()
        for _ in range(3):
            assert made.offer(client, 2, 0) == [(0, True)] * RANGES
        made.offer(client, 0, 0)
        assert made.offer(client, 2, 0) == [(1, True)] * RANGES, "the answer may have been lost"
        close(made.pulled(client), plainly([(2, 0)]))


def test_who_has_no_rows_counts_and_moves_nothing() -> None:
    with backed() as made:
        client = made.client()
        made.offer(client, 1, 0, share=0.0)
        made.offer(client, 2, 0)
        close(made.pulled(client), plainly([(2,)]))
        for replica in (0, 1):
            assert made.offer(client, replica, 1, share=0.0)[0][0] == 1 + replica
        close(made.pulled(client), plainly([(2,)]))


@pytest.mark.parametrize("gone", [0, 1])
def test_a_lost_server_costs_nothing_that_was_acknowledged(gone: int) -> None:
    """In the middle of a step: who has the copy has what came of it."""
    with backed() as made:
        client = made.client()
        for replica in (0, 1):
            made.offer(client, replica, 0)
        made.offer(client, 2, 1)
        for number in range(RANGES):
            mine, copy = (made.servers[at].store(number).tree() for at in (number, 1 - number))
            assert mine["at"] == copy["at"] == 3
            assert torch.equal(mine["came"], copy["came"])
            assert torch.equal(mine["values"], copy["values"])
        made.servers[gone].close()
        made.servers[1 - gone].follow(1 - gone, None)
        assert made.offer(client, 2, 1) == [(1, True)] * RANGES
        assert made.offer(client, 1, 1) == [(2, True)] * RANGES
        assert made.servers[1 - gone].role(gone) is Role.CARRIER
        assert made.offer(client, 0, 1) == [(2, False)] * RANGES
        close(made.pulled(client), plainly([(0, 1), (2, 1)]))


def test_a_tree_goes_on_in_the_middle_of_a_step() -> None:
    with backed(servers=1) as made:
        client = made.client()
        for replica in (0, 1):
            made.offer(client, replica, 0)
        made.offer(client, 2, 1)
        trees = [made.servers[0].store(number).tree() for number in range(RANGES)]
    with backed(servers=1) as again:
        for number, tree in enumerate(trees):
            parameters = list(again.models[0].parameters())
            first = FirstOf(NEEDED, tree["step"])
            store = Averaged(again.optimizers[0], parameters, again.cut.ranges[number], first, tree)
            again.servers[0].carry(number, store)
        client = again.client()
        assert again.offer(client, 2, 1) == [(1, True)] * RANGES, "it is in it"
        assert again.offer(client, 0, 1) == [(2, True)] * RANGES
        close(again.pulled(client), plainly([(0, 1), (2, 0)]))


def test_a_replica_knows_how_far_all_ranges_are_and_whether_it_was_late() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with backed() as made, ThreadPoolExecutor(2) as pool:
        mine = model()
        apart = Apart(1, made.cut, made.client(), pool)
        apart.cut = type(made.cut)(list(mine.parameters()), RANGES)
        apart.begin(0)
        client = made.client()
        for step in range(3):
            for replica in (0, 2):
                made.offer(client, replica, step)
        for parameter in mine.parameters():
            parameter.grad = torch.ones_like(parameter)
        assert apart.finish(0.25) is False
        assert apart.reached == 3
        apart.begin(apart.reached)
        assert apart.finish(0.25) is True
        assert apart.reached == 3, "the step is not complete"


def test_less_than_a_whole_gradient_moves_what_it_has() -> None:
    """A parameter that only one of those that came first has used moves by its gradient."""
    make = partial(torch.optim.SGD, lr=1.0)
    one = nn.Parameter(torch.zeros(4))
    other = nn.Parameter(torch.zeros(4))
    from headway.strategies.parameter_server.cut import Cut

    cut = Cut([one, other], 1)
    store = Averaged(make([one, other]), [one, other], cut.ranges[0], FirstOf(2))
    for replica, used in enumerate(({0: torch.ones(4)}, {})):
        store.apply(packed(cut.ranges[0], {n: g * 0.5 for n, g in used.items()}), 0.5)
        store.clocks.take(replica, 0)
    assert store.flat[:4].tolist() == [-0.5] * 4
    assert store.flat[4:].tolist() == [0.0] * 4
    assert store.version == 1
