"""Served tables of a run with bsp: each worker serves the rows that it carries, and keeps copies of those of the worker
before it. Beside the model, nobody has a table as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import torch

from headway.core.clocks import Clocks
from headway.core.ranges import backed_up, carriers
from headway.elastic.worker.served import started
from headway.errors import BadCheckpoint
from headway.job import Job
from headway.strategies.kept import Kept, Tree
from headway.strategies.parameter_server.client import Client, Route
from headway.strategies.parameter_server.embedding import ServedEmbedding, served
from headway.strategies.parameter_server.rows import RowShard, reranged
from headway.strategies.parameter_server.server import Role, Server
from headway.strategies.parameter_server.tables import Asked, Summed, number_of

if TYPE_CHECKING:
    from headway.elastic.worker.engine import Engine


def building(job: Job) -> AbstractContextManager[None]:
    """In which a job's model is built: without the tables that the job says are served."""
    return served() if job.strategy.sparse else nullcontext()


class Tables:
    """See the module. A range of each table for each lane, carried with it; its version is the number of steps that
    are committed. For who trains it is the embeddings' `Source`.

    Args:
        engine: of this worker.
        modules: as `headway.strategies.parameter_server.embedding.tables` finds them.
    """

    def __init__(self, engine: Engine, modules: Mapping[str, ServedEmbedding]) -> None:
        self._engine, self._modules, self._names = engine, dict(modules), list(modules)
        self._ranges = engine.job.units
        self._fail_over = engine.job.strategy.fail_over
        self._kept = Kept()
        """Ranges that are here while members change."""
        self._server: Server | None = None
        self._client: Client | None = None
        self._summed: Summed | None = None
        for module in self._modules.values():
            module.source = self

    # From generation to generation

    def begin(self, kept: Mapping[int, Tree]) -> None:
        """All begin from a state that was kept, or from the first.

        Args:
            kept: what a checkpoint has of the tables' ranges, see `told`; on rank 0 alone.

        Raises:
            BadCheckpoint: it has other tables, or none.
        """
        self._close()
        self._kept = Kept()
        at = self._engine.replica.step
        if self._engine.pact.rank or not (kept or at):
            return
        by_table: dict[str, list[Tree]] = {}
        for tree in kept.values():
            by_table.setdefault(str(tree["table"]), []).append(tree)
        shapes = {name: [module.table.rows, module.table.dim] for name, module in self._modules.items()}
        found = {name: list(trees[0]["shape"]) for name, trees in by_table.items()}
        if found != shapes:
            raise BadCheckpoint(
                f"the checkpoint of step {at} has served tables {found or 'none'}, and the model has {shapes}",
                "rows of a table are kept by its name, and are of its shape",
                "Put the task and strategy.sparse back as they were when the run began, or start a new run.",
            )
        for name, trees in by_table.items():
            trees.sort(key=lambda tree: int(tree["part"]))
            if len(trees) != self._ranges:
                trees = reranged(trees, self._ranges, shapes[name][1])
            for part, tree in enumerate(trees):
                self._kept.own[self._number(name, part)] = {**tree, "at": at, "clocks": {}}

    def levelled(self) -> None:
        """Those ahead have made the update that is known here too. (Before this worker has their rates of learning,
        which are those of the next one.)"""
        self._settle(self._engine.replica.step + 1)

    def settle(self, carried: tuple[tuple[int, ...], ...]) -> list[str]:
        """The members are others: every range goes to its carrier, and a copy to the one after.

        Args:
            carried: numbers of the ranges of each table by rank.

        Returns:
            Names of the tables of which something is lost.

        Raises:
            PeerLost: a worker is gone.
        """
        from headway.strategies.parameter_server import hand_over

        engine, pact, at = self._engine, self._engine.pact, self._engine.replica.step
        self._settle(at)
        self._close()
        self._kept.common["at"] = at
        every = tuple(
            tuple(self._number(name, part) for name in self._names for part in sorted(parts)) for parts in carried
        )
        with pact.waiting():
            lost = hand_over(pact.group, every, self._kept, torch.device("cpu"), self._fail_over)
        if lost:
            return sorted({self._names[number // self._ranges] for number in lost})
        token, server, addresses = started(engine)
        self._server = server
        for number in every[pact.rank]:
            server.carry(number, self._shard(number, self._kept.own))
        for number in backed_up(every, pact.rank) if self._fail_over else ():
            server.copy(number, self._shard(number, self._kept.backups))
        self._kept = Kept()  # a second copy of it would be as large
        routes = {number: Route(addresses[rank]) for number, rank in carriers(every).items()}
        self._client = Client(
            token, routes, local=(addresses[pact.rank], server), given_up=lambda: engine.members.broken
        )
        asked = Asked({name: each.table for name, each in self._modules.items()}, self._ranges, 0, self._client)
        self._summed = Summed(
            asked,
            lanes=engine.job.lanes,
            group=pact.group,
            carried=carried,
            server=server,
            at=at,
            fail_over=self._fail_over,
        )
        self._summed.begin()
        pact.barrier()  # nobody asks before all can answer
        return []

    def close(self) -> None:
        """The session is over: serve nobody."""
        self._close()
        self._kept = Kept()

    # For the embeddings

    def pull(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """As of `Summed`; first values where this worker only warms up and is in no generation yet."""
        if self._summed is None:
            return self._modules[name].table.first(ids)
        with self._engine.account("communication"), self._engine.pact.waiting():
            return self._summed.pull(name, ids)

    def push(self, name: str, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        """Likewise; thrown away there."""
        if self._summed is not None:
            self._summed.push(name, ids, gradient)

    # A step

    def start(self) -> None:
        """Before a pass over lanes, also one that is done again."""
        if self._summed is not None:
            self._summed.begin()

    def lane(self, number: int) -> None:
        """What is computed from here on is of this lane."""
        if self._summed is not None:
            self._summed.lane(number)

    def require(self) -> None:
        """Raises PeerLost: rows that were asked for did not come."""
        if self._summed is not None:
            self._summed.require()

    def finish(self) -> list[float]:
        """As of `Summed`. Raises PeerLost."""
        with self._engine.account("communication"), self._engine.pact.waiting():
            return self._now.finish()

    def pend(self, factor: float) -> None:
        """As of `Summed`."""
        self._now.pend(factor)

    def commit(self) -> None:
        """Likewise."""
        self._now.commit()

    # Checkpoints

    def gather(self) -> dict[int, Tree]:
        """Have all rows that were ever updated on rank 0, by number of the range. Raises PeerLost."""
        pact, server = self._engine.pact, self._server
        assert server is not None
        mine = {
            number: self._told(number, tree)
            for number, tree in server.trees().items()
            if server.role(number) is Role.CARRIER
        }
        found = pact.collect({str(number): tree for number, tree in mine.items()})
        return {int(number): tree for each in found for number, tree in each.items()}

    # Inside

    @property
    def _now(self) -> Summed:
        assert self._summed is not None, "the session has not begun"
        return self._summed

    def _number(self, name: str, part: int) -> int:
        return number_of(self._names.index(name), part, self._ranges, 0)

    def _shard(self, number: int, trees: Mapping[int, Tree]) -> RowShard:
        place, part = divmod(number, self._ranges)
        module = self._modules[self._names[place]]
        optimizer = self._engine.replica.optimizer
        return RowShard(module.table, (part, self._ranges), optimizer, module.weight, Clocks(None), trees.get(number))

    def _told(self, number: int, tree: Tree) -> dict[str, Any]:
        place, part = divmod(number, self._ranges)
        table = self._modules[self._names[place]].table
        kept = ("at", "ids", "values", "rowwise", "common")
        about = {"table": self._names[place], "part": part, "shape": [table.rows, table.dim]}
        return {**{key: tree[key] for key in kept}, **about}

    def _settle(self, version: int) -> None:
        """An update that was under way is made if it was the one before so many, else forgotten."""
        if self._server is not None:
            for number in self._server.trees():
                self._server.change(number, methodcaller("settle", version))

    def _close(self) -> None:
        """Serve nobody; what was served stays here."""
        if self._client is not None:
            self._client.close()
        if self._server is not None:
            self._server.close()
            for number, tree in self._server.trees().items():
                carries = self._server.role(number) is Role.CARRIER
                (self._kept.own if carries else self._kept.backups)[number] = tree
        self._client, self._server, self._summed = None, None, None
