"""Tables of learning curves that somebody recorded: a row for a configuration, a column for each of its settings, and
columns of lists with a metric's values before training and after each of equal stretches of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headway.core.densities import Cells
from headway.errors import BadInput, nearest
from headway.sweeps.distributions import Choice, Distribution
from headway.sweeps.events import Config
from headway.sweeps.replay.ranked import Ranked
from headway.sweeps.search.density import cells_of
from headway.sweeps.space import Setting, Space

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Table:
    """See the module.

    Args:
        name: of its file, without the ending.
        metric, mode: what its curves are of, and whether less or more of it is better.
        configs: the settings of each row.
        curves: shape (rows, stretches + 1), before training first; NaN from where it diverged on.
    """

    name: str
    metric: str
    mode: Mode
    configs: tuple[Config, ...]
    curves: NDArray[np.float64]

    @property
    def length(self) -> int:
        """Stretches of a whole run."""
        return int(self.curves.shape[1]) - 1

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """The curves, the less the better."""
        return self.curves if self.mode == "min" else -self.curves

    @cached_property
    def best(self) -> float:
        """The least loss of all."""
        return float(np.nanmin(self.losses))

    @cached_property
    def start(self) -> float:
        """The median loss before training."""
        return float(np.nanmedian(self.losses[:, 0]))

    def regret(self, loss: float) -> float:
        """What part of the way from before training to the best of all is still to go, when this is the least seen."""
        return (min(loss, self.start) - self.best) / (self.start - self.best)

    @cached_property
    def space(self) -> Space:
        """What its rows may be: numbers by their order in the table, all else as a choice."""
        settings = {key: Setting(_distribution([row[key] for row in self.configs])) for key in self.configs[0]}
        return Space(settings, tuple(settings))

    @cached_property
    def cells(self) -> Cells:
        """Of its rows, in its own space, for the density model."""
        return cells_of(self.space, self.configs)


def load(path: str | Path, metric: str | None = None, mode: Mode = "min") -> Table:
    """Read a table from a Parquet file.

    Args:
        metric: the column of lists; the first one when not given.
        mode: whether less or more of it is better.

    Raises:
        BadInput: it is no such table.
    """
    path = Path(path)
    columns = _columns(path)
    lists = [key for key, values in columns.items() if any(isinstance(each, list) for each in values)]
    settings = [key for key in columns if key not in lists]
    if not lists or not settings:
        missing = "a column of lists of numbers, one list for each row" if not lists else "a column of a setting"
        raise BadInput(f"{path} is no table of curves: it has no {missing}", f"It has {', '.join(columns)}", _AS_IT_IS)
    if metric is not None and metric not in lists:
        raise BadInput(f"{path} has no curves of {metric}", f"It has {', '.join(lists)}", nearest(metric, lists))
    chosen = metric or lists[0]
    curves = _curves(path, chosen, columns[chosen])
    rows = [{key: columns[key][row] for key in settings if columns[key][row] is not None} for row in range(len(curves))]
    return Table(path.stem, chosen, mode, tuple(rows), curves)


_AS_IT_IS = "A row is a configuration: its settings, and lists of a metric before training and after stretches of it"


def _columns(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise BadInput(f"{path} is not there", "", "Give --curves a Parquet file.") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} cannot be read as Parquet", reason, "Give --curves a Parquet file.") from None
    if table.num_rows == 0:
        raise BadInput(f"{path} has no rows", "", _AS_IT_IS)
    return {key: table[key].to_pylist() for key in table.column_names}


def _curves(path: Path, metric: str, lists: list[Any]) -> NDArray[np.float64]:
    lengths = {len(each) if isinstance(each, list) else 0 for each in lists}
    if len(lengths) > 1 or min(lengths) < 2:
        counts = ", ".join(map(str, sorted(lengths)[:5]))
        raise BadInput(
            f"{path}: the lists of {metric} have {counts} values", "All need as many, two at least", _AS_IT_IS
        )
    try:
        curves = np.array([[math.nan if each is None else each for each in row] for row in lists], dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{path}: the lists of {metric} are not of numbers", "", _AS_IT_IS) from None
    curves[~np.isfinite(curves)] = math.nan
    curves[np.cumsum(np.isnan(curves), axis=1) > 0] = math.nan  # nothing comes after it diverged
    if np.isnan(curves[:, 0]).all() or np.nanmin(curves) == np.nanmax(curves):
        raise BadInput(f"{path}: nothing is learnt in any row of {metric}", "There is nothing to search for", "")
    return curves


def _distribution(values: list[Any]) -> Distribution:
    numbers = [each for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 1:
        return Ranked(tuple(sorted(float(each) for each in numbers)))
    return Choice(tuple(dict.fromkeys(values)))
