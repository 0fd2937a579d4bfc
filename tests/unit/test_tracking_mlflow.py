"""What a person finds in MLflow after a run, a resume, a kill: everything, once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import headway
from headway.errors import BadInput
from headway.tracking import mlflow_writer
from headway.tracking.mlflow_writer import Summary, Writer
from headway.tracking.spool import Spool
from headway.tracking.store import default_uri

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")

JOB = {"name": "a", "lanes": 8, "workers": {"min": 1, "max": 4}, "tracking": {"uri": None, "experiment": "tests"}}
DATASET = {
    "context": "train",
    "name": "digits",
    "digest": "ab" * 32,
    "rows": 10,
    "path": "/x",
    "schema": {"x": "int64"},
}
DEADLINE_S = 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def client(runs: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=default_uri(runs))


def points(spool: Spool, steps: range, **more: float) -> None:
    for step in steps:
        spool.append({"kind": "points", "step": step, "values": {"loss": 1 / (step + 1), **more}})


def begin(runs: Path, name: str, job: dict[str, Any] = JOB) -> Spool:
    spool = Spool(runs / name / "spool.jsonl")
    spool.append({"kind": "run", "job": job, "datasets": [DATASET], "environment": {"python": "3", "git": None}})
    spool.append({"kind": "state", "state": "running", "message": ""})
    return spool


def send(runs: Path, name: str) -> Summary:
    writer = Writer(runs / name, experiment="tests")
    writer.start()
    summary = writer.close(DEADLINE_S)
    assert (summary.error, summary.waiting) == ("", 0)
    return summary


def steps(runs: Path, run_id: str | None, key: str = "loss") -> list[int]:
    return [metric.step for metric in client(runs).get_metric_history(run_id, key)]


def test_a_run_is_visible_with_all_that_belongs_to_it(runs: Path) -> None:
    spool = begin(runs, "whole")
    points(spool, range(30), lr=0.1)
    spool.append({"kind": "points", "step": 30, "values": {"validation/accuracy": 0.9}})
    metrics = {"accuracy": 0.9, "f1": 0.8}
    spool.append({"kind": "checkpoint", "step": 30, "path": "/c/30", "bytes": 5, "metrics": metrics})
    spool.append({"kind": "state", "state": "finished", "message": "done"})
    summary = send(runs, "whole")
    assert summary.sent == 61
    run = client(runs).get_run(summary.run_id)
    assert run.info.run_name == "whole"
    assert run.info.status == "FINISHED"
    assert (run.data.params["workers.max"], run.data.params["lanes"]) == ("4", "8")
    assert run.data.tags["environment.python"] == "3"
    assert steps(runs, summary.run_id) == list(range(30))
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", ("ab" * 32)[:36])
    assert {"mlflow.data.context": "train", "headway.digest": "ab" * 32}.items() <= {
        t.key: t.value for t in given.tags
    }.items()
    (model,) = client(runs).search_logged_models([run.info.experiment_id], f"source_run_id = '{summary.run_id}'")
    assert model.params["path"] == "/c/30"
    assert {(m.key, m.value, m.step) for m in model.metrics} == {
        ("validation/accuracy", 0.9, 30),
        ("checkpoint/f1", 0.8, 30),
    }
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(model.model_id, 30)]
    assert steps(runs, summary.run_id, "validation/accuracy") == [30]
    assert "environment.json" in [artifact.path for artifact in client(runs).list_artifacts(summary.run_id)]
    assert (runs / "mlartifacts").is_dir()


def test_resume_continues_the_same_run_and_repeats_no_point(runs: Path) -> None:
    spool = begin(runs, "resumed")
    points(spool, range(20))
    spool.append({"kind": "checkpoint", "step": 10, "path": "/c/10", "bytes": 5, "metrics": {"accuracy": 0.5}})
    spool.append({"kind": "state", "state": "interrupted", "message": "Ctrl-C"})
    first = send(runs, "resumed")
    assert client(runs).get_run(first.run_id).info.status == "KILLED"
    for state, cause, status in (("stopped", None, "KILLED"), ("failed", "platform", "FAILED")):
        spool.append({"kind": "state", "state": state, "message": "", "cause": cause})
        send(runs, "resumed")
        found = client(runs).get_run(first.run_id)
        assert (found.info.status, found.data.tags["headway.cause"]) == (status, cause or "-")
    spool = begin(runs, "resumed", {**JOB, "lanes": 4, "seed": 3})
    points(spool, range(10, 40))
    spool.append({"kind": "checkpoint", "step": 10, "path": "/c/10", "bytes": 5, "metrics": {"accuracy": 0.5}})
    second = send(runs, "resumed")
    assert second.run_id == first.run_id
    assert second.sent == 20
    run = client(runs).get_run(first.run_id)
    assert run.info.status == "RUNNING"
    assert (run.data.params["lanes"], run.data.tags["resumed.lanes"], run.data.params["seed"]) == ("8", "4", "3")
    assert steps(runs, first.run_id) == list(range(40))
    assert len(client(runs).search_logged_models([run.info.experiment_id], f"source_run_id = '{first.run_id}'")) == 1


def test_points_sent_but_not_saved_as_sent_are_not_repeated(runs: Path) -> None:
    spool = begin(runs, "unsaved")
    points(spool, range(5))
    before = send(runs, "unsaved")
    saved = (runs / "unsaved" / "tracking.json").read_text()
    points(spool, range(5, 10))
    spool.append({"kind": "checkpoint", "step": 9, "path": "/c/9", "bytes": 1, "metrics": {}})
    send(runs, "unsaved")
    (runs / "unsaved" / "tracking.json").write_text(saved)
    again = send(runs, "unsaved")
    assert (again.run_id, again.sent) == (before.run_id, 0)
    assert steps(runs, before.run_id) == list(range(10))
    assert len(client(runs).get_run(before.run_id).outputs.model_outputs) == 1


def test_run_made_but_not_saved_is_found_again(runs: Path) -> None:
    points(begin(runs, "orphan"), range(3))
    first = send(runs, "orphan")
    path = runs / "orphan" / "tracking.json"
    path.write_text(path.read_text().replace(f'"{first.run_id}"', "null"))
    points(Spool(runs / "orphan" / "spool.jsonl"), range(3, 5))
    assert send(runs, "orphan").run_id == first.run_id


def test_not_finite_points_are_left_out_and_said(runs: Path) -> None:
    spool = begin(runs, "infinite")
    points(spool, range(3), norm=math.inf)
    points(spool, range(3, 4), norm=1.0)
    summary = send(runs, "infinite")
    assert steps(runs, summary.run_id, "norm") == [3]
    assert "inf at step 0" in client(runs).get_run(summary.run_id).data.tags["headway.not_finite.norm"]


def test_odd_names_long_values_and_rubbish_stop_nothing(runs: Path) -> None:
    spool = begin(runs, "odd", {**JOB, "arguments": {"text": "x" * 10_000, "weird key (%)": [1, None]}})
    spool.append({"kind": "points", "step": 0, "values": {"a@b(%)": 1, "../up": 2, "none": None, "k" * 400: 3, "": 4}})
    spool.append({"kind": "points", "step": "x", "values": 3})
    spool.append({"kind": "points", "step": 1, "values": {"loss": 10**400}})
    spool.append({"kind": "checkpoint"})
    spool.append({"kind": "of the future", "x": 1})
    points(spool, range(2, 3))
    summary = send(runs, "odd")
    data = client(runs).get_run(summary.run_id).data
    assert data.metrics["a_b___"] == 1
    assert len(data.params["arguments.text"]) == 6000
    assert steps(runs, summary.run_id) == [2]


def test_a_refused_point_does_not_hold_up_the_others(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = begin(runs, "refused")
    points(spool, range(10))
    from headway.tracking import entities

    monkeypatch.setattr(entities, "name", lambda text: "bad(%)" if text == "x" else str(text))
    spool.append({"kind": "points", "step": 10, "values": {"x": 1.0, "loss": 0.1}})
    summary = send(runs, "refused")
    assert summary.sent == 11
    assert steps(runs, summary.run_id) == list(range(11))


def test_ten_thousand_points_drain_in_seconds(runs: Path) -> None:
    """Of the processor's time: how long that lasts, a busy machine decides."""
    spool = begin(runs, "many")
    started = time.process_time()
    points(spool, range(10_000))
    assert time.process_time() - started < 5
    started = time.process_time()
    summary = send(runs, "many")
    assert time.process_time() - started < 30
    assert summary.sent == 10_000


def test_one_run_has_one_writer(runs: Path) -> None:
    points(begin(runs, "held"), range(5))
    holder = Writer(runs / "held", experiment="tests")
    holder.start()
    assert holder.flush(DEADLINE_S)
    assert "another process" in mlflow_writer.sync(runs / "held", timeout_s=10).error
    assert holder.close(DEADLINE_S).error == ""
    summary = mlflow_writer.sync(runs / "held", timeout_s=DEADLINE_S)
    assert (summary.error, summary.sent) == ("", 0)


def test_sync_of_no_run_is_bad_input(runs: Path) -> None:
    with pytest.raises(BadInput, match="no records"):
        mlflow_writer.sync(runs / "nowhere")


WRITE = """
import sys, time
from headway.tracking.mlflow_writer import Writer
from headway.tracking.spool import Spool
folder, points = sys.argv[1], int(sys.argv[2])
spool = Spool(folder + "/spool.jsonl")
writer = Writer(folder, experiment="tests", poll_s=0.01)
writer.start()
for step in range(points):
    spool.append({"kind": "points", "step": step, "values": {"loss": 1 / (step + 1)}})
    if points > 1000 and step % 20 == 0:
        time.sleep(0.01)
if points > 1000:
    time.sleep(600)
summary = writer.close(60)
sys.exit(1 if summary.error or summary.waiting else 0)
"""


def test_killed_in_the_middle_every_point_arrives_once(runs: Path) -> None:
    folder = runs / "killed"
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", WRITE, str(folder), "4000"])
        try:
            sent = (folder / "tracking.json").read_text() if (folder / "tracking.json").exists() else ""
            deadline = time.monotonic() + DEADLINE_S
            while not (folder / "tracking.json").exists() or (
                '"loss"' not in (now := (folder / "tracking.json").read_text()) or now == sent
            ):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
    written = {event["step"] for event in Spool(folder / "spool.jsonl").events()}
    summary = send(runs, "killed")
    assert sorted(steps(runs, summary.run_id)) == sorted(written)
    assert len(client(runs).search_runs(["1"], "attributes.run_name = 'killed'")) == 1


AT_ONCE = """
import sys, time
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store
folder = Path(sys.argv[1])
folder.mkdir()
(folder / "ready").touch()
while not (folder.parent / "go").exists():
    time.sleep(0.001)
"""


def test_two_first_runs_at_once_share_a_fresh_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AT_ONCE + WRITE]
    both = [subprocess.Popen([*command, str(tmp_path / name), "10"]) for name in ("a", "b")]
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not all((tmp_path / name / "ready").exists() for name in ("a", "b")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (tmp_path / "go").touch()
        assert [process.wait(DEADLINE_S) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
    for name in ("a", "b"):
        assert json.loads((tmp_path / name / "tracking.json").read_text())["stores"]["runs folder"]["run_id"]
    found = client(tmp_path).get_experiment_by_name("tests")
    assert {run.info.run_name for run in client(tmp_path).search_runs([found.experiment_id])} == {"a", "b"}


def test_nothing_but_the_store_is_called(tmp_path: Path) -> None:
    """The writer's process opens no connection when its store is a file."""
    watch = """
import socket, sys
def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX:
        print("connected to", address)
    raise ConnectionRefusedError(address)
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
def unknown(host, *rest, **more):
    print("asked for", host)
    raise socket.gaierror(host)
socket.getaddrinfo = unknown
"""
    command = [sys.executable, "-c", watch + WRITE, str(tmp_path / "quiet"), "10"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(Path(headway.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_run_whose_writer_died_in_the_middle_of_several_batches_has_no_gap(runs: Path) -> None:
    """They are on their way together: the later ones may be there, and the first not."""
    spool = begin(runs, "gap")
    points(spool, range(100))
    run_id = send(runs, "gap").run_id
    begun, late = spool.size(), time.time()
    for step in range(100, 300):
        spool.append({"kind": "points", "step": step, "time": late + step, "values": {"loss": 0.5}})
    for step in range(200, 250):
        client(runs).log_metric(run_id, "loss", 0.5, int((late + step) * 1000), step)
    file = runs / "gap" / "tracking.json"
    tree = json.loads(file.read_text())
    (kept,) = tree["stores"].values()
    assert kept["offset"] == begun
    kept["upto"] = spool.size()
    file.write_text(json.dumps(tree))
    assert send(runs, "gap").sent == 150
    assert sorted(steps(runs, run_id)) == list(range(300))
