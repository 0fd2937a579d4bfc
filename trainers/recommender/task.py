"""Will a flight from New York arrive more than 15 minutes late? Crossed categories, hashed into a table that is served.

    headway data get flights
    headway train trainers/recommender/job.yaml

A recommender knows its users and things by rows of large tables, of which a batch uses few. Here the categories are
crosses (this flight number of this carrier to there, this hour there on this weekday, ...). With `sparse` in the job
the table is in ranges on the workers, and only rows that a batch uses travel; with all_reduce each worker has it
all.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

import headway
from headway.data.arrays import arrays

READ = ["month", "day", "sched_dep_time", "sched_arr_time", "hour", "distance", "flight", "carrier", "origin", "dest"]
CROSSES = (
    ("carrier", "flight", "dest"),
    ("carrier", "flight", "weekday"),
    ("carrier", "origin", "dest", "hour"),
    ("carrier", "hour", "weekday"),
    ("origin", "dest", "month"),
    ("origin", "hour", "month"),
    ("dest", "hour", "month"),
)
"""What is known before departure, in combinations that may be late in ways of their own."""
NUMBERS = {"departure": (815.0, 281.0), "arrival": (932.0, 299.0), "distance": (1048.0, 736.0)}
"""Mean and standard deviation in the training set. Times are minutes after midnight."""


def hashed(columns: list[np.ndarray], cross: int, rows: int) -> np.ndarray:
    """Rows of a table for a cross of categories, the same on every machine: int64, below `rows`."""
    found = np.full(len(columns[0]), cross, np.uint64)
    for column in columns:
        found = (found ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64
        found ^= found >> np.uint64(29)
    return (found % np.uint64(rows)).astype(np.int64)


def weekday(month: np.ndarray, day: np.ndarray, year: int = 2013) -> np.ndarray:
    """Day of the week, Monday = 0."""
    first = np.datetime64(f"{year}-01") + (month.astype(np.int64) - 1)  # NumPy counts months here, then days
    days = (first.astype("datetime64[D]") + (day.astype(np.int64) - 1)).astype(np.int64)
    return (days + 3) % 7  # day 0 of the calendar, 1970-01-01, was a Thursday


def minutes(clock: np.ndarray) -> np.ndarray:
    """Minutes after midnight of times written as hhmm."""
    return clock // 100 * 60 + clock % 100


class Crossed(nn.Module):
    """A row of the table for each cross, beside the standardised numbers, into a perceptron with one output."""

    def __init__(self, rows: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.crosses = headway.ServedEmbedding(rows, dim, std=0.05, seed=1)
        width = len(CROSSES) * dim + len(NUMBERS)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log odds of being late, [rows], from rows of the table int64 [rows, crosses] and numbers float32."""
        embedded = self.crosses(batch["crosses"]).flatten(1)
        return self.perceptron(torch.cat([embedded, batch["numbers"]], 1))[:, 0]


class LateFlights(headway.Task):
    """The job's `arguments`: rows of the table and values of each, hidden units, and the learning rate."""

    def __init__(self, rows: int = 200_000, dim: int = 8, hidden: int = 64, rate: float = 0.02) -> None:
        self.rows, self.dim, self.hidden, self.rate = rows, dim, hidden, rate

    def model(self) -> nn.Module:
        return Crossed(self.rows, self.dim, self.hidden)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adagrad leaves rows alone that have no gradient: so a served table learns as a plain one does."""
        return torch.optim.Adagrad(model.parameters(), lr=self.rate, initial_accumulator_value=0.01)

    def transform(self, table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, np.ndarray]:
        read = arrays(table.select([*READ, "label"]))
        read["departure"], read["arrival"] = minutes(read["sched_dep_time"]), minutes(read["sched_arr_time"])
        read["weekday"] = weekday(read["month"], read["day"])
        scaled = [(read[name] - mean) / deviation for name, (mean, deviation) in NUMBERS.items()]
        crosses = [hashed([read[name] for name in names], n, self.rows) for n, names in enumerate(CROSSES)]
        return {
            "crosses": np.stack(crosses, 1),
            "numbers": np.stack(scaled, 1).astype(np.float32),
            "late": read["label"].astype(np.float32),
        }

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(model(batch), batch["late"])

    def metrics(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | float]:
        """Each is a mean over rows, so that the mean over batches is the mean over the set."""
        odds, late = model(batch), batch["late"]
        return {
            "log_loss": functional.binary_cross_entropy_with_logits(odds, late),
            "accuracy": ((odds > 0) == (late > 0.5)).float().mean(),
            "brier": (odds.sigmoid() - late).square().mean(),
        }
