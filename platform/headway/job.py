"""What a user orders: a `Job` is task + data + size + strategy + checkpoints + tracking, checked once, at the door."""

from __future__ import annotations

import copy
import glob
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from headway.core.schedules import SCHEDULES
from headway.errors import BadInput, nearest
from headway.notation import overrides, values, wording
from headway.notation.code import is_named
from headway.notation.plain import write
from headway.notation.reading import mapping
from headway.notation.section import Bytes, Count, Seconds, Section, plain
from headway.notify.webhook import Webhook
from headway.strategies.options import KINDS, Strategy

OPTIMIZERS = ("sgd", "adam", "adamw", "adagrad", "rmsprop")


class Source(Section):
    """One part of a mixture."""

    path: str
    """Folder of Parquet shards with a manifest.json."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the rows, in relation to the other parts' weights."""
    version: Count | None = None
    """Version of its manifest; the newest when the run begins."""


class Sampling(Section):
    """Which rows come how often, and with which others. Without `weights` and `rows`, each once an epoch."""

    by: str | None = None
    """Column of classes, or with `weights: column` of the rows' weights; the label where not given."""
    weights: Literal["uniform", "balanced", "column"] | dict[str, Annotated[float, Field(ge=0)]] = "uniform"
    """uniform; balanced: each class comes equally often; by class, 1 for those not named; or column: `by` holds each
    row's weight."""
    replacement: bool = True
    """Draw rows with replacement."""
    rows: Count | None = None
    """Rows drawn for an epoch; as many as there are when not given."""
    stratify: bool = False
    """Give every lane the classes in the same proportions."""
    bucket: str | None = None
    """Column of lengths: rows of like length come in one batch."""
    buckets: Count = 16
    """Batches' worth of a lane's rows that are sorted by length together."""

    @field_validator("weights", mode="before")
    @classmethod
    def _named(cls, weights: Any) -> Any:
        # YAML reads the class 3 as a number, and false as no word.
        if not isinstance(weights, dict):
            return weights
        found = {str(name): weight for name, weight in weights.items()}
        if len(found) < len(weights):
            twice = next(name for name in found if sum(str(given) == name for given in weights) > 1)
            raise ValueError(f"names the class {twice!r} twice, as text and as a number")
        return found


class Cache(Section):
    """Row groups of object stores, kept on the node's disk and shared by its workers."""

    folder: str | None = None
    """Where; in the system's folder for temporary files when not given."""
    bytes: Bytes = 10 * 2**30
    """The most that is kept."""


class Store(Section):
    """How object stores are spoken to. Keys come from the environment, as the store's own tools take them."""

    endpoint: str | None = None
    """URL of an S3 service that is not Amazon's."""
    region: str | None = None
    """Of the bucket."""
    anonymous: bool = False
    """Sign nothing."""
    retries: Annotated[int, Field(ge=0)] = 8
    """How often a request is tried again, with growing, random pauses."""
    timeout_s: Annotated[float, Field(gt=0)] = 20.0
    """Seconds after which a request is given up."""
    hedge: bool = True
    """Ask a second time when an answer takes much longer than usual, and take the first that comes."""


class Own(Section):
    """What a Dataset of the user's own was when the run began."""

    rows: Annotated[int, Field(ge=0)]
    """Its length; 0 of a stream."""
    digest: str
    """Of its rows, or of what stands for them."""


class Data(Section):
    """Where the samples come from. Paths are relative to the job's file; `headway data prepare` makes such folders."""

    train: str | Annotated[list[Source], Field(min_length=1)]
    """Folder of Parquet shards with a manifest.json, here or in an object store (s3://, gs://, az://); or a list of
    several that are mixed, each with `path`, `weight` and `version`; or `file.py:name` or `package.module:name` of a
    Dataset of your own, or of a function that gives one."""
    validation: str | None = None
    """One folder, or Dataset of your own, for evaluation."""
    version: Count | None = None
    """Version of the training set's manifest; the newest when the run begins, and that one when it is resumed."""
    validation_version: Count | None = None
    """Version of the validation set's manifest; likewise."""
    mixture_epoch: Literal["smallest", "largest"] | Count = "largest"
    """When an epoch of a mixture ends: with the first or the last of its parts, or after so many rows."""
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    """Columns to read; all when not given."""
    shuffle: bool = True
    """Walk the rows in a seeded random order, a new one each epoch."""
    window: Count = 16
    """Row groups held in memory by all lanes together; rows are permuted within each lane's share."""
    eval_batch: Count | None = None
    """Rows per batch in evaluation; the lane batch when not given."""
    reader: Literal["direct", "ray"] = "direct"
    """direct: each worker reads and transforms its lanes' rows. ray: Ray Data does, on any node's free CPUs."""
    prefetch: Bytes = 256 * 2**20
    """Bytes of rows that a worker reads ahead of the training."""
    read_threads: Count = 2
    """Threads per worker that read and transform ahead."""
    check_digests: bool = True
    """Whether row groups are compared with the manifest's digests as they are read."""
    on_bad_data: Literal["fail", "quarantine"] = "fail"
    """What becomes of rows that cannot be read or are not as the manifest says: the run ends, or they are set aside."""
    quarantine_limit: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the rows that may be set aside before the run ends."""
    no_nulls: list[str] = Field(default_factory=list)
    """Columns in which nulls and NaN are bad data."""
    sampling: Sampling = Field(default_factory=lambda: Sampling())
    """Which rows come how often."""
    cache: Cache = Field(default_factory=lambda: Cache())
    """Row groups of object stores, kept on the node's disk."""
    store: Store = Field(default_factory=lambda: Store())
    """How object stores are spoken to."""
    own: dict[str, Own] = Field(default_factory=dict)
    """Of Datasets of your own, by use: what they were when the run began. Written by Headway."""

    @property
    def stored(self) -> dict[str, tuple[str, int | None]]:
        """Of `places` those that are folders, and not given by code."""
        return {use: place for use, place in self.places.items() if not is_named(place[0])}

    @property
    def places(self) -> dict[str, tuple[str, int | None]]:
        """Place and version of every dataset by use: train (train[0], ... of a mixture), validation."""
        single = isinstance(self.train, str)
        found = {
            "train" if single else f"train[{number}]": (source.path, source.version)
            for number, source in enumerate(self.sources)
        }
        if self.validation is not None:
            found["validation"] = (self.validation, self.validation_version)
        return found

    @property
    def sources(self) -> list[Source]:
        """The parts of the training set: one, or those of the mixture."""
        return [Source(path=self.train, version=self.version)] if isinstance(self.train, str) else self.train


class Workers(Section):
    """How many processes carry the lanes, and what each is given."""

    min: Count = 1
    """Fewest workers to train with."""
    max: Count = 1
    """Most workers to train with; never more than lanes."""
    sizes: Annotated[list[Count], Field(min_length=1)] | None = None
    """In a queue: the numbers of workers that it may have, between min and max; all of them when not given."""
    spares: Annotated[int, Field(ge=0)] = 0
    """Workers beyond max that stand by, warmed up, with CPUs, GPUs and memory of their own, and take the place of one
    that is gone."""
    cpus: Count = 1
    """CPU cores, and torch threads, per worker."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs per worker."""
    memory: Bytes | None = None
    """Bytes of memory reserved per worker, as a number or like 2GiB; none reserved when not given."""
    silence_s: Annotated[float, Field(ge=0.5)] = 2.0
    """Seconds of silence after which a worker whose machine does not answer is given up (twice that if it answers)."""
    hang_s: Annotated[float, Field(ge=1)] = 120.0
    """Seconds after which a worker that keeps the others waiting without getting on is given up; longer than twice
    silence_s."""
    patience_s: Annotated[float, Field(ge=1)] = Field(default_factory=lambda data: max(900.0, data.get("hang_s", 0.0)))
    """Seconds that a worker may take for what is known to be slow: starting, restoring, a first step that compiles. Not
    less than hang_s; 900, or hang_s where that is more, when not given."""
    slow: Literal["report", "rebalance", "replace"] = "report"
    """What is done about a worker that is slower than the others: nothing but to say so, fewer lanes, or a new one."""
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Dollars for an hour of one worker, for the account of what the run costs."""

    @property
    def most(self) -> int:
        """Processes at a time: those that train, and those that stand by."""
        return self.max + self.spares

    @property
    def each(self) -> dict[str, float]:
        """What Ray is asked for by one of them, by its names."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory or 0}
        return {name: float(amount) for name, amount in wanted.items() if amount}

    def contradictions(self) -> Iterator[str]:
        """What cannot hold at once, with the values and the way out."""
        if self.min > self.max:
            yield f"workers.min={self.min} is more than max={self.max}: set min to {self.max} or less"
        elif self.sizes and not any(self.min <= size <= self.max for size in self.sizes):
            named = ", ".join(map(str, self.sizes))
            yield f"workers.sizes={named}: none of them is within {self.min}..{self.max}, as min and max are"
        if self.hang_s <= 2 * self.silence_s:
            yield (
                f"workers.hang_s={self.hang_s:g} is no longer than twice workers.silence_s={self.silence_s:g}: "
                f"it would be held for hung before its silence means anything. Set hang_s above {2 * self.silence_s:g}"
            )
        if self.patience_s < self.hang_s:
            yield (
                f"workers.patience_s={self.patience_s:g} is less than workers.hang_s={self.hang_s:g}: what is known to "
                f"be slow would be given less time than a step. Set patience_s to {self.hang_s:g} or more"
            )
        if self.gpus > 1 and self.gpus % 1:
            yield f"workers.gpus={self.gpus:g}: Ray gives a share of one GPU, or whole ones. Set gpus to a whole number"
        elif 0 < self.gpus < 1 < self.max:
            yield (
                f"workers.gpus={self.gpus:g} with workers.max={self.max}: several workers would share a GPU, and NCCL "
                f"takes one worker of each. Set gpus to 1, or max to 1"
            )


class Optimizer(Section):
    """Overrides the task's optimiser by name. Other keys go to torch's constructor (weight_decay, betas, ...)."""

    model_config = ConfigDict(extra="allow")

    name: str
    """sgd, adam, adamw, adagrad or rmsprop."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        rest = {k: v for k, v in given.items() if k not in cls.model_fields} if isinstance(given, dict) else {}
        return {**given, **plain(rest)} if rest else given

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {name!r}. {nearest(name, list(OPTIMIZERS))}")
        return name


class Schedule(Section):
    """Overrides the task's learning-rate schedule by name."""

    name: str = "constant"
    """constant, cosine, linear, step or plateau; task: the task's own."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up before the schedule's own factor holds."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Factor on the rate at the last step (cosine, linear)."""
    every: Count = 1000
    """Steps between two drops (step)."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What the rate is multiplied by at each drop (step, plateau)."""
    metric: str | None = None
    """Validation metric that the schedule goes by, at each evaluation: of `plateau`, or of the task's own
    ReduceLROnPlateau. With a metric and no name, the task's schedule is meant."""
    patience: Annotated[int, Field(ge=0)] = 10
    """Evaluations without an improvement before a drop (plateau)."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the metric is better (plateau)."""

    @model_validator(mode="before")
    @classmethod
    def _of_the_task(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("metric") is not None and "name" not in tree:
            return {**tree, "name": "task"}
        return tree

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        known = [*SCHEDULES, "plateau", "task"]
        if name not in known:
            raise ValueError(f"unknown schedule {name!r}. {nearest(name, known)}")
        return name

    @model_validator(mode="after")
    def _goes_by(self) -> Self:
        if self.name == "plateau":
            if self.metric is None:
                raise ValueError("plateau goes by a metric: set metric to one of the validation metrics, like loss")
            if self.factor >= 1:
                raise ValueError("plateau multiplies the rate by factor, which must be below 1")
        elif self.metric is not None and self.name != "task":
            raise ValueError(f"{self.name} goes by steps, not by a metric. Leave metric out, or set name to plateau")
        if self.warmup_steps and self.name in ("plateau", "task"):
            raise ValueError(f"{self.name} has no warm-up by steps: set warmup_steps to 0")
        return self


class Checkpoint(Section):
    """When checkpoints are written and which ones stay. One is always written at the end."""

    every_steps: Count | None = 200
    """Steps between two checkpoints; null for none by steps."""
    every_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds between two checkpoints; null for none by time."""
    keep_last: Count = 2
    """Newest checkpoints that stay; two or more, so that a damaged one has one before it."""
    keep_best: Annotated[int, Field(ge=0)] = 0
    """Best checkpoints by `metric` that stay as well."""
    metric: str = "loss"
    """Validation metric by which checkpoints are judged."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the metric is better."""
    fail_after: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds for which the run goes on while neither checkpoints nor records can be written; null for ever."""
    memory_every: Literal["auto"] | Count | None = "auto"
    """Steps between two copies of the state into the node's memory, from where a worker that is lost goes on; auto: as
    often as costs at most 2 % of the steps' time; null for none."""


class Stop(Section):
    """The run ends when a validation metric does not get better any more."""

    metric: str = "loss"
    """Validation metric that it goes by, at each evaluation."""
    patience: Count = 3
    """Evaluations without an improvement after which the run ends."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the metric is better."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """A change that is not larger than this is no improvement."""


class Tracking(Section):
    """Where MLflow keeps the records."""

    uri: str | None = None
    """Any MLflow tracking URI; a sqlite file in the runs folder when not given."""
    experiment: str = "headway"
    """MLflow experiment."""
    every_steps: Count = 10
    """Steps that a point of a training curve in MLflow stands for at least: of what lies between two, the least and the
    largest value are drawn. The report keeps every step."""
    enabled: bool = True
    """False records in the runs folder only."""


class Prometheus(Section):
    """Where the run's figures are served for Prometheus."""

    enabled: bool = True
    """Whether they are."""
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address of the machine that leads the run; 0.0.0.0 for all of them, where others are to read the figures."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port; 0 for any that is free."""


class Priced(Section):
    """What a machine costs by the hour, in dollars."""

    type: str
    """As Ray names the node's group, which is its type in the cluster's file; the cloud's name where the cluster keeps
    account of its machines; * for any."""
    zone: str = "*"
    """Where; a region stands for its zones, * for anywhere."""
    per_hour: Annotated[float, Field(ge=0)]
    """On demand."""
    spot_per_hour: Annotated[float, Field(ge=0)] | None = None
    """As a spot machine."""


class Budget(Section):
    """What the run may cost. When `usd` is spent it ends after a checkpoint, and can be gone on with."""

    usd: Annotated[float, Field(gt=0)] | None = None
    """Dollars, over all starts of the run: by what the cluster says that machines cost, else by workers.price_per_hour.
    Earlier releases called it dollars, which is taken still."""
    usd_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Dollars an hour, at any time: no more workers are asked for than that pays for."""
    on_demand_min: Annotated[int, Field(ge=0)] = 0
    """So many workers are on machines that are not taken away, whatever they cost."""
    worker_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of all workers together. That they are spent is told; the run does not end by it."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or "dollars" not in tree:
            return tree
        earlier, rest = tree["dollars"], {key: value for key, value in tree.items() if key != "dollars"}
        if earlier is None:
            return rest
        if rest.get("usd") not in (None, earlier):
            raise ValueError(f"usd={rest['usd']!r} and dollars={earlier!r} are the same: give usd alone")
        return {**rest, "usd": earlier}


Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of a variable of the environment."""


class FromFile(Section):
    """The value of a variable that a file holds, on the machine that leads the run."""

    file: str
    """Its path, from the root or from `~`; a line's end behind the value is left out."""


def _or_name(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [*_alone(schema), {"enum": list(KINDS)}]


def _or_false(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [*_alone(schema), {"const": False}]


def _alone(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """What it allows so far, taken out of it: beside a reference anyOf would narrow it, for both would have to hold."""
    return [{"$ref": schema.pop("$ref")}] if "$ref" in schema else schema.pop("anyOf", [])


class Check(Section):
    """The task is tried on a few rows before a worker starts."""

    limit_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds after which it is broken off; the run starts all the same."""


def _blocks(value: Any) -> Any:
    """One name may stand for a list of it. Raises ValueError: it is neither a switch nor names."""
    value = [value] if isinstance(value, str) else value
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, str) and each for each in value):
        raise ValueError("write true, false, or names of modules, as in [layers.*]")
    return list(value)


class Job(Section):
    """Everything about a run that is decided before it starts."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Begins the names of this job's runs: letters, digits, '.', '_' and '-'."""
    task: str
    """`file.py:Class` (relative to the job's file) or `package.module:Class`; a function is a loop of its own."""
    arguments: Annotated[dict[str, Any], BeforeValidator(plain)] = Field(default_factory=dict)
    """Keyword arguments of the task's constructor (or of the function): text, numbers, dates, lists and mappings."""
    data: Data
    """The samples."""
    lanes: Count = 8
    """Parts into which the global batch is cut, whatever the cluster does. Global batch = lanes x lane_batch."""
    lane_batch: Count = 32
    """Rows per lane and step."""
    accumulate: Count = 1
    """Parts, one after the other, in which a lane's rows go through the model: each needs a part of the memory, and the
    sum is the same. It divides lane_batch."""
    micro_batch: Count | None = None
    """The same by rows: so many of a lane's rows go through the model at once. It divides lane_batch; all of them when
    not given."""
    lanes_together: Literal["auto", "never"] = "auto"
    """auto: a worker computes several lanes in one pass where that gives the same, which is tried now and then; never:
    each by itself. With reproducible: bitwise, compression, parts of a lane's rows, and closures it is each by itself
    as well."""
    rows_together: Literal["auto"] | Count = "auto"
    """Most rows of such a pass; auto: as many as fit into half of the memory that is free (four fifths on a GPU), by
    what a lane takes. Not less than lane_batch."""
    activation_checkpointing: Annotated[bool | list[str], BeforeValidator(_blocks)] = False
    """Blocks of the model keep only what they were given, and compute the rest again in the backward pass: the same to
    the bit, with less memory and about a third more time. true: the repeated blocks (a transformer's layers); or names
    of modules or of their classes, and patterns of these (`layers.*`, `Block`)."""
    epochs: Count | None = None
    """Walks through the data; give this or steps."""
    steps: Count | None = None
    """Optimiser updates; give this or epochs."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the initial weights, the order of samples and all randomness."""
    workers: Workers = Field(default_factory=Workers)
    """How many, and how big."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """fp32, or mixed precision by autocast (fp16 with loss scaling)."""
    optimizer: Optimizer | None = None
    """Overrides the task's."""
    schedule: Schedule | None = None
    """Overrides the task's."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the whole gradient."""
    stop: Stop | None = None
    """Ends the run before its last step, when a metric does not get better any more."""
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    """Durable state."""
    tracking: Tracking = Field(default_factory=Tracking)
    """Records."""
    prometheus: Prometheus = Field(default_factory=Prometheus, json_schema_extra=_or_false)
    """Figures for Prometheus; false serves none."""
    budget: Budget | None = None
    """What it may cost."""
    deadline: Seconds | None = None
    """Time from the run's first start, as 90m or 6h (a number is seconds), in which it is to be done: on spot machines
    while there is slack, on demand when it is behind. It goes on where it is late, which is told."""
    """What it is meant to cost."""
    prices: list[Priced] | None = None
    """What machines cost, where their cluster does not know it: a file of prices (CSV or YAML, see docs/money.md), or
    its rows."""
    notify: list[Webhook] = Field(default_factory=list)
    """Addresses that are told when the run ends, stalls, loses worker after worker, or has nearly spent its budget."""
    strategy: Strategy = Field(default_factory=Strategy, json_schema_extra=_or_name)
    """How lanes' gradients become an update: the name of a kind, or a mapping with its options."""
    reproducible: Literal["order", "bitwise"] = "order"
    """order: the same samples and updates on any number of workers, up to rounding. bitwise: the same bits."""
    replica_check_every: Count | None = 100
    """Steps between two comparisons of the workers' replicas; null for none."""
    evaluate_every_steps: Count | None = None
    """Steps between two evaluations; at each epoch's end when not given. Always at the end."""
    files: list[str] | None = None
    """What travels to the workers beside the task's Python and the small files that go by themselves: file names and
    patterns (`weights/*.bin`, `**/*.txt`), relative to the job's file; `!pattern` leaves behind."""
    env: list[Variable] | dict[Variable, Annotated[str, Field(coerce_numbers_to_str=True)] | FromFile | None] = Field(
        default_factory=list
    )
    """Environment variables for the workers and the recorder: names whose values are taken from the environment that
    the run is led in and kept nowhere, or name: value (null for a value that is taken so, {file: PATH} for one that a
    file there holds). Those of MLflow, AWS, Azure, Google's credentials and Hugging Face's token are given without
    being named."""

    @field_validator("env", mode="before")
    @classmethod
    def _environment(cls, env: Any) -> Any:
        # Checked here rather than by the types, whose errors would speak of a union.
        for name in env if isinstance(env, list | dict) else ():
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name of a variable: write letters, digits and '_'")
            value = env[name] if isinstance(env, dict) else None
            if isinstance(value, dict | FromFile):
                _check_reference(name, value)
                continue
            if isinstance(value, bool) or not isinstance(value, str | int | float | None):
                raise ValueError(f"the value of {name} is {value!r}, and a variable holds text: put it in quotes")
        if not isinstance(env, list | dict):
            raise ValueError("write a list of names, or name: value")
        return env

    check: Check | None = Field(default_factory=Check, json_schema_extra=_or_false)
    """Trying the task on a few rows before a worker starts; false leaves it out."""

    @field_validator("check", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return {False: None, True: {}}[value] if isinstance(value, bool) else value

    @field_validator("prometheus", mode="before")
    @classmethod
    def _switched(cls, value: Any) -> Any:
        return {"enabled": value} if isinstance(value, bool) else value

    @field_validator("task")
    @classmethod
    def _named(cls, task: str) -> str:
        module, _, name = task.rpartition(":")
        if not module or not name.isidentifier():
            raise ValueError("write it as file.py:Class or package.module:Class")
        return task

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = [*self._contradictions()]
        if found:  # all of them: who mends a job wants to mend it once
            raise ValueError("; ".join(found))
        return self

    def _contradictions(self) -> Iterator[str]:
        if (self.epochs is None) == (self.steps is None):
            given = "both are given" if self.epochs else "neither is given"
            yield f"give either epochs or steps; {given}"
        if self.lane_batch % self.accumulate:
            yield (
                f"accumulate={self.accumulate} does not divide lane_batch={self.lane_batch}: parts of a lane's batch "
                f"have the same number of rows. Set accumulate to a divisor of {self.lane_batch}"
            )
        if self.micro_batch is not None:
            if self.lane_batch % self.micro_batch:
                yield (
                    f"micro_batch={self.micro_batch} does not divide lane_batch={self.lane_batch}: parts of a lane's "
                    f"batch have the same number of rows. Set micro_batch to a divisor of {self.lane_batch}"
                )
            elif self.accumulate not in (1, self.lane_batch // self.micro_batch):
                yield (
                    f"micro_batch={self.micro_batch} and accumulate={self.accumulate} cut lane_batch={self.lane_batch} "
                    f"each in its own way. Give one of them"
                )
        if self.rows_together != "auto" and self.rows_together < self.lane_batch:
            yield (
                f"rows_together={self.rows_together} is less than lane_batch={self.lane_batch}: a lane's rows go "
                f"through the model at once. Set rows_together to {self.lane_batch} or more; or have a lane cut into "
                f"parts, with micro_batch"
            )
        if self.lanes < self.workers.max:
            idle = self.workers.max - self.lanes
            yield (
                f"lanes={self.lanes} cannot be carried by workers.max={self.workers.max}: {idle} workers would idle. "
                f"Set lanes to {self.workers.max} or more, or workers.max to {self.lanes}"
            )
        if self.stop is not None and self.data.validation is None:
            yield (
                f"stop.metric={self.stop.metric} is of an evaluation, and data.validation is not given: give it, or "
                f"leave stop out"
            )
        yield from self._of_money()
        yield from self.workers.contradictions()
        yield from self.strategy.contradictions(self)

    def _of_money(self) -> Iterator[str]:
        budget, price = self.budget or Budget(), self.workers.price_per_hour
        if budget.on_demand_min > self.workers.max:
            yield (
                f"budget.on_demand_min={budget.on_demand_min} is more than workers.max={self.workers.max}: set it to "
                f"{self.workers.max} or less"
            )
        if price is None or budget.usd_per_hour is None:  # what machines cost is known once the cluster has said it
            return
        if budget.usd_per_hour < price * self.workers.min:
            yield (
                f"budget.usd_per_hour={budget.usd_per_hour:g} does not pay for workers.min={self.workers.min} at "
                f"workers.price_per_hour={price:g}. Set it to {price * self.workers.min:g} or more, or min lower"
            )

    def call(self) -> dict[str, Any]:
        """The arguments for one call of the task's constructor or function, which may change its own copy of them."""
        return copy.deepcopy(self.arguments)

    @property
    def part_rows(self) -> int:
        """Rows of a lane that go through the model at once."""
        return self.micro_batch or max(1, self.lane_batch // self.accumulate)

    @property
    def units(self) -> int:
        """Parts of the run that a worker carries as a whole: lanes, or the strategy's replicas."""
        return self.strategy.units(self)

    @property
    def global_batch(self) -> int:
        """Rows per step."""
        return self.lanes * self.lane_batch


def _check_reference(name: str, given: dict[str, Any] | FromFile) -> None:
    """Raises ValueError: it is not {file: PATH}, with a path that means the same in every folder."""
    tree = given.model_dump() if isinstance(given, FromFile) else given
    path = tree.get("file")
    if set(tree) != {"file"} or not isinstance(path, str):
        raise ValueError(f"of the value of {name}, only {{file: PATH}} is known")
    if not path.startswith(("/", "~")):
        raise ValueError(f"the file of {name} is {path!r}: write its whole path, on the machine that leads the run")


def load(path: str | Path, settings: list[str] | None = None) -> Job:
    """Read a job from YAML.

    Args:
        path: the file. Relative paths inside it (data folders, a task's file) are taken from its folder.
        settings: `key=value` overrides with dotted keys, values in YAML; relative paths in them are taken from the
            current folder, as a shell user expects.

    Raises:
        BadInput: naming the field, the value found, and what to do.
    """
    path = Path(path)
    anchored = anchor(mapping(path, "job"), path.resolve().parent)
    for setting in settings or []:
        overrides.apply(anchored, setting, from_here)
    return parse(anchored, str(path))


def taken(given: Job | dict[str, Any] | str | Path) -> Job:
    """A job that is given in any way, good in every process: relative paths of a mapping are of the current folder.

    Raises:
        BadInput: as `load` and `parse`, or it is none of these.
    """
    if isinstance(given, str | Path):
        return load(given)
    if not isinstance(given, Job | dict):
        remedy = "Give a mapping, a headway.Job, or the path of a YAML file."
        raise BadInput(f"the job is {values.named(given)}", "", remedy)
    return parse(anchor(given.model_dump() if isinstance(given, Job) else given, Path.cwd()))


def parse(tree: dict[str, Any], source: str = "job") -> Job:
    """A job from a plain mapping, with errors in the user's words.

    Raises:
        BadInput: naming every field that is wrong, not only the first.
    """
    try:
        return Job.model_validate(tree)
    except ValidationError as error:
        raise BadInput(
            f"{source} is not a valid job",
            "; ".join(wording.say(Job, tree, error.errors())),
            "`headway job schema` lists all keys.",
        ) from None


def anchor(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with its relative paths (data folders, the cache's, a task's file) made absolute from `folder`."""
    tree = dict(tree)
    data = tree.get("data")
    if isinstance(data, dict):
        paths: dict[str, Any] = {
            k: _dataset(v, folder) for k, v in data.items() if k in ("train", "validation") and isinstance(v, str)
        }
        if isinstance(data.get("train"), list | tuple):
            paths["train"] = [
                {**part, "path": _absolute(part["path"], folder)}
                if isinstance(part, dict) and isinstance(part.get("path"), str)
                else part
                for part in data["train"]
            ]
        cache = data.get("cache")
        if isinstance(cache, dict) and isinstance(cache.get("folder"), str):
            paths["cache"] = {**cache, "folder": _absolute(cache["folder"], folder)}
        tree["data"] = {**data, **paths}
    files = tree.get("files")
    if isinstance(files, list):
        tree["files"] = [_pattern(each, folder) if isinstance(each, str) else each for each in files]
    task = tree.get("task")
    if isinstance(task, str):
        tree["task"] = _code(task, folder)
    if isinstance(tree.get("prices"), str):  # read at once: the run may be led on another machine
        from headway.cluster.prices.book import load as prices

        tree["prices"] = [asdict(each) for each in prices(_absolute(tree["prices"], folder))]
    return tree


def _dataset(path: str, folder: Path) -> str:
    return _code(path, folder) if is_named(path) else _absolute(path, folder)


def _code(named: str, folder: Path) -> str:
    """file.py:name with the file from the root; a module's name as it is."""
    file, colon, name = named.rpartition(":")
    return f"{_absolute(file, folder, follow=False)}{colon}{name}" if file.endswith(".py") else named


def _pattern(pattern: str, folder: Path) -> str:
    """The same pattern from the root; the folder's own name may hold a star or a bracket."""
    without = pattern.removeprefix("!")
    path = Path(without).expanduser() if without.startswith("~") else Path(without)
    whole = str(path) if path.is_absolute() else f"{glob.escape(str(folder))}/{without}"
    return f"{'!' if pattern != without else ''}{whole}"


def _absolute(path: str, folder: Path, follow: bool = True) -> str:
    """follow: through links; the files beside a linked task are those beside the link."""
    if "://" in path:
        return path
    try:
        whole = folder / Path(path).expanduser()
        return str(whole.resolve()) if follow else os.path.normpath(whole)
    except (RuntimeError, ValueError) as error:  # ~nobody, or a NUL byte
        raise BadInput(f"the path {path!r} cannot be used", str(error), "Write it out.") from None


def to_yaml(job: Job) -> str:
    """The job as YAML that `load` reads back as the same job."""
    return write(job.model_dump())


def from_here(way: values.Place, value: Any) -> Any:
    """A value that is set at this place of a job, with relative paths in it made absolute from the current folder."""
    tree: Any = value
    for part in reversed(way):
        tree = [tree] if isinstance(part, int) else {part: tree}
    tree = anchor(tree, Path.cwd())
    for part in way:
        tree = tree[0] if isinstance(part, int) else tree[part]
    return tree
