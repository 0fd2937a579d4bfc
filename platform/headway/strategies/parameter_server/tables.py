"""Served tables as a worker has them: rows are asked for in a lane, and their gradients given back after it.

Rows come over sockets, one worker at a time, since who needs which rows when is the model's business; a step's
gradients go over the group, where all meet anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import methodcaller

import torch

from headway.core.ranges import backed_up, carriers
from headway.strategies.group import Group
from headway.strategies.lost import PeerLost
from headway.strategies.parameter_server.client import Client
from headway.strategies.parameter_server.rows import Table, added, by_range, coalesced, packed
from headway.strategies.parameter_server.server import Server

Rows = tuple[torch.Tensor, torch.Tensor]
"""Numbers, int64, and gradients, float32 of shape [rows, dim]."""


def number_of(table: int, part: int, ranges: int, first: int) -> int:
    """At servers, the number of a table's range: those of dense parameters come first."""
    return first + table * ranges + part


class Asked:
    """Pulls of a run's tables.

    Args:
        tables: by the names of their weights, in the same order on all workers.
        ranges: of each.
        first: number of the first table's first range, see `number_of`.
        client: of the servers.
    """

    def __init__(self, tables: Mapping[str, Table], ranges: int, first: int, client: Client) -> None:
        self.tables, self.ranges = dict(tables), ranges
        self._first, self._client = first, client
        self._places = {name: place for place, name in enumerate(self.tables)}

    def number(self, name: str, part: int) -> int:
        """At servers, of a range."""
        return number_of(self._places[name], part, self.ranges, self._first)

    def rows(self, name: str, ids: torch.Tensor, step: int = -1, version: int = 0) -> torch.Tensor:
        """Values of rows; float32, shape [ids, dim].

        Args:
            name: of the table.
            ids: int64, shape [ids].
            step: as of `Client.pull`.
            version: likewise.

        Raises:
            PeerLost: nobody answers.
        """
        found = torch.empty(len(ids), self.tables[name].dim)
        for part, where in enumerate(by_range(ids, self.ranges)):
            if len(where):
                values, _ = self._client.pull(self.number(name, part), step, version, ids[where])
                found[where] = values.view(len(where), -1)
        return found

    def chunks(self, name: str, version: int = 0, rows: int = 1 << 16) -> Iterator[tuple[int, torch.Tensor]]:
        """All of a table, for who writes it down: number of the first row, and values, shape [rows, dim].

        Raises:
            PeerLost: nobody answers.
        """
        for first in range(0, self.tables[name].rows, rows):
            ids = torch.arange(first, min(self.tables[name].rows, first + rows))
            yield first, self.rows(name, ids, version=version)

    def give(self, name: str, ids: torch.Tensor, gradient: torch.Tensor, replica: int, step: int) -> None:
        """A replica's gradient in a step, once for each table: an update of its own (ssp, asp).

        Rows that come twice are summed; ranges of which no row is in it hear of the step too.

        Raises:
            PeerLost: nobody answers.
        """
        ids, gradient = coalesced(ids, gradient)
        for part, where in enumerate(by_range(ids, self.ranges)):
            content = packed(ids[where], gradient[where])
            self._client.push(self.number(name, part), content, replica=replica, step=step)


class Summed:
    """Tables in a run with bsp; the `Source` of its embeddings. For one generation of workers.

    A step: `begin`, `lane` before each, `finish`, `pend` before the parameters' update, and `commit` after it.

    Args:
        asked: pulls.
        lanes: of the run.
        group: of the workers; None for one alone.
        carried: numbers of the ranges by rank, of every table alike.
        server: this worker's, which has its ranges and its copies of others' (`RowShard`).
        at: steps that were committed, which is what the version of every range is.
        fail_over: each range is with the next worker as well.
    """

    def __init__(
        self,
        asked: Asked,
        *,
        lanes: int,
        group: Group | None,
        carried: Sequence[Sequence[int]],
        server: Server,
        at: int,
        fail_over: bool = True,
    ) -> None:
        self._asked, self._lanes, self._server, self._at = asked, lanes, server, at
        self._group = group if group is not None and group.size > 1 else None
        self._rank, self._size = (group.rank, group.size) if group is not None else (0, 1)
        self._own, self._carriers = sorted(carried[self._rank]), carriers(carried)
        self._fails_over = fail_over and self._group is not None
        self._copies = backed_up(carried, self._rank) if self._fails_over else ()
        self._used: dict[str, dict[int, list[Rows]]] = {}
        self._sums: dict[tuple[str, int], Rows] = {}
        self._lane = -1
        self._loss: PeerLost | None = None

    # In a lane

    def begin(self) -> None:
        """Before a step, also one that is repeated."""
        self._used = {name: {} for name in self._asked.tables}
        self._sums, self._lane, self._loss = {}, -1, None

    def lane(self, number: int) -> None:
        """What is given from here on is this lane's."""
        self._lane = number

    def pull(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """As after the last step that was committed: a carrier that has not got there yet is waited for.

        Raises nothing for a lost worker, since it is called in the user's forward pass: `finish` does.
        """
        try:
            if self._loss is None:
                return self._asked.rows(name, ids, version=self._at)
        except PeerLost as error:
            self._loss = error
        return torch.zeros(len(ids), self._asked.tables[name].dim)

    def push(self, name: str, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        """Kept until `finish`."""
        self._used[name].setdefault(self._lane, []).append((ids, gradient))

    # At the end of a step

    def require(self) -> None:
        """Raises PeerLost: rows that were asked for did not come."""
        if self._loss is not None:
            if self._group is not None:
                self._group.sever()  # the others wait for this worker
            raise self._loss

    def finish(self) -> list[float]:
        """Have the sums of the rows that are carried here, and of those that are copied.

        Returns:
            Of each range of each table, the sum of the gradient's squares; the same on all workers.

        Raises:
            PeerLost: a worker went away; nothing has changed.
        """
        self.require()
        squares: list[list[float]] = []
        for name, table in self._asked.tables.items():
            came = self._to_carriers(self._by_lane(name), table.dim)
            sums = {part: added(_of(came, part, self._asked.ranges), self._lanes, table.dim) for part in self._own}
            found = {part: float(torch.linalg.vector_norm(sums[part][1].double()).square()) for part in self._own}
            told = self._group.gather(found) if self._group is not None else [found]
            squares.append([told[self._carriers[part]][part] for part in range(self._asked.ranges)])
            sums |= self._handed_on(sums, table.dim)
            self._sums |= {(name, part): rows for part, rows in sums.items()}
        return [value for each in squares for value in each]

    def pend(self, factor: float = 1.0) -> None:
        """After `finish`: what is known is every shard's next update, multiplied by this."""
        for (name, part), rows in self._sums.items():
            change = methodcaller("pend", packed(*rows), factor)
            self._server.change(self._asked.number(name, part), change)

    def commit(self) -> None:
        """Make it."""
        self._at += 1
        for name in self._asked.tables:
            for part in (*self._own, *self._copies):
                self._server.change(self._asked.number(name, part), methodcaller("settle", self._at))
        self.begin()

    # Inside

    def _by_lane(self, name: str) -> dict[int, Rows]:
        """Each lane's rows once, however often they were pulled in it."""
        found = {}
        for lane, each in self._used[name].items():
            ids, gradients = (torch.cat(parts) for parts in zip(*each, strict=True))
            found[lane] = coalesced(ids, gradients)
        return found

    def _to_carriers(self, by_lane: Mapping[int, Rows], dim: int) -> dict[int, Rows]:
        """By lane, all rows that are carried here."""
        if self._group is None:
            return dict(by_lane)
        labels: list[list[torch.Tensor]] = [[] for _ in range(self._size)]
        values: list[list[torch.Tensor]] = [[] for _ in range(self._size)]
        for lane, (ids, gradients) in sorted(by_lane.items()):
            for part, where in enumerate(by_range(ids, self._asked.ranges)):
                to = self._carriers[part]
                labels[to].append(torch.stack([torch.full_like(where, lane), ids[where]], dim=1))
                values[to].append(gradients[where])
        label, value = _exchanged(self._group, labels, values, dim)
        return {int(lane): (label[at, 1], value[at]) for lane in label[:, 0].unique() for at in [label[:, 0] == lane]}

    def _handed_on(self, sums: Mapping[int, Rows], dim: int) -> dict[int, Rows]:
        """The sums to the worker after this one, and those of the one before."""
        if self._group is None or not self._fails_over:
            return {}
        labels: list[list[torch.Tensor]] = [[] for _ in range(self._size)]
        values: list[list[torch.Tensor]] = [[] for _ in range(self._size)]
        for part, (ids, gradients) in sums.items():
            labels[(self._rank + 1) % self._size].append(torch.stack([torch.full_like(ids, part), ids], dim=1))
            values[(self._rank + 1) % self._size].append(gradients)
        label, value = _exchanged(self._group, labels, values, dim)
        return {part: (label[at, 1], value[at]) for part in self._copies for at in [label[:, 0] == part]}


def _of(came: Mapping[int, Rows], part: int, ranges: int) -> dict[int, Rows]:
    """Of each lane's rows, those of one range, ascending."""
    found = {}
    for lane, (ids, gradients) in came.items():
        here = ids % ranges == part
        found[lane] = coalesced(ids[here], gradients[here])
    return found


def _exchanged(
    group: Group, labels: Sequence[Sequence[torch.Tensor]], values: Sequence[Sequence[torch.Tensor]], dim: int
) -> Rows:
    """Rows to each rank, and what came from all: two numbers that each is labelled with, and its values.

    Raises:
        PeerLost: a worker went away.
    """
    counts = [sum(len(each) for each in of_one) for of_one in labels]
    to_me = [told[group.rank] for told in group.gather(counts)]
    flat = torch.cat([each for of_one in labels for each in of_one] or [torch.empty(0, 2, dtype=torch.int64)])
    rows = torch.cat([each for of_one in values for each in of_one] or [torch.empty(0, dim)])
    found = []
    for sent, width in ((flat, 2), (rows, dim)):
        came = torch.empty(sum(to_me) * width, dtype=sent.dtype, device=group.device)
        there = sent.contiguous().view(-1).to(group.device)
        group.all_to_all(came, there, [n * width for n in to_me], [n * width for n in counts]).wait()
        group.confirm()
        found.append(came.cpu().view(-1, width))
        group.confirm()
    return found[0], found[1]
