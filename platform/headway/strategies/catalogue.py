"""The strategies and compressions for people: what each is, when to choose it, where it loses, what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headway.notation.section import Section
from headway.strategies.options import (
    COMPRESSION_OPTIONS,
    COMPRESSORS,
    EVERY,
    KINDS,
    OPTIONS,
    Compression,
    Strategy,
)


@dataclass(frozen=True)
class Entry:
    """Of one kind. what: it does; choose: when; loses: where, or what it costs."""

    what: str
    choose: str
    loses: str


STRATEGIES: dict[str, Entry] = {
    "all_reduce": Entry(
        "the gradients of all lanes are summed over all workers at every step",
        "by default: workers of like speed on a network that keeps up; results are those of one process",
        "every step waits for the slowest worker and for the model's size on the wire",
    ),
    "parameter_server": Entry(
        "each worker carries a range of the parameters with its optimiser; gradients are pushed there, weights pulled",
        "for embeddings of which a batch touches few rows (sparse); where some workers are slow for long (ssp, asp), "
        "or now and then (backup_workers)",
        "dense models send what all_reduce sends; with ssp, asp and backup workers no two runs are the same",
    ),
    "local_sgd": Entry(
        "replicas train by themselves for some steps, then weights and optimiser are averaged",
        "where a step is short beside its exchange: 4 to 16 steps a round take most of that away",
        "with long rounds replicas drift apart, and their average is worse than an update of all at every step",
    ),
    "diloco": Entry(
        "replicas train by themselves for many steps; what they changed is a gradient to an outer optimiser",
        "where links are slow (between data centres, 100 Mbit/s): hundreds of times fewer bytes; a quorum where "
        "replicas come and go",
        "short runs: it needs some tens of rounds; the inner optimiser's state is kept once for each replica",
    ),
    "gossip": Entry(
        "replicas exchange weights with few neighbours, and now and then with all",
        "where no exchange of all with all is wanted at each step, and a worker that is slow should hold up only "
        "its neighbours",
        "many replicas on a ring agree slowly; a network that does all_reduce well gains nothing",
    ),
}
COMPRESSIONS: dict[str, Entry] = {
    "none": Entry("numbers are sent as they are", "by default", "where links are slow: 4 bytes an element"),
    "fp16": Entry(
        "16-bit floats of 5 bits of exponent",
        "half the bytes at next to no cost",
        "values above 65,504 or below 6e-8, which it does not hold",
    ),
    "bf16": Entry(
        "16-bit floats of 8 bits of exponent",
        "half the bytes, any range of values",
        "precision: 2 to 3 decimal digits are left",
    ),
    "int8": Entry(
        "8-bit integers with a scale",
        "a quarter of the bytes; outer gradients of diloco",
        "on fast links, where computing it takes longer than sending the rest",
    ),
    "top_k": Entry(
        "the largest elements of each tensor with their places; the rest is kept for later steps",
        "slow links and few workers: some 60 times fewer bytes at 1 % and 2 workers; give it the momentum that SGD "
        "would have, and a warm-up",
        "each worker's choice goes to all others: with many workers the gain is gone",
    ),
    "power_sgd": Entry(
        "two thin factors of each matrix's gradient",
        "large matrices on slow links; the sum of factors costs what a sum costs, with any number of workers",
        "small or one-dimensional tensors, which go as they are; time for orthogonalising",
    ),
}


DEFAULTS = {"local_clip": "none"}
"""Of a compression, where they are told in a word."""


def listed() -> dict[str, Any]:
    """All of it as plain values: by `strategies` and `compressions`, of each what, choose, loses and options (name,
    default, what it means)."""
    return {
        "strategies": [
            {"kind": kind, **vars(STRATEGIES[kind]), "options": _options(Strategy, OPTIONS[kind], _by_kind(kind))}
            for kind in KINDS
        ],
        "compressions": [
            {
                "kind": kind,
                **vars(COMPRESSIONS[kind]),
                "options": _options(Compression, COMPRESSION_OPTIONS[kind], DEFAULTS),
            }
            for kind in COMPRESSORS
        ],
    }


def _by_kind(kind: str) -> dict[str, Any]:
    """Defaults that are another for each kind, or are told by what they stand for."""
    found: dict[str, Any] = {"replicas": "workers.max", "compression": "none", "quorum": "all", "staleness": 4}
    return found | ({"every": EVERY[kind]} if kind in EVERY else {})


def _options(model: type[Section], names: tuple[str, ...], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name in names:
        field = model.model_fields[name]
        default = told.get(name, field.get_default(call_default_factory=True))
        default = default.model_dump() if isinstance(default, Section) else default
        found.append({"name": name, "default": default, "means": " ".join((field.description or "").split())})
    return found
