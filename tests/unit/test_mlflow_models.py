"""What MLflow's own tools make of a run's checkpoints: pointers that load while these are there, and promoted models
that outlive their run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.pages import commands, strange
from tests.unit.trained import TASK, points, trained
from typer.testing import CliRunner

import headway
from headway import plan
from headway.cli.app import app
from headway.data.write.writer import write_dataset
from headway.driver.equipment import first_event
from headway.errors import BadCheckpoint, BadInput
from headway.job import load
from headway.models.promoting import promote
from headway.runs import RunFolder
from headway.tracking import pages
from headway.tracking.mlflow_writer import Writer
from headway.tracking.spool import Spool
from headway.tracking.store import DATABASE, connect, default_uri

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")

DEADLINE_S = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with checkpoints of steps 2, 4, 6 and 8."""
    return trained(tmp_path_factory.mktemp("run"), TASK, points(tmp_path_factory.mktemp("data")))


@pytest.fixture
def copy(run: RunFolder, tmp_path: Path) -> RunFolder:
    """One of the test's own."""
    shutil.copytree(run.path, tmp_path / "runs" / run.name)
    return RunFolder(tmp_path / "runs" / run.name)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without records, whose tables take seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    connect(default_uri(folder), folder)
    return folder / DATABASE


@pytest.fixture
def mlflow(tmp_path: Path, empty: Path) -> Iterator[Any]:
    """The library, over the store of the test's runs."""
    import mlflow

    (tmp_path / "runs").mkdir(exist_ok=True)
    shutil.copy(empty, tmp_path / "runs" / DATABASE)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(default_uri(tmp_path / "runs"))
    yield mlflow
    mlflow.set_tracking_uri(before)


def rows(count: int = 5) -> pd.DataFrame:
    chance = np.random.default_rng(5)
    return pd.DataFrame({"a": chance.normal(size=count), "b": chance.normal(size=count)})


def expected(run: RunFolder, step: int | str, given: pd.DataFrame) -> pd.DataFrame:
    found = headway.predict(run.path, pa.Table.from_pandas(given), step=step).table
    assert found is not None
    return found.to_pandas()


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> bool:
    scores = np.allclose(np.stack(found["scores"].tolist()), np.stack(wanted["scores"].tolist()))
    return found["class"].tolist() == wanted["class"].tolist() and scores


def record(run: RunFolder, *steps: int, let_go: tuple[int, ...] = ()) -> str:
    """Records as of a run that came by these checkpoints; gives MLflow's id of the run."""
    from headway.checkpoint.store import committed

    job = load(run.job_file)
    spool = Spool(run.path / "spool.jsonl")
    spool.append(first_event(job, plan.check(job), {"python": "3", "git": {"commit": "ab12", "changed": True}}))
    for checkpoint in committed(run.checkpoint_root, run.counting):
        if checkpoint.step in steps:
            event: dict[str, Any] = {"kind": "checkpoint", "step": checkpoint.step, "path": checkpoint.where}
            event |= {"bytes": checkpoint.bytes, "metrics": {}, "digest": checkpoint.digest}
            spool.append({**event, "let_go": list(let_go)})
    writer = Writer(run.path)
    writer.start()
    summary = writer.close(DEADLINE_S)
    assert (summary.error, summary.waiting) == ("", 0)
    assert summary.run_id is not None
    return summary.run_id


def logged(mlflow: Any, run_id: str) -> dict[str, Any]:
    client = mlflow.MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    return {model.params["step"]: model for model in client.search_logged_models([experiment])}


def test_a_logged_model_loads_while_its_checkpoint_is_there(copy: RunFolder, mlflow: Any) -> None:
    run_id = record(copy, 4, 8)
    models = logged(mlflow, run_id)
    assert set(models) == {"4", "8"}
    given = rows()
    for step, model in models.items():
        loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
        assert same(loaded.predict(given), expected(copy, int(step), given))
    assert [each.name for each in loaded.metadata.signature.inputs] == ["a", "b"], "the label is no input"
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
    example = json.loads((folder / "input_example.json").read_text())
    assert example["columns"] == ["a", "b"]
    assert len(example["data"]) == 3
    assert "torch==" in (folder / "requirements.txt").read_text()
    tags = mlflow.MlflowClient().get_run(run_id).data.tags
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == ("ab12", "true")


def test_one_whose_checkpoint_is_gone_says_so(copy: RunFolder, mlflow: Any) -> None:
    run_id = record(copy, 4, 8)
    (gone,) = (copy.path / "checkpoints").glob("step-00000004")
    shutil.rmtree(gone)
    record(copy, 6, let_go=(4,))
    models = logged(mlflow, run_id)
    tags = {step: model.tags["headway.checkpoint"] for step, model in models.items()}
    assert tags.pop("4").startswith("gone: the job's policy")
    assert set(tags.values()) == {"there"}
    with pytest.raises(
        BadInput, match=r"the checkpoint of step 4 of run r is gone: .* \(there are those of: 2, 6, 8\)"
    ):
        mlflow.pyfunc.load_model(f"models:/{models['4'].model_id}")
    shutil.rmtree(copy.path)
    with pytest.raises(BadInput, match=r"the checkpoint of step 8 is gone, for its run is"):
        mlflow.pyfunc.load_model(f"models:/{models['8'].model_id}")


def test_one_whose_code_is_gone_says_so(copy: RunFolder, mlflow: Any) -> None:
    (model,) = logged(mlflow, record(copy, 8)).values()
    promote(copy.path, alias="production")
    shutil.rmtree(copy.code)
    with pytest.raises(BadInput, match=r"the code of run r is gone: there is no .*/code/.*points\.py") as caught:
        mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert "promoted" in caught.value.remedy
    mlflow.pyfunc.load_model("models:/r@production")


def test_another_checkpoint_of_the_same_step_is_told_from_it(copy: RunFolder, mlflow: Any) -> None:
    (model,) = logged(mlflow, record(copy, 8)).values()
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
    about = json.loads((folder / "headway.json").read_text())
    (folder / "headway.json").write_text(json.dumps({**about, "digest": "0" * 64}))
    with pytest.raises(BadCheckpoint, match="is not the checkpoint that was logged"):
        mlflow.pyfunc.load_model(str(folder))


@pytest.mark.parametrize("default", ["other", None])
def test_it_is_promoted_whatever_this_process_takes_for_its_store(
    copy: RunFolder, mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str | None
) -> None:
    record(copy, 8)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(default and f"sqlite:///{tmp_path}/{default}.db")
    before = mlflow.get_tracking_uri()
    assert promote(copy.path, alias="production").version == "1"
    assert (mlflow.get_tracking_uri(), mlflow.is_tracking_uri_set()) == (before, default is not None)
    assert list(tmp_path.glob("*.db")) == [], "nothing is made in another"


def test_a_promoted_model_outlives_its_run(copy: RunFolder, mlflow: Any, tmp_path: Path) -> None:
    record(copy, 8)
    given = rows()
    wanted = expected(copy, "best", given)
    done = promote(copy.path, alias="production")
    assert (done.model, done.version, done.best, done.was) == ("r", "1", True, None)
    assert done.notes == []
    shutil.rmtree(copy.path)
    for alias in ("production", "best"):
        loaded = mlflow.pyfunc.load_model(f"models:/r@{alias}")
        assert same(loaded.predict(given), wanted)
    assert [each.name for each in loaded.metadata.signature.outputs] == ["class", "scores"]
    (tmp_path / "rows.json").write_text(json.dumps({"dataframe_split": given.to_dict("split", index=False)}))
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "predict",
        "-m",
        "models:/r@production",
        "--env-manager",
        "local",
    ]
    told = ["-i", str(tmp_path / "rows.json"), "-o", str(tmp_path / "out.json")]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": default_uri(tmp_path / "runs"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    found = subprocess.run([*command, *told], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    predictions = pd.DataFrame(json.loads((tmp_path / "out.json").read_text())["predictions"])
    assert same(predictions, wanted)


def test_a_column_in_which_values_are_missing_may_have_gaps(mlflow: Any, tmp_path: Path) -> None:
    """pandas makes floats of whole numbers with gaps, which MLflow's long is not."""
    chance = np.random.default_rng(0)
    for name in ("train", "val"):
        b = chance.normal(size=64)
        columns = {"a": pa.array([None, 1, 2, 3] * 16, pa.int32()), "c": [True, False] * 32, "b": b, "y": (b > 0) * 1}
        write_dataset(tmp_path / name, [pa.table(columns)], name=name, source="made", label="y")
    task = TASK.replace('table["a"].to_numpy()', 'table["a"].fill_null(-1).to_numpy(), table["c"].to_numpy()')
    run = trained(tmp_path, task.replace("Linear(2, self", "Linear(3, self"), tmp_path)
    promote(run.path, alias="x")
    loaded = mlflow.pyfunc.load_model("models:/r@x")
    kinds = {each.name: str(each.type) for each in loaded.metadata.signature.inputs}
    assert (kinds["b"], kinds["c"]) == ("DataType.double", "DataType.boolean")
    given = pd.DataFrame({"a": [1.0, np.nan], "c": [True, False], "b": [0.5, 1.5]})
    whole = pd.DataFrame({"a": [1, -1], "c": [True, False], "b": [0.5, 1.5]})
    assert same(loaded.predict(given), loaded.predict(whole))


def test_an_alias_that_exists_is_refused_unless_it_shall_move(copy: RunFolder, mlflow: Any) -> None:
    first = promote(copy.path, alias="production", step=4)
    assert promote(copy.path, alias="production", step=4) == first, "the same once more is no second version"
    with pytest.raises(BadInput, match=r"alias production of r leads to version 1 \(run r, step 4\)") as caught:
        promote(copy.path, alias="production", step=8)
    assert "--replace" in caught.value.remedy
    assert promote(copy.path, alias="staging", step=8).version == "2"
    moved = promote(copy.path, alias="production", step=8, replace=True)
    assert (moved.version, moved.was) == ("2", "1")
    client = mlflow.MlflowClient()
    assert str(client.get_model_version_by_alias("r", "production").version) == "2"
    judged = {
        str(each.version): float(each.tags["headway.metric.loss"])
        for each in client.search_model_versions("name = 'r'")
    }
    best = min(judged, key=lambda version: judged[version])
    assert str(client.get_model_version_by_alias("r", "best").version) == best


@pytest.mark.parametrize("alias", ["best", "latest", "v3", "a/b", ""])
def test_aliases_that_cannot_be_used(copy: RunFolder, alias: str) -> None:
    with pytest.raises(BadInput, match=f"alias '{alias}' cannot be used"):
        promote(copy.path, alias=alias)
    assert not (copy.path.parent / "mlflow.db").exists()


def test_a_checkpoint_that_is_not_there_is_not_promoted(copy: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"has no checkpoint of step 5"):
        promote(copy.path, alias="production", step=5)


def test_the_command(copy: RunFolder, mlflow: Any) -> None:
    runner = CliRunner()
    asked = ["promote", copy.name, "--runs", str(copy.path.parent), "--alias", "production", "--model", "points"]
    done = runner.invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "points version 1: r, step " in done.stdout
    assert "mlflow.pyfunc.load_model('models:/points@production')" in done.stdout
    told = json.loads(runner.invoke(app, [*asked, "--json"]).stdout)
    assert (told["model"], told["version"], told["uri"]) == ("points", "1", "models:/points@production")


def test_every_address_opens_mlflows_pages_for_training() -> None:
    mode = "?workflowType=machine_learning"
    assert pages.home("http://127.0.0.1:5000/") == f"http://127.0.0.1:5000/#/experiments{mode}"
    assert pages.of_run("http://h:1", "3", "ab") == f"http://h:1/#/experiments/3/runs/ab{mode}"
    assert pages.of_version("https://h", "n", "2") == f"https://h/#/models/n/versions/2{mode}"
    assert pages.of_run("sqlite:////x/mlflow.db", "3", "ab") is None
    assert pages.of_run("http://h:1", None, None) is None


def test_the_page_names_commands_that_there_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "mlflow.md"
    assert strange(page) == []
    assert ["promote", "RUN", "--alias", "production"] in commands(page)
