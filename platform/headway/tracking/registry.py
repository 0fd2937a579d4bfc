"""MLflow's registered models: versions with their own weights, and the aliases that lead to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headway.tracking import recording, store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

BEST = "best"
"""An alias that leads to the version with the best metric."""


class Registry:
    """Of a tracking store.

    Args:
        uri: of the store, from `headway.tracking.store`.
        folder: where artifacts go when the store is a database on another machine.
        experiment: that new models are logged in, where their run is not known.
    """

    def __init__(self, uri: str, folder: Path, experiment: str) -> None:
        self.uri = store.redact(uri)
        self._asked = uri
        self._client, self._artifacts = store.connect(uri, folder)
        self._experiment = experiment

    def version_of(self, name: str, alias: str) -> ModelVersion | None:
        """That an alias leads to."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def versions(self, name: str) -> list[ModelVersion]:
        """Of a model, the newest first."""
        return list(self._client.search_model_versions(f"name = '{name}'"))

    def of_digest(self, name: str, digest: str) -> str | None:
        """The version that holds a checkpoint's weights already."""
        same = (each for each in self.versions(name) if each.tags.get("headway.digest") == digest)
        return next((str(each.version) for each in same if each.status == "READY"), None)

    def register(self, name: str, label: str, folder: Path, run: str | None, tags: Mapping[str, str]) -> str:
        """Have a folder in the store as a logged model and as a version of a registered one; returns the version.

        Args:
            name: of the registered model, which is made where there is none.
            label: of the logged model.
            folder: with an MLmodel.
            run: MLflow's id of the run it comes from.
            tags: of the version.
        """
        from mlflow.exceptions import MlflowException

        client = self._client
        experiment = self._experiment_of(run)
        source = run if experiment is not None else None
        if experiment is None:
            experiment = recording.found_experiment(client, self._artifacts, self._experiment)
        model = client.create_logged_model(experiment, label, source, tags=dict(tags), model_type="promoted")
        client.log_model_artifacts(model.model_id, str(folder))
        model = client.finalize_logged_model(model.model_id, "READY")
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        at, its_id = model.artifact_location, model.model_id
        with store.by_default(self._asked):
            made = client.create_model_version(name, at, source, dict(tags), model_id=its_id)
        return str(made.version)

    def lead(self, name: str, alias: str, version: str) -> None:
        """Let the alias lead to this version."""
        self._client.set_registered_model_alias(name, alias, version)

    def lead_best(self, name: str, metric: str, mode: str) -> str | None:
        """Let `best` lead to the version whose metric is the best, of equals the newest; returns it. Versions that were
        judged by another metric are left out."""
        sign, judged = (1.0 if mode == "max" else -1.0), []
        for each in self.versions(name):
            value = float(each.tags.get(f"headway.metric.{metric}", "nan"))
            if math.isfinite(value):
                judged.append((sign * value, int(each.version)))
        if not judged:
            return None
        best = str(max(judged)[1])
        self.lead(name, BEST, best)
        return best

    def _experiment_of(self, run: str | None) -> str | None:
        from mlflow.exceptions import MlflowException

        if run is None:
            return None
        try:
            return str(self._client.get_run(run).info.experiment_id)
        except MlflowException:  # of another store, or deleted there
            return None
