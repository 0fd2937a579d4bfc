"""A sweep's report, from its folder; and what is made of a sweep at its end: pictures, best.yaml, the last records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.durable import replace
from headway.errors import BadInput
from headway.job import Job
from headway.runs.folder import RunFolder
from headway.sweeps import best, importance, pictures, report
from headway.sweeps.events import Config
from headway.sweeps.report import SweepReport
from headway.sweeps.seen import history
from headway.sweeps.seen.keeping import Seen
from headway.sweeps.seen.tracked import CLOSE_S
from headway.sweeps.seen.view import View

FILE = "report.json"
GONE = "the process that led the sweep is gone"
SWEEP_FILE = "sweep.yaml"


def conclude(
    seen: Seen,
    folder: Path,
    state: str,
    message: str,
    best_job: Callable[[Config], Job],
    path: str | None = None,
    close_s: float = CLOSE_S,
) -> SweepReport:
    """What becomes of a sweep that is at its end, or is left as it is; waits some time for the tracking store.

    Args:
        folder: of the sweep, on this machine. Gets pictures/, best.yaml and report.json.
        state: finished, stopped, failed, interrupted; message: why.
        best_job: the job with such settings.
        path: of the sweep, where it is not that folder.
        close_s: seconds, for which the store is waited for at most.
    """
    seen.close(state, message)
    view = seen.view()
    found = _made(view, folder, path or str(folder), seen.last)
    files = {name: pictures.FOLDER if name.startswith(pictures.FOLDER) else "" for name in found.pictures}
    if found.best is not None:
        with suppress(OSError, BadInput):
            replace(folder / best.FILE, best.written(found, best_job(found.best.best_settings)))
            files[best.FILE] = ""
    files |= {name: "" for name in (SWEEP_FILE, FILE) if (folder / name).exists()}
    tracking = seen.send(state, message, files, _tags(found), close_s)
    found = found.model_copy(update={"tracking": tracking})
    _keep(found, folder, seen.last)
    return found


def load(sweep: RunFolder) -> SweepReport:
    """The report of a sweep, at any time.

    Args:
        sweep: of `headway.sweeps.folder`.

    Raises:
        BadInput: nothing is known of it.
    """
    folder, facts = sweep.path, sweep.read()
    read = history.read(folder / history.FILE)
    if read is None:
        reason = "it ended before anything happened" if facts.get("ended") else "nothing happened yet"
        raise BadInput(f"there is nothing to be told of sweep {sweep.name}", reason, "")
    sight, last = read
    if not sweep.is_led() and sight.state == "running":
        told = facts.get("state", "running")
        sight.over_unseen(*(("interrupted", GONE) if told == "running" else (told, facts.get("message", ""))))
    kept = _kept(folder, last)
    view = sight.view()
    if kept is None:
        return _told(view, sweep.where)
    more: dict[str, Any] = {
        name: kept[name] for name in ("importance", "importance_note", "pictures", "tracking") if name in kept
    }
    return report.of(view, sweep.where, more)


def draw(sweep: RunFolder, to: Path) -> list[Path]:
    """Draw the pictures of a sweep as it is now.

    Args:
        to: the folder for them; made where it is not there.

    Raises:
        BadInput: it cannot be written, or nothing is known of the sweep.
    """
    read = history.read(sweep.path / history.FILE)
    if read is None:
        raise BadInput(f"there is nothing to be drawn of sweep {sweep.name}", "nothing happened yet", "")
    try:
        return [to / name for name in pictures.draw(read[0].view(), to)]
    except OSError as error:
        raise BadInput(f"no pictures can be kept in {to}", error.strerror or str(error), "Name a folder.") from None


def _made(view: View, folder: Path, path: str, last: int) -> SweepReport:
    found = _told(view, path)
    drawn = _pictures(view, folder, found.importance)
    found = found.model_copy(update={"pictures": drawn})
    _keep(found, folder, last)
    return found


def _told(view: View, path: str) -> SweepReport:
    found = report.of(view, path)
    told = importance.of(found)
    return found.model_copy(update={"importance": told.shares, "importance_note": told.note})


def _pictures(view: View, folder: Path, shares: Mapping[str, float]) -> list[str]:
    with suppress(OSError):
        return [f"{pictures.FOLDER}/{name}" for name in pictures.draw(view, folder / pictures.FOLDER, list(shares))]
    return []


def _keep(found: SweepReport, folder: Path, last: int) -> None:
    with suppress(OSError):
        replace(folder / FILE, json.dumps({"events": last, "report": json.loads(found.model_dump_json())}))


def _kept(folder: Path, last: int) -> dict[str, Any] | None:
    """The report that was made when the sweep was as it is now."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if tree["events"] == last:
            return dict(tree["report"])
    return None


def _tags(found: SweepReport) -> dict[str, Any]:
    """The best of it, for MLflow's pages."""
    if found.best is None:
        return {}
    settings = {f"best.{key}": value for key, value in found.best.best_settings.items()}
    return {"best.trial": found.best.trial, f"best.{found.metric}": found.best.best, **settings}
