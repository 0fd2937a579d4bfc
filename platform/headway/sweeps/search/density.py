"""The searcher that a sweep has when its file names none: see `headway.core.densities`, and docs/sweeps.md for why.

It learns of every evaluation of every trial, whole or not, and of other sweeps' that are known from before. Some of
what it suggests comes from chance, so that what it takes for bad on little evidence is looked at again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.densities import CELLS, Axis, Cells, Model, Smoothing, Standing, cell, model
from headway.sweeps.distributions import Choice, Distribution
from headway.sweeps.events import Config
from headway.sweeps.search.draws import Fresh, by_chance
from headway.sweeps.search.protocol import Known, Searcher
from headway.sweeps.space import Space

STARTUP = 16
"""Configurations that were evaluated before the densities count; fewer of a small sweep, see `startup_of`."""
CHANCE = 0.1
"""See `Density`."""
CANDIDATES = 64
"""Drawn from the density of the good for each suggestion; the most promising is taken."""


class Density(Searcher):
    """See the module.

    Args:
        space: to search.
        seed: of all that is drawn.
        mode: whether the metric is to be small or large.
        startup: so many observations come from chance.
        known: from before; the model begins with it.
        smoothing: of its densities.
        chance: the part of the suggestions after the first ones which comes from chance nonetheless.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        mode: str,
        startup: int = STARTUP,
        known: Sequence[Known] = (),
        smoothing: Smoothing | None = None,
        chance: float = CHANCE,
    ) -> None:
        self._space, self._seed, self._startup = space, seed, startup
        self._of = space.distributions
        self._axes = [_axis(of) for of in self._of.values()]
        self._sign = 1.0 if mode == "min" else -1.0
        self._smoothing, self._chance = smoothing or Smoothing(), chance
        self._fresh = Fresh()
        self._cells: dict[int, NDArray[np.intp]] = {}
        self._standings: dict[int, Standing] = {}
        for number, each in enumerate(known, start=1):  # numbers below those of trials
            self._cells[-number] = cells_of(space, [each.config])[0]
            self._standings[-number] = Standing.of(-number, each.step, self._sign * each.value)

    def suggest(self, trial: int) -> Config | None:
        chance = random.Random(str((self._seed, trial)))
        chosen = None if self._blind(chance) else self._promising(self._model(), chance)
        chosen = self._by_chance(trial) if chosen is None else chosen
        if chosen is not None:
            self._cells[trial] = cells_of(self._space, [chosen])[0]
        return chosen

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        if value is not None and trial in self._cells:
            self._standings[trial] = Standing.of(trial, step, self._sign * value)

    def correct(self, trial: int, config: Config | None) -> None:
        """A trial has other settings than it suggested: they count. None: there is no such trial."""
        if config is None:
            self._cells.pop(trial, None)
            return
        self._fresh.take(config)
        self._cells[trial] = cells_of(self._space, [config])[0]

    def _blind(self, chance: random.Random) -> bool:
        return len(self._standings) < max(2, self._startup) or chance.random() < self._chance

    def _model(self) -> Model:
        seen = np.array([self._cells[number] for number in self._standings], dtype=np.intp)
        return model(self._axes, list(self._standings.values()), seen, self._smoothing)

    def _by_chance(self, trial: int) -> Config | None:
        return self._fresh.drawn(lambda attempt: by_chance(self._space, (self._seed, trial, attempt)))

    def _promising(self, of: Model, chance: random.Random) -> Config | None:
        """The best of some that are drawn where the good ones are; None: all of them were given out."""
        drawn = [self._drawn(of, chance) for _ in range(CANDIDATES)]
        promising = of.best(cells_of(self._space, drawn))
        return next((drawn[number] for number in promising if self._fresh.take(drawn[number])), None)

    def _drawn(self, of: Model, chance: random.Random) -> Config:
        curves = dict(zip(self._of, of.good, strict=True))

        def choose(key: str, distribution: Distribution) -> Any:
            curve = curves[key]
            number = chance.choices(range(len(curve)), curve.tolist())[0]
            return distribution.at((number + chance.random()) / len(curve))

        return self._space.walk(choose)


def startup_of(trials: int | None) -> int:
    """How many are to be evaluated before the densities count: a quarter of a small sweep, and eight at least."""
    return STARTUP if trials is None else min(STARTUP, max(8, trials // 4))


def cells_of(space: Space, configs: Sequence[Config]) -> Cells:
    """Of each configuration, the cell of each setting; -1 where it does not count."""
    of = space.distributions
    axes = {key: _axis(each) for key, each in of.items()}
    return np.array(
        [
            [cell(axes[key], each.unit(config[key])) if key in config else -1 for key, each in of.items()]
            for config in configs
        ],
        dtype=np.intp,
    ).reshape(len(configs), len(of))


def _axis(of: Distribution) -> Axis:
    return Axis(len(of.values), ordered=False) if isinstance(of, Choice) else Axis(CELLS)
