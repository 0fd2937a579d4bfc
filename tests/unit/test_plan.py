"""What a job comes to, and what is found wrong with it before anything runs."""

from __future__ import annotations

import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headway import plan
from headway.data.manifest import load, write
from headway.data.read.streams import open_readers
from headway.data.write.writer import write_dataset
from headway.errors import BadData, BadInput
from headway.job import Job, parse, to_yaml
from headway.job import load as load_job

TASK = """
import headway, torch

class T(headway.Task):
    def __init__(self, width=4):
        raise RuntimeError("not to be called")
"""


@pytest.fixture
def make(tmp_path: Path, make_dataset: Any) -> Any:
    make_dataset(tmp_path / "train", (30, 20), (50,))
    make_dataset(tmp_path / "val", (10,))
    (tmp_path / "plan_task.py").write_text(TASK)

    def job(task: str = "T", **fields: Any) -> Job:
        tree = {
            "name": "n",
            "task": f"{tmp_path}/plan_task.py:{task}",
            "data": {"train": str(tmp_path / "train"), "validation": str(tmp_path / "val")},
            "lanes": 3,
            "lane_batch": 8,
            "epochs": 2,
            "workers": {"min": 1, "max": 2},
        }
        return parse({**tree, **fields})

    return job


def test_the_numbers(make: Any) -> None:
    found = plan.check(make())
    assert (found.rows, found.steps_per_epoch, found.total_steps) == (100, 5, 10)  # lanes of 33, 33 and 34 rows
    assert (found.global_batch, found.last_batch) == (24, 4)
    assert found.lanes_per_worker == {1: [3], 2: [2, 1]}
    assert found.sizes == [1, 2]
    assert plan.check(make(lanes=8, workers={"min": 2, "max": 7})).sizes == [2, 3, 4], "5 to 7 are no faster"
    assert plan.check(make(lanes=8, workers={"min": 5, "max": 8})).sizes == [5, 8]
    assert (found.parameters, found.checkpoint_bytes) == (None, None)  # not known before the task is tried
    assert plan.check(make(epochs=None, steps=7)).total_steps == 7


def test_replicas_are_carried_as_a_whole(make: Any) -> None:
    found = plan.check(make(lanes=8, workers={"min": 1, "max": 3}, strategy={"kind": "diloco", "replicas": 3}))
    assert found.lanes_per_worker == {1: [8], 2: [6, 2], 3: [3, 3, 2]}  # replicas of 3, 3 and 2 lanes
    assert found.sizes == [1, 2, 3]
    shown = found.shown()["strategy"]
    assert (shown["kind"], shown["replicas"], shown["bytes"]) == ("diloco", [[0, 2], [3, 5], [6, 7]], None)
    known = dataclasses.replace(found, parameters=10, state_bytes=100, row_bytes=1, checkpoint_bytes=120)
    assert known.memory is not None
    assert known.memory["state_bytes"] == 300, "one worker has the states of all three"
    assert known.shown()["strategy"]["bytes"]["all_reduce"] == round(2 * 2 / 3 * 40)
    own = plan.check(make(strategy={"kind": "gossip", "inner_state": "own"}))
    assert any("strategy.inner_state=own" in warning for warning in own.warnings)


def test_a_run_is_pinned_to_its_number_of_replicas(make: Any) -> None:
    job = make(strategy="diloco")
    pinned = plan.pinned(job, plan.check(job))
    assert (job.strategy.replicas, pinned.strategy.replicas) == (None, 2)
    assert plan.check(pinned).digest == plan.check(job).digest


def append(folder: Path, rows: Path) -> None:
    """A new version of a dataset: another's shard behind its own."""
    old, new = load(folder), load(rows)
    (shard,) = new.shards
    path = f"shard-{len(old.shards):05d}.parquet"
    shutil.copy(rows / shard.path, folder / path)
    shards = (*old.shards, dataclasses.replace(shard, path=path))
    total, size = old.rows + shard.rows, old.bytes + shard.bytes
    write(folder, dataclasses.replace(old, rows=total, bytes=size, shards=shards, version=old.version + 1))


def test_a_run_is_pinned_to_the_versions_it_began_with(make: Any, tmp_path: Path) -> None:
    first = plan.check(make())
    job = plan.pinned(make(), first)
    for name in ("train", "val"):
        append(tmp_path / name, tmp_path / "val")
    saved = tmp_path / "job.yaml"
    saved.write_text(to_yaml(job))  # as the run's folder keeps it
    resumed = plan.check(load_job(saved))
    assert (resumed.rows, resumed.digest) == (first.rows, first.digest)
    assert {use: d.version for use, d in resumed.datasets.items()} == {"train": 1, "validation": 1}
    train, validation = open_readers(load_job(saved))
    assert validation is not None
    assert (train.order.rows, validation.order.rows) == (100, 10)
    train.close()
    validation.close()
    fresh = plan.check(make())
    assert (fresh.rows, fresh.datasets["validation"].rows) == (110, 20)
    assert fresh.digest != first.digest


def test_a_version_that_is_not_there(make: Any, tmp_path: Path) -> None:
    data = {"train": str(tmp_path / "train"), "version": 3}
    with pytest.raises(BadData, match="has no version 3"):
        plan.check(make(data=data))


def test_sampling_is_planned(make: Any, tmp_path: Path) -> None:
    data = {"train": str(tmp_path / "train"), "sampling": {"by": "y", "weights": "balanced", "rows": 48}}
    found = plan.check(make(data=data))
    assert (found.rows, found.rows_per_epoch, found.steps_per_epoch, found.last_batch) == (100, 48, 2, 24)
    assert found.digest != plan.check(make()).digest
    data["sampling"]["weights"] = {"2": 1.0}  # type: ignore[index]
    with pytest.raises(BadInput, match=r"data.sampling.weights names the class '2'"):
        plan.check(make(data=data))


def test_a_mixture_is_planned_and_pinned(make: Any, tmp_path: Path) -> None:
    parts = [{"path": str(tmp_path / "train"), "weight": 3.0}, {"path": str(tmp_path / "val")}]
    job = make(data={"train": parts, "mixture_epoch": 240})
    found = plan.check(job)
    assert (found.rows, found.rows_per_epoch, found.steps_per_epoch) == (110, 240, 10)
    assert found.shown()["shares"] == {"train[0]": 0.75, "train[1]": 0.25}
    assert found.shown()["datasets"]["train[1]"] == {"rows": 10, "version": 1}
    assert [source.version for source in plan.pinned(job, found).data.sources] == [1, 1]
    other = plan.check(make(data={"train": [{**parts[0], "weight": 2.0}, parts[1]], "mixture_epoch": 240}))
    assert other.digest != found.digest


def test_parts_of_a_mixture_must_have_the_same_columns(make: Any, tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "x": ["a", "b", "c"]})
    write_dataset(tmp_path / "odd", [table], name="odd", source="test")
    parts = [{"path": str(tmp_path / "train")}, {"path": str(tmp_path / "odd")}]
    with pytest.raises(BadInput, match=r"data.train\[1\] has other columns.*data.columns"):
        plan.check(make(data={"train": parts}))
    assert plan.check(make(data={"train": parts, "columns": ["id"]})).rows == 103


def test_it_is_shown_as_plain_values(make: Any) -> None:
    import json

    shown = plan.check(make()).shown()
    assert json.loads(json.dumps(shown))["rows"] == 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class T(:", "cannot be imported: SyntaxError"),
        ("import headway\nclass Tt(headway.Task): pass", "Did you mean 'Tt'?"),
        ("def other(): pass", "has no such class or function"),
    ],
)
def test_what_is_seen_in_the_tasks_file_is_said_at_once(make: Any, tmp_path: Path, text: str, said: str) -> None:
    job = make()
    (tmp_path / "plan_task.py").write_text(text)
    with pytest.raises(BadInput) as caught:
        plan.check(job)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text", ["from elsewhere import *", "T = make()", "if True:\n    class T: pass", "def __getattr__(name): return 1"]
)
def test_what_cannot_be_known_without_importing_it_is_left_to_the_trial(make: Any, tmp_path: Path, text: str) -> None:
    job = make()
    (tmp_path / "plan_task.py").write_text(text)
    plan.check(job)


def test_data_is_named_by_its_key(make: Any, tmp_path: Path) -> None:
    for use in ("train", "validation"):
        data = {"train": str(tmp_path / "train"), "validation": str(tmp_path / "val"), use: str(tmp_path / "gone")}
        with pytest.raises(BadData, match=f"data.{use}={tmp_path}/gone"):
            plan.check(make(data=data))
    shard = tmp_path / "train/shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BadData, match=r"shard-00001\.parquet is truncated"):
        plan.check(make())


def test_columns_must_be_there(make: Any, tmp_path: Path) -> None:
    data = {"train": str(tmp_path / "train"), "columns": ["x", "yy"]}
    with pytest.raises(BadInput, match=r"'yy'.*data.train has no such column.*Did you mean 'y'"):
        plan.check(make(data=data))


def test_space_is_looked_at(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    plan.check_space(make(), 248, tmp_path / "not/yet/there")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 700))
    with pytest.raises(BadInput, match="0 MB free"):
        plan.check_space(make(), 248, tmp_path)
    plan.check_space(make(checkpoint={"keep_last": 1}), 248, tmp_path)


def test_what_is_odd_is_a_warning(make: Any) -> None:
    assert plan.check(make(lane_batch=10)).warnings == []
    said = " ".join(plan.check(make(lane_batch=33, checkpoint={"every_steps": None})).warnings)
    assert "a lane with a single row" in said
    assert "no checkpoints until the end" in said
    assert "less than one global batch" in " ".join(plan.check(make(lane_batch=50)).warnings)


def test_the_digest_is_of_what_decides_the_result(make: Any, tmp_path: Path, make_dataset: Any) -> None:
    digest = plan.check(make()).digest
    same: list[dict[str, Any]] = [
        {"name": "other"},
        {"epochs": 5},
        {"workers": {"max": 3}},
        {"checkpoint": {"every_steps": 1}},
        {"tracking": {"enabled": False}},
        {"lanes_together": "never", "rows_together": 100},
        {"activation_checkpointing": True},
        {"activation_checkpointing": ["layers.*"]},
        {"data": {"train": str(tmp_path / "train")}},
    ]
    for fields in same:
        assert plan.check(make(**fields)).digest == digest, fields
    shutil.copytree(tmp_path / "train", tmp_path / "elsewhere")
    assert plan.check(make(data={"train": str(tmp_path / "elsewhere")})).digest == digest, "data is data, wherever"
    make_dataset(tmp_path / "more", (30, 20), (51,))
    other: list[dict[str, Any]] = [
        {"lanes": 4},
        {"lane_batch": 9},
        {"seed": 1},
        {"precision": "bf16"},
        {"optimizer": {"name": "sgd", "lr": 0.1}},
        {"schedule": {"name": "cosine"}},
        {"clip_norm": 1.0},
        {"arguments": {"width": 5}},
        {"data": {"train": str(tmp_path / "more")}},
        {"data": {"train": str(tmp_path / "train"), "shuffle": False}},
        {"data": {"train": str(tmp_path / "train"), "window": 3}},
    ]
    digests = [plan.check(make(**fields)).digest for fields in other]
    assert len({digest, *digests}) == len(other) + 1
    parts = [plan.check(make(lane_batch=8, **fields)).digest for fields in ({"accumulate": 4}, {"micro_batch": 2})]
    assert parts[0] == parts[1] != plan.check(make(lane_batch=8, micro_batch=8)).digest
