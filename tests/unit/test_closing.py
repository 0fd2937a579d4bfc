"""Runs whose leaders are killed at any moment: closed by who finds them, with the reason, once, in MLflow too."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.tiers import SOAK
from tests.waiting import until

from headway import report, runs
from headway.core.ends import End
from headway.errors import BadInput, RunFailed, UserCodeFailed
from headway.job import Job, parse
from headway.runs import Place, closing, epochs, far
from headway.runs.closing import close
from headway.runs.folder import RunFolder
from headway.runs.remote import RemoteRun
from headway.testing.s3 import S3

SEEDS = [random.randrange(10**6) for _ in range(30)] if SOAK else [1, 2, 3]
JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100_000}
LEASE_S = 1.5
LIVING_S = 5.0
"""The lease of one that is to be left alone: it renews it, though it has no processor for some seconds."""
DRIVER = """
import json, sys, time
from headway import runs
from headway.durable import Lines
from headway.job import parse
from headway.runs import Place, remote
remote.RemoteRun.create.__defaults__ = (float(sys.argv[2]),)
job = parse(json.loads(sys.argv[3]))
print("ready", flush=True)
run = runs.create(Place.of(sys.argv[1]), "r", job)
with run.led():
    steps, events = Lines(run.path / "steps.jsonl"), Lines(run.path / "events.jsonl")
    for step in range(10**6):
        line = {"step": step, "epoch": 0, "loss": 1.0, "lr": 0.1, "rows": 8, "samples": "x", "time": time.time()}
        steps.append(json.dumps(line).encode() + b"\\n")
        if step % 10 == 0:
            told = {"kind": "workers", "step": step, "workers": 2, "time": time.time()}
            events.append(json.dumps(told).encode() + b"\\n")
            run.write({**run.read(), "steps_so_far": step})
        print("led", flush=True)
        time.sleep(0.01)
"""


def job() -> Job:
    return parse(JOB)


@pytest.fixture(params=["folder", "store"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Place]]:
    """Gives the place of runs, as a machine of that name sees it."""
    if request.param == "folder":
        yield lambda machine: Place.of(tmp_path / "runs")
        return
    s3: S3 = request.getfixturevalue("s3")
    s3.make_bucket("closing")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setattr(far, "LIVES_S", LEASE_S)

    def on(machine: str) -> Place:
        monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / machine))
        return Place.of(f"s3://closing/{tmp_path.name}")

    yield on


def driver(place: Place, lease_s: float = LEASE_S) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(place), str(lease_s), json.dumps(JOB)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def started(place: Place, name: str = "r", state: str = "running") -> RunFolder:
    """A run whose leader went without a word."""
    run = runs.create(place, name, job())
    with run.led():
        run.write({**run.read(), "state": state})
    return run


def events(run: RunFolder) -> list[dict[str, Any]]:
    return [event for event in run.events() if event["kind"] == "end"]


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment_and_closed_by_who_finds_it(place: Callable[[str], Place], seed: int) -> None:
    chance = random.Random(seed)
    process = driver(place("first"))
    threading.Event().wait(chance.choice([0.0, 0.05, 0.3, 1.0]) * chance.random())
    process.send_signal(signal.SIGSTOP)  # it is in the middle of something
    kill(process)
    there = place(chance.choice(["first", "second"]))
    try:
        run = runs.find(there, "r")
    except BadInput:  # it had not begun
        assert not runs.briefs(there)
        return
    before = run.last_step()
    until(lambda: not closing.seems_led(runs.find(there, "r")))
    end = close(run)
    assert end is not None, f"seed {seed}"
    assert (end.state, end.cause) == ("interrupted", None)
    assert "the process that led the run is gone" in end.message
    again = runs.find(place("third"), "r")
    assert close(again) is None, "once"
    facts = again.read()
    assert (facts["state"], facts["message"]) == ("interrupted", end.message)
    assert again.last_step() >= before, "nothing of it is lost"
    heard = [
        facts["created"],
        *(line["time"] for line in (*again.steps(), *again.events()) if line.get("kind") != "end"),
    ]
    assert facts["ended"] == max(heard), "when it was heard of last, not when it was found"
    (event,) = events(again)
    assert (event["state"], event["step"]) == ("interrupted", again.last_step() + 1)
    assert "@" in event["closed_by"]
    (brief,) = runs.briefs(place("third"))
    assert (brief.state, brief.message) == ("interrupted", end.message)
    told = report.load(again)
    assert told.state == "interrupted"
    assert told.seconds is not None
    assert 0 <= told.seconds < 60
    with again.led():
        assert again.read()["state"] == "interrupted", "whoever goes on with it can"


def test_one_that_lives_is_left_alone(place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "LIVES_S", 60.0)
    process = driver(place("first"), 60.0)
    assert process.stdout is not None
    assert process.stdout.readline() == "led\n"
    try:
        run = runs.find(place("second"), "r")
        for _ in range(3):
            assert close(run) is None
        assert process.poll() is None
        assert process.stdout.readline() == "led\n"
        assert runs.find(place("second"), "r").read()["state"] == "running"
    finally:
        kill(process)


def test_one_that_was_killed_before_it_kept_a_record(
    place: Callable[[str], Place],
) -> None:
    there = place("first")
    if there.url is None:
        pytest.skip("in a folder a run is there with its first record")
    brief = {"state": "running", "created": 5.0}
    RemoteRun(far.storage_of(there.url), "r").create(brief, LEASE_S)
    run = runs.find(place("second"), "r")
    until(lambda: not closing.seems_led(run))
    end = close(run)
    assert end is not None
    assert "before it could keep the job; remove it: headway runs prune r" in end.message
    assert report.load(runs.find(place("third"), "r")).state == "interrupted"
    assert [brief.state for brief in runs.briefs(place("third"))] == ["interrupted"]


def test_who_saw_the_leader_die_waits_for_its_lease(
    place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far, "LIVES_S", 60.0)
    process = driver(place("first"))
    assert process.stdout is not None
    assert process.stdout.readline() == "led\n"
    run = runs.find(place("first"), "r")
    kill(process)
    if run.far is not None:
        assert close(run) is None, "by its store alone it may live"
    end = End("failed", "killed by SIGKILL", "platform")
    assert close(run, end, patience_s=30.0) == end
    assert runs.find(place("second"), "r").read()["message"] == "killed by SIGKILL"


def test_who_thinks_so_wrongly_harms_nobody(place: Callable[[str], Place]) -> None:
    process = driver(place("first"), LIVING_S)
    assert process.stdout is not None
    assert process.stdout.readline() == "led\n"
    try:
        run = runs.find(place("second"), "r")
        assert close(run, End("failed", "x", "platform"), patience_s=2.0 if run.far is None else LIVING_S + 0.5) is None
        assert process.poll() is None
        assert runs.find(place("third"), "r").read()["state"] == "running"
    finally:
        kill(process)


def test_what_is_closed_stays_as_it_was_closed(place: Callable[[str], Place]) -> None:
    run = started(place("first"), state="stopped")
    assert close(run) is None
    assert run.read()["state"] == "stopped"


def test_who_knows_more_says_it(place: Callable[[str], Place]) -> None:
    run = started(place("first"))
    end = End("failed", "the driver was killed by SIGKILL", "platform")
    assert close(run, end) == end
    told = report.load(runs.find(place("second"), "r"))
    assert (told.state, told.message, told.cause) == ("failed", end.message, "platform")
    assert [(brief.state, brief.cause) for brief in runs.briefs(place("second"))] == [("failed", "platform")]


@pytest.mark.parametrize(
    ("error", "state", "cause", "said"),
    [
        (KeyboardInterrupt(), "interrupted", None, "by a signal"),
        (BadInput("other bits"), "interrupted", None, "gone"),
        (UserCodeFailed("w0", "ValueError", "..."), "failed", "task", "the task raised ValueError in w0"),
        (RunFailed("Ray ended"), "failed", "platform", "Ray ended"),
        (OSError("no space"), "failed", "platform", "OSError: no space"),
    ],
)
def test_a_leader_that_leaves_by_an_error_closes_the_run(
    place: Callable[[str], Place], error: BaseException, state: str, cause: str | None, said: str
) -> None:
    run = runs.create(place("first"), "r", job())
    with pytest.raises(type(error)), run.led() as epoch, closing.left(run, epoch):
        raise error
    facts = runs.find(place("second"), "r").read()
    assert (facts["state"], facts["cause"]) == (state, cause)
    assert said in facts["message"]


def test_an_end_that_was_told_is_not_told_anew(place: Callable[[str], Place]) -> None:
    run = runs.create(place("first"), "r", job())
    with run.led() as epoch:
        run.write({**run.read(), "state": "failed", "message": "of a worker"})
        with pytest.raises(RunFailed), closing.left(run, epoch):
            raise RunFailed("of a worker")
    assert run.read()["message"] == "of a worker"
    assert events(run) == []


def test_a_leader_that_was_followed_by_another_closes_nothing(place: Callable[[str], Place]) -> None:
    """It hears so by an error, and what it would write, here or in MLflow, is the other one's to write."""
    run = runs.create(place("first"), "r", job())
    with run.led() as epoch:
        if run.far is None:
            epochs.claim(run.path)
        else:
            until(lambda: _took_over(RemoteRun(far.storage_of(str(place("first").url)), "r")))
        with pytest.raises(RunFailed, match="another process leads"), closing.left(run, epoch):
            raise RunFailed("another process leads run r")
        assert run.read()["state"] == "running"
        assert events(run) == []


def _took_over(remote: RemoteRun) -> bool:
    head, version = remote.look()
    with suppress(epochs.Superseded):  # it wrote in between
        remote._lead(remote._next(head), version)
        return True
    return False


def test_where_locks_may_not_reach_news_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder on a disk that machines share: a leader elsewhere whose lock this machine does not see."""
    run = started(Place.of(tmp_path / "runs"))
    monkeypatch.setattr(epochs.socket, "gethostname", lambda: "elsewhere")
    epochs.claim(run.path)
    monkeypatch.undo()
    assert not run.is_led()
    assert close(run) is None
    monkeypatch.setattr(closing, "QUIET_S", 0.2)
    until(lambda: close(run) is not None)
    assert "on elsewhere" in run.read()["message"]


def test_a_run_of_somebody_elses_is_not_closed_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(Place.of(tmp_path / "runs"))

    def refuse(path: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(epochs, "claim", refuse)
    with pytest.raises(BadInput, match="Permission denied"):
        close(run)
    assert run.read()["state"] == "running"


@pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_its_run_in_mlflow_is_closed_too(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from headway.tracking.mlflow_writer import sync
    from headway.tracking.spool import Spool
    from headway.tracking.store import default_uri

    run = started(Place.of(tmp_path / "runs"))
    spool = Spool(run.spool)
    shown = {"name": "n", "tracking": {"uri": None, "experiment": "closing"}}
    spool.append({"kind": "run", "job": shown, "datasets": [], "environment": {"python": "3"}})
    spool.append({"kind": "state", "state": "running", "message": ""})
    spool.append({"kind": "points", "step": 1, "values": {"loss": 0.5}})
    sent = sync(run.path)
    client = MlflowClient(default_uri(tmp_path / "runs"))
    assert sent.run_id is not None
    assert client.get_run(sent.run_id).info.status == "RUNNING"
    spool.append({"kind": "points", "step": 2, "values": {"loss": 0.4}})  # and now it is killed
    at = time.time()
    assert close(run) is not None
    found = client.get_run(sent.run_id)
    assert found.info.status == "KILLED"
    assert found.info.end_time <= at * 1000, "when it was heard of last"
    assert found.data.metrics["loss"] == 0.4
    assert found.data.tags["headway.state"] == "interrupted"
    assert "gone" in found.data.tags["headway.message"]


def test_no_tracking_store_is_made_by_who_only_finds_a_run(tmp_path: Path) -> None:
    from headway.tracking.spool import Spool

    run = started(Place.of(tmp_path / "runs"))
    Spool(run.spool).append({"kind": "run", "job": {"tracking": {}}, "datasets": [], "environment": {}})
    assert close(run) is not None
    assert [event["kind"] for event in Spool(run.spool).events()] == ["run", "state"]
    assert not (tmp_path / "runs" / "mlflow.db").exists()
