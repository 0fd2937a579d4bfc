"""What a comparison comes to, in numbers: each strategy's curve over steps, seconds and bytes, and its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.thinning import kept

Floats = NDArray[np.float64]
POINTS = 600
"""Of a curve, at most."""
TAIL = 20
"""The loss at the end is a mean over so much of the run: the last twentieth."""
FRACTIONS = (0.25, 0.5, 1.0)
"""Of the steps, seconds and bytes at which losses are told."""


@dataclass(frozen=True)
class Run:
    """One run that has come to its end.

    Args:
        seed: of it.
        state: finished, or not.
        message: why, where the state needs a reason.
        step: int64[steps], committed ones.
        seconds: float64[steps], at which they were told, since workers began to train; those of a round are told at
            its end.
        loss: float64[steps], in training.
        sent: float64[steps], bytes between workers until then; NaN where nobody counted them.
        sent_bytes: all of them; None likewise.
        metrics: the last evaluation's.
        goodput: share of worker-seconds in committed steps; None where there is no account.
        lost: workers.
        repeated: steps that were done again.
        missing: faults that did not take place, with the reasons.
    """

    seed: int
    state: str
    message: str
    step: NDArray[np.int64]
    seconds: Floats
    loss: Floats
    sent: Floats
    sent_bytes: float | None
    metrics: Mapping[str, float]
    goodput: float | None
    lost: int = 0
    repeated: int = 0
    missing: Sequence[str] = ()

    @property
    def end_loss(self) -> float | None:
        """A mean over its last steps."""
        if not len(self.loss):
            return None
        return _number(float(np.mean(self.loss[-max(1, len(self.loss) // TAIL) :])))


@dataclass(frozen=True)
class Result:
    """A strategy, over all seeds.

    Args:
        name: as it was asked for.
        strategy: its section of the job, what is by default left out.
        runs: by seed.
    """

    name: str
    strategy: Mapping[str, Any]
    runs: Sequence[Run]

    def mean(self, values: Iterable[float | None]) -> tuple[float | None, float | None]:
        """The mean, and the standard deviation where there are several; None where there is none."""
        known = [value for value in values if value is not None]
        if not known:
            return None, None
        return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None

    @property
    def curve(self) -> dict[str, list[float | None]]:
        """Means over the seeds, step by step: step, seconds, sent, loss; of at most POINTS."""
        length = min((len(run.step) for run in self.runs), default=0)
        if not length:
            return {"step": [], "seconds": [], "sent": [], "loss": []}
        loss = np.mean([run.loss[:length] for run in self.runs], axis=0)
        chosen = kept(loss, POINTS)
        columns = {name: np.mean([getattr(run, name)[:length] for run in self.runs], axis=0) for name in _COLUMNS}
        found = {name: [_number(float(value)) for value in column[chosen]] for name, column in columns.items()}
        found["step"] = [int(value) + 1 for value in self.runs[0].step[:length][chosen]]
        return {**found, "loss": [_number(float(value)) for value in loss[chosen]]}

    def loss_at(self, column: str, place: float) -> float | None:
        """The loss where a column of the curve has come to a place: a mean over its last steps until then."""
        found = []
        for run in self.runs:
            values = run.step + 1.0 if column == "step" else getattr(run, column)
            there = int(np.sum(values <= place * (1 + 1e-9))) if len(values) and not np.isnan(values).any() else 0
            if there:
                found.append(float(np.mean(run.loss[max(0, there - max(1, len(values) // TAIL)) : there])))
        return _number(float(np.mean(found))) if len(found) == len(self.runs) and found else None


_COLUMNS = ("seconds", "sent")


@dataclass(frozen=True)
class Comparison:
    """Printed by `headway compare --json`, and drawn.

    Args:
        job: its name.
        metric: by which they are compared; empty where nothing was evaluated.
        mode: min or max, which of it is better.
        faults: the script; empty for none.
        link: as it was asked for; empty for none.
        nodes, seeds: as they were.
        results: in the order in which they were asked for.
        notes: what is to be known.
    """

    job: str
    metric: str
    mode: str
    faults: str
    link: str
    nodes: int
    seeds: Sequence[int]
    results: Sequence[Result]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all runs finished, and all faults took place."""
        return all(run.state == "finished" and not run.missing for each in self.results for run in each.runs)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each strategy: means over the seeds, and their deviations by the same name with _sd."""
        base = self._sent(self.results[0]) if self.results else None
        rows = []
        for each in self.results:
            sent = self._sent(each)
            told: dict[str, Any] = {"strategy": each.name, "state": _state(each.runs)}
            told["steps"] = min((len(run.step) for run in each.runs), default=0)
            columns: dict[str, list[float | None]] = {
                "seconds": [float(run.seconds[-1]) if len(run.seconds) else None for run in each.runs],
                "sent_bytes": [run.sent_bytes for run in each.runs],
                "loss": [run.end_loss for run in each.runs],
                "metric": [run.metrics.get(self.metric) for run in each.runs],
                "goodput": [run.goodput for run in each.runs],
            }
            for name, values in columns.items():
                told[name], told[f"{name}_sd"] = each.mean(values)
            told["bytes_per_step"] = each.mean(
                run.sent_bytes / len(run.step) if run.sent_bytes is not None and len(run.step) else None
                for run in each.runs
            )[0]
            told["times_fewer"] = base / sent if base and sent else None
            told["lost"] = sum(run.lost for run in each.runs)
            told["repeated"] = sum(run.repeated for run in each.runs)
            rows.append(told)
        return rows

    def losses(self) -> dict[str, dict[str, list[float | None]]]:
        """By column (step, seconds, sent): `at`, the places, and the loss of each strategy there. The last place is as
        far as all of them came."""
        found: dict[str, dict[str, list[float | None]]] = {}
        for column in ("step", *_COLUMNS):
            ends = [end for each in self.results for run in each.runs if (end := _last(run, column)) is not None]
            if len(ends) < sum(len(each.runs) for each in self.results) or not ends or min(ends) <= 0:
                continue
            places = [fraction * min(ends) for fraction in FRACTIONS]
            places = [float(round(place)) for place in places] if column != "seconds" else places
            found[column] = {"at": list(places)}
            found[column] |= {each.name: [each.loss_at(column, place) for place in places] for each in self.results}
        return found

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        told = {name: getattr(self, name) for name in ("job", "metric", "mode", "faults", "link", "nodes")}
        results = []
        for each in self.results:
            runs = [
                {key: value for key, value in asdict(run).items() if key not in ("step", "seconds", "loss", "sent")}
                for run in each.runs
            ]
            results.append({"name": each.name, "strategy": dict(each.strategy), "curve": each.curve, "runs": runs})
        told |= {"seeds": list(self.seeds), "rows": self.rows(), "losses": self.losses(), "notes": list(self.notes)}
        return {"version": 1, "kind": "strategies", "good": self.good, **told, "results": results}

    def _sent(self, result: Result) -> float | None:
        return result.mean([run.sent_bytes for run in result.runs])[0]


def _last(run: Run, column: str) -> float | None:
    values = run.step + 1.0 if column == "step" else getattr(run, column)
    return None if not len(values) or np.isnan(values[-1]) else float(values[-1])


def _state(runs: Sequence[Run]) -> str:
    states = list(dict.fromkeys(run.state for run in runs))
    return states[0] if len(states) == 1 else ", ".join(states)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def sent_at(step: NDArray[np.int64], known: Iterable[Mapping[str, Any]]) -> Floats:
    """Bytes that had been sent once steps were done, told evenly over the steps between two counts.

    Args:
        step: int64[steps], counted from 0, in order.
        known: lines of a run's ledger.jsonl (step: how many were done); those without bytes are left out.

    Returns:
        float64, as many; NaN where nothing is known.
    """
    newest: dict[float, float] = {0.0: 0.0}
    for line in known:
        if "exchanged_bytes" in line:
            newest[float(line["step"])] = float(line["exchanged_bytes"])
    if len(newest) < 2 or not len(step):
        return np.full(len(step), np.nan)
    at = np.array(sorted(newest))
    return np.asarray(np.interp(step + 1.0, at, np.maximum.accumulate([newest[place] for place in at])))
