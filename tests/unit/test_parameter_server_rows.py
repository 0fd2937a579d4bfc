"""Served tables: rows travel, tables never do, and what is trained is what a plain embedding would be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import headway
from headway.core.clocks import Clocks
from headway.core.first_rows import first_rows
from headway.core.lanes import carried as in_turn
from headway.core.ranges import backed_up
from headway.errors import BadInput
from headway.strategies import PeerLost
from headway.strategies.group import Group
from headway.strategies.kept import Kept
from headway.strategies.parameter_server import Cut, Ranged, hand_over
from headway.strategies.parameter_server.client import Client, Route
from headway.strategies.parameter_server.embedding import ServedEmbedding, filled, served, tables
from headway.strategies.parameter_server.rows import RowShard, Table, added, coalesced, packed, reranged
from headway.strategies.parameter_server.server import Server, new_room
from headway.strategies.parameter_server.tables import Asked, Summed
from headway.testing.workers import connect_again, crew, die, start_values

LANES = 5
STEPS = 5
ROWS = 40
DIM = 3
TOKEN = b"token"
T = torch.optim


# First values


def test_first_values_hang_on_seed_and_row_alone() -> None:
    whole = first_rows(np.arange(1000), 8, 5, 1.0)
    assert np.array_equal(first_rows(np.array([999, 3]), 8, 5, 1.0), whole[[999, 3]])
    assert not np.array_equal(first_rows(np.arange(1000), 8, 6, 1.0), whole)
    assert len(np.unique(whole, axis=0)) == 1000, "no row twice"
    assert abs(whole.mean()) < 0.03
    assert abs(whole.std() - 1.0) < 0.02
    assert not first_rows(np.arange(3), 2, 0, 0.0).any()


def test_first_values_stay_what_they_are() -> None:
    """A checkpoint does not hold rows that were never updated."""
    found = first_rows(np.array([0, 4_999_999]), 2, 7, 0.5)
    assert found.tolist() == GOLDEN


GOLDEN: list[list[float]] = [[0.6238036155700684, 0.45136764645576477], [-0.051272254437208176, -0.015513821505010128]]


# A range of a table


def weight_of(make: Callable[..., Optimizer]) -> tuple[nn.Parameter, Optimizer]:
    weight = nn.Parameter(torch.empty(0, DIM))
    return weight, make([weight])


def pushes(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(step)
    ids = torch.randperm(ROWS, generator=draws)[:12]
    return ids, torch.randn(12, DIM, generator=draws)


MAKERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(T.SGD, lr=0.1),
    "adagrad": partial(T.Adagrad, lr=0.1, initial_accumulator_value=0.1),
    "adam": partial(T.Adam, lr=0.01),
    "rmsprop": partial(T.RMSprop, lr=0.01, momentum=0.9),
    "sparse_adam": partial(T.SparseAdam, lr=0.01),
}


def lazily(make: Callable[..., Optimizer], steps: int) -> torch.Tensor:
    """A whole table under the dense optimiser, of whose step only the rows that were used are kept."""
    make = partial(T.Adam, lr=0.01) if make is MAKERS["sparse_adam"] else make
    weight = nn.Parameter(Table(ROWS, DIM).first(torch.arange(ROWS)))
    optimizer = make([weight])
    for step in range(steps):
        ids, gradient = pushes(step)
        rest = torch.ones(ROWS, dtype=torch.bool)
        rest[ids] = False
        before = weight.detach().clone()
        state = {k: v.clone() for k, v in optimizer.state[weight].items()} if optimizer.state else {}
        weight.grad = torch.zeros(ROWS, DIM)
        weight.grad[ids] = gradient
        optimizer.step()
        with torch.no_grad():
            weight[rest] = before[rest]
        for name, value in optimizer.state[weight].items():
            if value.shape == weight.shape:
                value[rest] = state[name][rest] if name in state else 0.0
    return weight.detach()


@pytest.mark.parametrize("name", MAKERS)
def test_only_rows_that_are_used_move_and_as_the_optimiser_says(name: str) -> None:
    weight, optimizer = weight_of(MAKERS[name])
    shard = RowShard(Table(ROWS, DIM), (0, 1), optimizer, weight, Clocks(None))
    for step in range(4):
        shard.apply(packed(*pushes(step)))
    every = torch.arange(ROWS)
    assert torch.equal(shard.read(every.view(torch.uint8), new_room).view(ROWS, DIM), lazily(MAKERS[name], 4))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_it_is_what_torch_does_with_sparse_gradients(name: str) -> None:
    weight, optimizer = weight_of(MAKERS[name])
    shard = RowShard(Table(ROWS, DIM), (0, 1), optimizer, weight, Clocks(None))
    theirs = nn.Parameter(Table(ROWS, DIM).first(torch.arange(ROWS)))
    plain = MAKERS[name]([theirs])
    for step in range(4):
        ids, gradient = pushes(step)
        shard.apply(packed(ids, gradient))
        theirs.grad = torch.sparse_coo_tensor(ids[None], gradient, (ROWS, DIM), check_invariants=True)
        plain.step()
    found = shard.read(torch.arange(ROWS).view(torch.uint8), new_room).view(ROWS, DIM)
    assert torch.allclose(found, theirs, atol=1e-6)


def test_ranges_of_a_table_are_the_table() -> None:
    for ranges in (1, 3):
        weight, optimizer = weight_of(MAKERS["adam"])
        shards = [RowShard(Table(ROWS, DIM), (n, ranges), optimizer, weight, Clocks(None)) for n in range(ranges)]
        for step in range(3):
            ids, gradient = pushes(step)
            for number, shard in enumerate(shards):
                shard.apply(packed(ids[ids % ranges == number], gradient[ids % ranges == number]))
        found = torch.empty(ROWS, DIM)
        for number, shard in enumerate(shards):
            ids = torch.arange(number, ROWS, ranges)
            found[ids] = shard.read(ids.view(torch.uint8), new_room).view(-1, DIM)
        assert torch.equal(found, lazily(MAKERS["adam"], 3))


def test_millions_of_rows_take_the_memory_of_those_that_are_used() -> None:
    weight, optimizer = nn.Parameter(torch.empty(0, 16)), None
    optimizer = T.Adam([weight])
    shard = RowShard(Table(5_000_000, 16), (1, 4), optimizer, weight, Clocks(None))
    ids = torch.arange(1, 5_000_000, 50_000 * 4)
    before = shard.read(ids.view(torch.uint8), new_room).clone()
    assert shard.count == 0, "a look makes nothing"
    shard.apply(packed(ids, torch.ones(len(ids), 16)))
    assert shard.count == len(ids)
    assert not torch.equal(shard.read(ids.view(torch.uint8), new_room), before)
    tree = shard.tree()
    assert sum(t.nbytes for t in [tree["values"], tree["ids"], *tree["rowwise"].values()]) < 10_000


def test_a_tree_goes_on_where_it_was() -> None:
    weight, optimizer = weight_of(MAKERS["adagrad"])
    one = RowShard(Table(ROWS, DIM), (0, 1), optimizer, weight, Clocks(None))
    one.apply(packed(*pushes(0)))
    other = RowShard(Table(ROWS, DIM), (0, 1), optimizer, weight, Clocks(None), one.tree())
    for step in (1, 2):
        one.apply(packed(*pushes(step)))
        other.apply(packed(*pushes(step)))
    every = torch.arange(ROWS).view(torch.uint8)
    assert other.version == 3
    assert torch.equal(one.read(every, new_room), other.read(every, new_room))


@pytest.mark.parametrize(
    ("ids", "words"),
    [([1, 1], "twice"), ([0], "range 1 of 2"), ([41], "of 40 rows"), ([-1], "of 40 rows")],
)
def test_rows_that_are_none_are_refused_and_nothing_changes(ids: list[int], words: str) -> None:
    weight, optimizer = weight_of(MAKERS["sgd"])
    shard = RowShard(Table(ROWS, DIM), (1, 2), optimizer, weight, Clocks(None))
    with pytest.raises(ValueError, match=words):
        shard.apply(packed(torch.tensor(ids), torch.ones(len(ids), DIM)))
    assert (shard.version, shard.count) == (0, 0)


def test_an_optimiser_that_needs_whole_tensors_is_refused() -> None:
    weight, optimizer = weight_of(T.LBFGS)
    with pytest.raises(BadInput, match="LBFGS"):
        RowShard(Table(ROWS, DIM), (0, 1), optimizer, weight, Clocks(None))
    with pytest.raises(BadInput, match="none of the optimiser's groups"):
        RowShard(Table(ROWS, DIM), (0, 1), T.SGD([nn.Parameter(torch.zeros(1))]), weight, Clocks(None))


def test_a_pending_update_is_made_if_it_was_one() -> None:
    weight, optimizer = weight_of(MAKERS["sgd"])
    shard = RowShard(Table(ROWS, DIM), (0, 1), optimizer, weight, Clocks(None))
    shard.pend(packed(*pushes(0)))
    shard.settle(0)
    assert shard.version == 0
    shard.settle(1)
    assert shard.version == 0, "it was forgotten"
    shard.pend(packed(*pushes(0)))
    shard.settle(1)
    assert shard.version == 1


def test_lanes_are_added_up_in_the_trees_order() -> None:
    draws = torch.Generator().manual_seed(0)
    by_lane = {}
    dense: list[torch.Tensor | None] = []
    for lane in range(7):
        ids = torch.randperm(ROWS, generator=draws)[: 5 * (lane != 2)]
        ids, gradients = coalesced(ids, torch.randn(len(ids), DIM, generator=draws))
        by_lane[lane] = ids, gradients
        whole = torch.zeros(ROWS, DIM)
        whole[ids] = gradients
        dense.append(whole if len(ids) else None)

    def node(first: int, width: int) -> torch.Tensor | None:
        if width == 1:
            return dense[first] if first < 7 else None
        left, right = node(first, width // 2), node(first + width // 2, width // 2)
        return left + right if left is not None and right is not None else left if right is None else right

    ids, total = added(by_lane, 7, DIM)
    wanted = node(0, 8)
    assert wanted is not None
    assert torch.equal(total, wanted[ids])
    assert ids.tolist() == sorted({int(i) for found, _ in by_lane.values() for i in found})
    assert len(added({}, 7, DIM)[0]) == 0


def test_a_row_that_comes_twice_is_summed() -> None:
    ids, total = coalesced(torch.tensor([5, 2, 5]), torch.tensor([[1.0], [2.0], [4.0]]))
    assert (ids.tolist(), total.tolist()) == ([2, 5], [[2.0], [5.0]])


def test_rows_go_into_another_number_of_ranges() -> None:
    one, (weight, optimizer) = Table(ROWS, DIM), weight_of(MAKERS["adagrad"])
    shards = [RowShard(one, (part, 4), optimizer, weight, Clocks(None)) for part in range(4)]
    for step in range(3):
        ids, gradients = pushes(step)
        for part, shard in enumerate(shards):
            shard.apply(packed(ids[ids % 4 == part], gradients[ids % 4 == part]))
    for ranges in (1, 3, 4):
        again = [
            RowShard(one, (part, ranges), optimizer, weight, Clocks(None), tree)
            for part, tree in enumerate(reranged([shard.tree() for shard in shards], ranges, DIM))
        ]
        assert sum(shard.count for shard in again) == sum(shard.count for shard in shards)
        for number in range(ROWS):
            found, right = (each[number % len(each)].read(bytes_of(number), new_room) for each in (again, shards))
            assert torch.equal(found, right)
        assert {n for shard in again for n in shard.tree()["rowwise"]} == {"sum"}
    assert [len(tree["ids"]) for tree in reranged([], 2, DIM)] == [0, 0]


def bytes_of(number: int) -> torch.Tensor:
    return torch.tensor([number]).view(torch.uint8)


def test_a_table_that_was_served_is_whole_for_who_loads_it() -> None:
    model = nn.Sequential(ServedEmbedding(ROWS, DIM, seed=3), nn.Linear(DIM, 1))
    with served():
        state = nn.Sequential(ServedEmbedding(ROWS, DIM, seed=3), nn.Linear(DIM, 1)).state_dict()
    trees = [{"table": "0.weight", "ids": torch.tensor([n]), "values": torch.full((1, DIM), 7.0)} for n in (4, 9)]
    found = filled(state, [*trees, {"at": 3}], model)
    model.load_state_dict(found)
    wanted = ServedEmbedding(ROWS, DIM, seed=3).weight.detach().clone()
    wanted[[4, 9]] = 7.0
    assert torch.equal(model[0].weight, wanted)
    with pytest.raises(IndexError):
        filled(state, [{**trees[0], "ids": torch.tensor([ROWS])}], model)


# The module


def test_without_a_server_it_is_a_plain_embedding() -> None:
    made = ServedEmbedding(ROWS, DIM)
    assert headway.ServedEmbedding is ServedEmbedding
    assert torch.equal(made.weight, Table(ROWS, DIM).first(torch.arange(ROWS)))
    ids = torch.tensor([[1, 2], [2, 39]])
    plain = nn.Embedding(ROWS, DIM, _weight=made.weight.detach().clone())
    assert torch.equal(made(ids), plain(ids))
    bag = ServedEmbedding(ROWS, DIM, mode="mean")
    assert torch.equal(bag(ids), plain(ids).mean(1))
    with pytest.raises(IndexError):
        made(torch.tensor([ROWS]))
    with pytest.raises(BadInput, match="mode='max'"):
        ServedEmbedding(ROWS, DIM, mode="max")


class Net(nn.Module):
    """Two tables, of which one is used twice, under dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * DIM, 1)
        start_values(self, 0)
        self.users = ServedEmbedding(ROWS, DIM, seed=1)
        self.things = ServedEmbedding(2 * ROWS, DIM, seed=2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        users, one, other = self.users(ids[:, 0]), self.things(ids[:, 1]), self.things(ids[:, 2])
        result: torch.Tensor = self.head(torch.tanh(torch.cat([users, one, other], dim=1)))
        return result


def loss(model: nn.Module, lane: int, step: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(100 * step + lane)
    ids = torch.randint(0, ROWS, (6, 3), generator=draws)
    value: torch.Tensor = model(ids).square().sum() / (6 * LANES)
    return value


def test_what_is_not_served_is_told() -> None:
    with served():
        model = Net()
    assert len(model.users.weight) == 0
    assert list(tables(model, ["*s.weight"])) == ["users.weight", "things.weight"]
    assert model.users.name == "users.weight"
    with pytest.raises(BadInput, match=r"Did you mean 'users\.weight'"):
        tables(model, ["user.weight"])
    with pytest.raises(BadInput, match="which is a Linear's: every worker has all of it, and its gradient is dense"):
        tables(model, ["*"])
    with pytest.raises(BadInput, match=r"no pattern of strategy.sparse matches 'things.weight'"):
        tables(model, ["users.*"])
    model.users.source = object()  # type: ignore[assignment]
    with pytest.raises(IndexError, match="from 40 to 40 in a table of 40 rows"):
        model.users(torch.tensor([ROWS]))
    with pytest.raises(BadInput, match="which is a Embedding's: every worker has all of it"):
        tables(nn.Sequential(nn.Embedding(3, 2, sparse=True)), ["0.weight"])


# A run


def in_one_process(make: Callable[..., Optimizer]) -> Net:
    """The plain loop over plain embeddings, lanes added up by halves."""
    model = Net()
    optimizer = make(model.parameters())
    for step in range(STEPS):
        found: list[list[torch.Tensor]] = []
        for lane in range(LANES):
            model.zero_grad()
            loss(model, lane, step).backward()
            found.append([p.grad for p in model.parameters() if p.grad is not None])

        def node(first: int, width: int, found: list[list[torch.Tensor]] = found) -> list[torch.Tensor] | None:
            if width == 1:
                return found[first] if first < LANES else None
            left, right = node(first, width // 2), node(first + width // 2, width // 2)
            if left is None or right is None:
                return left or right
            return [one + other for one, other in zip(left, right, strict=True)]

        for parameter, gradient in zip(model.parameters(), node(0, 8) or [], strict=True):
            parameter.grad = gradient
        optimizer.step()
    return model


class Worker:
    """One worker's part of a run."""

    def __init__(self, make: Callable[..., Optimizer]) -> None:
        with served():
            self.model = Net()
        self.optimizer = make(self.model.parameters())
        self.embeddings = tables(self.model, ["users.*", "things.*"])
        self.cut = Cut(list(self.model.parameters()), LANES)
        self.kept = Kept()
        self.rows = Kept()
        """Of the tables' ranges, by their numbers at servers."""

    def join(self, group: Group, carried: list[list[int]]) -> tuple[int, ...]:
        """Into a generation: ranges to who carries them, servers for them, and the strategy."""
        self.group, names = group, list(self.embeddings)
        lost = hand_over(group, carried, self.kept)
        every = [[LANES * (1 + t) + n for n in each for t in range(len(names))] for each in carried]
        self.rows.common["at"] = self.kept.common["at"]
        lost += hand_over(group, every, self.rows)
        self.server = Server(TOKEN)
        addresses = [tuple(each) for each in group.gather(list(self.server.start("127.0.0.1")))]
        routes = {}
        for rank, numbers in enumerate(every):
            for number in numbers:
                routes[number] = Route(addresses[rank])
                table, part = divmod(number - LANES, LANES)
                if rank == group.rank or number in backed_up(every, group.rank):
                    trees = self.rows.own if rank == group.rank else self.rows.backups
                    module = self.embeddings[names[table]]
                    shard = RowShard(
                        module.table, (part, LANES), self.optimizer, module.weight, Clocks(None), trees.get(number)
                    )
                    (self.server.carry if rank == group.rank else self.server.copy)(number, shard)
        self.every = every
        local = addresses[group.rank], self.server
        self.client = Client(TOKEN, routes, patience_s=5.0, local=local)
        asked = Asked({name: each.table for name, each in self.embeddings.items()}, LANES, LANES, self.client)
        at = int(self.kept.common["at"])
        self.tables = Summed(asked, lanes=LANES, group=group, carried=carried, server=self.server, at=at)
        for module in self.embeddings.values():
            module.source = self.tables
        self.carried = carried
        self.strategy = Ranged(
            self.cut,
            list(self.model.parameters()),
            lanes=LANES,
            tail=0,
            changes=0,
            group=group,
            carried=carried,
            kept=self.kept,
            bitwise=True,
        )
        group.barrier()
        return lost

    def leave(self) -> None:
        """What is kept of the tables is as the last committed step left it."""
        self.client.close()
        self.server.close()
        for number in self.every[self.group.rank]:
            self.rows.own[number] = self.server.store(number).tree()
        self.rows.backups = {
            number: self.server.store(number).tree() for number in backed_up(self.every, self.group.rank)
        }
        self.strategy.close()

    def step(self, step: int, clip_norm: float | None = None) -> float:
        lanes = self.carried[self.group.rank]
        self.strategy.begin(lanes)
        self.tables.begin()
        for lane in lanes:
            self.tables.lane(lane)
            value = loss(self.model, lane, step)
            self.strategy.before_backward(lane, last=lane == lanes[-1])
            value.backward()
            self.strategy.after_backward()
            self.strategy.lane_done(torch.zeros(0))
        self.strategy.finish(torch.zeros(0))
        self.strategy.beside = self.tables.finish()
        assert self.strategy.finite()
        norm = self.strategy.norm()
        self.tables.pend(self.strategy.factor(clip_norm))
        self.strategy.update(self.optimizer, clip_norm)
        self.strategy.commit()
        self.tables.commit()
        return norm

    def require(self, wanted: Net) -> None:
        assert torch.equal(self.model.head.weight, wanted.head.weight)
        with torch.no_grad():
            for mine, right in ((self.model.users, wanted.users), (self.model.things, wanted.things)):
                assert torch.equal(mine(torch.arange(mine.table.rows)), right.weight), "not the same to the bit"
        self.group.barrier()  # everybody's server is asked


def one_loop(group: Group, name: str) -> None:
    worker = Worker(MAKERS[name])
    worker.join(group, [list(each) for each in in_turn(LANES, group.size)])
    for step in range(STEPS):
        worker.step(step)
    worker.require(in_one_process(MAKERS[name]))
    worker.leave()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_served_tables_are_trained_as_plain_ones(name: str, workers: int, tmp_path: Path) -> None:
    crew("threads", tmp_path)(one_loop, workers, name)


def test_over_gloo(tmp_path: Path) -> None:
    crew("gloo", tmp_path)(one_loop, 2, "adagrad")


def moves_and_death(group: Group, gone: int, folder: str) -> None:
    worker = Worker(MAKERS["adagrad"])
    first = [list(each) for each in in_turn(LANES, group.size)]
    for step, carried in enumerate([first, [*first[1:], first[0]], first]):
        assert worker.join(group, carried) == ()
        worker.step(step)
        if step < 2:
            group.barrier()
            worker.leave()
    if group.rank == gone:
        worker.client.close()
        worker.server.close()
        die()
    worker.client._limit_s = 0.2
    with pytest.raises(PeerLost):
        worker.step(3)
    worker.leave()
    group.close()
    fewer = connect_again(group, "fewer", group.rank - (group.rank > gone), group.size - 1, folder)
    assert worker.join(fewer, [list(each) for each in in_turn(LANES, fewer.size)]) == ()
    for step in range(3, STEPS):
        worker.step(step)
    worker.require(in_one_process(MAKERS["adagrad"]))
    worker.leave()
    fewer.close()


@pytest.mark.parametrize("gone", [0, 1])
def test_rows_move_and_a_lost_carrier_costs_no_update(gone: int, tmp_path: Path) -> None:
    crew("threads", tmp_path)(moves_and_death, 3, gone, str(tmp_path))


def clipped(group: Group) -> list[float]:
    worker = Worker(MAKERS["sgd"])
    worker.join(group, [list(each) for each in in_turn(LANES, group.size)])
    found = [worker.step(step, clip_norm=0.01) for step in range(3)]
    group.barrier()
    worker.leave()
    return found


def test_rows_belong_to_the_norm(tmp_path: Path) -> None:
    model = Net()
    for lane in range(LANES):
        loss(model, lane, 0).backward()
    whole = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    found = [crew("threads", tmp_path)(clipped, workers) for workers in (1, 2)]
    norms = list(itertools.chain(*found))
    assert all(each == norms[0] for each in norms)
    assert norms[0][0] == pytest.approx(float(whole), rel=1e-5)


def asynchronous(ahead: int) -> Any:
    weight, optimizer = weight_of(MAKERS["sgd"])
    server = Server(TOKEN)
    address = server.start("127.0.0.1")
    for part in range(2):
        server.carry(part, RowShard(Table(ROWS, DIM), (part, 2), optimizer, weight, Clocks(ahead)))
    client = Client(TOKEN, dict.fromkeys(range(2), Route(address)))
    return server, client, Asked({"w": Table(ROWS, DIM)}, 2, 0, client)


def test_rows_are_pushed_and_pulled_by_each_replica_for_itself() -> None:
    server, client, asked = asynchronous(3)
    try:
        server.consist_of([0, 1])
        for step in range(3):
            for replica in (0, 1):
                asked.rows("w", torch.tensor([1, 4]), step=step)
                ids, gradient = pushes(2 * step + replica)
                asked.give("w", ids, gradient, replica, step)
                asked.give("w", ids, gradient, replica, step)  # as if no answer had come
        found = asked.rows("w", torch.arange(ROWS), version=6)
        assert torch.equal(found, lazily(MAKERS["sgd"], 6))
        chunks = list(asked.chunks("w", rows=15))
        assert [first for first, _ in chunks] == [0, 15, 30]
        assert torch.equal(torch.cat([rows for _, rows in chunks]), found)
    finally:
        client.close()
        server.close()
