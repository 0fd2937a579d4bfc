"""The provider's account of what was bought, on a cloud whose clock the tests turn; and what a run makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiers import examples
from tests.unit.test_provider import World, get, shown

from headway.cluster.prices.book import Book, Price
from headway.core.bill import Bill, replayed
from headway.core.offers import Stock
from headway.core.tenancy import Held, Slots, Tenancy
from headway.core.till import MOST, Sold, Till
from headway.elastic.lead.purchases import Node, Purchases


class Ledger(World):
    """A world whose provider's till is kept, newest last."""

    def __init__(self) -> None:
        super().__init__()
        self.tills: list[Till] = []

    def opened(
        self,
        till_before: Callable[[], Till | None] = lambda: None,
        show: Callable[[Stock], None] = lambda stock: None,
        **own: Any,
    ) -> Any:
        from headway.cluster.provider import Provider

        section = {"type": "external", "market": "none", "headway": {"id": "7", **own}}
        return Provider(
            section,
            "t",
            market=self.cloud.market("t"),
            standings=lambda: self.nodes,
            tell=self.told.append,
            tell_till=self.tills.append,
            till_before=till_before,
            show=show,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    @property
    def till(self) -> Till:
        told = Till.decode(self.tills[-1].encode())
        assert told is not None
        return told


@pytest.fixture
def world() -> Ledger:
    return Ledger()


def test_what_is_bought_is_told_with_its_price_and_its_end_is_the_clouds(world: Ledger) -> None:
    provider = world.opened()
    (machine,) = get(provider)
    shown(provider)
    assert world.till.machines == {machine: Sold(machine, "c", "a", True, 1000.0, ((1000.0, 0.3),))}
    world.now += 50.0
    told = len(world.tills)
    shown(provider)
    assert len(world.tills) == told, "nothing is new"
    world.cloud.kill(machine)
    world.now += 7.0  # until it is seen
    shown(provider)
    assert world.till.machines[machine].until == 1050.0


def test_what_spot_machines_cost_is_asked_of_the_cloud(world: Ledger) -> None:
    provider = world.opened()
    (machine,) = get(provider)
    world.now += 30.0
    world.cloud.reprice("c", "a", 0.5)
    world.now += 100.0
    shown(provider)
    assert world.till.machines[machine].prices == ((1000.0, 0.3), (1030.0, 0.5))
    world.now += 10.0
    world.cloud.reprice("c", "a", 0.7)  # and is gone before it is asked again
    world.now += 10.0
    world.cloud.kill(machine)
    world.cloud.reprice("c", "a", 0.9)
    world.now += 1.0
    shown(provider)
    assert world.till.machines[machine].prices[2:] == ((1140.0, 0.7),)


@pytest.mark.parametrize("lie", ["silent", "forgets", "ghosts"])
def test_a_cloud_that_lies_changes_no_dollar_once_it_tells_the_truth(world: Ledger, lie: str) -> None:
    provider = world.opened()
    (machine,) = get(provider)
    world.nodes = {machine: "alive"}
    for _ in range(10):
        world.now += 5.0
        shown(provider)
    if lie == "ghosts":
        world.cloud.kill(machine)
        world.nodes = {machine: "dead"}
    world.cloud.lie(20.0, **{lie: True})
    for _ in range(10):
        world.now += 3.0
        shown(provider)
    if lie != "ghosts":
        world.cloud.kill(machine)
        world.nodes = {machine: "dead"}
    gone = world.now if lie != "ghosts" else 1050.0
    for _ in range(3):
        world.now += 40.0
        shown(provider)
    assert world.till.machines[machine].until == gone


def test_who_keeps_the_account_anew_goes_on_with_what_was_told_last(world: Ledger) -> None:
    (stays, ends) = get(provider := world.opened(), 2)
    shown(provider)
    world.now += 100.0
    world.cloud.kill(ends)  # while nobody looks
    world.now += 100.0

    def away() -> Till | None:
        raise ConnectionError

    told = len(world.tills)
    again = world.opened(till_before=away)
    shown(again)
    assert len(world.tills) == told, "what is written is not written over"
    again = world.opened(till_before=lambda: world.till)
    shown(again)
    assert {each.id: each.until for each in world.till.machines.values()} == {stays: None, ends: 1100.0}


def test_what_is_sold_has_the_clouds_price_of_spot_machines_before_the_files(world: Ledger) -> None:
    bare, dear = {"type": "c", "zone": "a", "spot": True}, {"type": "c", "zone": "b", "spot": True, "price_per_hour": 9}
    stocks: list[Stock] = []
    sells = {"worker": {"resources": {"CPU": 1}, "one_of": [bare, dear, {"type": "c", "zone": "a"}]}}
    provider = world.opened(show=stocks.append, sells=sells)
    shown(provider)
    assert [offer.price_per_hour for offer in stocks[-1].offers] == [0.3, 0.4, None]
    world.cloud.reprice("c", "a", 0.5)
    world.now += 60.0
    shown(provider)
    assert [offer.price_per_hour for offer in stocks[-1].offers] == [0.5, 0.4, None]


def test_a_price_that_nobody_tells_is_of_the_list(world: Ledger) -> None:
    from headway.cluster.market import Machine, Option
    from headway.cluster.till import Clerk

    class Mute:
        """Tells neither prices nor ends."""

    machines = {each.id: each for each in (Machine("i-1", "running", Option("m7i.large", "x-1a"), since=5.0),
                                           Machine("i-2", "running", Option("strange"), since=6.0))}  # fmt: skip
    clerk = Clerk(Mute(), Book([Price("m7i.large", "x-1", 0.12)]), world.tills.append)  # type: ignore[arg-type]
    clerk.look(machines, {}, set(machines), "i-1", 10.0)
    assert [each.prices for each in clerk.till.machines.values()] == [((5.0, 0.12),), ()]
    assert clerk.till.machines["i-1"].head
    clerk.look({"i-2": machines["i-2"]}, {}, {"i-2"}, "", 20.0)
    assert clerk.till.machines["i-1"].until == 20.0
    clerk.look(machines, {}, set(machines), "", 30.0)
    assert clerk.till.machines["i-1"].until is None, "it was there all the time"


def test_a_till_stays_small_and_what_is_no_till_is_none() -> None:
    many = [Sold(f"i-{n}", "c", since=n, until=n + 1.0) for n in range(MOST + 10)]
    till = Till().having(Sold("i-now", "c"), *many)
    assert len(till.machines) == MOST + 1
    assert "i-now" in till.machines
    assert "i-0" not in till.machines
    assert Till.decode(b"{") is None
    assert Till.decode(None) is None
    assert Till.decode(b"[]") is None


# Who pays


def test_who_holds_slots_pays_and_who_held_them_last() -> None:
    one, other = Tenancy("one"), Tenancy("other")
    there = ["head", "a", "b", "c"]
    holds: dict[str, Slots] = {"one": {"a": 1.0, "b": 0.5}, "other": {"b": 0.25}}
    assert one.shares(there, holds, "head") == pytest.approx({"head": 6 / 7, "a": 1.0, "b": 2 / 3, "c": 6 / 7})
    assert other.shares(there, holds, "head") == pytest.approx({"head": 1 / 7, "a": 0.0, "b": 1 / 3, "c": 1 / 7})
    holds = {"one": {}, "other": {"b": 1.0}}
    assert one.shares(there, holds, "head") == {"head": 0.0, "a": 1.0, "b": 0.0, "c": 0.0}
    assert other.shares(there, holds, "head") == {"head": 1.0, "a": 0.0, "b": 1.0, "c": 1.0}
    assert Tenancy("alone").shares(["head", "a"], {}, "head") == {"head": 1.0, "a": 1.0}


HOLDS = st.dictionaries(
    st.sampled_from(["one", "two", "three"]),
    st.dictionaries(st.sampled_from(["head", "a", "b"]), st.floats(0, 4), max_size=3),
    min_size=1,
)


@settings(max_examples=examples(40, 1000))
@given(history=st.lists(HOLDS, min_size=1, max_size=5))
def test_all_runs_together_pay_each_machine_once(history: list[dict[str, Slots]]) -> None:
    """As long as all of them have seen the same."""
    runs = {run for holds in history for run in holds}
    tenancies = {run: Tenancy(run) for run in runs}
    for holds in history:
        here = {run: holds.get(run, {}) for run in runs}
        shares = [tenancies[run].shares(["head", "a", "b"], here, "head") for run in runs]
        for machine in ("head", "a", "b"):
            assert sum(each[machine] for each in shares) == pytest.approx(1.0)


# What a run records of it


class Table:
    """A board that the test writes on."""

    def __init__(self, till: Till | None, nodes: Sequence[Node] = ()) -> None:
        self.sold, self.there = till, list(nodes)
        self.said: dict[str, Held] = {}

    def till(self) -> Till | None:
        return self.sold

    def nodes(self) -> Sequence[Node]:
        return self.there

    def say(self, run: str, held: Held | None) -> None:
        if held is None:
            self.said.pop(run, None)
            return
        told = Held.decode(held.encode(100.0), 99.0)
        assert told is not None
        self.said[run] = told

    def heard(self, now: float) -> dict[str, Held]:
        return dict(self.said)


class Run:
    """The lead's account of one run, at a clock that the test turns."""

    def __init__(self, board: Table, name: str = "r", before: float = 0.0, **more: Any) -> None:
        self.now, self.lines = 100.0, [{"kind": "start", "time": 100.0}]
        began = (self.now, before)
        self.purchases = Purchases(
            name, lambda: began, self.lines.append, board, {"CPU": 1.0}, clock=lambda: self.now, **more
        )

    def at(self, now: float) -> None:
        self.now = now
        self.purchases.look()

    @property
    def replay(self) -> Bill:
        return replayed(self.lines)[0]


def sold(id: str, since: float, price: float = 3.6, **more: Any) -> Sold:
    return Sold(id, "c", "a", True, since, ((since, price),), **more)


def test_a_run_records_what_it_pays_and_its_events_say_the_same() -> None:
    head = Sold("h", "m", since=10.0, prices=((10.0, 1.8),), head=True)
    board = Table(Till().having(head), [Node("nh", "h", {"memory": 1.0})])
    run = Run(board, before=1.0)
    assert run.purchases.outlay() is None
    run.at(101.0)
    stands = run.purchases.outlay()
    assert stands is not None
    assert (stands.dollars, stands.per_hour) == pytest.approx((1.0 + 1.8 / 3600, 1.8))
    board.sold = Till().having(head, sold("i", 110.0))
    run.at(111.0)
    run.now = 120.0
    run.purchases.placed("w0", "n1")  # before Ray's list has it
    board.there.append(Node("n1", "i", {"CPU": 1.0}))
    run.at(121.0)
    assert board.said["r"].slots == {"i": 1.0}
    board.sold = Till().having(head, replace(sold("i", 110.0), prices=((110.0, 3.6), (150.0, 7.2))))
    run.at(155.0)
    run.now = 180.0
    run.purchases.freed("w0")
    run.at(181.0)
    board.sold = board.sold.having(Sold("i", "c", "a", True, 110.0, ((110.0, 3.6), (150.0, 7.2)), until=190.0))
    run.at(195.0)
    quiet = len(run.lines)
    run.at(200.0)
    assert len(run.lines) == quiet, "nothing is new"
    (other, machine) = run.replay.parts(200.0)
    assert other.dollars == pytest.approx(100 * 1.8 / 3600)
    assert machine.booting == pytest.approx(10 * 0.001)
    assert machine.carrying == pytest.approx(30 * 0.001 + 30 * 0.002)
    assert machine.left == pytest.approx(10 * 0.002)
    stands = run.purchases.outlay()
    assert stands is not None
    assert stands.dollars == pytest.approx(1.0 + run.replay.dollars(200.0))
    assert stands.per_hour == pytest.approx(1.8)


def test_two_runs_on_one_machine_pay_by_the_slots_that_they_hold() -> None:
    board = Table(Till().having(sold("i", 50.0)), [Node("n", "i", {"CPU": 4.0})])
    one, other = Run(board, "one"), Run(board, "other")
    for worker in ("a", "b", "c"):
        one.purchases.placed(worker, "n")
    other.purchases.placed("a", "n")
    for now in (100.0, 101.0, 102.0):
        for run in (one, other):
            run.at(now)
    before = [run.replay.dollars(110.0) for run in (one, other)]  # when its first minute is over
    after = [run.replay.dollars(210.0) for run in (one, other)]
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([0.075, 0.025])


def test_a_run_that_comes_later_knows_who_held_slots_last() -> None:
    board = Table(Till().having(sold("i", 50.0), sold("j", 50.0)), [Node("n", "i", {"CPU": 1.0}),
                                                                    Node("m", "j", {"CPU": 1.0})])  # fmt: skip
    one = Run(board, "one")
    one.purchases.placed("a", "n")
    one.purchases.placed("b", "m")
    one.at(200.0)
    one.now = 201.0
    one.purchases.freed("b")
    one.at(202.0)
    one.at(203.0)
    other, again = Run(board, "other"), Run(board, "one")
    other.purchases.placed("c", "n")

    def shares(*runs: Run) -> list[float]:
        for now in (210.0, 211.0, 212.0):
            for run in runs:
                run.at(now)
        return [run.replay.per_hour(220.0) for run in runs]

    assert sum(shares(one, other)) == pytest.approx(7.2), "each machine once"
    assert shares(one, other) == pytest.approx([5.4, 1.8])
    again.purchases.placed("a", "n")
    assert shares(again, other) == pytest.approx([5.4, 1.8]), "the first, resumed"
    assert Held.decode(b"{}", 0.0) is None
    assert Held.decode(Held().encode(5.0), 6.0) is None


def test_where_nobody_keeps_account_nodes_cost_by_the_jobs_list() -> None:
    book = Book([Price("*", "*", 3.6)])
    board = Table(None, [Node("nh", "", {"node:__internal_head__": 1.0}), Node("n", "", {"CPU": 2.0})])
    run = Run(board, price=book.per_hour)
    run.at(110.0)
    assert [part.dollars for part in run.replay.parts(160.0)] == pytest.approx([0.06, 0.06]), "since the run began"
    board.there.append(Node("later", "", {"CPU": 2.0}))
    run.at(170.0)
    board.there.pop(1)
    run.at(180.0)
    assert [part.machine.until for part in run.replay.parts(180.0)] == [None, 180.0, None]
    run.at(190.0)
    assert run.replay.parts(190.0)[1].machine.until == 180.0
    nobody = Run(Table(None, board.there))
    nobody.at(110.0)
    assert nobody.lines[1:] == []


def test_a_machine_without_a_price_is_named_and_not_counted() -> None:
    board = Table(Till().having(Sold("i", "c", "a", since=110.0)))
    run = Run(board)
    run.at(111.0)
    run.at(112.0)
    assert run.purchases.unpriced == ["c in a"]
    assert run.purchases.outlay() is None
    assert [line.get("unpriced") for line in run.lines[1:]] == [True]


def test_a_price_that_comes_late_holds_from_the_purchase_on() -> None:
    bare = Sold("i", "c", "a", True, since=110.0)
    board = Table(Till().having(bare), [Node("n", "i", {"CPU": 1.0})])
    run = Run(board)
    run.now = 112.0
    run.purchases.placed("w0", "n")
    run.at(113.0)
    board.sold = Till().having(sold("i", 110.0))
    run.at(170.0)
    assert run.purchases.unpriced == []
    assert run.replay.dollars(210.0) == pytest.approx(0.1)
    assert run.replay.parts(210.0)[0].booting == pytest.approx(0.002), "who worked on it meanwhile is known"
    stands = run.purchases.outlay()
    assert stands is not None
    assert (stands.dollars, stands.per_hour) == pytest.approx((0.06, 3.6))
    board.sold = Till().having(sold("i", 110.0, until=200.0))
    run.at(205.0)
    assert run.replay.dollars(300.0) == pytest.approx(0.09)


def test_where_only_some_machines_have_prices_the_others_cost_what_their_workers_do() -> None:
    head = Sold("h", "m", since=100.0, prices=((100.0, 1.8),), head=True)
    board = Table(Till().having(head, Sold("i", "p4d", "a", since=100.0)), [Node("n", "i", {"CPU": 4.0})])
    run = Run(board, per_worker=36.0)
    run.at(101.0)
    run.now = 110.0
    run.purchases.placed("w0", "n")
    run.at(111.0)
    run.now = 120.0
    run.purchases.placed("w1", "n")
    run.at(121.0)
    stands = run.purchases.outlay()
    assert stands is not None
    assert stands.per_hour == pytest.approx(1.8 + 72.0)
    run.now = 130.0
    run.purchases.freed("w0")
    run.purchases.freed("w1")
    run.at(131.0)
    assert run.replay.dollars(160.0) == pytest.approx(60 * 1.8 / 3600 + 10 * 0.01 + 10 * 0.02)
    assert run.replay.per_hour(160.0) == pytest.approx(1.8)


def test_a_machine_that_no_account_has_any_more_costs_nothing_from_then_on() -> None:
    board = Table(Till().having(sold("i", 110.0), sold("j", 110.0)))
    run = Run(board)
    run.at(111.0)
    board.sold = Till().having(sold("j", 110.0))  # a provider that has begun anew
    run.at(180.0)
    run.at(250.0)
    assert [part.machine.until for part in run.replay.parts(300.0)] == [180.0, None]
    board.sold = None  # it cannot be read for a moment
    run.at(260.0)
    assert run.replay.per_hour(260.0) == pytest.approx(3.6)


def test_an_account_that_begins_late_counts_no_machine_twice() -> None:
    nodes = [Node("n", "i", {"CPU": 1.0}), Node("m", "", {"CPU": 1.0})]
    board = Table(None, nodes)
    run = Run(board, price=Book([Price("*", "*", 7.2)]).per_hour)
    run.now = 101.0
    run.purchases.placed("w0", "n")
    run.at(102.0)
    board.there[1] = Node("m", "j", {"CPU": 1.0})  # the cloud's name of it is known now
    board.sold = Till().having(sold("i", 90.0), sold("j", 90.0))
    run.at(130.0)
    assert [part.machine.id for part in run.replay.parts(200.0)] == ["i", "j"]
    assert run.replay.dollars(200.0) == pytest.approx(0.2), "by the account's prices, since the run began"
    assert run.replay.parts(200.0)[0].carrying == pytest.approx(0.099)


def test_what_is_stored_has_the_price_of_the_list() -> None:
    board = Table(Till(storage=0.73).having(sold("i", 110.0, price=0.0)))
    run = Run(board)
    run.at(111.0)
    run.lines.append({"kind": "purchase", "time": 120.0, "stored_gb": 10.0})
    assert run.replay.dollars(3720.0) == pytest.approx(0.01)
