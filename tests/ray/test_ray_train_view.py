"""What Ray Train shows of a run whose workers come and go: its contexts, its dashboard's records, its callbacks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Project

import headway

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LOOP = """
import json
import os

import ray.train
import torch
from torch import nn

import headway


def loop(out):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    session = headway.session(model, torch.optim.SGD(model.parameters(), lr=0.01))
    with session, open(f"{out}/{os.getpid()}", "a") as file:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(nn.functional.cross_entropy(model(batch["image"].float() / 255), batch["label"]))
                __import__("time").sleep(0.01)
            context = ray.train.get_context()
            seen = [context.get_world_rank(), context.get_world_size(), context.get_local_rank()]
            print(json.dumps([step.number, *seen, session.rank, session.workers]), file=file, flush=True)
"""

CALLBACK = '''
from ray.train.v2._internal.execution.callback import WorkerGroupCallback


class Sizes(WorkerGroupCallback):
    """Notes how many workers Ray Train's callbacks are told of."""

    def after_worker_group_start(self, worker_group):
        with open({path!r}, "a") as file:
            file.write(f"{{len(worker_group)}}\\n")
'''


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A Ray that keeps Ray Train's state, and a callback of the user's; gives the file that this writes."""
    import ray

    sizes, code = tmp_path / "sizes", tmp_path / "code"
    code.mkdir()
    (code / "sizes_callback.py").write_text(CALLBACK.format(path=str(sizes)))
    monkeypatch.setenv("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    monkeypatch.setenv("RAY_TRAIN_CALLBACKS", "sizes_callback.Sizes")
    monkeypatch.setenv("PYTHONPATH", f"{code}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(code))
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield sizes
    ray.shutdown()


@pytest.mark.long
def test_ray_train_sees_the_truth(shown: Path, project: Project, tmp_path: Path) -> None:
    import ray
    from ray.train.v2._internal.state.state_actor import get_state_actor

    (tmp_path / "own.py").write_text(LOOP)
    (tmp_path / "out").mkdir()
    tree = project.tree(task=f"{tmp_path / 'own.py'}:loop", arguments={"out": str(tmp_path / "out")}, steps=600)
    del tree["epochs"]
    killed: list[int] = []

    def watch(progress: Any) -> None:
        if progress.step >= 40 and not killed:
            members = json.loads((tmp_path / "runs" / "seen" / "members.json").read_text())["workers"]
            killed.extend(w["pid"] for w in members if w["rank"] == 1)
            os.kill(killed[0], signal.SIGKILL)

    report = headway.train(tree, name="seen", runs_folder=tmp_path / "runs", watch=watch)
    assert report.state == "finished"
    sizes = {entry["workers"] for entry in report.workers}
    assert sizes == {1, 2}
    told = [json.loads(line) for path in (tmp_path / "out").iterdir() for line in path.read_text().splitlines()]
    for step, rank, size, local_rank, own_rank, own_size in told:
        assert (rank, size, local_rank) == (own_rank, own_size, own_rank), f"at step {step}"
    assert {size for _, _, size, *_ in told} == {1, 2}

    actor = get_state_actor()
    assert actor is not None
    (run,) = [r for r in ray.get(actor.get_train_runs.remote()).values() if r.name == "seen"]
    attempts = ray.get(actor.get_train_run_attempts.remote())[run.id].values()
    assert run.status.value == "FINISHED"
    assert {len(attempt.workers) for attempt in attempts} == {1, 2}
    assert {int(line) for line in shown.read_text().split()} == {1, 2}
