"""MLflow's server is killed in mid-run and away for minutes: what a step takes before, meanwhile and afterwards, which
points are missing or twice at the end, and how quickly many that waited are sent. MLflow's own client beside it, waited
for and not. As long as the outage and three minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from tests.tracking_server import Server

from headway.elastic.worker import records
from headway.elastic.worker.journal import Journal
from headway.tracking import entities
from headway.tracking.mlflow_writer import Writer
from headway.tracking.spool import FILE, Spool
from records_parts.here import Elsewhere, answered_at_once, scratch
from records_parts.training import START_S, spread, values_of, work

BEFORE_S = 60.0
WORKERS = 4  # of MLflow's server, as it has them unless told otherwise
DRAINED = (33_000, 6)
"""Steps, and points of each."""
PEERS = 200
PEER_PAUSE_S = 0.05
_processes = multiprocessing.get_context("spawn")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    least = 10 if options.quick else 1
    away_s = options.minutes * 60 / least
    with scratch() as folder, answered_at_once():
        return {
            "what": f"a tracking server away for {away_s:.0f} s",
            **outage(folder, BEFORE_S / least, away_s),
            "drain": drain(folder / "drain", DRAINED[0] // least, DRAINED[1]),
        }


def outage(folder: Path, before_s: float, away_s: float) -> dict[str, Any]:
    server = Server(folder, workers=WORKERS)
    server.start(START_S)
    peers = [_Peer(server.uri, synchronous) for synchronous in (True, False)]
    tracking = {"uri": server.uri, "experiment": "outage"}
    try:
        with Elsewhere(folder / "run", tracking) as recorder:
            training = _Training(recorder)
            found = {"step_ms": {"before": spread(training.until(before_s))}}
            server.stop()
            for peer in peers:
                peer.go()
            found["step_ms"]["meanwhile"] = spread(training.until(away_s))
            back = threading.Thread(target=server.start, args=[START_S])
            back.start()
            found["step_ms"]["afterwards"] = spread(training.until(before_s))
            back.join()
            training.journal.settle()
            training.journal.close()
            found["steps"] = training.step
            summary = recorder.ask("finish", "finished", "", 120.0)
        found["points"] = compared(folder / "run", server.uri, str(summary["run_id"]))
        found["peers"] = {peer.name: peer.found() for peer in peers}
    finally:
        for peer in peers:
            peer.process.kill()
        server.stop()
    return found


class _Training:
    """Steps of some milliseconds that record four numbers each."""

    def __init__(self, recorder: Elsewhere) -> None:
        self.step = 0
        self.journal = Journal(recorder, "w0")
        self.journal.restart(1)
        self.journal.enter(leads=True)
        self.journal.began(0, 10**9, 100)

    def until(self, seconds: float) -> list[float]:
        """Steps for so long; returns what each took, its records included."""
        end, took = time.perf_counter() + seconds, []
        while (begun := time.perf_counter()) < end:
            work()
            values = values_of(self.step)
            self.journal.recorded(self.step, records.numbers("session.record", values))
            self.journal.step(self.step, 0, values["loss"], 0.1, 32, "0123456789abcdef")
            self.step += 1
            took.append(time.perf_counter() - begun)
        return took


def compared(run: Path, uri: str, run_id: str) -> dict[str, int]:
    """The run's points against MLflow's: each step of a metric once."""
    from mlflow import MlflowClient

    client, asked = MlflowClient(tracking_uri=uri), Counter[str]()
    wanted: dict[str, set[int]] = {}
    for event in Spool(run / FILE).events():
        for key, _ in entities.numbers(event.get("values")) if event["kind"] == "points" else ():
            wanted.setdefault(key, set()).add(event["step"])
    for key, steps in wanted.items():
        there = [point.step for point in client.get_metric_history(run_id, key)]
        asked += Counter(points=len(steps), lost=len(steps - set(there)), twice=len(there) - len(set(there)))
    return {name: asked[name] for name in ("points", "lost", "twice")}


def drain(folder: Path, steps: int, keys: int) -> dict[str, Any]:
    """Points that waited in a spool, from the moment at which the server answers again."""
    folder.mkdir()
    spool = Spool(folder / "run" / FILE)
    spool.append({"kind": "run", "job": {}, "datasets": [], "environment": {}})
    begun = time.time() - steps
    for step in range(steps):
        values = {f"metric_{key}": 1 / (step + key + 1) for key in range(keys)}
        spool.append({"kind": "points", "step": step, "time": begun + step, "values": values})
    server = Server(folder, workers=WORKERS)
    writer = Writer(folder / "run", server.uri, poll_s=0.05)
    writer.start()
    try:
        server.start(START_S)
        with _counted() as used:
            begun = time.monotonic()
            if not writer.flush(1200):
                raise SystemExit(f"not drained within 20 minutes: {writer.summary()}")
            took = time.monotonic() - begun
        summary = writer.close(30)
        found = compared(folder / "run", server.uri, str(summary.run_id))
    finally:
        writer.close(0)
        server.stop()
    share = {name: round(seconds / summary.sent * 1e6, 1) for name, seconds in used().items()}
    return {**found, "seconds": round(took, 2), "points_per_s": round(summary.sent / took), "us_a_point": share}


@contextmanager
def _counted() -> Any:
    """Seconds of the processor, of this process and of those below it, while it is open."""

    def now() -> dict[str, float]:
        own = psutil.Process()
        below = sum(sum(child.cpu_times()[:2]) for child in own.children(recursive=True))
        return {"ours": time.process_time(), "server": below}

    before, after = now(), {}

    def used() -> dict[str, float]:
        return {name: after[name] - before[name] for name in before}

    yield used
    after.update(now())


class _Peer:
    """A process that logs with MLflow's own client while the server is away."""

    def __init__(self, uri: str, synchronous: bool) -> None:
        self.name = "mlflow.log_metric, " + ("waited for" if synchronous else "not waited for")
        self._uri, (self._pipe, theirs) = uri, _processes.Pipe()
        self.process = _processes.Process(target=_log, args=(theirs, uri, synchronous), daemon=True)
        self.process.start()
        self._run: str = self._pipe.recv()

    def go(self) -> None:
        self._pipe.send(None)

    def found(self) -> dict[str, Any]:
        from mlflow import MlflowClient

        told = self._pipe.recv() if self._pipe.poll(300) else {"error": "did not come back within 300 s"}
        there = len(MlflowClient(tracking_uri=self._uri).get_metric_history(self._run, "loss"))
        return {**told, "lost": told.get("points", 0) - there}


def _log(pipe: Any, uri: str, synchronous: bool) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("peers")
    run = mlflow.start_run()
    pipe.send(run.info.run_id)
    pipe.recv()
    log: Callable[..., Any] = mlflow.log_metric
    longest, error, step = 0.0, "", 0
    for step in range(PEERS):
        begun = time.perf_counter()
        try:
            log("loss", 1.0, step=step, synchronous=synchronous)
        except Exception as raised:  # what a training would see of it
            error = type(raised).__name__
        longest = max(longest, time.perf_counter() - begun)
        if synchronous and error:
            break
        time.sleep(PEER_PAUSE_S)
    try:
        mlflow.flush_async_logging()
    except Exception as raised:
        error = f"{type(raised).__name__} at the end"
    pipe.send({"points": step + 1, "longest_call_s": round(longest, 2), "raised": error})
