"""A story that is sent round tells nothing of where it ran, and of whom; runs beside each other; documents by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import run_records
from tests.run_records import at, lines, made, start

from headway.errors import BadInput
from headway.report import documents
from headway.report.comparison import compare
from headway.report.redaction import redacted
from headway.report.shape import Story
from headway.report.story import tell
from headway.runs import Place

PRIVATE = ("ada", "secret-project", "10.1.2.3", "hunter22", "example.com", "s3cr3t-bucket", "fd00::1", "6.1-ada", "vm7")
WARNED = (
    "open('/home/ada/x y/z') at 10.1.2.3:8080 or [fd00::1]; see https://ada:hunter22@example.com/a?b=c, "
    "s3://s3cr3t-bucket/k, ada@vm7.internal, localhost:5000, ~/secret-project/a.py and C:\\Users\\ada\\x"
)


def private(folder: Path) -> Story:
    """A run in whose records private words stand wherever they can."""
    run = made(folder, events=[start(host="vm7")])
    told = [
        {"kind": "warned", "time": at(3), "worker": "w0", "text": WARNED},
        {"kind": "stop", "time": at(4), "by": "ada@vm7", "now": False},
        {"kind": "raised", "time": at(5), "worker": "w0", "fact": WARNED, "reason": "on vm7", "node_id": "ab12cd34ef"}
        | {"starting": True, "fault": "machine"},
    ]
    lines(run.path / "events.jsonl", [start(host="vm7"), *told])
    lines(run.path / "nodes.jsonl", [{"time": at(9), "nodes": {"vm7": {"cpu": 0.5, "memory": 0.1}}}])
    lines(run.path / "logged.jsonl", [{"step": 1, "name": "n", "kind": "text", "path": "logged/n.txt", "time": 1.0}])
    (run.path / "logged").mkdir()
    (run.path / "logged" / "n.txt").write_text(WARNED)
    (run.code / "task.py").write_text(f'"""Made by ada@vm7 for https://example.com/x."""\n{run_records.TASK[50:]}')
    by = {"submission": {"by": "ada@vm7", "id": "x"}, "message": f"the process is gone (process 12 on vm7): {WARNED}"}
    run.write({**run.read(), **by, "state": "interrupted"})
    return tell(run)


def test_nothing_private_is_left_anywhere(tmp_path: Path) -> None:
    story = private(tmp_path)
    before = story.model_dump_json()
    assert all(word in before for word in PRIVATE)
    text = redacted(story).model_dump_json()
    assert [word for word in (*PRIVATE, str(tmp_path), tmp_path.name, "localhost") if word in text] == []


def test_arguments_and_tables_are_looked_through_whatever_they_are_called(tmp_path: Path) -> None:
    words = {"data": "/home/ada/x", "mime": "ada@vm7", "digest": "s3://ada/x", "more": {"data": ["/home/ada/y"]}}
    table = [{"step": 5, "time": 1.0, "values": {"accuracy": 0.5}, "tables": {"data": [["/home/ada/z", "ADA"]]}}]
    run = made(tmp_path, job={**run_records.JOB, "arguments": words}, metrics=table, submission={"by": "ada@vm7"})
    found = redacted(tell(run)).model_dump_json()
    assert [word for word in ("ada", "ADA", "vm7") if word in found] == []


def test_what_the_run_came_to_stays(tmp_path: Path) -> None:
    story = tell(made(tmp_path))
    found = redacted(story)
    assert found.redacted
    assert found.headline == story.headline
    assert found.series == story.series
    assert found.ledger == story.ledger
    assert found.words.how_well == story.words.how_well
    assert found.words.trouble == story.words.trouble
    assert found.reproduce.digests == story.reproduce.digests
    assert found.job.digest == story.job.digest
    assert found.environment == {"python": "3.11.7", "cpus": 2, "packages": run_records.ENVIRONMENT["packages"]}
    assert [mark.kind for mark in found.marks] == [mark.kind for mark in story.marks]
    assert found.words.again.startswith("Run it again with `headway train job.yaml`.")
    assert "lanes: 4" in found.job.yaml
    assert found.data[0].name == "digits/train"


@pytest.mark.parametrize(
    "text",
    [
        "accuracy 0.91 after 12:30:15",
        "train/loss and validation/accuracy",
        "lost w1: its process ended; the others went on with step 101 after 9.13 s, nothing was lost",
        "nn.Sequential of torch.nn",
        "1/2 of the rows, and 3/4",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x4 and 5x2)",
    ],
)
def test_words_that_are_nobodys_stay(tmp_path: Path, text: str) -> None:
    run = made(tmp_path, message=text, state="failed", cause="task")
    assert redacted(tell(run)).run.message == text


def test_a_story_is_redacted_once_and_for_all(tmp_path: Path) -> None:
    once = redacted(private(tmp_path))
    assert redacted(once).model_dump_json() == once.model_dump_json()


def pair(folder: Path) -> list[Story]:
    job: dict[str, Any] = {**run_records.JOB, "lanes": 8, "optimizer": {"name": "adam", "lr": 0.1}}
    environment = {**run_records.ENVIRONMENT, "packages": {"torch": "2.14.0", "headway": "0.1.0"}}
    one, two = made(folder, "one"), made(folder, "two", job=job, environment=environment)
    (two.code / "more.py").write_text("x = 1")
    return [tell(one), tell(two)]


def test_runs_beside_each_other_tell_first_what_differs(tmp_path: Path) -> None:
    found = compare(pair(tmp_path))
    job = {row.key: row.values for row in found.differences.job}
    assert job["lanes"] == [4, 8]
    assert job["optimizer.lr"] == [None, 0.1]
    assert "steps" not in job
    assert [row.key for row in found.differences.code] == ["files"]
    assert found.differences.data == []
    assert [(r.key, r.values) for r in found.differences.environment] == [("packages.torch", ["2.13.0", "2.14.0"])]
    assert found.words.what == "2 runs beside each other: one and two."
    assert "Data is the same." in found.words.differences
    assert found.words.how_well.startswith("one has the best accuracy")
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


def test_the_same_job_twice_has_no_differences(tmp_path: Path) -> None:
    story = tell(made(tmp_path))
    found = compare([story, story])
    assert found.words.differences == "They have the same job, code, data and environment."


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_and_too_many_are_refused(tmp_path: Path, count: int) -> None:
    story = tell(made(tmp_path))
    with pytest.raises(BadInput, match="two to 8 runs can be compared"):
        compare([story] * count)


def test_documents_are_had_by_name(tmp_path: Path) -> None:
    made(tmp_path, "one")
    made(tmp_path, "two")
    place = Place.of(str(tmp_path))
    assert documents.of(place, ["one"])["kind"] == "run"
    both = documents.of(place, ["one", "two"], redact=True)
    assert (both["kind"], both["redacted"]) == ("comparison", True)
    assert "ada" not in json.dumps(both)
    with pytest.raises(BadInput, match="no run 'three'"):
        documents.of(place, ["one", "three"])
