"""A sweep's report, pictures, importance and best.yaml: at its end, in the middle, after its driver was killed."""

from __future__ import annotations

import fcntl
import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.unit import sweeps

from headway.cli import sweep_report
from headway.errors import BadInput
from headway.job import Job, load, parse
from headway.report.redaction import redacted_sweep
from headway.report.sweep import tell
from headway.sweeps import best, conclusion, importance, pictures
from headway.sweeps.events import Action, Clone, Event, GoOn, Reported, Start, Suggested
from headway.sweeps.folder import NearSweep
from headway.sweeps.report import SweepReport
from headway.sweeps.seen import history
from headway.sweeps.seen.keeping import Seen

TASK = """
import headway
class Task(headway.Task):
    def __init__(self, width=8): ...
"""


def job(folder: Path, config: dict[str, Any]) -> Job:
    (folder / "task.py").write_text(TASK)
    optimizer = {key.removeprefix("optimizer."): value for key, value in config.items() if key.startswith("optimizer.")}
    tree = {
        "name": "digits",
        "task": f"{folder / 'task.py'}:Task",
        "arguments": {"width": config["arguments.width"]},
        "data": {"train": str(folder)},
        "lanes": 8,
        "lane_batch": 16,
        "epochs": 1,
        "workers": {"min": 1, "max": 2},
        "optimizer": optimizer,
        "tracking": {"uri": "postgresql://ann:secret@host/db"},
    }
    return parse(tree)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[NearSweep, SweepReport]:
    place = tmp_path_factory.mktemp("runs")
    folder = sweeps.folder_of(place)
    seen = sweeps.play(folder)
    found = conclusion.conclude(seen, folder, "finished", "40 trials", lambda config: job(place, config))
    sweep = NearSweep(folder)
    sweep.tell(state="finished", ended=sweeps.CREATED + 1000)
    return sweep, found


def test_the_report_is_the_same_whenever_it_is_read(ended: tuple[NearSweep, SweepReport]) -> None:
    sweep, found = ended
    assert conclusion.load(sweep) == found
    assert SweepReport.model_validate_json(found.model_dump_json()) == found


def test_the_report_says_what_each_trial_came_to(ended: tuple[NearSweep, SweepReport]) -> None:
    _, found = ended
    assert found.best is not None
    configs = sweeps.settings()
    best_of = max((sweeps.value(configs[t.trial - 1], t.step), t.trial) for t in found.trials if t.state == "finished")
    assert (found.best.best, found.best.trial) == best_of
    assert found.counts == {"paused": 36, "diverged": 1, "failed": 1, "finished": 2}
    assert {step: len(trials) for step, trials in found.rungs.items()} == {20: 38, 80: 9, 320: 2}
    assert found.trials[8].why == "ValueError: no such file"
    assert found.trials[8].run == "digits-lr.0009"
    steps = 38 * 20 + 2 * 12 + 9 * 60 + 2 * 240
    assert sum(trial.worker_s for trial in found.trials) == pytest.approx(steps, abs=0.1)
    assert found.ledger_s["compute"] == pytest.approx(steps)
    assert found.goodput == pytest.approx(1 / 1.05, abs=1e-3)
    assert found.idle_s == pytest.approx(steps / 20)
    assert found.dollars == pytest.approx(found.worker_s / 3600 * 0.5, abs=1e-3)


def test_a_sweep_is_told_and_may_be_sent_round(ended: tuple[NearSweep, SweepReport]) -> None:
    sweep, found = ended
    story = tell(sweep)
    assert story.report == found
    assert json.loads(json.dumps(story.model_dump(mode="json"), allow_nan=False))["kind"] == "sweep"
    assert story.words.what.startswith(f"{len(found.trials)} trials of one job were tried, each with its own ")
    assert found.best is not None
    assert f"of trial {found.best.trial} after step {found.best.best_step}" in story.words.how_well
    assert story.reproduce.commands[-1].startswith(f"headway train {sweep.where}/best.yaml")
    text = redacted_sweep(story).model_dump_json()
    assert str(sweep.path) not in text
    assert json.loads(text)["redacted"]
    assert json.loads(text)["report"]["trials"][0]["settings"] == found.trials[0].settings


def test_the_best_can_be_trained_and_says_where_it_comes_from(ended: tuple[NearSweep, SweepReport]) -> None:
    sweep, found = ended
    assert found.best is not None
    text = (sweep.path / best.FILE).read_text()
    trained = load(sweep.path / best.FILE)
    assert trained.optimizer.lr == found.best.settings["optimizer.lr"]
    assert f"# Trial {found.best.trial}: accuracy" in text
    assert "secret" not in text


def test_the_best_has_the_settings_that_it_came_with(tmp_path: Path) -> None:
    folder = sweeps.folder_of(tmp_path)
    sweeps.play(folder, until=0)
    seen = Seen.begin(folder, sweeps.SUBJECT, clock=sweeps.Clock())
    first, later, last = (
        {"optimizer.name": "sgd", "optimizer.lr": lr, "arguments.width": 64} for lr in (0.1, 0.01, 0.001)
    )
    heard: list[tuple[Event, list[Action]]] = [
        (Suggested(1, first), [Start(1, first, 20)]),
        (Reported(1, 20, {"accuracy": 0.5}, True), [Clone(1, 2, 20, later, 40)]),
        (Reported(1, 40, {"accuracy": 0.9}, True), [Clone(1, 3, 40, last, 60)]),
        (Reported(1, 60, {"accuracy": 0.2}, True), [GoOn(1, 80)]),
    ]
    for number, (event, actions) in enumerate(heard, 1):
        seen.heard(number, event, actions)
    trained: list[dict[str, Any]] = []

    def job_of(config: dict[str, Any]) -> Job:
        trained.append(config)
        return job(tmp_path, config)

    found = conclusion.conclude(seen, folder, "finished", "", job_of)
    assert found.best is not None
    assert (found.best.best, found.best.settings, found.best.origin) == (0.9, last, (3, 40))
    assert trained == [later]
    text = (folder / best.FILE).read_text()
    assert "#   optimizer.lr: 0.01\n" in text
    assert "from trial 2's weights of step 20" in text


def test_there_is_no_best_before_a_trial_was_evaluated(tmp_path: Path) -> None:
    seen = sweeps.play(sweeps.folder_of(tmp_path), until=1)
    found = conclusion.conclude(seen, tmp_path / sweeps.NAME, "stopped", "by ann", lambda _: pytest.fail("no best"))
    assert found.best is None
    assert found.pictures == []
    with pytest.raises(BadInput, match="no best trial"):
        best.written(found, job(tmp_path, sweeps.settings()[0]))


def test_pictures_are_drawn_and_small(ended: tuple[NearSweep, SweepReport]) -> None:
    sweep, found = ended
    names = ["settings.svg", "rungs.svg", "metric.svg", "workers.svg"]
    assert found.pictures == [f"pictures/{name}" for name in names]
    for name in found.pictures:
        content = (sweep.path / name).read_text()
        assert content.rstrip().endswith("</svg>")
        assert len(content) < 200_000
    assert "momentum" in (sweep.path / "pictures" / "settings.svg").read_text()


def test_one_trial_is_enough_for_some_pictures(tmp_path: Path) -> None:
    seen = sweeps.play(tmp_path, until=2)
    assert pictures.draw(seen.view(), tmp_path / "pictures") == ["rungs.svg", "metric.svg", "workers.svg"]


def test_odd_settings_and_values_are_drawn_and_weighed_too(tmp_path: Path) -> None:
    """Lists, mappings, switches, nothing, words among numbers, zero, infinities."""
    odd: list[Any] = [[1, 2], {"a": 1}, True, None, "word", 0, -1.5, 1e300, 3]
    seen = sweeps.Seen.begin(tmp_path, sweeps.SUBJECT)
    for trial in range(1, 28):
        config = {"a": odd[trial % 9], "b": odd[trial * 4 % 9], "c": 10.0**trial, "d": 7}
        value = (math.inf, -math.inf, math.nan, 0.0, 1.0 * trial)[trial % 5]
        seen.heard(2 * trial - 1, sweeps.Suggested(trial, config), [sweeps.Start(trial, config, 20)])
        seen.heard(2 * trial, sweeps.Reported(trial, 20, {"accuracy": value}, True), [])
    found = conclusion.conclude(seen, tmp_path, "finished", "", lambda config: job(tmp_path, sweeps.settings()[0]))
    assert len(found.pictures) == 3  # nobody had workers
    assert found.best is not None
    assert found.best.best == 24.0
    assert SweepReport.model_validate_json(found.model_dump_json()) == found


def test_what_decides_is_found_to_be_important(ended: tuple[NearSweep, SweepReport]) -> None:
    _, found = ended
    assert next(iter(found.importance)) == "optimizer.lr"
    assert found.importance["optimizer.lr"] > 0.5
    assert sum(found.importance.values()) == pytest.approx(1.0, abs=0.01)
    assert "of 39 trials" in found.importance_note


def settings(x: int) -> dict[str, Any]:
    return {"settings": {"x": x}, "best_settings": {"x": x}}


def test_importance_is_not_told_of_too_few_trials_or_of_noise(ended: tuple[NearSweep, SweepReport]) -> None:
    _, found = ended
    few = found.model_copy(update={"trials": found.trials[:8]})
    assert importance.of(few) == importance.Importance({}, "too few trials: 8 have a value, at least 16 are needed")
    same = found.model_copy(update={"trials": [t.model_copy(update=settings(1)) for t in found.trials]})
    assert importance.of(same).note == "no setting differs between the trials"
    noise = [t.model_copy(update=settings((t.trial * 7919) % 13)) for t in found.trials]
    assert importance.of(found.model_copy(update={"trials": noise})).shares == {}


def test_a_sweep_whose_driver_was_killed_is_interrupted_and_one_that_is_led_runs(tmp_path: Path) -> None:
    folder = sweeps.folder_of(tmp_path)
    sweeps.play(folder, until=30)
    sweep = NearSweep(folder)
    found = conclusion.load(sweep)
    assert (found.state, found.message) == ("interrupted", conclusion.GONE)
    assert found.trials
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert conclusion.load(sweep).state == "running"
    sweep.tell(state="stopped", message="by ann")
    assert (conclusion.load(sweep).state, conclusion.load(sweep).message) == ("stopped", "by ann")


def test_a_damaged_history_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = sweeps.folder_of(tmp_path)
    sweeps.play(folder, until=30)
    whole = conclusion.load(NearSweep(folder))
    with (folder / history.FILE).open("ab") as file:
        file.write(b'\xff\xfe{"at": "never"}\n{"at": 1, "n": 99, "event": {"is": "Nonsense"}, "then": []}\n{"at": 1')
    assert conclusion.load(NearSweep(folder)) == whole


def test_nothing_happened_yet_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing happened yet"):
        conclusion.load(NearSweep(sweeps.folder_of(tmp_path)))


def test_a_value_that_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    folder = sweeps.folder_of(tmp_path)
    seen = sweeps.play(folder, until=1)
    seen.heard(2, sweeps.Reported(1, 20, {"accuracy": math.nan}, True), [sweeps.Stop(1, "stopped", "")])
    tree = json.loads(conclusion.load(NearSweep(folder)).model_dump_json())
    assert tree["trials"][0]["value"] is None
    assert tree["trials"][0]["state"] == "diverged"


def test_people_are_told_the_same(ended: tuple[NearSweep, SweepReport], capsys: pytest.CaptureFixture[str]) -> None:
    _, found = ended
    sweep_report.show(found)
    text = capsys.readouterr().out
    assert found.best is not None
    assert f"trial {found.best.trial}: accuracy" in text
    assert "step 20: 38  step 80: 9  step 320: 2" in text
    assert "and 30 more" in text
    assert "worker-seconds of waiting" not in text
    sweep_report.show(found.model_copy(update={"order": "strict"}))
    assert f"cost {found.idle_s:,.0f} worker-seconds of waiting" in capsys.readouterr().out
    order = [trial.trial for trial in sweep_report.order(found)]
    assert order[0] == found.best.trial
    assert order[-2:] == [7, 9]
