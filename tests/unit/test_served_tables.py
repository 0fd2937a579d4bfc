"""Whole elastic runs with served tables: the rows are the same bits on any number of workers, whoever dies or comes,
and no worker has a table."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_elastic_run import data as data
from torch import nn

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.elastic.worker.tables import building
from headway.job import Job, parse
from headway.strategies.parameter_server.embedding import ServedEmbedding
from headway.testing.elastic import Outcome, Run, advance

LANES, STEPS, DIM = 4, 14, 3
ROWS = 5_000_000
LIKE = 60
"""Ids of rows that the batches use come from so many."""


def job(data: Path, workers: int, sparse: bool = True, **fields: Any) -> Job:
    tree = {
        "name": "n",
        "task": "t.py:T",
        "data": {"train": str(data / "train"), "validation": str(data / "val")},
        "lanes": LANES,
        "lane_batch": 4,
        "steps": STEPS,
        "seed": 3,
        "checkpoint": {"every_steps": 5},
        "replica_check_every": 3,
        "reproducible": "bitwise",
        "clip_norm": 0.5,
        "strategy": {"kind": "parameter_server", "sparse": ["*s.weight"]} if sparse else "parameter_server",
        "workers": {"min": 1, "max": workers, "silence_s": 1.0, "hang_s": 8.0},
    }
    return parse({**tree, **fields})


class Net(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.head = rows, nn.Linear(2 * DIM, 1)
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4)
        self.users = ServedEmbedding(rows, DIM, seed=1)
        self.things = ServedEmbedding(rows // 2, DIM, mode="mean", seed=2)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ids, spread = batch["id"].long(), self.rows // LIKE
        users = self.users(ids % LIKE * spread)
        things = self.things(torch.stack([ids * 7 % LIKE, ids % 5], 1) * (spread // 2))
        found: torch.Tensor = self.head(torch.tanh(torch.cat([users, things], 1)))
        return (found[:, 0] - batch["x"].float().sum(1)).square().mean()


def train(context: Context, pace_s: float = 0.0, optimizer: str = "adagrad", rows: int = ROWS) -> dict[str, Any]:
    torch.set_num_threads(1)
    with building(context.job):
        model = Net(rows)
    made: torch.optim.Optimizer = (
        torch.optim.Adagrad(model.parameters(), lr=0.1)
        if optimizer == "adagrad"
        else torch.optim.AdamW(model.parameters(), lr=2**-5, weight_decay=0.0)
    )
    session = Session(context, model, made, lambda o, steps: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps))
    evaluated, shapes, told = [], set(), {}
    with session:
        for step in session.steps():
            for batch in step.lanes():
                time.sleep(pace_s)
                shapes.add(len(model.users.weight))
                step.backward(model(batch))
            advance(session.step)
            if step.last_of_epoch:
                evaluated.append(session.evaluate(lambda m, b: {"value": m(b)}))
        told = kept(session)
    return {
        "weights": {name: value.clone().numpy() for name, value in model.state_dict().items()},
        "evaluated": evaluated,
        "shapes": sorted(shapes),
        **told,
    }


def kept(session: Session) -> dict[str, Any]:
    """Rows that take memory on this worker, carried or copied; and those it carries, by table and number."""
    held = session.engine.held
    if held is None or held.tables is None:
        model: Any = session.model
        return {"table": {"users.weight": model.users.weight.detach().numpy()}, "count": len(model.users.weight)}
    carried: dict[str, dict[int, Any]] = {"users.weight": {}, "things.weight": {}}
    server, count = held.tables._server, 0
    if server is not None:
        for number, tree in server.trees().items():
            count += len(tree["ids"])
            name = held.tables._names[number // LANES]
            if server.role(number).name == "CARRIER":
                carried[name] |= dict(zip(tree["ids"].tolist(), tree["values"].clone().numpy(), strict=True))
    return {"carried": carried, "count": count}


def done(run: Run) -> Outcome:
    outcome = run.result(90.0)
    assert outcome.failure is None, outcome.failure
    return outcome


def rows_of(outcome: Outcome) -> dict[str, dict[int, Any]]:
    """Rows of both tables, from whoever carried them at the end."""
    found: dict[str, dict[int, Any]] = {"users.weight": {}, "things.weight": {}}
    for result in outcome.results.values():
        for name, rows in result["carried"].items():
            assert not found[name].keys() & rows.keys(), "a row is carried twice"
            found[name] |= rows
    return found


def same(outcome: Outcome, calm: Outcome) -> None:
    """To the bit: losses, metrics, weights, and all rows that were ever updated."""
    told = [[(line["step"], line["samples"], line["loss"]) for line in each.steps] for each in (outcome, calm)]
    assert len(told[0]) == STEPS
    assert told[0] == told[1]
    assert [(e["step"], e["values"]) for e in outcome.evaluations] == [
        (e["step"], e["values"]) for e in calm.evaluations
    ]
    wanted = next(iter(calm.results.values()))["weights"]
    for found in outcome.results.values():
        assert all((value == wanted[key]).all() for key, value in found["weights"].items())
        assert found["shapes"] == [0], "a worker had a table"
    rows, right = rows_of(outcome), rows_of(calm)
    for name, table in right.items():
        assert 0 < len(table) <= LIKE
        assert rows[name].keys() == table.keys()
        assert all((rows[name][number] == value).all() for number, value in table.items())


Calm = Callable[[str], Outcome]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Calm:
    """On one worker, undisturbed."""
    known: dict[str, Outcome] = {}

    def of(optimizer: str) -> Outcome:
        if optimizer not in known:
            with Run(tmp_path_factory.mktemp("calm") / "run", job(data, 1), train, 0.0, optimizer) as run:
                known[optimizer] = done(run)
        return known[optimizer]

    return of


def test_served_as_a_plain_table_would_be(tmp_path: Path, data: Path) -> None:
    """Adagrad moves no row that has no gradient, so that a dense table is the same, but for the norm's last digits."""
    found = {}
    for sparse in (True, False):
        with Run(tmp_path / f"run{sparse}", job(data, 1, sparse), train, 0.0, "adagrad", 6_000) as run:
            found[sparse] = done(run)
    for one, other in zip(found[True].steps, found[False].steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    table = next(iter(found[False].results.values()))["table"]["users.weight"]
    rows = rows_of(found[True])["users.weight"]
    assert len(rows) > LIKE // 2
    for number, value in rows.items():
        assert value == pytest.approx(table[number], rel=1e-4, abs=1e-6)
    assert found[True].evaluations[-1]["values"]["value"] == pytest.approx(
        found[False].evaluations[-1]["values"]["value"], rel=1e-4
    )


@pytest.mark.parametrize(("workers", "optimizer"), [(2, "adagrad"), (3, "adagrad"), (3, "adamw")])
def test_the_same_bits_on_any_number_of_workers(
    workers: int, optimizer: str, tmp_path: Path, data: Path, calm: Calm
) -> None:
    with Run(tmp_path / "run", job(data, workers), train, 0.0, optimizer) as run:
        outcome = done(run)
    same(outcome, calm(optimizer))
    counts = [found["count"] for found in outcome.results.values()]
    assert len(counts) == workers
    assert max(counts) <= 3 * LIKE, "rows that nobody used take memory"


@pytest.mark.parametrize("victim", ["w0", "w1"])
def test_a_worker_is_killed(victim: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, 3), train, 0.02, "adamw", hold=7) as run:
        run.wait_until(lambda: run.step >= 4)
        run.kill(victim)
        run.release()
        outcome = done(run)
    same(outcome, calm("adamw"))
    assert len(outcome.of("generation")) > 1


def test_a_worker_joins(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, 3), train, 0.01, "adamw", places=1, hold=4) as run:
        run.join(2)
        outcome = done(run)
    same(outcome, calm("adamw"))
    assert [len(event["members"]) for event in outcome.of("generation")][-1] > 1


def test_resumed_from_a_checkpoint(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, 2), train, 0.02, "adamw", hold=11) as run:
        run.wait_until(lambda: run.step >= 9)
        for worker in list(run.members):
            run.kill(worker)
        run.release()
        outcome = done(run)
    same(outcome, calm("adamw"))
    assert len(outcome.of("generation")) > 1
