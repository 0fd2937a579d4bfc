"""The sweep's own run in MLflow, above those of its trials: fed through a spool, as any run's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.errors import RunFailed
from headway.sweeps.seen.view import View
from headway.tracking.spool import FILE, Spool

if TYPE_CHECKING:
    from headway.tracking.mlflow_writer import Writer

CLOSE_S = 60.0


@dataclass(frozen=True)
class Tracking:
    """Where the sweep is recorded.

    Args:
        uri, experiment: as of its trials' job; uri None: the sqlite store of the runs folder.
        key: of the sweep's folder: trials name it as their parent's.
        tree: the sweep's file, as plain values, for its parameters.
    """

    uri: str | None
    experiment: str
    key: str
    tree: Mapping[str, Any]


class Tracked:
    """Feeds the spool of a sweep's folder, and has a thread carry it to the store. Nothing here waits for a server,
    and nothing that cannot be kept ends a sweep."""

    def __init__(self, folder: Path, tracking: Tracking, say: Callable[[str], None] = lambda text: None) -> None:
        self._folder, self._tracking, self._say = folder, tracking, say
        self._spool = Spool(folder / FILE)
        self._writer: Writer | None = None
        self._failed = False
        self._shown: dict[str, float] = {}

    def start(self) -> None:
        from headway.tracking.environment import environment
        from headway.tracking.mlflow_writer import Writer
        from headway.tracking.store import redact

        given = self._tracking
        where = {"uri": redact(given.uri) if given.uri else None, "experiment": given.experiment}
        job = {**given.tree, "tracking": where}
        tags = {"headway.sweep": self._folder.name}
        self._add({"kind": "run", "job": job, "environment": environment(), "key": given.key, "tags": tags})
        self._add({"kind": "state", "state": "running"})
        self._writer = Writer(self._folder, given.uri, given.experiment, say=self._say)
        self._writer.start()

    def show(self, number: int, view: View) -> None:
        """The sweep's curves, where they changed.

        Args:
            number: of the event, which rises.
        """
        values = {"trials_over": float(view.over), "worker_seconds": round(view.worker_s, 3)}
        if view.best is not None and view.best.best is not None:
            values[f"best/{view.subject.metric}"] = view.best.best
            values["best_trial"] = float(view.best.number)
        changed = {name for name, value in values.items() if self._shown.get(name) != value}
        if changed - {"worker_seconds"}:
            self._shown = values
            self._add({"kind": "points", "step": number, "values": values})

    def end(
        self, state: str, message: str, files: Mapping[str, str], tags: Mapping[str, Any], close_s: float = CLOSE_S
    ) -> dict[str, Any]:
        """The last of it.

        Args:
            files: to keep: paths in the sweep's folder, and the folder in MLflow that each goes to ("" for the top).

        Returns:
            What became of the records; see `headway.tracking.mlflow_writer.Summary`.
        """
        for path, folder in files.items():
            self._add({"kind": "artifact", "path": path, **({"folder": folder} if folder else {})})
        self._add({"kind": "state", "state": state, "message": message, "tags": dict(tags)})
        if self._writer is None:
            return {}
        found = self._writer.close(close_s)
        self._spool.close()
        return {name: getattr(found, name) for name in ("run_id", "uri", "sent", "waiting", "error")}

    def _add(self, event: dict[str, Any]) -> None:
        try:
            self._spool.append({"time": time.time(), **event})
        except RunFailed as error:
            if not self._failed:
                self._say(str(error))
            self._failed = True
