"""How good a searcher and a scheduler are on a table: the regret over the stretches used, over several seeds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from headway.errors import BadInput, nearest
from headway.sweeps.file import Sweep
from headway.sweeps.loop import Loop
from headway.sweeps.named import Scheduler, Search
from headway.sweeps.replay.clock import Cluster, Played, play
from headway.sweeps.replay.rows import ByChance, Nearest, Promising, Rows
from headway.sweeps.replay.table import Table
from headway.sweeps.rules import Budget, Rules, Way
from headway.sweeps.schedule import registry as schedulers
from headway.sweeps.schedule.protocol import Lengths
from headway.sweeps.search import density
from headway.sweeps.search import registry as searchers

WHOLE_RUNS = 20
"""The budget of a replay, in whole runs, where nothing is said."""


@dataclass(frozen=True)
class Replayed:
    """Of one table.

    Args:
        table: its name.
        budget: stretches.
        regrets: by seed, after 0, 1, 2 ... stretches.
        played: by seed.
        seconds: of this computer, for all seeds.
    """

    table: Table
    budget: int
    regrets: list[list[float]] = field(default_factory=list)
    played: list[Played] = field(default_factory=list)
    seconds: float = 0.0

    def mean(self, stretches: int) -> float:
        """The regret after so many, mean over seeds."""
        return sum(regret[stretches] for regret in self.regrets) / len(self.regrets)

    @property
    def best(self) -> tuple[int, float]:
        """Of all seeds: the row with the best value seen, and the value."""
        curves = self.table.losses
        row, loss = -1, math.inf
        for played in self.played:
            for number, step in played.steps.items():
                least = float(np.nanmin(curves[played.rows[number]][1 : step + 1], initial=math.inf))
                row, loss = (played.rows[number], least) if least < loss or row < 0 else (row, loss)
        return row, loss if self.table.mode == "min" else -loss

    def error(self, stretches: int) -> float:
        """Its standard error; NaN of one seed."""
        number, mean = len(self.regrets), self.mean(stretches)
        if number < 2:
            return math.nan
        spread = sum((regret[stretches] - mean) ** 2 for regret in self.regrets) / (number - 1)
        return math.sqrt(spread / number)


def points(budget: int) -> tuple[int, ...]:
    """Where regrets are told: after a quarter, half and all."""
    return tuple(sorted({max(1, budget // 4), max(1, budget // 2), budget}))


def by_name(sweep: Sweep, search: str | None, scheduler: str | None) -> Sweep:
    """With another search or scheduler, by its default options.

    Raises:
        BadInput: there is none of that name.
    """
    update: dict[str, Any] = {}
    for key, name, kind in (("search", search, Search), ("scheduler", scheduler, Scheduler)):
        if name is not None:
            try:
                update[key] = kind(name=name)
            except ValidationError as error:
                raise BadInput(f"--{key} {name}", str(error.errors()[0]["ctx"]["error"]), "") from None
    return sweep.model_copy(update=update)


def sweep_of(table: Table, search: Search | None = None, scheduler: Scheduler | None = None) -> Sweep:
    """A sweep over a table that no file describes: the default one, or with this search or scheduler."""
    found = Sweep.model_construct(
        name=table.name,
        job={},
        space={},
        metric=table.metric,
        mode=table.mode,
        search=search or Search(),
        scheduler=scheduler or Scheduler(),
    )
    found.__dict__["searched"] = table.space
    return found


def of_file(table: Table, sweep: Sweep) -> tuple[Table, Sweep]:
    """The part of a table that a sweep's file speaks of: its settings, and the rows in its space.

    Raises:
        BadInput: the table has no column of a key, or no row in the space.
    """
    keys = list(sweep.searched.settings)
    columns = sorted({key for config in table.configs for key in config})
    missing = next((key for key in keys if key not in columns), None)
    if missing is not None:
        raise BadInput(
            f"space.{missing}: the table has no column of that name",
            f"It has {', '.join(columns)}",
            nearest(missing, columns),
        )
    of_space = [{key: config[key] for key in keys if key in config} for config in table.configs]
    rows = [row for row, config in enumerate(of_space) if not sweep.searched.fault(config)]
    if not rows:
        fault = sweep.searched.fault(of_space[0])
        raise BadInput("no row of the table is in the sweep's space", f"Of the first, {fault}", "Widen the space.")
    within = replace(table, configs=tuple(of_space[row] for row in rows), curves=table.curves[rows])
    return within, sweep


def replay(
    table: Table, sweep: Sweep | None = None, seeds: int = 1, budget: int | None = None, cluster: Cluster | None = None
) -> Replayed:
    """Replay a sweep over a table.

    Args:
        sweep: whose search, scheduler and number of trials count; the default one when not given.
        seeds: 0 up to this one; a searcher's own seed is added to each.
        budget: stretches; `WHOLE_RUNS` whole runs when not given.
        cluster: one worker when not given.
    """
    sweep = sweep or sweep_of(table)
    budget = budget or WHOLE_RUNS * table.length
    found, began = Replayed(table, budget), time.perf_counter()
    for seed in range(seeds):
        played = once(table, sweep, seed, budget, cluster or Cluster())
        found.played.append(played)
        regrets = [table.regret(loss) for loss in played.seen[: budget + 1]]
        found.regrets.append([*regrets, *[regrets[-1]] * (budget + 1 - len(regrets))])
    return replace(found, seconds=time.perf_counter() - began)


def once(table: Table, sweep: Sweep, seed: int, budget: int, cluster: Cluster, searcher: Rows | None = None) -> Played:
    """One sweep. searcher: another than the sweep's."""
    way = Way(table.length, 1)
    rules = Rules(sweep.metric, sweep.mode, sweep.trials, lambda config: way, budget=Budget(steps=budget))
    seeded = sweep.model_copy(update={"search": sweep.search.model_copy(update={"seed": sweep.search.seed + seed})})
    loop = Loop(rules, schedulers.create(seeded, Lengths(table.length)))
    return play(loop, searcher or _rows(table, seeded), table, cluster, seed)


def _rows(table: Table, sweep: Sweep) -> Rows:
    search = sweep.search
    if search.name == "random":
        return ByChance(table.configs, search.seed)
    if search.name == "density":
        startup = search.startup or density.startup_of(sweep.trials)
        cells = table.cells if sweep.searched is table.space else None
        return Promising(table.configs, sweep.searched, search.seed, sweep.mode, startup, cells=cells)
    return Nearest(table.configs, sweep.searched, searchers.create(sweep))
