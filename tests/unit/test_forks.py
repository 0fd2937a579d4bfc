"""A run that begins with another's state: the bits that it has alone where it is exact, else its own settings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_elastic_run import job as any_job
from torch import nn

from headway.checkpoint import found as manifests
from headway.checkpoint import store
from headway.checkpoint.fork import fork
from headway.core.prefix import common
from headway.core.schedules import Shape
from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.errors import BadCheckpoint, BadInput
from headway.job import Job
from headway.runs import RunFolder, forking
from headway.runs.forking import begin_with
from headway.storage.folder import FolderStorage
from headway.sweeps.prefixes import course
from headway.testing.elastic import DIGEST, Run, advance
from headway.testing.memory_storage import Memory

DROP = {"schedule": {"name": "step", "every": 12, "factor": 0.5}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows: 4 full steps per epoch."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


def job(data: Path, **fields: Any) -> Job:
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    return any_job(data, **{"reproducible": "bitwise", "optimizer": optimizer, "workers": {"max": 2}, **fields})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.layers(x.float()) ** 2).mean()


def train(context: Context) -> dict[str, Any]:
    model = Net()
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=1.0), None) as session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"]))
            advance(session.step)
            every = context.job.evaluate_every_steps
            if session.step % every == 0 if every else step.last_of_epoch:
                session.evaluate(lambda m, b: {"value": m(b["x"])})
    return {"group": {k: v for k, v in session.optimizer.param_groups[0].items() if k != "params"}}


def ran(folder: Path, made: Job, **more: Any) -> Any:
    with Run(folder, made, train, **more) as run:
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    return outcome


def new_run(folder: Path) -> RunFolder:
    folder.mkdir()
    run = RunFolder(folder)
    run.write({"run": folder.name})
    return run


def compared(outcome: Any) -> dict[str, Any]:
    names = ("step", "epoch", "loss", "lr", "rows", "samples")
    steps = [{name: line[name] for name in names} for line in outcome.steps]
    return {"steps": steps, "weights": outcome.facts["weights_sha256"], "evaluations": outcome.evaluations}


@dataclass(frozen=True)
class Made:
    """A run that is there, and what it came to."""

    run: RunFolder
    came_to: dict[str, Any]


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Of the job as it is, with checkpoints for others."""
    folder = tmp_path_factory.mktemp("plain") / "plain"
    return Made(RunFolder(folder), compared(ran(folder, job(data), places=1, save_at=(8, 10, 14, 20))))


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_begins_with_anothers_steps_has_the_bits_that_it_has_alone(
    workers: int, tmp_path: Path, data: Path, plain: Made
) -> None:
    first, second = job(data, **DROP), job(data)
    step = common(course(first, 24, ""), course(second, 24, ""))
    assert step == 11
    ran(tmp_path / "first", first, places=workers, save_at=(step,))
    forked = new_run(tmp_path / "forked")
    begin_with(forked, RunFolder(tmp_path / "first"), step, True, DIGEST, 0)
    assert forked.last_step() == step - 1
    outcome = ran(forked.path, second, places=workers)
    assert compared(outcome) == plain.came_to
    assert not [event for event in outcome.events if event["kind"] == "restart"]
    assert RunFolder(forked.path).read()["begun_with"]["run"] == "first"


def test_a_longer_run_begins_with_all_of_a_shorter_one(tmp_path: Path, data: Path, plain: Made) -> None:
    ran(tmp_path / "short", job(data, steps=12))
    begin_with(forked := new_run(tmp_path / "forked"), RunFolder(tmp_path / "short"), 12, True, DIGEST, 0)
    long = job(data, schedule={"name": "constant"})  # which the shorter one did not have
    assert compared(ran(forked.path, long)) == plain.came_to


def test_another_evaluates_elsewhere(tmp_path: Path, data: Path, plain: Made) -> None:
    """The state is the same; what was measured before is the other's."""
    begin_with(forked := new_run(tmp_path / "forked"), plain.run, 10, True, DIGEST, 0)
    outcome = ran(forked.path, job(data, evaluate_every_steps=6))
    assert outcome.facts["weights_sha256"] == plain.came_to["weights"]
    assert [each["step"] for each in outcome.evaluations] == [4, 8, 12, 18, 24]


def test_where_it_is_not_exact_settings_and_schedule_are_its_own(tmp_path: Path, data: Path, plain: Made) -> None:
    optimizer = {"name": "sgd", "lr": 0.01, "momentum": 0.5, "weight_decay": 0.125}
    mine = job(data, optimizer=optimizer, schedule={"name": "cosine"})
    begin_with(clone := new_run(tmp_path / "clone"), plain.run, 14, False, DIGEST, 0)
    outcome = ran(clone.path, mine, places=1)
    rates = {line["step"]: line["lr"] for line in outcome.steps if line["step"] >= 14}
    shape = Shape("cosine", 24, 0, (("final", 0.0),))
    assert rates == {step: 0.01 * shape.factor(step + 1) for step in rates}
    (result,) = outcome.results.values()
    assert (result["group"]["momentum"], result["group"]["weight_decay"]) == (0.5, 0.125)


@pytest.mark.parametrize("step", [8, 20])
def test_one_that_has_a_state_goes_on_from_the_others_all_the_same(
    step: int, tmp_path: Path, data: Path, plain: Made
) -> None:
    """As in population based training; the other's may be earlier, or later."""
    clone = RunFolder(tmp_path / "clone")
    with Run(clone.path, job(data, seed=7), train, until=12) as run:
        run.wait_until(lambda: run.stands(12))
        run.coordinator.leave("paused")
        run.result()
    own = list(clone.steps())
    begin_with(clone, plain.run, step, False, DIGEST, 0)
    assert max(store.step_of(name) for name in store.names(clone.checkpoints)) == step
    lines = list(clone.steps())
    assert [line["step"] for line in lines] == list(range(step))
    assert lines[:8] == own[:8]
    outcome = ran(clone.path, job(data, seed=7))
    assert [line["step"] for line in outcome.steps] == list(range(24))


def test_one_that_began_so_before_begins_with_what_it_had_then(tmp_path: Path, plain: Made) -> None:
    """Its driver was killed; and the other run has gone on with somebody else's state since."""
    source = RunFolder(tmp_path / "plain")
    shutil.copytree(plain.run.path, source.path)
    clone = new_run(tmp_path / "clone")
    begin_with(clone, source, 14, False, DIGEST, 1)
    (first,) = store.names(clone.checkpoints)
    later = store.committed(plain.run.checkpoints)[-1]
    fork(later, FolderStorage(clone.checkpoints), 1, DIGEST, {})
    shutil.rmtree(source.checkpoints)
    begin_with(clone, source, 14, False, DIGEST, 2)
    assert store.names(clone.checkpoints) == [first]
    assert [line["step"] for line in clone.steps()] == list(range(14))
    for other in ((8, False, DIGEST), (14, False, "b" * 64), (14, True, DIGEST)):
        with pytest.raises(BadInput, match="has no checkpoint of step"):
            begin_with(clone, source, *other, 2)


def test_one_that_is_killed_between_the_records_has_all_of_them_the_next_time(
    tmp_path: Path, plain: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its steps it would be as far already."""
    clone = new_run(tmp_path / "clone")
    whole = forking._append

    def killed(path: Path, lines: Any) -> None:
        whole(path, lines)
        raise KeyboardInterrupt

    monkeypatch.setattr(forking, "_append", killed)
    with pytest.raises(KeyboardInterrupt):
        begin_with(clone, plain.run, 14, True, DIGEST, 1)
    assert clone.last_step() + 1 < 14
    monkeypatch.undo()
    begin_with(clone, plain.run, 14, True, DIGEST, 2)
    assert clone.last_step() + 1 == 14
    assert [line["step"] for line in clone.measurements()] == [4, 8, 12]


def test_a_checkpoint_for_others_stays_and_none_is_left_out(tmp_path: Path, data: Path) -> None:
    made = job(data, checkpoint={"every_steps": 5, "keep_last": 1})
    ran(tmp_path / "run", made, save_at=(3, 4, 5, 6))
    there = [store.step_of(name) for name in store.names(tmp_path / "run" / "checkpoints")]
    assert there == [3, 4, 5, 6, 24]


def test_without_such_a_checkpoint_it_says_so(tmp_path: Path, plain: Made) -> None:
    with pytest.raises(BadInput, match="run plain has no checkpoint of step 9"):
        begin_with(new_run(tmp_path / "other"), plain.run, 9, True, DIGEST, 0)


def test_bytes_are_linked_on_one_disk_and_copied_to_a_store(tmp_path: Path, plain: Made) -> None:
    checkpoint = store.committed(plain.run.checkpoints)[-1]
    disk, bucket = FolderStorage(tmp_path / "near"), Memory().client()
    near, far = (fork(checkpoint, root, 3, "b" * 64, {"run": "other"}) for root in (disk, bucket))
    same_disk = plain.run.path.stat().st_dev == tmp_path.stat().st_dev
    for part in checkpoint.parts:
        assert (Path(near.where) / part).samefile(Path(checkpoint.where) / part) is same_disk
    weights = checkpoint.load()["model"]
    for made, root in ((near, disk), (far, bucket)):
        made.verify()
        read = manifests.read(root, made.name)
        assert (read.job, read.epoch, read.facts["run"], read.step) == ("b" * 64, 3, "other", checkpoint.step)
        assert all(torch.equal(value, weights[name]) for name, value in read.load()["model"].items())
    assert checkpoint.job == DIGEST


def test_one_that_is_damaged_is_not_begun_with(tmp_path: Path, plain: Made) -> None:
    shutil.copytree(plain.run.checkpoints, tmp_path / "damaged")
    checkpoint = store.committed(tmp_path / "damaged")[-1]
    (Path(checkpoint.where) / next(iter(checkpoint.parts))).unlink()
    for root in (FolderStorage(tmp_path / "near"), Memory().client()):
        with pytest.raises(BadCheckpoint, match="is incomplete"):
            fork(checkpoint, root, 3, "b" * 64, {"run": "other"})
        assert store.names(root) == []
