"""`headway init`: what columns are good for, what is written, and that it trains as it is written."""

from __future__ import annotations

import datetime
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import headway
from headway.cli.app import app
from headway.data.manifest import load
from headway.errors import BadData, BadInput
from headway.init.beginning import begin
from headway.init.columns import judged
from headway.job import load as load_job

ROWS = 600


def people(rows: int = ROWS) -> pa.Table:
    """Customers: whether they leave follows from the plan and the visits."""
    random = np.random.default_rng(0)
    visits, plan = random.poisson(4, rows), random.choice(["free", "pro", "team"], rows)
    score = 1.5 * (plan == "free") - 0.8 * (visits - 4)
    leaves = random.random(rows) < 1 / (1 + np.exp(-2 * score))
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(day)) for day in random.integers(0, 900, rows)]
    return pa.table(
        {
            "customer_id": np.arange(rows) + 1000,
            "visits": pa.array(visits, mask=random.random(rows) < 0.05),
            "balance": random.gamma(2, 1000, rows).round(2),
            "plan": plan,
            "since": pa.array(days),
            "remark": [f"{word} {number}" for number, word in enumerate(random.choice(["good", "bad"], rows))],
            "source": ["web"] * rows,
            "reason": np.where(leaves, "price", None),
            "churned": np.where(leaves, "yes", "no"),
            "spent": 3.0 * visits + random.normal(0, 1, rows),
        }
    )


# Columns


def test_columns_are_put_where_they_belong() -> None:
    roles = judged(people(), "churned")
    assert roles.kind == "classes"
    assert set(roles.classes) == {"yes", "no"}
    assert roles.numbers == ["visits", "balance", "spent"]
    assert roles.dates == ["since"]
    assert roles.categories == ["plan"]
    assert set(roles.left) == {"customer_id", "remark", "source", "reason"}
    assert "names rows" in roles.left["customer_id"]
    assert roles.left["source"] == "it has one value"


def test_a_column_that_tells_the_target_is_told_of() -> None:
    table = people().set_column(
        7, "reason", pa.array(["price" if c == "yes" else "none" for c in people()["churned"].to_pylist()])
    )
    (note,) = judged(table, "churned").notes
    assert note.startswith("reason alone tells it in 100.0% of the rows: is it known before churned is?")
    balance = people()["balance"].to_numpy()
    (note,) = judged(people().append_column("tax", pa.array(balance * 0.19)), "balance").notes
    assert "tax goes with it almost exactly (correlation 1.000)" in note
    (note,) = judged(people().append_column("churned_by", people()["plan"]), "churned").notes
    assert "named like churned" in note


@pytest.mark.parametrize(
    ("target", "kind"), [("spent", "number"), ("visits", "classes"), ("plan", "classes"), ("balance", "number")]
)
def test_what_is_predicted_is_classes_or_a_number(target: str, kind: str) -> None:
    assert judged(people(), target).kind == kind


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("churnd", "Did you mean 'churned'"),
        ("source", "it has one value"),
        ("remark", "too many for classes"),
        ("since", "text, booleans and numbers can be predicted"),
    ],
)
def test_what_cannot_be_predicted_is_refused(target: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        judged(people(), target)
    with pytest.raises(BadInput, match="nothing is left to predict 'y' from"):
        judged(pa.table({"y": [0, 1] * 5, "x": [1] * 10}), "y")


# Files


def trained(folder: Path, steps: int = 4, **fields: Any) -> Any:
    """A run of what was written, in this process."""
    from headway.job import load as job_of

    settings = ["steps=" + str(steps), "epochs=null", "tracking.enabled=false", "schedule=null"]
    job = job_of(folder / "job.yaml", [*settings, *(f"{key}={value}" for key, value in fields.items())])
    return headway.train(job, name="r", runs_folder=folder / "runs", address="in-process")


def formatted(folder: Path) -> None:
    """What is written is as ruff would have it."""
    for how in (["check", "--select", "E,F,W"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *how, "--no-cache", "--isolated", "--line-length", "120", "task.py"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("target", "metric"), [("churned", "auc"), ("plan", "accuracy"), ("spent", "absolute_error")])
def test_a_table_becomes_a_task_that_trains(tmp_path: Path, target: str, metric: str) -> None:
    table = people()
    if target == "churned":
        table = table.set_column(8, "churned", pa.array([None, *table["churned"].to_pylist()[1:]]))
    pq.write_table(table.drop_columns(["reason"]), tmp_path / "people.parquet")
    begun = begin(tmp_path / "people.parquet", target, folder=tmp_path)
    assert sum(begun.parts.values()) == ROWS - (target == "churned"), "a row without a target is left out"
    assert [path.name for path in begun.files] == ["task.py", "job.yaml"]
    formatted(tmp_path)
    report = trained(tmp_path)
    assert report.state == "finished"
    assert metric in report.metrics
    assert json.loads((tmp_path / "runs/r/run.json").read_text())["fitted"]["sha256"]


def test_a_class_that_training_has_not_seen_ends_no_run(tmp_path: Path) -> None:
    """Of many classes some have rows in the validation part alone."""
    table = people().select(["visits", "plan"])
    table = table.append_column("kind", pa.array([f"rare {i}" if i % 4 == 0 else "usual" for i in range(ROWS)]))
    pq.write_table(table, tmp_path / "people.parquet")
    begin(tmp_path / "people.parquet", "kind", folder=tmp_path)
    report = trained(tmp_path)
    assert report.state == "finished"
    assert np.isfinite(report.metrics["loss"])
    assert report.metrics["accuracy"] < 1


def test_names_of_others_are_no_code(tmp_path: Path) -> None:
    """What a stranger's table calls its columns is not run."""
    table = people()
    odd = 'x"""\nraise SystemExit("run")\n"""\\'
    told = pa.array([f"{value}!" for value in table["churned"].to_pylist()])
    table = table.append_column(odd, told).append_column('it\'s "so"', table["churned"])
    pq.write_table(table, tmp_path / 'a \'""" b.parquet')
    begun = begin(tmp_path / 'a \'""" b.parquet', 'it\'s "so"', folder=tmp_path)
    assert any("SystemExit" in note for note in begun.notes)
    names: dict[str, Any] = {}
    exec(compile((tmp_path / "task.py").read_text(encoding="utf-8"), "task.py", "exec"), names)
    assert names["TARGET"] == 'it\'s "so"'
    assert odd in names["CATEGORIES"]


def test_images_become_a_task_that_trains(tmp_path: Path) -> None:
    for name, value in (("cat", 40), ("dog", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(30):
            pixels = np.random.default_rng(number).integers(0, 50, (20, 24, 3)) + value
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pets" / name / f"{number}.png")
    begun = begin(tmp_path / "pets", folder=tmp_path, image_size="16x16")
    assert begun.kind == "images"
    assert load(tmp_path / "data/pets/train").categories == {"label": ["cat", "dog"]}
    formatted(tmp_path)
    assert trained(tmp_path).metrics["accuracy"] >= 0


def test_text_becomes_a_task_that_trains(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    for number in range(4):
        (tmp_path / "words" / f"{number}.txt").write_text(f"the quick brown fox {number} " * 600)
    begun = begin(tmp_path / "words", folder=tmp_path)
    assert begun.kind == "text"
    formatted(tmp_path)
    report = trained(tmp_path, 2, lanes=2, lane_batch=4)
    assert report.metrics["bits_per_byte"] > 0


def test_datasets_that_are_there_are_taken_as_they_are(tmp_path: Path) -> None:
    pq.write_table(people(), tmp_path / "people.parquet")
    begin(tmp_path / "people.parquet", "churned", folder=tmp_path / "one")
    begun = begin(tmp_path / "one/data/people", "churned", folder=tmp_path / "two")
    assert not (tmp_path / "two/data").exists()
    assert "train: ../one/data/people/train" in (tmp_path / "two/job.yaml").read_text()
    assert set(begun.parts) == {str(tmp_path / "one/data/people" / part) for part in ("train", "validation", "test")}


def test_a_try_that_fails_leaves_room_for_the_next(tmp_path: Path) -> None:
    table = people().append_column("same", pa.array(["x"] * ROWS))
    pq.write_table(table, tmp_path / "people.parquet")
    with pytest.raises(BadInput, match="it has one value"):
        begin(tmp_path / "people.parquet", "same", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["people.parquet"]
    begin(tmp_path / "people.parquet", "churned", folder=tmp_path)


def test_long_names_and_names_in_other_scripts_are_columns_of_the_job(tmp_path: Path) -> None:
    names = {
        "visits": "How often did you come to us in the last twelve months, " * 3,
        "balance": "größe",
        "plan": "план",
    }
    table = people().select(["visits", "balance", "plan", "churned"])
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    pq.write_table(table, tmp_path / "my people.parquet")
    begun = begin(tmp_path / "my people.parquet", "churned", folder=tmp_path)
    assert set(names.values()) <= set(load_job(tmp_path / "job.yaml").data.columns or [])
    assert "größe" in (tmp_path / "job.yaml").read_text(encoding="utf-8")
    assert shlex.split(begun.commands[2])[3] == str(tmp_path / "my people.parquet")


def test_an_option_of_preparation_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("größe,y\nä,1\nö,2\n".encode("latin-1"))
    with pytest.raises(BadData, match=r"--encoding cp1252.*an option of `headway data prepare"):
        begin(tmp_path / "a.csv", "y", folder=tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    pq.write_table(people(), tmp_path / "people.parquet")
    (tmp_path / "job.yaml").write_text("mine")
    with pytest.raises(BadInput, match=r"job.yaml is there already: nothing is overwritten"):
        begin(tmp_path / "people.parquet", "churned", folder=tmp_path)
    (tmp_path / "job.yaml").unlink()
    (tmp_path / "data/people").mkdir(parents=True)
    with pytest.raises(BadInput, match="already exists"):
        begin(tmp_path / "people.parquet", "churned", folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "people.parquet"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target": None}, "--target is missing"),
        ({"target": "churn"}, "churn"),
        ({"image_size": "8x8", "target": "churned"}, "holds no images"),
        ({"source": "nowhere.csv", "target": "x"}, "it does not exist"),
        ({"source": "words.txt", "target": "x"}, "text predicts its next byte"),
        ({"source": "words.tar", "target": "x"}, "a task is written for tables, images by class and text"),
    ],
)
def test_bad_input_is_said_and_nothing_is_left(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    pq.write_table(people(), tmp_path / "people.parquet")
    (tmp_path / "words.txt").write_text("words")
    (tmp_path / "words.tar").write_text("words")
    source = tmp_path / given.pop("source", "people.parquet")
    with pytest.raises((BadInput, BadData), match=said):
        begin(source, given.pop("target"), folder=tmp_path / "new", **given)
    assert not (tmp_path / "new" / "task.py").exists()
    assert not list((tmp_path / "new").rglob("manifest.json"))


def test_the_command_says_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    people().to_pandas().to_csv("people.csv", index=False)
    said = CliRunner().invoke(app, ["init", "people.csv", "--target", "churned", "--name", "leavers"])
    assert said.exit_code == 0, said.output
    assert "target  churned, 2 classes" in said.stdout
    assert "left out  customer_id: it names rows" in said.stdout
    assert "  headway train job.yaml --local --name first" in said.stdout
    assert "class Leavers(headway.Task):" in Path("task.py").read_text()
    again = CliRunner().invoke(app, ["init", "people.csv", "--target", "churned", "--to", "b", "--json"])
    assert json.loads(again.stdout)["roles"]["target"] == "churned"


def test_it_gives_the_rows_and_parts_that_prepare_gives(tmp_path: Path) -> None:
    """By the same hash of each row: those of the training set stay there when the set grows."""
    people().to_pandas().to_csv(tmp_path / "a.csv", index=False)
    more = pd.concat([people().to_pandas(), people(700).to_pandas().tail(100)])
    more.to_csv(tmp_path / "b.csv", index=False)
    for name in ("a", "b"):
        begin(tmp_path / f"{name}.csv", "churned", folder=tmp_path / name)
    first, second = (
        set(pq.read_table(tmp_path / name / "data" / name / "test" / "shard-00000.parquet")["customer_id"].to_pylist())
        for name in ("a", "b")
    )
    assert first <= second
