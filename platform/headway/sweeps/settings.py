"""From a trial's settings to its job: laid over the sweep's job, key by key, and checked as any job is."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from headway.errors import BadInput
from headway.job import Job, parse
from headway.notation import overrides
from headway.sweeps.events import Config
from headway.sweeps.space import Space

PAIRS = 500
"""Settings with two keys at their extremes that are tried, at most. (A millisecond each.)"""
_SWEPT = (
    "arguments",
    "clip_norm",
    "epochs",
    "lane_batch",
    "lanes",
    "optimizer",
    "precision",
    "schedule",
    "seed",
    "steps",
    "strategy",
    ("data", "columns"),
    ("data", "mixture_epoch"),
    ("data", "sampling"),
    ("data", "shuffle"),
    ("data", "window"),
)
"""Keys that decide what a trial computes."""
_KEPT = {
    "activation_checkpointing": "it changes no result; it is for all trials alike",
    "accumulate": "all trials cut their batches alike",
    "lanes_together": "trials that are compared should be computed alike",
    "micro_batch": "all trials cut their batches alike",
    "rows_together": "it is for all trials alike",
    "checkpoint": "all trials are kept alike",
    "data": "all trials are measured on the same data",
    "evaluate_every_steps": "trials are compared where they are evaluated",
    "files": "all trials run the same code",
    "name": "a trial is called after its sweep",
    "reproducible": "trials that are compared should be computed alike",
    "stop": "all trials end by one rule",
    "task": "all trials run the same code; choose inside of it by one of the task's arguments",
    "notify": "people are told of the sweep",
    "tracking": "all trials are recorded in one place",
    "workers": "the sweep gives each trial its workers; the cluster decides how fast, never what",
}
"""Why others may not be swept."""


def settle(config: Config, tree: dict[str, Any], source: str = "trial") -> Job:
    """The job of a trial.

    Args:
        config: settings by dotted key.
        tree: of the sweep's job, with its paths made absolute; it is left as it is.
        source: what is said to be wrong, where something is.

    Raises:
        BadInput: a key leads to nothing, or it is no valid job so.
    """
    laid = dict(tree)
    for key, value in config.items():
        overrides.put(laid, key, value, f"the space's key {key}")
    return parse(laid, source)


def faults_of(space: Space, tree: dict[str, Any]) -> list[str]:
    """Keys of a space that may not be swept, and values that make no valid job; each once, in words."""
    faults = [fault for key in space.settings if (fault := _refused(key))]
    if faults:
        return faults
    middle = space.at(dict.fromkeys(space.order, 0.5))
    return list(dict.fromkeys(_wrong(chain([middle], space.corners(), space.pairs(PAIRS)), tree)))


def _refused(key: str) -> str:
    """Why a key may not be swept; "" if it may."""
    parts = [str(part) for part in overrides.parts_of(key)]
    if parts[0] in _SWEPT or tuple(parts[:2]) in _SWEPT or _is_weight(parts):
        return ""
    if parts[0] in Job.model_fields:
        why = _KEPT.get(parts[0], "it does not change what a trial computes")
        return f"space.{key}: {parts[0]} is not for a space: {why}"
    names = [each if isinstance(each, str) else ".".join(each) for each in _SWEPT]
    from headway.errors import nearest

    return f"space.{key}: a job has no key {parts[0]!r}. {nearest(parts[0], names)}"


def _is_weight(parts: list[str]) -> bool:
    """data.train.0.weight: how much of a mixture is of one part."""
    return parts[:2] == ["data", "train"] and len(parts) == 4 and parts[3] == "weight"


def _wrong(configs: Iterable[Config], tree: dict[str, Any]) -> Iterable[str]:
    """What is wrong with jobs at the space's corners."""
    for config in configs:
        try:
            settle(config, tree)
        except BadInput as error:
            said = error.reason if error.fact.startswith("trial is not") else f"{error.fact}: {error.reason}"
            yield f"{said.rstrip('.')} (with {shown(config)})"
            return  # one corner's faults say enough; others' are mostly the same


def shown(config: Config) -> str:
    """Settings in a line, as `--set` takes them."""
    return ", ".join(f"{key}={_short(value)}" for key, value in config.items()) or "nothing set"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
