"""Searchers that learn nothing: settings by chance, from a sequence that fills a space evenly, or one after another.

What a draw is follows from the seed and the number of the call or of the trial alone. No configuration comes twice: a
training that is run again gives the same bits again.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from headway.sweeps.events import Config
from headway.sweeps.search.protocol import Known, Searcher
from headway.sweeps.space import Space

TRIES = 1000
"""Draws after which a space is taken to have nothing new: 1 in 1,000 of it left is missed once in three times."""


def key_of(config: Config) -> str:
    """The same for settings that are the same."""
    return json.dumps(config, sort_keys=True, default=repr)


def by_chance(space: Space, seed: object) -> Config:
    """Settings drawn from their distributions."""
    generator = random.Random(str(seed))
    return space.walk(lambda key, distribution: distribution.at(generator.random()))


class Fresh:
    """Settings that were not given out yet."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def take(self, config: Config) -> bool:
        """Whether these are new; they are given out by that."""
        key, before = key_of(config), len(self._given)
        self._given.add(key)
        return len(self._given) > before

    def drawn(self, draw: Callable[[int], Config]) -> Config | None:
        """The first new ones of draws by their number; None: there seem to be no more."""
        return next((config for config in map(draw, range(TRIES)) if self.take(config)), None)


def firsts(known: Sequence[Known], mode: str) -> list[Config]:
    """What is tried first by a searcher that learns nothing: the best that is known from before."""
    sign = 1.0 if mode == "min" else -1.0
    rated = [each for each in known if each.value == each.value]
    rated.sort(key=lambda each: (not each.whole, -each.step, sign * each.value))
    return [rated[0].config] if rated else []


class Drawn(Searcher, ABC):
    """What all of them are: something to begin with, then draws.

    Args:
        begin: settings to be tried first.
    """

    def __init__(self, begin: Sequence[Config] = ()) -> None:
        self._begin = list(begin)
        self._fresh = Fresh()

    def suggest(self, trial: int) -> Config | None:
        while self._begin:
            config = self._begin.pop(0)
            if self._fresh.take(config):
                return config
        return self._next(trial)

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        """Nothing is learnt of it."""

    def correct(self, trial: int, config: Config | None) -> None:
        """A trial has other settings than were suggested; they are given out by that."""
        if config is not None:
            self._fresh.take(config)

    @abstractmethod
    def _next(self, trial: int) -> Config | None:
        """Settings that were not given out; None: there are no more."""


class Random(Drawn):
    """Draws by chance. What a trial gets does not depend on how many were asked for before."""

    def __init__(self, space: Space, seed: int, begin: Sequence[Config] = ()) -> None:
        super().__init__(begin)
        self._space, self._seed = space, seed

    def _next(self, trial: int) -> Config | None:
        return self._fresh.drawn(lambda attempt: by_chance(self._space, (self._seed, trial, attempt)))


class Grid(Drawn):
    """Every combination of the listed values, once.

    Raises BadInput: a key has no list.
    """

    def __init__(self, space: Space, begin: Sequence[Config] = ()) -> None:
        super().__init__(begin)
        self._rest: Iterator[Config] = space.grid()

    def _next(self, trial: int) -> Config | None:
        return next((config for config in self._rest if self._fresh.take(config)), None)


class Sobol(Drawn):
    """A scrambled Sobol sequence (scipy.stats.qmc), a dimension for each key: evener than chance. A key whose condition
    does not hold takes its number, and does nothing with it."""

    def __init__(self, space: Space, seed: int, begin: Sequence[Config] = ()) -> None:
        super().__init__(begin)
        from scipy.stats import qmc

        self._space = space
        self._keys = {key: at for at, key in enumerate(space.distributions)}
        self._sequence = qmc.Sobol(len(self._keys), scramble=True, rng=seed)

    def _next(self, trial: int) -> Config | None:
        return self._fresh.drawn(lambda attempt: self._point())

    def _point(self) -> Config:
        point: Any = self._sequence.random(1)[0]
        return self._space.walk(lambda key, distribution: distribution.at(float(point[self._keys[key]])))
