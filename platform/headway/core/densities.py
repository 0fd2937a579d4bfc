"""Where the good ones of a sweep's settings lie: densities of the good and of the rest, setting by setting.

J. Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011: what is tried next is what is likely among
the good and unlikely among the rest. Every setting has a density of its own, so that one which counts under a condition
only is judged where it counts. Here a setting's range is cut into cells; a density is the number of observations in
each, smoothed, relative to even ones. A suggestion costs the same after ten observations and after ten thousand.

What differs from the paper was found by replay (docs/sweeps.md): observations are ordered by how far they came first,
then by loss (S. Falkner et al., BOHB, ICML 2018, keep a model per budget), and the rest repels with a part of its
weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CELLS = 64
"""Into how many the range of a number is cut."""

Cells = NDArray[np.intp]
"""Observations or candidates by axis, shape (n, axes): the cell of each; -1 where the setting does not count."""
Curves = list[NDArray[np.float64]]
"""By axis, shape (cells,)."""


@dataclass(frozen=True)
class Axis:
    """A setting.

    Args:
        cells: of its range, or its number of choices.
        ordered: neighbours are alike.
    """

    cells: int = CELLS
    ordered: bool = True


@dataclass(frozen=True)
class Smoothing:
    """How densities are made of observations.

    Args:
        good: the part of the observations that is called good.
        least_good: so many are, at least.
        width: of the kernel of a single observation, as a part of the range; of n it is width / n^0.2 (Scott's rule).
        prior: weight of even density, in observations.
        repulsion: weight of the rest's log density.
    """

    good: float = 0.06
    least_good: int = 4
    width: float = 0.05
    prior: float = 0.3
    repulsion: float = 0.75


class Standing(NamedTuple):
    """What was seen of a configuration, the best first.

    Args:
        diverged: its loss is no number.
        behind: minus the step after which it was seen last.
        loss: there; the less the better.
        number: of its trial.
    """

    diverged: bool
    behind: int
    loss: float
    number: int

    @classmethod
    def of(cls, number: int, step: int, loss: float) -> Standing:
        return cls(True, 0, 0.0, number) if math.isnan(loss) else cls(False, -step, loss, number)


def cell(axis: Axis, unit: float) -> int:
    """Where a place between 0 and 1 lies."""
    return min(axis.cells - 1, max(0, int(unit * axis.cells)))


@lru_cache(maxsize=512)
def _kernel(axis: Axis, width: float) -> NDArray[np.float64]:
    """What an observation in a cell says of each, shape (cells, cells), a row for an observation; its mean is 1. Of
    unordered ones, each other has the same (Aitchison and Aitken, 1976)."""
    if not axis.ordered:
        other = min(1.0, width * 2)
        kernel = np.full((axis.cells, axis.cells), other)
        np.fill_diagonal(kernel, axis.cells - other * (axis.cells - 1))
        return kernel
    at = (np.arange(axis.cells) + 0.5) / axis.cells
    kernel = np.exp(-0.5 * ((at[:, None] - at[None, :]) / max(width, 0.5 / axis.cells)) ** 2)
    scaled: NDArray[np.float64] = kernel / kernel.mean(axis=1, keepdims=True)
    return scaled


def densities(axes: Sequence[Axis], seen: Cells, smoothing: Smoothing) -> Curves:
    """Of each axis: how much likelier each of its cells is than under an even density."""
    found = []
    for number, axis in enumerate(axes):
        counts = np.bincount(seen[:, number] + 1, minlength=axis.cells + 1)[1:]
        total = int(counts.sum())
        width = round(smoothing.width * max(total, 1) ** -0.2, 3)
        found.append((counts @ _kernel(axis, width) + smoothing.prior) / (total + smoothing.prior))
    return found


@dataclass(frozen=True)
class Model:
    """What is known after so many observations.

    Args:
        good: density of the good.
        worth: log of the good's density over the rest's, by the rest's weight.
    """

    good: Curves
    worth: Curves

    def best(self, candidates: Cells) -> NDArray[np.intp]:
        """Numbers of candidates, the most promising first."""
        padded = [np.append(curve, 0.0) for curve in self.worth]  # -1 finds the 0
        scores = sum(curve[candidates[:, axis]] for axis, curve in enumerate(padded))
        return np.argsort(-np.asarray(scores), kind="stable")


def model(axes: Sequence[Axis], standings: Sequence[Standing], seen: Cells, smoothing: Smoothing) -> Model:
    """What is learnt of observations.

    Args:
        standings: of each, in any order.
        seen: their cells, in the same order.
    """
    order = sorted(range(len(standings)), key=standings.__getitem__)
    share = max(smoothing.least_good, math.ceil(smoothing.good * len(order)))
    share = min(share, max(1, len(order) - 1))
    good = densities(axes, seen[order[:share]], smoothing)
    rest = densities(axes, seen[order[share:]], smoothing)
    worth = [np.log(one) - smoothing.repulsion * np.log(other) for one, other in zip(good, rest, strict=True)]
    return Model(good, worth)
