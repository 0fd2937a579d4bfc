"""One MLflow run, and what each event of the spool does to it. Everything here may be done twice without harm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from headway.tracking import described, entities, posting
from headway.tracking.files import Files, line
from headway.tracking.lineage import PARENT_TAG, Parent
from headway.tracking.progress import Mark, Progress
from headway.tracking.spool import FILE, Event, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric

KEY_TAG = "headway.key"
CHECKPOINT_TAG = "headway.checkpoint"
"""Of a logged model: whether its checkpoint is there."""
GONE = "gone: the job's policy (checkpoint.keep_last, keep_best) let it go"
BELOW = "/checkpoints/"
PER_BATCH = 100  # parameters or tags; a limit of MLflow's
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


@dataclass
class Batch:
    """Points on their way: metrics, where each metric's mark will be, and the points that were left out."""

    metrics: list[Metric] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def open_run(
    client: MlflowClient,
    artifacts: str | None,
    experiment: str,
    run_name: str,
    key: str,
    time_s: float,
    parent: Parent | None = None,
) -> str:
    """The id of the MLflow run of that key; the run, its parent and its experiment are made when they are not there."""
    experiment_id = found_experiment(client, artifacts, experiment)
    above = {}
    if parent is not None:
        above = {PARENT_TAG: _run(client, experiment_id, parent.name, parent.key, time_s, {})}
    return _run(client, experiment_id, run_name, key, time_s, above)


def found_experiment(client: MlflowClient, artifacts: str | None, experiment: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return str(found.experiment_id)
    location = None if artifacts is None else f"{artifacts}/{entities.model_name(experiment, 0)[:-7]}"
    try:
        return str(client.create_experiment(experiment, artifact_location=location))
    except MlflowException:
        # Another run made it between the two calls; if not, this fails with the reason.
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise
        return str(found.experiment_id)


def _run(
    client: MlflowClient, experiment_id: str, run_name: str, key: str, time_s: float, more: Mapping[str, str]
) -> str:
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    tags = {KEY_TAG: key, "mlflow.source.name": "headway", "mlflow.source.type": "LOCAL", **more}
    run = client.create_run(experiment_id, start_time=int(time_s * 1000), tags=tags, run_name=run_name)
    return str(run.info.run_id)


class Recording:
    """Applies events to one MLflow run.

    Args:
        client: of the store.
        folder: the Headway run's; its name is the run's.
        progress: what the store has; `run_id` is set. Changed by what is sent, never saved here.
    """

    def __init__(self, client: MlflowClient, folder: Path, progress: Progress) -> None:
        self._client = client
        self._folder = folder
        self._progress = progress
        self._run = str(progress.run_id)
        self.files = Files(client, folder, progress, self._tags)
        self._sent_before: dict[str, set[int]] = {}
        """By metric: steps beyond its mark that the store has all the same."""
        self._columns: tuple[dict[str, str], list[dict[str, Any]]] | None = None
        self._appliers: dict[str, Callable[[Event], None]] = {
            "run": self._started,
            "checkpoint": self._checkpoint,
            "state": self._state,
            "artifact": self.files.take,
        }

    @property
    def has_server(self) -> bool:
        """Whether a server keeps the records, and several requests at once are quicker than one after the other."""
        return posting.has_server(self._client)

    def catch_up(self, gaps: bool = False) -> None:
        """Move the marks to the last points that the store has: some may have been sent and not saved as sent.

        Args:
            gaps: batches were on their way together, so that one may be there and the one before it not: the marks
                stay, and which steps there are is asked.
        """
        for metric in self._client.get_run(self._run).data._metric_objs:
            mark = self._progress.marks.get(metric.key)
            if mark is not None and metric.step <= mark[0]:
                continue
            if gaps:
                history = self._client.get_metric_history(self._run, metric.key)
                last = -math.inf if mark is None else mark[0]
                self._sent_before[metric.key] = {point.step for point in history if point.step > last}
            else:
                self._progress.marks[metric.key] = (metric.step, metric.timestamp, metric.value)

    def add(self, batch: Batch, event: Event) -> None:
        """Put the points of a `points` event into a batch, but for those whose step the metric has passed."""
        step, ms = int(event["step"]), _ms(event)
        for key, value in entities.numbers(event["values"]):
            self._point(batch, key, value, step, ms)

    def send(self, batch: Batch, most: int) -> int:
        """Send a batch, so many points in a request, and move the marks; returns the number of points sent."""
        parts = [batch.metrics[start : start + most] for start in range(0, len(batch.metrics), most)]
        if len(parts) > 1 and self.has_server:
            refused = posting.together(self._send, parts)
        else:
            refused = sum(map(self._send, parts))
        tags = {f"headway.not_finite.{key}": words for key, words in batch.left_out.items()}
        self._tags({entities.name(key): words for key, words in tags.items() if key not in self._progress.left_out})
        self._progress.left_out.update(batch.left_out)
        self._progress.marks.update(batch.marks)
        self._progress.refused += refused
        return len(batch.metrics) - refused

    def apply(self, event: Event) -> None:
        """Carry out any event but points. Unknown kinds are passed over: an older Headway can read a newer spool."""
        applier = self._appliers.get(event["kind"])
        if applier is None:
            return
        try:
            applier(event)
        except Exception as error:
            if not self._is_refusal(error):
                raise
            self._progress.refused += 1
            self._tags({"headway.refused": f"{event['kind']}: {line(error)}"})

    def _point(self, batch: Batch, key: str, value: float, step: int, ms: int, model: str | None = None) -> None:
        from mlflow.entities import Metric

        mark = batch.marks.get(key) or self._progress.marks.get(key)
        if mark is not None and step <= mark[0]:
            return
        if math.isfinite(value):
            batch.marks[key] = (step, ms, value)
            if step in self._sent_before.get(key, ()):
                return
            batch.metrics.append(Metric(key, value, ms, step, model_id=model))
        elif key not in self._progress.left_out:
            batch.left_out.setdefault(key, f"{value} at step {step}, and no point drawn there")

    def _send(self, metrics: Sequence[Metric]) -> int:
        if not metrics:
            return 0
        try:
            posting.post(self._client, self._run, metrics)
        except Exception as error:
            if not self._is_refusal(error):
                raise
            if len(metrics) == 1:
                return 1
            middle = len(metrics) // 2
            return self._send(metrics[:middle]) + self._send(metrics[middle:])
        return 0

    def _is_refusal(self, error: Exception) -> bool:
        """Whether the store is well and will not ever take this, as against: not now, or nothing for this run."""
        from mlflow.exceptions import MlflowException

        if not isinstance(error, MlflowException) or error.error_code not in _REFUSALS:
            return False
        return bool(self._client.get_run(self._run).info.lifecycle_stage == "active")

    def _started(self, event: Event) -> None:
        run = self._client.get_run(self._run)
        given = entities.parameters(event.get("job") or {})
        self._params({key: value for key, value in given.items() if key not in run.data.params})
        changed = {key: value for key, value in given.items() if run.data.params.get(key, value) != value}
        environment = event.get("environment") or {}
        resumed = {entities.name(f"resumed.{key}"): value for key, value in changed.items()}
        own = {entities.name(key): value for key, value in (event.get("tags") or {}).items()}
        self._tags({**resumed, **entities.environment_tags(environment), **own})
        datasets = [entities.dataset(entry) for entry in event.get("datasets") or [] if isinstance(entry, dict)]
        if datasets:
            self._client.log_inputs(self._run, datasets=datasets)
        starts = self._progress.starts + 1
        count = f"-{starts}" if starts > 1 else ""
        self._try_artifact(lambda: self._client.log_dict(self._run, environment, f"environment{count}.json"))
        self._progress.starts = starts

    def _state(self, event: Event) -> None:
        state = event.get("state")
        told = {"state": state, "message": event.get("message") or "-", "cause": event.get("cause") or "-"}
        own = {entities.name(key): value for key, value in (event.get("tags") or {}).items()}
        self._tags({**{f"headway.{name}": str(value) for name, value in told.items()}, **own})
        if state == "running":
            self._client.update_run(self._run, status="RUNNING")
        elif state in entities.STATUS:
            self._client.set_terminated(self._run, entities.STATUS[state], end_time=_ms(event))

    def _checkpoint(self, event: Event) -> None:
        from mlflow.entities import LoggedModelOutput

        step = int(event["step"])
        model = self._model(event, step)
        outputs = self._client.get_run(self._run).outputs
        if not any(output.model_id == model.model_id for output in (outputs.model_outputs if outputs else [])):
            self._client.log_outputs(self._run, [LoggedModelOutput(model.model_id, step)])
        self._send(self._model_metrics(event, model, step))
        self._let_go([int(each) for each in event.get("let_go") or ()])

    def _model(self, event: Event, step: int) -> LoggedModel:
        """The checkpoint as a logged model: found again, or made."""
        label, path = entities.model_name(self._folder.name, step), entities.tag(event.get("path"))
        tags = {"headway.path": path, CHECKPOINT_TAG: "there"}
        model = self._found(label)
        if model is None:
            details = {"step": str(step), "path": str(event.get("path")), "bytes": str(event.get("bytes"))}
            model = self._client.create_logged_model(
                self.experiment, label, self._run, tags=tags, params=details, model_type="checkpoint"
            )
        elif model.tags.get("headway.path") != path or model.tags.get(CHECKPOINT_TAG) == GONE:
            made = model  # the run has come to this step once more, and has another checkpoint of it
            self._try_artifact(lambda: self._describe(made, event, step))
            self._client.set_logged_model_tags(model.model_id, tags)
        if str(model.status) != "READY":
            unready = model
            self._try_artifact(lambda: self._describe(unready, event, step))
            model = self._client.finalize_logged_model(model.model_id, "READY")
        return model

    def _model_metrics(self, event: Event, model: LoggedModel, step: int) -> list[Metric]:
        """The checkpoint's metrics, tied to its model: the run's own point where there is one, else a new one."""
        from mlflow.entities import Metric

        batch, own = Batch(), []
        tied = {metric.key for metric in model.metrics or []}
        for key, value in entities.numbers(event.get("metrics")):
            names = (f"validation/{key}", key, f"checkpoint/{key}")
            if tied.intersection(names):
                continue
            if isinstance(event.get("measured"), int | float):
                # The very point of the curve, whether it was drawn or left out where points are close: twice is once.
                own.append(Metric(names[0], value, int(event["measured"] * 1000), step, model_id=model.model_id))
                continue
            same = [(name, mark) for name in names[:2] if (mark := self._progress.marks.get(name))]
            same = [(name, mark) for name, mark in same if (mark[0], mark[2]) == (step, value)]
            if same:
                # The same row again is no second point, but it is how MLflow ties a point to a model.
                own.append(Metric(same[0][0], value, same[0][1][1], step, model_id=model.model_id))
            else:
                self._point(batch, names[2], value, step, _ms(event), model.model_id)
        self._progress.marks.update(batch.marks)
        return own + batch.metrics

    def _describe(self, model: LoggedModel, event: Event, step: int) -> None:
        """What makes the checkpoint loadable by MLflow, as long as it is there."""
        run, _, name = str(event.get("path")).rpartition(BELOW)
        about = {"run": run, "step": step, "checkpoint": name, "digest": event.get("digest")}
        if self._columns is None:
            self._columns = _columns_of(Spool(self._folder / FILE))
        inputs, example = self._columns
        with TemporaryDirectory() as folder:
            described.write(Path(folder), about, inputs, None, example, model.model_id, self._run)
            self._client.log_model_artifacts(model.model_id, folder)

    def _let_go(self, steps: Sequence[int]) -> None:
        """The job's policy has removed the checkpoints of these steps: their models load no more, and say so."""
        for step in steps:
            found = self._found(entities.model_name(self._folder.name, step))
            if found is not None and found.tags.get(CHECKPOINT_TAG) != GONE:
                self._client.set_logged_model_tags(found.model_id, {CHECKPOINT_TAG: GONE})

    def _found(self, label: str) -> LoggedModel | None:
        where = f"name = '{label}' AND source_run_id = '{self._run}'"
        found = self._client.search_logged_models([self.experiment], filter_string=where, max_results=1)
        return found[0] if found else None

    def _try_artifact(self, upload: Callable[[], None]) -> None:
        """Artifacts may live somewhere else than records; when only they cannot be kept, the records go on."""
        try:
            upload()
        except Exception as error:
            self._tags({"headway.artifacts": f"not kept: {line(error)}"})

    @property
    def experiment(self) -> str:
        """MLflow's id of the run's experiment."""
        return str(self._client.get_run(self._run).info.experiment_id)

    def _params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        items = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(items), PER_BATCH):
            self._client.log_batch(self._run, params=items[start : start + PER_BATCH], synchronous=True)

    def _tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        items = [RunTag(key, entities.tag(value)) for key, value in tags.items()]
        for start in range(0, len(items), PER_BATCH):
            self._client.log_batch(self._run, tags=items[start : start + PER_BATCH], synchronous=True)


def _columns_of(spool: Spool) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What a run's model takes: types by column, without the label, and a few rows."""
    last: Event = {}
    for event in spool.events():
        if event["kind"] == "run":
            last = event
    for entry in last.get("datasets") or []:
        schema = entry.get("schema") if isinstance(entry, dict) else None
        if isinstance(schema, Mapping) and str(entry.get("context", "")).startswith("train"):
            inputs = {str(name): str(kind) for name, kind in schema.items() if name != entry.get("label")}
            where = str(entry.get("path")), entry.get("version")
            return described.with_gaps(inputs, *where), described.example(*where, list(inputs))
    return {}, []


def is_sound(event: Event) -> bool:
    """Whether an event has what its kind needs; one that has not cannot be sent, now or later."""
    whole = isinstance(event.get("time"), int | float)
    if event["kind"] in ("points", "checkpoint"):
        whole = whole and isinstance(event.get("step"), int)
    return whole and (event["kind"] != "points" or isinstance(event.get("values"), dict))


def _ms(event: Event) -> int:
    return int(float(event["time"]) * 1000)
