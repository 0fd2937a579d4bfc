"""Which settings the differences between trials come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headway.sweeps.report import SweepReport, TrialReport

LEAST = 12
"""Trials, below which nothing is told; and four for each setting."""
MOST = 1000
"""The newest trials that are looked at."""
TREES = 100
WEAK = 0.1
"""Share of the differences that must be foreseen for trials that were left out."""


@dataclass(frozen=True)
class Importance:
    """What is told.

    Args:
        shares: by key, most important first; they add up to one.
        note: how good it is, or why there is none.
    """

    shares: dict[str, float]
    note: str


def of(report: SweepReport) -> Importance:
    """Permutation importance over a random forest (Breiman 2001) that foresees the place of a trial among those that
    came as far, from its settings. A setting that a trial has not counts as a value of its own."""
    known = [trial for trial in report.trials if trial.best is not None or trial.state == "diverged"][-MOST:]
    settings = [_counted(trial) for trial in known]
    keys = varied(settings)
    if not keys:
        return Importance({}, "no setting differs between the trials")
    least = max(LEAST, 4 * len(keys))
    if len(known) < least:
        return Importance({}, f"too few trials: {len(known)} have a value, at least {least} are needed")
    shares, foreseen = _forest([_row(each, keys, settings) for each in settings], _places(known, report.mode))
    if foreseen < WEAK or sum(shares) <= 0:
        return Importance({}, "the settings explain too little of the differences between these trials")
    total = sum(shares)
    found = sorted(zip(keys, shares, strict=True), key=lambda pair: -pair[1])
    note = f"of {len(known)} trials; the settings explain {foreseen:.0%} of their order"
    return Importance({key: round(share / total, 4) for key, share in found}, note)


def varied(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Keys of which there are two values or more, or that some have and some have not."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({repr(each.get(key, _row)) for each in settings}) > 1]


def _places(trials: Sequence[TrialReport], mode: str) -> list[float]:
    """The place of each, from 0 (worst) to 1: further is better, and among those that came as far the better value.
    Values of different steps cannot be compared."""
    sign = 1.0 if mode == "max" else -1.0

    def worth(trial: TrialReport) -> tuple[bool, int, float]:
        if trial.state == "diverged" or trial.best is None:
            return False, 0, 0.0
        return True, trial.rungs, sign * trial.best

    order = sorted(range(len(trials)), key=lambda index: worth(trials[index]))
    places = [0.0] * len(trials)
    for place, index in enumerate(order):
        if worth(trials[index])[0]:
            places[index] = place / max(1, len(trials) - 1)
    return places


def _counted(trial: TrialReport) -> dict[str, Any]:
    """The settings that what is known of a trial came with."""
    return trial.settings if trial.state == "diverged" else trial.best_settings


def _row(settings: dict[str, Any], keys: Sequence[str], others: Sequence[dict[str, Any]]) -> list[float]:
    return [_number(settings.get(key), key, others) for key in keys]


def _number(value: Any, key: str, others: Sequence[dict[str, Any]]) -> float:
    """A number for a setting's value; NaN, which trees take as a value of its own, where a trial has it not."""
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    words = sorted({repr(each[key]) for each in others if each.get(key) is not None})
    return float(words.index(repr(value)))


def _forest(rows: list[list[float]], places: list[float]) -> tuple[list[float], float]:
    """How much each column matters, and the share of the differences that is foreseen for rows that were left out."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    table, target = np.array(rows), np.array(places)
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, max_features=0.7, oob_score=True, random_state=0)
    forest.fit(table, target)
    found = permutation_importance(forest, table, target, n_repeats=5, random_state=0)
    return [max(0.0, float(mean)) for mean in found.importances_mean], float(forest.oob_score_)
