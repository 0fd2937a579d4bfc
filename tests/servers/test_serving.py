"""`mlflow models serve` on what `headway promote` promoted: asked over HTTP, when the run is long gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.unit.trained import TASK, points, trained
from tests.waiting import until

import headway
from headway.models.promoting import promote
from headway.runs import RunFolder
from headway.tracking.store import connect, default_uri

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
START_S = 240.0


@pytest.fixture
def promoted(tmp_path: Path) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """A runs folder in which only MLflow's records are left; rows, and what the run's model says of them."""
    run: RunFolder = trained(tmp_path, TASK, points(tmp_path))
    runs = run.path.parent
    connect(default_uri(runs), runs)
    chance = np.random.default_rng(5)
    rows = pd.DataFrame({"a": chance.normal(size=7), "b": chance.normal(size=7)})
    wanted = headway.predict(run.path, pa.Table.from_pandas(rows), step="best").table
    assert wanted is not None
    promote(run.path, alias="production")
    shutil.rmtree(run.path)
    return runs, rows, wanted.to_pandas()


class Served:
    def __init__(self, runs: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = runs.parent / "serve.log"
        quiet = {"MLFLOW_TRACKING_URI": default_uri(runs), "MLFLOW_DISABLE_TELEMETRY": "true"}
        quiet["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow starts uvicorn by its name
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/r@production"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **quiet},
                cwd=runs.parent,
                start_new_session=True,
            )

    def up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
        try:
            return self.ask("/ping")[0] == 200
        except OSError:
            return False

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def served(promoted: tuple[Path, pd.DataFrame, pd.DataFrame]) -> Iterator[Served]:
    made = Served(promoted[0])
    try:
        until(made.up, "the model is served", START_S)
        yield made
    finally:
        made.end()


def test_a_promoted_model_is_served(promoted: tuple[Path, pd.DataFrame, pd.DataFrame], served: Served) -> None:
    _, rows, wanted = promoted
    status, body = served.ask("/invocations", {"dataframe_split": rows.to_dict("split", index=False)})
    assert status == 200, body
    found = pd.DataFrame(json.loads(body)["predictions"])
    assert found["class"].tolist() == wanted["class"].tolist()
    assert np.allclose(np.stack(found["scores"].tolist()), np.stack(wanted["scores"].tolist()))
    records = [{"a": 1, "b": 2}, {"a": 0.5, "b": -3}]
    assert served.ask("/invocations", {"dataframe_records": records})[0] == 200, "whole numbers are numbers too"
    status, body = served.ask("/invocations", {"dataframe_records": [{"a": 1.0}]})
    assert status == 400
    assert b"'b'" in body, "what lacks is named"
