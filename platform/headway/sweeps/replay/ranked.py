"""The distribution of a column of numbers: every value of the table is as likely as another.

A table does not say whether a setting was drawn evenly or over orders of magnitude. By their order its values are even.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headway.sweeps.distributions import is_number

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


@dataclass(frozen=True)
class Ranked:
    """See the module. Others are asked for the quantile.

    Args:
        values: of the column, rising.
    """

    values: tuple[float, ...]

    bounds = None
    listed = None

    @property
    def extremes(self) -> tuple[float, ...]:
        return self.values[0], self.values[-1]

    def at(self, u: float) -> float:
        return self.values[min(len(self.values) - 1, max(0, int(u * len(self.values))))]

    def unit(self, value: Any) -> float:
        low, high = bisect_left(self.values, value), bisect_right(self.values, value)
        return min(1.0, (low + high) / 2 / len(self.values))

    def holds(self, value: Any) -> bool:
        return is_number(value) and self.values[0] <= value <= self.values[-1]

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(0.0, 1.0)

    def param(self, value: Any) -> float:
        return self.unit(value)

    def value(self, param: Any) -> float:
        return self.at(float(param))

    def suggest(self, trial: Trial, key: str) -> float:
        return self.at(trial.suggest_float(key, 0.0, 1.0))

    def tune(self) -> Any:
        from ray.tune.search import sample

        return sample.Categorical(list(self.values)).uniform()
