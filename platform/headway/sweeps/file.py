"""What a user orders of a sweep: a job, a space, and how it is gone through. Checked once, at the door.

headway sweep sweep.yaml --set trials=8
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from headway import job as jobs
from headway.errors import BadInput, nearest
from headway.job import Job
from headway.notation import overrides, wording
from headway.notation.plain import write
from headway.notation.reading import mapping
from headway.notation.section import Bytes, Count, Seconds, Section
from headway.notation.values import Place
from headway.notify.webhook import Webhook
from headway.sweeps import settings, space
from headway.sweeps.events import Config
from headway.sweeps.named import SCHEDULERS, SEARCHES, Scheduler, Search, named
from headway.sweeps.space import Space

MUTABLE = ("optimizer.", "schedule.", "clip_norm")
"""Beginnings of the keys that may change while a trial goes on: those that fit any weights."""
FIXED = ("optimizer.name", "schedule.name")
"""Of them those whose change would leave the optimiser's state without a meaning."""
NOTIFY = "notify"
_OF_A_RUN_ALONE = ("usd", "usd_per_hour", "on_demand_min")
_SWEEPS_OWN = "strike it out, and give the sweep's own budget (dollars, worker_hours, deadline)"
LONGEST_NAME = 80
"""Characters; a trial's run has some more."""


class Pool(Section):
    """Workers of the whole sweep. Each trial has from the job's workers.min to its workers.max of them."""

    min: Count = 1
    """Fewest to begin with."""
    max: Count = 1
    """Most at a time."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"workers.min={self.min} is more than max={self.max}: set min to {self.max} or less")
        return self


class Budget(Section):
    """What the sweep may cost; it ends when the first of these is spent."""

    trials: Count | None = None
    """Configurations; the same as `trials` at the top."""
    steps: Count | None = None
    """Steps of all trials together."""
    worker_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours of all workers together, those that wait among them."""
    dollars: Annotated[float, Field(gt=0)] | None = None
    """By price_per_worker_hour, or the job's workers.price_per_hour."""
    deadline: Seconds | None = None
    """Time from the beginning, as 90m or 2h; a number is seconds. Time in which nothing runs does not count."""


class Stop(Section):
    """An early end when nothing improves."""

    patience: Count
    """So many reports of trials at their gates, one after the other, without a better best."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """How much better it has to be."""


class Sweep(Section):
    """Everything about a sweep that is decided before it starts."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
    """Of the sweep; its trials are runs called NAME.0001 and so on. The job's name when not given."""
    job: dict[str, Any]
    """The job that all trials have in common: its file, relative to this one, or its keys."""
    metric: str = "loss"
    """Validation metric by which trials are judged."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the metric is better; to be given where the metric is not loss."""
    space: dict[str, Any]
    """What the job's keys may be, by Ray Tune's distributions: `optimizer.lr: {loguniform: [1e-4, 1e-1]}`. With `when:
    {KEY: VALUE}` a key counts only with another's choice."""
    trials: Count | None = None
    """Configurations that are tried; to be given unless the search is a grid or a budget ends the sweep."""
    repeats: Annotated[int, Field(ge=1, le=99)] = 1
    """Runs of each configuration, with seeds that follow the job's; their mean counts."""
    search: Search = Field(default_factory=lambda: Search())
    """Which settings are tried next; a name alone, or with its options."""
    scheduler: Scheduler = Field(default_factory=lambda: Scheduler())
    """Which trials go on, and which end early; a name alone, or with its options."""
    order: Literal["async", "strict"] = "async"
    """async: decisions are taken as results come. strict: in the order of a virtual clock, whatever the machines do;
    the job must be `reproducible: bitwise`."""
    width: Count | None = None
    """Trials that are under way at once, at most; to be given with strict, where the result hangs on it."""
    workers: Pool = Field(default_factory=lambda: Pool())
    """Of the whole sweep; as many as one trial of the job has when not given."""
    allotment: Literal["best_first", "even", "by_price"] = "best_first"
    """Who gets the workers that are free: the best trials; all alike; those whose steps cost least."""
    budget: Budget = Field(default_factory=lambda: Budget())
    """What it may cost."""
    price_per_worker_hour: Annotated[float, Field(gt=0)] | None = None
    """Dollars; the job's workers.price_per_hour when not given."""
    memory: Bytes = 2**30
    """Bytes on each node for the states of trials that are paused."""
    share_prefix: bool = False
    """Run what trials have in common once: those that differ only in what comes later begin with one state."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Trials in which the task may fail before the sweep ends."""
    stop: Stop | None = None
    """An early end when nothing improves."""
    earlier: list[str] = Field(default_factory=list, alias="from")
    """Earlier sweeps, by name or place, whose results the search begins with."""
    time_attr: Literal["step"] = "step"
    """What trials are compared by."""

    @model_validator(mode="before")
    @classmethod
    def _one_number_of_trials(cls, tree: Any) -> Any:
        budget = tree.get("budget") if isinstance(tree, dict) else None
        if not isinstance(budget, dict) or budget.get("trials") is None:
            return tree
        if tree.get("trials") not in (None, budget["trials"]):
            raise ValueError(f"trials={tree['trials']!r} and budget.trials={budget['trials']!r}: give one of them")
        return {**tree, "trials": budget["trials"]}

    @field_validator("search", "scheduler", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return named(given)

    @field_validator("earlier", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("time_attr", mode="before")
    @classmethod
    def _steps(cls, given: Any) -> Any:
        if given == "training_iteration":
            raise ValueError("trials report at their evaluations, and are compared by their step. Strike it out")
        return given

    @cached_property
    def searched(self) -> Space:
        """The space, read."""
        return space.parse(self.space)

    def job_of(self, config: Config, repeat: int = 1) -> Job:
        """The job of a trial.

        Args:
            config: its settings.
            repeat: from 1; each has the seed after the one before.

        Raises:
            BadInput: it is no valid job.
        """
        quiet = {key: each for key, each in self.priced.items() if key != NOTIFY}  # the sweep tells, not each trial
        settled = settings.settle(config, quiet)
        return settled if repeat == 1 else settled.model_copy(update={"seed": settled.seed + repeat - 1})

    @property
    def priced(self) -> dict[str, Any]:
        """The job, whose workers cost what the sweep says."""
        workers = self.job.get("workers", {})
        if self.price_per_worker_hour is None or not isinstance(workers, dict):
            return self.job
        return {**self.job, "workers": {**workers, "price_per_hour": self.price_per_worker_hour}}

    @property
    def price(self) -> float | None:
        """Dollars for an hour of a worker; None where nobody said."""
        return self.example.workers.price_per_hour

    @cached_property
    def example(self) -> Job:
        """The job of a trial in the middle of the space."""
        return self.job_of(self.searched.at(dict.fromkeys(self.searched.order, 0.5)))

    @cached_property
    def notify(self) -> list[Webhook]:
        """Addresses that the job names: they are told of the sweep, and not of each trial."""
        return [Webhook.model_validate(each) for each in self.job.get(NOTIFY, ())]

    @property
    def mutated(self) -> tuple[str, ...]:
        """Keys of the space that change when a trial takes over another's weights."""
        keys = self.searched.distributions
        if self.scheduler.mutate is not None:
            return tuple(key for key in keys if key in self.scheduler.mutate)
        return tuple(key for key in keys if key.startswith(MUTABLE) and key not in FIXED)

    def better(self, one: float, other: float) -> bool:
        """Whether a value of the metric is better than another, by more than nothing."""
        return one > other if self.mode == "max" else one < other


def load(path: str | Path, given: list[str] | None = None) -> Sweep:
    """Read a sweep from YAML.

    Args:
        path: the file. Relative paths inside it are taken from its folder, those of a job's file from that file's.
        given: `key=value` overrides with dotted keys of the sweep (`trials=8`, `space.optimizer.lr={...}`) and of its
            job (`job.epochs=1`); relative paths in them are taken from the current folder.

    Raises:
        BadInput: naming every key that is wrong, the value found, and what to do.
    """
    path = Path(path)
    return taken(mapping(path, "sweep"), path.resolve().parent, given, str(path))


def taken(
    tree: dict[str, Any], folder: Path | None = None, given: list[str] | None = None, source: str = "sweep"
) -> Sweep:
    """A sweep from a plain mapping.

    Args:
        tree: of it.
        folder: from which its relative paths are taken; the current one when not given.
        given: overrides, as of `load`.
        source: what is said to be wrong, where something is.

    Raises:
        BadInput: as `load`.
    """
    tree = _with_job(dict(tree), folder or Path.cwd())
    for setting in given or []:
        overrides.apply(tree, setting, _from_here, _is_whole)
        tree = _with_job(tree, Path.cwd())
    return parse(tree, source)


def parse(tree: dict[str, Any], source: str = "sweep") -> Sweep:
    """A sweep whose paths are absolute, from a plain mapping. Raises BadInput: naming every key that is wrong."""
    remedy = "`headway sweep schema` lists all keys."
    job = tree.get("job")
    if isinstance(job, dict) and "name" not in job and isinstance(tree.get("name"), str):
        tree = {**tree, "job": {"name": tree["name"], **job}}
    elif isinstance(job, dict) and tree.get("name") is None and "name" in job:
        tree = {**tree, "name": job["name"]}
    faults = space.faults_of(tree["space"]) if "space" in tree else []
    try:
        found = Sweep.model_validate(tree)
    except ValidationError as error:
        said = wording.say(
            Sweep, tree, [each for each in error.errors() if each["loc"][:1] != ("space",) or not faults]
        )
        raise BadInput(f"{source} is not a valid sweep", "; ".join([*said, *faults]), remedy) from None
    faults = faults or [*_contradictions(found)] or settings.faults_of(found.searched, found.priced)
    if not faults:
        found = _sized(found)
        faults = [*_of_the_job(found, found.example)]
    if faults:
        raise BadInput(f"{source} is not a valid sweep", "; ".join(faults), remedy)
    return found


def to_yaml(sweep: Sweep) -> str:
    """The sweep as YAML that `load` reads back as the same sweep, its job within."""
    tree = sweep.model_dump(by_alias=True)
    tree["search"] = sweep.search.written(SEARCHES)
    tree["scheduler"] = sweep.scheduler.written(SCHEDULERS)
    return write(tree)


def schema() -> dict[str, Any]:
    """JSON Schema of a sweep's file."""
    found = Sweep.model_json_schema()
    job = Job.model_json_schema(ref_template="#/$defs/job.{model}")
    found["$defs"] |= {f"job.{name}": each for name, each in job.pop("$defs").items()}
    found["$defs"]["job"] = {key: each for key, each in job.items() if key != "required"}  # the space may give them
    of = found["properties"]
    of["job"] = {"description": of["job"]["description"], "anyOf": [{"type": "string"}, {"$ref": "#/$defs/job"}]}
    of["space"] = {"description": of["space"]["description"], **space.schema()}
    for name in ("search", "scheduler"):
        of[name] = {"description": of[name]["description"], "anyOf": [{"type": "string"}, {"$ref": of[name]["$ref"]}]}
    of["from"] = {**of["from"], "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    of["from"].pop("type"), of["from"].pop("items")
    found["required"] = ["job", "space"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _with_job(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with its job read and good in every folder, and a searcher of the user's own too."""
    job = tree.get("job")
    if isinstance(job, str | Path):
        path = folder / Path(job).expanduser()
        tree["job"] = jobs.anchor(mapping(path, "job"), path.resolve().parent)
    elif isinstance(job, Job):
        tree["job"] = jobs.anchor(job.model_dump(), folder)
    elif isinstance(job, dict):
        tree["job"] = jobs.anchor(job, folder)
    tree |= {key: named(tree[key]) for key in ("search", "scheduler") if key in tree}
    search = tree.get("search")
    if isinstance(search, dict) and isinstance(search.get("name"), str):
        file, colon, name = search["name"].rpartition(":")
        if file.endswith(".py"):
            tree["search"] = {**search, "name": f"{folder / Path(file).expanduser()}{colon}{name}"}
    return tree


def _from_here(way: Place, value: Any) -> Any:
    return jobs.from_here(way[1:], value) if way[0] == "job" and len(way) > 1 else value


def _is_whole(way: Place) -> bool:
    """One distribution is not laid over another, nor a scheduler with its options."""
    return way[0] == "space" or way in (("search",), ("scheduler",))


def _sized(sweep: Sweep) -> Sweep:
    """With as many workers as a trial has, where nothing is said."""
    if "workers" in sweep.model_fields_set:
        return sweep
    workers = sweep.example.workers
    found = sweep.model_copy(update={"workers": Pool(min=workers.min, max=workers.max)})
    found.__dict__.pop("example", None)
    return found


def _contradictions(sweep: Sweep) -> Iterator[str]:
    """What cannot hold at once, of the sweep's own keys."""
    if sweep.metric != "loss" and "mode" not in sweep.model_fields_set:
        yield f"mode is missing: is more {sweep.metric} better (max), or less (min)?"
    budget = sweep.budget
    bounded = any((budget.steps, budget.worker_hours, budget.dollars, budget.deadline, sweep.stop))
    if sweep.trials is None and sweep.search.name != "grid" and not bounded:
        yield "trials is missing: how many are to be tried? Or give a budget"
    if sweep.order == "strict" and sweep.width is None:
        yield "order: strict needs width, how many trials are under way at once: the result hangs on it"
    if sweep.search.name == "grid":
        try:
            sweep.searched.grid()
        except BadInput as error:
            yield f"{error.fact}. {error.remedy}".rstrip(".")
    yield from _of_repeats(sweep)
    yield from _of_populations(sweep)


def _of_repeats(sweep: Sweep) -> Iterator[str]:
    if sweep.repeats > 1 and "seed" in sweep.space:
        yield f"repeats={sweep.repeats} and space.seed: repeats are runs of other seeds. Strike out one of them"
    if sweep.repeats > 1 and sweep.scheduler.exploits:
        yield f"repeats={sweep.repeats}: in {sweep.scheduler.name} each trial is one run. Set repeats to 1"


def _of_populations(sweep: Sweep) -> Iterator[str]:
    name = sweep.scheduler.name
    if not sweep.scheduler.exploits:
        return
    if sweep.searched.conditional:
        yield f"scheduler {name} changes settings as it goes, and knows no conditions: strike out `when`"
    if sweep.trials is None or sweep.trials < 2:
        yield f"scheduler {name} needs a population: set trials to 2 or more"
    if sweep.share_prefix:
        yield f"share_prefix: in {name} trials take over each other's weights, and share no beginning. Strike it out"
    for key in sweep.scheduler.mutate or []:
        if key not in sweep.searched.distributions:
            yield f"scheduler.mutate: space has no key {key!r}. {nearest(key, list(sweep.searched.distributions))}"
    if name == "pb2" and (keys := [k for k in sweep.mutated if sweep.searched.distributions[k].bounds is None]):
        yield f"scheduler pb2 changes numbers between bounds, and {keys[0]} has none. Name others with mutate"
    if not sweep.mutated:
        yield f"scheduler {name} has nothing to change: name keys of the space with mutate, like optimizer.lr"


def _of_the_job(sweep: Sweep, job: Job) -> Iterator[str]:
    """What cannot hold at once, of the sweep and its job."""
    if sweep.budget.dollars is not None and sweep.price is None:
        yield "budget.dollars needs price_per_worker_hour, the dollars of one worker's hour"
    for key in _OF_A_RUN_ALONE:
        if key in (job.budget.model_dump(exclude_defaults=True) if job.budget is not None else {}):
            yield f"job.budget.{key} is of a run alone, and trials share the sweep's workers: {_SWEEPS_OWN}"
    if job.deadline is not None:
        yield f"job.deadline is of a run alone, and trials wait for each other: {_SWEEPS_OWN}"
    if job.data.validation is None:
        yield f"metric={sweep.metric!r} is of the validation set: set job.data.validation"
    if sweep.order == "strict" and job.reproducible != "bitwise":
        yield "order: strict needs the same bits on all machines: set job.reproducible to bitwise, or order to async"
    if job.workers.min > sweep.workers.max:
        yield (
            f"workers.max={sweep.workers.max} is less than the job's workers.min={job.workers.min}: no trial could "
            f"begin. Set workers.max to {job.workers.min} or more"
        )
    if job.steps is not None and sweep.budget.steps is not None and sweep.budget.steps < job.steps * sweep.repeats:
        whole = job.steps * sweep.repeats
        yield f"budget.steps={sweep.budget.steps} is below one trial, which has {whole}: set it to {whole} or more"
