"""For tests of loops: a small job, a run that nothing happens to, and what another must have in common with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.checkpoint.store import Store
from headway.core.ledger import Ledger
from headway.data.read.streams import open_readers
from headway.elastic.worker import context as contexts
from headway.elastic.worker import keeping
from headway.elastic.worker.context import Context
from headway.elastic.worker.engine import now
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.errors import BadInput
from headway.job import Job, parse
from headway.testing.elastic import Outcome

LANES = 4
STEPS = 12


def rows(folder: Path) -> Path:
    """64 rows: 4 full steps per epoch."""
    from tests.conftest import make_dataset

    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


def job(data: Path, **fields: Any) -> Job:
    # One that has no processor for some seconds is not lost: those that are to be lost are killed.
    workers = {"min": 1, "max": 3, "silence_s": 10.0, "hang_s": 60.0, **fields.pop("workers", {})}
    tree = {
        "name": "n",
        "task": "t.py:T",
        "data": {"train": str(data / "train"), "validation": str(data / "val")},
        "lanes": LANES,
        "lane_batch": 4,
        "steps": STEPS,
        "seed": 3,
        "reproducible": "bitwise",
        "checkpoint": {"every_steps": 5},
        "replica_check_every": 5,
        "workers": workers,
    }
    return parse({**tree, **fields})


def patient(worker: str) -> None:
    """To set up a worker: it has a keeper before long, however busy this machine is."""
    keeping.READY_S = 60.0


class Undisturbed:
    """A run that nothing happens to, in this process; hears what it says. call: what its worker does."""

    def __init__(self, made: Job, folder: Path, call: Callable[[Context], Any]) -> None:
        training, validation = open_readers(made)
        self.steps: list[dict[str, Any]] = []
        self.values: dict[int, dict[str, float]] = {}
        self.tables: dict[int, dict[str, Any]] = {}
        context = Context(
            job=made, device="cpu", train=training, validation=validation,
            saver=Saver(Store(folder, "a" * 64, made.checkpoint), made.checkpoint, self),  # type: ignore[arg-type]
            journal=self, run="calm", members=Alone(made.lanes), ledger=Ledger(now()),  # type: ignore[arg-type]
        )  # fmt: skip
        contexts.enter(context)
        try:
            self.result = call(context)
        finally:
            contexts.enter(None)
        context.saver.finish()
        context.close()

    stop_requested = False

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self.steps.append({"step": step, "epoch": epoch, "loss": loss, "lr": rate, "rows": rows, "samples": samples})

    def metrics(self, step: int, values: dict[str, float], tables: dict[str, Any] | None = None) -> None:
        self.values.setdefault(step, {}).update(values)
        if tables:
            self.tables.setdefault(step, {}).update(tables)

    recorded = metrics

    def allows(self, step: int) -> bool:
        return True

    def settle(self, patience_s: float | None = None) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def check(outcome: Outcome, calm: Undisturbed) -> None:
    """The run did what it should, to the bit, whatever happened."""
    assert outcome.failure is None, outcome.failure
    assert [s["step"] for s in outcome.steps] == list(range(STEPS)), "each step is recorded once, in order"
    for found, wanted in zip(outcome.steps, calm.steps, strict=True):
        assert {name: found[name] for name in wanted} == wanted
    assert {m["step"]: m["values"] for m in outcome.evaluations} == calm.values
    assert outcome.results, "somebody reached the end"
    for worker, result in outcome.results.items():
        assert result == calm.result, worker


def raised(data: Path, tmp_path: Path, call: Callable[[Context], Any], **fields: Any) -> BadInput:
    """What a loop is refused with."""
    with pytest.raises(BadInput) as caught:
        Undisturbed(job(data, **fields), tmp_path, call)
    return caught.value
