"""Will a flight from New York arrive more than 15 minutes late? Embeddings and a perceptron on a table.

    headway data get flights
    headway train trainers/tabular/job.yaml

Only what is known before departure is used: the schedule, the carrier and the route. The table also holds what is known
later (dep_time, arr_time, air_time, arr_delay); a model that saw those would be graded on reading the answer.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

import headway
from headway.data.arrays import arrays

# Values of each column of codes, and the width of its embedding. The last three are coded by `headway data get`.
CODES = {"month": (12, 4), "weekday": (7, 4), "hour": (24, 8), "carrier": (16, 8), "origin": (3, 2), "dest": (104, 16)}
# Mean and standard deviation in the training set. Times are minutes after midnight.
NUMBERS = {"departure": (815.0, 281.0), "arrival": (932.0, 299.0), "distance": (1048.0, 736.0)}
DEP_DELAY = {"dep_delay": (12.6, 40.2)}
READ = ["month", "day", "sched_dep_time", "sched_arr_time", "hour", "distance", "carrier", "origin", "dest", "label"]


def weekday(month: np.ndarray, day: np.ndarray, year: int = 2013) -> np.ndarray:
    """Day of the week, Monday = 0."""
    first = np.datetime64(f"{year}-01") + (month.astype(np.int64) - 1)  # NumPy counts months here, then days
    days = (first.astype("datetime64[D]") + (day.astype(np.int64) - 1)).astype(np.int64)
    return (days + 3) % 7  # day 0 of the calendar, 1970-01-01, was a Thursday


def minutes(clock: np.ndarray) -> np.ndarray:
    """Minutes after midnight of times written as hhmm."""
    return clock // 100 * 60 + clock % 100


class Delays(nn.Module):
    """An embedding for each column of codes, beside the standardised numbers, into a perceptron with one output."""

    def __init__(self, numbers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({name: nn.Embedding(*size) for name, size in CODES.items()})
        width = numbers + sum(width for _, width in CODES.values())
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log odds of being late, [rows], from codes int64 [rows] by name and numbers float32 [rows, numbers]."""
        embedded = [embedding(batch[name]) for name, embedding in self.embeddings.items()]
        return self.perceptron(torch.cat([batch["numbers"], *embedded], 1))[:, 0]


class FlightDelays(headway.Task):
    """The job's `arguments`: hidden units, dropout, and whether the departure's own delay is known.

    With `departed: true` the question is asked when the plane leaves the gate, and dep_delay is one more column.
    """

    def __init__(self, hidden: int = 128, dropout: float = 0.1, departed: bool = False) -> None:
        self.hidden, self.dropout = hidden, dropout
        self.numbers = NUMBERS | DEP_DELAY if departed else NUMBERS

    def model(self) -> nn.Module:
        return Delays(len(self.numbers), self.hidden, self.dropout)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)

    def transform(self, table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, np.ndarray]:
        read = arrays(table.select([*READ, *(name for name in DEP_DELAY if name in self.numbers)]))
        read["departure"], read["arrival"] = minutes(read["sched_dep_time"]), minutes(read["sched_arr_time"])
        read["weekday"] = weekday(read["month"], read["day"])
        read["month"] -= 1
        scaled = [(read[name] - mean) / deviation for name, (mean, deviation) in self.numbers.items()]
        codes = {name: read[name].astype(np.int64) for name in CODES}
        return {**codes, "numbers": np.stack(scaled, 1).astype(np.float32), "late": read["label"].astype(np.float32)}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(model(batch), batch["late"])

    def metrics(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | float]:
        """Each is a mean over rows, so that the mean over batches is the mean over the set; AUC would not be."""
        odds, late = model(batch), batch["late"]
        return {
            "log_loss": functional.binary_cross_entropy_with_logits(odds, late),
            "accuracy": ((odds > 0) == (late > 0.5)).float().mean(),
            "brier": (odds.sigmoid() - late).square().mean(),
        }
