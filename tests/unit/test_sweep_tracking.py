"""A sweep and its trials in MLflow: a parent and its children, whoever comes first, each once, also after a loss."""

from __future__ import annotations

from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from tests.tracking_server import Server
from tests.unit import sweeps

from headway.errors import BadInput
from headway.job import Job
from headway.sweeps import conclusion
from headway.sweeps.names import run_of
from headway.sweeps.seen.tracked import Tracking
from headway.sweeps.seen.view import View
from headway.tracking import lineage
from headway.tracking.mlflow_writer import Writer, sync
from headway.tracking.spool import Spool
from headway.tracking.store import DATABASE, connect, default_uri

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")

KEY = str(sweeps.FACTS["key"])
TREE = {"name": sweeps.NAME, "metric": "accuracy", "space": {"optimizer.lr": {"loguniform": [1e-4, 0.3]}}}
DEADLINE_S = 60


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them: to make them takes seconds."""
    folder = tmp_path_factory.mktemp("tables")
    connect(default_uri(folder), folder)
    return folder / DATABASE


@pytest.fixture
def place(tables: Path, tmp_path: Path) -> Path:
    copy(tables, tmp_path / DATABASE)
    return tmp_path


def child(place: Path, trial: int, uri: str | None = None) -> str:
    """Send the records of a trial. Returns MLflow's id of its run."""
    facts = {"sweep": {"name": sweeps.NAME, "key": KEY, "trial": trial, "repeat": 1, "settings": {"optimizer.lr": 0.1}}}
    job = {"optimizer": {"lr": 0.1 * trial}, "tracking": {"uri": None, "experiment": "tests"}}
    name = run_of(sweeps.NAME, trial)
    spool = Spool(place / name / "spool.jsonl")
    spool.append({"kind": "run", "job": job, "datasets": [], "environment": {}, **lineage.of(facts)})
    for step in (20, 40):
        spool.append({"kind": "points", "step": step, "values": {"validation/accuracy": trial / step}})
    spool.append({"kind": "state", "state": "stopped", "message": "not among the best"})
    writer = Writer(place / name, uri, experiment="tests")
    writer.start()
    summary = writer.close(DEADLINE_S)
    assert (summary.error, summary.waiting) == ("", 0)
    return str(summary.run_id)


def no_job(config: dict[str, Any]) -> Job:
    raise BadInput("its job is not told")


def store(place: Path, uri: str | None = None) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri or default_uri(place))


def all_runs(place: Path, uri: str | None = None) -> list[Any]:
    client = store(place, uri)
    return list(client.search_runs([client.get_experiment_by_name("tests").experiment_id]))


def test_a_run_that_is_no_trial_has_no_parent() -> None:
    assert lineage.of({"created": 1.0}) == {}
    assert lineage.parent({"kind": "run"}) is None


def test_parent_and_children_whoever_comes_first(place: Path) -> None:
    """A trial's records come before the sweep's own: then it makes the parent, and the sweep finds that."""
    first = child(place, 1)
    folder = sweeps.folder_of(place)
    seen = sweeps.play(folder, Tracking(None, "tests", KEY, TREE))
    report = conclusion.conclude(seen, folder, "finished", "40 trials", no_job)
    second = child(place, 2)
    assert (report.tracking["error"], report.tracking["waiting"]) == ("", 0)
    client, parent = store(place), report.tracking["run_id"]
    assert sorted(run.info.run_id for run in all_runs(place)) == sorted([first, second, parent])
    for trial, run in enumerate((first, second), 1):
        found = client.get_run(run)
        assert found.data.tags["mlflow.parentRunId"] == parent
        assert found.data.tags["headway.sweep"] == sweeps.NAME
        assert found.data.tags["headway.trial"] == str(trial)
        assert found.data.params["optimizer.lr"] == str(0.1 * trial)
        assert [point.step for point in client.get_metric_history(run, "validation/accuracy")] == [20, 40]


def test_the_parent_has_the_best_the_curve_and_the_files(place: Path) -> None:
    folder = sweeps.folder_of(place)
    seen = sweeps.play(folder, Tracking(None, "tests", KEY, TREE))
    report = conclusion.conclude(seen, folder, "finished", "40 trials", no_job)
    client, best = store(place), report.best
    assert best is not None
    run = client.get_run(report.tracking["run_id"])
    assert (run.info.run_name, run.info.status) == (sweeps.NAME, "FINISHED")
    assert run.data.params["space.optimizer.lr.loguniform"] == "[0.0001, 0.3]"
    assert run.data.tags["best.trial"] == str(best.trial)
    assert run.data.tags["best.optimizer.lr"] == str(best.settings["optimizer.lr"])
    curve = [point.value for point in client.get_metric_history(run.info.run_id, "best/accuracy")]
    assert curve == sorted(curve)
    assert curve[-1] == best.best
    assert run.data.metrics["trials_over"] == 4.0
    there = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "pictures")}
    assert there == {f"pictures/{name}.svg" for name in ("settings", "rungs", "metric", "workers")}
    assert "report.json" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_what_could_not_be_sent_is_sent_later_once(place: Path) -> None:
    """The server is away for the whole sweep, which is taken up once; `headway sync` makes up for it."""
    folder, away = sweeps.folder_of(place), "http://127.0.0.1:9"
    sweeps.play(folder, Tracking(away, "tests", KEY, TREE), until=30)
    seen = sweeps.play(folder, Tracking(away, "tests", KEY, TREE))
    report = conclusion.conclude(seen, folder, "finished", "", no_job, close_s=5.0)
    assert report.tracking["waiting"] > 30
    assert report.tracking["run_id"] is None
    child(place, 1)
    summary = sync(folder, default_uri(place))
    assert (summary.error, summary.waiting) == ("", 0)
    client = store(place)
    steps = [point.step for point in client.get_metric_history(summary.run_id, "best/accuracy")]
    assert steps == sorted(set(steps))
    assert len(all_runs(place)) == 2


@pytest.mark.slow
def test_a_server_that_is_killed_while_the_sweep_goes_on_gets_everything_once(place: Path) -> None:
    server = Server(place)
    server.start()
    folder = sweeps.folder_of(place)

    def look(view: View) -> None:
        if len(view.trials) == 20:
            server.stop()

    try:
        seen = sweeps.play(folder, Tracking(server.uri, "tests", KEY, TREE), watch=look)
        server.start()
        first = child(place, 1, server.uri)
        report = conclusion.conclude(seen, folder, "finished", "40 trials", no_job)
        assert (report.tracking["error"], report.tracking["waiting"]) == ("", 0)
        client, best = store(place, server.uri), report.best
        assert best is not None
        curve = client.get_metric_history(report.tracking["run_id"], "best/accuracy")
        assert [point.step for point in curve] == sorted({point.step for point in curve})
        assert curve[-1].value == best.best
        assert {run.info.run_id for run in all_runs(place, server.uri)} == {first, report.tracking["run_id"]}
        assert client.get_run(first).data.tags["mlflow.parentRunId"] == report.tracking["run_id"]
    finally:
        server.stop()
