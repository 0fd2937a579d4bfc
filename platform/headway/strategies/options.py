"""How a run's workers are kept in step, as a job says it: the kind, and the options that are its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from headway.errors import nearest
from headway.notation.section import Count, Section

KINDS = ("all_reduce", "parameter_server", "local_sgd", "diloco", "gossip")
COMPRESSORS = ("none", "fp16", "bf16", "int8", "top_k", "power_sgd")
OPTIONS: dict[str, tuple[str, ...]] = {
    "all_reduce": ("replicas", "compression"),
    "parameter_server": (
        "replicas", "every", "consistency", "staleness", "rate", "backup_workers", "sparse", "fail_over"
    ),
    "local_sgd": ("replicas", "every", "compression", "average", "quorum", "grace_s", "inner_state"),
    "diloco": (
        "replicas", "every", "compression", "outer", "fragments", "overlap", "mixing",
        "quorum", "grace_s", "inner_state",
    ),
    "gossip": ("replicas", "every", "graph", "average_every", "inner_state"),
}  # fmt: skip
"""Beside `kind`."""
COMPRESSION_OPTIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "fp16": (),
    "bf16": (),
    "int8": ("error_feedback", "dense_below"),
    "top_k": ("ratio", "momentum", "warm_up", "local_clip", "start_step", "error_feedback", "dense_below"),
    "power_sgd": ("rank", "start_step", "error_feedback", "dense_below"),
}
"""Likewise of each compression."""
EVERY = {"parameter_server": 50, "local_sgd": 8, "diloco": 50, "gossip": 1}
"""Steps of a round, where the job does not say."""

LATER = ("momentum", "warm_up", "local_clip")
"""Options of a compression that came later: as they are by default they say nothing, so that checkpoints of before
fit."""
UNDECIDING = ("grace_s", "inner_state", "fail_over")
"""Options that change how a run gets on with losses, and no update."""


class Most(Protocol):
    """Of a job's workers."""

    @property
    def max(self) -> int:
        """At a time."""


class Optimizer(Protocol):
    """Of a job that names one."""

    name: str

    @property
    def model_extra(self) -> dict[str, Any] | None:
        """What it is made with besides the rate."""


class Job(Protocol):
    """What the rest of a job says of it, see `headway.job.Job`."""

    @property
    def lanes(self) -> int: ...
    @property
    def workers(self) -> Most: ...
    @property
    def reproducible(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def optimizer(self) -> Optimizer | None: ...


class Compression(Section):
    """What is sent in place of gradients, or of what a round changed. What is left out is kept, and sent later."""

    kind: str = Field(json_schema_extra={"enum": list(COMPRESSORS)})
    """none, fp16, bf16, int8, top_k or power_sgd; see `headway strategies`."""
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the elements that top_k sends."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of each replica's gradient, before the largest are chosen: what waits to be sent gathers speed, as all of it does
    in an optimiser with momentum, which has none of its own then (top_k, all_reduce)."""
    warm_up: Annotated[int, Field(ge=0)] = 0
    """Steps in which more is sent than `ratio`: a quarter, then a quarter of that, in four parts (top_k)."""
    local_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the whole gradient, of which each of n replicas may bring 1 / sqrt(n), before it is added to
    what waits to be sent (top_k)."""
    rank: Count = 4
    """Of power_sgd's factors."""
    start_step: Annotated[int, Field(ge=0)] = 0
    """Steps that are done without compression first (power_sgd, top_k)."""
    error_feedback: bool = True
    """Add what was left out to what is sent next (int8, top_k, power_sgd)."""
    dense_below: Annotated[int, Field(ge=0)] = 1024
    """Tensors of fewer elements are sent whole (int8, top_k, power_sgd)."""

    @model_validator(mode="before")
    @classmethod
    def _its_own(cls, given: Any) -> Any:
        given = {"kind": given} if isinstance(given, str) else given
        if isinstance(given, dict) and given.get("kind") in COMPRESSORS:
            _only(cls, given, COMPRESSION_OPTIONS, "compression ")
        return given

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in COMPRESSORS:
            raise ValueError(f"unknown compression {kind!r}. {nearest(kind, list(COMPRESSORS))}")
        return kind


class Outer(Section):
    """The optimiser that takes what a round changed for a gradient: SGD, as torch's."""

    lr: Annotated[float, Field(gt=0)] = 0.7
    """Learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    nesterov: bool = True
    """Nesterov's momentum."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov without momentum: set momentum above 0, or nesterov to false")
        return self


def _only(model: type[Section], given: dict[str, Any], options: dict[str, tuple[str, ...]], what: str = "") -> None:
    """Raises ValueError: a mapping holds an option that is another kind's, or nobody's. What is as by default may
    stand there, as in a job that was written out whole."""
    kind = given["kind"]
    for key, value in given.items():
        if key == "kind" or key in options[kind] or (key in model.model_fields and value == _default(model, key)):
            continue
        has = f"it has {', '.join(options[kind])}" if options[kind] else "it has none"
        others = [each for each in options if key in options[each]]
        if others:
            raise ValueError(f"{key} is no option of {what}{kind}, but of {', '.join(others)}; {has}")
        close = nearest(str(key), list(options[kind])) if options[kind] else ""
        close = f". {close}" if close.startswith("Did you mean") else f"; {has}"
        raise ValueError(f"unknown option {key!r} of {what}{kind}{close}")


def _default(model: type[Section], key: str) -> Any:
    found = model.model_fields[key].get_default(call_default_factory=True)
    return found.model_dump() if isinstance(found, Section) else found


def _or_compressor(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"enum": list(COMPRESSORS)}]


class Strategy(Section):
    """How lanes' gradients become an update. A name stands for a mapping of that kind."""

    kind: str = Field(default="all_reduce", json_schema_extra={"enum": list(KINDS)})
    """all_reduce, parameter_server, local_sgd, diloco or gossip; see `headway strategies`."""
    replicas: Count | None = None
    """Sets of lanes that go on for themselves between two exchanges, whatever the cluster does; workers.max when not
    given. all_reduce has use for them where it compresses: what each sets aside is its own."""
    compression: Compression = Field(default_factory=lambda: Compression(kind="none"), json_schema_extra=_or_compressor)
    """What is sent in place of the numbers: the name of a kind, or a mapping with its options (all_reduce, local_sgd,
    diloco)."""
    every: Count | None = None
    """Steps of a round, between two exchanges: 8 of local_sgd, 50 of diloco and of parameter_server with ssp, asp or
    backup workers, 1 of gossip, when not given."""
    average: Literal["all", "weights"] = "all"
    """all: the inner optimiser's state is averaged with the weights (local_sgd)."""
    outer: Outer = Field(default_factory=Outer)
    """The outer optimiser (diloco)."""
    fragments: Count = 1
    """Parts of the model that are exchanged in turn, one after another within a round (diloco)."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Steps that go on while an exchange is under way, before what comes of it is used (diloco)."""
    mixing: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of a replica's own weights that stays when those of such an exchange come (diloco with overlap)."""
    quorum: Count | None = None
    """Replicas with which a round is complete; all when not given."""
    grace_s: Annotated[float, Field(ge=0)] = 1.0
    """Seconds that a round with its quorum waits for the others."""
    inner_state: Literal["backed_up", "own"] = "backed_up"
    """backed_up: a copy of each replica's inner optimiser is with another worker, so that one that is lost without
    notice costs nothing but time; own: there is none, which saves the bytes of sending it once a round."""
    graph: Literal["ring", "exponential", "complete"] = "ring"
    """Who exchanges with whom (gossip)."""
    average_every: Count = 10
    """Rounds between two exact averages over all (gossip)."""
    consistency: Literal["bsp", "ssp", "asp"] = "bsp"
    """bsp: all workers' gradients make one update; ssp: each goes on by itself, at most `staleness` steps ahead of the
    slowest; asp: without a limit (parameter_server)."""
    staleness: Annotated[int, Field(ge=0)] | None = None
    """Steps that a replica may be ahead (ssp); 4 when not given."""
    rate: Literal["constant", "staleness"] = "constant"
    """staleness: an update by old weights is divided by how many steps old they are (ssp, asp)."""
    backup_workers: Annotated[int, Field(ge=0)] = 0
    """Replicas that a step does without: it is complete with the gradients of the others, whoever comes first, and what
    comes of it later is dropped (parameter_server with bsp)."""
    sparse: list[str] = Field(default_factory=list)
    """Embeddings by name, or patterns (`tables.*`), of which only the rows that a batch uses travel
    (parameter_server)."""
    fail_over: bool = True
    """Each range's optimiser is with a second worker as well (parameter_server)."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        found = {"kind": given} if isinstance(given, str) else given
        if not isinstance(found, dict):
            if isinstance(found, Section):
                return found
            raise ValueError(f"write the name of a strategy ({', '.join(KINDS)}), or a mapping with kind")
        found = {"kind": "all_reduce", **found}
        compression = found.get("compression")
        if isinstance(compression, str | Compression):
            dumped = {"kind": compression} if isinstance(compression, str) else compression.model_dump()
            found["compression"] = _default(cls, "compression") if dumped["kind"] == "none" else dumped
        if isinstance(found.get("sparse"), str):
            found["sparse"] = [found["sparse"]]
        if found["kind"] in KINDS:
            _only(
                cls,
                {key: each.model_dump() if isinstance(each, Section) else each for key, each in found.items()},
                OPTIONS,
            )
        return found

    @field_validator("sparse")
    @classmethod
    def _patterns(cls, sparse: list[str]) -> list[str]:
        if not all(each.strip() for each in sparse):
            raise ValueError("an empty text is the name of no parameter: leave it out")
        return sparse

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"unknown strategy {kind!r}. {nearest(kind, list(KINDS))}")
        return kind

    @property
    def is_local(self) -> bool:
        """Whether replicas differ between two exchanges."""
        return self.kind in ("local_sgd", "diloco", "gossip") or self.is_asynchronous

    @property
    def is_asynchronous(self) -> bool:
        """Whether replicas go on by themselves, against a server's weights."""
        return self.kind == "parameter_server" and (self.consistency != "bsp" or self.backup_workers > 0)

    @property
    def keeps(self) -> bool:
        """Whether something is kept from step to step that is not the same on all workers."""
        return self.is_local or self.compresses or self.kind == "parameter_server"

    @property
    def compresses(self) -> bool:
        """Whether something else is sent than the numbers."""
        return self.compression.kind != "none"

    @property
    def round_steps(self) -> int:
        """Steps between two exchanges; 1 where replicas are alike after each."""
        if not self.is_local:
            return 1
        return max(1, (self.every or EVERY[self.kind]) // self.fragments)

    @property
    def ahead(self) -> int | None:
        """Steps that a replica may be ahead; None: any number."""
        return (4 if self.staleness is None else self.staleness) if self.consistency == "ssp" else None

    def why_not_repeatable(self, job: Job | None = None) -> str:
        """Why what comes of the run hangs on the cluster; empty where it does not. job: where it is known that a quorum
        is of fewer than all of its replicas."""
        if self.is_asynchronous and self.consistency != "bsp":
            return f"{self.consistency}: updates are made in the order in which they come"
        if self.is_asynchronous:
            return "backup workers: a step leaves out whoever is late"
        if self.quorum is not None and (job is None or self.quorum < self.count(job)):
            return "a quorum: a round leaves out whoever is late"
        return ""

    def units(self, job: Job) -> int:
        """Parts of the run that are carried as a whole: replicas, where there are some, else lanes."""
        return self.count(job) if self.has_replicas else job.lanes

    @property
    def has_replicas(self) -> bool:
        """Whether it matters which lanes are one replica."""
        return bool(self.is_local or self.compresses)

    def count(self, job: Job) -> int:
        """Replicas."""
        return self.replicas or job.workers.max

    def pinned(self, job: Job) -> Self:
        """With the number of replicas written down, where there are some."""
        return self.model_copy(update={"replicas": self.count(job)}) if self.has_replicas else self

    def deciding(self, job: Job) -> str | dict[str, Any]:
        """What of it decides the updates, as plain values: the kind alone where all is as by default and nothing has
        replicas, as releases wrote it that knew no options."""
        found = {key: value for key, value in self.model_dump().items() if key not in UNDECIDING and key != "kind"}
        found = {key: value for key, value in found.items() if value != _default(type(self), key)}
        found.pop("replicas", None)
        if self.compresses:
            compression = self.compression.model_dump()
            found["compression"] = {
                key: compression[key]
                for key in ("kind", *COMPRESSION_OPTIONS[compression["kind"]])
                if key not in LATER or compression[key] != _default(Compression, key)
            }
        if "outer" in found or self.kind == "diloco":
            found["outer"] = self.outer.model_dump()
        if self.is_local:
            found["every"] = self.round_steps
        if self.consistency == "ssp":
            found["staleness"] = self.ahead
        if self.has_replicas:
            found["replicas"] = self.count(job)
        return {"kind": self.kind, **found} if found else self.kind

    def _of_momentum(self, job: Job) -> Iterator[str]:
        """Where the gradients that are sent have momentum."""
        found, optimizer = self.compression, job.optimizer
        own = (optimizer.model_extra or {}).get("momentum") if optimizer is not None else None
        if not found.momentum:
            return
        said = f"strategy.compression.momentum={found.momentum:g}"
        if self.kind != "all_reduce":
            yield (
                f"{said} is of gradients (all_reduce), and {self.kind} sends what a round changed, in which the inner "
                "optimiser's momentum is already. Leave it out"
            )
        if not found.error_feedback:
            yield f"{said} is of what was left out, and error_feedback is false: leave one of them out"
        if optimizer is not None and optimizer.name != "sgd":
            yield (
                f"{said} stands for SGD's momentum, and optimizer.name={optimizer.name} scales gradients by what came "
                "before. Set optimizer: {name: sgd}, or leave it out"
            )
        elif own:
            yield f"{said} and optimizer.momentum={own}: gradients would gather speed twice. Leave the optimiser's out"

    def contradictions(self, job: Job) -> Iterator[str]:
        """What cannot hold at once, with the values and the way out."""
        replicas, most = self.count(job), job.workers.max
        if replicas > job.lanes:
            yield f"strategy.replicas={replicas} is more than lanes={job.lanes}: set it to {job.lanes} or less"
        if self.units(job) < most:
            yield (
                f"workers.max={most} is more than strategy.replicas={replicas}: a worker carries whole replicas, and "
                f"{most - replicas} would idle. Set strategy.replicas to {most} or more"
            )
        if self.quorum is not None and self.quorum > replicas:
            yield (
                f"strategy.quorum={self.quorum} is more than strategy.replicas={replicas}: no round would ever be "
                f"complete. Set it to {replicas} or less"
            )
        if self.staleness is not None and self.consistency != "ssp":
            yield f"strategy.staleness is of consistency ssp, and it is {self.consistency}: leave it out"
        if self.backup_workers and self.consistency != "bsp":
            yield (
                f"strategy.backup_workers is of consistency bsp, and it is {self.consistency}, with which nobody waits "
                "for a step of all. Leave one of them out"
            )
        if self.backup_workers >= replicas and self.backup_workers:
            yield (
                f"strategy.backup_workers={self.backup_workers} leaves nobody of strategy.replicas={replicas} for a "
                + (f"step: set it to {replicas - 1} or less" if replicas > 1 else "step: leave it out")
            )
        if self.rate != "constant" and self.consistency == "bsp":
            yield f"strategy.rate={self.rate} is of consistency ssp and asp: with bsp no update is by old weights"
        if self.sparse and self.is_asynchronous:
            plain = self.consistency == "bsp"
            what = "with strategy.backup_workers" if plain else f"is of consistency bsp, and it is {self.consistency}"
            instead = "backup_workers: 0" if plain else "consistency: bsp"
            yield (
                f"strategy.sparse {what}: rows of tables are updated once for all workers at every step. Set "
                f"strategy.{instead}, or leave sparse out"
            )
        if self.every is not None and not self.is_local:
            yield (
                "strategy.every is of consistency ssp and asp, and of backup workers: with bsp all workers meet at "
                "every step. Leave it out"
            )
        if self.quorum is None and self.grace_s != type(self).model_fields["grace_s"].default:
            yield f"strategy.grace_s={self.grace_s:g} is of a quorum, and there is none: give strategy.quorum as well"
        if self.overlap and self.overlap >= self.round_steps:
            yield f"strategy.overlap={self.overlap} is not below the {self.round_steps} steps of a round: set it below"
        whole = self.every or EVERY.get(self.kind, 1)
        if self.fragments > whole:
            yield (
                f"strategy.fragments={self.fragments} is more than the {whole} steps of a round: each is exchanged "
                f"after steps of its own. Set it to {whole} or less"
            )
        if self.overlap and self.quorum is not None:
            yield "strategy.overlap with strategy.quorum: who is late cannot have begun the exchange. Leave one out"
        if self.mixing != type(self).model_fields["mixing"].default and not self.overlap:
            yield f"strategy.mixing={self.mixing:g} is of strategy.overlap, and there is none: give it as well"
        yield from self._of_momentum(job)
        why = self.why_not_repeatable(job)
        if why and job.reproducible == "bitwise":
            yield (
                f"reproducible=bitwise promises the same bits on any number of workers, and strategy has {why}. "
                "Leave one of them out"
            )
        if self.is_local and job.precision == "fp16":
            yield f"precision=fp16 scales the loss by one factor for all, and {self.kind} has replicas: set bf16"
