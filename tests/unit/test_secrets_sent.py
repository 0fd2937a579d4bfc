"""What a submission sends, all of it, searched for the bytes of secrets."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headway.cli.app import app
from headway.errors import BadInput
from headway.jobs.send import sending, submitting
from headway.jobs.spec import FILE
from headway.testing.rayjobs import DoubleJob, RayJobsDouble

WORDS = {
    "of the job": "w0rd-in-the-job-1",
    "of the shell": "w0rd-of-my-shell-2",
    "of a file": "w0rd-of-a-file-3",
    "of the tracking store": "w0rd-of-mlflow-4",
    "of the store": "w0rd-of-my-bucket-5",
    "of the cluster": "w0rd-of-its-token-6",
}


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sending, "LOOK_S", 0.01)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", WORDS["of the cluster"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WORDS["of the store"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", WORDS["of the tracking store"])
    monkeypatch.setenv("SHELL_TOKEN", WORDS["of the shell"])


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "digits.py").write_text("from headway import Task\n\nclass Digits(Task):\n    pass\n")
    (folder / "labels.txt").write_text("one\n")
    for number, word in enumerate(WORDS.values()):
        (folder / f"settings-{number}.txt").write_text(f"word: {word}\n")
    (folder / "job.yaml").write_text(f"env: {{JOBS_TOKEN: {WORDS['of the job']}}}\n")
    (tmp_path / "key").write_text(f"{WORDS['of a file']}\n")
    return {
        "name": "digits",
        "task": f"{folder}/digits.py:Digits",
        "data": {"train": "s3://bucket/train"},
        "epochs": 1,
        "env": {"SHELL_TOKEN": None, "FILED_KEY": {"file": str(tmp_path / "key")}, "MODE": "fast"},
        "tracking": {"uri": "postgresql://me:***@host/db"},
    }


def begins(job: DoubleJob) -> None:
    job.tell("began", run=job.spec.run, where="there", epoch=1, resumed_from=None)
    job.stop_asked.wait(30)


@pytest.fixture
def ray() -> Iterator[RayJobsDouble]:
    with RayJobsDouble(begins, token=WORDS["of the cluster"]) as double:
        yield double


def submit(ray: RayJobsDouble, job: dict[str, Any], **options: Any) -> list[str]:
    """What the user is told."""
    said: list[str] = []
    submitting.submit(job, address=ray.address, name="one", runs="s3://bucket/runs", say=said.append, **options)
    return said


def sent(ray: RayJobsDouble) -> dict[str, bytes]:
    """Everything that the cluster was handed, by what it is; archives unpacked."""
    found = {f"request {name}": json.dumps(each.request).encode() for name, each in ray.jobs.items()}
    for uri, content in ray.packages.items():
        found[uri] = content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found |= {f"{uri}/{name}": archive.read(name) for name in archive.namelist()}
    return found


def holding(everything: dict[str, bytes], word: str) -> list[str]:
    return [name for name, content in everything.items() if word.encode() in content]


def test_of_references_nothing_is_sent_but_their_names(ray: RayJobsDouble, job: dict[str, Any]) -> None:
    told = submit(ray, job)
    everything = sent(ray)
    assert any(name.endswith("labels.txt") for name in everything), "or nothing was searched"
    assert len(holding(everything, "SHELL_TOKEN")) == 1
    found = {whose: holding(everything, word) for whose, word in WORDS.items()}
    # Nor do texts travel that hold one of them; of a word that stands in another job's file nothing is known.
    assert {whose: names for whose, names in found.items() if names and whose != "of the job"} == {}
    assert all("/code/" in name for name in found["of the job"])
    assert not any(word in line for word in WORDS.values() for line in told)


@pytest.mark.parametrize(
    "literal",
    [
        {"env": {"JOBS_TOKEN": WORDS["of the job"]}},
        {"tracking": {"uri": f"postgresql://me:{WORDS['of the job']}@host/db"}},
        {"notify": [{"url": f"https://hooks.example/{WORDS['of the job']}"}]},
        {"arguments": {"api_key": WORDS["of the job"]}},
        {"arguments": {"source": [f"mysql://me:{WORDS['of the job']}@host"]}},
        {"data": {"train": f"s3://key:{WORDS['of the job']}@bucket/train"}},
    ],
)
def test_a_literal_is_refused_before_anything_is_sent(
    ray: RayJobsDouble, job: dict[str, Any], literal: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match=r"holds a secret in clear.*--send-secrets") as caught:
        submit(ray, {**job, **literal})
    assert WORDS["of the job"] not in str(caught.value)
    assert ray.taken == []
    assert ray.packages == {}


def test_a_literal_that_is_sent_is_in_one_file_alone(ray: RayJobsDouble, job: dict[str, Any]) -> None:
    literal = {"env": {"JOBS_TOKEN": WORDS["of the job"]}}
    literal |= {"tracking": {"uri": f"postgresql://me:{WORDS['of the tracking store']}@host/db"}}
    url = "https://hooks.example/T0PAGER"
    literal |= {"notify": [{"url_file": "/x"}, {"url": url, "form": "slack"}]}
    told = submit(ray, {**job, **literal}, send_secrets=True)
    assert sum("everybody who has the token of" in line for line in told) == 3
    everything = sent(ray)
    for whose in ("of the job", "of the tracking store"):
        assert [name.rpartition("/")[2] for name in holding(everything, WORDS[whose])] == [FILE], whose
        assert not any(WORDS[whose] in line for line in told)
    (taken,) = ray.jobs.values()
    assert WORDS["of the job"] not in str(taken.spec.job)
    assert taken.spec.sent["env.JOBS_TOKEN"] == WORDS["of the job"]
    assert "T0PAGER" not in str(taken.spec.job)
    assert taken.spec.sent["notify.1.url"] == url


def test_settings_of_a_resume_are_held_to_the_same(ray: RayJobsDouble) -> None:
    setting = [f"env.JOBS_TOKEN={WORDS['of the job']}"]
    where: dict[str, Any] = {"address": ray.address, "runs": "s3://bucket/runs"}
    with pytest.raises(BadInput, match=r"env\.JOBS_TOKEN holds a secret in clear"):
        submitting.resume("one", settings=setting, **where)
    assert ray.taken == []
    command = ["resume", "one", "--address", ray.address, "--runs", "s3://bucket/runs", "--set", *setting]
    done = CliRunner().invoke(app, [*command, "--send-secrets"])
    assert done.exit_code == 0, done.output
    assert "env.JOBS_TOKEN is sent in clear" in done.output
    assert [name.rpartition("/")[2] for name in holding(sent(ray), WORDS["of the job"])] == [FILE]
