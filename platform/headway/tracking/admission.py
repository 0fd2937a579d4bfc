"""Whether the tracking store takes a run's records: asked before anything is started, and only for a moment.

A store that refuses (a wrong password, a deleted experiment, no MLflow at all behind the address) will refuse later
too, and is an error now. One that is merely away is a note: records wait for it.
"""

from __future__ import annotations

import http.client
import json
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headway.errors import BadInput
from headway.tracking import schema
from headway.tracking.store import redact

LOOK_S = 3.0
"""For a plain request."""
CONFIRM_S = 20.0
"""For MLflow's own client, which knows more ways to show who one is; it takes seconds to import."""
USER, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""A server that is slow or gone costs seconds, not MLflow's minutes; nobody is told what runs here; and standard output
belongs to the command."""
_ABSENT = "RESOURCE_DOES_NOT_EXIST"
_AWAY = {408, 425, 429}
_ENTRANCE = 4096


@dataclass(frozen=True)
class Answer:
    """What the store says to the question for an experiment.

    Args:
        status: as of HTTP; 0: there was no answer.
        body: its beginning.
    """

    status: int
    body: str


def admit(uri: str, experiment: str, environ: Mapping[str, str] = os.environ) -> str:
    """Ask the store for the experiment.

    Args:
        uri: from `check_uri` or `default_uri`.
        experiment: MLflow's name of it; it need not be there.
        environ: what the one who will send the records has; credentials are taken from it.

    Returns:
        Why the records will have to wait, in words; empty where all is well, or nothing can be known this way.

    Raises:
        BadInput: the store refuses.
    """
    if uri.startswith("sqlite:"):
        _look_into(Path(uri.removeprefix("sqlite:///")), experiment)
        return ""
    if not uri.startswith(("http:", "https:")):
        return ""
    answer = _within(LOOK_S, lambda: _ask(uri, experiment, environ))
    if answer.status in (401, 403) or (answer.status == 0 and "certificate" in answer.body.lower()):
        answer = _confirmed(uri, experiment, environ)
    return _judged(answer, uri, experiment, environ)


def _judged(answer: Answer, uri: str, experiment: str, environ: Mapping[str, str]) -> str:
    shown, tree = f"tracking.uri={redact(uri)!r}", _tree(answer.body)
    if answer.status == 0 and "certificate" in answer.body.lower():
        remedy = "Say with MLFLOW_TRACKING_SERVER_CERT_PATH which certificate is good."
        raise BadInput(f"{shown} cannot be trusted", answer.body, remedy)
    if answer.status == 0 or answer.status >= 500 or answer.status in _AWAY:
        reason = answer.body if answer.status == 0 else f"it answers {answer.status}"
        return f"{redact(uri)} takes no records now ({reason}); they wait in the run's folder, and training goes on"
    if answer.status in (401, 403):
        raise _refused(answer, shown, experiment, environ)
    if tree is not None and answer.status == 200 and isinstance(tree.get("experiment"), dict):
        _check_stage(tree["experiment"].get("lifecycle_stage"), tree["experiment"].get("experiment_id"), experiment)
        return ""
    if tree is not None and tree.get("error_code") == _ABSENT:
        return ""
    if tree is not None and isinstance(tree.get("message"), str):
        reason = f"it says {answer.status}: {_line(tree['message'])}"
        raise BadInput(f"{shown} refuses", reason, "Look at tracking.uri and tracking.experiment.")
    page = "a web page" if "<" in answer.body[:100] else "something else"
    reason = f"what answers there sends {page} ({answer.status}), as a login page or another service does"
    raise BadInput(f"{shown} is no MLflow server", reason, "Give the address at which MLflow itself is served.")


def _refused(answer: Answer, shown: str, experiment: str, environ: Mapping[str, str]) -> BadInput:
    given = [name for name in (USER, PASSWORD, TOKEN) if environ.get(name)]
    if answer.status == 401:
        have = (
            f"it does not take what {' and '.join(given)} say" if given else f"{USER}, {PASSWORD} and {TOKEN} are unset"
        )
        remedy = f"Set {USER} and {PASSWORD}, or {TOKEN}, where you start the run; or tracking.enabled: false."
        return BadInput(f"{shown} wants to know who you are (401)", have, remedy)
    said = _line((_tree(answer.body) or {}).get("message") or ("" if "<" in answer.body[:100] else answer.body))
    reason = f"it says: {said}" if said else "it gives no reason"
    remedy = "Ask for the right to write there, or name another experiment; or set tracking.enabled: false."
    return BadInput(f"{shown} does not let you use tracking.experiment={experiment!r} (403)", reason, remedy)


def _check_stage(stage: Any, number: Any, experiment: str) -> None:
    if stage == "deleted":
        raise BadInput(
            f"tracking.experiment={experiment!r} is deleted",
            "MLflow takes no runs into it, and its name is not free",
            f"Restore it (`mlflow experiments restore --experiment-id {number}`), or name another.",
        )


def _look_into(file: Path, experiment: str) -> None:
    if not file.is_file() or not file.stat().st_size:
        return
    schema.check(schema.of_file(file), f"sqlite:///{file}")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=1.0)) as database:
            query = "SELECT lifecycle_stage, experiment_id FROM experiments WHERE name = ?"
            found = database.execute(query, (experiment,)).fetchall()
    except sqlite3.OperationalError:
        return  # busy, or without MLflow's tables, which will be made
    except sqlite3.DatabaseError as error:
        fact = f"tracking.uri: {file} is no sqlite database"
        raise BadInput(fact, str(error), "Move it out of the way, or name another file.") from None
    if found and all(stage == "deleted" for stage, _ in found):
        stage, number = found[0]
        _check_stage(stage, number, experiment)


def _ask(uri: str, experiment: str, environ: Mapping[str, str]) -> Answer:
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment, safe='')}"
    request = urllib.request.Request(address, headers=_who(environ))
    try:
        with urllib.request.urlopen(request, timeout=LOOK_S) as found:
            return Answer(found.status, found.read(_ENTRANCE).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(_ENTRANCE).decode(errors="replace"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, _line(str(getattr(error, "reason", "") or error)) or type(error).__name__)


def _who(environ: Mapping[str, str]) -> dict[str, str]:
    user, password, token = (environ.get(name, "") for name in (USER, PASSWORD, TOKEN))
    if user and password:
        return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """The answer, in a thread that is left behind where it takes longer: names may be looked up for minutes."""
    found: list[Answer] = []
    thread = threading.Thread(target=lambda: found.append(ask()), name="tracking-admission", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else Answer(0, f"no answer within {seconds:g} s")


def _confirmed(uri: str, experiment: str, environ: Mapping[str, str]) -> Answer:
    """The same by MLflow's own client, in a process of its own: it alone knows of credentials in files and plugins."""
    program = "import sys; from headway.tracking.admission import confirm; confirm(*sys.argv[1:])"
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [environ.get("PYTHONPATH")])])
    environment = {**SETTINGS, **environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program, uri, experiment],
            capture_output=True,
            text=True,
            timeout=CONFIRM_S,
            env=environment,
        )
        return Answer(**json.loads(ended.stdout.splitlines()[-1]))
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError, TypeError):
        return Answer(0, "MLflow's client could not ask it")


def confirm(uri: str, experiment: str) -> None:
    """Print MLflow's answer as JSON. See `_confirmed`."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        found = MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
    except MlflowException as error:
        print(json.dumps({"status": _status(error), "body": _line(str(error))[:_ENTRANCE]}))
        return
    tree = {"error_code": _ABSENT}
    if found is not None:
        stage = {"lifecycle_stage": found.lifecycle_stage, "experiment_id": found.experiment_id}
        print(json.dumps({"status": 200, "body": json.dumps({"experiment": stage})}))
        return
    print(json.dumps({"status": 404, "body": json.dumps(tree)}))


def _status(error: Any) -> int:
    text = str(error)
    for status, code in ((401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")):
        if getattr(error, "error_code", "") == code or f"error code {status} " in text:
            return status
    return 0


def _tree(body: str) -> dict[str, Any] | None:
    try:
        tree = json.loads(body)
    except ValueError:
        return None
    return tree if isinstance(tree, dict) else None


def _line(text: Any) -> str:
    return redact((str(text).strip().splitlines() or [""])[0].strip())[:300]
