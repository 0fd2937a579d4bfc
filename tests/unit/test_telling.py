"""No run stays under way in MLflow for ever, whatever killed whom: whoever looks at runs tells it there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway import runs
from headway.cli import ui
from headway.core.ends import End
from headway.elastic.lead.recorder import Recorder
from headway.errors import BadInput
from headway.job import parse
from headway.jobs.look.listing import ls
from headway.runs import Place, RunFolder, closing, epochs, finding, telling
from headway.runs.pruning import prune
from headway.sweeps.folder import NearSweep
from headway.tracking import mlflow_writer
from headway.tracking.spool import Spool
from headway.tracking.store import default_uri

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")

JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100_000}
TRACKING = {"uri": None, "experiment": "telling"}
NOBODY = "http://127.0.0.1:1"
"""A tracking server that is not there."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.of(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_writer, "LAST_PAUSE_S", 0.01)


def begun(place: Place, name: str, uri: str | None = None, sends: bool = True) -> RunFolder:
    """A run under way, in MLflow too, whose leader was killed."""
    run = runs.create(place, name, parse(JOB))
    spool = Spool(run.spool)
    spool.append({"kind": "run", "job": {"name": "n", "tracking": {**TRACKING, "uri": uri}}, "environment": {}})
    spool.append({"kind": "state", "state": "running", "message": ""})
    spool.append({"kind": "points", "step": 1, "values": {"loss": 0.5}})
    if sends:
        mlflow_writer.sync(run.path)
        assert status(place, name) == "RUNNING"
    return run


def found(place: Place, name: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(default_uri(place.folder))
    experiment = client.get_experiment_by_name("telling")
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return run


def status(place: Place, name: str) -> str:
    return str(found(place, name).info.status)


def by_sync(place: Place, name: str) -> None:
    told = telling.tell(runs.find(place, name), 60.0)
    assert (told.error, told.waiting) == ("", 0)


def by_ls(place: Place, name: str) -> None:
    assert name in [row.run for row in ls(runs=str(place)).runs]


def by_ui(place: Place, name: str) -> None:
    ui._complete(place)


def by_prune(place: Place, name: str) -> None:
    assert prune(place, [name]).removed == [name]


@pytest.mark.parametrize("look", [by_sync, by_ls, by_ui, by_prune])
def test_a_run_whose_leader_was_killed_is_closed_by_whoever_looks(
    place: Place, look: Callable[[Place, str], None]
) -> None:
    name = f"killed-{look.__name__[3:]}"
    begun(place, name)
    look(place, name)
    assert status(place, name) == "KILLED"
    assert "gone" in found(place, name).data.tags["headway.message"]


def test_who_led_a_run_last_is_not_who_closed_it(place: Place) -> None:
    run = begun(place, "left", sends=False)
    epoch = epochs.claim(run.path)
    (run.path / epochs.FOLDER / f"epoch-{epoch:06d}").write_text(
        json.dumps({"host": socket.gethostname(), "pid": 7, "time": 0})
    )
    before = finding.leader(place, "left")
    telling.tell(run, 60.0)
    assert run.read()["state"] == "interrupted"
    assert finding.leader(place, "left") == before
    assert before.startswith("process 7 on ")


@pytest.mark.parametrize(
    ("state", "cause", "told"),
    [("finished", None, "FINISHED"), ("failed", "task", "FAILED"), ("stopped", None, "KILLED")],
)
def test_a_leader_that_was_killed_between_keeping_its_end_and_telling_it(
    place: Place, state: str, cause: str | None, told: str
) -> None:
    run = begun(place, f"untold-{state}")
    best = {"metric": "accuracy", "mode": "max", "history": [[10, 0.5]]}
    run.write({**run.read(), "state": state, "message": "so", "cause": cause, "ended": 1.79e9, "best": best})
    ui._complete(place)
    ended = found(place, run.name)
    assert (ended.info.status, ended.info.end_time) == (told, 1_790_000_000_000)
    assert ended.data.tags["best_validation/accuracy"] == "0.5 at step 10"
    size = run.spool.stat().st_size
    by_sync(place, run.name)
    assert run.spool.stat().st_size == size, "it is told once"


def test_one_that_is_led_stays_open(place: Place) -> None:
    run = begun(place, "led")
    with run.led():
        for look in (by_sync, by_ls, by_ui):
            look(place, run.name)
        with pytest.raises(BadInput, match="is running"):
            prune(place, [run.name])
    assert status(place, run.name) == "RUNNING"


def test_one_whose_recorder_lives_still_is_not_told_for_it(place: Place) -> None:
    run = begun(place, "recorded")
    run.write({**run.read(), "state": "finished"})
    with run.hold_records():
        by_sync(place, run.name)
    assert status(place, run.name) == "RUNNING"
    by_sync(place, run.name)
    assert status(place, run.name) == "FINISHED"


def test_what_a_store_that_was_away_was_not_told_keeps_its_run_from_being_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(place, "away", uri=NOBODY, sends=False)
    with run.led():
        tracking = {"uri": NOBODY, "experiment": "telling", "run_name": run.name}
        recorder = Recorder(str(run.path), tracking, {"kind": "run", "job": {"tracking": {"uri": NOBODY}}}, 10)
        told = recorder.finish("finished", "", 0.5)
        recorder.release()
    assert not told["whole"]
    (brief,) = [brief for brief in runs.outline(place) if brief.run == run.name]
    assert brief.unsent
    monkeypatch.setattr("headway.runs.pruning.TRACKING_S", 2.0)
    done = prune(place, [run.name])
    assert done.removed == []
    assert f"headway sync {run.name}" in done.left[run.name]
    assert run.path.exists()
    mlflow_writer.sync(run.path, default_uri(place.folder))  # elsewhere: that is another store
    assert prune(place, [run.name]).removed == []
    assert prune(place, [run.name], unsent=True).removed == [run.name]


def test_a_sweep_whose_driver_was_killed_is_closed_there_and_its_own_facts_are_left(place: Place) -> None:
    sweep = NearSweep(place.folder / "sweep")
    sweep.path.mkdir()
    facts = {"sweep": "sweep", "key": "k", "state": "running", "created": time.time(), "message": ""}
    sweep.write(facts)
    spool = Spool(sweep.spool)
    spool.append({"kind": "run", "job": {"tracking": TRACKING}, "environment": {}, "key": "k"})
    spool.append({"kind": "state", "state": "running"})
    mlflow_writer.sync(sweep.path)
    assert status(place, "sweep") == "RUNNING"
    by_sync_of_sweep = telling.tell(sweep, 60.0)
    assert by_sync_of_sweep.error == ""
    assert status(place, "sweep") == "KILLED"
    assert json.loads((sweep.path / "sweep.json").read_text()) == facts
    spool.append({"kind": "state", "state": "running"})  # it was resumed
    mlflow_writer.sync(sweep.path)
    assert status(place, "sweep") == "RUNNING"
    with sweep.led():
        ui._complete(place)
    assert status(place, "sweep") == "RUNNING"
    ui._complete(place)
    assert status(place, "sweep") == "KILLED"


def test_a_list_of_runs_waits_for_no_store_for_long(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    for number in range(5):
        begun(place, f"r{number}", uri=NOBODY, sends=False)
    begin = time.monotonic()
    telling.tell_left(place, runs.outline(place), within_s=1.0)
    assert time.monotonic() - begin < 20.0
    left = runs.outline(place)
    assert [brief.state for brief in left] == ["interrupted"] * 5
    assert not any(brief.unclosed for brief in left), "closed, though the store could not be told"
    assert all(Spool(place.folder / brief.run / "spool.jsonl").state() == "interrupted" for brief in left)


def test_who_may_not_write_is_shown_the_list_all_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(place, "foreign", sends=False)

    def refused(*_: Any, **__: Any) -> End:
        raise BadInput("it cannot be written", "Permission denied", "")

    monkeypatch.setattr(telling, "close", refused)
    by_ls(place, run.name)
    with suppress(BadInput):
        telling.tell(run, 1.0)
    assert run.read()["state"] == "running"
    monkeypatch.setattr(telling, "close", closing.close)
    until(lambda: closing.close(run) is not None or run.read()["state"] == "interrupted")
