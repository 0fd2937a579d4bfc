"""A sweep among runs: one line of a listing, its trials when asked for; its report by the same commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit import sweeps

from headway import runs
from headway.cli.app import main
from headway.errors import BadInput
from headway.job import parse
from headway.runs import NoRun, Place
from headway.runs.pruning import prune
from headway.sweeps import conclusion, folder
from headway.sweeps.names import run_of
from headway.testing.s3 import S3

JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3}
FACTS = {"metric": "accuracy", "mode": "max", "trials": 40, "over": 4}
BEST = {"best": {"trial": 3, "value": 0.9375, "step": 320, "settings": {"optimizer.lr": 0.01}}}


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """With a sweep of 40 trials, two of which have runs there, and a run that is of no sweep."""
    if request.param == "bucket":
        s3: S3 = request.getfixturevalue("s3")
        monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
        monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "first"))
        s3.make_bucket("runs")
        found = Place.of(f"s3://runs/{tmp_path.name}")
    else:
        found = Place.of(tmp_path / "runs")
    _run(found, "alone", {})
    sweep = folder.create(found, sweeps.NAME, "digits", "name: digits\n", {**FACTS, **BEST})
    with folder.leading(sweep) as epoch:
        sweep.tell(state="finished", message="40 trials", ended=sweeps.CREATED + 9)
        sweep.secure(epoch)
    for trial in (1, 2):
        _run(found, run_of(sweeps.NAME, trial), {"sweep": {"name": sweeps.NAME, "key": "k", "trial": trial}})
    if request.param == "bucket":
        monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "second"))
        found = Place.of(found.said)
    return found


def no_job(config: dict[str, Any]) -> Any:
    raise BadInput("its job is not told")


def _run(place: Place, name: str, facts: dict[str, Any]) -> None:
    made = runs.create(place, name, parse(JOB), facts)
    with made.led():
        made.write({**made.read(), "state": "stopped"})


@pytest.fixture
def say(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Has the command run; gives its exit code and what it wrote."""

    def ask(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["headway", *words, "--runs", place.said])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return ask


def test_a_sweep_is_one_line_and_its_trials_are_shown_when_asked_for(
    place: Place, say: Callable[..., tuple[int, str, str]]
) -> None:
    _, text, _ = say("ls")
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["alone", sweeps.NAME]
    assert "4 of 40 trials" in text
    _, text, _ = say("runs")
    assert "4/40 trials" in text
    assert "accuracy 0.9375" in text
    assert ".0001" not in text
    for command in ("ls", "runs"):
        assert {one["run"] for one in json.loads(say(command, "--json")[1])["runs"]} == {"alone", sweeps.NAME}
        told = {one["run"]: one for one in json.loads(say(command, "--trials", "--json")[1])["runs"]}
        assert set(told) == {"alone", sweeps.NAME, "digits-lr.0001", "digits-lr.0002"}
        assert (told[sweeps.NAME]["kind"], told[sweeps.NAME]["state"]) == ("sweep", "finished")
        assert (told["digits-lr.0001"]["kind"], told["digits-lr.0001"]["sweep"]) == ("run", sweeps.NAME)


def test_status_and_stop_take_a_sweep_too(place: Place, say: Callable[..., tuple[int, str, str]]) -> None:
    code, text, _ = say("stop", sweeps.NAME)
    assert (code, text) == (0, f"{sweeps.NAME} had ended before: finished (40 trials)\n")
    sweeps.play(folder.find(place, sweeps.NAME).path, trials=3)
    if place.url is None:  # of one in a store only its leader ships what is written
        assert json.loads(say("status", sweeps.NAME, "--json")[1])["counts"] == {"paused": 2, "finished": 1}
    code, _, told = say("status", "nobody")
    assert (code, "no run 'nobody'" in told) == (2, True)
    for verb in ("logs", "events"):
        code, _, told = say(verb, sweeps.NAME)
        assert (code, "it is a sweep" in told) == (2, True)


def test_trials_whose_sweep_is_gone_are_shown(place: Place, say: Callable[..., tuple[int, str, str]]) -> None:
    folder.find(place, sweeps.NAME).remove()
    assert "digits-lr.0001" in say("ls")[1]
    assert "digits-lr.0002" in say("runs")[1]


def test_a_sweep_is_no_run_for_whoever_asks_for_runs(place: Place) -> None:
    assert sweeps.NAME not in {brief.run for brief in runs.briefs(place)}
    assert runs.glance(place, sweeps.NAME) is None
    with pytest.raises(NoRun, match="is no run: it is a sweep"):
        runs.find(place, sweeps.NAME)


def test_a_sweep_is_removed_as_one(place: Place) -> None:
    """It counts as one of those that are kept; while it is led its trials, which nobody leads, are not touched."""
    trials = [run_of(sweeps.NAME, 1), run_of(sweeps.NAME, 2)]
    sweep = folder.find(place, sweeps.NAME)
    with folder.leading(sweep):
        for names in ([sweeps.NAME], [trials[0]]):
            with pytest.raises(BadInput, match="is running"):
                prune(place, names)
        done = prune(place, keep=0, checkpoints_only=True)
        assert (done.removed, set(done.left)) == (["alone"], {sweeps.NAME})
        done = prune(place, keep=0, dry_run=True)
        assert (done.removed, set(done.left)) == (["alone"], {sweeps.NAME})
    assert prune(place, keep=1).removed == ["alone"]
    assert prune(place, [sweeps.NAME], checkpoints_only=True).removed == trials
    assert prune(place, [sweeps.NAME]).removed == [sweeps.NAME, *trials]
    assert runs.outline(place) == []


def test_the_report_of_a_sweep(
    place: Place, say: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    led = folder.find(place, sweeps.NAME)
    with folder.leading(led):
        conclusion.conclude(sweeps.play(led.path, trials=15), led.path, "finished", "40 trials", no_job, led.where)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "third"))
    place = Place.of(place.said)
    code, text, _ = say("report", sweeps.NAME)
    assert code == 0
    assert "digits-lr  finished (40 trials)" in text
    found = json.loads(say("report", sweeps.NAME, "--json")[1])
    assert len(found["trials"]) == 15
    assert found["pictures"] == [f"pictures/{name}.svg" for name in ("settings", "rungs", "metric", "workers")]
    sweep = folder.find(place, sweeps.NAME)
    assert all((sweep.path / name).is_file() for name in found["pictures"])
    assert found["path"] == sweep.where
    code, _, _ = say("report", "alone")
    assert code == 0
    _, _, told = say("report", sweeps.NAME, "--draw", str(tmp_path / "drawn"))
    assert told.split() == [
        str(tmp_path / "drawn" / f"{name}.svg") for name in ("settings", "rungs", "metric", "workers")
    ]
    assert all(Path(each).is_file() for each in told.split())
    assert say("report", "alone", "--draw", str(tmp_path))[0] == 2
    code, _, told = say("report", "nobody")
    assert code == 2
    assert "no run 'nobody'" in told
