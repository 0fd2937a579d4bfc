"""The way to the other workers: word of generations, and the pact of each.

`Alone` is a worker with nobody else and no lead; `Led` is one of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headway.core.gate import Word
from headway.core.pace import Typical
from headway.core.spots import Spot, spots
from headway.core.watch import At
from headway.elastic.wire import messages as wire
from headway.elastic.worker.line import Line, News, Start
from headway.elastic.worker.pact import Pact
from headway.strategies import PeerLost
from headway.strategies.connect import connect, limits
from headway.strategies.group import Group

LOOPBACK = "127.0.0.1"
"""Of a worker that is told no address."""


class Members(Protocol):
    """What the session asks."""

    at: At
    """What the training thread is at, for the lead's patience."""

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

    @property
    def until(self) -> int:
        """Where the gate is; -1: there is none."""

    @property
    def leaving(self) -> str:
        """Why all are to leave, at the gate or after the step that is under way; empty: they are not."""

    def stand(self, step: int, wait: bool) -> Word:
        """What to do after so many steps. Arguments and errors as of `Line.stand`."""

    def evaluated(self, step: int, values: dict[str, float], stands: bool) -> None:
        """All were evaluated. Arguments as of `wire.Evaluated`."""

    @property
    def address(self) -> str:
        """Of this machine, for the others."""

    @property
    def staying(self) -> tuple[int, tuple[str, ...]] | None:
        """Number and members of a planned generation that comes next, as far as is known."""

    def alone(self) -> Pact:
        """What a worker has before its first generation: nobody else, and no lanes."""

    def ready(self) -> None:
        """This worker has warmed up."""

    def meet(
        self, step: int, exchanges: int, busy: bool, pause: Callable[[], None], account: Callable[[str], None]
    ) -> Start:
        """Wait for the next generation's members. Arguments as of `Line.await_start`."""

    def join(self, start: Start) -> Pact:
        """Build the generation's group.

        Raises:
            PeerLost: a member went away meanwhile.
        """

    def lost(self, pact: Pact, error: PeerLost) -> None:
        """The exchange broke off, here."""

    def began(self, step: int) -> None:
        """Nobody had a state, and all begin at this step: of a checkpoint, or 0."""

    def committed(self, pact: Pact, step: int, pause_s: float, first: bool) -> None:
        """A step is committed; the first of its generation, or not."""

    def moved(self, lane_s: float | None = None) -> None:
        """The training thread gets on; lane_s: seconds that a lane took."""

    def diverged(self, worker: str, step: int) -> None:
        """A member's replica differed, and is healed."""

    def finished(self) -> None:
        """All steps are done."""


class Led:
    """A worker of a run.

    Args:
        line: connected.
        backend: gloo or nccl.
        address: of this node, as the other workers reach it.
        show: told its spot when the membership changed.
        silence_s: of the job.
        longest_s: for which a member may keep the others waiting and be in order.
        rounding: how this machine rounds; see `rounding.digest`.
    """

    def __init__(
        self,
        line: Line,
        backend: str,
        address: str,
        show: Callable[[Spot], None],
        silence_s: float = 2.0,
        longest_s: float = 900.0,
        rounding: str = "",
    ) -> None:
        self._rounding = rounding
        self._line, self._backend, self._address, self._show = line, backend, address, show
        self._patience = {"silence_s": silence_s, "longest_s": longest_s}
        self._before = At.STARTING
        self._generation = 0
        self._rank = 0
        self._lane = Typical()

    @property
    def at(self) -> At:
        return self._line.at

    @at.setter
    def at(self, at: At) -> None:
        self._line.at = at

    @property
    def running(self) -> bool:
        return self._line.running

    @property
    def news(self) -> bool:
        return self._line.changed

    @property
    def broken(self) -> bool:
        return self._line.broken

    @property
    def save_wanted(self) -> str | None:
        wanted, self._line.save_wanted = self._line.save_wanted, None
        return wanted

    @property
    def until(self) -> int:
        return self._line.until

    @property
    def leaving(self) -> str:
        return self._line.leaving

    def stand(self, step: int, wait: bool) -> Word:
        return self._line.stand(step, wait)

    def evaluated(self, step: int, values: dict[str, float], stands: bool) -> None:
        self._line.tell(wire.Evaluated(step, {name: repr(float(value)) for name, value in values.items()}, stands))

    @property
    def address(self) -> str:
        return self._address or LOOPBACK

    @property
    def staying(self) -> tuple[int, tuple[str, ...]] | None:
        return self._line.staying

    def alone(self) -> Pact:
        return Pact(0, 0, (self._line.place.worker,), (), None, self)

    def ready(self) -> None:
        self._line.tell(wire.Ready(self._rounding))

    def meet(
        self, step: int, exchanges: int, busy: bool, pause: Callable[[], None], account: Callable[[str], None]
    ) -> Start:
        self._line.hold(None, self._generation)
        return self._line.await_start(step, exchanges, busy, pause, account)

    def join(self, start: Start) -> Pact:
        news = start.news
        self._generation, self._rank = news.number, start.rank
        self._line.hold(None, news.number)
        group: Group | None = None
        if len(news.members) > 1:
            group = connect(
                self._line.store(news.number),
                start.rank,
                len(news.members),
                backend=self._backend,
                address=self._address,
                limits=limits(len(news.members), backend=self._backend, **self._patience),
                given_up=lambda: self._line.superseded(news.number),
            )
        self._line.hold(group, news.number)
        self._show(start.spot)
        return Pact(news.number, start.rank, news.members, news.lanes, group, self)

    def lost(self, pact: Pact, error: PeerLost) -> None:
        self._line.lost(self._generation, str(error))
        if pact.group is not None:
            pact.group.sever()  # others may wait for this worker in an exchange that cannot end

    def waits(self, waiting: bool) -> None:
        if waiting:
            self._before, self._line.at = self._line.at, At.EXCHANGE
        else:
            self._line.at = self._before
        self._line.waiting = waiting

    def may_commit(self, alone: bool) -> None:
        if alone and self._line.broken:
            raise PeerLost("another generation was published")
        self._line.may_commit()

    def began(self, step: int) -> None:
        self._line.step = step

    def committed(self, pact: Pact, step: int, pause_s: float, first: bool) -> None:
        self._line.step = step
        if first:
            self._line.tell(wire.Committed(pact.generation, step, pause_s))

    def moved(self, lane_s: float | None = None) -> None:
        self._line.moved()
        if lane_s is not None:
            self._lane.note(lane_s)
            self._line.lane_s = self._lane.seconds

    def diverged(self, worker: str, step: int) -> None:
        if self._rank == 0:
            self._line.tell(wire.Diverged(worker, step))

    def finished(self) -> None:
        self._line.tell(wire.Finished())


class Alone:
    """A worker with nobody else: the whole of a run in one process, as in tests.

    Args:
        lanes: of the job.
        group: likewise for tests with a group that does not change.
        share: lanes that this worker carries; all when not given.
    """

    running = news = broken = False
    leaving = ""
    until = -1
    save_wanted: str | None = None
    address = LOOPBACK
    staying: tuple[int, tuple[str, ...]] | None = None
    at = At.STARTING

    def __init__(self, lanes: int, group: Group | None = None, share: tuple[int, ...] | None = None) -> None:
        self._group = group
        self._lanes = share if share is not None else tuple(range(lanes))

    def stand(self, step: int, wait: bool) -> Word:
        return Word.PASS

    def evaluated(self, step: int, values: dict[str, float], stands: bool) -> None:
        pass

    def alone(self) -> Pact:
        return Pact(0, 0, ("w0",), (), None, self)

    def ready(self) -> None:
        pass

    def meet(
        self, step: int, exchanges: int, busy: bool, pause: Callable[[], None], account: Callable[[str], None]
    ) -> Start:
        rank, size = (self._group.rank, self._group.size) if self._group else (0, 1)
        names = tuple(f"w{number}" for number in range(size))
        return Start(News(1, names, self._lanes, True), rank, None, ((-1, 0),) * size, spots(names)[rank])

    def join(self, start: Start) -> Pact:
        news = start.news
        return Pact(news.number, start.rank, news.members, news.lanes, self._group, self)

    def lost(self, pact: Pact, error: PeerLost) -> None:
        raise error

    def waits(self, waiting: bool) -> None:
        pass

    def may_commit(self, alone: bool) -> None:
        pass

    def began(self, step: int) -> None:
        pass

    def committed(self, pact: Pact, step: int, pause_s: float, first: bool) -> None:
        pass

    def moved(self, lane_s: float | None = None) -> None:
        pass

    def diverged(self, worker: str, step: int) -> None:
        pass

    def finished(self) -> None:
        pass
