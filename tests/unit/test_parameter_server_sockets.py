"""Servers and clients over sockets: exactly once, replicated before it is acknowledged, back within two seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stalls import Stalls
from torch import nn
from torch.optim import Optimizer

from headway.core.clocks import Clocks
from headway.errors import BadInput
from headway.strategies import PeerLost
from headway.strategies.group import Group
from headway.strategies.kept import Kept
from headway.strategies.parameter_server import hand_over
from headway.strategies.parameter_server.apart import Apart
from headway.strategies.parameter_server.client import Client, Route
from headway.strategies.parameter_server.cut import Cut
from headway.strategies.parameter_server.frames import FALLBACK, Connection, Frame, Verb, connected
from headway.strategies.parameter_server.server import PATIENCE_S, Address, Role, Server
from headway.strategies.parameter_server.slab import Slab, packed, unpacked
from headway.testing.workers import crew as crew_of

TOKEN = b"the run's"
HOST = "127.0.0.1"
RANGES = 2
MOMENTUM = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def model() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(9, 30), nn.Tanh(), nn.Linear(30, 3))
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
    return made


def gradients(parameters: list[nn.Parameter], step: int) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(step + 1)
    return [torch.randn(p.shape, generator=draws) for p in parameters]


class Crew:
    """Servers that carry ranges in turn, each with a copy at the next; every one with a model of its own."""

    def __init__(
        self,
        servers: int = 2,
        make: Callable[..., Optimizer] = MOMENTUM,
        ahead: int | None = None,
        rated: bool = False,
    ) -> None:
        self.models = [model() for _ in range(servers)]
        self.parameters = list(self.models[0].parameters())
        self.cut = Cut(self.parameters, RANGES)
        self.servers = [Server(TOKEN, patience_s=5.0) for _ in range(servers)]
        self.addresses = [server.start(HOST) for server in self.servers]
        self.optimizers = [make(each.parameters()) for each in self.models]
        self.routes: dict[int, Route] = {}
        self._open: list[Client | Connection] = []
        for number in range(RANGES):
            carrier, copy = number % servers, (number + 1) % servers
            follower = self.addresses[copy] if servers > 1 else None
            self.servers[carrier].carry(number, self.slab(carrier, number, ahead), follower, rated)
            if follower is not None:
                self.servers[copy].copy(number, self.slab(copy, number, ahead), rated)
            self.routes[number] = Route(self.addresses[carrier], follower)

    def slab(self, server: int, number: int, ahead: int | None) -> Slab:
        parameters = list(self.models[server].parameters())
        return Slab(self.optimizers[server], parameters, self.cut.ranges[number], Clocks(ahead))

    def client(self, patience_s: float = 10.0, limit_s: float = 20.0) -> Client:
        made = Client(TOKEN, self.routes, patience_s, limit_s)
        self._open.append(made)
        return made

    def link(self, server: int) -> Connection:
        made = connected(self.addresses[server], TOKEN, 5.0)
        self._open.append(made)
        return made

    def push(self, client: Client, step: int, replica: int = 0, number: int | None = None, **options: Any) -> list[int]:
        """Versions after it, by range."""
        found = dict(enumerate(gradients(self.parameters, 10 * replica + step)))
        return [
            client.push(each, packed(self.cut.ranges[each], found), replica=replica, step=step, **options)[1]
            for each in (range(RANGES) if number is None else [number])
        ]

    def pulled(self, client: Client) -> list[torch.Tensor]:
        into = [nn.Parameter(torch.empty_like(p)) for p in self.parameters]
        for number in range(RANGES):
            unpacked(self.cut.ranges[number], client.pull(number)[0], into)
        return [p.detach() for p in into]

    def close(self) -> None:
        for each in self._open:
            each.close()
        for server in self.servers:
            server.close()


@contextmanager
def crew(**options: Any) -> Iterator[Crew]:
    made = Crew(**options)
    try:
        yield made
    finally:
        made.close()


def plainly(make: Callable[..., Optimizer], steps: list[int]) -> list[torch.Tensor]:
    """A loop in one process."""
    parameters = list(model().parameters())
    optimizer = make(parameters)
    for step in steps:
        for parameter, gradient in zip(parameters, gradients(parameters, step), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [p.detach() for p in parameters]


def require_equal(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for number, (mine, right) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(mine, right), f"parameter {number}"


def wait_until(true: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


MAKERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.01),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.1),
}


@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("name", MAKERS)
def test_pushes_make_the_updates_of_a_plain_loop(name: str, servers: int) -> None:
    with crew(servers=servers, make=MAKERS[name]) as made:
        client = made.client()
        for step in range(4):
            assert made.push(client, step) == [step + 1] * RANGES
        require_equal(made.pulled(client), plainly(MAKERS[name], list(range(4))))


def test_push_and_pull_in_one_round_trip() -> None:
    with crew() as made:
        client = made.client()
        content = packed(made.cut.ranges[0], dict(enumerate(gradients(made.parameters, 0))))
        out = torch.empty(sum(piece.size for piece in made.cut.ranges[0]))
        values, version = client.push(0, content, replica=0, step=0, pull=True, out=out)
        assert version == 1
        assert values.data_ptr() == out.data_ptr(), "read into the memory that was given"
        assert torch.equal(out, client.pull(0)[0])


def test_a_gradient_that_is_not_there_moves_nothing() -> None:
    make = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    with crew(servers=1, make=make) as made:
        client = made.client()
        for number in range(RANGES):
            client.push(number, packed(made.cut.ranges[number], {0: torch.ones(30, 9)}), replica=0, step=0)
        found = made.pulled(client)
        require_equal(found[1:], [p.detach() for p in made.parameters[1:]])
        assert not torch.equal(found[0], made.parameters[0])


def test_a_push_that_comes_again_is_made_once() -> None:
    with crew() as made:
        client = made.client()
        for step in range(3):
            for _ in range(3):
                assert made.push(client, step) == [step + 1] * RANGES
        require_equal(made.pulled(client), plainly(MOMENTUM, [0, 1, 2]))


def test_copies_are_the_same_as_what_they_copy() -> None:
    with crew() as made:
        client = made.client()
        for step in range(3):
            made.push(client, step)
        for number in range(RANGES):
            here, there = made.servers[number].store(number), made.servers[1 - number].store(number)
            assert isinstance(here, Slab)
            assert isinstance(there, Slab)
            mine, copy = here.tree(), there.tree()
            assert torch.equal(mine.pop("values"), copy.pop("values"))
            assert mine["at"] == copy["at"] == 3
            assert mine["clocks"] == copy["clocks"] == {0: 3}


@pytest.mark.parametrize("gone", [0, 1])
def test_a_lost_server_costs_no_acknowledged_update(gone: int) -> None:
    with crew() as made:
        client = made.client()
        for step in range(3):
            made.push(client, step)
        with Stalls() as stalls:
            begun = time.monotonic()
            made.servers[gone].close()
            values, version = client.pull(gone)
            assert time.monotonic() - begun - stalls.lost_s(begun) < 2.0
        assert version == 3
        assert len(values)
        other = made.servers[1 - gone]
        assert other.role(gone) is Role.CARRIER
        other.follow(1 - gone, None)  # as who decides on members does
        for step in range(2, 6):  # the last acknowledged one again
            made.push(client, step)
        require_equal(made.pulled(client), plainly(MOMENTUM, list(range(6))))


@contextmanager
def silent() -> Iterator[Address]:
    """Somebody who lets others connect, and says nothing: a process that is stopped."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[:2]


def test_who_is_silent_is_left_for_its_copy_within_two_seconds() -> None:
    with crew() as made, silent() as address, Stalls() as stalls:
        made.push(made.client(), 0)
        made.routes[0] = Route(address, made.addresses[1])
        client = Client(TOKEN, made.routes)
        begun = time.monotonic()
        assert client.pull(0)[1] == 1
        assert time.monotonic() - begun - stalls.lost_s(begun) < 2.0
        begun = time.monotonic()
        assert made.push(client, 1, number=0) == [2]
        assert time.monotonic() - begun - stalls.lost_s(begun) < PATIENCE_S, "it is remembered"
        client.close()


def test_ones_own_server_is_asked_without_a_connection() -> None:
    with crew() as made:
        client = Client(TOKEN, {1: Route(made.addresses[1])}, local=(made.addresses[1], made.servers[1]))
        made.servers[1]._listener.close()  # type: ignore[union-attr]  # there is no way to connect
        out = torch.empty(sum(piece.size for piece in made.cut.ranges[1]))
        content = packed(made.cut.ranges[1], dict(enumerate(gradients(made.parameters, 0))))
        assert client.push(1, content, replica=0, step=0, pull=True, out=out)[1] == 1
        assert torch.equal(out, client.pull(1)[0])


def test_without_its_copy_a_server_promises_nothing() -> None:
    with crew() as made:
        made.servers[1].close()
        client = made.client(limit_s=0.5)
        with pytest.raises(PeerLost, match="no server of range 0"):
            made.push(client, 0, number=0)
        made.servers[0].follow(0, None)
        client = made.client()
        assert made.push(client, 0, number=0) == [1], "it was made here, once"


def test_a_carrier_that_somebody_gave_up_promises_nothing_any_more() -> None:
    with crew() as made:
        one, other = made.client(), made.client()
        made.push(one, 0)
        link = made.link(1)
        link.send(Frame(Verb.PULL, 0, flags=FALLBACK))  # as one who cannot reach the carrier
        assert link.receive()[0].verb is Verb.DONE
        assert made.push(other, 0, replica=1, number=0) == [2], "it finds who carries the range"
        assert made.servers[0].role(0) is Role.DEPOSED
        assert made.servers[1].role(0) is Role.CARRIER
        assert made.push(one, 1, number=0) == [3]


def test_an_update_that_the_copy_may_lack_comes_before_any_other() -> None:
    """The copy is made to lose the first connection after it took an update: carrier and copy stay the same."""
    with crew() as made:
        client = made.client()
        original, cut = made.servers[1]._done, threading.Event()

        def lossy(held: Any, frame: Frame, content: torch.Tensor, room: Any) -> Any:
            found = original(held, frame, content, room)
            if frame.verb is Verb.FORWARD and not cut.is_set():
                cut.set()
                raise ConnectionResetError("cut")
            return found

        made.servers[1]._done = lossy  # type: ignore[method-assign]
        made.push(client, 0, number=0)
        made.push(client, 0, replica=1, number=0)
        assert cut.is_set()
        trees = [server.store(0).tree() for server in made.servers]
        assert torch.equal(trees[0]["values"], trees[1]["values"])
        assert trees[0]["clocks"] == trees[1]["clocks"] == {0: 1, 1: 1}


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_fast_replica_waits_for_the_slowest(ahead: int) -> None:
    with crew(servers=1, ahead=ahead) as made, ThreadPoolExecutor(1) as pool:
        made.servers[0].consist_of([0, 1])
        client, other = made.client(limit_s=5.0), made.client()
        for step in range(ahead + 1):
            client.pull(0, step=step)
            made.push(client, step, number=0)
        waits = pool.submit(client.pull, 0, ahead + 1)
        with pytest.raises(TimeoutError):
            waits.result(0.4)
        made.push(other, 0, replica=1, number=0)
        assert waits.result(10.0)[1] == ahead + 2


def test_who_left_holds_nobody_up() -> None:
    with crew(servers=1, ahead=0) as made, ThreadPoolExecutor(1) as pool:
        made.servers[0].consist_of([0, 1])
        client = made.client()
        made.push(client, 0, number=0)
        waits = pool.submit(client.pull, 0, 1)
        with pytest.raises(TimeoutError):
            waits.result(0.3)
        made.servers[0].consist_of([0])
        assert waits.result(10.0)[1] == 1


def test_old_gradients_count_for_less() -> None:
    make = partial(torch.optim.SGD, lr=1.0)
    with crew(servers=1, make=make, rated=True) as made:
        client = made.client()
        for replica in range(3):  # all by the values of the beginning
            made.push(client, 0, replica=replica, version=0)
        wanted = [p.detach().clone() for p in made.parameters]
        for replica, factor in enumerate((1.0, 1.0, 0.5)):
            for value, gradient in zip(wanted, gradients(made.parameters, 10 * replica), strict=True):
                value -= gradient * factor
        require_equal(made.pulled(client), wanted)


def test_many_push_at_once_and_none_is_lost() -> None:
    make = partial(torch.optim.SGD, lr=1.0)
    with crew(make=make) as made, ThreadPoolExecutor(4) as pool:

        def replica(number: int) -> None:
            client = made.client()
            ones = {n: torch.ones_like(p) for n, p in enumerate(made.parameters)}
            for step in range(10):
                for each in range(RANGES):
                    client.push(each, packed(made.cut.ranges[each], ones), replica=number, step=step)

        list(pool.map(replica, range(4)))
        wanted = [p.detach().clone() for p in made.parameters]
        for value in wanted:
            for _ in range(40):
                value -= 1.0
        require_equal(made.pulled(made.client()), wanted)


def test_nothing_is_lost_or_made_twice_when_a_server_goes_in_the_middle() -> None:
    make = partial(torch.optim.SGD, lr=1.0)
    with crew(make=make) as made, ThreadPoolExecutor(4) as pool:
        acknowledged = threading.Semaphore(0)

        def replica(number: int) -> None:
            client = made.client()
            ones = {n: torch.ones_like(p) for n, p in enumerate(made.parameters)}
            for step in range(20):
                for each in range(RANGES):
                    client.push(each, packed(made.cut.ranges[each], ones), replica=number, step=step)
                    acknowledged.release()

        running = [pool.submit(replica, number) for number in range(4)]
        for _ in range(40):
            assert acknowledged.acquire(timeout=20.0)
        made.servers[0].close()
        made.servers[1].follow(1, None)
        for each in running:
            each.result(30.0)
        wanted = [p.detach().clone() for p in made.parameters]
        for value in wanted:
            for _ in range(80):
                value -= 1.0
        require_equal(made.pulled(made.client()), wanted)


@pytest.mark.parametrize("ahead", [0, 2, None])
def test_replicas_train_by_themselves_and_not_too_far_apart(ahead: int | None) -> None:
    """Three find the values of a fourth model, each from rows of its own; the second is slow."""
    aim = model()
    with torch.no_grad():
        [*aim.parameters()][-1].add_(1.0)
    with crew(make=partial(torch.optim.SGD, lr=0.05), ahead=ahead) as made, ThreadPoolExecutor(9) as pool:
        for server in made.servers:
            server.consist_of(range(3))
        done = [0, 0, 0]
        apart = []

        def error(of: nn.Module, draws: torch.Generator) -> torch.Tensor:
            x = torch.randn(16, 9, generator=draws)
            value: torch.Tensor = (of(x) - aim(x).detach()).square().mean()
            return value

        def replica(number: int) -> float:
            mine, client = model(), made.client()
            parts = Apart(number, Cut(list(mine.parameters()), RANGES), client, pool)
            draws = torch.Generator().manual_seed(number)
            for step in range(40):
                parts.begin(step)
                apart.append(step - min(done))
                mine.zero_grad()
                loss = error(mine, draws)
                loss.backward()
                if number == 1:
                    time.sleep(0.002)  # slower than the others
                parts.finish()
                done[number] += 1
            return float(loss.detach())

        with ThreadPoolExecutor(3) as workers:
            found = list(workers.map(replica, range(3)))
        assert made.client().pull(0)[1] == 120
        first = float(error(model(), torch.Generator().manual_seed(9)).detach())
        assert max(found) < first / 10
        if ahead is not None:
            assert max(apart) <= ahead + 1, "`done` is written just after the push"


def test_a_tree_goes_on_where_it_was() -> None:
    with crew(servers=1, make=MAKERS["adam"]) as made:
        client = made.client()
        for step in range(2):
            made.push(client, step)
        trees = [made.servers[0].store(number).tree() for number in range(RANGES)]
    with crew(servers=1, make=MAKERS["adam"]) as again:
        for number, tree in enumerate(trees):
            parameters = list(again.models[0].parameters())
            slab = Slab(again.optimizers[0], parameters, again.cut.ranges[number], Clocks(None), tree)
            again.servers[0].carry(number, slab)
        client = again.client()
        again.push(client, 1)  # which was taken
        again.push(client, 2)
        require_equal(again.pulled(client), plainly(MAKERS["adam"], [0, 1, 2]))


def unseen(slab: Slab) -> None:
    """An update that is made at one place only."""
    slab.apply(torch.zeros(slab.head_bytes + slab.flat.nbytes, dtype=torch.uint8), 1.0)


def hands_over(group: Group) -> list[int]:
    """Ranges go on at other servers, after one of them was taken over by its copy: what the old carrier had beyond
    that was promised to nobody."""
    parameters = list(model().parameters())
    cut, optimizer = Cut(parameters, RANGES), MOMENTUM(parameters)
    kept, carried = Kept(), [[0], [1]]
    for turn in range(3):
        server = Server(TOKEN)
        addresses = [tuple(each) for each in group.gather(list(server.start(HOST)))]
        rank = group.rank
        for number in (carried[rank][0], carried[1 - rank][0]):
            tree = {**kept.own, **kept.backups}.get(number)
            slab, term = (
                Slab(optimizer, parameters, cut.ranges[number], Clocks(None), tree),
                int((tree or {}).get("term", 0)),
            )
            if number == carried[rank][0]:
                server.carry(number, slab, addresses[1 - rank], term=term)
            else:
                server.copy(number, slab, term=term)
        group.barrier()
        routes = {n: Route(addresses[carried.index([n])], addresses[1 - carried.index([n])]) for n in range(RANGES)}
        client = Client(TOKEN, routes, 5.0)
        for number in range(RANGES):
            content = packed(cut.ranges[number], dict(enumerate(gradients(parameters, 10 * rank + turn))))
            client.push(number, content, replica=rank, step=turn)
        group.barrier()
        if turn == 0 and rank == 0:
            server.change(0, unseen)
            link = connected(addresses[1], TOKEN, 5.0)
            link.send(Frame(Verb.PULL, 0, flags=FALLBACK))
            assert link.receive()[0].version == 2
            link.close()
        group.barrier()
        client.close()
        server.close()
        kept.own, kept.backups = server.trees(), {}
        carried = carried[::-1]
        assert hand_over(group, carried, kept, newest=True) == ()
    mine = carried[group.rank][0]
    assert kept.own[mine]["at"] == kept.backups[1 - mine]["at"] == 6
    return [kept.own[mine]["term"], mine]


def test_ranges_go_on_at_other_servers(tmp_path: Path) -> None:
    assert sorted(crew_of("threads", tmp_path)(hands_over, 2)) == [[0, 1], [1, 0]]


def test_a_push_of_another_cut_is_refused_with_words() -> None:
    with crew(servers=1) as made, pytest.raises(BadInput, match="a push of 8 bytes is not of range 0"):
        made.client().push(0, torch.zeros(2), replica=0, step=0)


def test_without_the_token_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with crew(servers=1) as made:
        with pytest.raises(OSError):  # noqa: PT011  however the closed connection shows
            connected(made.addresses[0], b"another", 5.0)
        client = Client(b"another", made.routes, 0.3, 0.3)
        with pytest.raises(PeerLost):
            client.pull(0)
        with socket.create_connection(made.addresses[0], timeout=5.0) as link:
            link.sendall(b"\0" * 200)
            received = b"x"
            while received:
                try:
                    received = link.recv(100)
                except ConnectionResetError:
                    break
        assert made.client().pull(0)[1] == 0, "the server serves on"


def test_a_client_is_not_deceived_by_who_does_not_know_the_token() -> None:
    with socket.create_server((HOST, 0)) as listener:

        def deceive() -> None:
            link, _ = listener.accept()
            with link:
                link.sendall(b"\1" * 64)
                wait_until(lambda: len(link.recv(1000)) == 0)

        thread = threading.Thread(target=deceive)
        thread.start()
        with pytest.raises(PeerLost, match="no server of this run"):
            connected(listener.getsockname()[:2], TOKEN, 5.0)
        thread.join()


def test_nobody_at_all_is_a_lost_peer() -> None:
    with socket.socket() as held:  # so that no other test takes it; nobody listens there
        held.bind((HOST, 0))
        free: Address = held.getsockname()[:2]
        with pytest.raises(PeerLost, match="Refused"):
            Client(TOKEN, {0: Route(free)}, 0.2, 0.2).pull(0)


def test_closing_ends_who_waits() -> None:
    with crew(servers=1, ahead=0) as made, ThreadPoolExecutor(1) as pool:
        made.servers[0].consist_of([0, 1])
        client = made.client()
        made.push(client, 0, number=0)
        waits = pool.submit(client.pull, 0, 1)
        client.close()
        with pytest.raises(PeerLost):
            waits.result(10.0)


def test_what_is_no_frame_ends_the_connection() -> None:
    with crew(servers=1) as made:
        link = made.link(0)
        link._link.sendall(b"x" * 100)
        with pytest.raises(OSError):  # noqa: PT011  however the closed connection shows
            link.receive()
