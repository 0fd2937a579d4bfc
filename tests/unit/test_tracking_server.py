"""A tracking server that is away, slow to come or gone: training never waits for it, and nothing is lost."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.tracking_server import DEADLINE_S, Server, wait_for

from headway.tracking import mlflow_writer, posting
from headway.tracking.mlflow_writer import Writer
from headway.tracking.spool import Spool

if TYPE_CHECKING:
    from mlflow.entities import Metric

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stop()


def points(spool: Spool, steps: range) -> float:
    """Append; returns the seconds that most stayed under (MLflow's import, beside it, holds Python up for a while)."""
    took = []
    for step in steps:
        started = time.monotonic()
        spool.append({"kind": "points", "step": step, "values": {"loss": 1 / (step + 1)}})
        took.append(time.monotonic() - started)
    return sorted(took)[len(took) * 3 // 4]


def steps(uri: str, run_id: str | None) -> list[int]:
    from mlflow import MlflowClient

    return [metric.step for metric in MlflowClient(tracking_uri=uri).get_metric_history(run_id, "loss")]


def test_a_server_that_comes_goes_and_comes_again_gets_everything_once(server: Server, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "run" / "spool.jsonl")
    writer = Writer(tmp_path / "run", server.uri, poll_s=0.05)
    writer.start()
    spool.append({"kind": "run", "job": {"lanes": 8}, "datasets": [], "environment": {}})
    assert points(spool, range(500)) < 0.05
    wait_for(lambda: writer.summary().error)
    assert writer.summary().waiting == 500
    server.start()
    assert writer.flush(DEADLINE_S)
    assert writer.summary().error == ""
    server.stop()
    assert points(spool, range(500, 900)) < 0.05
    wait_for(lambda: writer.summary().error)
    server.start()
    spool.append({"kind": "checkpoint", "step": 900, "path": "/c", "bytes": 1, "metrics": {"accuracy": 0.5}})
    spool.append({"kind": "state", "state": "finished", "message": ""})
    summary = writer.close(DEADLINE_S)
    assert (summary.waiting, summary.error) == (0, "")
    assert steps(server.uri, summary.run_id) == list(range(900))


def test_closing_without_a_server_returns_in_time_and_sync_sends_the_rest(server: Server, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "run" / "spool.jsonl")
    job = {"tracking": {"uri": server.uri, "experiment": "later"}}
    spool.append({"kind": "run", "job": job, "datasets": [], "environment": {}})
    points(spool, range(200))
    writer = Writer(tmp_path / "run", server.uri, "later")
    writer.start()
    started = time.monotonic()
    summary = writer.close(timeout_s=8)
    assert time.monotonic() - started < 30
    assert (summary.sent, summary.waiting, summary.run_id) == (0, 200, None)
    assert summary.error
    server.start()
    # The writer that ran out of time may hold the run for the moments that its last attempt takes.
    wait_for(lambda: mlflow_writer.sync(tmp_path / "run", timeout_s=DEADLINE_S).error == "")
    summary = mlflow_writer.sync(tmp_path / "run", timeout_s=DEADLINE_S)
    assert (summary.sent, summary.waiting) == (0, 0)
    assert steps(server.uri, summary.run_id) == list(range(200))


def test_a_server_that_accepts_and_never_answers_holds_nobody(tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        spool = Spool(tmp_path / "run" / "spool.jsonl")
        writer = Writer(tmp_path / "run", f"http://127.0.0.1:{mute.getsockname()[1]}", poll_s=0.05)
        writer.start()
        assert points(spool, range(500)) < 0.05
        started = time.monotonic()
        assert not writer.flush(0.5)
        summary = writer.close(timeout_s=1.5)
        assert time.monotonic() - started < 30
        assert summary.waiting == 500


def test_batches_sent_together_of_which_one_failed_are_there_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of eight fails, and then the writer's process: the batches after it are in the store, it is not."""
    monkeypatch.setattr(mlflow_writer, "POINTS", (50, 100))
    server.start()
    spool = Spool(tmp_path / "run" / "spool.jsonl")
    spool.append({"kind": "run", "job": {}, "datasets": [], "environment": {}})
    points(spool, range(900))
    post, sizes, later = posting.post, [], threading.Event()

    def fails(client: object, run_id: str, metrics: Sequence[Metric]) -> None:
        sizes.append(len(metrics))
        if metrics[0].step == 200:
            later.wait(DEADLINE_S)  # those after it arrive
            raise ConnectionResetError("cut")
        post(client, run_id, metrics)  # type: ignore[arg-type]
        if metrics[0].step == 300:
            later.set()

    monkeypatch.setattr(posting, "post", fails)
    writer = Writer(tmp_path / "run", server.uri, poll_s=0.05)
    writer.start()
    wait_for(lambda: "cut" in writer.summary().error)
    before = writer.close(1)
    assert before.waiting > 600
    there = steps(server.uri, before.run_id)
    assert 200 not in there
    assert {100, 300} < set(there)
    monkeypatch.setattr(posting, "post", post)
    job = tmp_path / "run"
    wait_for(lambda: mlflow_writer.sync(job, server.uri, timeout_s=DEADLINE_S).waiting == 0)
    assert sorted(steps(server.uri, before.run_id)) == list(range(900))
    assert max(sizes) == 100
