"""Points in MLflow's own REST words: what a server is sent is what its client would have sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from headway.tracking import posting

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*noload")


class Noting(BaseHTTPRequestHandler):
    """A server that keeps what it is asked for, and answers as it is told."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))  # type: ignore[attr-defined]
        status, answer = self.server.answer  # type: ignore[attr-defined]
        told = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *of: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Noting)
    server.asked, server.answer = [], (200, {})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_same_is_asked_as_by_mlflows_client(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "mary")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{server.server_port}")
    points = [Metric("loss", 0.1 + 0.2, 1_700_000_000_123, 7), Metric("a/b", -1.0, 1, 0, model_id="m-1")]
    posting.post(client, "r1", points)
    client.log_batch("r1", metrics=points, synchronous=True)
    (path, who, ours), (their_path, their_who, theirs) = server.asked
    assert path == their_path
    assert who == their_who
    assert who.startswith("Basic ")
    assert ours["run_id"] == theirs["run_id"]

    def plain(body: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Numbers of 64 bits may be written as texts."""
        points = body["metrics"]
        return [(p["key"], p["value"], int(p["timestamp"]), int(p["step"]), p.get("model_id")) for p in points]

    assert plain(ours) == plain(theirs)


def test_a_refusal_is_mlflows_own(server: Any) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    server.answer = (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no such run"})
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(MlflowException, match="no such run") as caught:
        posting.post(client, "r1", [Metric("loss", 1.0, 1, 0)])
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_of_several_parts_the_first_error_counts_and_no_further_one_is_begun() -> None:
    begun, met = [], threading.Barrier(posting.AT_ONCE)

    def send(part: Any) -> int:
        begun.append(part[0])
        met.wait(20)  # as many are under way at once
        if part[0] == 1:
            raise ConnectionResetError("cut")
        return 0

    with pytest.raises(ConnectionResetError, match="cut"):
        posting.together(send, ([number] for number in range(posting.AT_ONCE)))
    assert sorted(begun) == list(range(posting.AT_ONCE))
    begun.clear()

    def fails(part: Any) -> int:
        begun.append(part[0])
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        posting.together(fails, ([number] for number in range(1000)))
    assert len(begun) <= posting.AT_ONCE


def test_what_was_refused_is_counted_over_all_parts() -> None:
    assert posting.together(lambda part: part[0], ([number] for number in range(100))) == sum(range(100))
