"""A real tracking server, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tests import waiting

DEADLINE_S, START_S = 90, 240
wait_for = partial(waiting.until, within_s=DEADLINE_S)


class Server:
    """A real MLflow server on a loopback port of its own, which can be started after its address is known.

    Args:
        folder: of its files.
        store: URI of its database; a sqlite file in the folder when not given.
        artifacts: where it keeps files; a folder in the folder when not given.
        options: further ones of `mlflow server`.
        environ: variables of its own.
        workers: processes that answer.
    """

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        artifacts: str | None = None,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder, self._workers = folder, workers
        self._options = ["--backend-store-uri", store or f"sqlite:///{folder}/server.db"]
        self._options += ["--artifacts-destination", artifacts or str(folder / "artifacts"), *options]
        self._environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, within_s: float = START_S) -> None:
        """Raises AssertionError where it does not answer within so many seconds."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", str(self._workers), "--port", str(self.port)]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **quiet, **self._environ},
                cwd=self._folder,
                start_new_session=True,
            )
        try:
            waiting.until(self._answers, "the server answers", within_s)
        except BaseException:  # raised again: it is not left behind
            self.stop()
            raise

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return True
        except OSError:
            return False
