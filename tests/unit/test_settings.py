"""`--set` reaches every place of a job, and says so in words where there is none."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.errors import BAD_INPUT, BadInput
from headway.job import Job, load

TREE: dict[str, Any] = {
    "name": "n",
    "task": "task.py:T",
    "data": {"train": [{"path": "a", "weight": 3}, {"path": "b", "weight": 1}]},
    "epochs": 1,
    "arguments": {
        "weights": {0: 1.0, 1: 9.0},
        "rates": {0.5: "half", 1.0: "one"},
        "days": {date(2024, 1, 1): 1},
        "both": {1: "a", "1": "b"},
        "layers": [1, [2, {"w": 3}]],
        "blocks": {"layer.0.weight": 1, "layer": {"1": 2}},
        "empty": [],
        "lr": 0.1,
        "yes": {True: 1, False: 0},
    },
}


def loaded(folder: Path, *settings: str) -> Job:
    (folder / "job.yaml").write_text(yaml.safe_dump(TREE, sort_keys=False))
    return load(folder / "job.yaml", list(settings))


@pytest.mark.parametrize(
    ("setting", "way", "value"),
    [
        ("weights.1=7", ("weights",), {0: 1.0, 1: 7}),
        ("weights.2=7", ("weights",), {0: 1.0, 1: 9.0, 2: 7}),
        ("weights.other=7", ("weights",), {0: 1.0, 1: 9.0, "other": 7}),
        ("weights={1: 5}", ("weights",), {0: 1.0, 1: 5}),
        ("rates.0.5=x", ("rates",), {0.5: "x", 1.0: "one"}),
        ('rates."0.5"=x', ("rates",), {0.5: "x", 1.0: "one"}),
        ("days.2024-01-01=5", ("days",), {date(2024, 1, 1): 5}),
        ("days.2024-02-02=5", ("days",), {date(2024, 1, 1): 1, date(2024, 2, 2): 5}),
        ('both."1"=x', ("both",), {1: "a", "1": "x"}),
        ("layers.0=9", ("layers",), [9, [2, {"w": 3}]]),
        ("layers.1.0=9", ("layers",), [1, [9, {"w": 3}]]),
        ("layers.1.1.w=9", ("layers",), [1, [2, {"w": 9}]]),
        ("layers.1=[9]", ("layers",), [1, [9]]),
        ("layers.1.1={v: 9}", ("layers", 1, 1), {"w": 3, "v": 9}),
        ("blocks.layer.0.weight=9", ("blocks", "layer"), {"1": 2, "0": {"weight": 9}}),
        ('blocks."layer.0.weight"=9', ("blocks", "layer.0.weight"), 9),
        ("blocks.layer.1=9", ("blocks", "layer"), {"1": 9}),
        ("yes.true=5", ("yes",), {True: 5, False: 0}),
        ("new.a.b=5", ("new",), {"a": {"b": 5}}),
        ("new.1=5", ("new",), {"1": 5}),
        ('new."a.b"=5', ("new",), {"a.b": 5}),
        ("text=a: b: c", ("text",), "a: b: c"),
        ("text=a=b", ("text",), "a=b"),
    ],
)
def test_every_place_can_be_set(tmp_path: Path, setting: str, way: tuple[Any, ...], value: Any) -> None:
    found: Any = loaded(tmp_path, f"arguments.{setting}").arguments
    for part in way:
        found = found[part]
    assert found == value
    assert isinstance(found, dict | list) is isinstance(value, dict | list)
    if isinstance(found, dict):
        assert [type(key) for key in found] == [type(key) for key in value]


def test_an_element_of_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = loaded(tmp_path, "data.train.1.weight=9", "data.train.0.path=mine", "data.train.1.version=2")
    assert [(part.path, part.weight, part.version) for part in job.data.sources] == [
        (str(tmp_path / "here/mine"), 3, None),
        (str(tmp_path / "b"), 9, 2),
    ]
    again = loaded(tmp_path, "data.train.1={path: other, weight: 5}", "data.train.1.weight=6")
    assert again.data.sources[1].path == str(tmp_path / "here/other")
    assert again.data.sources[1].weight == 6
    assert loaded(tmp_path, "data.train=[{path: x}]").data.sources[0].path == str(tmp_path / "here/x")
    assert loaded(tmp_path, "files=[a.bin, '!b.json']").files == [f"{tmp_path}/here/a.bin", f"!{tmp_path}/here/b.json"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.train.2.weight=9", ["data.train has no element 2: its elements are 0 to 1", "set the whole list"]),
        ("data.train.-1.weight=9", ["'-1' is no position", "0 to 1"]),
        ("data.train.weight=9", ["data.train is a list", "'weight' is no position", "data.train.0.weight"]),
        ("data.train.1.0=9", ["unknown key 'data.train.1.0'", "Known: path, version, weight"]),
        ("data.train.1.wieght=9", ["unknown key 'data.train.1.wieght'", "Did you mean 'weight'?"]),
        ("data.train.1.weight=much", ["data.train.1.weight='much'", "valid number"]),
        ("data.train.1.weight.x=1", ["data.train.1.weight is 1, which has no parts", "Set it whole"]),
        ("arguments.empty.0=1", ["arguments.empty is an empty list", "set the whole list"]),
        ("arguments.layers.5=1", ["arguments.layers has no element 5"]),
        ("arguments.layers.1.7.w=1", ["arguments.layers.1 has no element 7"]),
        ("arguments.lr.x=1", ["arguments.lr is 0.1, which has no parts"]),
        ("arguments.both.1=x", ["arguments.both has '1' and 1", "which is meant"]),
        ("arguments.a={b: 1, b: 2}", ["the value is not YAML", "given twice"]),
        ("arguments.a=[1, 2", ["the value is not YAML"]),
        ("name.x=1", ["name is 'n', which has no parts"]),
        ('arguments."a=3', ["not of the form key=value"]),
        ("arguments.a b.=3", ["not of the form key=value"]),
    ],
)
def test_what_leads_nowhere_is_refused_in_words(tmp_path: Path, setting: str, said: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        loaded(tmp_path, setting)
    assert caught.value.exit_code == BAD_INPUT
    assert caught.value.remedy
    for words in said:
        assert words in str(caught.value)


MARKS = [
    "str:",
    ".str",
    "list[",
    "dict[",
    "constrained",
    "literal[",
    "function-",
    "Source",
    "Workers",
    "instance of",
    "[key]",
]

WRONG: dict[str, tuple[str, list[str]]] = {
    "a number for data": ("data: {train: 5}", ["data.train=5: give text or a list of {path, weight, version}"]),
    "a mapping for data": ("data: {train: {path: a}}", ["data.train: give text or a list of {path"]),
    "nothing for data": ("data: {train: }", ["data.train=None: give text or a list"]),
    "an empty mixture": ("data: {train: []}", ["data.train: the list is empty"]),
    "a part that is text": (
        "data: {train: [a]}",
        ["data.train.0='a'", "dictionary of its keys: path, weight, version"],
    ),
    "a wrong key of a part": ("data: {train: [{path: a, wight: 2}]}", ["unknown key 'data.train.0.wight'", "'weight'"]),
    "a part without a path": ("data: {train: [{weight: 2}]}", ["data.train.0.path is missing"]),
    "a path that is a number": ("data: {train: [{path: 7}]}", ["data.train.0.path=7", "Put it in quotes"]),
    "a weight of nothing": ("data: {train: [{path: a, weight: 0}]}", ["data.train.0.weight=0", "greater than 0"]),
    "two wrong parts": (
        "data: {train: [{path: 1}, {weight: x}]}",
        ["train.0.path=1", "train.1.path is missing", "train.1.weight='x'"],
    ),
    "an epoch's end": (
        "data: {train: d, mixture_epoch: bigger}",
        ["data.mixture_epoch='bigger': give 'smallest', 'largest' or a whole number"],
    ),
    "an epoch of nothing": (
        "data: {train: d, mixture_epoch: 0}",
        ["data.mixture_epoch=0", "greater than or equal to 1"],
    ),
    "an epoch of true": ("data: {train: d, mixture_epoch: true}", ["data.mixture_epoch=True", "no value"]),
    "an epoch of a list": ("data: {train: d, mixture_epoch: [1]}", ["data.mixture_epoch: give 'smallest'"]),
    "weights of a word": (
        "data: {train: d, sampling: {weights: even}}",
        ["data.sampling.weights='even': give 'uniform', 'balanced', 'column' or a mapping"],
    ),
    "a negative weight": (
        "data: {train: d, sampling: {weights: {a: -1}}}",
        ["data.sampling.weights.a=-1", "greater than or equal to 0"],
    ),
    "a class of no weight": (
        "data: {train: d, sampling: {weights: {a: x}}}",
        ["data.sampling.weights.a='x'", "valid number"],
    ),
    "weights in a list": ("data: {train: d, sampling: {weights: [1]}}", ["data.sampling.weights: give 'uniform'"]),
    "columns of a number": ("data: {train: d, columns: [1]}", ["data.columns.0=1", "Put it in quotes"]),
    "no columns": ("data: {train: d, columns: []}", ["data.columns: the list is empty"]),
    "steps of a word": ("checkpoint: {every_steps: often}", ["checkpoint.every_steps='often'", "valid integer"]),
    "a section of a number": ("workers: 3", ["workers=3", "dictionary of its keys: min, max, sizes, spares"]),
    "an optional section of a number": ("optimizer: 3", ["optimizer=3", "dictionary of its keys: name, lr"]),
    "a section in a section": ("data: {train: d, cache: 3}", ["data.cache=3", "dictionary of its keys: folder, bytes"]),
    "arguments in a list": ("arguments: [1]", ["arguments: ", "dictionary"]),
    "an argument of a number": ("arguments: {5: 6}", ["arguments.5 is no name", "quotes"]),
    "a key of nothing": ("~: 6", ["the key None is no text"]),
    "a day for a name": ("name: 2024-01-01", ["name: ", "valid string", "Put it in quotes"]),
    "no for a name": ("name: no", ["name=False"]),
    "files in a word": ("files: a.bin", ["files='a.bin'", "valid list"]),
    "files of numbers": ("files: [1]", ["files.0=1", "quotes"]),
    "memory of a list": ("workers: {memory: [1]}", ["workers.memory", "integer"]),
    "a schedule of a word": ("schedule: cosine", ["schedule='cosine'", "dictionary of its keys: name"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_no_mark_of_pydantics_is_in_an_error(tmp_path: Path, case: str) -> None:
    more, said = WRONG[case]
    rest = [line for line in ("name: n", "task: t.py:T", "data: {train: d}", "steps: 3") if line[:4] != more[:4]]
    (tmp_path / "job.yaml").write_text("\n".join([*rest, more]))
    with pytest.raises(BadInput) as caught:
        load(tmp_path / "job.yaml")
    reason = caught.value.reason
    for words in said:
        assert words in reason
    assert [mark for mark in MARKS if mark in reason] == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": BadInput}, "It is code: name it, like file.py:BadInput"),
        ({"task": loaded}, "It is code: name it, like file.py:loaded"),
        ({"data": {"train": Path("x")}}, "It is a path: write str(path)"),
        ({"data": {"train": [{"path": Path("x")}]}}, "It is a path: write str(path)"),
    ],
)
def test_what_only_python_can_get_wrong(fields: dict[str, Any], said: str) -> None:
    from headway.job import parse

    with pytest.raises(BadInput) as caught:
        parse({"name": "n", "task": "t.py:T", "data": {"train": "d"}, "steps": 3, **fields})
    assert said in str(caught.value)
    assert [mark for mark in MARKS if mark in caught.value.reason] == []
