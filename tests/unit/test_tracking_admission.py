"""A tracking store that refuses is told of before anything starts; one that is away is only noted."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headway.errors import BadInput
from headway.tracking import admission, mlflow_writer
from headway.tracking.admission import Answer, admit
from headway.tracking.mlflow_writer import Writer
from headway.tracking.spool import Spool

ABSENT = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"})
PAGE = "<!doctype html><html><body>Please log in</body></html>"


def experiment(stage: str) -> str:
    return json.dumps({"experiment": {"experiment_id": "7", "name": "headway", "lifecycle_stage": stage}})


class Server(ThreadingHTTPServer):
    """Answers everything alike, and keeps what it was asked."""

    status, body, wait_s = 200, ABSENT, 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.over = threading.Event()
        self.daemon_threads = True

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asked may have gone."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        self.server.over.wait(self.server.wait_s)
        data = self.server.body.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in (admission.USER, admission.PASSWORD, admission.TOKEN):
        monkeypatch.delenv(name, raising=False)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own client comes to what the plain request came to."""
    monkeypatch.setattr(admission, "_confirmed", admission._ask)


@pytest.mark.parametrize(("status", "body"), [(404, ABSENT), (200, experiment("active"))])
def test_a_store_that_takes_the_run_is_asked_once(server: Server, status: int, body: str) -> None:
    server.status, server.body = status, body
    assert admit(server.uri, "my runs/é") == ""
    ((path, _),) = server.asked
    assert path.endswith("get-by-name?experiment_name=my%20runs%2F%C3%A9")


@pytest.mark.usefixtures("alike")
@pytest.mark.parametrize(
    ("status", "body", "fact", "reason", "remedy"),
    [
        (401, "You are not authenticated.", "wants to know who you are (401)", "are unset", "MLFLOW_TRACKING_TOKEN"),
        (403, json.dumps({"message": "Permission denied"}), "(403)", "it says: Permission denied", "name another"),
        (403, "Invalid Host header - possible DNS rebinding attack", "(403)", "Invalid Host header", "enabled: false"),
        (200, experiment("deleted"), "'headway' is deleted", "no runs", "restore --experiment-id 7"),
        (200, PAGE, "is no MLflow server", "a web page (200)", "Give the address"),
        (404, PAGE, "is no MLflow server", "a web page (404)", "Give the address"),
        (200, "hello", "is no MLflow server", "something else", "Give the address"),
        (400, json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": "bad\nname"}), "refuses", "400: bad", ""),
    ],
)
def test_a_store_that_refuses_is_an_error_before_the_start(
    server: Server, status: int, body: str, fact: str, reason: str, remedy: str
) -> None:
    server.status, server.body = status, body
    with pytest.raises(BadInput) as found:
        admit(server.uri, "headway")
    assert fact in found.value.fact
    assert reason in found.value.reason
    assert remedy in found.value.remedy
    assert "\n" not in str(found.value)


@pytest.mark.usefixtures("alike")
def test_who_one_is_is_shown_and_never_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status = 401
    monkeypatch.setenv(admission.TOKEN, "s3cret")
    with pytest.raises(BadInput) as found:
        admit(server.uri, "headway")
    assert server.asked[0][1] == "Bearer s3cret"
    assert "does not take what MLFLOW_TRACKING_TOKEN say" in found.value.reason
    assert "s3cret" not in str(found.value)
    monkeypatch.setenv(admission.USER, "me")
    monkeypatch.setenv(admission.PASSWORD, "pw")
    with pytest.raises(BadInput):
        admit(server.uri, "headway")
    assert server.asked[-1][1] == "Basic bWU6cHc="


def test_where_mlflows_own_client_is_let_in_so_is_the_run(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may know of credentials in a file, or a plugin."""
    server.status = 401
    monkeypatch.setattr(admission, "_confirmed", lambda uri, name, environ: Answer(200, experiment("active")))
    assert admit(server.uri, "headway") == ""


@pytest.mark.slow
def test_mlflows_own_client_is_asked_where_a_plain_request_is_refused(server: Server) -> None:
    server.status, server.body = 401, "You are not authenticated."
    with pytest.raises(BadInput, match=r"\(401\)"):
        admit(server.uri, "headway")
    assert len(server.asked) > 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_store_in_trouble_is_noted(server: Server, status: int) -> None:
    server.status, server.body = status, PAGE
    assert f"it answers {status}" in admit(server.uri, "headway")


def test_a_store_that_is_away_is_noted() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        note = admit(f"http://127.0.0.1:{port}", "headway")
    assert "takes no records now" in note
    assert "they wait" in note


def test_a_store_that_never_answers_holds_nobody_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LOOK_S", 0.3)
    server.wait_s = 60.0
    begun = time.monotonic()
    assert "takes no records now" in admit(server.uri, "headway")
    assert time.monotonic() - begun < 30.0


def test_a_database_file_is_looked_into(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    assert admit(f"sqlite:///{file}", "headway") == ""
    assert not file.exists()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        database.execute("INSERT INTO experiments VALUES (3, 'gone', 'deleted'), (4, 'headway', 'active')")
        database.commit()
    assert admit(f"sqlite:///{file}", "headway") == ""
    with pytest.raises(BadInput, match=r"'gone' is deleted.*--experiment-id 3"):
        admit(f"sqlite:///{file}", "gone")
    other = tmp_path / "other.db"
    other.write_text("no database at all, but a text that is long enough to be looked at" * 100)
    with pytest.raises(BadInput, match="is no sqlite database"):
        admit(f"sqlite:///{other}", "headway")


def test_what_a_store_refuses_later_is_said_once_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    refuses = threading.Event()
    refuses.set()

    def carry(writer: Writer) -> bool:
        if refuses.is_set():
            raise PermissionError("not you")
        return real(writer)

    real = Writer._carry
    monkeypatch.setattr(mlflow_writer, "BACK_OFF_S", (0.01, 0.01))
    monkeypatch.setattr(Writer, "_carry", carry)
    monkeypatch.setattr(Writer, "_deliver", lambda writer, entries: writer._save(entries[-1][1]))
    spool = Spool(tmp_path / "r" / "spool.jsonl")
    spool.append({"kind": "points", "step": 1, "values": {"loss": 1.0}})
    writer = Writer(tmp_path / "r", "sqlite:////nowhere/mlflow.db", poll_s=0.01, say=said.append)
    writer.start()
    deadline = time.monotonic() + 60
    while len(said) < 2 and time.monotonic() < deadline:
        if said:
            refuses.clear()
        time.sleep(0.02)
    writer.close(5)
    first = "the tracking store takes no records (PermissionError: not you); they wait, and training goes on"
    assert said == [first, "the tracking store takes the records again"]
