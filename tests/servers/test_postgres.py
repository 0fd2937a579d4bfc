"""A tracking server as a team has it: PostgreSQL, passwords, files in an S3 store. All of it real, on loopback."""

from __future__ import annotations

import json
import os
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.database import PASSWORD, Postgres
from tests.tracking_server import DEADLINE_S, Server, wait_for

from headway.errors import BadInput
from headway.testing.s3 import KEYS, S3
from headway.tracking import admission, mlflow_writer, schema
from headway.tracking.mlflow_writer import Writer
from headway.tracking.spool import Spool
from headway.tracking.store import check_uri

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
ADMIN, FIRST = "admin", "first-password-1"
BUCKET = "artifacts"
POINTS = 2000


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as made:
        yield made


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    pytest.importorskip("moto", reason="moto is not installed (pip install 'moto[s3,server]')")
    pytest.importorskip("boto3", reason="boto3 is not installed")
    with S3() as made:
        made.make_bucket(BUCKET)
        yield made


@pytest.fixture(scope="module")
def server(postgres: Postgres, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("flask_wtf", reason="Flask-WTF is not installed (pip install 'mlflow[auth]' 'Flask-WTF<2')")
    folder = tmp_path_factory.mktemp("server")
    settings = {
        "default_permission": "EDIT",
        "database_uri": f"sqlite:///{folder}/users.db",
        "admin_username": ADMIN,
        "admin_password": FIRST,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    config = folder / "auth.ini"
    config.write_text("[mlflow]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    environ = {**KEYS, "MLFLOW_S3_ENDPOINT_URL": s3.endpoint, "MLFLOW_AUTH_CONFIG_PATH": str(config)}
    environ |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "of-a-test", "AWS_DEFAULT_REGION": "us-east-1"}
    made = Server(folder, postgres.explicit, f"s3://{BUCKET}/mlflow", ["--app-name", "basic-auth"], environ)
    made.start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends the records is known to the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", FIRST)
    monkeypatch.setattr(mlflow_writer, "BACK_OFF_S", (0.1, 1.0))
    monkeypatch.setattr(admission, "LOOK_S", DEADLINE_S)  # whatever else the machine does
    monkeypatch.setattr(admission, "CONFIRM_S", DEADLINE_S)


def client(server: Server) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=server.uri)


def begin(folder: Path, uri: str) -> Spool:
    spool = Spool(folder / "spool.jsonl")
    job = {"name": "n", "tracking": {"uri": uri, "experiment": "team"}}
    spool.append({"kind": "run", "job": job, "datasets": [], "environment": {"python": "3"}})
    return spool


def points(spool: Spool, steps: range) -> None:
    for step in steps:
        spool.append({"kind": "points", "step": step, "values": {"loss": 1 / (step + 1)}})


def steps(server: Server, run_id: str | None) -> list[int]:
    return [metric.step for metric in client(server).get_metric_history(run_id, "loss")]


def change_password(server: Server, old: str, new: str) -> None:
    told = json.dumps({"username": ADMIN, "password": new, "current_password": old}).encode()
    who = {"Authorization": "Basic " + b64encode(f"{ADMIN}:{old}".encode()).decode()}
    address = f"{server.uri}/api/2.0/mlflow/users/update-password"
    head = {**who, "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, told, head, method="PATCH"), timeout=30) as answer:
        assert answer.status == 200


def test_a_run_arrives_with_its_files(server: Server, postgres: Postgres, s3: S3, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    spool = begin(folder, server.uri)
    points(spool, range(POINTS))
    (folder / "logged" / "notes").mkdir(parents=True)
    (folder / "logged/notes/step-00000001.txt").write_text("by hand")
    spool.append({"kind": "artifact", "path": "logged/notes/step-00000001.txt", "folder": "logged/notes"})
    spool.append({"kind": "checkpoint", "step": 100, "path": "/c", "bytes": 1, "metrics": {"accuracy": 0.5}})
    spool.append({"kind": "state", "state": "finished", "message": ""})
    writer = Writer(folder, server.uri, "team")
    writer.start()
    summary = writer.close(DEADLINE_S)
    assert (summary.error, summary.waiting) == ("", 0)
    assert steps(server, summary.run_id) == list(range(POINTS))
    run = client(server).get_run(summary.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    local = client(server).download_artifacts(summary.run_id, "logged/notes/step-00000001.txt")
    assert Path(local).read_text() == "by hand"
    assert b"step-00000001.txt" in s3.direct("GET", f"/{BUCKET}?list-type=2")
    assert len(run.outputs.model_outputs) == 1
    query = f"SELECT count(*) FROM metrics WHERE run_uuid = '{summary.run_id}' AND key = 'loss'"
    assert postgres.ask(query) == [(POINTS,)]


def test_who_is_not_known_is_told_at_the_door(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert admission.admit(server.uri, "team") == ""
    with pytest.raises(BadInput, match="wants to know who you are"):
        admission.admit(server.uri, "team", {**os.environ, "MLFLOW_TRACKING_PASSWORD": "wrong-password-2"})
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    with pytest.raises(BadInput, match="wants to know who you are"):
        admission.admit(server.uri, "team")


def test_a_password_that_changes_in_mid_run_loses_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = tmp_path / "run", list[str]()
    spool = begin(folder, server.uri)
    points(spool, range(500))
    writer = Writer(folder, server.uri, "team", poll_s=0.05, say=said.append)
    writer.start()
    assert writer.flush(DEADLINE_S)
    change_password(server, FIRST, "second-password-2")
    try:
        points(spool, range(500, 900))
        wait_for(lambda: any("401" in text for text in said))
        assert "takes no records" in said[-1]
        assert FIRST not in "".join(said)
        points(spool, range(900, 1000))
        spool.append({"kind": "state", "state": "finished", "message": ""})
        summary = writer.close(DEADLINE_S)
        assert summary.waiting == 500
        assert len([text for text in said if "401" in text]) == 1
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "second-password-2")
        wait_for(lambda: mlflow_writer.sync(folder, timeout_s=DEADLINE_S).error == "")
        assert steps(server, summary.run_id) == list(range(1000))
        assert client(server).get_run(summary.run_id).info.status == "FINISHED"
    finally:
        change_password(server, "second-password-2", FIRST)


def test_files_go_straight_to_a_store_that_is_away_for_a_while(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that serves no files: whoever sends the records writes them to the store."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "server").mkdir()
    options = ["--no-serve-artifacts", "--default-artifact-root", f"s3://{BUCKET}/straight"]
    server = Server(tmp_path / "server", options=options)
    server.start()
    try:
        folder = tmp_path / "run"
        spool = begin(folder, server.uri)
        points(spool, range(10))
        (folder / "notes.txt").write_text("by hand")
        spool.append({"kind": "artifact", "path": "notes.txt", "folder": "logged"})
        spool.append({"kind": "state", "state": "finished", "message": ""})
        writer = Writer(folder, server.uri, "team")
        writer.start()
        summary = writer.close(DEADLINE_S)
        assert summary.error.startswith("1 files cannot be stored: "), summary.error
        assert summary.waiting == 0
        assert client(server).get_run(summary.run_id).info.status == "FINISHED"
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.endpoint)
        assert mlflow_writer.sync(folder, timeout_s=DEADLINE_S).error == ""
        assert b"logged/notes.txt" in s3.direct("GET", f"/{BUCKET}?list-type=2&prefix=straight")
    finally:
        server.stop()


def test_a_database_of_another_mlflow_is_left_as_it_is(postgres: Postgres, server: Server, tmp_path: Path) -> None:
    """Written to without a server, as `tracking.uri: postgresql://...` does."""
    (revision,) = postgres.ask("SELECT version_num FROM alembic_version")[0]
    known, newest = schema._revisions()
    assert revision == newest
    earlier = sorted(known - {newest})[0]
    folder, said = tmp_path / "run", list[str]()
    spool = begin(folder, postgres.uri)
    points(spool, range(100))
    writer = Writer(folder, check_uri(postgres.uri), "straight", poll_s=0.05, say=said.append)
    try:
        for other, words in ((earlier, "the tables of an earlier MLflow"), ("f" * 12, "a later one most likely")):
            postgres.ask(f"UPDATE alembic_version SET version_num = '{other}'")
            summary = mlflow_writer.sync(folder, postgres.uri, timeout_s=DEADLINE_S)
            assert words in summary.error
            assert PASSWORD not in summary.error
            assert PASSWORD.replace("/", "%2F") not in summary.error
            assert summary.waiting == 100
            assert postgres.ask("SELECT version_num FROM alembic_version") == [(other,)], "nothing was moved"
        writer.start()
        wait_for(lambda: said)
    finally:
        postgres.ask(f"UPDATE alembic_version SET version_num = '{revision}'")
    summary = writer.close(DEADLINE_S)
    assert (summary.error, summary.waiting) == ("", 0)
    assert steps(server, summary.run_id) == list(range(100)), "the server has them too"
