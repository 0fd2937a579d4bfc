"""Who of a sweep's runs has how many workers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import allotment
from headway.core.allotment import Allotment, Rule, Running, allot, at_once, useful

RULES: tuple[Rule, ...] = ("best_first", "even", "by_price")


def runs(*has: int, lanes: int = 8, rest_s: float | None = 100.0) -> list[Running]:
    """Runs a, b, c ... that have so many workers, the best first."""
    return [
        Running("abcdefgh"[rank], lanes, 1, lanes, has=workers, rank=rank, rest_s=rest_s if workers else None)
        for rank, workers in enumerate(has)
    ]


def shared(found: Allotment) -> tuple[int, ...]:
    return tuple(found.workers[run] for run in sorted(found.workers))


def test_the_best_is_as_fast_as_it_can_be_and_then_the_next() -> None:
    assert shared(allot(runs(0, 0, 0), 12, "best_first")) == (8, 3, 1)
    assert shared(allot(runs(0, 0, 0), 12, "even")) == (4, 4, 4)
    assert shared(allot(runs(0, 0, 0), 13, "by_price")) == (4, 4, 4)


def test_every_run_has_its_least_before_any_has_more() -> None:
    least = [replace(run, least=2) for run in runs(0, 0, 0, 0)]
    for rule in RULES:
        assert shared(allot(least, 8, rule)) == (2, 2, 2, 2)
    waits = allot(least, 7, "best_first")
    assert shared(waits) == (3, 2, 2, 0)
    assert waits.reasons["d"] == "waits for 2 workers"


def test_one_that_waits_takes_nobodys_least() -> None:
    working, waiting = runs(0, 1)
    found = allot([replace(working, rank=0), waiting], 1, "best_first")
    assert found.workers == {"a": 0, "b": 1}


def test_workers_of_whom_nobody_has_a_use_are_idle() -> None:
    assert allot(runs(0, lanes=4), 7, "best_first").idle == 3
    assert allot(runs(0, lanes=6), 5, "by_price").idle == 2
    assert allot(runs(0, lanes=6), 5, "even").idle == 2  # 6 lanes are no faster on 4 or 5 than on 3
    assert useful(runs(0, 0, lanes=6)) == 12
    assert useful([replace(run, most=4) for run in runs(0, 0, lanes=6)]) == 6


def test_free_workers_are_handed_out_and_working_ones_stay() -> None:
    assert shared(allot(runs(1, 4, 1), 6, "best_first", settle_s=5.0)) == (1, 4, 1)
    assert shared(allot(runs(1, 4, 1), 8, "best_first", settle_s=5.0)) == (3, 4, 1)


def test_they_are_moved_where_it_pays_many_times_over() -> None:
    """a would be through 87.5 s earlier on eight: worth stopping two runs for half a second, not for five."""
    assert shared(allot(runs(1, 8), 9, "best_first", settle_s=0.5)) == (8, 1)
    assert shared(allot(runs(1, 8), 9, "best_first", settle_s=5.0)) == (1, 8)
    unknown = [replace(run, rest_s=None) for run in runs(1, 8)]
    assert shared(allot(unknown, 9, "best_first", settle_s=0.5)) == (1, 8)


def test_a_run_that_is_nearly_through_is_not_stopped_for_more() -> None:
    assert shared(allot(runs(1, rest_s=0.4), 8, "best_first", settle_s=0.5)) == (1,)
    assert shared(allot(runs(1, rest_s=0.8), 8, "best_first", settle_s=0.5)) == (8,)
    assert shared(allot(runs(1, rest_s=None), 8, "best_first", settle_s=0.5)) == (8,)


def test_a_new_run_has_its_least_from_the_last_or_from_the_largest() -> None:
    assert shared(allot(runs(4, 4, 0), 8, "best_first", settle_s=50.0)) == (4, 3, 1)
    assert shared(allot(runs(4, 2, 2, 0), 8, "even", settle_s=50.0)) == (3, 2, 2, 1)


def test_towards_a_deadline_the_best_have_just_enough() -> None:
    """Each needs 100 s on one. 60 s are left: two are enough for each, and what is over goes to the best."""
    assert shared(allot(runs(1, 1, 1), 6, "best_first", left_s=60.0, settle_s=1.0)) == (2, 2, 2)
    assert shared(allot(runs(1, 1, 1), 7, "best_first", left_s=60.0, settle_s=1.0)) == (3, 2, 2)
    assert shared(allot(runs(1, 1, 1), 7, "best_first", settle_s=1.0)) == (4, 2, 1)


def test_reasons_are_told() -> None:
    found = allot([*runs(0, 0, lanes=4), Running("z", 8, 1, 2)], 7, "best_first")
    assert found.reasons == {
        "a": "as many as its job allows",
        "b": "better ones come first",
        "z": "better ones come first",
    }
    assert allot([Running("a", 4, 1, 6)], 5, "best_first").reasons == {"a": "more are no faster with 4 lanes"}
    assert allot([Running("a", 6, 1, 6)], 5, "even").reasons == {"a": "it has a use for 6, not for fewer"}
    assert allot([Running("a", 8, 4, 7)], 7, "by_price").reasons["a"] == "more are no faster with 8 lanes"
    assert "would be idle" in allot([Running("a", 9, 3, 8)], 8, "by_price").reasons["a"]


@st.composite
def histories(draw: st.DrawFn) -> list[Running]:
    found = []
    for number in range(draw(st.integers(1, 6))):
        lanes = draw(st.integers(1, 12))
        most = draw(st.integers(1, lanes))
        least = draw(st.integers(1, most))
        has = draw(st.one_of(st.just(0), st.integers(least, most)))
        rest_s = draw(st.one_of(st.none(), st.floats(0.0, 1000.0))) if has else None
        rank = draw(st.one_of(st.none(), st.integers(0, 5)))
        found.append(Running(f"r{number}", lanes, least, most, has, rank, rest_s))
    return found


@given(histories(), st.integers(0, 40), st.sampled_from(RULES), st.one_of(st.none(), st.floats(0.0, 500.0)))
def test_whatever_is_under_way(there: list[Running], workers: int, rule: Rule, left_s: float | None) -> None:
    found = allot(there, workers, rule, left_s)
    assert sum(found.workers.values()) + found.idle == workers
    assert found.idle >= 0
    for run in there:
        assert found.workers[run.run] == 0 or run.least <= found.workers[run.run] <= run.most
        if found.workers[run.run] == 0:
            assert found.idle < run.least
    if sum(run.least for run in there) <= workers:
        assert all(found.workers.values())
    if workers >= useful(there) and all(run.rest_s is None for run in there):
        assert all(run.after_s(found.workers[run.run]) == run.after_s(run.most) for run in there)


@given(histories(), st.integers(0, 40), st.sampled_from(RULES), st.one_of(st.none(), st.floats(0.0, 500.0)))
def test_what_was_decided_stays_decided(there: list[Running], workers: int, rule: Rule, left_s: float | None) -> None:
    """Asked again when all have what they were to have, nothing moves: no run is stopped for nothing."""
    first = allot(there, workers, rule, left_s).workers
    then = [
        replace(run, has=first[run.run], rest_s=run.after_s(first[run.run]) if first[run.run] else None)
        for run in there
    ]
    assert allot(then, workers, rule, left_s).workers == first


# A sweep in which runs end early, on a clock that jumps from one end to the next


@dataclass
class Small:
    """A sweep of runs that have all begun or wait for their turn, each of `work` seconds of one worker."""

    work: dict[str, float]
    workers: int
    rule: Rule
    lanes: int = 8
    settle_s: float = 0.5
    now_s: float = 0.0
    changes: int = 0
    busy_s: float = 0.0
    sizes: list[dict[str, int]] = field(default_factory=list)

    def play(self) -> float:
        """Until all are through; returns the seconds."""
        has: dict[str, int] = {}
        while self.work:
            under_way = sorted(self.work)[: at_once(self.workers, 1)]
            there = [
                Running(run, self.lanes, 1, self.lanes, has.get(run, 0), rank, self._rest_s(run, has.get(run, 0)))
                for rank, run in enumerate(under_way)
            ]
            new = {run: size for run, size in allot(there, self.workers, self.rule).workers.items() if size}
            for run, size in new.items():
                if has.get(run, size) != size:
                    self.changes += 1
                    self.work[run] += self.settle_s * size
            has = new
            self.sizes.append(dict(has))
            next_s = min(self._rest_s(run, size) or 0.0 for run, size in has.items())
            self.now_s += next_s
            self.busy_s += next_s * sum(has.values())
            for run, size in has.items():
                self.work[run] -= next_s * self.lanes / -(-self.lanes // size)
            self.work = {run: work for run, work in self.work.items() if work > 1e-9}
        return self.now_s

    def _rest_s(self, run: str, size: int) -> float | None:
        return self.work[run] * -(-self.lanes // size) / self.lanes if size else None


@pytest.mark.parametrize("rule", RULES)
def test_workers_of_runs_that_end_flow_to_those_that_go_on(rule: Rule) -> None:
    """Nineteen of twenty-four end early. Nobody waits while there are more runs than workers, and the last ones share
    all that there is."""
    chance = Random(7)
    work = {f"r{number:02d}": 400.0 if number % 5 == 4 else chance.uniform(5.0, 60.0) for number in range(24)}
    total = sum(work.values())
    sweep = Small(dict(work), 8, rule)
    took_s = sweep.play()
    assert took_s <= 1.1 * total / 8
    assert sweep.busy_s >= 0.9 * 8 * took_s
    assert all(sum(has.values()) == 8 for has in sweep.sizes if len(has) > 4)
    assert sweep.sizes[-1] == {max(sweep.sizes[-1]): 8}
    assert sweep.changes <= 24


def test_the_best_keeps_what_it_was_given() -> None:
    """It has more than it would get by the least: that is no reason to hand it to the next."""
    runs = [
        Running("a", 8, 1, 4, has=1, rank=2, rest_s=2.6),
        Running("b", 8, 1, 4, has=1, rank=1, rest_s=17.9),
        Running("c", 8, 1, 4, has=3, rank=0, rest_s=7.3),
    ]
    assert allot(runs, 5, "best_first").workers == {"a": 1, "b": 1, "c": 3}


def test_many_runs_are_handed_theirs_in_turn_and_each_is_looked_at_but_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = [0]
    plain = allotment._sizes

    def counted(run: Running, rule: Rule) -> list[int]:
        looked[0] += 1
        return plain(run, rule)

    monkeypatch.setattr(allotment, "_sizes", counted)
    there = [Running(f"r{number}", 8, 1, 8, 1, number, 10.0) for number in range(200)]
    for rule in RULES:
        looked[0] = 0
        found = allot(there, 650, rule)
        assert looked[0] < 40 * len(there)
        if rule == "even":  # by turns, from the first on
            assert [found.workers[run.run] for run in there] == [4] * 50 + [3] * 150
