"""Every searcher keeps the contract."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from headway.sweeps.events import Config
from headway.sweeps.search import draws, models, theirs
from headway.sweeps.search.density import Density
from headway.sweeps.space import Space
from headway.testing.searcher import PLAIN, Make, SearcherContract


class TestRandom(SearcherContract):
    calls = 3000

    @pytest.fixture
    def make(self) -> Make:
        return lambda space, seed, known: draws.Random(space, seed, draws.firsts(known, "min"))


class TestGrid(SearcherContract):
    seeded = False
    lists = True

    @pytest.fixture
    def make(self) -> Make:
        return lambda space, seed, known: draws.Grid(space, draws.firsts(known, "min"))


class TestSobol(SearcherContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, seed, known: draws.Sobol(space, seed, draws.firsts(known, "min"))


class TestDensity(SearcherContract):
    calls = 200

    @pytest.fixture
    def make(self) -> Make:
        return lambda space, seed, known: Density(space, seed, "min", known=known)


class TestTPE(SearcherContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, seed, known: models.Modelled(space, models.tpe(seed, 10), False, "min", seed, known)


class TestGaussianProcess(SearcherContract):
    calls = 24

    @pytest.fixture
    def make(self) -> Make:
        return lambda space, seed, known: models.Modelled(space, models.gp(seed, 6), True, "min", seed, known)


class TestCMAES(SearcherContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, seed, known: models.Modelled(space, models.cmaes(seed, 5), True, "min", seed, known)


class Ours:
    """A searcher as a user may write it."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed

    def suggest(self, trial: int) -> Config:
        return draws.by_chance(self.space, (self.seed, trial))


def brought(name: str, **options: Any) -> Make:
    return lambda space, seed, known: theirs.brought(name, options, space, "loss", "min", seed, known)


class TestOurs(SearcherContract):
    novel = False

    @pytest.fixture
    def make(self, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr(theirs, "load", lambda name: Ours)
        return brought("mine.py:Ours")


class TestTunesOptuna(SearcherContract):
    """Ray Tune's own, as somebody brings it who has it from elsewhere."""

    seeded = False  # its sampler has a seed of its own
    plain: ClassVar = {key: of for key, of in PLAIN.items() if key != "arguments.noise"}  # it knows no bell curve
    conditions = False
    novel = False
    calls = 60

    @pytest.fixture
    def make(self) -> Make:
        return brought("ray.tune.search.optuna:OptunaSearch", seed=3)
