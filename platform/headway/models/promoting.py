"""A run's model under a name that outlives the run: a version of a registered model in MLflow, with its own weights."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from headway.checkpoint.store import Store
from headway.errors import BadInput
from headway.models import columns, flavor, kept, loading
from headway.models.kept import Trained
from headway.runs import RunFolder, write_job
from headway.tracking import described, pages
from headway.tracking import store as stores
from headway.tracking.registry import BEST, Registry

if TYPE_CHECKING:
    from headway.job import Job

_NAME = re.compile(r"[^/:.%\"'\n]+")
_ALIAS = re.compile(r"[A-Za-z_][\w-]{0,254}")


@dataclass(frozen=True)
class Promoted:
    """What was registered.

    Args:
        model: its name.
        version: MLflow's.
        alias: that leads to it.
        uri: by which MLflow loads it.
        run: it comes from.
        step: of the checkpoint.
        metrics: of that.
        best: whether the alias `best` leads to it, too.
        was: version that the alias led to before, if any.
        page: of the version, where the store has pages.
        notes: for people.
    """

    model: str
    version: str
    alias: str
    uri: str
    run: str
    step: int
    metrics: dict[str, float]
    best: bool
    was: str | None = None
    page: str | None = None
    notes: list[str] = field(default_factory=list)


def promote(
    run: str | Path | RunFolder,
    *,
    alias: str,
    step: str | int = "best",
    model: str | None = None,
    replace: bool = False,
    runs_folder: str | Path | None = None,
) -> Promoted:
    """Copy a checkpoint's weights, with the task's code, into MLflow, and let an alias lead there.

    Args:
        run: its name, folder or URL.
        alias: `production`, say: `models:/MODEL@production` is how MLflow loads it. `best` is kept by Headway: it leads
            to the version whose metric (the job's `checkpoint.metric`) is the best of all that were promoted.
        step: "best", "last", or the number of one.
        model: name of the registered model; the job's when not given.
        replace: whether the alias may lead to another version by now.
        runs_folder: as of `headway.train`.

    Raises:
        BadInput: there is no such run or checkpoint, the name or alias cannot be used, or the alias is taken.
        BadCheckpoint: the checkpoint is damaged.
        UserCodeFailed: the task raised on the first rows of its own training set.
    """
    _check_alias(alias)
    folder = kept.find(run, runs_folder)
    trained = kept.read(folder, step)
    job = trained.job
    name = _checked_name(model or job.name)
    registry = _registry(folder, job)
    was = registry.version_of(name, alias)
    digest = trained.checkpoint.digest
    if was is not None and was.tags.get("headway.digest") != digest and not replace:
        raise BadInput(
            f"alias {alias} of {name} leads to version {was.version} (run {was.tags.get('headway.run', '?')}, "
            f"step {was.tags.get('headway.step', '?')})",
            "who uses it would get another model from now on",
            "Give --replace if they shall, or another alias.",
        )
    made = registry.of_digest(name, digest)
    notes = list(trained.notes)
    if made is None:
        with TemporaryDirectory() as room:
            notes += _fill(Path(room), trained, alias)
            label = f"{folder.name}-step-{trained.checkpoint.step}-promoted"
            made = registry.register(name, label, Path(room), _mlflow_run(folder), _tags(trained))
    registry.lead(name, alias, made)
    metric, mode = job.checkpoint.metric, job.checkpoint.mode
    best = registry.lead_best(name, metric, mode)
    metrics = dict(trained.checkpoint.facts.get("metrics", {}))
    before = str(was.version) if was is not None and str(was.version) != made else None
    page = pages.of_version(registry.uri, name, made)
    step_taken = trained.checkpoint.step
    uri = f"models:/{name}@{alias}"
    return Promoted(name, made, alias, uri, folder.name, step_taken, metrics, best == made, before, page, notes)


def _check_alias(alias: str) -> None:
    fact = f"alias {alias!r} cannot be used"
    if alias == BEST:
        raise BadInput(fact, "Headway keeps it: it leads to the best of the versions promoted", "Choose another word.")
    if not _ALIAS.fullmatch(alias) or re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE):
        reason = "MLflow takes letters, digits, '_' and '-', and neither `latest` nor v1, v2, ..."
        raise BadInput(fact, reason, "Choose a word like `production`.")


def _checked_name(name: str) -> str:
    cleaned = name.replace(".", "-")
    if not _NAME.fullmatch(cleaned):
        raise BadInput(
            f"model name {name!r} cannot be used", "MLflow takes no '/', ':' or quotes in it", "Choose another."
        )
    return cleaned


def _registry(folder: RunFolder, job: Job) -> Registry:
    uri = job.tracking.uri
    asked = stores.check_uri(stores.with_password(uri)) if uri else stores.default_uri(folder.path.parent)
    return Registry(asked, folder.path.parent, job.tracking.experiment)


def _mlflow_run(folder: RunFolder) -> str | None:
    found = folder.read().get("tracking", {}).get("run_id")
    return str(found) if found else None


def _tags(trained: Trained) -> dict[str, str]:
    checkpoint, job = trained.checkpoint, trained.job
    metrics = checkpoint.facts.get("metrics", {})
    found = {"headway.run": trained.run.name, "headway.step": str(checkpoint.step), "headway.digest": checkpoint.digest}
    found |= {f"headway.metric.{name}": repr(float(value)) for name, value in metrics.items()}
    return {**found, "headway.metric": job.checkpoint.metric, "headway.mode": job.checkpoint.mode}


def _fill(room: Path, trained: Trained, alias: str) -> list[str]:
    """Put a model that needs nothing else into a folder, and use it once. Gives what people should know."""
    own = room / flavor.OWN
    _copy(own, trained)
    checkpoint = Store(own / "checkpoints", trained.checkpoint.job, trained.job.checkpoint)
    facts = {**trained.checkpoint.facts, "copied_from": trained.checkpoint.where}
    written = checkpoint.write(trained.checkpoint.step, dict(trained.parts), facts)
    assert written is not None
    about = {"own": True, "run": flavor.OWN, "step": written.step, "checkpoint": written.name, "digest": written.digest}
    about |= {"of": {"run": trained.run.name, "digest": trained.checkpoint.digest}}
    inputs, rows = _inputs(trained)
    described.write(room, about, inputs, None, rows)
    outputs, notes = _used(room, trained, rows)
    described.write(room, about, inputs, outputs, rows)
    return notes


def _copy(to: Path, trained: Trained) -> None:
    """The run's own folder, without records and checkpoints."""
    to.mkdir(parents=True)
    run = trained.run
    if run.code.is_dir():
        shutil.copytree(run.code, to / "code", ignore=shutil.ignore_patterns("__pycache__"))
    copy = RunFolder(to)
    facts = {name: value for name, value in run.read().items() if name in ("columns", "total_steps", "steps", "format")}
    copy.write({**facts, "state": "finished", "run": run.name})
    write_job(copy, trained.job)


def _inputs(trained: Trained) -> tuple[dict[str, str], list[dict[str, Any]]]:
    seen, source = columns.of_run(trained.run, trained.job), trained.job.data.sources[0]
    inputs = {name: kind for name, kind in seen.types.items() if name != seen.label}
    rows = described.example(source.path, source.version, list(inputs))
    return described.with_gaps(inputs, source.path, source.version), rows


def _used(room: Path, trained: Trained, rows: list[dict[str, Any]]) -> tuple[dict[str, str] | None, list[str]]:
    """Load the model from where it lies now, and use it on the example. Gives the types of what it predicts."""
    read = flavor.trained(room / described.ABOUT)
    model, task = loading.built(read)
    try:
        predictor = flavor.predictor_of(read, model, task, "the example")
    except BadInput as error:
        return None, [f"MLflow loads it and cannot use it: {error}"]
    if not rows:
        return None, ["it was not tried: the first rows of its training set could not be read"]
    given = {name: [row[name] for row in rows] for name in rows[0]}
    found = predictor(flavor.table_of(given, predictor.columns.arrow))
    return {entry.name: str(entry.type) for entry in found.schema}, []
