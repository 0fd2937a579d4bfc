"""A run that lodges in a sweep's house: what its coordinator asks for, and what the driver is told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.waiting import until

from headway.core import chronicle
from headway.core.events import Launch
from headway.core.membership import Policy
from headway.elastic.crew import told
from headway.elastic.crew.running import Running
from headway.elastic.wire import messages as wire


class House:
    def __init__(self) -> None:
        self.seats: list[str] = []
        self.unseated: list[str] = []
        self.given_up: list[str] = []
        self.out: list[int] = []
        self.news: list[told.Told] = []

    def seat(self, leg: int, wanted: Launch) -> None:
        self.seats.append(wanted.worker)

    def unseat(self, leg: int, worker: str, given_up: bool) -> None:
        self.unseated.append(worker)
        self.given_up += [worker] if given_up else []

    def moved_out(self, leg: int) -> None:
        self.out.append(leg)

    def tell(self, news: told.Told) -> None:
        self.news.append(news)


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def running(house: House) -> Iterator[Running]:
    recorded: list[dict[str, Any]] = []
    recorder = SimpleNamespace(event=SimpleNamespace(remote=recorded.append), recorded=recorded)
    found = Running(told.Given(7, Policy(4, 1, 2), False, 20, recorder, {}), house, "node")
    found.open("127.0.0.1")
    yield found
    found.coordinator.close()


def test_it_asks_the_house_for_workers_and_says_where_it_is(house: House, running: Running) -> None:
    until(lambda: house.seats == ["w0", "w1"], "two are asked for")
    place = running.place("w0")
    assert (place.host, place.worker) == ("127.0.0.1", "w0")
    assert place.port > 0
    running.resize(9)
    until(lambda: house.seats == ["w0", "w1", "w2", "w3"], "no more than its lanes can carry")
    running.resize(0)
    until(lambda: set(house.unseated) == {"w1", "w2", "w3"}, "and one at least")


def test_one_that_nobody_works_for_leaves_at_once(house: House, running: Running) -> None:
    until(lambda: len(house.seats) == 2, "workers are asked for")
    running.coordinator.leave("paused")
    until(lambda: house.out == [7], "it is out")
    assert house.news == [told.Ended(7, 0, None)]
    assert running.over
    running.coordinator.leave("stopped")
    running.resize(2)
    assert running.account() == dict.fromkeys(running.account(), 0.0)


def test_an_evaluation_is_told_once_and_a_stand_of_it_too(house: House, running: Running) -> None:
    lead = running.coordinator
    until(lambda: len(house.seats) == 2, "workers are asked for")
    lead.placed("w0", "n", None)
    until(lambda: "w0" in lead.membership.workers, "it has a place")
    for step, stands in ((10, False), (10, False), (20, True), (20, True), (10, False)):
        lead.heard("w0", wire.Evaluated(step, {"loss": "nan", "accuracy": "0.5"}, stands))
    said = [(news.step, news.stands) for news in house.news if isinstance(news, told.Evaluated)]
    assert said == [(10, False), (20, True)]
    values = next(news for news in house.news if isinstance(news, told.Evaluated)).values
    assert values["accuracy"] == 0.5
    assert values["loss"] != values["loss"]


@pytest.mark.parametrize(("cause", "given_up"), [("hung", ["w0"]), ("unreachable", ["w0"]), ("process_died", [])])
def test_a_process_that_may_be_there_and_is_given_up_is_ended_at_once(
    house: House, running: Running, cause: str, given_up: list[str]
) -> None:
    lead = running.coordinator
    until(lambda: len(house.seats) == 2, "workers are asked for")
    lead.placed("w0", "n", None)
    until(lambda: "w0" in lead.membership.workers, "it has a place")
    lead.gone("w0", cause)
    until(lambda: house.unseated == ["w0"], "it is let go")
    assert house.given_up == given_up


def test_what_the_sweep_asks_for_is_kept_and_not_said(house: House, running: Running) -> None:
    running.resize(3)
    recorded = running.given.recorder.recorded
    until(lambda: any(event["kind"] == "resize" for event in recorded), "it is kept")
    kept = next(event for event in recorded if event["kind"] == "resize")
    assert chronicle.live(kept) == ""
    assert "3 workers" in chronicle.tell(kept).text


def test_one_that_cannot_listen_is_over_and_says_why(house: House) -> None:
    recorder = SimpleNamespace(event=SimpleNamespace(remote=lambda event: None))
    found = Running(told.Given(3, Policy(2, 1, 2), False, 20, recorder, {}), house, "node")
    found.open("203.0.113.7")  # of nobody's machine (RFC 5737)
    (ended,) = house.news
    assert isinstance(ended, told.Ended)
    assert ended.failure is not None
    assert ended.failure["kind"] == "internal"
    assert house.out == [3]
    found.coordinator.close()


def test_one_that_is_to_leave_before_it_began_asks_for_nobody(house: House) -> None:
    recorder = SimpleNamespace(event=SimpleNamespace(remote=lambda event: None))
    found = Running(told.Given(4, Policy(2, 1, 2), False, 20, recorder, {}), house, "node")
    found.coordinator.leave("stopped")
    found.open("127.0.0.1")
    until(lambda: house.out == [4], "it is out")
    found.resize(2)
    assert [news for news in house.news if isinstance(news, told.Ended)] == [told.Ended(4, 0, None)]
    found.coordinator.close()
    assert house.seats == []
