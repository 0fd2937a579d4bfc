"""What logging costs the training thread, a step of four numbers: ours while all is well and with every queue full
behind a disk that takes half a second a write; MLflow's own client, waited for and not; its autologging for Lightning.

Each thread's own clock beside the wall's, for others use the machine as well. The peers' server is well. Minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tests.tracking_server import Server

from headway.elastic.worker import records
from headway.elastic.worker.journal import ENTRIES, Journal
from records_parts.here import Elsewhere, answered_at_once, scratch

STEPS = 2000
OF_PEERS = 300
WRITE_S = 0.5
FILL = 400_000
"""Records that fill the recorder's queue and the worker's own."""
WIDTH = 384
START_S = 900.0  # of MLflow's server, on a machine that others use as well


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    least = 10 if options.quick else 1
    with scratch() as folder, answered_at_once():
        found = {
            "what": "milliseconds of the training thread for what a step logs: wall, and its own processor's",
            "nothing": figures(lambda step, values: None, STEPS // least),
            "ours": ours(folder / "well", 0.0, 0, STEPS // least),
            "ours, queues full, disk slow": ours(folder / "slow", WRITE_S, FILL // least, STEPS // least),
        }
        server = Server(folder)
        server.start(START_S)
        try:
            found |= peers(server.uri, OF_PEERS // least)
        finally:
            server.stop()
    return found


def ours(folder: Path, write_s: float, fill: int, steps: int) -> dict[str, Any]:
    with Elsewhere(folder, write_s=write_s) as recorder:
        journal = Journal(recorder, "w0")
        journal.restart(1)
        journal.enter(leads=True)
        journal.began(0, fill + steps, 100)

        def log(step: int, values: dict[str, float]) -> None:
            """As `session.record` and the engine's end of a step do."""
            journal.recorded(step, records.numbers("session.record", values))
            journal.step(step, 0, values["loss"], 0.1, 32, "0123456789abcdef")

        for step in range(fill // 2):  # two records each
            log(step, values_of(step))
        waiting = len(journal._entries)
        if fill == FILL and waiting < ENTRIES:
            raise SystemExit(f"the queue is not full: {waiting} records wait")
        found = figures(lambda step, values: log(fill // 2 + step, values), steps)
        journal._lost = True  # what waits is not waited for
        journal.close()
    return {**found, "records_waiting": waiting}


def peers(uri: str, steps: int) -> dict[str, Any]:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("peers")
    found = {}
    for name, synchronous in (("mlflow.log_metrics, waited for", True), ("mlflow.log_metrics, not waited for", False)):
        with mlflow.start_run():
            found[name] = figures(_logged(synchronous), steps)
            mlflow.flush_async_logging()
    found["mlflow.pytorch.autolog"] = autologging(steps)
    return found


def _logged(synchronous: bool) -> Callable[[int, dict[str, float]], Any]:
    import mlflow

    return lambda step, values: mlflow.log_metrics(values, step=step, synchronous=synchronous)


def autologging(steps: int) -> dict[str, Any]:
    """What Lightning's step takes more with MLflow's autologging at every step: it has no call of its own to time."""
    try:
        import lightning
        import mlflow
    except ImportError as error:
        return {"left out": str(error)}

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.ended = torch.nn.Linear(WIDTH, WIDTH), []  # type: ignore[var-annotated]

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            self.ended.append(time.perf_counter())
            work()
            loss = self.layer(batch[0]).square().mean()
            for name, value in values_of(number).items():
                self.log(name, value)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    def trained() -> list[float]:
        rows = torch.utils.data.TensorDataset(torch.randn(steps, WIDTH))
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", log_every_n_steps=1, enable_model_summary=False, **quiet
        )
        module = Module()
        trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=1))
        return [later - earlier for earlier, later in zip(module.ended, module.ended[1:], strict=False)]

    bare = trained()
    mlflow.pytorch.autolog(log_every_n_step=1, log_models=False, silent=True)
    with mlflow.start_run():
        logged = trained()
    mlflow.pytorch.autolog(disable=True)
    return {"step_ms without": spread(bare), "step_ms with": spread(logged)}


def figures(log: Callable[[int, dict[str, float]], Any], steps: int) -> dict[str, Any]:
    """Of the call alone, with a step's work between two."""
    walls, own = [], []
    for step in range(steps):
        work()
        values = values_of(step)
        with timed(walls, own):
            log(step, values)
    return {"wall_ms": spread(walls), "thread_ms": spread(own), "steps": steps}


@contextmanager
def timed(walls: list[float], own: list[float]) -> Iterator[None]:
    begun, of_thread = time.perf_counter(), time.thread_time()
    yield
    own.append(time.thread_time() - of_thread)
    walls.append(time.perf_counter() - begun)


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * of))] * 1000, 4) for name, of in at.items()}


def values_of(step: int) -> dict[str, float]:
    return {"loss": 1 / (step + 1), "accuracy": 0.5, "norm": 1.5, "rate": 0.1}


def work() -> None:
    """A step's, some milliseconds."""
    one = torch.ones(WIDTH, WIDTH)
    for _ in range(4):
        one = one @ one * 1e-3
