"""Every scheduler keeps the contract."""

from __future__ import annotations

import pytest

from headway.core.rungs import steps_of
from headway.sweeps.schedule import Lengths, kinds
from headway.sweeps.schedule.plain import Plain
from headway.sweeps.schedule.promoting import Promoting
from headway.testing.scheduler import LENGTH, SPACE, Make, SchedulerContract

LENGTHS = Lengths(LENGTH)
KEYS = tuple(SPACE.distributions)


class TestPlain(SchedulerContract):
    thrifty = False

    @pytest.fixture
    def make(self) -> Make:
        return lambda mode, trials: Plain()


class TestPromoting(SchedulerContract):
    many = 1500

    @pytest.fixture(params=[False, True], ids=["at once", "delayed"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda mode, trials: Promoting(steps_of(1, 4, LENGTH), 4, mode, request.param)


class TestStopping(SchedulerContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda mode, trials: kinds.stopping(1, 4, mode, LENGTHS, 0)


class TestHyperBand(SchedulerContract):
    many = 300

    @pytest.fixture
    def make(self) -> Make:
        return lambda mode, trials: kinds.hyperband(1, 3, mode, LENGTHS, trials, 0)


class TestMedian(SchedulerContract):
    many = 100

    @pytest.fixture
    def make(self) -> Make:
        return lambda mode, trials: kinds.median(4, 3, mode, LENGTHS, 0)


class TestPopulation(SchedulerContract):
    thrifty = False  # whoever is bad takes over what is good
    many = 100

    @pytest.fixture
    def make(self) -> Make:
        return lambda mode, trials: kinds.pbt(SPACE, 4, 0.25, 0.25, KEYS, mode, LENGTHS, trials, 0)


class TestPopulationOfBandits(SchedulerContract):
    """Its Gaussian process takes seconds for a decision: a population of three."""

    thrifty = False
    trials = 3
    many = 3

    @pytest.fixture
    def make(self) -> Make:
        return lambda mode, trials: kinds.pb2(SPACE, 16, 0.25, KEYS, mode, LENGTHS, trials, 0)
