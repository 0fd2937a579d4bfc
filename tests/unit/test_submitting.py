"""Submitting: what travels, that it travels exactly once, and what whoever submits hears."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.waiting import until
from torch.utils.data import TensorDataset

import headway
from headway import config, runs
from headway.carried import code
from headway.data.own.opening import opened
from headway.errors import BadInput, HeadwayError
from headway.job import parse
from headway.jobs import entry, told
from headway.jobs.api.client import NotARay, RayJobs, Unreachable
from headway.jobs.send import beginning, install, naming, parcel, sending, submitting
from headway.jobs.send.beginning import Left, Submitted
from headway.jobs.send.sending import Lost
from headway.jobs.spec import FILE, to_json
from headway.notation.plain import read, write
from headway.runs.folder import RunFolder, write_job
from headway.runs.listing import Brief
from headway.testing.rayjobs import MONITOR_S, DoubleJob, RayJobsDouble

TASK = "import helper\nfrom headway import Task\n\nclass Digits(Task):\n    pass\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sending, "LOOK_S", 0.01)
    monkeypatch.setattr(sending, "SLOW_LOOK_S", 0.02)
    monkeypatch.setattr(sending, "SETTLE_S", MONITOR_S + 0.05)
    monkeypatch.setattr(runs, "glance", lambda *_: None)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "digits.py").write_text(TASK)
    (folder / "helper.py").write_text("A = 1\n")
    (folder / "labels.txt").write_text("one\n")
    return {"name": "digits", "task": f"{folder}/digits.py:Digits", "data": {"train": "s3://bucket/train"}, "epochs": 1}


def begins(job: DoubleJob) -> None:
    """A driver whose run begins, and goes on until it is stopped."""
    job.print("of Ray")
    job.tell("plan", run=job.spec.run, workers={"min": 1, "max": 2, "now": 1, "most": 2})
    job.tell("note", text="all is well")
    job.tell("began", run=job.spec.run, where=f"s3://bucket/runs/{job.spec.run}", epoch=1, resumed_from=None)
    job.stop_asked.wait(30)


def finishes(job: DoubleJob) -> None:
    job.tell("began", run=job.spec.run, where="there", epoch=1, resumed_from=None)
    job.tell("ended", state="finished", message="", exit_code=0)


def refuses(job: DoubleJob) -> None:
    job.print("ModuleNotFoundError: no torch")
    job.tell("refused", fact="the task", reason="it raises", remedy="Mend it.", traceback="Traceback: x", exit_code=2)
    job.end(2)


def checks(job: DoubleJob) -> None:
    job.tell("plan", run=job.spec.run, steps=10)
    job.tell("ended", state="checked", message="", exit_code=0)


@pytest.fixture
def on(request: pytest.FixtureRequest) -> Iterator[Callable[..., RayJobsDouble]]:
    """A double with such drivers."""
    opened: list[RayJobsDouble] = []

    def begin(script: Any, **options: Any) -> RayJobsDouble:
        opened.append(RayJobsDouble(script, **options))
        return opened[-1].__enter__()

    yield begin
    for each in opened:
        each.__exit__(None, None, None)


On = Callable[..., RayJobsDouble]


def submit(ray: RayJobsDouble, job: dict[str, Any], **options: Any) -> Submitted:
    return submitting.submit(job, **{"address": ray.address, "name": "one", "runs": "s3://bucket/runs", **options})


def test_a_job_begins(on: On, job: dict[str, Any]) -> None:
    ray, said, plans = on(begins), list[str](), list[Any]()
    done = submit(ray, job, say=said.append, plan=plans.append)
    assert (done.state, done.where, done.exit_code) == ("running", "s3://bucket/runs/one", 0)
    assert done.plan == plans[0]
    assert done.plan["workers"]["most"] == 2
    assert said == ["all is well"]
    (taken,) = ray.jobs.values()
    assert taken.id == done.submission == f"headway-one-{taken.spec.attempt}"
    assert taken.request["entrypoint"] == entry.line()
    assert not [name for name in taken.request if name.startswith("entrypoint_")], "a PENDING job cannot be stopped"
    assert taken.request["metadata"]["headway_runs"] == "s3://bucket/runs"
    stop_s = float(taken.request["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])
    assert stop_s >= 60, "Ray's own 3 s are no time for a checkpoint"


def test_how_stores_are_spoken_to_travels(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", "http://minio:9000")
    ray = on(begins)
    submit(ray, job)
    (taken,) = ray.jobs.values()
    assert taken.spec.store == {"endpoint": "http://minio:9000"}


def test_a_file_with_a_secret_of_the_jobs_stays(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "a-word-that-nobody-knows")
    settings = Path(job["task"]).parent / "settings.yaml"
    settings.write_text("token: a-word-that-nobody-knows\n")
    ray, said = on(begins), list[str]()
    submit(ray, {**job, "env": ["SERVICE_TOKEN"]}, say=said.append)
    assert [line for line in said if "settings.yaml stays here" in line]
    assert not [content for content in ray.packages.values() if b"settings.yaml" in content]


def test_what_travels(on: On, job: dict[str, Any]) -> None:
    ray = on(begins)
    job["arguments"] = {"since": date(2026, 1, 2), "by": {3: "three"}}
    submit(ray, job)
    (taken,) = ray.jobs.values()
    assert sorted(taken.working_dir) == [
        *("code/digits.py", "code/helper.py", "code/labels.txt"),
        *sorted((entry.FILE, FILE)),
    ]
    spec = taken.spec
    assert (spec.kind, spec.run, spec.runs) == ("train", "one", "s3://bucket/runs")
    tree = read(str(spec.job))
    assert tree["arguments"] == job["arguments"]
    (package,) = taken.modules
    assert "headway/jobs/there/main.py" in package or "headway/__init__.py" in package
    assert not [name for name in package if "__pycache__" in name or not name.startswith("headway/")]


@pytest.mark.parametrize("task", ["digits.py:Digits", "way/to/digits.py:Digits", "package.part.digits:Digits"])
def test_what_travels_can_be_loaded_there(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str
) -> None:
    """Code of a file with its neighbours, of one with a module from elsewhere on the import path, of a package."""
    here, there = tmp_path / "here", tmp_path / "there"
    where, _, _ = task.rpartition(":")
    file = here / (where if where.endswith(".py") else f"{where.replace('.', '/')}.py")
    file.parent.mkdir(parents=True)
    relative = "." if "package" in task else ""
    file.write_text(f"from {relative}helper import A\nimport shared_words\n{TASK.replace('import helper', '')}")
    (file.parent / "helper.py").write_text("A = 1\n")
    if relative:
        (here / "package" / "__init__.py").touch()
        (here / "package" / "part" / "__init__.py").touch()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "shared_words.py").write_text("B = 2\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.chdir(here)
    ray = on(begins)
    submit(ray, {**job, "task": task})
    (taken,) = ray.jobs.values()
    for name, content in taken.working_dir.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(content)
    program = (
        "import sys\nfrom headway.carried import code\n"
        f"found = code.load(code.kept({read(str(taken.spec.job))['task']!r}, code.Path({str(there / 'code')!r})))\n"
        "print(found.__name__, sys.modules['shared_words'].__file__)"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(headway.__file__).parent.parent)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd="/", capture_output=True, text=True, check=False
    )
    assert found.stdout.split()[:1] == ["Digits"], found.stderr
    assert str(there) in found.stdout


def test_datasets_travel_as_they_are(
    on: On, job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And give the same rows where the code came to; those of Ray Data are refused by name."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    ray = on(begins)
    submit(ray, job, data={"train": TensorDataset(torch.arange(6.0))})
    (taken,) = ray.jobs.values()
    for name, content in taken.working_dir.items():
        path = tmp_path / "there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    shutil.rmtree(tmp_path / "cache")
    sent = parse(read(str(taken.spec.job)))
    source = code.delivered(sent.task, tmp_path / "there" / "code")
    rows = opened(sent, source)["train"]
    assert len(rows) == 6  # type: ignore[arg-type]
    kind = type("Dataset", (), {"__module__": "ray.data.dataset", "iter_batches": None})
    with pytest.raises(BadInput, match=r"data\.train is a Ray Dataset: a submission brings"):
        submit(ray, job, data={"train": kind()})


def test_names_that_nobody_gave_are_not_alike(on: On, job: dict[str, Any]) -> None:
    ray = on(begins)
    assert len({submit(ray, job, name=None).run for _ in range(3)}) == 3


def test_the_same_files_are_the_same_bytes_and_are_sent_once(on: On, job: dict[str, Any], tmp_path: Path) -> None:
    ray = on(begins)
    submit(ray, job)
    before = set(ray.packages)
    submit(ray, job, name="two")
    assert len(set(ray.packages) - before) == 1, "the submission, and not the package"
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "a").chmod(0o755)
    one = parcel.packed({"x/b": tmp_path / "b", "x/a": tmp_path / "a"})
    (tmp_path / "b").touch()
    two = parcel.packed({"x/a": tmp_path / "a", "x/b": b"1"})
    assert (one.content, one.uri) == (two.content, two.uri)
    with zipfile.ZipFile(io.BytesIO(one.content)) as archive:
        assert [(each.filename, each.external_attr >> 16 & 0o777) for each in archive.infolist()] == [
            ("x/a", 0o755),
            ("x/b", 0o644),
        ]
    assert parcel.packed({"x/a": b"2", "x/b": b"1"}).uri != one.uri


def test_a_driver_that_refuses_is_an_error_here_and_leaves_nothing(on: On, job: dict[str, Any]) -> None:
    ray = on(refuses)
    with pytest.raises(BadInput, match=r"the task: it raises\. Mend it\.") as caught:
        submit(ray, job)
    assert caught.value.traceback == "Traceback: x"
    assert ray.jobs == {}


def test_a_dry_run_leaves_nothing(on: On, job: dict[str, Any]) -> None:
    ray = on(checks)
    done = submit(ray, job, dry_run=True)
    assert (done.state, done.exit_code, done.plan["steps"]) == ("checked", 0, 10)
    assert ray.jobs == {}
    assert ray.taken != []


def test_waiting_gives_the_runs_end(on: On, job: dict[str, Any]) -> None:
    def fails(job: DoubleJob) -> None:
        job.tell("began", run="one", where="there", epoch=1, resumed_from=None)
        job.tell("ended", state="failed", message="it raised", exit_code=1)

    assert submit(on(finishes), job, wait=True).state == "finished"
    done = submit(on(fails), job, wait=True)
    assert (done.state, done.message, done.exit_code) == ("failed", "it raised", 1)


@pytest.mark.parametrize("seed", range(12))
def test_exactly_one_job_whatever_the_network_does(on: On, job: dict[str, Any], seed: int) -> None:
    """Random faults of every request, and of some twice: one job is taken, and whoever submits hears of it."""
    ray, draw = on(begins), random.Random(seed)
    for method, path in (("POST", "/api/jobs/"), ("GET", "/api/jobs/"), ("GET", "/api/packages"), ("PUT", "/api/pack")):
        for _ in range(draw.randint(0, 2)):
            ray.fail(method, path, draw.choice(["refused", "lost", "cut", "500", "503"]))
    assert submit(ray, job).state == "running", f"seed {seed}"
    assert len(ray.taken) == 1, f"seed {seed}"


def test_an_answer_that_is_lost_is_asked_for(on: On, job: dict[str, Any]) -> None:
    ray = on(begins)
    ray.fail("POST", "/api/jobs/", "lost")
    assert submit(ray, job).state == "running"
    assert len(ray.taken) == 1
    assert ray.asked.count(("POST", "/api/jobs/")) == 1


def test_a_head_that_is_replaced_before_the_run_began_is_asked_again(on: On, job: dict[str, Any]) -> None:
    came = threading.Event()

    def slowly(job: DoubleJob) -> None:
        came.set()
        if len(ray.taken) > 1:
            begins(job)
        job.stop_asked.wait(30)

    ray, said = on(slowly), list[str]()

    def replace() -> None:
        came.wait(30)
        ray.replace_head()

    thread = threading.Thread(target=replace)
    thread.start()
    assert submit(ray, job, say=said.append).state == "running"
    thread.join()
    assert len(ray.taken) == 2
    assert ray.taken[0] == ray.taken[1], "under the same name, by which the driver knows its run"
    assert [line for line in said if "head was replaced" in line]


def test_a_network_that_is_gone_for_a_while_is_told_and_borne(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    came, heard = threading.Event(), threading.Event()

    def waits(job: DoubleJob) -> None:
        came.set()
        heard.wait(30)
        begins(job)

    ray, said = on(waits), list[str]()

    def say(line: str) -> None:
        said.append(line)
        if "could not be asked" in line:
            ray.is_down = False
            heard.set()

    def cut() -> None:
        came.wait(30)
        ray.is_down = True

    monkeypatch.setattr(RayJobs, "at", lambda address, **_: RayJobs(address, patience_s=0.05))
    thread = threading.Thread(target=cut)
    thread.start()
    assert submit(ray, job, say=say).state == "running"
    thread.join()
    assert [line for line in said if "answers again" in line]


@pytest.mark.parametrize("how", ["html", "401", "302", "404"])
def test_what_stands_before_a_cluster_does_not_end_what_was_submitted(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """A page to sign in at, a token that was renewed, a head that is half up: they say nothing of a job that was asked
    for."""
    ray = on(begins)
    ray.fail("POST", "/api/jobs/", "lost")
    ray.fail("GET", "/api/jobs/headway-one", how, times=3)
    assert submit(ray, job).state == "running"
    assert len(ray.taken) == 1
    ray.fail("GET", "/api/jobs/headway-two", how, times=999)
    monkeypatch.setattr(beginning, "ANSWER_S", 0.1)
    with pytest.raises(Lost) as caught:
        submit(ray, job, name="two")
    assert caught.value.exit_code == 3, "not 2: it is there"
    ray.fail("POST", "/api/jobs/", "html")
    assert submit(ray, job, name="three").state == "running", "asked again"


def test_who_waits_for_a_run_that_is_led_elsewhere(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This very submission was sent twice, and the first one leads the run."""

    def second(job: DoubleJob) -> None:
        job.tell("began", run="one", where="there", epoch=1, resumed_from=None, elsewhere=True)

    seen = [*3 * [brief("running")], brief("stopped", message="enough")]
    monkeypatch.setattr(runs, "glance", lambda *_: None if not begun else seen.pop(0) if len(seen) > 1 else seen[0])
    begun = list[Any]()
    ray = on(lambda job: (begun.append(1), second(job)))
    done = submit(ray, job, wait=True)
    assert (done.state, done.message, done.exit_code, done.elsewhere) == ("stopped", "enough", 4, True)


def test_a_submission_whose_fate_is_not_known_says_so(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = on(begins)
    spec = submitting._spec("train", "one", None)
    packed = sending.Packed(parcel.packed({FILE: b"{}"}), ())
    api = RayJobs(ray.address, patience_s=0.05)
    ray.fail("POST", "/api/jobs/", "lost", times=99)
    ray.fail("GET", "/api/jobs/headway-one", "refused", times=99)
    with pytest.raises(Lost, match=r"not known whether.*there is one run of a name"):
        sending.send(api, spec, packed, within_s=0.2)
    ray.is_down = True
    with pytest.raises(Unreachable):
        sending.send(api, spec, packed, within_s=0.2)


def test_a_name_that_is_on_the_cluster_is_refused_and_shown(on: On, job: dict[str, Any]) -> None:
    ray = on(begins)
    submit(ray, job)
    with pytest.raises(BadInput, match=r"one is on .* already: .*@.* at .*headway status one --address http.*--runs"):
        submit(ray, job)
    assert len(ray.taken) == 1
    submit(ray, job, runs="s3://elsewhere/runs")  # another run
    assert len(ray.taken) == 2


def test_a_job_that_ends_without_a_word(on: On, job: dict[str, Any]) -> None:
    def silent(job: DoubleJob) -> None:
        job.print("cannot allocate memory")
        job.end(137)

    ray = on(silent)
    with pytest.raises(HeadwayError, match=r"exit code 137.*cannot allocate memory") as caught:
        submit(ray, job)
    assert caught.value.exit_code == 3
    assert ray.jobs == {}


def test_resuming_by_name_or_url(on: On) -> None:
    def goes_on(job: DoubleJob) -> None:
        job.tell("began", run=job.spec.run, where="there", epoch=2, resumed_from=40)
        job.stop_asked.wait(30)

    ray = on(goes_on)
    done = submitting.resume("s3://bucket/runs/one", address=ray.address, settings=["epochs=3"], allow=["device"])
    (taken,) = ray.jobs.values()
    spec = taken.spec
    assert (spec.kind, spec.run, spec.runs) == ("resume", "one", "s3://bucket/runs")
    assert (spec.settings, spec.allow, spec.job) == (("epochs=3",), ("device",), None)
    assert done.resumed_from == 40


def test_where_runs_may_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert submitting.runs_of("s3://bucket/runs/") == "s3://bucket/runs"
    assert submitting.runs_of("/shared/runs") == "/shared/runs"
    assert submitting.runs_of("file:///shared/runs") == "/shared/runs"
    assert submitting.runs_of(None) is None, "as the cluster's machines say"
    for relative in ("runs", "./runs", Path("runs")):
        with pytest.raises(BadInput, match=r"runs cannot be kept in .*runs.*--runs.*s3://BUCKET"):
            submitting.runs_of(relative)
    monkeypatch.setenv("HEADWAY_RUNS", "gs://bucket/x")
    assert submitting.runs_of(None) == "gs://bucket/x"
    path = tmp_path / "config.yaml"
    path.write_text("runs: here\n")
    monkeypatch.delenv("HEADWAY_RUNS")
    monkeypatch.setenv("HEADWAY_CONFIG", str(path))
    assert config.load().runs == "here"
    with pytest.raises(BadInput, match="runs cannot be kept in here"):
        submitting.runs_of(None)


def test_nothing_is_asked_of_the_cluster_for_a_bad_job(on: On, job: dict[str, Any]) -> None:
    ray = on(begins)
    for change, words in (
        ({"task": "/nowhere/x.py:Y"}, "does not exist"),
        ({"lanes": 0}, "lanes"),
        ({"files": ["/nowhere/weights.bin"]}, "weights.bin"),
    ):
        with pytest.raises(BadInput, match=words):
            submit(ray, {**job, **change})
    with pytest.raises(BadInput, match="a run's name"):
        submit(ray, job, name="a/b")
    assert ray.asked == []


def test_code_that_is_too_large_is_refused(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = on(begins)
    monkeypatch.setattr(parcel, "LARGEST", 1000)
    (Path(job["task"]).parent / "labels.txt").write_bytes(random.Random(0).randbytes(3000))
    with pytest.raises(BadInput, match=r"too large.*labels\.txt.*files:"):
        submit(ray, job)
    assert ray.taken == []


def test_code_that_cannot_be_read_is_refused(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ray, real = on(begins), Path.open

    def denied(path: Path, *given: Any, **more: Any) -> Any:
        if path.name == "labels.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *given, **more)

    monkeypatch.setattr(Path, "open", denied)  # the tests may be root's, who may read all
    with pytest.raises(BadInput, match=r"labels\.txt cannot be read: Permission denied.*!NAME"):
        submit(ray, job)
    assert ray.taken == []


def test_a_literal_secret_is_refused_unless_it_is_to_be_sent(on: On, job: dict[str, Any]) -> None:
    ray, said = on(begins), list[str]()
    job["env"] = {"HF_TOKEN": "hf-secret-word"}
    with pytest.raises(BadInput, match=r"env\.HF_TOKEN holds a secret.*--send-secrets") as caught:
        submit(ray, job)
    assert "hf-secret-word" not in str(caught.value)
    assert ray.asked == []
    submit(ray, job, send_secrets=True, say=said.append)
    assert [line for line in said if "can read it" in line]
    (taken,) = ray.jobs.values()
    assert taken.spec.sent == {"env.HF_TOKEN": "hf-secret-word"}
    assert "hf-secret-word" not in json.dumps(taken.request)
    assert "hf-secret-word" not in str(taken.spec.job)


def test_ctrl_c_of_a_dry_run_ends_it(on: On, job: dict[str, Any]) -> None:
    def waits(job: DoubleJob) -> None:
        job.tell("note", text="now")
        job.stop_asked.wait(30)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    ray = on(waits)
    with pytest.raises(KeyboardInterrupt):
        submit(ray, job, dry_run=True, say=interrupt)
    until(lambda: ray.jobs == {})


def test_ctrl_c_leaves_what_was_submitted(on: On, job: dict[str, Any]) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    ray = on(begins)
    with pytest.raises(Left):
        submit(ray, job, plan=interrupt)
    (taken,) = ray.jobs.values()
    assert not taken.stop_asked.is_set()


@pytest.mark.parametrize("dry_run", [True, False])
def test_ctrl_c_before_anything_was_asked_for(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    ray = on(begins)
    monkeypatch.setattr(parcel, "deliver", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        submit(ray, job, dry_run=dry_run)
    assert not isinstance(caught.value, Left)
    assert ray.taken == []


def test_ctrl_c_while_ray_is_asked(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have the job."""
    real = RayJobs.submit

    def interrupted(*given: Any) -> None:
        real(*given)
        raise KeyboardInterrupt

    ray = on(begins)
    monkeypatch.setattr(RayJobs, "submit", interrupted)
    with pytest.raises(Left):
        submit(ray, job)
    assert len(ray.jobs) == 1
    with pytest.raises(KeyboardInterrupt):
        submit(ray, job, name="two", dry_run=True)
    assert [found.spec.run for found in ray.jobs.values()] == ["one"]


def test_checks_that_nobody_waited_for_are_swept(on: On, job: dict[str, Any]) -> None:
    ray = on(checks)
    api = RayJobs(ray.address)
    for run, age_s in (("old", 7200.0), ("new", 60.0)):
        spec = submitting._spec("check", run, None)
        sending.send(api, spec, sending.Packed(parcel.packed({FILE: to_json(spec).encode()}), ()))
        until(lambda spec=spec: ray.jobs[spec.submission].is_seen)
        ray.jobs[spec.submission].ended = time.time() - age_s
    ray.script = begins
    submit(ray, job)
    assert [found.spec.run for found in ray.jobs.values()] == ["new", "one"]


def test_a_driver_that_is_long_in_coming_is_told_of(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()

    def say(line: str) -> None:
        said.append(line)
        if "not started" in line:
            ray.jobs[ray.taken[0]].message = "its environment is made"
        if "environment" in line:
            ray.let(ray.taken[0])

    monkeypatch.setattr(sending, "SLOW_S", 0.1)
    ray = on(begins, pending=True)
    submit(ray, job, say=say)
    first, second, last = said
    assert (first, second) == (
        "one waits for Ray: Job has not started yet.",
        "one waits for Ray: its environment is made",
    )
    assert last == "all is well"


def test_what_a_run_prints_is_not_fetched_again_and_again(on: On, job: dict[str, Any]) -> None:
    def long(job: DoubleJob) -> None:
        began_and_heard(ray, job)
        asked = len(ray.asked)
        until(lambda: len(ray.asked) > asked + 20)
        logs.append(len([path for _, path in ray.asked[asked + 1 :] if path.endswith("/logs")]))
        job.tell("ended", state="finished", message="", exit_code=0)

    logs = list[int]()
    ray = on(long)
    assert submit(ray, job, wait=True).state == "finished"
    assert logs == [0]


def test_what_is_told_is_heard_once_however_the_log_is_cut(on: On) -> None:
    ray = on(begins)
    spec = submitting._spec("train", "one", None)
    follower = sending.Follower(RayJobs(ray.address), spec, submitting.quiet)
    whole = "a\n::headway:: " + json.dumps({"told": "note", "text": "1"}) + "\nb\n::headway:: {cut\nc"
    found: list[Any] = []
    for end in range(len(whole) + 1):
        found += follower._new(whole[:end], whole=False)
    assert found == [{"told": "note", "text": "1"}]
    assert follower._new(whole, whole=True) == []
    assert follower.tail == ["a", "b", "c"]


def brief(state: str, **more: Any) -> Brief:
    known = {"message": "", "steps": 0, "total_steps": 9, "loss": None, "metrics": {}, "created": 1.0, "last": 2.0}
    return Brief(run="one", path="s3://bucket/runs/one", state=state, **{**known, **more})


def test_a_name_that_the_store_has_is_refused_and_shown(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = on(begins)
    monkeypatch.setattr(runs, "glance", lambda *_: brief("interrupted", steps=1040))
    with pytest.raises(BadInput, match=r"s3://bucket/runs/one is taken.*interrupted at step 1,040.*go on with it"):
        submit(ray, job)
    with pytest.raises(BadInput, match="is taken"):
        submit(ray, job, dry_run=True)
    assert ray.taken == []


def test_a_store_that_cannot_be_seen_from_here_hinders_nobody(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    monkeypatch.setattr(naming, "LOOK_S", 0.05)
    for glance in (lambda *_: never.wait(30), lambda *_: 1 / 0):
        monkeypatch.setattr(runs, "glance", glance)
        assert submit(on(begins), job).state == "running"
    never.set()


def test_a_job_that_ray_says_is_running_is_gone_on_with(on: On) -> None:
    """Ray says so of one whose head was replaced long ago, too. The run's lease knows, and the cluster looks at it."""

    def goes_on(job: DoubleJob) -> None:
        if job.spec.kind == "resume":
            job.tell("began", run="one", where="there", epoch=2, resumed_from=40)
        job.stop_asked.wait(30)

    ray = on(goes_on)
    spec = submitting._spec("train", "one", "s3://bucket/runs")
    RayJobs(ray.address).submit("headway-one-0", "true", {}, spec.metadata)
    assert submitting.resume("one", address=ray.address, runs="s3://bucket/runs").resumed_from == 40


def began_and_heard(ray: RayJobsDouble, job: DoubleJob) -> None:
    job.tell("began", run=job.spec.run, where="there", epoch=1, resumed_from=None)
    asked = len(ray.asked)
    until(lambda: len([each for each in ray.asked[asked:] if not each[1].endswith("/logs")]) > 3, "somebody heard it")


def test_a_cluster_that_forgets_again_and_again_is_given_up(on: On, job: dict[str, Any]) -> None:
    ray = on(lambda job: ray.replace_head())
    with pytest.raises(Lost, match="it forgot the job 4 times"):
        submit(ray, job)
    assert len(set(ray.taken)) == 1


def test_who_waits_hears_of_the_end_though_the_head_is_gone(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that has begun nothing is sent a second time: its store says how it ended."""

    def lost(job: DoubleJob) -> None:
        began_and_heard(ray, job)
        monkeypatch.setattr(runs, "glance", lambda *_: brief("failed", message="a node is gone", cause="platform"))
        ray.replace_head()

    ray = on(lost)
    done = submit(ray, job, wait=True)
    assert (done.state, done.message, done.exit_code) == ("failed", "a node is gone", 3)
    assert len(ray.taken) == 1


def test_a_run_that_is_not_heard_of_has_not_ended(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def unheard(job: DoubleJob) -> None:
        began_and_heard(ray, job)
        monkeypatch.setattr(runs, "glance", lambda *_: brief("interrupted", unclosed=True, unheard=True))
        ray.is_down = True
        until(lambda: [line for line in said if "could not be asked" in line])
        ray.is_down = False
        job.tell("ended", state="finished", message="", exit_code=0)

    monkeypatch.setattr(RayJobs, "at", lambda address, **_: RayJobs(address, patience_s=0.05))
    ray, said = on(unheard), list[str]()
    assert submit(ray, job, wait=True, say=said.append).state == "finished"


def test_the_last_words_of_a_driver_that_was_killed_are_shown_and_kept(on: On, job: dict[str, Any]) -> None:
    def killed(job: DoubleJob) -> None:
        job.print("loading 900 GB")
        job.tell("refused", fact="what leads the run was ended by SIGKILL", reason="", remedy="", exit_code=3)
        job.end(3)

    ray, said = on(killed), list[str]()
    with pytest.raises(HeadwayError, match="SIGKILL") as caught:
        submit(ray, job, say=said.append)
    assert caught.value.exit_code == 3
    assert "  loading 900 GB" in said
    assert len(ray.jobs) == 1
    assert [line for line in said if line.startswith(f"Ray keeps all that it printed: job {ray.taken[0]}")]


def test_who_waits_is_told_where_nobody_knows_the_end(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(job: DoubleJob) -> None:
        began_and_heard(ray, job)
        ray.replace_head()

    ray = on(lost)
    with pytest.raises(Lost, match=r"does not say what became of one.*headway status one.*headway resume"):
        submit(ray, job, wait=True)
    assert len(ray.taken) == 1


def test_mended_code_goes_with_a_resume(
    on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray, said = on(begins), list[str]()
    kept = RunFolder(tmp_path / "kept" / "one")
    kept.path.mkdir(parents=True)
    write_job(kept, parse(job))
    monkeypatch.setattr(runs, "glance", lambda *_: brief("interrupted"))
    monkeypatch.setattr(runs, "find", lambda *_: kept)
    submitting.resume("one", address=ray.address, runs="s3://bucket/runs", say=said.append)
    (taken,) = ray.jobs.values()
    assert taken.working_dir["code/digits.py"] == TASK.encode()
    assert [line for line in said if "the task's code is taken from" in line]
    Path(job["task"].partition(":")[0]).unlink()
    submitting.resume("one", address=ray.address, runs="s3://bucket/runs")
    assert not [name for name in list(ray.jobs.values())[-1].working_dir if name.startswith("code/")]


def test_lacking_packages_are_refused_or_brought(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(job: DoubleJob) -> None:
        if "uv" in job.request["runtime_env"]:
            begins(job)
            return
        job.tell("lacks", packages={"torch": ["==2.13.*", None]})
        job.tell("lacks", packages={"pydantic": [">=2.10", "2.1"]}, node="h1")
        job.tell("refused", fact="it lacks torch", reason="it is needed", remedy="--install", exit_code=2)
        job.end(2)

    here = {"torch": "2.13.0+cpu", "pydantic": "2.14.1"}
    monkeypatch.setattr(install, "version_of", here.get)
    ray, said = on(lacks), list[str]()
    with pytest.raises(BadInput, match="it lacks torch"):
        submit(ray, job)
    assert ray.jobs == {}
    done = submit(ray, job, install=True, say=said.append)
    (taken,) = ray.jobs.values()
    assert taken.request["runtime_env"]["uv"]["packages"] == ["pydantic==2.14.1", "torch==2.13.0"]
    assert done.installed == ("pydantic==2.14.1", "torch==2.13.0")
    assert [line for line in said if line.startswith("installing pydantic==2.14.1, torch==2.13.0")]
    assert [line for line in said if line.startswith("installed in ")]
    assert len(ray.taken) == 3, "one that was refused without --install, one with it, and the one that runs"


def test_an_installation_that_fails_is_told_in_the_installers_words(on: On, job: dict[str, Any]) -> None:
    def lacks(job: DoubleJob) -> None:
        if "uv" in job.request["runtime_env"]:
            job.end(
                1, "runtime_env setup failed\nTraceback\n  x No solution\nERROR: No matching distribution for torch\n."
            )
            job.exit_code = None
            return
        job.tell("lacks", packages={"torch": ["==2.13.*", None]})
        job.tell("refused", fact="it lacks torch", reason="it is needed", remedy="--install", exit_code=2)
        job.end(2)

    ray = on(lacks)
    with pytest.raises(BadInput, match=r"torch==.* could not be installed on .*No matching distribution for torch"):
        submit(ray, job, install=True)
    assert ray.jobs == {}


def test_another_ray_cannot_be_installed(on: On, job: dict[str, Any]) -> None:
    def lacks(job: DoubleJob) -> None:
        job.tell("lacks", packages={"ray": ["==2.60.*", "2.9.0"]})
        job.tell("refused", fact="another Ray", reason="", remedy="", exit_code=2)
        job.end(2)

    ray = on(lacks)
    with pytest.raises(BadInput, match=r"another Ray.*not another Ray"):
        submit(ray, job, install=True)
    assert len(ray.taken) == 1


def test_what_is_taken_from_rays_list_stays_away(on: On, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's monitor writes down a job again that is removed before it has seen its end."""
    ray = on(checks)
    submit(ray, job, dry_run=True)
    time.sleep(3 * MONITOR_S)
    assert ray.jobs == {}
    with monkeypatch.context() as patch:
        patch.setattr(sending, "SETTLE_S", 0.0)
        patch.setattr(DoubleJob, "is_seen", False)  # however long it took until it was removed
        submit(ray, job, dry_run=True)
    until(lambda: ray.jobs != {}, "it came back")
    (stray,) = ray.jobs.values()
    assert stray.shown()["metadata"] is None
    submit(ray, job, dry_run=True)
    assert ray.jobs == {}


def test_the_client_needs_neither_ray_nor_torch(on: On, job: dict[str, Any], tmp_path: Path) -> None:
    ray = on(begins)
    (tmp_path / "job.yaml").write_text(write(job))
    program = (
        "import sys\nfrom headway.jobs import submit\n"
        f"submit({str(tmp_path / 'job.yaml')!r}, address={ray.address!r}, name='one', runs='/shared/runs')\n"
        "sys.exit(' '.join({'ray', 'torch', 'mlflow'} & set(sys.modules)) or 0)"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(headway.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(ray.taken) == 1


def test_a_told_line_that_is_half_written_is_heard_whole(on: On, job: dict[str, Any]) -> None:
    def slowly(job: DoubleJob) -> None:
        whole = told.line("began", run=job.spec.run, where="there", epoch=1, resumed_from=None)
        for part in (whole[:5], whole[5:-3], whole[-3:-1], whole[-1:]):
            job.logs += part
            asked = len(ray.asked)
            if part != whole[-1:]:
                until(lambda asked=asked: len([p for _, p in ray.asked[asked:] if p.endswith("/logs")]) > 2)
        job.stop_asked.wait(30)

    ray = on(slowly)
    assert submit(ray, job).where == "there"


def test_a_job_of_that_name_that_has_ended_leaves_it_free(on: On, job: dict[str, Any]) -> None:
    ray = on(begins, pending=True)
    spec = submitting._spec("train", "one", "s3://bucket/runs")
    RayJobs(ray.address).submit("headway-one-0", "true", {}, spec.metadata)
    with pytest.raises(BadInput, match="one is on"):
        submit(ray, job)
    ray.pending = False
    ray.jobs["headway-one-0"].end(3)
    assert submit(ray, job).state == "running"


def test_what_was_never_asked_for_is_told_as_it_is(on: On, job: dict[str, Any]) -> None:
    ray = on(begins)
    ray.fail("GET", "/api/packages", "html")
    with pytest.raises(NotARay):
        submit(ray, job)
    assert ray.taken == []


def test_what_makes_no_run_is_heard_as_it_comes(on: On) -> None:
    """`headway doctor` shows each finding when it is told, though it is not to be sent twice."""
    heard = threading.Event()

    def finds(job: DoubleJob) -> None:
        job.tell("found", name="clock")
        heard.wait(30)

    ray = on(finds)
    spec = submitting._spec("doctor", "one", None)
    api = RayJobs(ray.address)
    sending.send(api, spec, sending.Packed(parcel.packed({FILE: to_json(spec).encode()}), ()))
    for tree in sending.Follower(api, spec, submitting.quiet).told():
        assert tree["name"] == "clock"
        assert not heard.is_set()
        heard.set()
    assert heard.is_set()
