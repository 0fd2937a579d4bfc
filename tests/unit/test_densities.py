"""The density model: what it takes for promising, and the searcher that is made of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from headway.core.densities import Axis, Smoothing, Standing, cell, densities, model
from headway.sweeps.events import Config
from headway.sweeps.search.density import Density
from headway.sweeps.search.protocol import Known
from headway.sweeps.space import Space, parse

SPACE = {
    "optimizer.name": {"choice": ["sgd", "adamw"]},
    "optimizer.lr": {"loguniform": [1e-4, 1.0]},
    "optimizer.momentum": {"uniform": [0.0, 0.99], "when": {"optimizer.name": "sgd"}},
    "arguments.depth": {"randint": [1, 9]},
    "epochs": 3,
}


def loss(config: Config) -> float:
    """Least at lr = 0.01 with sgd of momentum 0.9."""
    away = abs(math.log10(config["optimizer.lr"]) + 2.0)
    return float(away + (abs(config["optimizer.momentum"] - 0.9) if config["optimizer.name"] == "sgd" else 1.0))


def searched(searcher: Density, trials: int, of: Any = loss) -> list[Config]:
    found = []
    for trial in range(1, trials + 1):
        config = searcher.suggest(trial)
        assert config is not None
        found.append(config)
        searcher.told(trial, 10, of(config), final=True)
    return found


def space(tree: dict[str, Any] | None = None) -> Space:
    return parse(tree or SPACE)


def test_a_density_is_even_without_observations_and_its_mean_is_one() -> None:
    axes = [Axis(), Axis(3, ordered=False)]
    nothing = densities(axes, np.empty((0, 2), dtype=np.intp), Smoothing())
    assert all(np.allclose(curve, 1.0) for curve in nothing)
    seen = densities(axes, np.array([[3, 0], [5, 0], [-1, 2]], dtype=np.intp), Smoothing())
    assert [round(float(curve.mean()), 6) for curve in seen] == [1.0, 1.0]
    assert seen[0][4] > 1.0 > seen[0][40]
    assert seen[1][0] > seen[1][2] > seen[1][1]


def test_who_came_further_is_better_and_who_diverged_is_last() -> None:
    standings = [Standing.of(1, 16, 0.5), Standing.of(2, 4, 0.1), Standing.of(3, 64, math.nan), Standing.of(4, 4, 0.2)]
    assert [each.number for each in sorted(standings)] == [1, 2, 4, 3]


def test_what_is_like_the_good_comes_first() -> None:
    axes = [Axis(), Axis(2, ordered=False)]
    seen = np.array([[cell(axes[0], number / 100), number % 2] for number in range(100)], dtype=np.intp)
    standings = [Standing.of(number, 1, abs(number - 71)) for number in range(100)]
    of = model(axes, standings, seen, Smoothing())
    candidates = np.array([[3, 1], [45, 1], [20, 0], [-1, 1]], dtype=np.intp)
    assert of.best(candidates)[0] == 1


def test_it_finds_the_good_ones_under_a_condition_too() -> None:
    found = searched(Density(space(), seed=0, mode="min", startup=16), 60)
    assert all(("optimizer.momentum" in config) == (config["optimizer.name"] == "sgd") for config in found)
    assert all(config["epochs"] == 3 for config in found)
    early, late = (sum(map(loss, part)) / len(part) for part in (found[:16], found[-16:]))
    assert late < 0.5 * early


def test_more_may_be_better() -> None:
    found = searched(Density(space(), seed=0, mode="max", startup=16), 60, lambda config: -loss(config))
    assert sum(map(loss, found[-16:])) < 0.5 * sum(map(loss, found[:16]))


def test_the_same_seed_and_the_same_calls_give_the_same() -> None:
    first, again, other = (searched(Density(space(), seed=seed, mode="min"), 40) for seed in (3, 3, 4))
    assert first == again != other


def test_it_learns_of_nothing_where_all_diverge_and_ends_where_all_was_tried() -> None:
    assert len(searched(Density(space(), seed=0, mode="min"), 40, lambda config: math.nan)) == 40
    few = Density(space({"optimizer.name": {"choice": ["a", "b", "c"]}}), seed=0, mode="min", startup=1)
    names = {config["optimizer.name"] for config in searched(few, 3, lambda config: 1.0)}
    assert names == {"a", "b", "c"}
    assert few.suggest(4) is None


def test_it_begins_with_what_is_known_from_before() -> None:
    before = searched(Density(space(), seed=1, mode="min"), 60)
    known = [Known(config, 10, loss(config), whole=True) for config in before]
    cold = searched(Density(space(), seed=2, mode="min"), 12)
    warm = searched(Density(space(), seed=2, mode="min", known=known), 12)
    assert sum(map(loss, warm)) < 0.6 * sum(map(loss, cold))


def test_the_book_counts_where_it_has_other_settings() -> None:
    searcher = Density(space(), seed=0, mode="min", startup=2)
    said = searcher.suggest(1)
    assert said is not None
    other = {**said, "arguments.depth": said["arguments.depth"] % 8 + 1}
    searcher.correct(1, other)
    searcher.told(1, 10, 0.0, final=True)
    assert searcher.suggest(2) not in (None, other)
    searcher.correct(2, None)  # the sweep had no second one
    searcher.told(2, 10, 0.0, final=True)
    assert searcher.suggest(3) is not None


def test_the_book_counts_where_it_has_no_more() -> None:
    searcher = Density(space(), seed=0, mode="min", startup=2)
    searcher.suggest(1)
    searcher.correct(1, None)
    searcher.told(1, 10, 0.0, final=True)  # of a trial that there is not
    assert searcher.suggest(2) is not None


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_trial_without_a_result_is_no_observation_of_a_good_one(value: float | None) -> None:
    searcher = Density(space(), seed=0, mode="min", startup=2)
    searcher.suggest(1)
    searcher.told(1, 4, value, final=True)
    searcher.told(99, 4, 0.0, final=True)  # of nobody
    assert searcher.suggest(2) is not None
