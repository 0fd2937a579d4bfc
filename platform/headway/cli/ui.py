"""`headway ui`: MLflow's pages over the records of a runs folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from headway.cli import serving
from headway.cli.options import Runs
from headway.driver import signals
from headway.errors import BadInput, HeadwayError, RunFailed

if TYPE_CHECKING:
    from headway.runs import Place

TELL_S = 60.0
"""For the records of a run that its leader could not send."""
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
    port = serving.free_port(host, port)
    with locked(database.with_name(f"{DATABASE}.lock")):
        pass  # a first run may be making the tables at this moment
    with tempfile.TemporaryFile("w+") as log:
        server = _start(place.folder, host, port, log)
        threading.Thread(target=_complete, args=(place,), name="tell", daemon=True).start()
        try:
            serving.wait_until_up(server, "MLflow's server", host, port, "/health", log)
            address = pages.home(f"http://{serving.in_url(host)}:{port}")
            print(f"MLflow shows {place} at {address} (Ctrl-C ends it)", flush=True)
            server.wait()
            raise RunFailed("MLflow's server ended by itself", serving.tail(log), "")
        except KeyboardInterrupt:
            pass
        finally:
            serving.stop(server)


def _complete(place: Place) -> None:
    """Have the pages show how runs stand: what their leaders, who are gone, could not tell is told now."""
    from headway.runs import outline, telling

    with suppress(HeadwayError, OSError):
        for brief in outline(place):
            telling.untold(place, brief, TELL_S)


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
    return serving.start(command, log, quiet)
