"""Searchers on a table: what they suggest are its rows, each once."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from headway.core.densities import Cells, Model, Smoothing
from headway.sweeps.events import Config
from headway.sweeps.search.density import CHANCE, STARTUP, Density, cells_of
from headway.sweeps.search.protocol import Searcher
from headway.sweeps.space import Space


class Rows(Searcher):
    """A searcher that suggests rows.

    Attributes:
        row: by trial, where its configuration is in the table.
    """

    row: dict[int, int]


class ByChance(Rows):
    """In an order of chance, the same for all that have this seed."""

    def __init__(self, configs: Sequence[Config], seed: int) -> None:
        self.row = {}
        self._configs = configs
        self._order = list(range(len(configs)))
        random.Random(seed).shuffle(self._order)

    def suggest(self, trial: int) -> Config | None:
        if not self._order:
            return None
        self.row[trial] = self._order.pop()
        return self._configs[self.row[trial]]

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        """Nothing is learnt of it."""


class Promising(Density, Rows):
    """The density model: of all rows that were not tried it takes the most promising.

    Args:
        configs: the rows.
        cells: theirs, where somebody has them; for the rest see `Density`.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        space: Space,
        seed: int,
        mode: str,
        startup: int = STARTUP,
        smoothing: Smoothing | None = None,
        chance: float = CHANCE,
        cells: Cells | None = None,
    ) -> None:
        super().__init__(space, seed, mode, startup, smoothing=smoothing, chance=chance)
        self.row = {}
        self._configs = configs
        self._all = cells_of(space, configs) if cells is None else cells
        self._unused = np.ones(len(configs), dtype=np.bool_)
        self._order = list(range(len(configs)))
        random.Random(seed).shuffle(self._order)

    def suggest(self, trial: int) -> Config | None:
        chance = random.Random(str((self._seed, trial)))
        if not self._unused.any():
            return None
        if self._blind(chance):
            row = next(row for row in reversed(self._order) if self._unused[row])
        else:
            row = self._most_promising(self._model())
        self.row[trial], self._unused[row] = row, False
        self._cells[trial] = self._all[row]
        return self._configs[row]

    def _most_promising(self, of: Model) -> int:
        left = np.flatnonzero(self._unused)
        return int(left[of.best(self._all[left])[0]])


class Nearest(Rows):
    """Any other searcher: the row that was not tried and is nearest to what it suggests; it is told which."""

    def __init__(self, configs: Sequence[Config], space: Space, searcher: Searcher) -> None:
        self.row = {}
        self._configs, self._space, self._searcher = configs, space, searcher
        self._places = np.array([self._place(config) for config in configs])
        self._unused = np.ones(len(configs), dtype=np.bool_)

    def suggest(self, trial: int) -> Config | None:
        said = self._searcher.suggest(trial)
        left = np.flatnonzero(self._unused)
        if said is None or not len(left):
            return None
        away = np.square(self._places[left] - self._place(said)).sum(axis=1)
        row = int(left[int(np.argmin(away))])
        self.row[trial], self._unused[row] = row, False
        correct = getattr(self._searcher, "correct", None)
        if correct is not None:
            correct(trial, self._configs[row])
        return self._configs[row]

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        self._searcher.told(trial, step, value, final)

    def _place(self, config: Config) -> list[float]:
        """In the unit cube; a setting that does not count is off it."""
        return [of.unit(config[key]) if key in config else -1.0 for key, of in self._space.distributions.items()]
