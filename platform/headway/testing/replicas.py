"""The contract of a way of meeting (`headway.strategies.outer.Meeting`): what replicas that go on by themselves
promise, as tests of whole elastic runs.

A way of meeting is named by the job's strategy, and inherits every test:

    class TestMine(ReplicasContract):
        strategy = {"kind": "local_sgd", "every": 4}
        meeting = Mine          # of a user's own: made as Mine(options), in the place of that kind's (`MEETINGS`)

Whatever the cluster does, the run ends with the same bits as on one worker that nothing happens to: weights, losses,
rates and samples of all steps, and what was evaluated. So a meeting must not hang on who carries which replica, must
keep what it has from one round to the next in what it returns (`Met.kept`, of all; `Met.memories`, of each replica),
and may change nothing where it fails. It is importable by name, since workers are processes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from headway.elastic.worker.context import Context
from headway.job import Job, parse
from headway.testing.elastic import Outcome, Run, advance

LANES, REPLICAS, STEPS = 8, 4, 17
WORKERS = 3
"""That most runs have: replicas are carried 2, 1, 1."""
PACE_S = 0.02
"""Of a lane, where something is to happen in the middle of it."""
SILENCE_S = 1.0
"""For which a worker may say nothing."""
DEADLINE_S = 120.0

Strategy = Mapping[str, Any]
Made = Callable[[Any], Any]
"""Of a meeting, from the strategy's options."""


class ReplicasContract:
    """Every test of the contract; a subclass says which strategy.

    Args:
        strategy: the job's section, without `replicas`.
        meeting: takes the place of the kind's own; None: it is that.
    """

    strategy: ClassVar[Strategy]
    meeting: ClassVar[Made | None] = None

    @property
    def inside(self) -> int:
        """A step in the middle of a round: where there is one, else any."""
        every = _job(self.strategy, 1).strategy.round_steps
        return next(step for step in range(6, 6 + every + 1) if step % every or every == 1)

    def test_the_same_bits_on_any_number_of_workers(self, tmp_path: Path) -> None:
        for workers in range(2, REPLICAS + 1):
            with self.run(tmp_path / str(workers), workers) as run:
                self.same(_done(run))

    def test_a_worker_is_killed_in_the_middle_of_a_round(self, tmp_path: Path) -> None:
        with self.run(tmp_path / "run", WORKERS, PACE_S) as run:
            run.wait_until(lambda: run.step >= self.inside and len(run.members) == WORKERS)
            run.kill("w1")
            outcome = _done(run)
        self.same(outcome)
        assert len(outcome.of("generation")) > 1, "nobody was missed"

    def test_a_worker_joins_in_the_middle_of_a_round(self, tmp_path: Path) -> None:
        with self.run(tmp_path / "run", WORKERS, PACE_S, places=1, hold=self.inside) as run:
            run.join(2)
            outcome = _done(run)
        self.same(outcome)
        assert len(outcome.of("generation")[-1]["members"]) == WORKERS

    def test_replicas_are_moved_in_the_middle_of_a_round(self, tmp_path: Path) -> None:
        """By plan: half of the workers leave, and hand over what they carry."""
        with self.run(tmp_path / "run", REPLICAS, PACE_S) as run:
            run.wait_until(lambda: run.step >= self.inside and len(run.members) == REPLICAS)
            run.resize(1, 2)
            outcome = _done(run)
        self.same(outcome)
        assert len(outcome.of("generation")[-1]["members"]) == 2

    def test_a_worker_is_out_of_reach_and_comes_back(self, tmp_path: Path) -> None:
        """Silent for longer than it is waited for, as when its node is cut off: it is given up, and what it does when
        it is back counts no more."""
        with self.run(tmp_path / "run", WORKERS, PACE_S) as run:
            run.wait_until(lambda: run.step >= self.inside and len(run.members) == WORKERS)
            run.stop("w1")
            run.wait_until(lambda: "w1" not in run.members)
            run.resume("w1")
            outcome = _done(run)
        self.same(outcome)

    def test_resumed_from_a_checkpoint(self, tmp_path: Path) -> None:
        """All are killed in the middle of a round."""
        with self.run(tmp_path / "run", 2, PACE_S) as run:
            run.wait_until(lambda: run.step >= self.inside + 6)
            for worker in list(run.members):
                run.kill(worker)
            self.same(_done(run))

    def test_stopped_and_gone_on_with_by_others(self, tmp_path: Path) -> None:
        """All that a meeting keeps is in the checkpoint that a stop takes, for any number of workers."""
        with self.run(tmp_path / "run", 2, PACE_S) as run:
            run.wait_until(lambda: run.step >= 4)
            run.request_stop()
            stopped = _done(run)
        assert 4 <= len(stopped.steps) < STEPS
        with self.run(tmp_path / "run", WORKERS) as run:
            self.same(_done(run))

    # What the tests are made of

    def run(self, folder: Path, workers: int, pace_s: float = 0.0, **how: Any) -> Run:
        """A run of the strategy; see `headway.testing.elastic.Run`."""
        return Run(folder, _job(self.strategy, workers), train, type(self).meeting, pace_s, **how)

    def calm(self) -> Outcome:
        """On one worker, undisturbed; made once."""
        contract = type(self)
        if contract not in _calm:
            with tempfile.TemporaryDirectory(prefix="calm-") as folder, self.run(Path(folder) / "run", 1) as run:
                _calm[contract] = _done(run)
        return _calm[contract]

    def same(self, outcome: Outcome) -> None:
        """Raises AssertionError: not to the bit what came of the calm run."""
        calm = self.calm()
        keys = ("step", "loss", "samples", "lr", "epoch")
        found, wanted = ([tuple(line.get(key) for key in keys) for line in each.steps] for each in (outcome, calm))
        assert [line[0] for line in found] == list(range(STEPS)), f"steps {[line[0] for line in found]}"
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine == theirs, f"step {mine[0]}: {mine} is not {theirs}, which came of one worker alone"
        assert outcome.evaluations[-1]["values"] == calm.evaluations[-1]["values"], "evaluated otherwise"
        weights = next(iter(calm.results.values()))
        assert outcome.results, "nobody came to its end"
        for worker, own in outcome.results.items():
            for name, value in own.items():
                assert value == weights[name], f"{worker}: {name} has other bits than on one worker alone"


_calm: dict[type[ReplicasContract], Outcome] = {}


def train(context: Context, meeting: Made | None, pace_s: float) -> dict[str, bytes]:
    """A worker's whole run: a model with batch norm and dropout, by AdamW, with a rate that changes. Returns its
    weights."""
    import torch

    from headway.elastic.worker.session import Session
    from headway.strategies.outer import MEETINGS

    if meeting is not None:
        MEETINGS[context.job.strategy.kind] = meeting
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(5)
    layers = [torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(16, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2**-6)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    session = Session(context, model, optimizer, lambda o, steps: cosine(o, steps))
    with session:
        for step in session.steps():
            for batch in step.lanes():
                time.sleep(pace_s)
                step.backward(model(batch["x"].float()).square().mean())
            advance(session.step)
            if step.last_of_epoch or session.step == session.total_steps:
                session.evaluate(lambda m, b: {"value": m(b["x"].float()).square().mean()})
    return {name: value.cpu().numpy().tobytes() for name, value in model.state_dict().items()}


def _done(run: Run) -> Outcome:
    outcome = run.result(DEADLINE_S)
    assert outcome.failure is None, outcome.failure
    return outcome


def _job(strategy: Strategy, workers: int) -> Job:
    data = _data()
    return parse(
        {
            "name": "replicas",
            "task": "task.py:Task",
            "data": {"train": str(data / "train"), "validation": str(data / "validation")},
            "lanes": LANES,
            "lane_batch": 2,
            "steps": STEPS,
            "seed": 3,
            "checkpoint": {"every_steps": 5},
            "replica_check_every": 5,
            "reproducible": "bitwise",
            "strategy": {**strategy, "replicas": REPLICAS},
            "workers": {"min": 1, "max": workers, "silence_s": SILENCE_S, "hang_s": 10.0},
        }
    )


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _data() -> Path:
    """Rows of four numbers; made once."""
    if not _folders:
        _folders.append(tempfile.TemporaryDirectory(prefix="replicas-"))
        for name, rows in (("train", 64), ("validation", 16)):
            _write(Path(_folders[0].name) / name, rows)
    return Path(_folders[0].name)


def _write(folder: Path, rows: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headway.data.manifest import Manifest, schema_of, write
    from headway.data.write.writer import shard_of

    folder.mkdir()
    ids = np.arange(rows)
    x = np.sin(ids[:, None] * np.arange(1, 5)).astype(np.float32)
    table = pa.table({"id": ids, "x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 4)})
    path = folder / "shard-00000.parquet"
    pq.write_table(table, path, row_group_size=16)
    shard = shard_of(path)
    write(folder, Manifest("rows", "test", rows, shard.bytes, schema_of(pq.read_schema(path)), (shard,)))
