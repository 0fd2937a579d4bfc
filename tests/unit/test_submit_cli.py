"""`headway submit` and `headway resume --address http://...` as they are typed."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headway import jobs, queues, runs
from headway.cli import app, submit, train
from headway.jobs.send import sending, wording
from headway.notation.plain import write
from headway.testing.rayjobs import MONITOR_S, DoubleJob, RayJobsDouble

Run = Callable[..., tuple[int, str, str]]

PLAN = {
    "cluster": {"ray": "2.60.0", "python": "3.12", "nodes": 2},
    "data": {"train": {"place": "s3://bucket/train", "rows": 60000, "version": 2}},
    "runs": "s3://bucket/runs",
    "tried": {"nodes": 3, "good": 2, "bad": {"10.0.0.3": "Access Denied"}},
    "workers": {"min": 1, "max": 4, "now": 2, "most": 3, "each": {"CPU": 2.0, "GPU": 1.0}, "autoscaler": True},
    "lanes": {"1": [8], "3": [3, 3, 2]},
    "steps": 1875,
    "global_batch": 256,
    "parameters": 1200000,
    "checkpoint_bytes": 14400000,
    "lanes_together": "random numbers are drawn in the loss",
    "activation_checkpointing": "12 Block (layers.0 to layers.11)",
    "memory": {
        "workers": 1,
        "state_bytes": 19_200_000,
        "lane_bytes": 2_000_000,
        "lane_rows": 8,
        "whole_lane": 0,
        "together_bytes": 2_000_000,
        "together_rows": 8,
        "peak_bytes": 21_200_000,
    },
    "readers": ["the data: whoever may read s3://bucket/train"],
    "warnings": ["no checkpoints until the end"],
}


def drives(job: DoubleJob) -> None:
    """A run that begins, and ends as its name says."""
    spec = job.spec
    if spec.run == "bad":
        job.tell("refused", fact="the task", reason="it raises", remedy="Mend it.", traceback="Trace: x", exit_code=2)
        job.end(2)
        return
    job.tell("plan", **PLAN)
    if spec.kind == "check":
        job.tell("ended", state="checked", message="", exit_code=0)
        return
    step = 40 if spec.kind == "resume" else None
    job.tell("began", run=spec.run, where=f"s3://bucket/runs/{spec.run}", epoch=1, resumed_from=step)
    code = {"failed": 1, "stopped": 4}.get(spec.run, 0)
    job.tell("ended", state=spec.run if code else "finished", message="so" if code else "", exit_code=code)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RayJobsDouble]:
    monkeypatch.setattr(sending, "LOOK_S", 0.01)
    monkeypatch.setattr(sending, "SETTLE_S", MONITOR_S + 0.05)
    monkeypatch.setattr(runs, "glance", lambda *_: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with RayJobsDouble(drives) as found:
        yield found


@pytest.fixture
def headway(
    ray: RayJobsDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Run:
    (tmp_path / "digits.py").write_text("from headway import Task\n\nclass Digits(Task):\n    pass\n")
    job = {"name": "digits", "task": "digits.py:Digits", "data": {"train": "s3://bucket/train"}, "epochs": 1}
    (tmp_path / "job.yaml").write_text(write(job))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWAY_RUNS", "s3://bucket/runs")

    def run(*words: str, address: str | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headway", *words, "--address", address or ray.address])
        try:
            app.main()
            code: Any = 0
        except SystemExit as error:
            code = error.code or 0
        out, err = capsys.readouterr()
        return int(code), out, err

    return run


def test_submitting(headway: Run, ray: RayJobsDouble) -> None:
    code, out, err = headway("submit", "job.yaml", "--name", "one")
    assert code == 0
    assert out.splitlines() == [
        f"one runs on {ray.address}; it is kept in s3://bucket/runs/one",
        f"Follow it with: headway logs one -f --address {ray.address} --runs s3://bucket/runs",
    ]
    assert "workers    1 to 4 of 2 CPU, 1 GPU: 2 fit now, 3 at most; an autoscaler may bring more" in err


def test_a_run_is_called_by_its_job_and_the_time(headway: Run, ray: RayJobsDouble) -> None:
    code, out, _ = headway("submit", "job.yaml", "--set", "epochs=2", "--json")
    done = json.loads(out)
    assert code == 0
    assert done["run"].startswith("digits-20")
    assert done["plan"]["steps"] == 1875
    (taken,) = ray.jobs.values()
    assert "epochs: 2" in str(taken.spec.job)


@pytest.mark.parametrize(("name", "code"), [("one", 0), ("failed", 1), ("stopped", 4)])
def test_who_waits_gets_the_runs_exit_code(headway: Run, name: str, code: int) -> None:
    given, out, _ = headway("submit", "job.yaml", "--name", name, "--wait")
    assert given == code
    assert out.strip() == (f"{name} {name}: so" if code else "one finished")


def test_a_dry_run(headway: Run, ray: RayJobsDouble) -> None:
    code, out, err = headway("submit", "job.yaml", "--name", "one", "--dry-run")
    assert code == 0
    assert out == f"one could begin on {ray.address}. Nothing was started.\n"
    assert "lanes      3 workers: 3, 3, 2" in err
    assert "lanes      computed one by one: random numbers are drawn in the loss" in err
    assert "recomputed 12 Block (layers.0 to layers.11), in the backward pass" in err
    assert (
        "memory     1 worker: 19.2 MB of model, optimiser and gradients, 2.0 MB for 8 rows of a lane at once; 21.2 MB"
        in err
    )
    assert ray.jobs == {}


def test_what_is_refused_there_reads_as_if_it_were_here(headway: Run, ray: RayJobsDouble) -> None:
    code, out, err = headway("submit", "job.yaml", "--name", "bad")
    assert (code, out) == (2, "")
    assert err == "Trace: x\nheadway: the task: it raises. Mend it.\n"
    assert ray.jobs == {}


def test_resuming_on_a_cluster(headway: Run, ray: RayJobsDouble) -> None:
    code, out, _ = headway("resume", "one", "--allow", "threads", "--set", "epochs=3")
    assert code == 0
    assert out.startswith(f"one goes on from step 40 on {ray.address}; it is kept in s3://bucket/runs/one")
    (taken,) = ray.jobs.values()
    assert (taken.spec.kind, taken.spec.allow, taken.spec.settings) == ("resume", ("threads",), ("epochs=3",))


@pytest.mark.parametrize(
    ("words", "address", "said"),
    [
        (("submit", "job.yaml"), "http://127.0.0.1:1", "could not be asked: Connection refused. Check the address"),
        (("submit", "job.yaml"), "10.0.0.1:6379", "--address 10.0.0.1:6379: it is no address of a Ray cluster's job"),
        (("submit", "job.yaml", "--name", "a b"), None, "a run's name is letters, digits"),
        (("submit", "nothing.yaml"), None, "no job at nothing.yaml"),
        (("submit", "job.yaml", "--runs", "runs"), None, "runs cannot be kept in runs: it is a folder of this machine"),
        (("resume", "one", "--wait"), "auto", "--wait: it is for runs that are led by a cluster"),
        (("resume", "../one"), None, "a run's name is letters, digits"),
        (("train", "job.yaml"), "http://h:8265", "`headway submit JOB --address http://h:8265`"),
    ],
)
def test_mistakes(headway: Run, ray: RayJobsDouble, words: tuple[str, ...], address: str | None, said: str) -> None:
    code, out, err = headway(*words, address=address)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert ray.taken == []


def test_a_plan_in_words() -> None:
    assert wording.plan(PLAN) == [
        "cluster    Ray 2.60.0, Python 3.12, 2 nodes",
        "data       train: s3://bucket/train, 60,000 rows, version 2",
        "runs       s3://bucket/runs",
        "tried      2 of 3 nodes that can hold a worker read the data and write the runs",
        "           10.0.0.3: Access Denied",
        "workers    1 to 4 of 2 CPU, 1 GPU: 2 fit now, 3 at most; an autoscaler may bring more",
        "lanes      1 worker: 8",
        "lanes      3 workers: 3, 3, 2",
        "steps      1,875 of 256 rows, 1,200,000 parameters, checkpoints of 14 MB",
        "lanes      computed one by one: random numbers are drawn in the loss",
        "recomputed 12 Block (layers.0 to layers.11), in the backward pass",
        "memory     1 worker: 19.2 MB of model, optimiser and gradients, 2.0 MB for 8 rows of a lane at once; 21.2 MB "
        "at the peak, beside the process itself",
        "read by    the data: whoever may read s3://bucket/train",
        "note       no checkpoints until the end",
    ]
    assert wording.plan({}) == []


def test_python_has_the_same() -> None:
    """Each option of the command line is an argument of the function of that name."""
    others = {"setting": "settings", "json": None, "local": None}  # that is an address
    of_the_queue = {"priority", "user", "team"}
    assert of_the_queue <= set(inspect.signature(queues.submit).parameters)
    others |= dict.fromkeys((*of_the_queue, "queue"))
    for command, function in ((submit.submit, jobs.submit), (train.resume, jobs.resume)):
        options = {others.get(name, name) for name in inspect.signature(command).parameters} - {None}
        assert options <= set(inspect.signature(function).parameters)
