"""A run in the house: what its coordinator asks for is asked of the house, and what it tells is told to the driver."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from headway.core.demand import Worth
from headway.core.events import Launch
from headway.elastic.crew import told
from headway.elastic.lead.coordinator import Coordinator, Failure, internal
from headway.elastic.wire.messages import Evaluated
from headway.elastic.wire.place import Place


class Lodging(Protocol):
    """What a run asks of the house; nothing here may block."""

    def seat(self, leg: int, wanted: Launch) -> None:
        """Have a process work for it."""

    def unseat(self, leg: int, worker: str, given_up: bool) -> None:
        """It has no use for one any more. given_up: nor should anybody have."""

    def moved_out(self, leg: int) -> None:
        """It is over."""

    def tell(self, news: told.Told) -> None:
        """Let the driver know."""


class Running:
    """The effects of a run's coordinator, and the coordinator.

    Args:
        given: by the driver.
        house: where it lodges.
        node: the machine that this runs on.
    """

    def __init__(self, given: told.Given, house: Lodging, node: str) -> None:
        self.given, self._house = given, house
        self.coordinator = Coordinator(given.policy, self, node, given.alike, until=given.until, lasting=True)
        self.workers = 0
        """That train."""
        self.over = False
        self._port = 0
        self._account: dict[str, float] | None = None

    def open(self, host: str) -> None:
        """Begin to listen, and to ask for workers."""
        try:
            self._host, self._port = host, self.coordinator.start(host)
            self.coordinator.begin()
        except Exception as error:  # a machine without a port to spare, or a certificate that is of no use
            self.ended(internal("as a run's coordinator began", error))

    def resize(self, workers: int) -> None:
        """Let it have so many workers, at least one."""
        most = max(1, min(workers, self.given.policy.lanes))
        self.coordinator.resize(1, most, "the sweep")

    def place(self, worker: str) -> Place:
        """Of a worker of its."""
        lead = self.coordinator
        return Place(worker, self._host, self._port, lead.pulse_port, lead.token)

    def account(self) -> dict[str, float]:
        """Seconds by cause of its workers; of what they do once it is over the house gives account."""
        return self._account if self._account is not None else self.coordinator.account()

    def close(self) -> None:
        """Nobody works for it any more; does not wait for the end of its thread."""
        threading.Thread(target=self.coordinator.close, name=f"close-{self.given.leg}", daemon=True).start()

    # What the coordinator asks for; called in its thread

    def launch(self, wanted: Launch) -> None:
        self._house.seat(self.given.leg, wanted)

    def dismiss(self, worker: str) -> None:
        self._house.unseat(self.given.leg, worker, worker in self.coordinator.given_up)

    def record(self, event: dict[str, Any]) -> None:
        of_the_sweep = event["kind"] == "resize" or event.get("cause") in ("joined", "resized")
        self.given.recorder.event.remote({**event, "quiet": True} if of_the_sweep else event)

    def changed(self, members: list[str]) -> None:
        self.workers = len(members)

    def order(self, number: int, worth: Worth) -> None:
        pass  # what the sweep may have is ordered by the house

    def evaluated(self, said: Evaluated) -> None:
        values = {name: float(value) for name, value in said.values.items()}
        self._house.tell(told.Evaluated(self.given.leg, said.step, values, said.stands))

    def ended(self, failure: Failure | None) -> None:
        self._account, self.over, self.workers = self.coordinator.account(), True, 0
        self._house.tell(told.Ended(self.given.leg, self.coordinator.step, failure))
        self._house.moved_out(self.given.leg)
