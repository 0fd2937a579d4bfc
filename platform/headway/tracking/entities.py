"""A run's events in MLflow's words: names and values that it takes, parameters, data sets."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headway.tracking.store import redact

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

NAME_CHARS = 250
PARAM_CHARS = 6000
TAG_CHARS = 5000
_DIGEST_CHARS = 36
STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "interrupted": "KILLED",
}


def name(text: Any) -> str:
    """A key that MLflow takes for a parameter, metric or tag."""
    cleaned = posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", str(text))).strip("/")[:NAME_CHARS].rstrip("/")
    return "_" if not cleaned or cleaned.startswith(".") else cleaned


def tag(value: Any) -> str:
    """A tag's value, cut to the length that every store takes."""
    return text(value)[:TAG_CHARS]


def text(value: Any) -> str:
    """A setting as a person would write it in YAML's flow style."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def parameters(job: Mapping[str, Any]) -> dict[str, str]:
    """The job with its sections joined by dots: {"workers.max": "4", ...}. Passwords in URIs are left out."""
    return {name(key): redact(text(value))[:PARAM_CHARS] for key, value in _flat(job)}


def environment_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    """The environment as tags; the commit, and whether there were changes since, under MLflow's own names too."""
    tags = {name(f"environment.{key}"): tag(value) for key, value in _flat(environment) if value is not None}
    commit, changed = tags.get("environment.git.commit"), tags.get("environment.git.changed")
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if changed:
        tags["mlflow.source.git.dirty"] = changed
    return tags


def numbers(values: Any) -> Iterator[tuple[str, float]]:
    """Metrics of an event with keys that MLflow takes; what is no number is left out, NaN and infinities are not."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(value, int | float):
            try:
                yield name(key), float(value)
            except OverflowError:
                yield name(key), math.inf


def dataset(entry: Mapping[str, Any]) -> DatasetInput:
    """A dataset of a `run` event as an input of the MLflow run. MLflow keeps 36 characters of a digest, a tag all."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = str(entry.get("digest") or "unknown")
    schema = entry.get("schema")
    if isinstance(schema, Mapping):
        columns = [{"name": str(column), "type": str(kind), "required": True} for column, kind in schema.items()]
        schema = {"mlflow_colspec": columns}
    described = Dataset(
        name=str(entry.get("name") or "data")[:500],
        digest=digest[:_DIGEST_CHARS],
        source_type="local",
        source=json.dumps({"uri": str(entry.get("path") or "")}),
        schema=None if schema is None else text(schema)[: 1 << 20],
        profile=json.dumps({"num_rows": entry.get("rows")}),
    )
    tags = {"mlflow.data.context": entry.get("context") or "train", "headway.digest": digest}
    return DatasetInput(described, [InputTag(key, str(value)[:500]) for key, value in tags.items()])


def model_name(run_name: str, step: int) -> str:
    """The name of a checkpoint among the logged models of an experiment."""
    return re.sub(r"[/:.%\"']", "-", f"{run_name}-step-{step}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
