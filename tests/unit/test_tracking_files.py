"""Files of a run in MLflow: what a task logged is there, tables are shown as such, and what waits is stored later."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headway.errors import BadInput
from headway.tracking import admission, mlflow_writer, schema, store
from headway.tracking.files import TABLES_TAG, TAG
from headway.tracking.mlflow_writer import Summary, Writer
from headway.tracking.spool import Spool
from headway.tracking.store import DATABASE, check_uri, connect, default_uri, redact

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")
DEADLINE_S = 240


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def client(runs: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=default_uri(runs))


def begin(runs: Path, name: str) -> Spool:
    spool = Spool(runs / name / "spool.jsonl")
    spool.append({"kind": "run", "job": {"name": "a"}, "datasets": [], "environment": {}})
    return spool


def show(spool: Spool, name: str, step: int, kind: str = "text", content: str = "x") -> str:
    path = f"logged/{name}/step-{step:08d}{'.json' if kind == 'table' else '.txt'}"
    file = spool.path.parent / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    spool.append({"kind": "artifact", "path": path, "folder": path.rpartition("/")[0], "shown": kind})
    return path


def send(runs: Path, name: str) -> Summary:
    writer = Writer(runs / name, experiment="tests")
    writer.start()
    return writer.close(DEADLINE_S)


def stored(runs: Path, run_id: str | None, folder: str) -> list[str]:
    return [each.path for each in client(runs).list_artifacts(run_id, folder)]


def test_what_was_logged_is_found_under_the_same_paths(runs: Path) -> None:
    spool = begin(runs, "all")
    text, table = show(spool, "notes", 4), show(spool, "walk", 4, "table", '{"columns": ["a"], "data": [[1]]}')
    show(spool, "walk", 4, "table", '{"columns": ["a"], "data": [[2]]}')
    spool.append({"kind": "artifact", "path": "logged/gone/step-00000001.txt", "folder": "logged/gone"})
    summary = send(runs, "all")
    assert (summary.error, summary.whole) == ("", True)
    assert stored(runs, summary.run_id, "logged/notes") == [text]
    assert stored(runs, summary.run_id, "logged/walk") == [table]
    local = client(runs).download_artifacts(summary.run_id, table)
    assert json.loads(Path(local).read_text())["data"] == [[2]]
    tags = client(runs).get_run(summary.run_id).data.tags
    assert json.loads(tags[TABLES_TAG]) == [{"path": table, "type": "table"}]
    assert TAG not in tags


def test_the_newest_tables_are_named_where_there_are_many(runs: Path) -> None:
    spool = begin(runs, "many")
    paths = [show(spool, f"walk-{'x' * 80}", step, "table", "{}") for step in range(60)]
    tags = client(runs).get_run(send(runs, "many").run_id).data.tags
    named = [entry["path"] for entry in json.loads(tags[TABLES_TAG])]
    assert 0 < len(named) < 60
    assert named == paths[-len(named) :]


def test_files_that_cannot_be_stored_hold_nothing_up_and_are_stored_later(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(mlflow_writer, "BACK_OFF_S", (0.01, 0.05))
    whole = MlflowClient.log_artifact
    tries = []

    def full(self: Any, run_id: str, path: str, folder: str | None = None) -> None:
        tries.append(folder)
        raise OSError("No space left on device")

    monkeypatch.setattr(MlflowClient, "log_artifact", full)
    spool = begin(runs, "later")
    paths = [show(spool, "notes", step) for step in range(5)]
    spool.append({"kind": "points", "step": 1, "values": {"loss": 1.0}})
    spool.append({"kind": "state", "state": "finished", "message": ""})
    summary = send(runs, "later")
    assert (summary.sent, summary.waiting) == (1, 0), "the records are all there"
    assert summary.error == "5 files cannot be stored: No space left on device"
    assert not summary.whole, "or they would go with the run when it is pruned"
    assert tries.count("logged/notes") <= 3, "a store that takes no files is not asked for each"
    run = client(runs).get_run(summary.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags[TAG] == "not kept: No space left on device"
    (spool.path.parent / paths[3]).unlink()  # gone meanwhile
    monkeypatch.setattr(MlflowClient, "log_artifact", whole)
    summary = mlflow_writer.sync(runs / "later", timeout_s=DEADLINE_S)
    assert (summary.error, summary.whole) == ("", True)
    assert stored(runs, summary.run_id, "logged/notes") == [path for path in paths if path != paths[3]]
    assert client(runs).get_run(summary.run_id).data.tags[TAG] == "kept"
    assert mlflow_writer.sync(runs / "later", timeout_s=DEADLINE_S).error == ""


# -- a store of another MLflow


def revision(database: Path, other: str | None = None) -> str:
    with closing(sqlite3.connect(database)) as connection, connection:
        if other is not None:
            connection.execute("UPDATE alembic_version SET version_num = ?", (other,))
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.mark.parametrize(("which", "said"), [("earlier", "an earlier MLflow"), ("later", "a later one most likely")])
def test_a_store_of_another_mlflow_waits_as_it_is(runs: Path, which: str, said: str) -> None:
    spool = begin(runs, f"of-{which}")
    spool.append({"kind": "points", "step": 1, "values": {"loss": 1.0}})
    connect(default_uri(runs), runs)  # where no other test has made it
    database = runs / DATABASE
    known, newest = schema._revisions()
    now = revision(database)
    assert now == newest
    other = sorted(known - {newest})[0] if which == "earlier" else "f" * 12
    revision(database, other)
    try:
        with pytest.raises(BadInput, match=said) as caught:
            admission.admit(default_uri(runs), "tests")
        assert caught.value.remedy
        summary = mlflow_writer.sync(runs / f"of-{which}", timeout_s=DEADLINE_S)
        assert said in summary.error
        assert summary.waiting == 1
        assert revision(database) == other, "it is left as it is"
    finally:
        revision(database, now)
    assert admission.admit(default_uri(runs), "tests") == ""
    summary = mlflow_writer.sync(runs / f"of-{which}", timeout_s=DEADLINE_S)
    assert (summary.error, summary.sent) == ("", 1)


def test_what_is_no_database_of_mlflows_has_no_revision(tmp_path: Path) -> None:
    assert schema.of_file(tmp_path / "none") is None
    (tmp_path / "empty").touch()
    assert schema.of_file(tmp_path / "empty") is None
    (tmp_path / "text").write_text("no database" * 100)
    assert schema.of_file(tmp_path / "text") is None
    with closing(sqlite3.connect(tmp_path / "other")) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    assert schema.of_file(tmp_path / "other") is None
    schema.check(None, "x")


def test_a_password_is_not_said_again() -> None:
    with pytest.raises(BadInput) as caught:
        schema.check("f" * 12, redact("postgresql://me:secret@host/db"))
    assert "secret" not in str(caught.value)
    earlier = sorted(schema._revisions()[0] - {schema._revisions()[1]})[0]
    with pytest.raises(BadInput, match="mlflow db upgrade ITS-URI"):
        schema.check(earlier, redact("postgresql://me:secret@host/db"))


@pytest.mark.parametrize(
    ("there", "sqlalchemy", "wanted"),
    [
        (("psycopg2",), "2.1.9", "postgresql+psycopg2://me@host/db"),
        (("psycopg2", "psycopg"), "2.1.9", "postgresql://me@host/db"),
        (("psycopg2",), "2.0.40", "postgresql://me@host/db"),
        (("psycopg",), "2.0b1", "postgresql+psycopg://me@host/db"),
    ],
)
def test_a_database_is_spoken_to_by_what_is_installed(
    there: tuple[str, ...], sqlalchemy: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "find_spec", lambda module: module if module in there else None)
    monkeypatch.setattr(store, "version", lambda package: sqlalchemy)
    assert check_uri("postgresql://me@host/db") == wanted
    named = f"postgresql+{there[0]}://me@host/db"
    assert check_uri(named) == named
    with pytest.raises(BadInput, match="needs the Python package asyncpg"):
        check_uri("postgresql+asyncpg://me@host/db")
    monkeypatch.setattr(store, "find_spec", lambda module: None)
    with pytest.raises(BadInput) as caught:
        check_uri("postgresql://me@host/db")
    assert caught.value.remedy == "Install it with `pip install psycopg2-binary`."
