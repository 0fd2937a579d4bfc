"""The head that ends its cluster when nothing has run for long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from headway.cluster import keeper
from headway.cluster.agent.gcs import Away, Gcs
from headway.cluster.keeper import end, keep
from headway.cluster.market import FORBIDDEN, THROTTLED, Machine, Option, Refused
from headway.core.lifetime import Lifetime
from headway.errors import RunFailed
from headway.jobs.api.client import RayJobs


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Shelf:
    """A market whose machines are a list; the first `failures` orders fail, and a worker is bought while others end."""

    def __init__(self, failures: int = 0, late: bool = False) -> None:
        self.there = ["head", "w1", "w2"]
        self.orders: list[list[str]] = []
        self._failures, self._late = failures, late

    def machines(self) -> list[Machine]:
        kind = {"head": "head"}
        return [
            Machine(id, "running", Option("m"), tags={"ray-node-type": kind.get(id, "worker")}) for id in self.there
        ]

    def terminate(self, machines: Sequence[str]) -> None:
        if self._failures:
            self._failures -= 1
            raise Refused(THROTTLED, "slow down") if self._failures else ConnectionError("away")
        self.orders.append(list(machines))
        self.there = [id for id in self.there if id not in machines]
        if self._late:
            self._late = False
            self.there.append("w3")

    def launch(self, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> Machine:
        raise AssertionError("nothing is bought")

    def tag(self, machine: str, tags: Mapping[str, str]) -> None:
        raise AssertionError("nothing is tagged")


def test_it_ends_after_the_idle_time_and_not_while_something_runs() -> None:
    clock, ended = Clock(), []

    def works() -> bool:
        return clock.now < 600.0

    keep(Lifetime(idle_s=300.0), works, lambda why: ended.append((clock.now, why)), clock, clock.sleep)
    ((at, why),) = ended
    assert 900.0 - 20.0 <= at <= 900.0 + 20.0
    assert why == "no job has run on it for 5 minutes"


@pytest.mark.parametrize(("idle_s", "patience_s"), [(300.0, 1800.0), (3600.0, 3600.0)])
def test_a_head_that_says_nothing_is_kept_for_a_while_and_not_for_ever(idle_s: float, patience_s: float) -> None:
    clock, ended = Clock(), []
    keep(Lifetime(idle_s=idle_s), lambda: None, lambda why: ended.append((clock.now, why)), clock, clock.sleep)
    ((at, why),) = ended
    assert patience_s <= at <= patience_s + 20.0
    assert why.startswith("it could not be told for")


def test_a_head_that_is_silent_now_and_then_works_on() -> None:
    clock, ended = Clock(), []

    def works() -> bool | None:
        return (None if clock.now % 1700.0 else True) if clock.now < 20_000.0 else False

    keep(Lifetime(idle_s=300.0), works, lambda why: ended.append((clock.now, why)), clock, clock.sleep)
    ((at, why),) = ended
    assert at >= 20_000.0
    assert why == "no job has run on it for 5 minutes"


DRIVER = {"type": "DRIVER", "job_id": "02000000", "submission_id": None}
SUBMITTED = {"type": "SUBMISSION", "submission_id": "a"}


@pytest.mark.parametrize(
    ("jobs", "works"),
    [
        ([], False),
        ([SUBMITTED | {"status": "SUCCEEDED"}, DRIVER | {"status": "SUCCEEDED"}], False),
        ([SUBMITTED | {"status": "PENDING"}], True),
        ([SUBMITTED | {"status": "FAILED"}, DRIVER | {"status": "RUNNING"}], True),
    ],
)
def test_a_driver_that_nobody_submitted_is_work(
    jobs: list[dict[str, Any]], works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayJobs, "get", lambda self, path: jobs)
    assert keeper.working() is works


@pytest.mark.parametrize(("drivers", "works"), [(["01"], True), ([], None), (None, None)])
def test_where_the_job_api_is_away_the_control_store_knows_of_drivers(
    drivers: list[str] | None, works: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: RayJobs, path: str) -> None:
        raise RunFailed("the job API does not answer")

    def told(self: Gcs) -> list[str]:
        if drivers is None:
            raise Away("nor does the store")
        return drivers

    monkeypatch.setattr(RayJobs, "get", away)
    monkeypatch.setattr(Gcs, "drivers", told)
    assert keeper.working() is works


@pytest.mark.parametrize("shelf", [Shelf(), Shelf(failures=2), Shelf(late=True)])
def test_the_head_goes_last_and_ray_stops_first(shelf: Shelf) -> None:
    clock, stopped = Clock(), []

    def stop() -> None:
        assert not shelf.orders, "an autoscaler that lives would buy anew"
        stopped.append(True)

    end(shelf, stop, lambda: pytest.fail("the market ends it"), clock.sleep)
    assert stopped
    assert shelf.there == []
    assert shelf.orders[0] == ["w1", "w2"]
    assert shelf.orders[-1] == ["head"]


def test_a_head_that_may_not_end_machines_any_more_shuts_itself_down() -> None:
    clock, off, shelf = Clock(), list[float](), Shelf()

    def refuse(machines: Sequence[str]) -> None:
        raise Refused(FORBIDDEN, "no right to")

    shelf.terminate = refuse  # type: ignore[method-assign]
    end(shelf, lambda: None, lambda: off.append(clock.now), clock.sleep)
    assert off == [600.0]
