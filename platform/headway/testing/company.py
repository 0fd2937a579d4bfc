"""A session's other workers without a lead: who is in which generation, and who is lost when, is said beforehand.

The members are workers of a crew (`headway.testing.workers`), so that what a session does with a group can be tried on
every kind of group. They find one another through a store that they share.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headway.core.gate import Gate, Word
from headway.core.spots import spots
from headway.core.watch import At
from headway.elastic.worker.line import Dismissed, News, Start
from headway.elastic.worker.pact import Pact
from headway.strategies import PeerLost
from headway.testing import workers

if TYPE_CHECKING:
    import torch

    from headway.strategies.group import Group

POLL_S = 0.01
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Generation:
    """One of a script's.

    Args:
        members: the crew's ranks, in order of rank.
        after: committed steps after which it is known; all agree in the step that follows, and enter after that. None:
            it comes when the one before has broken.
    """

    members: tuple[int, ...]
    after: int | None = None


@dataclass(frozen=True)
class Slip:
    """A worker takes an exchange for a broken one.

    Args:
        worker: its rank in the crew.
        verb: "sum" (a step's), "agree" (on the names of its records) or "total" (an evaluation's), when it is complete:
            the others are one ahead then; "give" (a state) when some of it is given, or all.
        step: that it comes at.
        buckets: that are given.
        dies: it is lost itself.
    """

    worker: int
    verb: str
    step: int
    buckets: int = 0
    dies: bool = False


class Company:
    """The `Members` of one worker. All of the crew must make theirs, with the same arguments.

    Args:
        group: that the crew made; it is closed, for a device has one group at a time.
        folder: shared by all.
        script: the generations in their order; a worker is in some of them.
        lanes: of the job.
        slips: each happens once.
        paused: the step of a gate at which all are told to leave.
    """

    def __init__(
        self,
        group: Group,
        folder: str,
        script: Sequence[Generation],
        lanes: int,
        slips: Sequence[Slip] = (),
        paused: int | None = None,
    ) -> None:
        self.until = -1 if paused is None else paused
        self.at = At.STARTING
        self.save_wanted: str | None = None
        self.been: list[int] = []
        """Numbers of the generations that this worker was in, from 1."""
        self.busy: list[bool] = []
        """Whether it came into them from the midst of an evaluation."""
        self.told: list[tuple[str, int]] = []
        """Of replicas that differed."""
        self._me, self._crew, self._folder = group.rank, group, folder
        self._script, self._lanes = list(script), lanes
        self._slips = [slip for slip in slips if slip.worker == self._me]
        self._number = self.step = 0
        self._store = workers.store(folder)
        self._held: Group | None = None
        self.say("here")
        for rank in range(group.size):
            self.heard(f"here/{rank}")
        group.close()

    @property
    def running(self) -> bool:
        return self._me not in self._script[0].members

    @property
    def news(self) -> bool:
        if self._number >= len(self._script):
            return False
        after = self._script[self._number].after
        return after is not None and self.step >= after

    @property
    def broken(self) -> bool:
        return bool(self._store.check([f"broken/{self._number}"]))

    @property
    def leaving(self) -> str:
        return "paused" if 0 <= self.until <= self.step else ""

    def stand(self, step: int, wait: bool) -> Word:
        return Gate(self.until, "paused").word(step, 0, 0, False)

    def evaluated(self, step: int, values: dict[str, float], stands: bool) -> None:
        pass

    def alone(self) -> Pact:
        return Pact(0, 0, (_name(self._me),), (), None, self)

    def ready(self) -> None:
        pass

    def meet(
        self, step: int, exchanges: int, busy: bool, pause: Callable[[], None], account: Callable[[str], None]
    ) -> Start:
        self._held = None
        while True:
            self._number += 1
            if self._number > len(self._script):
                raise Dismissed(f"worker {self._me} is in no further generation")
            members = self._script[self._number - 1].members
            if self._me in members:
                break
        self.busy.append(busy)
        self.say(f"position/{self._number}", [step, exchanges])
        found = [json.loads(self.heard(f"position/{self._number}/{rank}")) for rank in members]
        positions = tuple((at, done) for at, done in found)
        newest = max(positions)
        source = positions.index(newest) if newest[0] >= 0 else None
        rank = members.index(self._me)
        names = tuple(map(_name, members))
        share = tuple(range(self._lanes))[rank :: len(members)]
        return Start(News(self._number, names, share, False), rank, source, positions, spots(names)[rank])

    def join(self, start: Start) -> Pact:
        number, size = start.news.number, len(start.news.members)
        self.been.append(number)
        group = None
        if size > 1:
            name = f"generation-{number}"
            group = workers.connect_again(self._crew, name, start.rank, size, self._folder, lambda: self.broken)
            self._held = group
            threading.Thread(target=self._sever_when_broken, args=(number, group), daemon=True).start()
        return _Pact(self, number, start.rank, start.news.members, start.news.lanes, group)

    def lost(self, pact: Pact, error: PeerLost) -> None:
        self._store.set(f"broken/{self._number}", str(error))
        if pact.group is not None:
            pact.group.sever()

    def waits(self, waiting: bool) -> None:
        pass

    def may_commit(self, alone: bool) -> None:
        pass

    def began(self, step: int) -> None:
        pass

    def committed(self, pact: Pact, step: int, pause_s: float, first: bool) -> None:
        self.step = step

    def moved(self, lane_s: float | None = None) -> None:
        pass

    def diverged(self, worker: str, step: int) -> None:
        self.told.append((worker, step))

    def finished(self) -> None:
        pass

    # For the test, and the pact

    def slip(self, verb: str) -> Slip | None:
        """What is to be done to this exchange, once."""
        due = next((slip for slip in self._slips if (slip.verb, slip.step) == (verb, self.step)), None)
        if due is not None:
            self._slips.remove(due)
        return due

    def wait_for_all(self, pact: Pact) -> None:
        """Until all members have come to this place, or the generation is broken."""
        self.say(f"passed/{pact.generation}")
        for rank in self._script[pact.generation - 1].members:
            self.heard(f"passed/{pact.generation}/{rank}", f"broken/{pact.generation}")

    def say(self, what: str, value: Any = None) -> None:
        """Under a name that this worker's rank in the crew is put to: what/rank."""
        self._store.set(f"{what}/{self._me}", json.dumps(value))

    def heard(self, *keys: str) -> str:
        """The value of the first of these that is there."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            for key in keys:
                if self._store.check([key]):
                    return str(self._store.get(key).decode())
            time.sleep(POLL_S)
        raise AssertionError(f"worker {self._me} waited for {keys[0]} in vain")

    def _sever_when_broken(self, number: int, group: Group) -> None:
        """As the line to the lead does: who waits in an exchange does not look up."""
        while self._held is group:
            if self._store.check([f"broken/{number}"]):
                group.sever()
                return
            time.sleep(POLL_S)


class Notes:
    """Takes what a session reports, in place of the journal."""

    stop_requested = False

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.compared: list[int] = []
        self.weights = ""
        self.leads = False
        self.start = 0
        self.made = ""
        """Name of the start that the run's records are of, where it may go on from what a keeper has."""

    def enter(self, leads: bool) -> None:
        self.leads = leads

    def restart(self, start: int, found: bool = False) -> None:
        self.start = start
        self.steps.clear()

    def journal(self) -> dict[str, Any]:
        return {"start": self.start, "steps": self.steps}

    def take(self, journal: dict[str, Any]) -> None:
        self.start, self.steps = journal["start"], list(journal["steps"])

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self.steps.append({"step": step, "loss": loss, "rows": rows, "samples": samples})

    def replicas(self, step: int, digest: str) -> None:
        self.compared.append(step)

    def kept(self) -> dict[str, Any]:
        return {"start": self.start, "entries": [], "whole_from": 0}

    def records(self) -> dict[str, Any]:
        return {"start": self.start, "step": 2**62, "made": self.made, "origin": ("", -1)}

    def ended(self, step: int, weights_sha256: str, reason: str = "") -> None:
        self.weights = weights_sha256

    def settle(self) -> bool:
        return True

    def allows(self, step: int) -> bool:
        return True

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None


class _Pact(Pact):
    def __init__(
        self,
        company: Company,
        generation: int,
        rank: int,
        names: tuple[str, ...],
        lanes: tuple[int, ...],
        group: Group | None,
    ) -> None:
        super().__init__(generation, rank, names, lanes, group, company)
        self._company, self._exchanges = company, itertools.count()

    def sum(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = super().sum(tail)
        self._slip("sum")
        return found

    def agree(self, value: Any) -> list[Any]:
        found = super().agree(value)
        self._slip("agree")
        return found

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        found = super().total(tensor)
        self._slip("total")
        return found

    def give(self, tree: Any, receivers: Sequence[int]) -> None:
        slip, whole = self._company.slip("give"), self.group
        if slip is not None:
            self.group = _Cut(whole, slip)  # type: ignore[assignment]
        try:
            super().give(tree, receivers)
        finally:
            self.group = whole

    def barrier(self) -> None:
        """Nobody leaves before all have passed: on gloo, who leaves may break off one that has not."""
        super().barrier()
        self._company.wait_for_all(self)

    def close(self) -> None:
        self._company._held = None
        super().close()

    def _slip(self, verb: str) -> None:
        """Not before the others have what they need: else it broke off at them too."""
        self._company.say(f"done/{self.generation}/{(exchange := next(self._exchanges))}")
        slip = self._company.slip(verb)
        if slip is not None:
            for name in self.names:
                self._company.heard(f"done/{self.generation}/{exchange}/{name[1:]}", f"broken/{self.generation}")
            _break_off(slip)


class _Cut:
    """A group over which a state is given, but for its end."""

    def __init__(self, group: Any, slip: Slip) -> None:
        self._group, self._slip, self._given = group, slip, 0

    def start_send(self, tensor: torch.Tensor, to: int) -> Any:
        if self._given == self._slip.buckets:
            _break_off(self._slip)
        self._given += 1
        return self._group.start_send(tensor, to)

    def confirm(self) -> None:
        _break_off(self._slip)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)


def _break_off(slip: Slip) -> None:
    if slip.dies:
        workers.die()
    raise PeerLost("taken for a broken one")


def _name(rank: int) -> str:
    return f"w{rank}"
