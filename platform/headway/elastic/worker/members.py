"""This worker's place among the others: rank, size, lanes and group of its generation, and the way to the next one.

`Alone` is a worker with nobody else and no coordinator; `Led` is one of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from headway.elastic.worker.line import Control, Start
from headway.strategies import PeerLost
from headway.strategies.group import Group, connect

CONNECT_S = 5.0
COLLECTIVE_S = 600.0


class Members(Protocol):
    """What the session asks. Fields: rank, size, lanes (of this worker), group (None: nobody else), generation."""

    rank: int
    size: int
    lanes: tuple[int, ...]
    group: Group | None
    generation: int

    @property
    def running(self) -> bool:
        """Whether the others trained already when this worker came."""

    @property
    def news(self) -> bool:
        """Whether a newer generation is known."""

    @property
    def broken(self) -> bool:
        """Whether a member of this one is gone."""

    @property
    def save_wanted(self) -> str | None:
        """Why a checkpoint is asked for, once."""

    def ready(self) -> None:
        """This worker has warmed up."""

    def meet(self, step: int, exchanges: int, pause: Callable[[], None], account: Callable[[str], None]) -> Start:
        """Wait for the next generation's members. Arguments as of `Control.await_start`."""

    def join(self, start: Start) -> None:
        """Build the generation's group.

        Raises:
            PeerLost: a member went away meanwhile.
        """

    def lost(self, error: PeerLost) -> None:
        """The exchange broke off, here."""

    def let_go(self) -> None:
        """Leave the group."""

    def may_commit(self) -> None:
        """Returns when a step may be committed; raises Dismissed or PeerLost if it may not."""

    def committed(self, step: int, pause_s: float, first: bool) -> None:
        """A step is committed; the first of its generation, or not."""

    def moved(self, lane_s: float | None = None) -> None:
        """The training thread gets on; lane_s: seconds that a lane took."""

    def waits(self, waiting: bool) -> None:
        """The training thread waits for the others, or does so no more."""

    def diverged(self, rank: int, step: int) -> None:
        """A member's replica differed, and was healed."""

    def finished(self) -> None:
        """All steps are done."""


class Led:
    """A worker of a run.

    Args:
        control: connected.
        backend: gloo or nccl.
        address: of this node, as the other workers reach it.
        show: told (rank, nodes) when the membership changed.
    """

    def __init__(
        self, control: Control, backend: str, address: str, show: Callable[[int, tuple[str, ...]], None]
    ) -> None:
        self._control, self._backend, self._address, self._show = control, backend, address, show
        self.rank, self.size, self.generation = 0, 1, 0
        self.lanes: tuple[int, ...] = ()
        self.group: Group | None = None
        self._lane_s: list[float] = []
        self._ranks: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        return self._control.running

    @property
    def news(self) -> bool:
        return self._control.changed

    @property
    def broken(self) -> bool:
        return self._control.broken

    @property
    def save_wanted(self) -> str | None:
        wanted, self._control.save_wanted = self._control.save_wanted, None
        return wanted

    def ready(self) -> None:
        self._control.tell("ready")

    def meet(self, step: int, exchanges: int, pause: Callable[[], None], account: Callable[[str], None]) -> Start:
        return self._control.await_start(step, exchanges, pause, account)

    def join(self, start: Start) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        number = start.news.number
        self.generation, self.rank, self.size = number, start.rank, len(start.news.members)
        self.lanes, self._ranks = start.news.lanes[start.rank], start.news.members
        self._control.hold(None, number)
        if self.size > 1:
            where = self._control.place
            # A client of its own for each generation: severing the group must be able to break its waits as well.
            store = TCPStore(where.host, where.store_port, is_master=False, wait_for_workers=False)
            self.group = connect(
                PrefixStore(f"generation/{number}", store),
                start.rank,
                self.size,
                backend=self._backend,
                address=self._address,
                timeout_s=COLLECTIVE_S,
                connect_s=CONNECT_S,
                given_up=lambda: self._control.superseded(number),
            )
        self._control.hold(self.group, number)
        self._show(start.rank, start.nodes)

    def lost(self, error: PeerLost) -> None:
        if not self._control.broken:
            self._control.tell("lost", generation=self.generation, reason=str(error)[-200:])
        if self.group is not None:
            self.group.sever()  # others may wait for this worker in an exchange that cannot end

    def let_go(self) -> None:
        group, self.group = self.group, None
        self._control.hold(None, self.generation)
        if group is not None:
            group.close()

    def may_commit(self) -> None:
        if self.size > 1:
            return  # the exchange itself proved that the generation is whole
        if self._control.broken:
            raise PeerLost("another generation was published")
        if not self._control.leased():
            self._control.await_lease()

    def committed(self, step: int, pause_s: float, first: bool) -> None:
        self._control.step = step
        if first:
            self._control.tell("committed", generation=self.generation, step=step, pause_s=pause_s)

    def moved(self, lane_s: float | None = None) -> None:
        self._control.mark += 1
        if lane_s is not None:
            self._lane_s = [*self._lane_s[-14:], lane_s]
            self._control.lane_s = sorted(self._lane_s)[len(self._lane_s) // 2]

    def waits(self, waiting: bool) -> None:
        self._control.waiting = waiting
        self._control.mark += 1

    def diverged(self, rank: int, step: int) -> None:
        if self.rank == 0:
            self._control.tell("diverged", worker=self._ranks[rank], step=step)

    def finished(self) -> None:
        self._control.tell("finished")


class Alone:
    """A worker with nobody else: the whole of a run in one process, as in tests.

    Args:
        lanes: of the job.
        rank: likewise for tests with a group that does not change.
        group: that group.
        share: lanes that this worker carries; all when not given.
    """

    running = news = broken = False
    save_wanted: str | None = None
    generation = 1

    def __init__(self, lanes: int, group: Group | None = None, share: tuple[int, ...] | None = None) -> None:
        self.group = group
        self.rank, self.size = (group.rank, group.size) if group else (0, 1)
        self.lanes = share if share is not None else tuple(range(lanes))

    def ready(self) -> None:
        pass

    def meet(self, step: int, exchanges: int, pause: Callable[[], None], account: Callable[[str], None]) -> Start:
        from headway.elastic.worker.line import News

        members = tuple(str(rank) for rank in range(self.size))
        return Start(
            News(1, members, (self.lanes,) * self.size, True), self.rank, None, ((-1, 0),) * self.size, members
        )

    def join(self, start: Start) -> None:
        pass

    def lost(self, error: PeerLost) -> None:
        raise error

    def let_go(self) -> None:
        pass

    def may_commit(self) -> None:
        pass

    def committed(self, step: int, pause_s: float, first: bool) -> None:
        pass

    def moved(self, lane_s: float | None = None) -> None:
        pass

    def waits(self, waiting: bool) -> None:
        pass

    def diverged(self, rank: int, step: int) -> None:
        pass

    def finished(self) -> None:
        pass


def now() -> float:
    """The clock of ledgers and pauses."""
    return time.monotonic()
