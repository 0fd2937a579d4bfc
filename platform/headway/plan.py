"""What a job comes to, and everything about it that can be found wrong without running it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway import variables
from headway.carried import code
from headway.carried.cargo import Cargo
from headway.core import demand
from headway.core.lanes import carried
from headway.core.mixture import Mixture, Walk
from headway.data import manifest as manifests
from headway.data.own import naming
from headway.data.own.describing import describe
from headway.data.own.manifest import Described
from headway.data.own.ordering import refuse, train_walk
from headway.data.read.streams import train_order
from headway.data.store.cache import open_files
from headway.errors import BadInput
from headway.job import Job, Own, Store
from headway.notation.values import canonical
from headway.strategies.summary import Summary

SLOTS = 2
"""States that a node's keeper has room for."""


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
        parameters: trainable elements of the model; None until the task was tried, and for a loop of the user's own.
        checkpoint_bytes: estimate of one checkpoint; None likewise.
        together: whether a worker's lanes go through the model together, by a few rows: empty where they do, else why
            not, in words; None likewise, and where they are not to.
        state_bytes: estimate of a worker's model, optimiser and gradients; None likewise.
        row_bytes: estimate of what a row takes beside them until its backward pass, at the peak; None likewise.
        checkpointed: which blocks compute their activations again, in words: empty where none was found; None where
            none is to, or that is not known.
        keeps: whether nodes keep the newest state in memory.
        origin: where the user has what travels, for errors; None of a run's own copy.
        digest: of all that decides the run's result; a checkpoint of another digest is refused.
        source: the user's code.
        datasets: the manifests by use: train (train[0], train[1], ... of a mixture) and validation.
        order: the walk over the training set.
        cargo: what travels with the task.
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
    cargo: Cargo
    origin: Path | None = None
    keeps: bool = False
    warnings: list[str] = field(default_factory=list)
    together: str | None = None
    state_bytes: int | None = None
    row_bytes: int | None = None
    checkpointed: str | None = None
    rows_at_once: tuple[int, int] = (0, 0)
    """Rows that go through the model at once: of a lane, and of several lanes together at most."""
    whole_lane: bool = True
    """Whether those of a lane are all of its rows."""
    strategy: Summary | None = None
    """How the workers are kept in step."""

    def shown(self) -> dict[str, Any]:
        """The plan as plain values, for people and JSON."""
        counts = ("rows", "rows_per_epoch", "steps_per_epoch", "total_steps", "global_batch", "last_batch")
        rest = ("parameters", "checkpoint_bytes", "keeper_bytes", "lanes_per_worker", "warnings")
        datasets = {use: {"rows": d.rows, "version": d.version} for use, d in self.datasets.items()}
        carried = {"files": len(self.cargo.files), "bytes": self.cargo.bytes}
        found = {name: getattr(self, name) for name in counts + rest}
        found |= {"lanes_together": self.together, "memory": self.memory, "activation_checkpointing": self.checkpointed}
        found |= {"strategy": self.told_strategy, "sizes": self.sizes, "datasets": datasets, "shares": self.shares}
        return {**found, "carried": carried}

    @property
    def told_strategy(self) -> dict[str, Any] | None:
        """See `headway.strategies.summary.Summary.shown`."""
        return self.strategy.shown(self.parameters, self.checkpoint_bytes) if self.strategy is not None else None

    @property
    def lost(self) -> list[str]:
        """What does not hold of the run because of its data, in words."""
        own = (each for each in self.datasets.values() if isinstance(each, Described))
        return [note for each in own if each.stream or each.drifts for note in each.notes[:1]]

    @property
    def sizes(self) -> list[int]:
        """Numbers of workers that pay: the fewest, and each at which a step becomes shorter."""
        least, most = min(self.lanes_per_worker), max(self.lanes_per_worker)
        lanes = sum(self.lanes_per_worker[least])
        units = (self.strategy and self.strategy.replicas) or lanes
        return [least, *(size for size in demand.sizes(units, most) if size > least)]

    @property
    def keeper_bytes(self) -> int | None:
        """Memory that each node's keeper takes for two states, about."""
        if not self.keeps:
            return 0
        return None if self.checkpoint_bytes is None else SLOTS * self.checkpoint_bytes

    @property
    def memory(self) -> dict[str, int] | None:
        """Bytes of each worker where there are fewest, about: of what stays, of the rows that must fit, of those that
        go together where they do, and of all at the peak; the numbers of these rows; None where that is not known."""
        if self.state_bytes is None or self.row_bytes is None:
            return None
        least = min(self.lanes_per_worker)
        lane, most = self.rows_at_once
        rows = max(lane, min(most, max(self.lanes_per_worker[least]) * lane)) if self.together == "" else lane
        sizes = {"lane_bytes": lane * self.row_bytes, "together_bytes": rows * self.row_bytes}
        counts = {"lane_rows": lane, "together_rows": rows, "whole_lane": int(self.whole_lane)}
        state = self.state_bytes * (self.strategy.carried(least) if self.strategy else 1)
        peak = state + sizes["together_bytes"]
        return {"workers": least, "state_bytes": state, **sizes, **counts, "peak_bytes": peak}

    @property
    def shares(self) -> dict[str, float]:
        """Of the rows, by part of a mixture; none of a single dataset."""
        if not isinstance(self.order, Mixture):
            return {}
        places = self.order.shares
        return {use: place / sum(places) for use, place in zip(self.datasets, places, strict=False)}


def check(job: Job, source: code.Source | None = None, cargo: Cargo | None = None) -> Plan:
    """Validate all that can be known without running the task (see `headway.tryout`), and count what it comes to.

    Args:
        job: parsed.
        source: where the task's code is, when it is not where the job says (a resumed run's copy).
        cargo: what travels with it, where that is known: of another job with the same task, files and variables.

    Raises:
        BadInput: naming the field.
    """
    datasets, order = walked(job, source)
    training = [use for use in datasets if use != "validation"]
    source = source or code.locate(job.task)
    code.look(source)
    cargo = cargo or code.survey(source, naming.with_files(job)).without(variables.secrets(job))
    sizes = order.sizes(order.steps_per_epoch - 1)
    total_steps = job.steps or (job.epochs or 0) * order.steps_per_epoch
    return Plan(
        rows=sum(datasets[use].rows for use in training),
        rows_per_epoch=order.rows,
        steps_per_epoch=order.steps_per_epoch,
        total_steps=total_steps,
        global_batch=job.global_batch,
        last_batch=sum(sizes),
        lanes_per_worker={w: _lanes(job, w) for w in range(job.workers.min, job.workers.max + 1)},
        parameters=None,
        checkpoint_bytes=None,
        digest=digest(job, [datasets[use] for use in training]),
        source=source,
        datasets=datasets,
        order=order,
        cargo=cargo,
        origin=None if source.copied else cargo.base,
        keeps=job.checkpoint.memory_every is not None,
        rows_at_once=(job.part_rows, job.global_batch if job.rows_together == "auto" else job.rows_together),
        whole_lane=job.part_rows == job.lane_batch,
        strategy=(strategy := Summary.of(job)),
        warnings=[
            *strategy.notes(),
            *_warnings(job, order.rows, sizes, total_steps),
            *(note for each in datasets.values() if isinstance(each, Described) for note in each.notes),
            *cargo.said(),
        ],
    )


def _lanes(job: Job, workers: int) -> list[int]:
    """How many lanes each of so many workers carries: whole replicas, where there are some."""
    sizes = [len(lanes) for lanes in carried(job.lanes, job.units)]
    return [sum(sizes[unit] for unit in units) for units in carried(job.units, workers)]


def walked(job: Job, source: code.Source | None = None) -> tuple[dict[str, manifests.Manifest], Walk]:
    """The datasets by use, and the walk over the training set.

    Args:
        job: to be followed.
        source: where the task's code is, beside which that of the user's own datasets lies.

    Raises:
        BadInput: naming the field.
    """
    refuse(job)
    own = describe(job, source or code.locate(job.task)) if naming.named(job) else {}
    stored = {use: _dataset(use, *place, job.data.store) for use, place in job.data.stored.items()}
    datasets = {use: own[use] if use in own else stored[use] for use in places(job)}
    _check_columns(job, stored)
    if "train" in own:
        return datasets, train_walk(job, own["train"].rows, own["train"].stream)
    with ExitStack() as opened:
        files = [open_files(places(job)[use][0], datasets[use], job.data) for use in datasets if use != "validation"]
        for one in files:
            opened.callback(one.close)
        return datasets, train_order(job, files)


def places(job: Job) -> dict[str, tuple[str, int | None]]:
    """The folder and the version of every dataset, by use."""
    return job.data.places


def pinned(job: Job, checked: Plan) -> Job:
    """The job with the versions of its datasets written down, so that the run reads the same after an append; and how
    many replicas its strategy has, so that they stay as many whatever becomes of workers.max."""
    versions = {use: dataset.version or None for use, dataset in checked.datasets.items()}
    own = {use: Own(**each.facts) for use, each in checked.datasets.items() if isinstance(each, Described)}
    data: dict[str, Any] = {"validation_version": versions.get("validation"), "own": own}
    if isinstance(job.data.train, str):
        data["version"] = versions["train"]
    else:
        data["train"] = [
            source.model_copy(update={"version": versions[f"train[{number}]"]})
            for number, source in enumerate(job.data.train)
        ]
    strategy = job.strategy.pinned(job)
    return job.model_copy(update={"data": job.data.model_copy(update=data), "strategy": strategy})


def digest(job: Job, train: Sequence[manifests.Manifest]) -> str:
    """SHA-256 of all that decides which samples are seen and which updates follow; not how long, where or how fast."""
    fields = {"arguments", "lanes", "lane_batch", "seed", "precision", "optimizer", "schedule", "clip_norm", "strategy"}
    fields |= {"reproducible"}
    kept = canonical(job.model_dump(include=fields))
    kept["strategy"] = job.strategy.deciding(job)
    if job.schedule is not None:  # what came later counts where it is used, so that older checkpoints fit
        for name in ("metric", "patience", "mode"):
            if kept["schedule"][name] == type(job.schedule).model_fields[name].default:
                del kept["schedule"][name]
    if job.part_rows < job.lane_batch:  # parts of a batch have randomness of their own
        kept["accumulate"] = job.lane_batch // job.part_rows
    kept["task"] = job.task.rpartition("/")[2]
    kept["data"] = [[source.digest for source in train], job.data.columns, job.data.shuffle, job.data.window]
    kept["sampling"] = job.data.sampling.model_dump()
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
        if first and use != "validation" and columns_read(job, dataset) != columns_read(job, first):
            reason = f"data.train[0] has {columns_read(job, first)}, this one {columns_read(job, dataset)}"
            raise BadInput(f"data.{use} has other columns", reason, "Choose with data.columns those that they share.")


def columns_read(job: Job, dataset: manifests.Manifest) -> dict[str, str]:
    """Columns that are read, and their types."""
    return {name: kind for name, kind in dataset.schema if job.data.columns is None or name in job.data.columns}


def seen(job: Job, dataset: manifests.Manifest) -> dict[str, Any]:
    """What a run notes of its training set, for those who use its model: the columns' types, the label and a value that
    it has, and the names behind codes; plain values."""
    types, values = columns_read(job, dataset), dataset.label_counts or {}
    categories = {name: names for name, names in dataset.categories.items() if name in types}
    return {"types": types, "label": dataset.label, "value": next(iter(values), None), "categories": categories}


def check_space(job: Job, size: int, space: Path) -> None:
    """Raises BadInput: the checkpoints, of so many bytes each, would not fit on the disk of the folder `space`."""
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
