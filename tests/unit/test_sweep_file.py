"""A sweep's file is checked once, at the door: what is accepted, and what each bad one is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headway.errors import BAD_INPUT, BadInput
from headway.sweeps import file, space
from headway.sweeps.file import Sweep
from headway.sweeps.rules import Unfit
from headway.sweeps.ways import Ways

JOB: dict[str, Any] = {
    "name": "digits",
    "task": "task.py:Digits",
    "data": {"train": "d/train", "validation": "d/test"},
    "steps": 100,
    "optimizer": {"name": "sgd", "lr": 0.1},
}
SWEEP: dict[str, Any] = {"job": JOB, "trials": 4, "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}}}


def sweep(**more: Any) -> Sweep:
    return file.taken({**SWEEP, **more})


def refusal(tree: dict[str, Any], given: list[str] | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        file.taken(tree, given=given)
    assert caught.value.exit_code == BAD_INPUT
    assert caught.value.remedy, "every refusal says what to do"
    return str(caught.value)


def test_a_minimal_sweep_has_sensible_defaults() -> None:
    found = sweep()
    assert (found.name, found.metric, found.mode, found.repeats, found.order) == ("digits", "loss", "min", 1, "async")
    assert (found.search.name, found.scheduler.name, found.scheduler.promote) == ("density", "asha", True)
    assert (found.workers.min, found.workers.max) == (1, 1)


def test_the_sweep_has_as_many_workers_as_a_trial_unless_it_says_otherwise() -> None:
    job = {**JOB, "workers": {"min": 1, "max": 3}}
    assert sweep(job=job).workers.max == 3
    assert sweep(job=job, workers={"max": 8}).workers.max == 8


def test_a_searcher_and_a_scheduler_may_be_a_name_alone() -> None:
    found = sweep(search="random", scheduler="none")
    assert (found.search.name, found.scheduler.name) == ("random", "none")


def test_the_job_may_be_a_file_and_its_paths_are_those_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.yaml").write_text(json.dumps(JOB), encoding="utf-8")
    (tmp_path / "sweep.yaml").write_text(json.dumps({**SWEEP, "job": "jobs/job.yaml"}), encoding="utf-8")
    found = file.load(tmp_path / "sweep.yaml")
    assert found.example.task == f"{tmp_path}/jobs/task.py:Digits"
    assert found.example.data.train == f"{tmp_path}/jobs/d/train"


def test_a_job_inside_of_the_sweep_has_the_sweeps_folder_and_name(tmp_path: Path) -> None:
    job = {key: value for key, value in JOB.items() if key != "name"}
    (tmp_path / "sweep.yaml").write_text(json.dumps({**SWEEP, "name": "mine", "job": job}), encoding="utf-8")
    found = file.load(tmp_path / "sweep.yaml")
    assert (found.example.name, found.example.task) == ("mine", f"{tmp_path}/task.py:Digits")


def test_settings_reach_the_sweep_its_space_and_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [
        "trials=8",
        "space.optimizer.lr={uniform: [0.1, 0.3]}",
        "job.steps=50",
        "job.data.train=elsewhere",
        "scheduler={name: asha, first: 5}",
    ]
    found = file.taken(SWEEP, Path("/there"), given)
    assert (found.trials, found.example.steps, found.scheduler.first) == (8, 50, 5)
    assert found.example.optimizer is not None
    assert found.example.optimizer.lr == pytest.approx(0.2)
    assert found.example.data.train == str(tmp_path / "elsewhere"), "as a shell user expects"
    assert found.example.data.validation == "/there/d/test"
    assert SWEEP["space"] == {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}}, "what was given is left as it was"


def test_a_setting_replaces_a_scheduler_with_its_options_or_changes_one_of_them() -> None:
    tree = {**SWEEP, "scheduler": {"name": "asha", "first": 20}, "search": "random"}
    assert file.taken(tree, given=["scheduler=none"]).scheduler.name == "none"
    assert file.taken(tree, given=["scheduler={name: hyperband}"]).scheduler.name == "hyperband"
    assert file.taken(tree, given=["scheduler.first=5", "search.seed=7"]).search.seed == 7


def test_what_is_written_reads_back_as_the_same_sweep(tmp_path: Path) -> None:
    found = sweep(
        search={"name": "s.py:Mine", "width": 3},
        scheduler={"name": "pbt", "every": 10},
        budget={"deadline": "2h"},
        memory="1GiB",
        stop={"patience": 4},
        **{"from": "earlier"},
    )
    assert (found.budget.deadline, found.memory, found.earlier) == (7200, 2**30, ["earlier"])
    (tmp_path / "again.yaml").write_text(file.to_yaml(found), encoding="utf-8")
    assert file.load(tmp_path / "again.yaml") == found
    (tmp_path / "plain.yaml").write_text(file.to_yaml(sweep()), encoding="utf-8")
    assert file.load(tmp_path / "plain.yaml").model_dump() == sweep().model_dump()


def test_a_trial_is_the_job_with_its_settings_and_a_repeat_has_another_seed() -> None:
    found = sweep(space={"arguments.width": {"choice": [8, 16]}, "schedule.name": {"choice": ["cosine", "constant"]}})
    job = found.job_of({"arguments.width": 16, "schedule.name": "cosine"}, repeat=3)
    assert (job.arguments, job.schedule and job.schedule.name, job.seed) == ({"width": 16}, "cosine", 2)
    assert "arguments" not in found.job, "the sweep's own job is as it was"


def test_a_key_with_dots_that_the_job_has_is_meant() -> None:
    job = {**JOB, "arguments": {"rates": {"layer.1": 0.1}}}
    found = sweep(job=job, space={"arguments.rates.layer.1": {"uniform": [0, 1]}})
    assert found.job_of({"arguments.rates.layer.1": 0.5}).arguments == {"rates": {"layer.1": 0.5}}


def test_a_searcher_of_ones_own_is_found_from_the_sweeps_folder_and_has_its_arguments() -> None:
    found = file.taken({**SWEEP, "search": {"name": "mine.py:Mine", "seed": 3, "depth": 2}}, Path("/there"))
    assert found.search.own
    assert (found.search.name, found.search.arguments) == ("/there/mine.py:Mine", {"seed": 3, "depth": 2})


def test_a_grid_needs_no_number_of_trials() -> None:
    tree = {key: value for key, value in SWEEP.items() if key != "trials"}
    found = file.taken({**tree, "search": "grid", "space": {"optimizer.lr": {"grid": [0.1, 0.2]}}})
    assert found.trials is None


def test_the_budget_may_name_the_trials() -> None:
    tree = {key: value for key, value in SWEEP.items() if key != "trials"}
    assert file.taken({**tree, "budget": {"trials": 7}}).trials == 7


BITWISE = {**JOB, "reproducible": "bitwise"}
LR = {"optimizer.lr": {"uniform": [0.1, 0.2]}}
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"trails": 3}, ["unknown key 'trails'", "Did you mean 'trials'?"]),
    "unknown search": ({"search": "tep"}, ["unknown search 'tep'", "Did you mean 'tpe'?"]),
    "unknown scheduler": ({"scheduler": "ahsa"}, ["unknown scheduler 'ahsa'", "Did you mean 'asha'?"]),
    "unknown order": ({"order": "strickt"}, ["order='strickt'"]),
    "unknown distribution": ({"space": {"optimizer.lr": {"unifrom": [0, 1]}}}, ["'unifrom'", "'uniform'"]),
    "unknown key of the job": ({"space": {"optimiser.lr": {"uniform": [0.1, 1]}}}, ["no key 'optimiser'", "optimizer"]),
    "unknown key of a section": ({"space": {"schedule.finale": {"uniform": [0, 1]}}}, ["'schedule.finale'", "final"]),
    "unknown key of the job inside": ({"job": {**JOB, "lane": 3}}, ["unknown key 'lane'", "'lanes'"]),
    "empty space": ({"space": {}}, ["space is empty"]),
    "bounds": ({"space": {"optimizer.lr": {"uniform": [1, 0.1]}}}, ["space.optimizer.lr", "wrong way round"]),
    "condition": (
        {"space": {**LR, "optimizer.momentum": {"uniform": [0, 1], "when": {"optimizer.nmae": "sgd"}}}},
        ["space.optimizer.momentum.when.optimizer.nmae", "no such key"],
    ),
    "no trials": ({"trials": 0}, ["trials=0", "greater than or equal to 1"]),
    "trials missing": ({"trials": None}, ["trials is missing"]),
    "two numbers of trials": ({"budget": {"trials": 5}}, ["trials=4 and budget.trials=5"]),
    "no repeats": ({"repeats": 0}, ["repeats=0"]),
    "budget below one trial": ({"budget": {"steps": 99}}, ["budget.steps=99 is below one trial, which has 100"]),
    "budget below one trial, repeated": ({"budget": {"steps": 299}, "repeats": 3}, ["which has 300"]),
    "budget of nothing": ({"budget": {"worker_hours": 0}}, ["budget.worker_hours=0"]),
    "dollars without a price": ({"budget": {"dollars": 3}}, ["budget.dollars needs price_per_worker_hour"]),
    "deadline": ({"budget": {"deadline": "soon"}}, ["budget.deadline='soon'", "30d"]),
    "strict without bitwise": ({"order": "strict", "width": 2}, ["set job.reproducible to bitwise"]),
    "strict without width": ({"order": "strict", "job": BITWISE}, ["needs width"]),
    "mode": ({"metric": "accuracy"}, ["mode is missing: is more accuracy better"]),
    "mode of another kind": ({"mode": "maximise"}, ["mode='maximise'"]),
    "no validation set": ({"job": {**JOB, "data": {"train": "d"}}}, ["set job.data.validation"]),
    "workers the wrong way round": ({"workers": {"min": 3, "max": 2}}, ["workers.min=3 is more than max=2"]),
    "too few workers": ({"job": {**JOB, "workers": {"min": 2, "max": 2}}, "workers": {}}, ["no trial could begin"]),
    "grid without lists": ({"search": "grid"}, ["space.optimizer.lr has no list"]),
    "option of another search": ({"search": {"name": "grid", "seed": 3}}, ["seed is an option of", "grid has none"]),
    "option of another scheduler": ({"scheduler": {"name": "none", "first": 3}}, ["first is an option of asha"]),
    "unknown option": ({"search": {"name": "tpe", "sed": 3}}, ["unknown key 'sed' of search tpe", "'seed'"]),
    "Tune's name of an option": ({"scheduler": {"name": "asha", "grace_period": 3}}, ["is first here"]),
    "Tune's name of an option of a search": ({"search": {"name": "tpe", "n_startup_trials": 3}}, ["is startup here"]),
    "time_attr": ({"time_attr": "training_iteration"}, ["time_attr", "Strike it out"]),
    "search that is no name": ({"search": "mine.py:"}, ["file.py:Class"]),
    "factor": ({"scheduler": {"name": "asha", "factor": 1}}, ["scheduler.factor=1"]),
    "a population that shares": (
        {"scheduler": "pbt", "share_prefix": True},
        ["pbt trials take over", "Strike it out"],
    ),
    "a population of one": ({"scheduler": "pbt", "trials": 1}, ["pbt needs a population"]),
    "a population of repeats": ({"scheduler": "pbt", "repeats": 2}, ["Set repeats to 1"]),
    "mutation of what is not there": (
        {"scheduler": {"name": "pbt", "mutate": ["optimizer.rl"]}},
        ["no key 'optimizer.rl'", "optimizer.lr"],
    ),
    "nothing to mutate": (
        {"scheduler": "pbt", "space": {"arguments.width": {"choice": [1, 2]}}},
        ["nothing to change"],
    ),
    "mutation without bounds": (
        {"scheduler": "pb2", "space": {"optimizer.lr": {"choice": [0.1, 0.2]}}},
        ["pb2 changes numbers between bounds, and optimizer.lr has none"],
    ),
    "seed twice": ({"repeats": 2, "space": {"seed": {"randint": [0, 9]}}}, ["Strike out one of them"]),
    "name": ({"name": "a/b"}, ["name='a/b'"]),
    "long name": ({"name": "x" * 81}, ["name="]),
    "workers in the space": ({"space": {"workers.max": {"choice": [1, 2]}}}, ["space.workers.max", "never what"]),
    "data in the space": ({"space": {"data.train": {"choice": ["a", "b"]}}}, ["space.data.train", "same data"]),
    "task in the space": ({"space": {"task": {"choice": ["a.py:A", "b.py:B"]}}}, ["space.task", "arguments"]),
    "names in the space": ({"space": {"name": {"choice": ["a", "b"]}}}, ["space.name", "called after its sweep"]),
    "checkpoints in the space": ({"space": {"checkpoint.keep_last": {"choice": [2, 3]}}}, ["space.checkpoint"]),
    "bits in the space": ({"space": {"reproducible": {"choice": ["order", "bitwise"]}}}, ["space.reproducible"]),
    "a value that is no job": (
        {"space": {"optimizer.name": {"choice": ["sgd", "adamm"]}}},
        ["unknown optimizer 'adamm'", "with optimizer.name=adamm"],
    ),
    "a value at an edge that is no job": ({"space": {"lanes": {"randint": [0, 9]}}}, ["lanes=0", "with lanes=0"]),
    "values that are no job together": (
        {"space": {"lanes": {"choice": [4, 2]}}, "job": {**JOB, "workers": {"max": 3}, "lanes": 8}},
        ["lanes=2 cannot be carried by workers.max=3"],
    ),
    "a way that leads nowhere": (
        {"space": {"data.sampling.weights.x": {"uniform": [0.1, 1]}}, "job": {**JOB, "data": {**JOB["data"]}}}
        | {"job": {**JOB, "data": {**JOB["data"], "sampling": {"weights": "balanced"}}}},
        ["data.sampling.weights is 'balanced', which has no parts"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_the_words_of_the_file(case: str) -> None:
    more, words = BAD[case]
    said = refusal({**SWEEP, **more})
    assert all(word in said for word in words), said
    assert "pydantic" not in said
    assert "value error" not in said.lower()


def test_two_settings_that_do_not_go_together_are_said_before_anything_runs() -> None:
    space = {
        "schedule.name": {"choice": ["constant", "plateau", "cosine", "linear"]},
        "schedule.metric": {"choice": ["loss"], "when": {"schedule.name": "plateau"}},
        "schedule.warmup_steps": {"choice": [0, 50, 20]},
    }
    said = refusal({**SWEEP, "space": space})
    assert "set warmup_steps to 0 (with schedule.name=plateau, schedule.metric=loss, schedule.warmup_steps=50)" in said
    apart = {**space, "schedule.warmup_steps": {"choice": [0, 50], "when": {"schedule.name": ["cosine", "linear"]}}}
    assert sweep(space=apart).space == apart


def test_a_middle_of_the_space_that_makes_no_job_is_said_with_its_settings() -> None:
    said = refusal({**SWEEP, "space": {"optimizer.lr": {"choice": [0.1, "fast", 0.2]}}})
    assert "optimizer.lr=fast" in said


def test_pairs_are_of_a_size_however_many_keys_there_are() -> None:
    found = space.parse({f"arguments.a{number}": {"choice": list(range(20))} for number in range(40)})
    assert 400 < len(list(found.pairs(500))) <= 500
    few = space.parse({"arguments.a": {"choice": [1, 2]}, "arguments.b": {"uniform": [0, 1]}})
    assert [tuple(each.values()) for each in few.pairs(500)] == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = refusal({**SWEEP, "trails": 3, "repeats": 0, "space": {"optimizer.lr": {"unifrom": [0, 1]}}})
    assert all(word in said for word in ("trails", "repeats=0", "unifrom"))


def test_a_missing_job_or_space_is_said() -> None:
    said = refusal({"trials": 3, "name": "n"})
    assert "job is missing" in said
    assert "space is missing" in said


def test_files_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no sweep at .*sweep.yaml"):
        file.load(tmp_path / "sweep.yaml")
    (tmp_path / "sweep.yaml").write_text(json.dumps({**SWEEP, "job": "job.yaml"}), encoding="utf-8")
    with pytest.raises(BadInput, match=r"no job at .*job.yaml"):
        file.load(tmp_path / "sweep.yaml")
    (tmp_path / "sweep.yaml").write_text("- 1", encoding="utf-8")
    with pytest.raises(BadInput, match="not a sweep"):
        file.load(tmp_path / "sweep.yaml")


def test_a_mixtures_weights_may_be_swept() -> None:
    data = {"train": [{"path": "a"}, {"path": "b"}], "validation": "v"}
    found = sweep(job={**JOB, "data": data}, space={"data.train.1.weight": {"uniform": [0.1, 2]}})
    assert [each.weight for each in found.job_of({"data.train.1.weight": 0.5}).data.sources] == [1.0, 0.5]


def test_the_schema_takes_what_is_taken_and_lists_all_distributions() -> None:
    schema = file.schema()
    assert set(schema["required"]) == {"job", "space"}
    assert set(Sweep.model_fields) - {"earlier"} | {"from"} == set(schema["properties"])
    text = json.dumps(schema)
    assert '"qlograndint"' in text
    assert '"#/$defs/job.Workers"' in text
    names = {name.rpartition("/")[2] for name in _references(schema)}
    assert names <= set(schema["$defs"]), "every part that is named is there"


@pytest.mark.parametrize(
    "tree",
    [
        SWEEP,
        {**SWEEP, "job": "job.yaml", "search": "random", "from": "earlier", "scheduler": {"name": "pbt", "every": 3}},
        {**SWEEP, "space": {"a": 3, "b": {"choice": [1], "when": {"c": 1}}, "c": {"grid": [[1, 2]]}}},
        {**SWEEP, "search": {"name": "mine.py:Mine", "depth": 3}, "budget": {"deadline": "2h"}, "memory": "2GiB"},
    ],
)
def test_editors_take_what_is_taken(tree: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(file.schema()).validate(tree)


@pytest.mark.parametrize(
    "more",
    [
        {"trails": 3},
        {"space": {}},
        {"space": {"a": {"unifrom": [0, 1]}}},
        {"space": {"a": {"uniform": [0]}}},
        {"job": {**JOB, "lane": 3}},
        {"order": "stirct"},
    ],
)
def test_editors_mark_what_is_refused(more: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(file.schema()).is_valid({**SWEEP, **more})


def test_the_sweeps_of_the_recipes_are_good() -> None:
    found = list((Path(__file__).parents[2] / "trainers").rglob("sweep.yaml"))
    assert found
    for path in found:
        assert file.load(path).example


def _references(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        own = [tree["$ref"]] if isinstance(tree.get("$ref"), str) else []
        return own + [name for each in tree.values() for name in _references(each)]
    return [name for each in tree for name in _references(each)] if isinstance(tree, list) else []


def test_reading_a_sweep_needs_neither_ray_nor_torch() -> None:
    import subprocess

    code = "import sys; import headway.sweeps.file; print([m for m in ('ray', 'torch', 'optuna') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_two_settings_that_make_no_job_together_are_refused() -> None:
    space = {
        "schedule.name": {"choice": ["constant", "plateau", "cosine"]},
        "schedule.metric": {"choice": ["loss"], "when": {"schedule.name": "plateau"}},
        "schedule.warmup_steps": {"choice": [0, 50]},
    }
    said = refusal({**SWEEP, "space": space})
    assert "schedule.name=plateau" in said
    assert "schedule.warmup_steps=50" in said
    space["schedule.warmup_steps"]["when"] = {"schedule.name": ["constant", "cosine"]}
    file.taken({**SWEEP, "space": space})


def test_settings_that_make_no_job_are_unfit() -> None:
    with pytest.raises(Unfit, match="trial is not a valid job"):
        Ways(sweep(job={**JOB, "evaluate_every_steps": 10}))({"optimizer.lr": -1.0})


def test_the_price_of_a_workers_hour_is_the_sweeps_or_its_jobs() -> None:
    job, settings = {**JOB, "workers": {"price_per_hour": 2.0}}, {"optimizer.lr": 0.1}
    assert sweep().price is None
    assert sweep(job=job, budget={"dollars": 3}).price == 2.0
    assert sweep(job=job).job_of(settings).workers.price_per_hour == 2.0
    priced = sweep(job=job, price_per_worker_hour=0.5)
    assert (priced.price, priced.job_of(settings).workers.price_per_hour) == (0.5, 0.5)
    each = sweep(job={**JOB, "budget": {"worker_hours": 9}}, price_per_worker_hour=0.5).job_of(settings)
    assert each.budget is not None
    assert each.budget.worker_hours == 9
