"""One replica that goes on by itself against the servers' values (ssp, asp, backup workers)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future

import torch

from headway.strategies.parameter_server.client import Client
from headway.strategies.parameter_server.cut import Cut
from headway.strategies.parameter_server.slab import packed, unpacked
from headway.strategies.parameter_server.tables import Asked


class Apart:
    """A step: `pull`, then the replica's lanes, which leave their gradients at the parameters, then `push`. It is the
    `Source` of served embeddings meanwhile.

    A worker that carries several takes them in turn, step by step: one that went further ahead than its clock allows
    would wait for another that is to come after it.

    Args:
        number: of the replica.
        cut: the run's parameters in ranges, of the same numbers at the servers.
        client: of the servers.
        pool: of at least two threads: ranges are asked for at the same time.
        tables: those that are served, if there are some.
    """

    def __init__(self, number: int, cut: Cut, client: Client, pool: Executor, tables: Asked | None = None) -> None:
        self.number, self.cut = number, cut
        self._client, self._pool, self._tables = client, pool, tables
        self._versions = [0] * len(cut.ranges)
        self._rooms = [torch.empty(sum(piece.size for piece in pieces)) for pieces in cut.ranges]
        self.reached = 0
        """Steps that all ranges have complete, as far as is known here (`Averaged`)."""
        self._step = -1
        self._used: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def begin(self, step: int) -> None:
        """Parameters get the servers' values, as soon as the replica may begin this step (`headway.core.clocks`).

        Args:
            step: of the replica; the first is 0.

        Raises:
            PeerLost: nobody answers; parameters may be of different age.
        """
        self._step, self._used = step, {}

        def one(number: int) -> None:
            room = self._rooms[number]
            _, self._versions[number] = self._client.pull(number, step=step, out=room)

        self._each(one)
        for pieces, room in zip(self.cut.ranges, self._rooms, strict=True):
            unpacked(pieces, room, self.cut.parameters)

    def finish(self, share: float = 1.0) -> bool:
        """The step's gradients become updates: of each range one, made once, though this be called again after a loss.

        Args:
            share: of the step's rows, by which gradients are multiplied, for those that are averaged.

        Returns:
            Whether a range took them; not where all were complete without them.

        Raises:
            PeerLost: nobody answers; some ranges may have theirs.
        """
        gradients = {number: p.grad for number, p in enumerate(self.cut.parameters)}

        taken = [False] * len(self.cut.ranges)

        def one(number: int) -> None:
            content, version = packed(self.cut.ranges[number], gradients), self._versions[number]
            given = self._client.offer(number, content, self.number, self._step, version, share)
            self._versions[number], taken[number] = given

        self._each(one)
        self.reached = min(self._versions, default=0)
        if self._tables is not None:
            for name, table in self._tables.tables.items():
                each = self._used.get(name, [])
                ids = torch.cat([ids for ids, _ in each]) if each else torch.empty(0, dtype=torch.int64)
                values = torch.cat([values for _, values in each]) if each else torch.empty(0, table.dim)
                self._tables.give(name, ids, values, self.number, self._step)
        return any(taken)

    def pull(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """As of `Source`.

        Raises:
            PeerLost: nobody answers.
        """
        assert self._tables is not None
        return self._tables.rows(name, ids)

    def push(self, name: str, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        """As of `Source`; kept until `finish`."""
        self._used.setdefault(name, []).append((ids, gradient))

    def _each(self, one: Callable[[int], None]) -> None:
        asked: list[Future[None]] = [self._pool.submit(one, number) for number in range(len(self.cut.ranges))]
        errors = [error for error in (each.exception() for each in asked) if error is not None]
        if errors:
            raise errors[0]
