"""Scripts of faults: read, written, built, drawn at random; and the worker's part of them."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from headway.errors import BadInput
from headway.testing import inside
from headway.testing.faults import RANDOM, TARGETS, Fault, Faults, parse, random_faults, script

SCRIPT = (
    "kill worker=1 step=30; cut node=2 step=50 for=8s; stop worker=0 step=70; add node step=90; "
    "drain node=1 step=110 deadline=5s; kill all step=130"
)


def test_the_script_of_the_page() -> None:
    assert parse(SCRIPT) == (
        Fault("kill", "worker", 30, (1,)),
        Fault("cut", "node", 50, (2,), 8.0),
        Fault("stop", "worker", 70, (0,)),
        Fault("add", "node", 90),
        Fault("drain", "node", 110, (1,), 5.0),
        Fault("kill", "all", 130),
    )
    assert script(parse(SCRIPT)) == SCRIPT


def test_the_builder_says_the_same() -> None:
    built = (
        Faults()
        .add_node(at_step=90)
        .kill(worker=1, at_step=30)
        .cut(node=2, at_step=50, for_s=8)
        .stop(worker=0, at_step=70, for_s=None)
        .drain(node=1, at_step=110)
        .kill(everyone=True, at_step=130)
    )
    assert tuple(built) == parse(SCRIPT)
    assert str(built) == SCRIPT
    more = Faults().kill(workers=[1, 2], at_step=5).kill(node=0, at_step=6).kill(driver=True, at_step=7)
    more = more.hang(worker=0, at_step=8).flip(worker=1, at_step=9).raise_error(worker=2, at_step=10)
    assert tuple(more) == parse(
        "kill workers=1,2 step=5; kill node=0 step=6; kill driver step=7; hang worker=0 step=8; "
        "flip worker=1 step=9; raise worker=2 step=10"
    )


def test_building_does_not_change_what_was_built() -> None:
    first = Faults().kill(worker=1, at_step=30)
    first.add_node(at_step=60)
    assert len(tuple(first)) == 1
    with pytest.raises(BadInput, match="no single target"):
        Faults().kill(worker=1, node=2, at_step=3)
    with pytest.raises(BadInput, match="no single target"):
        Faults().stop(at_step=3, for_s=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kil worker=1 step=3", r"'kil worker=1 step=3'.*nothing is called 'kil'.*Did you mean 'kill'"),
        ("kill worker=1", "does not say when.*kill workers=RANK,RANK step=STEP"),
        ("kill", "names no target"),
        ("kill worker step=3", "'worker' is no target of kill"),
        ("kill everybody step=3", "kill does not apply to 'everybody'.*kill all step=STEP"),
        ("cut worker=1 step=3", "cut does not apply to 'worker'.*cut node=NUMBER"),
        ("kill worker=-1 step=3", "'-1' is no whole number"),
        ("kill worker=1,2 step=3", "names 2 targets"),
        ("kill workers=2,2 step=3", "names one twice"),
        ("stop workers=1,2 step=3", "no target of stop"),
        ("kill worker=1 step=x", "'x' is no whole number"),
        ("kill worker=1 step=3 for=2s", "'for=2s' cannot stand there"),
        ("kill worker=1 step=3 step=4", "'step=4' cannot stand there"),
        ("cut node=1 step=3 for=2h", "'2h' is no duration"),
        ("add node=3 step=9", "'node=3' is no target of add"),
        ("kill all=3 step=9", "'all=3' is no target of kill"),
        ("drain node=1 step=3 for=2s", "'for=2s' cannot stand there.*deadline=5s"),
    ],
)
def test_errors_name_the_piece_and_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse(f"add node step=1; {text}")


def test_units_comments_and_lines() -> None:
    assert parse("# first\ncut node=0 step=1 for=500ms\n\nstop node=0 step=2 for=1.5m;") == (
        Fault("cut", "node", 1, (0,), 0.5),
        Fault("stop", "node", 2, (0,), 90.0),
    )
    assert parse("drain node=1 step=4")[0].span_s == 5.0
    assert parse("") == ()


@given(st.integers(0, 2**32), st.integers(10, 2000), st.integers(1, 6), st.booleans())
def test_random_faults_are_the_same_again_and_survivable(seed: int, steps: int, nodes: int, links: bool) -> None:
    faults = random_faults(seed, steps, nodes, links=links)
    assert faults == random_faults(seed, steps, nodes, links=links)
    assert parse(script(faults)) == faults
    up, total = set(range(nodes)), nodes
    for fault in faults:
        assert fault.step < steps
        assert links or fault.verb != "cut"
        assert fault.verb != "raise"
        if fault.target == "node" and fault.which:
            assert fault.which[0] in up
        if fault.target == "worker":
            assert max(fault.which) < len(up)
        if fault.verb == "add":
            up.add(total)
            total += 1
        elif fault.target == "node" and (fault.verb != "cut" or fault.span_s is None):
            up.remove(fault.which[0])
        assert up


def test_seeds_differ_and_every_kind_is_drawn() -> None:
    scripts = {script(random_faults(seed, 200, 3, links=True)) for seed in range(60)}
    assert len(scripts) > 55
    drawn = {f"{f.verb} {'workers' if len(f.which) > 1 else f.target}" for text in scripts for f in parse(text)}
    assert drawn == set(RANDOM)
    with pytest.raises(BadInput, match="of the kind 'explode'"):
        random_faults(1, 100, 2, kinds=["explode"])


def test_orders_reach_one_worker_once(tmp_path: Path) -> None:
    order = inside.Order("raise", "w1", step=4)
    inside.give(tmp_path, order)
    assert inside.poll(tmp_path, "w1", 3) == []
    assert inside.poll(tmp_path, "w11", 9) == []
    assert inside.poll(tmp_path, "w1", 4) == [order]
    assert inside.poll(tmp_path, "w1", 4) == []
    assert inside.poll(tmp_path / "nothing", "w1", 4) == []
    with pytest.raises(inside.InjectedFault, match="worker w1"):
        inside.obey(order, nn.Linear(2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_flip_turns_one_bit(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert inside.flip(model, "1.weight", bit=9) == "1.weight"
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["1.weight"]

    def bits(value: torch.Tensor) -> int:
        raw = bytes(value.view(torch.uint8).tolist())
        return int.from_bytes(raw, "little")

    assert bits(before["1.weight"]) ^ bits(after["1.weight"]) == 1 << 9
    assert inside.flip(model) == "0.weight"
    inside.flip(model, "1.weight", bit=9)
    assert torch.equal(before["1.weight"], model.state_dict()["1.weight"])


def test_a_flip_in_a_scalar() -> None:
    model = nn.Module()
    model.scale = nn.Parameter(torch.tensor(1.0))
    inside.flip(model, bit=20)
    (word,) = struct.unpack("<I", struct.pack("<f", model.scale.item()))
    assert word == 0x3F800000 ^ (1 << 20)


def test_a_hang_blocks_the_thread_that_obeys() -> None:
    thread = threading.Thread(target=inside.obey, args=(inside.Order("hang", "w0"), nn.Linear(1, 1)), daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()


def test_every_verb_can_be_written() -> None:
    for verb, targets in TARGETS.items():
        for target in targets:
            named = target if verb == "add" or target in ("all", "driver") else f"{target}=0"
            assert str(parse(f"{verb} {named} step=3")[0]).startswith(f"{verb} {named} step=3")
