"""Spaces: Tune's distributions, conditions on another choice, and how Optuna and Tune are asked for them."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import BadInput
from headway.sweeps.distributions import alike
from headway.sweeps.space import Space, faults_of, parse
from headway.sweeps.words import KINDS, LISTS
from headway.sweeps.words import parse as distribution

ALL = {
    "uniform": [-1.5, 2.0],
    "quniform": [0.1, 0.9, 0.2],
    "loguniform": [1e-4, 1e-1],
    "qloguniform": [0.01, 10.0, 0.01],
    "randn": [1.0, 0.5],
    "qrandn": [0.0, 2.0, 0.5],
    "randint": [-3, 4],
    "qrandint": [-10, 10, 5],
    "lograndint": [1, 1000],
    "qlograndint": [2, 100, 2],
    "choice": ["a", 1, True, None, [1, 2], {"x": 1}],
    "grid": [64, 128],
    "grid_search": [0.1, 0.2],
}
CONDITIONAL = {
    "optimizer.nesterov": {"choice": [True, False], "when": {"optimizer.momentum_kind": "heavy"}},
    "optimizer.momentum_kind": {"choice": ["none", "heavy"], "when": {"optimizer.name": "sgd"}},
    "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "optimizer.name": {"choice": ["sgd", "adamw", "adam"]},
    "optimizer.amsgrad": {"choice": [True, False], "when": {"optimizer.name": ["adam", "adamw"]}},
    "arguments.depth": 3,
}


def test_all_of_tunes_names_are_tried_here() -> None:
    assert set(ALL) == {*KINDS, *LISTS}


@pytest.mark.parametrize("word", ALL)
@given(u=st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_is_held_and_found_again(word: str, u: float) -> None:
    of = distribution(word, ALL[word])
    value = of.at(u)
    assert of.holds(value)
    assert alike(of.value(of.param(value)), value) or math.isclose(of.value(of.param(value)), value, rel_tol=1e-6)
    again = of.at(min(of.unit(value), 1 - 1e-12))
    assert alike(again, value) or math.isclose(again, value, rel_tol=1e-6, abs_tol=1e-6)


def drawn_by(domain: Any, seed: int) -> list[Any]:
    """What Tune draws, as plain values: its whole numbers are NumPy's."""
    drawn = domain.sample(size=300, random_state=seed)
    return [each.item() if hasattr(each, "item") else each for each in drawn]


@pytest.mark.parametrize("word", [word for word in ALL if not word.endswith("randn")])
def test_tune_draws_from_the_same_values(word: str) -> None:
    of = distribution(word, ALL[word])
    drawn = drawn_by(of.tune(), 1)
    assert all(of.holds(value) for value in drawn)
    if isinstance(of.bounds, tuple) and len(set(drawn)) < 20:
        assert {min(drawn), max(drawn)} == set(of.bounds), "its ends are the same"


@pytest.mark.parametrize("word", KINDS)
def test_the_meaning_is_that_of_tunes_own_function(word: str) -> None:
    from ray import tune

    theirs = getattr(tune, word)(*(ALL[word] if word != "quniform" else [0.2, 0.8, 0.2]))
    of = distribution(word, ALL[word] if word != "quniform" else [0.2, 0.8, 0.2])
    assert all(of.holds(value) for value in drawn_by(theirs, 2))


@pytest.mark.parametrize(
    ("word", "args", "values"),
    [
        ("randint", [0, 3], [0, 1, 2]),
        ("qrandint", [0, 10, 5], [0, 5, 10]),
        ("quniform", [0, 0.3, 0.1], [0.0, 0.1, 0.2, 0.3]),
        ("quniform", [0.05, 0.35, 0.1], [0.1, 0.2, 0.3]),
        ("choice", ["a", "b"], ["a", "b"]),
    ],
)
def test_each_value_has_the_same_share(word: str, args: list[Any], values: list[Any]) -> None:
    of = distribution(word, args)
    drawn = [of.at((n + 0.5) / 1200) for n in range(1200)]
    assert [drawn.count(value) for value in values] == [1200 // len(values)] * len(values)


def test_orders_of_magnitude_have_the_same_share() -> None:
    of = distribution("loguniform", [1e-4, 1e-2])
    assert of.at(0.5) == pytest.approx(1e-3)
    assert distribution("lograndint", [1, 100]).at(0.5) in (9, 10)


@pytest.mark.parametrize("word", ALL)
def test_optuna_suggests_values_of_it_and_takes_them_back(word: str) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    of = distribution(word, ALL[word])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        value = of.suggest(trial, "key")
        assert of.holds(value)
        assert trial.distributions["key"] == of.optuna()
        study.tell(trial, 0.0)
    told = optuna.trial.create_trial(params={"key": of.param(value)}, distributions={"key": of.optuna()}, value=1.0)
    study.add_trial(told)
    assert alike(of.value(study.trials[-1].params["key"]), value) or math.isclose(
        of.value(study.trials[-1].params["key"]), value
    )


def draw(space: Space, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    return space.walk(lambda key, of: of.at(rng.random()))


def test_a_key_counts_only_with_the_choice_that_it_hangs_on() -> None:
    space = parse(CONDITIONAL)
    seen = [draw(space, seed) for seed in range(200)]
    for config in seen:
        assert ("optimizer.momentum_kind" in config) == (config["optimizer.name"] == "sgd")
        assert ("optimizer.nesterov" in config) == (config.get("optimizer.momentum_kind") == "heavy")
        assert ("optimizer.amsgrad" in config) == (config["optimizer.name"] != "sgd")
        assert config["arguments.depth"] == 3
        assert space.fault(config) == ""
        assert list(config) == [key for key in CONDITIONAL if key in config], "in the order of the file"
    assert {len(config) for config in seen} == {4, 5}


@pytest.mark.parametrize("order", list(itertools.permutations(CONDITIONAL))[::37])
def test_the_order_of_the_keys_is_free(order: tuple[str, ...]) -> None:
    space = parse({key: CONDITIONAL[key] for key in order})
    units = dict(zip(sorted(CONDITIONAL), (0.1, 0.7, 0.9, 0.2, 0.3, 0.0), strict=True))
    assert space.at(units) == parse(CONDITIONAL).at(units)


def test_a_grid_has_every_combination_once_and_no_more() -> None:
    space = parse({key: each for key, each in CONDITIONAL.items() if key != "optimizer.lr"})
    configs = list(space.grid())
    texts = [repr(sorted(config.items())) for config in configs]
    assert len(texts) == len(set(texts)) == (1 + 2) + 2 * 2  # sgd: none, or heavy with two; two others with two
    assert all(space.fault(config) == "" for config in configs)
    plain = parse({"arguments.a": {"grid": [1, 2]}, "arguments.b": {"grid": ["x", "y"]}})
    assert [tuple(config.values()) for config in plain.grid()] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_a_grid_of_what_has_no_list_is_refused() -> None:
    with pytest.raises(BadInput, match=r"space.optimizer.lr has no list"):
        parse(CONDITIONAL).grid()


def test_every_extreme_of_every_key_is_at_a_corner() -> None:
    space = parse(CONDITIONAL)
    corners = list(space.corners())
    assert all(space.fault(config) == "" for config in corners)
    for key, of in space.distributions.items():
        for value in of.extremes:
            assert any(key in config and alike(config[key], value) for config in corners), (key, value)


@st.composite
def trees(drawn: st.DrawFn) -> dict[str, Any]:
    """Spaces of choices, each of which may hang on values of those before it; in any order."""
    tree: dict[str, Any] = {}
    for number in range(drawn(st.integers(1, 6))):
        given: dict[str, Any] = {"choice": list(range(drawn(st.integers(1, 3))))}
        parents = drawn(st.lists(st.sampled_from(sorted(tree)), max_size=2, unique=True)) if tree else []
        if parents:
            given["when"] = {
                key: drawn(st.lists(st.sampled_from(tree[key]["choice"]), min_size=1, unique=True)) for key in parents
            }
        tree[f"arguments.k{number}"] = given
    return {key: tree[key] for key in drawn(st.permutations(sorted(tree)))}


@given(tree=trees())
def test_any_nesting_of_conditions_holds_in_walks_grids_and_corners(tree: dict[str, Any]) -> None:
    space = parse(tree)
    every = [repr(config) for config in space.grid()]
    assert len(every) == len(set(every))
    assert all(space.fault(config) == "" for config in space.grid())
    assert {repr(config) for config in space.corners()} <= set(every), "a corner is one of all"
    assert {repr(draw(space, seed)) for seed in range(5)} <= set(every), "and so is what is drawn"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"optimizer.name": "adam", "optimizer.lr": 0.01, "arguments.depth": 3}, "optimizer.amsgrad is missing"),
        (
            {"optimizer.name": "sgd", "optimizer.lr": 0.01, "arguments.depth": 3, "optimizer.momentum_kind": "none"}
            | {"optimizer.nesterov": True},
            "optimizer.nesterov is set, and its condition does not hold",
        ),
        ({"optimizer.name": "sdg", "optimizer.lr": 0.01}, "optimizer.name cannot be 'sdg'"),
        (
            {"optimizer.name": "adam", "optimizer.lr": 0.01, "optimizer.amsgrad": True, "arguments.depth": 4},
            "arguments.depth is always 3",
        ),
        (
            {"optimizer.name": "adam", "optimizer.lr": 0.01, "optimizer.amsgrad": True, "arguments.depth": 3, "lr": 1},
            "lr is no key of the space. Known:",
        ),
    ],
)
def test_what_is_no_configuration_is_told(config: dict[str, Any], why: str) -> None:
    assert parse(CONDITIONAL).fault(config).startswith(why)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({}, "space is empty"),
        ([], "space should be a mapping"),
        ({"a": {"loguniforme": [1, 2]}}, "unknown distribution 'loguniforme'. Did you mean 'loguniform'?"),
        ({"a": {"uniform": [2, 1]}}, "the bounds are the wrong way round: write [1, 2]"),
        ({"a": {"uniform": [1, 1]}}, "both bounds are 1"),
        ({"a": {"loguniform": [0, 1]}}, "the lower bound is 0, and a logarithm needs one above 0"),
        ({"a": {"lograndint": [-1, 5]}}, "the lower bound is -1"),
        ({"a": {"uniform": [1]}}, "uniform takes [low, high], and [1] is given"),
        ({"a": {"uniform": 1}}, "uniform takes [low, high], and 1 is given"),
        ({"a": {"quniform": [1, 2]}}, "quniform takes [low, high, q]"),
        ({"a": {"quniform": [1, 2, 0]}}, "q is 0, and should be above 0"),
        ({"a": {"quniform": [0.1, 0.2, 5]}}, "no multiple of 5 lies between 0.1 and 0.2"),
        ({"a": {"qrandint": [1, 4, 5]}}, "no multiple of 5 lies between 1 and 4"),
        ({"a": {"randint": [1, 1]}}, "the upper bound is left out, as in Ray Tune. Write [1, 2]"),
        ({"a": {"randint": [1, 2.5]}}, "2.5 is no whole number. Did you mean uniform?"),
        ({"a": {"uniform": ["x", 1]}}, "'x' is none"),
        ({"a": {"uniform": [0, True]}}, "True is none"),
        ({"a": {"uniform": [0, math.inf]}}, "inf is none"),
        ({"a": {"randn": [0, 0]}}, "the standard deviation is 0"),
        ({"a": {"choice": []}}, "choice has no values"),
        ({"a": {"choice": "abc"}}, "choice takes a list of values"),
        ({"a": {"choice": [1, 2, 1.0]}}, "choice names 1.0 twice"),
        ({"a": {"uniform": [0, 1], "choice": [1]}}, "uniform and choice at once"),
        ({"a": {"uniform": [0, 1], "wehn": {}}}, "unknown key 'wehn' beside uniform. Did you mean 'when'?"),
        ({"a": {"when": {"b": 1}}}, "a condition without a distribution"),
        ({"a": {"sample_from": "lambda c: 1"}}, "sample_from is code"),
        ({"optimizer": {"lr": {"uniform": [0, 1]}}}, "write it as one dotted key: optimizer.lr: ..."),
        ({"a": {}}, "a condition without a distribution"),
        ({"a": 1}, "space holds constants only"),
        ({"a.": {"uniform": [0, 1]}}, "is no dotted key of a job"),
        ({1: {"uniform": [0, 1]}}, "is no dotted key of a job"),
        ({"a": {"uniform": [0, 1], "when": {"b": 1}}}, "space.a.when.b: space has no such key"),
        ({"opt": {"choice": [1]}, "a": {"uniform": [0, 1], "when": {"otp": 1}}}, "Did you mean 'opt'?"),
        ({"a": {"uniform": [0, 1], "when": {}}}, "when takes keys of the space"),
        ({"a": {"uniform": [0, 1], "when": {"a": 1}}}, "a key cannot hang on itself"),
        ({"o": {"choice": ["x"]}, "a": {"uniform": [0, 1], "when": {"o": []}}}, "names no value"),
        ({"o": {"choice": ["sgd"]}, "a": {"uniform": [0, 1], "when": {"o": "sdg"}}}, "o is never that. Did you mean"),
        ({"o": {"uniform": [0, 1]}, "a": {"uniform": [0, 1], "when": {"o": 1}}}, "goes by a choice or a grid"),
        (
            {"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}},
            "in a circle. Strike out one of these conditions",
        ),
        ({"a": {"constant": {"x": 1}}, "a.x": {"uniform": [0, 1]}}, "a and a.x overlap"),
        ({"a.x": {"uniform": [0, 1]}, "'a'.x": {"uniform": [0, 1]}}, "are the same key"),
    ],
)
def test_what_is_wrong_with_a_space_is_said(written: Any, said: str) -> None:
    faults = faults_of(written)
    assert said in "; ".join(faults)
    with pytest.raises(BadInput):
        parse(written)


def test_all_faults_are_said_at_once() -> None:
    faults = faults_of({"a": {"uniform": [2, 1]}, "b": {"chioce": [1]}, "c": {"uniform": [0, 1]}})
    assert [fault.partition(":")[0] for fault in faults] == ["space.a", "space.b"]


def test_a_constant_mapping_may_hang_on_a_choice() -> None:
    space = parse({"o": {"choice": ["x", "y"]}, "arguments.k": {"constant": {"deep": [1]}, "when": {"o": "x"}}})
    assert space.at({"o": 0.0}) == {"o": "x", "arguments.k": {"deep": [1]}}
    assert space.at({"o": 0.9}) == {"o": "y"}
