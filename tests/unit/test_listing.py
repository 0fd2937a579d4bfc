"""headway ls and status: what a place and a cluster say together, and when one of them says nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Run

from headway import jobs, runs
from headway.cli.ls import COLUMNS
from headway.errors import BadInput, HeadwayError
from headway.job import parse
from headway.jobs.look import asking
from headway.jobs.look.asking import Unread
from headway.jobs.look.closeup import GIVEN_UP_S
from headway.runs import Place, RunFolder, epochs, far, now
from headway.runs.listing import ALONE_S, LIVES_S, of_folder
from headway.runs.now import Now
from headway.testing.rayjobs import DoubleJob, RayJobsDouble
from headway.testing.s3 import S3, Faults

JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100}
BY = {"id": "headway-alive-1", "by": "anna@laptop"}
AWAY = "http://127.0.0.1:9"
"""Nobody listens there."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE_S", 0.3)
    for name in (*asking.ADDRESSES, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "HEADWAY_RUNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ray() -> Iterator[RayJobsDouble]:
    with RayJobsDouble() as double:
        yield double


def listed(ray: RayJobsDouble, run: str, status: str, at: float = 100.0, **more: Any) -> DoubleJob:
    """A submission in Ray's list."""
    attempt = more.pop("attempt", "1")
    told = {"headway_run": run, "headway_attempt": attempt, "headway_kind": "train", "headway_by": "anna@laptop"}
    request = {"entrypoint": "sh headway-begin.sh", "metadata": {**told, **more.pop("metadata", {})}}
    name = f"headway-{run}-{attempt}"
    job = ray.jobs[name] = DoubleJob(name, request, {}, [], status=status, started=at, **more)
    return job


def made(place: Path, name: str, **facts: Any) -> RunFolder:
    run = RunFolder(place / name)
    run.path.mkdir(parents=True)
    run.write({"run": name, "created": 50.0, "total_steps": 100, **facts})
    return run


@pytest.fixture
def store(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "0")
    monkeypatch.setenv("HEADWAY_STORE_TIMEOUT_S", "2")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    s3.make_bucket("runs")
    return f"s3://runs/ls-{tmp_path.name}"


def begun(url: str, name: str = "far") -> Any:
    """A run in a store that nobody ended: its leader was killed, say."""
    run = runs.create(Place.of(url), name, parse(JOB))
    assert run._led.lease is not None  # type: ignore[attr-defined]
    return run


def test_each_is_known_from_where_it_can_be(tmp_path: Path, ray: RayJobsDouble) -> None:
    at = str(tmp_path)
    made(tmp_path, "done", state="finished", ended=60.0, goodput=0.9, recoveries=1)
    alive = made(tmp_path, "alive", created=51.0, state="running", started=55.0, submission=BY)
    listed(ray, "alive", "RUNNING", 54.0, metadata={"headway_runs": at})
    listed(ray, "new", "PENDING", 70.0, metadata={"headway_runs": at})
    listed(ray, "looks", "RUNNING", 71.0, metadata={"headway_runs": at})
    listed(ray, "refused", "FAILED", 72.0, ended=73.0, message="no room", metadata={"headway_runs": at})
    listed(ray, "removed", "SUCCEEDED", 74.0, ended=75.0, metadata={"headway_runs": at})
    listed(ray, "a-check", "RUNNING", 76.0, metadata={"headway_kind": "check", "headway_runs": at})
    ray.jobs["another's"] = DoubleJob("another's", {"entrypoint": "echo"}, {}, [], status="RUNNING")
    now.write(alive.path, Now(time.time(), 2, 0.95, 4.0, "", 56.0))
    (alive.path / "steps.jsonl").write_text('{"step": 39, "loss": 0.25}\n')
    with alive.led():
        found = jobs.ls(runs=at, address=ray.address)
    assert found.unread == ()
    assert [(row.run, row.state) for row in found.runs] == [
        ("done", "finished"),
        ("alive", "running"),
        ("new", "starting"),
        ("looks", "starting"),
        ("refused", "failed"),
    ]
    done, running, new, looks, refused = found.runs
    assert (done.since, done.goodput, done.recoveries, done.step, done.ray) == (60.0, 0.9, 1, 0, "")
    assert (running.step, running.total_steps, running.workers, running.goodput) == (40, 100, 2, 0.95)
    assert (running.since, running.left_s, running.by, running.submission) == (
        56.0,
        15.0,
        "anna@laptop",
        "headway-alive-1",
    )
    assert (new.waits, new.since) == ("Ray has not begun it yet", 70.0)
    assert looks.waits == "its driver looks at the job there; it has no run yet"
    assert refused.message == "no run is there; Ray says: FAILED: no room"
    assert [row.path for row in found.runs] == [f"{tmp_path}/{row.run}" for row in found.runs]


def test_a_cluster_that_is_not_there_takes_nothing_away(tmp_path: Path) -> None:
    made(tmp_path, "done", state="finished", ended=60.0)
    found = jobs.ls(runs=tmp_path, address=AWAY)
    assert [row.run for row in found.runs] == ["done"]
    (unread,) = found.unread
    assert unread.what == AWAY
    assert "refused" in str(unread)
    assert jobs.ls(runs=tmp_path).unread == (), "nobody asked for one"


def test_a_token_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "done", state="finished", ended=60.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    with RayJobsDouble(token="word") as ray:
        listed(ray, "new", "PENDING")
        (unread,) = jobs.ls(runs=tmp_path, address=ray.address).unread
        assert "token" in str(unread)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "word")
        found = jobs.ls(runs=tmp_path, address=ray.address)
    assert found.unread == ()
    assert "new" in [row.run for row in found.runs]


def test_a_cluster_is_named_by_the_environment_too(
    tmp_path: Path, ray: RayJobsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(ray, "new", "PENDING")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert jobs.ls(runs=tmp_path).runs == ()
    monkeypatch.setenv("RAY_ADDRESS", ray.address)
    assert [row.run for row in jobs.ls(runs=tmp_path).runs] == ["new"]
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", AWAY)
    assert jobs.ls(runs=tmp_path).unread[0].what == AWAY


def test_nobody_answers(store: str, s3: S3) -> None:
    s3.faults = Faults(reset=1.0)
    with pytest.raises(BadInput, match="nothing could be asked") as none:
        jobs.ls(runs=store, address=AWAY)
    assert AWAY in none.value.reason
    assert store in none.value.reason
    assert none.value.remedy.startswith("That says nothing of the runs.")
    with pytest.raises(BadInput, match="nothing could be asked"):
        jobs.status("far", runs=store, address=AWAY)


def test_a_store_that_is_not_there_takes_nothing_away(store: str, s3: S3, ray: RayJobsDouble) -> None:
    begun(store)
    listed(ray, "far", "RUNNING", metadata={"headway_runs": store})
    s3.faults = Faults(reset=1.0)
    found = jobs.ls(runs=store, address=ray.address)
    (row,) = found.runs
    assert (row.run, row.state, row.step, row.path) == ("far", "running", None, f"{store}/far")
    assert row.waits.startswith("its place cannot be read from here: ")
    assert [each.what for each in found.unread] == [store]
    alone = jobs.status("far", runs=store, address=ray.address).row
    assert alone.waits.startswith("its place cannot be read from here: ")
    assert replace(alone, waits=row.waits) == row, "but for the seconds that it took to find out"


def test_what_is_submitted_is_looked_up_where_it_is_kept(
    store: str, s3: S3, tmp_path: Path, ray: RayJobsDouble
) -> None:
    """Whoever only says the cluster sees how far its runs are, wherever they are."""
    with begun(store).led():
        pass
    listed(ray, "far", "RUNNING", time.time() - 5, metadata={"headway_runs": store})
    listed(ray, "nodes", "RUNNING", 101.0)
    listed(ray, "disk", "RUNNING", 102.0, metadata={"headway_runs": "/on/the/cluster"})
    listed(ray, "gone", "SUCCEEDED", 103.0, ended=104.0, metadata={"headway_runs": store})
    found = jobs.ls(runs=tmp_path / "none", address=ray.address)
    by = {row.run: row for row in found.runs}
    assert set(by) == {"far", "nodes", "disk"}
    assert (by["far"].step, by["far"].total_steps, by["far"].path) == (0, None, f"{store}/far")
    assert by["nodes"].waits == "its place cannot be read from here: the cluster's machines say where it is"
    assert by["disk"].waits == "its place cannot be read from here: a folder that is not on this machine"
    assert found.unread == (Unread("/on/the/cluster", "a folder that is not on this machine"),)


def test_two_runs_of_one_name_in_two_places_are_two(tmp_path: Path, ray: RayJobsDouble) -> None:
    for folder in ("a", "b"):
        made(tmp_path / folder, "r", state="finished", ended=60.0, submission={"id": f"headway-r-{folder}"})
        listed(ray, "r", "SUCCEEDED", ended=59.0, attempt=folder, metadata={"headway_runs": str(tmp_path / folder)})
    found = jobs.ls(runs=tmp_path / "a", address=ray.address)
    assert sorted((row.path, row.submission) for row in found.runs) == [
        (f"{tmp_path}/a/r", "headway-r-a"),
        (f"{tmp_path}/b/r", "headway-r-b"),
    ]


def test_a_listing_of_a_store_is_one_listing_and_a_read_of_each(store: str, s3: S3) -> None:
    for number in range(5):
        with begun(store, f"r{number}").led():
            pass
    s3.faults = Faults()
    assert len(jobs.ls(runs=store).runs) == 5
    assert s3.counts["GET"] == 1 + 5
    assert s3.counts["PUT"] == s3.counts["POST"] == 0


# -- unheard of, and dead ---------------------------------------------------------------------------------------------


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    at = time.time() + seconds
    monkeypatch.setattr(far.time, "time", lambda: at)


def test_unheard_of_is_not_dead(store: str, ray: RayJobsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(store)
    run.write({**run.read(), "submission": {"id": "headway-far-1", "by": "anna@laptop"}})
    with run.led():
        pass
    lease = run.leading().claim()  # led again, and killed
    heard = lease.head.at
    later(monkeypatch, 2 * LIVES_S)
    (row,) = jobs.ls(runs=store).runs
    assert (row.state, row.waits) == ("running", "not heard of; no cluster was asked (--address)")
    assert row.unheard_since == row.since == row.heard == pytest.approx(heard)
    assert (row.workers, row.left_s) == (None, None)
    (row,) = jobs.ls(runs=store, address=AWAY).runs
    assert row.waits == "not heard of; Ray could not be asked"
    (row,) = jobs.ls(runs=store, address=ray.address).runs
    assert row.waits == "not heard of; Ray knows no job of it", "its head may have been replaced"
    listed(ray, "far", "RUNNING", metadata={"headway_runs": store})
    assert jobs.status("far", runs=store, address=ray.address).row.waits == "not heard of; Ray says RUNNING"
    assert run.remote.head().epoch == lease.epoch, "nobody has taken the lead from it"
    assert run.remote.head().brief["state"] == "running"


def test_a_driver_that_ray_saw_end_is_found_dead_and_closed(
    store: str, ray: RayJobsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(store)
    run.write({**run.read(), "submission": {"id": "headway-far-1", "by": "anna@laptop"}})
    with run.led():
        pass
    lease = run.leading().claim()  # led again, and killed
    del lease
    job = listed(ray, "far", "FAILED", ended=time.time(), message="the node is gone", metadata={"headway_runs": store})
    (row,) = jobs.ls(runs=store, address=ray.address).runs
    assert row.state == "running"
    assert row.waits == "Ray says that its driver has ended (FAILED: the node is gone); not closed yet"
    later(monkeypatch, 2 * LIVES_S)
    (row,) = jobs.ls(runs=store, address=ray.address).runs
    assert (row.state, row.since) == ("interrupted", pytest.approx(job.ended, abs=0.01))
    assert row.message.startswith("its driver has ended without a word, Ray says (FAILED: the node is gone)")
    monkeypatch.setattr("headway.jobs.look.closeup.close", lambda run, say: closed.append(run.name))
    closed: list[str] = []
    jobs.status("far", runs=store, address=ray.address)
    assert closed == ["far"]
    jobs.status("far", runs=store)
    assert closed == ["far"], "that alone is not known for sure"
    later(monkeypatch, ALONE_S + GIVEN_UP_S + 60)
    jobs.status("far", runs=store)
    assert closed == ["far", "far"]
    with pytest.MonkeyPatch.context() as patch:  # (the job says for how long its leader may be without its store)
        brief = runs.glance(Place.of(store), "far")
        assert brief is not None
        patch.setattr("headway.runs.glance", lambda *_: replace(brief, alone_s=math.inf))
        jobs.status("far", runs=store)
    assert closed == ["far", "far"]


def test_a_list_closes_a_run_whose_leader_is_gone(tmp_path: Path) -> None:
    run = made(tmp_path, "r", state="running")
    epochs.claim(run.path)
    (row,) = jobs.ls(runs=tmp_path).runs
    assert (row.state, row.message) == ("interrupted", "the process that led the run is gone")
    assert run.read()["state"] == "interrupted"
    assert [event["kind"] for event in run.events()] == ["end"]


def test_status_closes_a_run_whose_leader_is_gone(tmp_path: Path) -> None:
    run = made(tmp_path, "r", state="running")
    epochs.claim(run.path)
    found = jobs.status("r", runs=tmp_path)
    assert found.row.state == "interrupted"
    assert found.row.message == f"the process that led the run is gone ({found.leader})" or "gone" in found.row.message
    assert run.read()["state"] == "interrupted"
    assert [event["kind"] for event in run.events()] == ["end"]


def test_a_run_that_is_only_read_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "r", state="running")

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("headway.jobs.look.closeup.close", refused)
    assert jobs.status("r", runs=tmp_path).row.state == "interrupted"


# -- one run ----------------------------------------------------------------------------------------------------------


def test_status_tells_all_that_is_known(tmp_path: Path, ray: RayJobsDouble) -> None:
    run = made(tmp_path, "r", state="running", started=55.0, checkpoint={"step": 30, "time": 58.0})
    run.write({**run.read(), "submission": {"id": "headway-r-2", "by": "anna@laptop"}})
    (run.path / "steps.jsonl").write_text('{"step": 39, "loss": 0.25}\n')
    (run.path / "metrics.jsonl").write_text('{"step": 30, "values": {"accuracy": 0.5}}\n')
    now.write(run.path, Now(time.time(), 2, 0.95, 4.0, "", 56.0, "disk full", ((57.0, "lost w1: so"),)))
    listed(ray, "r", "FAILED", 40.0, ended=45.0, message="so", metadata={"headway_runs": str(tmp_path)})
    listed(ray, "r", "RUNNING", 54.0, attempt="2", metadata={"headway_runs": str(tmp_path), "headway_kind": "resume"})
    with run.led():
        found = jobs.status("r", runs=tmp_path, address=ray.address)
        by_folder = jobs.status(str(run.path), address=ray.address)
    assert by_folder == found
    assert (found.loss, found.metrics, found.trouble) == (0.25, {"accuracy": 0.5}, "disk full")
    assert (found.checkpoint, found.checkpoint_at, found.lately) == (30, 58.0, ((57.0, "lost w1: so"),))
    assert found.leader.startswith(f"process {os.getpid()} on ")
    assert [(each["id"], each["status"]) for each in found.submissions] == [
        ("headway-r-1", "FAILED"),
        ("headway-r-2", "RUNNING"),
    ]
    assert (found.row.submission, found.row.ray) == ("headway-r-2", "RUNNING")


def test_status_of_a_store_costs_little(store: str, s3: S3) -> None:
    with begun(store).led():
        pass
    runs.find(Place.of(store), "far").write({"run": "far", "state": "finished"})
    with runs.find(Place.of(store), "far").led():
        runs.find(Place.of(store), "far").path.joinpath("run.json").write_text('{"run": "far", "state": "finished"}')
    s3.faults = Faults()
    assert jobs.status(f"{store}/far").row.state == "finished"
    assert s3.counts["GET"] <= 3
    assert s3.counts["PUT"] == 0


def test_a_run_that_is_nowhere(tmp_path: Path, ray: RayJobsDouble) -> None:
    made(tmp_path, "digits", state="finished")
    with pytest.raises(BadInput, match="no run 'digit' in") as none:
        jobs.status("digit", runs=tmp_path, address=ray.address)
    assert none.value.remedy == "Did you mean 'digits'?"
    assert ray.address in none.value.fact


# -- the commands -----------------------------------------------------------------------------------------------------


def test_ls_as_a_table_and_as_json(run: Run, tmp_path: Path) -> None:
    code, out, err = run("ls")
    assert (code, out, err) == (0, "No runs. Start one with `headway train JOB` or `headway submit JOB`.\n", "")
    made(
        tmp_path / "runs", "digits-20260102-030405", state="failed", message="so [sic]", ended=time.time(), recoveries=2
    )
    (tmp_path / "runs" / "digits-20260102-030405" / "steps.jsonl").write_text('{"step": 39, "loss": 0.25}\n')
    code, out, err = run("ls", "--address", AWAY)
    heads, line = out.splitlines()
    assert heads.split() == " ".join(COLUMNS).split()
    assert line.split()[:7] == ["digits-20260102-030405", "failed", "so", "[sic]", "40", "of", "100"]
    assert AWAY in err
    assert code == 0
    code, out, err = run("ls", "--json")
    told = json.loads(out)
    assert told["runs"][0]["run"] == "digits-20260102-030405"
    assert (told["runs"][0]["step"], told["unread"]) == (40, [])


def test_status_as_lines_and_as_json(run: Run, tmp_path: Path) -> None:
    made(tmp_path / "runs", "r", state="failed", cause="platform", message="so", ended=time.time())
    code, out, err = run("status", "r")
    assert (code, err) == (0, "")
    assert "state  failed since" in out
    assert "(the platform's fault): so" in out
    told = json.loads(run("status", "r", "--json")[1])
    assert (told["run"], told["state"], told["cause"]) == ("r", "failed", "platform")
    code, out, err = run("status", "q")
    assert code == 2
    assert err.startswith("headway: no run 'q' in runs")


def test_nothing_heavy_is_imported() -> None:
    look = (
        "import sys, headway.jobs as jobs, headway.cli.ls, headway.cli.events; jobs.ls, jobs.status, jobs.events;"
        "jobs.ls(runs='nowhere');"
        "print([name for name in ('ray', 'torch', 'mlflow', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_names_are_functions_whatever_was_imported() -> None:
    import_module("headway.jobs.look.history")
    import_module("headway.jobs.look.listing")
    for name in jobs.__all__:
        assert callable(getattr(jobs, name)), "a module of that name has taken its place"
    with pytest.raises(AttributeError):
        jobs.nonsense  # noqa: B018


def test_what_a_cluster_lists_is_found_by_its_name_alone(store: str, tmp_path: Path, ray: RayJobsDouble) -> None:
    """Whoever only says the cluster sees a run with `ls`, and then finds it with `status` too, wherever it is kept."""
    run = begun(store)
    listed(ray, "far", "RUNNING", metadata={"headway_runs": store})
    listed(ray, "disk", "RUNNING", 101.0, metadata={"headway_runs": "/on/the/cluster"})
    found = jobs.status("far", runs=tmp_path, address=ray.address)
    assert (found.row.path, found.row.state, found.row.step) == (f"{store}/far", "running", 0)
    assert found.leader == str(run.remote.head().owner)
    disk = jobs.status("disk", runs=tmp_path, address=ray.address)
    assert (disk.row.path, disk.row.state, disk.row.step) == ("/on/the/cluster/disk", "running", None)
    assert disk.unread == (Unread("/on/the/cluster", "a folder that is not on this machine"),)
    listed(ray, "odd", "RUNNING", 102.0, metadata={"headway_runs": "s3:/bucket/runs"})
    odd = jobs.status("odd", runs=tmp_path, address=ray.address)
    assert (odd.row.state, odd.unread) == ("running", (Unread("s3:/bucket/runs", "it is a URL with a slash too few"),))
    mine = made(tmp_path, "far", state="finished", ended=60.0)
    assert jobs.status("far", runs=tmp_path, address=ray.address).row.path == str(mine.path), "the place's own first"


def test_rays_words_are_a_line(tmp_path: Path, ray: RayJobsDouble) -> None:
    """Ray adds the end of a job's log to what it says of its end, with what its driver tells us in it."""
    log = "".join(f'::headway:: {{"told": "note", "text": "{number}"}}\n' for number in range(500))
    said = f"Job entrypoint command failed with exit code 3, last available logs (truncated to 20,000 chars):\n{log}"
    listed(ray, "r", "FAILED", ended=120.0, message=said, metadata={"headway_runs": str(tmp_path)})
    listed(ray, "s", "FAILED", ended=121.0, message="x" * 5000, metadata={"headway_runs": str(tmp_path)})
    first, second = jobs.ls(runs=tmp_path, address=ray.address).runs
    assert first.message == "no run is there; Ray says: FAILED: Job entrypoint command failed with exit code 3"
    assert len(second.message) < 400
    found = jobs.status("r", runs=tmp_path, address=ray.address)
    assert found.submissions[0]["message"] == "Job entrypoint command failed with exit code 3"
    events = list(jobs.events("r", runs=tmp_path, address=ray.address))
    assert (
        events[-1].text == "Ray says that headway-r-1 has ended: FAILED: Job entrypoint command failed with exit code 3"
    )


def test_only_who_leads_a_run_says_how_it_stands(tmp_path: Path, ray: RayJobsDouble) -> None:
    """Somebody's `resume` that was refused, and the job of an earlier start, say nothing of a run that lives."""
    at = {"headway_runs": str(tmp_path)}
    submission = {"id": "headway-r-2", "by": "anna@laptop"}
    run = made(tmp_path, "r", state="running", started=55.0, submission=submission)
    now.write(run.path, Now(time.time(), 2, 0.95, 4.0, "", 56.0))
    listed(ray, "r", "FAILED", 40.0, ended=90.0, metadata=at)
    listed(ray, "r", "RUNNING", 54.0, attempt="2", metadata=at)
    listed(ray, "r", "FAILED", 95.0, ended=99.0, attempt="3", metadata={**at, "headway_by": "bob@desk"})
    with run.led():
        (row,) = jobs.ls(runs=tmp_path, address=ray.address).runs
        assert (row.state, row.waits, row.by, row.submission, row.ray) == (
            "running",
            "",
            "anna@laptop",
            "headway-r-2",
            "RUNNING",
        )
        run.write({**run.read(), "submission": None})  # moved away, and led by `headway resume` now
        (row,) = jobs.ls(runs=tmp_path, address=ray.address).runs
        assert (row.state, row.waits, row.by, row.ray) == ("running", "", "", "")
        assert len(jobs.status("r", runs=tmp_path, address=ray.address).submissions) == 3
    run.write({**run.read(), "state": "stopped", "ended": 50.0, "submission": submission})
    (row,) = jobs.ls(runs=tmp_path, address=ray.address).runs
    assert (row.state, row.waits) == ("starting", "it was stopped, and is to go on")


@pytest.mark.parametrize(
    ("said", "alone_s"), [({}, ALONE_S), ({"fail_after": 7200}, 7200.0), ({"fail_after": None}, math.inf)]
)
def test_how_long_a_leader_may_be_alone_is_known(said: dict[str, Any], alone_s: float, tmp_path: Path) -> None:
    assert of_folder(made(tmp_path, "r", state="finished", **said)).alone_s == alone_s


def test_where_nothing_could_be_asked_it_is_not_said_that_there_is_nothing(run: Run) -> None:
    code, out, err = run("ls", "--address", AWAY)
    assert (code, out) == (0, "No runs in runs.\n")
    assert AWAY in err


def test_who_waits_hears_soon_that_a_store_is_away(store: str, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(store)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "8")
    s3.faults = Faults(reset=1.0)
    begin = time.monotonic()
    for look in (jobs.ls, lambda runs: jobs.status("far", runs=runs), lambda runs: list(jobs.events("far", runs=runs))):
        with pytest.raises(HeadwayError):
            look(runs=store)
    assert time.monotonic() - begin < 20.0
    assert max(s3.counts.values()) <= 3 * 2 * 3, "it is tried again twice"
