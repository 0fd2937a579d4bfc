"""The `strategy` of a job: what it may say, what is refused at the door, and what of it decides a run's result."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headway import plan
from headway.errors import BadInput
from headway.job import Job, load, parse, to_yaml
from headway.strategies.options import COMPRESSION_OPTIONS, COMPRESSORS, EVERY, KINDS, OPTIONS, Compression, Strategy

TREE: dict[str, Any] = {
    "name": "n",
    "task": "/x/t.py:T",
    "data": {"train": "/d"},
    "lanes": 4,
    "workers": {"max": 2},
    "steps": 3,
}


def job(strategy: Any = None, **more: Any) -> Job:
    return parse({**TREE, **more, **({} if strategy is None else {"strategy": strategy})})


def strategy(**options: Any) -> Strategy:
    return job(options).strategy


REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "an unknown kind": ("alreduce", {}, ["unknown strategy 'alreduce'. Did you mean 'all_reduce'?"]),
    "an unknown kind in a mapping": ({"kind": "dilloco", "every": 3}, {}, ["Did you mean 'diloco'?"]),
    "no kind at all": (5, {}, ["strategy=5", "write the name of a strategy (all_reduce, ", "or a mapping with kind"]),
    "nothing": ({"kind": None}, {}, ["strategy.kind=None"]),
    "a list of kinds": ({"kind": ["gossip"]}, {}, ["strategy.kind"]),
    "an unknown option": (
        {"kind": "diloco", "evry": 3},
        {},
        ["unknown option 'evry' of diloco. Did you mean 'every'?"],
    ),
    "an option like none": ({"kind": "gossip", "zz": 3}, {}, ["unknown option 'zz' of gossip; it has replicas, every"]),
    "another kind's option": (
        {"kind": "diloco", "average": "weights"},
        {},
        ["average is no option of diloco, but of local_sgd", "it has replicas, every"],
    ),
    "an option of rounds": ({"every": 3}, {}, ["every is no option of all_reduce, but of parameter_server, local_sgd"]),
    "a round of no step": ({"kind": "diloco", "every": 0}, {}, ["strategy.every=0"]),
    "true for a number": ({"kind": "gossip", "average_every": True}, {}, ["strategy.average_every=True"]),
    "bitwise with asp": (
        {"kind": "parameter_server", "consistency": "asp"},
        {"reproducible": "bitwise"},
        ["reproducible=bitwise promises the same bits", "asp: updates are made in the order in which they come"],
    ),
    "bitwise with ssp": (
        {"kind": "parameter_server", "consistency": "ssp"},
        {"reproducible": "bitwise"},
        ["strategy has ssp"],
    ),
    "bitwise with a quorum": (
        {"kind": "diloco", "quorum": 1},
        {"reproducible": "bitwise"},
        ["a round leaves out whoever is late"],
    ),
    "a consistency that is none": ({"kind": "parameter_server", "consistency": "sp"}, {}, ["'bsp', 'ssp' or 'asp'"]),
    "staleness below 0": (
        {"kind": "parameter_server", "consistency": "ssp", "staleness": -1},
        {},
        ["strategy.staleness=-1", "greater than or equal to 0"],
    ),
    "staleness without ssp": ({"kind": "parameter_server", "staleness": 2}, {}, ["of consistency ssp, and it is bsp"]),
    "a rate by staleness without any": ({"kind": "parameter_server", "rate": "staleness"}, {}, ["of consistency ssp"]),
    "backup workers of those that go on alone": (
        {"kind": "parameter_server", "consistency": "ssp", "backup_workers": 1},
        {},
        ["strategy.backup_workers is of consistency bsp, and it is ssp"],
    ),
    "backup workers for all": (
        {"kind": "parameter_server", "backup_workers": 2},
        {},
        ["strategy.backup_workers=2 leaves nobody of strategy.replicas=2", "set it to 1 or less"],
    ),
    "backup workers below 0": ({"kind": "parameter_server", "backup_workers": -1}, {}, ["backup_workers=-1"]),
    "bitwise with backup workers": (
        {"kind": "parameter_server", "backup_workers": 1},
        {"reproducible": "bitwise"},
        ["reproducible=bitwise promises the same bits", "backup workers: a step leaves out whoever is late"],
    ),
    "a sparse path with backup workers": (
        {"kind": "parameter_server", "backup_workers": 1, "sparse": ["a.*"]},
        {},
        ["strategy.sparse with strategy.backup_workers", "Set strategy.backup_workers: 0"],
    ),
    "backup workers of sums": ({"backup_workers": 1}, {}, ["backup_workers is no option of all_reduce"]),
    "rounds of bsp": ({"kind": "parameter_server", "every": 4}, {}, ["with bsp all workers meet at every step"]),
    "an overlap and a quorum": ({"kind": "diloco", "overlap": 2, "quorum": 1}, {}, ["cannot have begun the exchange"]),
    "a mixing of nothing": ({"kind": "diloco", "mixing": 0.2}, {}, ["give it as well"]),
    "a quorum of more than all": (
        {"kind": "local_sgd", "quorum": 3},
        {},
        ["strategy.quorum=3 is more than strategy.replicas=2", "Set it to 2 or less"],
    ),
    "grace without a quorum": ({"kind": "diloco", "grace_s": 3}, {}, ["strategy.grace_s=3 is of a quorum"]),
    "more replicas than lanes": ({"kind": "diloco", "replicas": 9}, {}, ["strategy.replicas=9 is more than lanes=4"]),
    "more workers than replicas": (
        {"kind": "diloco", "replicas": 1},
        {},
        ["workers.max=2 is more than strategy.replicas=1", "Set strategy.replicas to 2 or more"],
    ),
    "a round shorter than its overlap": ({"kind": "diloco", "every": 4, "overlap": 4}, {}, ["strategy.overlap=4"]),
    "more fragments than steps": ({"kind": "diloco", "every": 4, "fragments": 5}, {}, ["strategy.fragments=5"]),
    "scaled losses of replicas": ("local_sgd", {"precision": "fp16"}, ["precision=fp16 scales the loss"]),
    "momentum that is none": ({"kind": "diloco", "outer": {"momentum": 0}}, {}, ["nesterov without momentum"]),
    "an outer option": ({"kind": "diloco", "outer": {"momentm": 0}}, {}, ["Did you mean 'momentum'?"]),
    "a graph that is none": ({"kind": "gossip", "graph": "star"}, {}, ["'ring', 'exponential' or 'complete'"]),
    "compression of gossip": ({"kind": "gossip", "compression": "int8"}, {}, ["compression is no option of gossip"]),
    "compression of a server": ({"kind": "parameter_server", "compression": "fp16"}, {}, ["no option of parameter"]),
    "an unknown compression": ({"compression": "int9"}, {}, ["unknown compression 'int9'. Did you mean 'int8'?"]),
    "a compression without a kind": ({"compression": {"ratio": 0.1}}, {}, ["strategy.compression.kind is missing"]),
    "another compression's option": (
        {"compression": {"kind": "fp16", "rank": 2}},
        {},
        ["rank is no option of compression fp16, but of power_sgd; it has none"],
    ),
    "an unknown option of a compression": (
        {"compression": {"kind": "top_k", "ration": 0.1}},
        {},
        ["unknown option 'ration' of compression top_k. Did you mean 'ratio'?"],
    ),
    "a share of nothing": ({"compression": {"kind": "top_k", "ratio": 0}}, {}, ["strategy.compression.ratio=0"]),
    "a share of more than all": ({"compression": {"kind": "top_k", "ratio": 2}}, {}, ["strategy.compression.ratio=2"]),
    "momentum of rounds": (
        {"kind": "diloco", "compression": {"kind": "top_k", "momentum": 0.9}},
        {},
        ["strategy.compression.momentum=0.9 is of gradients", "Leave it out"],
    ),
    "momentum of what is lost": (
        {"compression": {"kind": "top_k", "momentum": 0.9, "error_feedback": False}},
        {},
        ["error_feedback is false"],
    ),
    "momentum twice": (
        {"compression": {"kind": "top_k", "momentum": 0.9}},
        {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.8}},
        ["optimizer.momentum=0.8: gradients would gather speed twice"],
    ),
    "momentum of adam": (
        {"compression": {"kind": "top_k", "momentum": 0.9}},
        {"optimizer": {"name": "adamw", "lr": 0.1}},
        ["stands for SGD's momentum, and optimizer.name=adamw"],
    ),
    "momentum of 1": ({"compression": {"kind": "top_k", "momentum": 1}}, {}, ["compression.momentum=1"]),
    "a clip of nothing": ({"compression": {"kind": "top_k", "local_clip": 0}}, {}, ["compression.local_clip=0"]),
    "momentum of another": ({"compression": {"kind": "int8", "momentum": 0.5}}, {}, ["momentum is no option"]),
    "factors of rank 0": ({"compression": {"kind": "power_sgd", "rank": 0}}, {}, ["strategy.compression.rank=0"]),
    "a parameter without a name": ({"kind": "parameter_server", "sparse": ["a.*", " "]}, {}, ["no parameter"]),
    "a sparse path of those that go on alone": (
        {"kind": "parameter_server", "consistency": "asp", "sparse": ["a.*"]},
        {},
        ["strategy.sparse is of consistency bsp, and it is asp", "Set strategy.consistency: bsp"],
    ),
    "a sparse path of sums": ({"sparse": ["a.*"]}, {}, ["sparse is no option of all_reduce, but of parameter_server"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_at_the_door(case: str) -> None:
    given, more, said = REFUSED[case]
    with pytest.raises(BadInput) as caught:
        job(given, **more)
    for words in said:
        assert words in str(caught.value)


def test_each_kind_is_good_by_its_name_and_by_each_of_its_options() -> None:
    for kind in KINDS:
        assert job(kind).strategy == job({"kind": kind}).strategy == Strategy(kind=kind)
        for key in OPTIONS[kind]:
            assert key in Strategy.model_fields, f"{kind} has {key}, which is no option"
    assert job().strategy.kind == "all_reduce"
    for kind in COMPRESSORS:
        assert strategy(compression=kind).compression == Compression(kind=kind)
        assert set(COMPRESSION_OPTIONS[kind]) < set(Compression.model_fields)
    assert set(COMPRESSION_OPTIONS) == set(COMPRESSORS)
    assert strategy(kind="parameter_server", sparse="tables.*").sparse == ["tables.*"]


@pytest.mark.parametrize(
    "given",
    [
        "all_reduce",
        "gossip",
        {"kind": "diloco", "every": 5, "compression": "int8", "outer": {"lr": 0.5}},
        {"compression": {"kind": "top_k", "ratio": 0.1, "dense_below": 10}},
        {"kind": "parameter_server", "consistency": "ssp", "staleness": 0},
        {"kind": "parameter_server", "sparse": ["tables.*"], "fail_over": False},
        {"kind": "gossip", "compression": "none"},
    ],
)
def test_a_job_that_was_written_out_is_read_back_as_the_same(given: Any, tmp_path: Path) -> None:
    made = job(given)
    (tmp_path / "job.yaml").write_text(to_yaml(made))
    assert load(tmp_path / "job.yaml") == made
    assert job(made.strategy).strategy == made.strategy


def test_the_job_file_of_a_run_begun_before_is_read(tmp_path: Path) -> None:
    text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in TREE.items())
    (tmp_path / "job.yaml").write_text(f"{text}\nstrategy: all_reduce\n")
    assert load(tmp_path / "job.yaml") == job()


SET: list[tuple[str | dict[str, Any], list[str], Any]] = [
    ("all_reduce", ["strategy=diloco"], "diloco"),
    ("diloco", ["strategy.every=7"], {"kind": "diloco", "every": 7}),
    ("diloco", ["strategy={every: 7}"], {"kind": "diloco", "every": 7}),
    ("diloco", ["strategy=gossip", "strategy.graph=complete"], {"kind": "gossip", "graph": "complete"}),
    ("gossip", ["strategy.kind=diloco", "strategy.every=7"], {"kind": "diloco", "every": 7}),
    ({"kind": "diloco", "overlap": 2}, ["strategy={kind: gossip}"], "gossip"),
    ({"kind": "diloco", "overlap": 2}, ["strategy=gossip"], "gossip"),
    ({"kind": "diloco", "overlap": 2}, ["strategy.every=9"], {"kind": "diloco", "overlap": 2, "every": 9}),
    (
        {"kind": "diloco", "compression": "int8"},
        ["strategy.compression.dense_below=3"],
        {"kind": "diloco", "compression": {"kind": "int8", "dense_below": 3}},
    ),
    (
        {"kind": "diloco", "compression": {"kind": "top_k", "ratio": 0.5}},
        ["strategy.compression={kind: int8}"],
        {"kind": "diloco", "compression": "int8"},
    ),
]


@pytest.mark.parametrize(("given", "settings", "meant"), SET)
def test_it_is_set_from_the_command_line(given: Any, settings: list[str], meant: Any, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps({**TREE, "strategy": given}))
    assert load(tmp_path / "job.yaml", settings).strategy == job(meant).strategy


def test_a_name_elsewhere_has_no_parts(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps({**TREE, "arguments": {"strategy": "a"}}))
    with pytest.raises(BadInput, match="'a', which has no parts"):
        load(tmp_path / "job.yaml", ["arguments.strategy.every=3"])
    with pytest.raises(BadInput, match="every is no option of all_reduce"):
        load(tmp_path / "job.yaml", ["strategy.every=3"])


def test_the_schema_takes_names_and_mappings() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = Job.model_json_schema()

    def good(given: Any) -> bool:
        return bool(jsonschema.Draft202012Validator(schema).is_valid({**TREE, "strategy": given}))

    assert good("diloco")
    assert good({"kind": "diloco", "every": 5, "compression": "int8"})
    assert good({"kind": "all_reduce", "compression": {"kind": "top_k", "ratio": 0.1}})
    assert not good("dilloco")
    assert not good({"kind": "dilloco"})
    assert not good({"kind": "diloco", "evry": 5})
    assert not good({"kind": "diloco", "compression": "int9"})


def test_the_schema_takes_what_may_be_switched_off() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(Job.model_json_schema())
    for key, value in (("prometheus", False), ("prometheus", {"port": 3}), ("check", False), ("check", {"limit_s": 3})):
        assert check.is_valid({**TREE, key: value}), f"{key}: {value}"
        parse({**TREE, key: value})
    assert not check.is_valid({**TREE, "prometheus": {"prot": 3}})


def digest(made: Job) -> str:
    return plan.digest(made, [SimpleNamespace(digest="d" * 64)])  # type: ignore[list-item]


def test_checkpoints_of_before_fit() -> None:
    """The digests that the release before this section gave."""
    plain = "ae85bcf2b7100ea314f3bbffd92ad7e86358d8e0895ab8f8091cbc6d0cd0c4a9"
    bitwise = "cd52a7ca36af7bec0322c531d068352fa199bcd95f2742352ed8eb02fd60a92a"
    assert digest(job()) == digest(job("all_reduce")) == plain
    assert digest(job({"kind": "all_reduce", "compression": "none"})) == plain
    assert digest(job({"replicas": 4})) == plain, "nothing is a replica's own"
    assert digest(job(reproducible="bitwise")) == bitwise


def test_what_decides_the_updates_is_in_the_digest() -> None:
    def decides(given: Any, **more: Any) -> Any:
        made = job(given, **more)
        return made.strategy.deciding(made)

    assert decides("all_reduce") == "all_reduce"
    assert decides("parameter_server") == "parameter_server"
    assert decides("gossip") == {"kind": "gossip", "every": EVERY["gossip"], "replicas": 2}
    outer = {"lr": 0.7, "momentum": 0.9, "nesterov": True}
    assert decides("diloco") == {"kind": "diloco", "every": 50, "replicas": 2, "outer": outer}
    assert decides({"kind": "diloco", "every": 50}) == decides("diloco"), "what is said as it is by default"
    assert decides({"kind": "diloco", "replicas": 2}, workers={"max": 1}) == decides("diloco"), "not the cluster"
    assert decides({"kind": "diloco", "quorum": 1, "grace_s": 9, "inner_state": "own"}) == {
        **decides("diloco"),
        "quorum": 1,
    }
    assert decides({"kind": "parameter_server", "fail_over": False}) == "parameter_server"
    assert decides({"kind": "parameter_server", "consistency": "ssp"})["staleness"] == 4
    backed = decides({"kind": "parameter_server", "backup_workers": 1})
    assert backed == {"kind": "parameter_server", "backup_workers": 1, "every": 50, "replicas": 2}
    assert decides({"compression": "top_k"}) == {
        "kind": "all_reduce",
        "replicas": 2,
        "compression": {
            "kind": "top_k",
            "ratio": 0.01,
            "start_step": 0,
            "error_feedback": True,
            "dense_below": 1024,
        },
    }
    others = [
        {"kind": "diloco", "every": 49},
        {"kind": "diloco", "replicas": 3},
        {"kind": "diloco", "outer": {"lr": 0.6}},
        {"kind": "diloco", "fragments": 2},
        {"kind": "diloco", "compression": "int8"},
        {"kind": "local_sgd", "every": 50},
        "gossip",
        "parameter_server",
    ]
    assert len({digest(job(each)) for each in ["diloco", *others]}) == len(others) + 1


def test_options_that_came_later_change_no_digest_as_they_are_by_default() -> None:
    plain = digest(job({"compression": "top_k"}))
    assert digest(job({"compression": {"kind": "top_k", "momentum": 0.0, "warm_up": 0}})) == plain
    for more in ({"momentum": 0.9}, {"warm_up": 10}, {"local_clip": 1.0}):
        assert digest(job({"compression": {"kind": "top_k", **more}})) != plain


def test_a_run_keeps_its_number_of_replicas() -> None:
    made = job("diloco")
    kept = made.strategy.pinned(made)
    assert kept.replicas == 2
    assert job(kept, workers={"max": 1}).units == 2
    assert job().strategy.pinned(job()) == job().strategy


def test_what_is_not_repeatable_is_known() -> None:
    assert not strategy(kind="diloco").why_not_repeatable()
    whole = job({"kind": "diloco", "quorum": 2}, reproducible="bitwise")
    assert not whole.strategy.why_not_repeatable(whole), "a quorum of all leaves nobody out"
    for options in ({"consistency": "asp"}, {"consistency": "ssp"}, {"backup_workers": 1}):
        assert strategy(kind="parameter_server", **options).why_not_repeatable()


def test_a_space_of_a_sweep_may_have_its_options() -> None:
    from headway.sweeps.settings import settle

    assert settle({"strategy.every": 9}, {**TREE, "strategy": "diloco"}).strategy.every == 9
