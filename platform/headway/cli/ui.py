"""`headway ui`: MLflow's pages over the records of a runs folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Annotated

import typer

from headway.cli.options import Runs
from headway.driver import signals
from headway.errors import BadInput, RunFailed

START_S = 60.0
STOP_S = 5.0
_PORT_HELP = "Port; 0 for any that is free."


def ui(
    runs: Runs = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help=_PORT_HELP)] = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine reaches the default.")
    ] = "127.0.0.1",
) -> None:
    """Show the recorded runs in the browser, until Ctrl-C."""
    from headway.runs import Place
    from headway.tracking import pages, schema
    from headway.tracking.store import DATABASE, locked

    place = Place.of(runs)
    signals.begin()  # SIGTERM as Ctrl-C, so that the server never outlives this process
    database = place.folder / DATABASE
    if not database.is_file():
        remedy = "Start one with `headway train JOB`, or say where runs are with --runs."
        reason = f"{DATABASE} is missing: no run has been recorded there yet"
        if place.url is not None:
            reason = f"no run of {place} has been recorded on this machine: {database} is missing"
            remedy = "`headway sync RUN` brings a run's records here. A tracking server has its own pages."
        raise BadInput(f"no records in {place}", reason, remedy)
    schema.check(schema.of_file(database), f"sqlite:///{database}")
    port = _free_port(host, port)
    with locked(database.with_name(f"{DATABASE}.lock")):
        pass  # a first run may be making the tables at this moment
    with tempfile.TemporaryFile("w+") as log:
        server = _start(place.folder, host, port, log)
        try:
            _wait_until_up(server, host, port, log)
            address = pages.home(f"http://{_in_url(host)}:{port}")
            print(f"MLflow shows {place} at {address} (Ctrl-C ends it)", flush=True)
            server.wait()
            raise RunFailed("MLflow's server ended by itself", _tail(log), "")
        except KeyboardInterrupt:
            pass
        finally:
            _stop(server)


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; BadInput when it cannot be had."""
    fact, remedy = (
        f"--host {host} --port {port} cannot be used",
        "Choose another with --port, or 0 for any that is free.",
    )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise BadInput(fact, error.strerror or str(error), remedy) from None


def _start(runs: Path, host: str, port: int, log: IO[str]) -> subprocess.Popen[str]:
    from headway.tracking.store import ARTIFACTS, default_uri

    artifacts = (runs.resolve() / ARTIFACTS).as_uri()
    options = {
        "--backend-store-uri": default_uri(runs),
        "--default-artifact-root": artifacts,
        "--host": host,
        "--port": str(port),
        "--workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # A session of its own: the server has children, and all of them are to end, when we say so.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **quiet},
        start_new_session=True,
    )


def _wait_until_up(server: subprocess.Popen[str], host: str, port: int, log: IO[str]) -> None:
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    # No proxy of the environment stands between this and its own child.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RunFailed("MLflow's server did not start", _tail(log), "")
        try:
            with opener.open(f"http://{_in_url(local)}:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RunFailed(f"MLflow's server did not answer within {START_S:.0f} s", _tail(log), "Try again.")


def _stop(server: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue


def _tail(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "it said nothing"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
