"""A sweep in figures: its trials by state, its best, what it holds and what it has spent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from headway.core.families import OF_A_SWEEP, TRIAL_STATES
from headway.core.figures import Sample
from headway.sweeps.events import Spent
from headway.sweeps.rules import Budget
from headway.sweeps.seen import figures
from headway.sweeps.seen.view import OVER, Subject, Trial, View


def view(price: float | None = 2.0, best: float | None = 0.25, **more: float) -> View:
    trials = {1: Trial(1, {}, "running"), 2: Trial(2, {}, "running"), 3: Trial(3, {}, "diverged", best=best)}
    subject = Subject("s", "loss", "min", price=price)
    told = {"workers": 4, "room": 4, "seconds": 60.0, "worker_s": 1800.0, "ledger_s": {}, **more}
    return View(subject, "running", "", trials, trials[3], **told)  # type: ignore[arg-type]


def found(view: View, used: float | None = None) -> dict[tuple[str, ...], float]:
    return {(name, *labels): value for name, labels, value in figures.samples(view, used)}


def test_all_that_can_be_said_of_a_sweep_is_said() -> None:
    values = found(view(), used=0.5)
    assert {name for name, *_ in values} == set(OF_A_SWEEP)
    assert [values["sweep_trials", state] for state in TRIAL_STATES] == [0, 2, 0, 0, 0, 0, 0, 1]
    assert (values["sweep_best",], values["sweep_workers",]) == (0.25, 4)
    assert (values["sweep_worker_seconds_total",], values["sweep_dollars_total",]) == (1800.0, 1.0)
    assert values["sweep_budget_used_ratio",] == 0.5
    assert set(OVER) < set(TRIAL_STATES)


@pytest.mark.parametrize("best", [None, float("nan"), float("inf")])
def test_what_is_not_known_has_no_figure(best: float | None) -> None:
    values = found(view(price=None, best=best))
    assert {name for name, *_ in values} == {"sweep_trials", "sweep_workers", "sweep_worker_seconds_total"}


def test_they_are_given_once_a_second_and_not_with_every_look() -> None:
    now, given = [0.0], []  # type: ignore[var-annotated]

    def give(samples: Sequence[Sample]) -> None:
        given.append((now[0], {name: value for name, _, value in samples}["sweep_budget_used_ratio"]))

    look = figures.Given(give, lambda seen: seen.worker_s / 3600, lambda: now[0])
    for tick in range(9):
        now[0] = tick / 4
        look(view(worker_s=360.0 * tick))
    assert given == [(0.0, 0.0), (1.0, 0.4), (2.0, 0.8)]


@pytest.mark.parametrize(
    ("budget", "used"),
    [
        (Budget(), None),
        (Budget(price=3.0), None),
        (Budget(worker_s=7200.0), 0.5),
        (Budget(worker_s=7200.0, seconds=75.0), 0.8),
        (Budget(dollars=4.0, price=3.0), 0.75),
        (Budget(worker_s=36000.0, steps=100), 0.9),
    ],
)
def test_of_a_budget_the_limit_counts_that_is_nearest(budget: Budget, used: float | None) -> None:
    assert budget.used(Spent(3600.0, 60.0), steps=90) == used
