"""Scripts of faults: read, written, built, drawn at random; and the worker's part of them."""

from __future__ import annotations

import os
import struct
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from headway.errors import BadInput
from headway.testing import disk, inside, links
from headway.testing.faults import BENIGN, RANDOM, VERBS, Fault, Faults, parse, random_faults, script
from headway.testing.faults.verbs import WAYS
from headway.testing.health import Patience, harmless

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


NEW = (
    "compile worker=1 for=200s; restore worker=0 for=200s; blip head step=10 for=3s; part workers=0,1 step=11 for=8s; "
    "part workers=0,2 step=12; loss node=1 step=13 percent=20 for=10s; delay node=1 step=14 by=0.2s for=10s; "
    "reorder node=1 step=15 by=0.05s percent=25 for=10s; oneway node=1 to=head step=16 for=4s; "
    "oneway node=1 from=all step=17; cut nodes=0,1,2 step=18 for=3s; freeze driver step=19 for=5s; "
    "freeze head step=20 for=5s; rate node=1 step=21 kbit=1000 for=8s; lock worker=1 step=22 for=8s; "
    "slow-store step=23 for=60s; full-disk step=24 for=10s; compile worker=1 step=25 for=2s"
)


def test_the_script_of_bad_links_and_slow_things() -> None:
    read = parse(NEW)
    assert script(read) == NEW
    assert read[:6] == (
        Fault("compile", "worker", -1, (1,), 200.0),
        Fault("restore", "worker", -1, (0,), 200.0),
        Fault("blip", "head", 10, (), 3.0),
        Fault("part", "worker", 11, (0, 1), 8.0),
        Fault("part", "worker", 12, (0, 2)),
        Fault("loss", "node", 13, (1,), 10.0, percent=20.0),
    )
    assert read[10] == Fault("cut", "node", 18, (0, 1, 2), 3.0)
    assert parse("delay node=1 by=200ms for=10s step=14") == (read[6],)
    assert parse("reorder node=1 step=15 by=50ms for=10s") == (read[7],)  # a quarter of the packets
    assert parse("oneway node=1 step=16 for=4s to=head") == (read[8],)
    built = (
        Faults()
        .blip(at_step=10, for_s=3)
        .part(at_step=11, workers=[0, 1], for_s=8)
        .loss(at_step=13, node=1, percent=20, for_s=10)
        .delay(at_step=14, node=1, by_s=0.2, for_s=10)
        .oneway(at_step=16, node=1, lost="to=head", for_s=4)
        .cut(at_step=18, nodes=[0, 1, 2], for_s=3)
        .freeze(at_step=19, for_s=5)
        .freeze(at_step=20, for_s=5, head=True)
        .lock(at_step=22, worker=1, for_s=8)
        .slow_store(at_step=23, for_s=60)
        .full_disk(at_step=24, for_s=10)
    )
    assert tuple(built) == (*read[2:4], *read[5:7], read[8], *read[10:13], *read[14:17])
    assert parse(str(built)) == tuple(built)


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
        ("part workers=1 step=3", "names one, and nobody to part it from.*part workers=RANK,RANK step=STEP"),
        ("part worker=1 step=3", "names one, and nobody to part it from"),
        ("part workers=1,1 step=3", "names one twice"),
        ("part nodes=0,1 step=3", "part does not apply to 'nodes'"),
        ("part step=3", "part does not apply to 'step'"),
        ("blip node=1 step=3 for=2s", "blip does not apply to 'node'.*blip head step=STEP for=8s"),
        ("blip head=1 step=3 for=2s", "'head=1' is no target of blip"),
        ("blip head step=3", "does not say how long.*blip head step=STEP for=8s"),
        ("blips head step=3 for=2s", "nothing is called 'blips'.*Did you mean 'blip'"),
        ("lost node=1 step=3", "nothing is called 'lost'.*Did you mean 'loss'"),
        ("freeze worker=1 step=3 for=2s", "freeze does not apply to 'worker'.*freeze driver"),
        ("loss node=1 step=3 for=2s", "does not say how many.*percent=20"),
        ("loss node=1 step=3 percent=0", "'0' is not above 0 and at most 100"),
        ("loss node=1 step=3 percent=101", "'101' is not above 0 and at most 100"),
        ("loss node=1 step=3 percent=-5", "'-5' is not above 0"),
        ("delay node=1 step=3 for=2s", "does not say by how much"),
        ("delay node=1 step=3 by=3s for=2s", "ends before the first packet that is held back gets through"),
        ("oneway node=1 step=3", "does not say which way"),
        ("oneway node=1 step=3 to=mars", "'to=mars' is no way.*to=head, from=head"),
        ("oneway node=1 to=head from=head step=3", "'from=head' cannot stand there"),
        ("cut nodes=0,0 step=3", "names one twice"),
        ("cut node=0,1 step=3", "names 2 targets"),
        ("cut node=0 step=3 for=0s", "'0s' is no time in which anything could happen"),
        ("rate node=1 step=3 kbit=0", "'0' is not above 0"),
        ("lock worker=1 step=3", "does not say how long"),
        ("slow-store worker=1 step=3 for=2s", "'worker=1' cannot stand there.*slow-store step=STEP for=8s"),
        ("slow-store for=2s", "does not say when"),
        ("full-disk step=3", "does not say how long"),
        ("kill worker=1 step=3 percent=5", "'percent=5' cannot stand there"),
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


@given(st.integers(0, 2**32), st.integers(10, 2000), st.integers(1, 6), st.sets(st.sampled_from(sorted(VERBS))))
def test_random_faults_are_the_same_again_and_survivable(seed: int, steps: int, nodes: int, without: set[str]) -> None:
    faults = random_faults(seed, steps, nodes, without=without)
    assert faults == random_faults(seed, steps, nodes, without=without)
    assert parse(script(faults)) == faults
    up, total = set(range(nodes)), nodes
    for fault in faults:
        assert fault.step < steps
        assert fault.verb not in without
        assert fault.verb not in ("raise", "hang", "flip")
        if fault.target == "node":
            assert set(fault.which) <= up
        if fault.target == "worker":
            assert max(fault.which) < len(up)
        if fault.verb == "add":
            up.add(total)
            total += 1
        elif fault.target == "node" and (fault.verb in ("kill", "drain") or fault.span_s is None):
            up.remove(fault.which[0])
        assert up


def test_seeds_differ_and_every_kind_is_drawn() -> None:
    scripts = {script(random_faults(seed, 200, 3)) for seed in range(120)}
    assert len(scripts) > 110
    drawn = {f"{f.verb} {f.target}{'s' * (len(f.which) > 1)}".strip() for text in scripts for f in parse(text)}
    assert drawn == set(RANDOM)
    with pytest.raises(BadInput, match="of the kind 'explode'"):
        random_faults(1, 100, 2, kinds=["explode"])


def test_benign_faults_are_harmless_within_the_shortest_patience_of_a_drill() -> None:
    patience = Patience(silence_s=2.0, hang_s=10.0)
    for seed in range(100):
        for fault in random_faults(seed, 200, 3, kinds=BENIGN):
            assert harmless(fault, patience, up=3), fault


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


def test_the_interpreters_lock_is_held() -> None:
    seen: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.append(time.monotonic())
            time.sleep(0.005)

    thread = threading.Thread(target=look)
    thread.start()
    while len(seen) < 3:
        time.sleep(0.005)
    began = time.monotonic()
    inside.obey(inside.Order("lock", "w0", span_s=0.5), nn.Linear(1, 1))
    assert time.monotonic() - began >= 0.5
    looks = len(seen)
    while len(seen) < looks + 2:
        time.sleep(0.005)
    ended.set()
    thread.join()
    assert any(after - before >= 0.5 for before, after in pairwise(seen)), "it could not look for so long"


def test_who_begins_takes_what_was_left_for_its_rank(tmp_path: Path) -> None:
    order = inside.Order("compile", inside.ANY, span_s=0.3, rank=1)
    path = inside.give(tmp_path, order)
    inside.give(tmp_path, order)
    (tmp_path / "members.json").write_text('{"workers": [{"id": "w0", "rank": 0}, {"id": "w1", "rank": 1}]}')
    assert inside.poll(tmp_path, "w0", 0) == []  # of another rank
    assert inside.poll(tmp_path, "w1", 0, "exchange") == []
    assert not inside.taken(path)
    began = time.monotonic()
    inside.cause(tmp_path, "w1", "compute", nn.Linear(1, 1), 0)
    assert time.monotonic() - began >= 0.3
    assert inside.taken(path)
    assert inside.poll(tmp_path, "w1", 1) == []  # the second is for the next that begins
    (tmp_path / "members.json").write_text('{"workers": [{"id": "w2", "rank": 1}]}')
    assert inside.poll(tmp_path, "w2", 7) == [order]


def test_writes_of_the_run_are_slow_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own, and a disk that takes no time."""
    now, synchronised = [100.0], []
    monkeypatch.setattr(os, "fsync", synchronised.append)
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(inside, "time", clock)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    inside.obey(inside.Order("slow-store", "w0", span_s=0.4), nn.Linear(1, 1), run)

    def seconds(path: Path) -> float:
        began = now[0]
        with path.open("w") as file:
            file.write("x")
            os.fsync(file)
            os.fsync(file.fileno())
        return now[0] - began

    assert seconds(tmp_path / "elsewhere") == 0.0
    assert seconds(run / "checkpoints" / "state") == pytest.approx(0.4)
    assert seconds(run / "checkpoints" / "state") == 0.0
    assert len(synchronised) >= 6


def test_2_5_a_disk_of_the_drills_own_is_full_for_a_while(tmp_path: Path) -> None:
    reason = links.possible("full-disk")
    if reason is not None:
        pytest.skip(reason)
    assert disk.disk_of(tmp_path / "run") is None
    with disk.Disk(tmp_path / "runs", size_mb=4) as small:
        run = small.folder / "run" / "deep"
        run.mkdir(parents=True)
        (run / "before").write_text("kept")
        assert disk.disk_of(run) == small.folder
        disk.fill(small.folder)
        with pytest.raises(OSError, match="No space left"):
            (run / "state").write_text("x" * 10_000)
        disk.free(small.folder)
        (run / "state").write_text("x" * 10_000)
        assert (run / "before").read_text() == "kept"
    assert not list((tmp_path / "runs").iterdir())
    assert not (tmp_path / "runs").is_mount()


def test_every_verb_can_be_written() -> None:
    needed = {"for": "for=2s", "by": "by=0.1s", "percent": "percent=5", "kbit": "kbit=9", "way": WAYS[0]}
    for name, verb in VERBS.items():
        for target in verb.targets:
            bare = name == "add" or target not in ("worker", "workers", "node", "nodes")
            named = target if bare else f"{target}={'0,1' if target.endswith('s') else '0'}"
            text = " ".join([name, named, "step=3", *(needed[option] for option in verb.needs)])
            (fault,) = parse(text)
            assert parse(str(fault)) == (fault,)
            assert str(fault).split()[: 2 if target else 1] == text.split()[: 2 if target else 1]
