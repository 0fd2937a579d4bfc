"""What a job comes to, and everything about it that can be found wrong without running it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from headway import code
from headway.core.lanes import carried
from headway.core.mixture import Mixture, Walk
from headway.data import manifest as manifests
from headway.data.read.streams import train_order
from headway.data.store.cache import open_files
from headway.errors import BadInput
from headway.job import Job, Store
from headway.task import Task


@dataclass(frozen=True)
class Plan:
    """A checked job in numbers.

    Args:
        rows: of the training set; of all parts of a mixture.
        rows_per_epoch: taken in an epoch: `rows`, unless the job samples or mixes.
        steps_per_epoch: optimiser updates per walk through it.
        total_steps: optimiser updates of the run.
        global_batch: rows per step.
        last_batch: rows in the last step of an epoch.
        lanes_per_worker: lanes of each worker, by number of workers.
        parameters: trainable elements of the model; None for a loop of the user's own.
        checkpoint_bytes: estimate of one checkpoint; None likewise.
        digest: of all that decides the run's result; a checkpoint of another digest is refused.
        source: the user's code.
        datasets: the manifests by use: train (train[0], train[1], ... of a mixture) and validation.
        order: the walk over the training set.
        warnings: what looks odd and is allowed.
    """

    rows: int
    rows_per_epoch: int
    steps_per_epoch: int
    total_steps: int
    global_batch: int
    last_batch: int
    lanes_per_worker: dict[int, list[int]]
    parameters: int | None
    checkpoint_bytes: int | None
    digest: str
    source: code.Source
    datasets: dict[str, manifests.Manifest]
    order: Walk
    warnings: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """The plan as plain values, for people and JSON."""
        counts = ("rows", "rows_per_epoch", "steps_per_epoch", "total_steps", "global_batch", "last_batch")
        rest = ("parameters", "checkpoint_bytes", "lanes_per_worker", "warnings")
        datasets = {use: {"rows": d.rows, "version": d.version} for use, d in self.datasets.items()}
        return {**{name: getattr(self, name) for name in counts + rest}, "datasets": datasets, "shares": self.shares}

    @property
    def shares(self) -> dict[str, float]:
        """Of the rows, by part of a mixture; none of a single dataset."""
        if not isinstance(self.order, Mixture):
            return {}
        places = self.order.shares
        return {use: place / sum(places) for use, place in zip(self.datasets, places, strict=False)}


def check(job: Job, space: Path | None = None, source: code.Source | None = None) -> Plan:
    """Validate all that can be known without running: files, imports, the model, space; and count what it comes to.

    Args:
        job: parsed.
        space: folder on the disk that will hold the run; None looks at no disk.
        source: where the task's code is, when it is not where the job says (a resumed run's copy).

    Raises:
        BadInput: naming the field.
    """
    datasets = {use: _dataset(use, *place, job.data.store) for use, place in places(job).items()}
    _check_columns(job, datasets)
    training = [use for use in datasets if use != "validation"]
    with ExitStack() as opened:
        files = [open_files(places(job)[use][0], datasets[use], job.data) for use in training]
        for one in files:
            opened.callback(one.close)
        order = train_order(job, files)
    source = source or code.locate(job.task)
    parameters, size = _measure(job, code.load(source))
    if space is not None and size is not None:
        _check_space(job, size, space)
    sizes = order.sizes(order.steps_per_epoch - 1)
    total_steps = job.steps or (job.epochs or 0) * order.steps_per_epoch
    return Plan(
        rows=sum(datasets[use].rows for use in training),
        rows_per_epoch=order.rows,
        steps_per_epoch=order.steps_per_epoch,
        total_steps=total_steps,
        global_batch=job.global_batch,
        last_batch=sum(sizes),
        lanes_per_worker={
            w: [len(c) for c in carried(job.lanes, w)] for w in range(job.workers.min, job.workers.max + 1)
        },
        parameters=parameters,
        checkpoint_bytes=size,
        digest=digest(job, [datasets[use] for use in training]),
        source=source,
        datasets=datasets,
        order=order,
        warnings=_warnings(job, order.rows, sizes, total_steps),
    )


def places(job: Job) -> dict[str, tuple[str, int | None]]:
    """The folder and the version of every dataset, by use: train (train[0], ... of a mixture) and validation."""
    single = isinstance(job.data.train, str)
    found = {
        "train" if single else f"train[{number}]": (source.path, source.version)
        for number, source in enumerate(job.data.sources)
    }
    if job.data.validation is not None:
        found["validation"] = (job.data.validation, job.data.validation_version)
    return found


def pinned(job: Job, checked: Plan) -> Job:
    """The job with the versions of its datasets written down, so that the run reads the same after an append."""
    versions = {use: dataset.version for use, dataset in checked.datasets.items()}
    data: dict[str, Any] = {"validation_version": versions.get("validation")}
    if isinstance(job.data.train, str):
        data["version"] = versions["train"]
    else:
        data["train"] = [
            source.model_copy(update={"version": versions[f"train[{number}]"]})
            for number, source in enumerate(job.data.train)
        ]
    return job.model_copy(update={"data": job.data.model_copy(update=data)})


def digest(job: Job, train: Sequence[manifests.Manifest]) -> str:
    """SHA-256 of all that decides which samples are seen and which updates follow; not how long, where or how fast."""
    fields = {"arguments", "lanes", "lane_batch", "seed", "precision", "optimizer", "schedule", "clip_norm", "strategy"}
    fields |= {"reproducible"}
    kept = job.model_dump(mode="json", include=fields)
    kept["task"] = job.task.rpartition("/")[2]
    kept["data"] = [[source.digest for source in train], job.data.columns, job.data.shuffle, job.data.window]
    kept["sampling"] = job.data.sampling.model_dump(mode="json")
    kept["mixture"] = [[source.weight for source in job.data.sources], job.data.mixture_epoch]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _dataset(use: str, path: str, version: int | None, options: Store) -> manifests.Manifest:
    try:
        found = manifests.load(path, version, options)
        manifests.quick_check(path, found, options)
    except BadInput as error:
        raise type(error)(f"data.{use}={path}: {error.fact}", error.reason, error.remedy) from None
    return found


def _check_columns(job: Job, datasets: dict[str, manifests.Manifest]) -> None:
    from headway.errors import nearest

    for use, dataset in datasets.items():
        known = [name for name, _ in dataset.schema]
        for column in job.data.columns or []:
            if column not in known:
                raise BadInput(f"data.columns: {column!r}", f"data.{use} has no such column", nearest(column, known))
    first = datasets.get("train[0]")
    for use, dataset in datasets.items():
        if first and use != "validation" and _read(job, dataset) != _read(job, first):
            reason = f"data.train[0] has {_read(job, first)}, this one {_read(job, dataset)}"
            raise BadInput(f"data.{use} has other columns", reason, "Choose with data.columns those that they share.")


def _read(job: Job, dataset: manifests.Manifest) -> dict[str, str]:
    """Columns that are read, and their types."""
    return {name: kind for name, kind in dataset.schema if job.data.columns is None or name in job.data.columns}


def _measure(job: Job, found: Any) -> tuple[int | None, int | None]:
    """Trainable elements and checkpoint bytes, by building the model once and stepping its optimiser on zeros."""
    import inspect

    import torch

    from headway.optim import named_optimizer, schedule

    if not inspect.isclass(found):
        try:
            inspect.signature(found).bind(**job.arguments)
        except TypeError as error:
            raise BadInput(
                f"arguments={job.arguments}", f"{found.__name__}(): {error}", "Mend the arguments."
            ) from None
        return None, None
    if getattr(found, "loss", None) is Task.loss:
        raise BadInput(
            f"task {found.__name__} has no loss", "nothing says what to train for", "Write loss(model, batch)."
        )
    try:
        torch.manual_seed(job.seed)
        task = cast(Task, found(**job.arguments))
        model = task.model()
        _check_type(found, "model", model, torch.nn.Module)
        optimizer = task.optimizer(model)
        _check_type(found, "optimizer", optimizer, torch.optim.Optimizer)
    except BadInput:
        raise
    except Exception as error:  # the user's constructor, called with the user's arguments
        bad = BadInput(
            f"task {found.__name__} cannot be built with arguments {job.arguments}",
            f"{type(error).__name__}: {error}",
            "Mend the task, or the job's arguments.",
        )
        bad.traceback = code.users_traceback(error)
        raise bad from None
    if job.optimizer is not None:
        optimizer = named_optimizer(job.optimizer, model)
    schedule(job.schedule, optimizer, 1, None)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise BadInput(f"task {found.__name__}", "its model has no trainable parameter", "Return the model to train.")
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
    except Exception as error:  # an optimiser of the user's, or one that wants a closure
        kind = type(optimizer).__name__
        raise BadInput(
            f"optimizer {kind} cannot be stepped", f"{type(error).__name__}: {error}", "Choose another optimiser."
        ) from None
    state = [v for group in optimizer.state.values() for v in group.values() if isinstance(v, torch.Tensor)]
    held = [*(t for t in model.state_dict().values() if isinstance(t, torch.Tensor)), *state]
    return sum(p.numel() for p in trainable), sum(t.numel() * t.element_size() for t in held)


def _check_type(found: type, method: str, value: object, wanted: type) -> None:
    if not isinstance(value, wanted):
        raise BadInput(
            f"task {found.__name__}.{method}() returned {type(value).__name__}",
            f"a torch {wanted.__name__} is needed",
            f"Return one from {method}().",
        )


def _check_space(job: Job, size: int, space: Path) -> None:
    there = next(folder for folder in (space.resolve(), *space.resolve().parents) if folder.exists())
    needed = size * (job.checkpoint.keep_last + job.checkpoint.keep_best + 1)
    free = shutil.disk_usage(there).free
    if needed > free:
        raise BadInput(
            f"{there} has {free / 1e6:,.0f} MB free",
            f"{job.checkpoint.keep_last + job.checkpoint.keep_best} kept checkpoints and one under way take "
            f"{needed / 1e6:,.0f} MB",
            "Free space, choose another --runs folder, or keep fewer.",
        )


def _warnings(job: Job, rows: int, last: list[int], total_steps: int) -> list[str]:
    found = []
    if rows < job.global_batch:
        found.append(f"an epoch has {rows} rows, less than one global batch of {job.global_batch}")
    if 1 in last:
        found.append("the last step of an epoch has a lane with a single row, which BatchNorm1d refuses")
    if job.schedule is not None and job.schedule.warmup_steps >= total_steps:
        found.append(f"schedule.warmup_steps={job.schedule.warmup_steps} outlasts the run of {total_steps} steps")
    if job.checkpoint.every_steps is None and job.checkpoint.every_s is None:
        found.append("no checkpoints until the end: set checkpoint.every_steps or every_s")
    return found
