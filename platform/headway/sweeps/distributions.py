"""Distributions of a setting, by Ray Tune's names: where a value lies, how it is drawn, what others call it.

A value is drawn by its quantile (`at`), so that whoever draws brings the numbers between 0 and 1: a seeded generator, a
Sobol sequence. What a distribution is called in `headway.sweeps.space` is what `ray.tune` calls it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

_EDGE = 1e-6
"""Quantiles of a normal distribution nearer to 0 or 1 are not asked of Optuna, whose ranges have ends."""
_CLOSE = 1e-9
"""Part by which a value may lie outside of its bounds, or off its grid, by rounding."""


class Distribution(Protocol):
    """What a setting may be."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the greatest value; None where values have no order, or no ends."""

    @property
    def listed(self) -> tuple[Any, ...] | None:
        """All values, where they are named one by one."""

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values at its edges; all where they are listed."""

    def at(self, u: float) -> Any:
        """Its quantile. u: from 0 up to 1."""

    def unit(self, value: Any) -> float:
        """Where a value lies from 0 to 1: about what `at` was asked for it."""

    def holds(self, value: Any) -> bool:
        """Whether it can have this value."""

    def optuna(self) -> BaseDistribution:
        """The nearest of Optuna's; its values are others where Optuna has no such distribution, see `param`."""

    def param(self, value: Any) -> Any:
        """A value as Optuna's distribution has it."""

    def value(self, param: Any) -> Any:
        """The way back."""

    def suggest(self, trial: Trial, key: str) -> Any:
        """Have Optuna say a value, under this name."""

    def tune(self) -> Any:
        """The same as a domain of `ray.tune.search.sample`."""


@dataclass(frozen=True)
class Continuous:
    """Numbers between two bounds, both included.

    Args:
        low, high: the bounds.
        q: values are its multiples; None: any number.
        log: evenly over orders of magnitude.
    """

    low: float
    high: float
    q: float | None = None
    log: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        return (self.low, self.high) if self.q is None else (self._times(self._first), self._times(self._last))

    listed = None

    @property
    def extremes(self) -> tuple[float, ...]:
        return self.bounds

    @property
    def _first(self) -> int:
        return math.ceil(self.low / (self.q or 1.0) * (1 - math.copysign(_CLOSE, self.low)))

    @property
    def _last(self) -> int:
        return math.floor(self.high / (self.q or 1.0) * (1 + math.copysign(_CLOSE, self.high)))

    @property
    def empty(self) -> bool:
        """Whether no multiple of q lies between the bounds."""
        return self.q is not None and self._first > self._last

    def _times(self, multiple: int) -> float:
        return float(Decimal(str(self.q)) * multiple)  # 0.3, and not 0.30000000000000004

    def at(self, u: float) -> float:
        if self.q is not None and not self.log:
            return self._times(min(self._last, self._first + int(u * (self._last - self._first + 1))))
        if not self.log:
            return min(self.high, self.low + u * (self.high - self.low))
        return self.value(math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low))))

    def unit(self, value: Any) -> float:
        low, high = self.bounds
        if self.q is not None and not self.log:  # the middle of a value's share
            return float((round(value / self.q) - self._first + 0.5) / (self._last - self._first + 1))
        if low == high:
            return 0.5
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return float(min(1.0, max(0.0, (value - low) / (high - low))))

    def holds(self, value: Any) -> bool:
        low, high = self.bounds
        if not is_number(value) or not low - abs(low) * _CLOSE <= value <= high + abs(high) * _CLOSE:
            return False
        return self.q is None or abs(value / self.q - round(value / self.q)) < _CLOSE * max(1.0, abs(value / self.q))

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        low, high = self.bounds
        return FloatDistribution(low, high, log=self.log, step=None if self.log else self.q)

    def param(self, value: Any) -> float:
        return float(value)

    def value(self, param: Any) -> float:
        low, high = self.bounds
        number = float(param) if self.q is None else self._times(round(param / self.q))
        return min(high, max(low, number))

    def suggest(self, trial: Trial, key: str) -> float:
        low, high = self.bounds
        return self.value(trial.suggest_float(key, low, high, log=self.log, step=None if self.log else self.q))

    def tune(self) -> Any:
        from ray.tune.search import sample

        low, high = self.bounds
        domain = sample.Float(low, high).loguniform() if self.log else sample.Float(low, high).uniform()
        return domain if self.q is None else domain.quantized(self.q)


@dataclass(frozen=True)
class Whole:
    """Whole numbers between two bounds, both included.

    Args:
        low, high: the bounds.
        q: values are its multiples.
        log: evenly over orders of magnitude.
    """

    low: int
    high: int
    q: int = 1
    log: bool = False

    @property
    def bounds(self) -> tuple[int, int]:
        return -(-self.low // self.q) * self.q, self.high // self.q * self.q

    listed = None

    @property
    def extremes(self) -> tuple[int, ...]:
        return self.bounds

    @property
    def empty(self) -> bool:
        """Whether no multiple of q lies between the bounds."""
        low, high = self.bounds
        return low > high

    @property
    def _number(self) -> int:
        low, high = self.bounds
        return (high - low) // self.q + 1

    def at(self, u: float) -> int:
        low, high = self.bounds
        if not self.log:
            return min(high, low + int(u * self._number) * self.q)
        # A number n has the share of what lies from n up to n + 1, as of Tune's floor.
        return self.value(math.floor(math.exp(math.log(low) + u * (math.log(high + 1) - math.log(low)))))

    def unit(self, value: Any) -> float:
        low, high = self.bounds
        if not self.log:
            return float((value - low) // self.q + 0.5) / self._number
        share = (math.log(value + 0.5) - math.log(low)) / (math.log(high + 1) - math.log(low))
        return min(1.0, max(0.0, share))

    def holds(self, value: Any) -> bool:
        low, high = self.bounds
        return is_number(value) and value == int(value) and low <= value <= high and value % self.q == 0

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        low, high = self.bounds
        return IntDistribution(low, high, log=self.log, step=1 if self.log else self.q)

    def param(self, value: Any) -> int:
        return int(value)

    def value(self, param: Any) -> int:
        low, high = self.bounds
        return min(high, max(low, int(round(param / self.q) * self.q)))

    def suggest(self, trial: Trial, key: str) -> int:
        low, high = self.bounds
        return self.value(trial.suggest_int(key, low, high, log=self.log, step=1 if self.log else self.q))

    def tune(self) -> Any:
        from ray.tune.search import sample

        low, high = self.bounds
        domain: Any = sample.Integer(low, high + 1)
        domain = domain.loguniform() if self.log else domain.uniform()
        return domain if self.q == 1 else domain.quantized(self.q)


@dataclass(frozen=True)
class Normal:
    """The bell curve, which has no ends. Optuna has none: it is asked for the quantile.

    Args:
        mean, sd: of the curve.
        q: values are its multiples; None: any number.
    """

    mean: float = 0.0
    sd: float = 1.0
    q: float | None = None

    bounds = None
    listed = None

    @property
    def extremes(self) -> tuple[float, ...]:
        return self.at(_EDGE), self.at(1 - _EDGE)

    def at(self, u: float) -> float:
        return self.value(u)

    def unit(self, value: Any) -> float:
        return self.param(value)

    def holds(self, value: Any) -> bool:
        if not is_number(value) or not math.isfinite(value):
            return False
        return self.q is None or abs(value / self.q - round(value / self.q)) < _CLOSE * max(1.0, abs(value / self.q))

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(_EDGE, 1 - _EDGE)

    def param(self, value: Any) -> float:
        return min(1 - _EDGE, max(_EDGE, NormalDist(self.mean, self.sd).cdf(value)))

    def value(self, param: Any) -> float:
        drawn = NormalDist(self.mean, self.sd).inv_cdf(min(1 - _EDGE, max(_EDGE, param)))
        return drawn if self.q is None else float(Decimal(str(self.q)) * round(drawn / self.q))

    def suggest(self, trial: Trial, key: str) -> float:
        return self.value(trial.suggest_float(key, _EDGE, 1 - _EDGE))

    def tune(self) -> Any:
        from ray.tune.search import sample

        domain = sample.Float(None, None).normal(self.mean, self.sd)
        return domain if self.q is None else domain.quantized(self.q)


@dataclass(frozen=True)
class Choice:
    """One of several values, of any kind. Optuna is asked for its number: its own categories are scalars, of which it
    holds 1 and true for one.

    Args:
        values: each different.
        grid: written as a grid; all searchers but `grid` choose from it.
    """

    values: tuple[Any, ...]
    grid: bool = False

    bounds = None

    @property
    def listed(self) -> tuple[Any, ...]:
        return self.values

    @property
    def extremes(self) -> tuple[Any, ...]:
        return self.values

    def at(self, u: float) -> Any:
        return self.values[min(len(self.values) - 1, int(u * len(self.values)))]

    def unit(self, value: Any) -> float:
        return (self.param(value) + 0.5) / len(self.values)

    def holds(self, value: Any) -> bool:
        return any(alike(value, each) for each in self.values)

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(range(len(self.values)))

    def param(self, value: Any) -> int:
        return next(number for number, each in enumerate(self.values) if alike(value, each))

    def value(self, param: Any) -> Any:
        return self.values[param]

    def suggest(self, trial: Trial, key: str) -> Any:
        return self.value(trial.suggest_categorical(key, range(len(self.values))))

    def tune(self) -> Any:
        from ray.tune.search import sample

        return sample.Categorical(list(self.values)).uniform()


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same in a file: 1 and true are not, 1 and 1.0 are."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return bool(one == other)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
