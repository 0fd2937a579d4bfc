"""A job is checked once, at the door: what is accepted, and what each bad one is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headway.errors import BAD_INPUT, BadInput
from headway.job import Job, load, parse, taken, to_yaml

MINIMAL = "name: n\ntask: task.py:T\ndata: {train: d}\nepochs: 1\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, more: str = "", settings: list[str] | None = None) -> Job:
    return load(written(folder, MINIMAL + more), settings)


def refusal(folder: Path, text: str, settings: list[str] | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        load(written(folder, text), settings)
    assert caught.value.exit_code == BAD_INPUT
    assert caught.value.fact
    assert caught.value.remedy, "every refusal says what to do"
    return str(caught.value)


def test_a_minimal_job_has_sensible_defaults(tmp_path: Path) -> None:
    job = loaded(tmp_path)
    assert (job.lanes, job.lane_batch, job.global_batch) == (8, 32, 256)
    assert (job.workers.min, job.workers.max, job.precision, job.strategy.kind) == (1, 1, "fp32", "all_reduce")
    assert job.checkpoint.keep_last == 2


def test_a_job_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        loaded(tmp_path).lanes = 3  # type: ignore[misc]


BAD: dict[str, tuple[str, list[str]]] = {
    "unknown key": ("lane: 4", ["unknown key 'lane'", "Did you mean 'lanes'?"]),
    "unknown key below": ("checkpoint: {every_step: 4}", ["'checkpoint.every_step'", "Did you mean 'every_steps'?"]),
    "unknown key in an optional section": ("schedule: {warmup: 4}", ["'schedule.warmup'", "'warmup_steps'"]),
    "unknown key, nothing near": ("zzz: 1", ["unknown key 'zzz'", "Known: ", "lane_batch"]),
    "wrong type": ("lanes: many", ["lanes='many'", "valid integer"]),
    "wrong type of a section": ("workers: 3", ["workers=3", "dictionary"]),
    "wrong type: text for a list": ("data: {train: d, columns: label}", ["data.columns='label'", "valid list"]),
    "wrong type: a fraction": ("lanes: 2.5", ["lanes=2.5"]),
    "wrong type: yes for a number": ("lanes: yes", ["lanes=True", "no value"]),
    "wrong type: on for a float": ("optimizer: {name: sgd, lr: on}", ["optimizer.lr=True"]),
    "wrong type: number for a name": ("name: 5", ["name=5", "valid string"]),
    "min over max": ("workers: {min: 3, max: 2}", ["min=3", "max=2", "set min to 2 or less"]),
    "hang_s within the silence": (
        "workers: {silence_s: 30, hang_s: 60}",
        ["workers.hang_s=60", "workers.silence_s=30", "Set hang_s above 60"],
    ),
    "patience_s below hang_s": (
        "workers: {hang_s: 1200, patience_s: 900}",
        ["workers.patience_s=900", "workers.hang_s=1200", "Set patience_s to 1200 or more"],
    ),
    "no patience": ("workers: {patience_s: 0}", ["workers.patience_s=0"]),
    "2.23: half a GPU for each of two": (
        "workers: {gpus: 0.5, max: 2}",
        ["workers.gpus=0.5", "workers.max=2", "NCCL", "Set gpus to 1, or max to 1"],
    ),
    "one and a half GPUs": ("workers: {gpus: 1.5}", ["workers.gpus=1.5", "a whole number"]),
    "lanes below max": (
        "lanes: 8\nworkers: {max: 12}",
        ["lanes=8 cannot be carried by workers.max=12", "4 workers would idle", "Set lanes to 12 or more"],
    ),
    "rows together below a lane": (
        "lane_batch: 32\nrows_together: 16",
        ["rows_together=16 is less than lane_batch=32", "Set rows_together to 32 or more", "micro_batch"],
    ),
    "no rows together": ("rows_together: 0", ["rows_together=0"]),
    "rows together by another word": ("rows_together: all", ["rows_together='all'"]),
    "lanes together by another word": ("lanes_together: always", ["lanes_together='always'", "'auto' or 'never'"]),
    "micro_batch that does not divide": (
        "lane_batch: 32\nmicro_batch: 5",
        ["micro_batch=5 does not divide lane_batch=32", "Set micro_batch to a divisor of 32"],
    ),
    "micro_batch and accumulate": (
        "lane_batch: 32\nmicro_batch: 8\naccumulate: 2",
        ["micro_batch=8 and accumulate=2", "Give one of them"],
    ),
    "activation checkpointing by a number": (
        "activation_checkpointing: 3",
        ["activation_checkpointing", "write true, false, or names of modules"],
    ),
    "activation checkpointing of nothing": ("activation_checkpointing: []", ["names of modules"]),
    "zero lanes": ("lanes: 0", ["lanes=0"]),
    "negative lane batch": ("lane_batch: -1", ["lane_batch=-1"]),
    "negative steps": ("steps: -5", ["steps=-5"]),
    "negative seed": ("seed: -1", ["seed=-1"]),
    "seed too large": (f"seed: {2**63}", [f"seed={2**63}"]),
    "negative memory": ("workers: {memory: -1}", ["workers.memory=-1"]),
    "negative learning rate": ("optimizer: {name: sgd, lr: -0.1}", ["optimizer.lr=-0.1"]),
    "infinite learning rate": ("optimizer: {name: sgd, lr: .inf}", ["optimizer.lr=inf"]),
    "learning rate not a number": ("optimizer: {name: sgd, lr: .nan}", ["optimizer.lr=nan"]),
    "no learning rate": ("optimizer: {name: sgd}", ["optimizer.lr is missing"]),
    "negative clip": ("clip_norm: -1", ["clip_norm=-1"]),
    "unknown optimizer": ("optimizer: {name: adamW, lr: 0.1}", ["optimizer 'adamW'", "Did you mean 'adamw'?"]),
    "unknown schedule": ("schedule: {name: cosin}", ["schedule 'cosin'", "Did you mean 'cosine'?"]),
    "unknown strategy": ("strategy: allreduce", ["strategy 'allreduce'", "Did you mean 'all_reduce'?"]),
    "unknown precision": ("precision: fp8", ["precision='fp8'", "'fp32', 'bf16' or 'fp16'"]),
    "unknown mode": ("checkpoint: {mode: best}", ["checkpoint.mode='best'", "'min' or 'max'"]),
    "bad memory unit": ("workers: {memory: 2 parsecs}", ["workers.memory='2 parsecs'", "like 512MiB"]),
    "bad memory number": ("workers: {memory: 1.2.3GiB}", ["workers.memory='1.2.3GiB'", "like 512MiB"]),
    "bad name": ("name: a/b", ["name='a/b'"]),
    "a price of nothing": ("workers: {price_per_hour: 0}", ["workers.price_per_hour=0"]),
    "two budgets": ("budget: {dollars: 3, usd: 4}", ["usd=4 and dollars=3 are the same: give usd alone"]),
    "a budget of nothing": ("budget: {worker_hours: 0}", ["budget.worker_hours=0"]),
    "no port": ("prometheus: {port: 70000}", ["prometheus.port=70000"]),
    "no address": ("prometheus: {host: ''}", ["prometheus.host=''"]),
    "prometheus by another word": ("prometheus: 9090", ["prometheus=9090"]),
    "both epochs and steps": ("epochs: 1\nsteps: 5", ["either epochs or steps", "both are given"]),
    "no columns": ("data: {train: d, columns: []}", ["data.columns"]),
    "task without a class": ("task: task.py", ["task='task.py'", "file.py:Class"]),
    "task with a bad name": ("task: 'task.py:not a name'", ["file.py:Class"]),
    "a key that is a number": ("5: 6", ["5"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_job_is_refused_in_the_users_words(tmp_path: Path, case: str) -> None:
    more, said = BAD[case]
    given = {line.partition(":")[0] for line in more.splitlines()}
    rest = [line for line in MINIMAL.splitlines() if line.partition(":")[0] not in given]
    message = refusal(tmp_path, "\n".join([*rest, more]))
    for words in [str(tmp_path / "job.yaml"), *said]:
        assert words in message


def test_neither_epochs_nor_steps(tmp_path: Path) -> None:
    assert "neither is given" in refusal(tmp_path, MINIMAL.replace("epochs: 1\n", ""))


def test_figures_for_prometheus_are_served_unless_the_job_says_otherwise() -> None:
    tree = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "epochs": 1}
    assert parse(tree).prometheus.enabled
    assert parse(tree).prometheus.host == "127.0.0.1", "nobody else can read them"
    assert not parse({**tree, "prometheus": False}).prometheus.enabled
    assert parse({**tree, "prometheus": True}) == parse(tree)


@pytest.mark.parametrize("key", ["name", "task", "data"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key))
    assert f"{key} is missing" in refusal(tmp_path, text)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + "lanes: 0\nlane: 3\nworkers: {min: x}\n")
    assert "lanes=0" in message
    assert "'lane'" in message
    assert "workers.min='x'" in message


def test_spares_are_workers_beyond_the_most_that_train(tmp_path: Path) -> None:
    assert loaded(tmp_path).workers.spares == 0
    workers = loaded(tmp_path, "workers: {min: 1, max: 1, spares: 2}\n").workers
    assert (workers.max, workers.most) == (1, 3)
    with pytest.raises(BadInput, match="spares"):
        loaded(tmp_path, "workers: {spares: -1}\n")


def test_every_contradiction_is_named_at_once(tmp_path: Path) -> None:
    more = "steps: 5\nlanes: 2\nworkers: {min: 4, max: 3, silence_s: 5, hang_s: 9, patience_s: 8, gpus: 0.5}\n"
    message = refusal(tmp_path, MINIMAL + more)
    wanted = ["both are given", "1 workers would idle", "workers.min=4", "hang_s=9", "patience_s=8", "gpus=0.5"]
    assert [words for words in wanted if words not in message] == []


def test_2_8_patience_follows_a_longer_hang_s(tmp_path: Path) -> None:
    assert loaded(tmp_path).workers.patience_s == 900
    assert loaded(tmp_path, "workers: {hang_s: 1200}\n").workers.patience_s == 1200


def test_2_23_a_lone_worker_may_share_a_gpu(tmp_path: Path) -> None:
    assert loaded(tmp_path, "workers: {gpus: 0.5}\n").workers.gpus == 0.5
    assert loaded(tmp_path, "workers: {gpus: 2, max: 2}\n").workers.gpus == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not YAML: line 1"),
        ("name: n\n  lanes: 3", "is not YAML: line 2"),
        ("a: \x07", "is not YAML"),
        ("lanes: 3\nlanes: 4", "line 2, column 1: key 'lanes' is given twice"),
        ("? [a, b]\n: c", "a key must be a plain word"),
        ("day: 2024-13-45", "cannot be read as YAML"),
        ("--- a\n--- b", "is not YAML"),
        ("", "holds nothing, not a job"),
        ("- a\n- b", "holds a list, not a job"),
        ("just words", "holds a str, not a job"),
        ("task: !!python/object:os.system x", "is not YAML"),
    ],
)
def test_what_is_no_yaml_or_no_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no job at .*nowhere"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "bytes.yaml")


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as text: torch would refuse the weight decay, and a task would get a str."""
    more = "optimizer: {name: adamw, lr: 1e-3, weight_decay: 1e-4}\narguments: {rate: 5e-1, big: 1E5, name: e5}\n"
    job = loaded(tmp_path, more, ["clip_norm=1e0", "arguments.small=1e-9"])
    assert job.optimizer is not None
    assert job.optimizer.lr == 1e-3
    assert job.optimizer.model_extra == {"weight_decay": 1e-4}
    assert job.arguments == {"rate": 0.5, "big": 1e5, "name": "e5", "small": 1e-9}
    assert job.clip_norm == 1.0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1024", 1024),
        ("1k", 1000),
        ("512MiB", 512 * 2**20),
        ("'2 GiB'", 2 * 2**30),
        ("1.5GB", 1_500_000_000),
        ("1ti", 2**40),
    ],
)
def test_memory_is_bytes_with_or_without_a_unit(tmp_path: Path, text: str, count: int) -> None:
    assert loaded(tmp_path, f"workers: {{memory: {text}}}\n").workers.memory == count


def test_paths_in_the_file_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "jobs", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    data = "{train: d/train, validation: /abs/val, cache: {folder: kept}}"
    text = f"name: n\ntask: ../code/t.py:T\ndata: {data}\nepochs: 1\n"
    job = load(written(folder, text), ["data.validation=here"])
    assert job.task == f"{tmp_path}/code/t.py:T"
    assert job.data.train == str(folder / "d/train")
    assert job.data.cache.folder == str(folder / "kept")
    assert job.data.validation == str(elsewhere / "here"), "an override is relative to where the user stands"
    assert load(folder / "job.yaml", ["task=mine.py:T"]).task == f"{elsewhere}/mine.py:T"
    assert load(folder / "job.yaml", ["task=pkg.mod:T"]).task == "pkg.mod:T", "a module is no path"


def test_paths_of_home_and_of_object_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    job = loaded(tmp_path, "", ["data.train=~/d", "data.validation=s3://bucket/d"])
    assert job.data.train == str(tmp_path / "d")
    assert job.data.validation == "s3://bucket/d"
    message = refusal(tmp_path, MINIMAL, ["data.train=~nobody-of-that-name/d"])
    assert "'~nobody-of-that-name/d' cannot be used" in message


def test_settings_override_by_dotted_key(tmp_path: Path) -> None:
    settings = ["workers.max=3", "optimizer.name=sgd", "optimizer.lr=1e-2", "checkpoint.every_steps=null", "name=x=y"]
    with pytest.raises(BadInput, match="name='x=y'"):
        loaded(tmp_path, "workers: {min: 2, max: 2}\n", settings)
    job = loaded(tmp_path, "workers: {min: 2, max: 2}\n", settings[:-1])
    assert (job.workers.min, job.workers.max, job.checkpoint.every_steps) == (2, 3, None)
    assert job.optimizer is not None
    assert job.optimizer.lr == 0.01


def test_a_setting_may_repeat_a_word_and_hold_a_mapping(tmp_path: Path) -> None:
    job = loaded(tmp_path, "", ["arguments.a.b.a={c: 1}", "arguments.a.b.d=[1, 2]", "arguments.text=a: b: c"])
    assert job.arguments == {"a": {"b": {"a": {"c": 1}, "d": [1, 2]}}, "text": "a: b: c"}


@pytest.mark.parametrize("setting", ["lanes", "=3", ".lanes=3", "workers..max=3", "workers.=3", ""])
def test_a_malformed_setting_is_refused(tmp_path: Path, setting: str) -> None:
    message = refusal(tmp_path, MINIMAL, [setting])
    assert f"--set {setting}" in message
    assert "key=value" in message


def test_a_setting_that_is_wrong_is_refused_like_the_file(tmp_path: Path) -> None:
    assert "unknown key 'worker'. Did you mean 'workers'?" in refusal(tmp_path, MINIMAL, ["worker.max=3"])
    assert "lanes" in refusal(tmp_path, MINIMAL, ["lanes.x=3"])
    assert "lanes=None" in refusal(tmp_path, MINIMAL, ["lanes="])


def test_a_kept_job_reads_back_as_itself(tmp_path: Path) -> None:
    """The run's own job.yaml: text that looks like a number must stay text."""
    more = "optimizer: {name: adamw, lr: 1e-3, betas: [0.9, 0.99]}\narguments: {text: '1e-3', word: 'no', n: 1e-7}\n"
    job = loaded(tmp_path, more)
    assert load(written(tmp_path, to_yaml(job))) == job
    assert job.arguments["text"] == "1e-3"


def test_parse_takes_a_mapping() -> None:
    job = parse({"name": "n", "task": "t.py:T", "data": {"train": "d"}, "steps": 3})
    assert job.steps == 3
    with pytest.raises(BadInput, match="job is not a valid job: unknown key 'stesp'"):
        parse({"name": "n", "task": "t.py:T", "data": {"train": "d"}, "stesp": 3})


def test_the_schema_documents_every_key() -> None:
    schema: dict[str, Any] = Job.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    for section in (schema, *schema["$defs"].values()):
        for name, field in section["properties"].items():
            assert field.get("description"), name
    assert schema["additionalProperties"] is False
    assert re.match(schema["properties"]["name"]["pattern"], "a-b.c")
    assert set(schema["required"]) == {"name", "task", "data"}


def test_a_job_made_in_python_is_kept_too(tmp_path: Path) -> None:
    job = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3, "arguments": {"a": "2e5"}})
    assert load(written(tmp_path, to_yaml(job))) == job


def test_a_job_that_is_given_in_python_is_good_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {
        "name": "n",
        "task": "t.py:T",
        "data": {"train": ({"path": "a"}, {"path": "/b"})},
        "steps": 3,
        "files": ["x"],
    }
    for given in (tree, parse(tree), written(tmp_path, to_yaml(parse(tree)))):
        job = taken(given)
        assert job.task == f"{tmp_path}/t.py:T"
        assert [part.path for part in job.data.sources] == [f"{tmp_path}/a", "/b"]
        assert job.files == [f"{tmp_path}/x"]
    with pytest.raises(BadInput, match=r"the job is a list.*Give a mapping"):
        taken([tree])  # type: ignore[arg-type]


def test_a_task_may_be_a_link(tmp_path: Path) -> None:
    """What lies beside the link is what the task finds; folders of data are followed to where they are."""
    (tmp_path / "real").mkdir()
    (tmp_path / "t.py").symlink_to("real/t.py")
    (tmp_path / "d").symlink_to("real")
    job = load(written(tmp_path, MINIMAL.replace("task.py", "./x/../t.py")))
    assert (job.task, job.data.train) == (f"{tmp_path}/t.py:T", f"{tmp_path}/real")
