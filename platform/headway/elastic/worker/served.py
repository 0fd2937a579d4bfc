"""Replicas that go on against servers' weights (ssp, asp, backup workers): each worker serves the ranges that
it carries, and keeps copies of those of the worker before it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from headway.core import rounds
from headway.core.clocks import Clocks, FirstOf
from headway.elastic.worker import update
from headway.elastic.worker.bodies import Bodies
from headway.strategies import PeerLost
from headway.strategies.kept import Kept, Tree
from headway.strategies.outer import Met, Round
from headway.strategies.parameter_server import Cut, is_elementwise
from headway.strategies.parameter_server.apart import Apart
from headway.strategies.parameter_server.averaged import Averaged
from headway.strategies.parameter_server.client import Client, Route
from headway.strategies.parameter_server.server import Address, Role, Server
from headway.strategies.parameter_server.slab import Slab

if TYPE_CHECKING:
    from headway.elastic.worker.engine import Engine

LOOK_S = 0.05
AT_ONCE = 4
"""Ranges that are asked for at the same time."""


def started(engine: Engine) -> tuple[bytes, Server, list[Address]]:
    """A server on every worker. Returns what they know one another by, this worker's, and where all are, by rank.

    Raises:
        PeerLost: a worker is gone.
    """
    pact = engine.pact
    token = bytes.fromhex(pact.gather(secrets.token_hex(16))[0])
    server = Server(token)
    address = server.start(engine.members.address)
    try:
        return token, server, [(str(host), int(port)) for host, port in pact.gather(list(address))]
    except PeerLost:
        server.close()
        raise


class Served:
    """See the module. One range for each replica, carried with it.

    Args:
        engine: of this worker.
        bodies: of its replicas.
    """

    averages_state = False

    def __init__(self, engine: Engine, bodies: Bodies) -> None:
        self._engine, self._options, self._bodies = engine, engine.job.strategy, bodies
        replica = engine.replica
        self._count = self._options.count(engine.job)
        self._cut = Cut(replica.known, self._count, whole=not is_elementwise(replica.optimizer))
        self._server: Server | None = None
        self._client: Client | None = None
        self._trees: dict[int, Tree] = {}
        """Ranges that are here while members change."""
        self._inherited: dict[int, Tree] = {}
        """Of those that are about to leave."""
        self._apart: dict[int, Apart] = {}
        """By replica that is carried here."""
        self._needed = self._count - self._options.backup_workers if self._options.backup_workers else None
        """Replicas with which a step is complete, where it is without all."""
        self._begun_at = 0
        """The step that was under way when this generation began, where a step is complete without all."""
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="headway-served")

    # From generation to generation

    def begin(self, trees: Mapping[int, Tree]) -> None:
        """All begin anew; trees: that were kept, if this worker has them."""
        self.close()
        self._trees = dict(trees)

    def trees(self) -> dict[int, Tree]:
        """Of the ranges that are carried here."""
        server = self._server
        if server is None:
            return {}
        return {n: tree for n, tree in server.trees().items() if server.role(n) is Role.CARRIER}

    def close(self) -> None:
        """Serve nobody; what was served stays here."""
        if self._client is not None:
            self._client.close()
        if self._server is not None:
            self._server.close()
            self._trees |= self._server.trees()  # where it did not come to serve them, they are where they were
            for number, tree in self._inherited.items():
                if number not in self._trees or age(tree) > age(self._trees[number]):
                    self._trees[number] = tree
            self._inherited = {}
        self._client, self._server, self._apart = None, None, {}

    def settle(self, carried: tuple[tuple[int, ...], ...], done: Mapping[int, int]) -> list[int]:
        """The members are others: every range goes to its carrier, and a copy to the one after.

        Args:
            carried: ranges, which are replicas, by rank.
            done: of the replicas carried here, the steps that each has done.

        Returns:
            Those that nobody had: they have the weights of the round's beginning.

        Raises:
            PeerLost: a worker is gone.
        """
        self.close()
        pact = self._engine.pact
        told = pact.gather({str(n): [*age(t), t.get("step", 0)] for n, t in self._trees.items()})
        found = [{int(n): tuple(map(int, words)) for n, words in each.items()} for each in told]
        steps: dict[int, int] = {}
        lost: list[int] = []
        wanted: dict[int, list[int]] = {}
        for rank, numbers in enumerate(carried):
            after = rounds.successor(rank, pact.size)
            for number in numbers:
                copied = self._options.fail_over and after != rank
                wanted[number] = [rank, after] if copied else [rank]
        for number in sorted(wanted):
            newest = max((has[number] for has in found if number in has), default=None)
            if newest is None:
                lost.append(number)
                continue
            steps[number] = newest[2]
            source = next(rank for rank, has in enumerate(found) if has.get(number) == newest)
            for target in wanted[number]:
                if found[target].get(number) == newest:
                    continue
                if pact.rank == source:
                    pact.give(self._trees[number], [target])
                elif pact.rank == target:
                    self._trees[number] = pact.take(source, [target], None)
        mine = [number for number, ranks in wanted.items() if pact.rank in ranks]
        self._serve(wanted, {number: self._trees.get(number) for number in mine}, done, steps)
        self._trees = {}
        return lost

    def _serve(
        self,
        wanted: dict[int, list[int]],
        trees: dict[int, Tree | None],
        done: Mapping[int, int],
        steps: dict[int, int],
    ) -> None:
        engine, pact = self._engine, self._engine.pact
        # A range that is begun anew has not seen these steps, and nobody is to wait until it does.
        told = pact.gather({str(r): step for r, step in done.items()})
        of_all = {int(r): int(step) for each in told for r, step in each.items()}
        steps = {number: steps.get(number, max(of_all.values(), default=0)) for number in wanted}
        self._begun_at = min(steps.values(), default=0)
        token, self._server, at = started(engine)
        server, address = self._server, at[pact.rank]
        rated = self._options.rate == "staleness"
        for number, tree in trees.items():
            store = self._store(number, tree, of_all, steps[number])
            (carrier, *copies), term = wanted[number], int((tree or {}).get("term", 0))
            if carrier == pact.rank:
                server.carry(number, store, at[copies[0]] if copies else None, rated, term)
            else:
                server.copy(number, store, rated, term)
        routes = {n: Route(at[ranks[0]], at[ranks[1]] if len(ranks) > 1 else None) for n, ranks in wanted.items()}
        self._client = Client(token, routes, local=(address, server))
        pact.barrier()  # nobody asks before all can answer

    def _store(self, number: int, tree: Tree | None, done: Mapping[int, int], step: int) -> Slab:
        """Of a range. done: steps of all replicas; step: that is under way, where it is complete without all."""
        what = self._engine.replica.optimizer, self._cut.parameters, self._cut.ranges[number]
        if self._needed is not None:
            return Averaged(*what, FirstOf(self._needed, step), tree)
        clocks = Clocks(self._options.ahead, range(self._count))
        store = Slab(*what, clocks, tree)
        clocks.done = {r: max(clocks.of(r), at) for r, at in done.items()}
        return store

    def leave(self, carried: tuple[tuple[int, ...], ...], stays: frozenset[int]) -> None:
        """Some are about to leave: what they serve goes to who stays. Raises PeerLost."""
        pact = self._engine.pact
        self._inherited = {}
        for rank, numbers in enumerate(carried):
            heir = rounds.keeper(rank, pact.size, stays) if rank not in stays else None
            if heir is None:
                continue
            if pact.rank == rank:
                trees = self.trees()
                pact.give({str(n): trees[n] for n in numbers if n in trees}, [heir])
            elif pact.rank == heir:
                self._inherited |= {int(n): tree for n, tree in pact.take(rank, [heir], None).items()}

    # Steps

    def pull(self, replica: int, step: int) -> None:
        """Before a replica's step: have the newest weights in its place, once it may begin. Raises PeerLost."""
        client = self._asked()
        apart = self._apart.setdefault(replica, Apart(replica, self._cut, client, self._pool))
        with self._watched(client):
            apart.begin(step)

    @property
    def reached(self) -> int:
        """The step that is under way by what is known here, where one is complete without all: whoever is behind it is
        late, and leaves out what is complete. 0 where none is."""
        if self._needed is None:
            return 0
        return max(self._begun_at, *(each.reached for each in self._apart.values()), 0)

    def turn(self, replica: int, step: int) -> int:
        """Whose turn it is, of those carried here that are at this step: the lowest's. Where a step is complete without
        all, it is not always the same one that is last."""
        return replica if self._needed is None else (replica - step) % self._count

    def push(self, replica: int, share: float) -> bool:
        """The replica's gradients are at hand: each range makes its part of an update of them.

        Args:
            share: by which they are multiplied, so that those of all replicas together are those of a step.

        Returns:
            Whether something was made of them: not of what is late.

        Raises:
            PeerLost: a worker is gone; who adopts the replica sends the same again, which is taken once.
        """
        engine = self._engine
        if engine.job.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(engine.replica.trained, engine.job.clip_norm)
        elif engine.replica.clip is not None:
            engine.replica.clip(engine.replica.trained)
        update.scale(engine.replica.trained, share)
        with self._watched(self._asked()):
            return self._apart[replica].finish(1.0 if self._needed is None else share)

    def meet(self, given: Round, kept: Kept) -> Met:
        """All updates of the round are made: the weights are what the servers have."""
        with self._bodies.borrowed() as body:
            client = self._asked()
            with self._watched(client):
                Apart(-1, self._cut, client, self._pool).begin(-1)
            return Met(self._bodies.flat(body))

    def _asked(self) -> Client:
        assert self._client is not None
        return self._client

    @contextmanager
    def _watched(self, client: Client) -> Iterator[None]:
        """Whoever waits for a slow replica goes free as soon as the members change."""
        done, engine = threading.Event(), self._engine

        def look() -> None:
            while not done.wait(LOOK_S):
                if engine.members.broken or engine.leaves_round:
                    client.close()
                    return

        watcher = threading.Thread(target=look, name="headway-served", daemon=True)
        watcher.start()
        try:
            with self._engine.account("communication"), self._engine.pact.waiting():
                yield
        finally:
            done.set()
            watcher.join()


def age(tree: Tree) -> tuple[int, int]:
    """Of a range: of two that are kept of it the larger is the one that is served."""
    return int(tree.get("term", 0)), int(tree["at"])
