"""What job.yaml can hold goes through check, file, resume and workers unchanged; all else is refused by its name."""

from __future__ import annotations

import enum
import json
import math
import pickle
from collections import Counter, OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from headway import plan
from headway.elastic.worker.main import run
from headway.errors import BadInput
from headway.job import Job, load, parse, to_yaml
from headway.notation import values
from headway.notation.plain import read, write

MINIMAL: dict[str, Any] = {"name": "n", "task": "/p/q/task.py:T", "data": {"train": "/d"}, "steps": 3}


def job(**more: Any) -> Job:
    return parse({**MINIMAL, **more})


def digest(of: Job) -> str:
    return plan.digest(of, [SimpleNamespace(digest=letter * 64) for letter in "ab"[: len(of.data.sources)]])  # type: ignore[misc]


def alike(one: Any, other: Any) -> bool:
    """Equal with the same types throughout, keys and their order among them; nan is nan."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        keys = [alike(a, b) for a, b in zip(one, other, strict=False)]
        return len(one) == len(other) and all(keys) and all(map(alike, one.values(), other.values()))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one, math.copysign(1, one)) == (
            other,
            math.copysign(1, other),
        )
    if isinstance(one, datetime):
        return bool(one == other) and one.utcoffset() == other.utcoffset()
    return bool(one == other)


ODD = """1 1e-3 1_000 0o17 017 0x1f 12:30 12:30:45.5 yes No on ~ null = << .inf .nan -.INF 2024-01-01 #x '
    " &a *a !t % ? : { ] 1. +1 - , |"""
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        *ODD.split(),
        "",
        " ",
        "2024-01-01 10:00:00",
        "- a",
        "a: b",
        "\x85",
        "\ufeff",
        "\u2028",
        "\x00",
        "a\nb\n",
        "\t",
        "\r\n",
    ]
)
MOMENTS = st.datetimes(timezones=st.none() | st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.dates()
    | MOMENTS
    | st.integers(-(10**40), 10**40)
)
KEYS = SCALARS.filter(lambda key: not (isinstance(key, float) and math.isnan(key)))
TREES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=4), max_leaves=15
)
ARGUMENTS = st.dictionaries(TEXT, TREES, max_size=4)


@given(ARGUMENTS)
@example({"weights": {0: 1.0, 1: 9.0}, "since": date(2024, 1, 1), "d": {date(2024, 1, 1): None, True: 1, None: 2}})
def test_what_was_checked_is_what_is_kept_resumed_and_sent(arguments: dict[str, Any]) -> None:
    first = job(arguments=arguments)
    assert alike(first.arguments, arguments)
    again = parse(read(to_yaml(first)))
    sent = Job.model_validate(pickle.loads(pickle.dumps(first.model_dump())))
    for other in (again, sent, parse(first.model_dump())):
        assert alike(other.model_dump(), first.model_dump())
        assert digest(other) == digest(first)
    json.dumps(values.shown(first.model_dump()), allow_nan=False).encode()


@given(TREES, TREES)
def test_different_arguments_have_different_digests(one: Any, other: Any) -> None:
    same = digest(job(arguments={"a": one})) == digest(job(arguments={"a": other}))
    if alike(one, other):
        assert same
    elif same:  # but for the order of a mapping, which never counted
        assert json.dumps(values.canonical(one), sort_keys=True) == json.dumps(values.canonical(other), sort_keys=True)
        assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({1: 9}, {"1": 9}),
        (1, "1"),
        (1, 1.0),
        ({1: 9}, {1.0: 9}),
        ({1: 9}, {True: 9}),
        (date(2024, 1, 1), "2024-01-01"),
        (date(2024, 1, 1), datetime(2024, 1, 1)),
        (datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),
        (math.nan, None),
        (math.inf, -math.inf),
        ({None: 1}, {"null": 1}),
        ({1: {"a": 1}}, [[1, {"a": 1}]]),
    ],
)
def test_the_digest_tells_them_apart(one: Any, other: Any) -> None:
    assert digest(job(arguments={"a": one})) != digest(job(arguments={"a": other}))


GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "51f95afd8ed32fb7f0940ffd589d8dc8b869bd03d93614a05dee75aff9077f8d"),
    "arguments": (
        {
            "arguments": {
                "width": 128,
                "rate": 1e-3,
                "big": 1e22,
                "neg": -0.0,
                "name": "é",
                "on": True,
                "off": False,
                "none": None,
                "text": "1",
                "list": [1, [2, "x", {"b": 1, "a": 2}]],
                "map": {"b": {"10": 1, "9": 2}},
            }
        },
        "6a7e3f80be9285389328775026ae431dacd7f5c641b35269d16a19fa44f4f977",
    ),
    "optimizer": (
        {
            "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 1},
            "schedule": {"name": "cosine", "warmup_steps": 2},
            "clip_norm": 1,
        },
        "99bdfa59a5576bb1f3df552be70d53e780a2d34e328cd505884a5005b68ecbee",
    ),
    "sampling": (
        {
            "data": {
                "train": "d",
                "sampling": {"by": "y", "weights": {"1": 2, "b": 0.5}},
                "columns": ["x", "y"],
                "shuffle": False,
            },
            "seed": 2**63 - 1,
        },
        "e72e1d6b5adbd252335176160596e39d90ad44f1d1cb3224fc8da34ab3cf0099",
    ),
    "mixture": (
        {
            "data": {"train": [{"path": "a", "weight": 3}, {"path": "b"}], "mixture_epoch": 240},
            "precision": "bf16",
            "reproducible": "bitwise",
        },
        "53458d1a77922a1ec1dbc7e89517064e377144cc8c0de833c64f7b0803d3bd1d",
    ),
    "strange": (
        {"arguments": {"key with\ttab": "line\nline\x01\u2028", "big": 10**30, "empty": {}, "nothing": []}},
        "78ecb3048a979e9c1ddbb30e677f234963877a5b4fce08a0c2013b54ee39ac10",
    ),
}
"""Digests that jobs had at commit 61d4558: their checkpoints are to be resumed."""


@pytest.mark.parametrize("case", GOLDEN)
def test_jobs_of_json_values_keep_the_digest_that_they_had(case: str) -> None:
    more, was = GOLDEN[case]
    assert digest(job(**more)) == was
    assert digest(job(**more, files=["x"])) == was, "what travels beside the code changes no sample and no update"


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    pass


Pair = namedtuple("Pair", "a b")
itself: list[Any] = []
itself.append(itself)

REFUSED: dict[str, tuple[Any, str, str]] = {
    "tuple": ((1, 2), "is a tuple, which job.yaml cannot hold", "Write a list"),
    "named tuple": (Pair(1, 2), "Pair", "_asdict"),
    "set": ({1}, "is a set", "Write a list"),
    "frozenset": (frozenset({1}), "is a frozenset", "Write a list"),
    "range": (range(3), "is a range", "Write a list"),
    "bytes": (b"x", "is a bytes", "text"),
    "path": (Path("x"), "PosixPath", "str(path)"),
    "numpy integer": (np.int64(3), "is a numpy.int64", ".item()"),
    "numpy float, which is a float": (np.float64(3), "is a numpy.float64", ".item()"),
    "numpy bool": (np.bool_(True), "is a numpy.bool", ".item()"),
    "numpy text, which is a str": (np.str_("a"), "is a numpy.str_", ".item()"),
    "numpy array": (np.zeros(3), "is a numpy.ndarray", ".tolist()"),
    "tensor": (torch.zeros(3), "is a torch.Tensor", ".tolist()"),
    "tensor of one": (torch.tensor(3), "is a torch.Tensor", ".item()"),
    "torch type": (torch.float32, "is a torch.dtype", "Write its name"),
    "device": (torch.device("cpu"), "is a torch.device", "Write its name"),
    "class": (torch.nn.ReLU, "is the class ReLU", "Write its name"),
    "function": (torch.relu, "is the function relu", "Write its name"),
    "lambda": (lambda x: x, "is a lambda", "Write its name"),
    "object": (object(), "is an object", "text, numbers"),
    "enum": (Colour.RED, "Colour", ".value"),
    "text of a kind": (Word("a"), "Word", "str(value)"),
    "ordered": (OrderedDict(a=1), "is a collections.OrderedDict", "dict(value)"),
    "default": (defaultdict(int), "is a collections.defaultdict", "dict(value)"),
    "counter": (Counter("a"), "is a collections.Counter", "dict(value)"),
    "time": (time(1, 2), "is a datetime.time", "isoformat"),
    "duration": (timedelta(1), "is a datetime.timedelta", "seconds"),
    "decimal": (Decimal(1), "is a decimal.Decimal", "numbers"),
    "complex": (1j, "is a complex", "numbers"),
    "half a character": ("a\ud800", "holds half a character", "UTF-8"),
    "zone": (datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), "time zone", "astimezone"),
    "offset of seconds": (datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=5))), "time zone", "whole minutes"),
    "huge number": (10**5000, "over 4,200 digits", "text"),
    "itself": (itself, "holds itself", "Write it out"),
    "tuple as a key": ({(1, 2): 3}, "has the key (1, 2), a tuple", "as keys"),
    "enum as a key": ({Colour.RED: 3}, "has the key", "as keys"),
    "nan as a key": ({math.nan: 3}, "has the key nan", "text"),
    "half a character as a key": ({"\ud800": 3}, "holds half a character", "UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_job_yaml_cannot_hold_is_refused_by_its_name(case: str) -> None:
    value, said, remedy = REFUSED[case]
    with pytest.raises(BadInput) as caught:
        job(arguments={"fine": 1, "outer": {"in.ner": [0, {3: value}]}})
    message = str(caught.value)
    assert 'arguments.outer."in.ner".1.3' in message
    assert said in message
    assert remedy in message
    message.encode()


def test_all_of_them_are_named_with_whatever_else_is_wrong() -> None:
    with pytest.raises(BadInput) as caught:
        job(
            arguments={"a": (1,), "b": {"c": {2}}},
            optimizer={"name": "adamw", "lr": 0.1, "betas": (0.9, 0.99)},
            lanes=0,
        )
    for words in ("arguments.a is a tuple", "arguments.b.c is a set", "optimizer.betas is a tuple", "lanes=0"):
        assert words in str(caught.value)


def test_arguments_without_names_are_refused() -> None:
    with pytest.raises(BadInput, match=r"arguments.5 is no name"):
        job(arguments={5: 6})


def test_depth_and_size_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(levels: int) -> Any:
        return 1 if levels == 0 else [nested(levels - 1)]

    deepest = job(arguments={"a": nested(values.DEEPEST)})
    assert alike(read(to_yaml(deepest))["arguments"], deepest.arguments)
    with pytest.raises(BadInput, match="flatter"):
        job(arguments={"a": nested(values.DEEPEST + 1)})
    monkeypatch.setattr(values, "MOST", 1000)
    many: Any = 0
    for _ in range(30):
        many = [many] * 10  # as aliases of YAML would
    with pytest.raises(BadInput, match="over a million values"):
        job(arguments={"a": many})


def test_a_job_shares_nothing_with_what_it_was_made_of_nor_with_its_calls() -> None:
    layers = [1, 2]
    made = job(arguments={"layers": layers, "same": layers})
    layers.append(3)
    made.call()["layers"].append(4)
    assert made.arguments == {"layers": [1, 2], "same": [1, 2]}
    assert "&" not in to_yaml(made)


def test_what_a_task_does_to_its_arguments_is_its_own() -> None:
    """A function, or a constructor, that changes a list that it was given, as checks and workers call it in turn."""
    made, seen = job(arguments={"layers": [1]}), []

    def greedy(layers: list[int]) -> None:
        layers.append(10)
        seen.append(layers)

    for _ in range(2):
        run(made, greedy)
    assert seen == [[1, 10], [1, 10]]
    assert made.arguments == {"layers": [1]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{1: a, '1': b}", {1: "a", "1": "b"}),
        ("{yes: a, 'yes': b}", {True: "a", "yes": "b"}),
        ("{~: a, 2024-01-01: b, 2.5: c}", {None: "a", date(2024, 1, 1): "b", 2.5: "c"}),
        (
            "[yes, No, on, 0o17, 017, 0x1f, 12:30, 1e-3, 1_000, =]",
            [True, False, True, "0o17", 15, 31, 750, 1e-3, 1000, "="],
        ),
        ("[.inf, -.inf]", [math.inf, -math.inf]),
        ("{a: &x {b: 1}, c: *x, d: {<<: *x, e: 2}}", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}),
        ("{a: &x {b: 1}, d: {<<: *x, b: 2}}", {"a": {"b": 1}, "d": {"b": 2}}),
        ("2001-12-14T21:59:43.1-05:00", datetime(2001, 12, 14, 21, 59, 43, 100000, timezone(timedelta(hours=-5)))),
    ],
)
def test_yaml_is_read_to_plain_values(tmp_path: Path, text: str, value: Any) -> None:
    assert alike(read(text), value)
    file = tmp_path / "job.yaml"
    file.write_text(f"name: n\ntask: t.py:T\ndata: {{train: d}}\nsteps: 3\narguments: {{a: {text}}}\n")
    first = load(file)
    assert alike(first.arguments["a"], value)
    file.write_text(to_yaml(first))
    assert alike(load(file).arguments["a"], value)


@pytest.mark.parametrize(
    "text", ["{1: a, 1: b}", "{1: a, 1.0: b}", "{yes: a, true: b}", "{1: a, 0x1: b}", "{1: a, on: b}"]
)
def test_keys_that_are_one_to_python_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"name: n\narguments: {text}\n")
    with pytest.raises(BadInput, match=r"line 2, column \d+: key .* is given twice"):
        load(file)


@pytest.mark.parametrize(
    ("text", "said"), [("!!set {a, b}", "set"), ("!!binary aGk=", "bytes"), ("!!omap [a: 1]", "tuple")]
)
def test_kinds_of_yaml_that_are_no_plain_values_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"name: n\ntask: t.py:T\ndata: {{train: d}}\nsteps: 3\narguments: {{a: {text}}}\n")
    with pytest.raises(BadInput, match=rf"arguments\.a.* is a {said}"):
        load(file)


def test_people_are_shown_all_keys() -> None:
    tree = {1: math.inf, "1": date(2024, 1, 1), None: [math.nan, True]}
    assert values.shown(tree) == {"1": ".inf", '"1"': "2024-01-01", "null": [".nan", True]}
    assert values.shown({1: 2, "a": 3}) == {"1": 2, "a": 3}


def test_classes_that_are_one_text_are_refused() -> None:
    with pytest.raises(BadInput, match=r"data.sampling.weights: names the class '1' twice"):
        job(data={"train": "d", "sampling": {"weights": {1: 2.0, "1": 3.0}}})


@given(TREES)
def test_yaml_reads_back_what_it_wrote(tree: Any) -> None:
    assert alike(read(write(tree)), tree)
