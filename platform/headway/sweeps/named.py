"""Searchers and schedulers as a sweep's file names them, and the options of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from headway.errors import nearest
from headway.notation.section import Count, Section, plain

SEARCHES = {
    "density": ("seed", "startup"),
    "random": ("seed",),
    "grid": (),
    "sobol": ("seed",),
    "tpe": ("seed", "startup"),
    "gp": ("seed", "startup"),
    "cmaes": ("seed", "startup"),
}
"""Searchers of ours, and the options of each."""
SCHEDULERS = {
    "none": (),
    "asha": ("first", "factor", "promote"),
    "hyperband": ("first", "factor"),
    "median": ("first", "least"),
    "pbt": ("every", "quantile", "resample", "mutate", "seed"),
    "pb2": ("every", "quantile", "mutate", "seed"),
}
"""Schedulers, and the options of each."""
_TUNES = {
    "grace_period": "first",
    "reduction_factor": "factor",
    "max_t": "the job's steps",
    "perturbation_interval": "every",
    "quantile_fraction": "quantile",
    "resample_probability": "resample",
    "hyperparam_mutations": "mutate",
    "hyperparam_bounds": "mutate",
    "min_samples_required": "least",
    "n_startup_trials": "startup",
    "num_samples": "trials",
}
"""What is called otherwise here than in Ray Tune."""


def named(given: Any) -> Any:
    """A name alone stands for the mapping with that name."""
    return {"name": given} if isinstance(given, str) else given


class _Named(Section):
    """One of several by its name, with options of its own."""

    def _foreign(self, known: dict[str, tuple[str, ...]], what: str) -> Iterator[str]:
        """Options that this one has not."""
        for key in sorted(self.model_fields_set - {"name"}):
            if key not in known[self.name]:  # type: ignore[attr-defined]
                others = [name for name, options in known.items() if key in options]
                name = self.name  # type: ignore[attr-defined]
                yield f"{key} is an option of {' and '.join(others)}; {what} {name} has none of that name"

    def written(self, known: dict[str, tuple[str, ...]]) -> dict[str, Any]:
        """Without the options that it has not; of the user's own, with what was given."""
        tree = self.model_dump()
        options = known.get(tree["name"], tuple(key for key in tree if key in self.model_fields_set))
        return {key: value for key, value in tree.items() if key == "name" or key in options}


class Search(_Named):
    """Which settings are tried next. Other keys are arguments of a searcher of your own."""

    model_config = ConfigDict(extra="allow")

    name: str = "density"
    """density, random, grid, sobol, tpe, gp, cmaes; or one of your own: file.py:Class or package.module:Class."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of all that is drawn (density, random, sobol, tpe, gp, cmaes)."""
    startup: Count | None = None
    """Trials that are drawn at random before the model counts (density, tpe, gp, cmaes)."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        rest = {k: v for k, v in given.items() if k not in cls.model_fields} if isinstance(given, dict) else {}
        return {**given, **plain(rest)} if rest else given

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.own:
            module, _, name = self.name.rpartition(":")
            if not module or not name.isidentifier():
                raise ValueError(f"search {self.name!r}: write it as file.py:Class or package.module:Class")
            return self
        if self.name not in SEARCHES:
            hint = nearest(self.name, list(SEARCHES))
            raise ValueError(f"unknown search {self.name!r}. {hint} Your own is file.py:Class")
        for key in self.model_extra or {}:
            raise ValueError(f"unknown key {key!r} of search {self.name}. {_meant(key, SEARCHES[self.name])}")
        for fault in self._foreign(SEARCHES, "search"):
            raise ValueError(fault)
        return self

    @property
    def own(self) -> bool:
        """Whether it is the user's class."""
        return ":" in self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """Of a searcher of the user's own; `seed` is among them where it is written."""
        seed = {"seed": self.seed} if "seed" in self.model_fields_set else {}
        startup = {"startup": self.startup} if self.startup is not None else {}
        return {**seed, **startup, **(self.model_extra or {})}


class Scheduler(_Named):
    """Which trials go on, and which end early."""

    name: str = "asha"
    """none; asha (asynchronous successive halving), hyperband, median; pbt, pb2 (population based training)."""
    first: Count | None = None
    """Steps until the first decision about a trial (asha, hyperband, median); found from the job's length when not
    given."""
    factor: Annotated[int, Field(ge=2, le=1000)] = 4
    """One in so many goes on from each rung, to so many times its steps (asha, hyperband)."""
    promote: bool = True
    """Trials wait at their rung and go on when they are among its best; false: those that are not among the best when
    they come are stopped (asha)."""
    least: Count = 3
    """Trials that must have come as far before one is compared with their median (median)."""
    every: Count | None = None
    """Steps between two looks at a trial (pbt, pb2); found from the job's length when not given."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """The share of the worst that take over from as many of the best (pbt, pb2)."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """How often a setting is drawn anew rather than changed a little (pbt)."""
    mutate: Annotated[list[str], Field(min_length=1)] | None = None
    """Keys of the space that change when weights are taken over (pbt, pb2); those of the optimiser when not given."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of all that is drawn (pbt, pb2)."""

    @model_validator(mode="before")
    @classmethod
    def _tunes(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key in _TUNES:
                raise ValueError(f"unknown key {key!r}. {_meant(str(key), tuple(cls.model_fields))}")
        return given

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in SCHEDULERS:
            raise ValueError(f"unknown scheduler {self.name!r}. {nearest(self.name, list(SCHEDULERS))}")
        for fault in self._foreign(SCHEDULERS, "scheduler"):
            raise ValueError(fault)
        return self

    @property
    def exploits(self) -> bool:
        """Whether trials take over others' weights."""
        return self.name in ("pbt", "pb2")


def _meant(key: str, known: tuple[str, ...]) -> str:
    """What an unknown key may have meant."""
    return f"Ray Tune's {key} is {_TUNES[key]} here" if key in _TUNES else nearest(key, list(known))
