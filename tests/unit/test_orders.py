"""Whose want of a place a cluster may know of that buys machines; and what a run's pace says of that."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from tests.waiting import until

from headway.core.events import Arrived, Committed, Gone, Launch, Placed, Ready, Tick
from headway.core.membership import Membership, Policy
from headway.core.prospect import COME_S, LATEST, SEVERAL, WARM_S, Prospect
from headway.elastic.lead import places, processes
from headway.elastic.lead.controller import ElasticController
from headway.elastic.lead.places import TRY_S, Orders, Places

EACH = {"CPU": 1.0}


def test_on_a_cluster_that_buys_nothing_everybody_may_wait() -> None:
    orders = Orders(buys=False, number=0)
    assert orders.admit("w7")


def test_those_that_were_asked_for_first_may_order_and_spares_last() -> None:
    orders = Orders(buys=True, number=2)
    for worker, spare in (("w10", False), ("w2", True), ("w9", False), ("w11", False)):
        orders.join(worker, spare)
    assert [w for w in ("w2", "w9", "w10", "w11") if orders.admit(w)] == ["w9", "w10"]
    orders.leave("w9", placed=True)
    assert not orders.admit("w11"), "one has a place, and one may order"
    orders.gone("w9")
    assert orders.admit("w11")
    assert not orders.admit("w2")
    assert orders.allow(4)
    assert not orders.allow(4)
    assert orders.admit("w2")


def test_room_is_tried_by_one_at_a_time_and_at_once_again_where_there_was_some() -> None:
    orders = Orders(buys=True, number=0)
    assert orders.may_try(1.0)
    assert not orders.may_try(1.1)
    orders.found()
    assert orders.may_try(1.2)
    assert orders.may_try(1.2 + TRY_S)
    orders.join("w0", False)
    orders.join("w1", False)
    assert orders.may_try(50.0)
    orders.allow(1)
    assert not orders.may_try(100.0), "what room there is belongs to the one that waits for it"


class Cloud:
    """Placement groups of a cluster with room for so many, and what it was asked for."""

    def __init__(self, free: int) -> None:
        self.free_places, self.lock = free, threading.Lock()
        self.by_worker: dict[str, Any] = {}
        self.asked = 0
        self.dropped: list[str] = []

    def group(self, bundles: list[dict[str, float]], name: str = "", bundle_label_selector: Any = None) -> Any:
        assert bundles == [EACH]
        self.asked += 1
        return SimpleNamespace(wait=self._wait)

    def _wait(self, seconds: float) -> bool:
        threading.Event().wait(0.005)
        with self.lock:
            found = self.free_places > 0
            self.free_places -= found
            return found

    def free(self, worker: str) -> None:
        if self.by_worker.pop(worker, None) is not None:
            self.dropped.append(worker)


class Seekers:
    """Workers that look for a place, each in a thread."""

    def __init__(self, cloud: Cloud, orders: Orders) -> None:
        self.cloud, self.orders = cloud, orders
        self.found: dict[str, Any] = {}
        self.unwanted: set[str] = set()
        self.over = threading.Event()
        self.came: list[float] = []
        args = (self._is_unwanted, lambda _: self.over.wait(0.005), orders, lambda _: None, self.came.append)
        self.places = Places(cloud, EACH, *args)

    def _is_unwanted(self, worker: str) -> bool:
        return self.over.is_set() or worker in self.unwanted

    def seek(self, *workers: str) -> None:
        for worker in workers:
            threading.Thread(target=self._seek, args=(worker,), daemon=True).start()
            until(lambda worker=worker: worker in self.orders._waiting or worker in self.found)  # type: ignore[misc]

    def _seek(self, worker: str) -> None:
        self.found[worker] = self.places.find(Launch(worker, 0.0, "wanted"))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    found = Cloud(0)
    monkeypatch.setattr(places, "placement_group", found.group)
    monkeypatch.setattr(places, "_elsewhere", lambda nodes: None)
    monkeypatch.setattr(places.room, "fits", lambda each: found.free_places > 0)
    return found


def test_nothing_waits_that_would_buy_a_machine_which_is_not_worth_it(cloud: Cloud) -> None:
    seekers = Seekers(cloud, Orders(buys=True, number=1))
    seekers.seek("w0", "w1", "w2")
    until(lambda: "w0" in cloud.by_worker)
    assert set(cloud.by_worker) == {"w0"}
    seekers.orders.allow(2)
    until(lambda: set(cloud.by_worker) == {"w0", "w1"})
    seekers.orders.allow(0)
    until(lambda: not cloud.by_worker)
    assert sorted(cloud.dropped) == ["w0", "w1"], "an order is taken back"
    seekers.over.set()
    until(lambda: len(seekers.found) == 3)
    assert set(seekers.found.values()) == {None}


def test_room_that_is_there_is_taken_without_an_order(cloud: Cloud) -> None:
    cloud.free_places = 1
    seekers = Seekers(cloud, Orders(buys=True, number=0))
    seekers.seek("w0", "w1")
    until(lambda: seekers.found)
    assert len(seekers.found) == 1
    assert cloud.asked == 1
    seekers.over.set()
    until(lambda: len(seekers.found) == 2)


def test_one_that_is_not_wanted_any_more_orders_nothing(cloud: Cloud) -> None:
    seekers = Seekers(cloud, Orders(buys=False, number=0))
    seekers.seek("w0")
    until(lambda: "w0" in cloud.by_worker)
    seekers.unwanted.add("w0")
    until(lambda: "w0" in seekers.found)
    assert seekers.found["w0"] is None
    assert cloud.by_worker == {}


@pytest.mark.parametrize("dismissed", [False, True])
def test_a_start_that_fails_lets_its_place_go(monkeypatch: pytest.MonkeyPatch, dismissed: bool) -> None:
    orders = Orders(buys=True, number=1)
    freed: list[str] = []
    gone: list[tuple[str, str]] = []
    lead = ElasticController.__new__(ElasticController)
    lead._over, lead._lock, lead._orders = threading.Event(), threading.Lock(), orders
    lead._dismissed, lead._launched = set(), {}
    lead._worker_group = SimpleNamespace(groups=SimpleNamespace(free=freed.append))  # type: ignore[assignment]
    lead._coordinator = SimpleNamespace(gone=lambda *told: gone.append(told))  # type: ignore[assignment]
    lead._purchases = SimpleNamespace(freed=lambda name: None)  # type: ignore[assignment]

    def find(wanted: Launch) -> object:
        if dismissed:
            lead._free(wanted.worker)
        orders.join(wanted.worker, False)
        orders.leave(wanted.worker, placed=True)
        return object()

    def removed(group: object) -> None:
        raise StopIteration

    lead._places = SimpleNamespace(find=find)  # type: ignore[assignment]
    monkeypatch.setattr(processes, "where", removed)
    lead._launch(Launch("w0", 0.0, "wanted"))
    assert gone == [("w0", "start_failed")]
    assert freed[-1:] == ["w0"]
    orders.join("w1", False)
    assert orders.admit("w1"), "one order is one order again"


def training(workers: int = 2, most: int = 8) -> Membership:
    m = Membership(Policy(8, 1, most))
    m.begin()
    for n in range(workers):
        m.step(Placed(f"w{n}", f"n{n}", 0.0))
    for n in range(workers):
        m.step(Ready(f"w{n}", 0.0))
    m.step(Tick(10.0))
    assert m.published is not None
    for w in m.published.members:
        m.step(Arrived(w, 1, -1, 0, False, 10.0))
    m.step(Committed("w0", 1, 1, 0.1, 11.0))
    return m


def test_a_pace_is_known_after_some_steps_of_a_generation_and_what_is_left_follows() -> None:
    m, prospect = training(), Prospect(at_once=1, total_steps=1000)
    assert prospect.look(m, 1, 11.0).workers == 2, "not known yet: those that are there"
    assert prospect.look(m, 2, 12.0).workers == 2
    assert prospect.look(m, 4, 14.5).workers == 2, "two steps are too few"
    assert prospect.look(m, 11, 21.0).workers == 8, "989 s are left"
    near = Prospect(at_once=1, total_steps=100)
    near.look(m, 0, 10.0)
    near.look(m, 1, 11.0)
    found = near.look(m, 11, 21.0)
    assert near.look(m, 11, 25.0) == found, "a step that is under way says nothing yet"
    assert (found.workers, found.reason) == (2, "more would not pay: 89 s are left, and a machine takes 70 s to come")
    quick = Prospect(at_once=1, total_steps=100)
    quick.came(9.0)
    quick.came(600.0)
    quick.warmed(3.0)
    quick.look(m, 0, 10.0)
    quick.look(m, 1, 11.0)
    assert quick.look(m, 11, 21.0).workers == 8, "here they come in seconds, when there are any"


def test_where_a_deadline_hangs_on_it_the_longest_way_counts() -> None:
    prospect = Prospect(at_once=1)
    assert prospect.longest_s == COME_S + WARM_S
    for seconds in (40.0, 90.0):
        prospect.came(seconds)
        prospect.warmed(seconds / 10)
    assert (prospect.come_s, prospect.longest_s) == (49.0, 100.0), "two are too few to say that none takes 10 s"
    prospect.came(3600.0, refused=True)
    assert prospect.longest_s == 100.0, "there was none to be had, which says nothing of a machine's way"
    prospect.came(150.0)
    prospect.warmed(1.0)
    assert prospect.longest_s == 159.0
    quick = Prospect(at_once=1)
    for _ in range(SEVERAL):
        quick.came(5.0)
        quick.warmed(1.0)
    assert quick.longest_s == 6.0
    for _ in range(LATEST):
        prospect.came(5.0)
        prospect.warmed(1.0)
    assert prospect.longest_s == 6.0, "what was long ago is forgotten"


def test_a_loss_forgets_no_order() -> None:
    m, prospect = training(), Prospect(at_once=1)
    prospect.look(m, 0, 10.0)
    prospect.look(m, 1, 11.0)
    assert prospect.look(m, 11, 21.0).workers == 8
    m.step(Gone("w1", "process_died", 21.5))
    assert m.active is None
    assert prospect.look(m, 11, 22.0).workers == 8


def test_before_anybody_trains_min_are_asked_for() -> None:
    m = Membership(Policy(8, 2, 8))
    m.begin()
    assert Prospect(at_once=2, total_steps=100).look(m, -1, 0.0).workers == 2


def test_a_place_that_is_there_already_is_taken(cloud: Cloud) -> None:
    """The first workers' places are asked for before the controller is there."""
    seekers = Seekers(cloud, Orders(buys=False, number=1))
    early = cloud.group([EACH], None)
    cloud.by_worker["w0"] = early
    cloud.free_places = 1
    seekers.seek("w0")
    until(lambda: "w0" in seekers.found)
    assert (seekers.found["w0"] is early, cloud.asked) == (True, 1)
