"""Files of a run that MLflow keeps as artifacts. They may live somewhere else than records: where only they cannot be
stored, the records go on, and they are tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.tracking import entities
from headway.tracking.progress import Progress

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "headway.files"
"""Says that some could not be stored, and later that they were."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""By which MLflow's pages know the files that are tables."""
MOST_OWED = 10_000


class Files:
    """Args:
    client: of the store.
    folder: the Headway run's.
    progress: what the store has; what is owed to it is kept there.
    tag: sets tags of the MLflow run.
    """

    def __init__(
        self, client: MlflowClient, folder: Path, progress: Progress, tag: Callable[[dict[str, str]], None]
    ) -> None:
        self._client, self._folder, self._progress, self._tag = client, folder, progress, tag

    def take(self, event: dict[str, Any]) -> None:
        """An `artifact` event. Raises whatever says that not even the records can be stored."""
        file = {"path": str(event.get("path")), "folder": str(event.get("folder") or "")}
        if not (self._folder / file["path"]).is_file():
            return  # the run has gone on from before it, or its folder was tidied up
        owed = self._progress.owed
        if not owed:
            self._owe(file, self._stored(file))
        elif file not in owed and len(owed) < MOST_OWED:
            owed.append(file)  # after those before it
        if event.get("shown") == "table":
            self._show(file)

    def pay(self) -> str:
        """Try again what could not be stored; returns why something cannot be still, empty where nothing is owed."""
        owed = list(self._progress.owed)
        for file in owed:
            error = self._stored(file) if (self._folder / file["path"]).is_file() else None
            if error is not None:
                return f"{len(self._progress.owed)} files cannot be stored: {line(error)}"
            self._progress.owed.remove(file)
        if owed:
            self._tag({TAG: "kept"})
        return ""

    def _stored(self, file: dict[str, str]) -> Exception | None:
        try:
            run = str(self._progress.run_id)
            self._client.log_artifact(run, str(self._folder / file["path"]), file["folder"] or None)
        except Exception as error:  # of any store's client
            return error
        return None

    def _owe(self, file: dict[str, str], error: Exception | None) -> None:
        if error is not None:
            self._tag({TAG: f"not kept: {line(error)}"})
            self._progress.owed.append(file)

    def _show(self, file: dict[str, str]) -> None:
        """Let MLflow's page show the file as a table. A tag has only so much room: the newest are named in it."""
        run = self._client.get_run(str(self._progress.run_id))
        try:
            named = list(json.loads(run.data.tags.get(TABLES_TAG, "[]")))
        except ValueError:
            named = []
        name = Path(file["path"]).name
        entry = {"path": f"{file['folder']}/{name}" if file["folder"] else name, "type": "table"}
        named = [*(each for each in named if each != entry), entry]
        while len(json.dumps(named)) > entities.TAG_CHARS:
            named.pop(0)
        self._tag({TABLES_TAG: json.dumps(named)})


def line(error: Exception) -> str:
    """What an error says first."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
