"""Checkpoints are there whole or not at all, verified when they are needed, and kept by a policy."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway.checkpoint import flat, writing
from headway.checkpoint import store as stores
from headway.checkpoint.copies import Copies
from headway.checkpoint.finite import flaw
from headway.checkpoint.found import Checkpoint
from headway.checkpoint.store import Store
from headway.errors import BadCheckpoint, BadInput
from headway.job import Checkpoint as Policy
from headway.runs import epochs
from headway.storage.folder import FolderStorage

JOB = "a" * 64
GOLDEN = Path(__file__).parents[1] / "golden"


def store(root: Path, job: str = JOB, epoch: int = 0, **policy: Any) -> Store:
    return Store(root, job, Policy(**{"keep_last": 9, **policy}), epoch)


def state(step: int, size: int = 100) -> dict[str, Any]:
    return {"model": {"w": torch.full((size,), float(step))}, "session": {"step": step, "names": ["a", "b"]}}


def saved(to: Store, *steps: int, metrics: dict[int, float] | None = None) -> None:
    for step in steps:
        values = {"loss": metrics[step]} if metrics and step in metrics else {}
        to.write(step, state(step), {"run": "r", "metrics": values})


def steps(of: Store) -> list[int]:
    return [c.step for c in of.committed()]


def folder_of(root: Path, step: int) -> Path:
    """Where a step's checkpoint is, which must be one."""
    (path,) = root.glob(f"step-{step:08d}/e*")
    return path


def chunk_of(root: Path, step: int) -> Path:
    return next(folder_of(root, step).glob("00000-*"))


def names_in(root: Path) -> list[str]:
    return [entry.name for entry in FolderStorage(root).list()]


def newest(of: Store) -> tuple[int | None, list[str]]:
    found, passed_over = of.newest()
    return found.step if found else None, passed_over


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    there = store(tmp_path / "c")
    assert there.newest() == (None, [])
    saved(there, 5, 10)
    found, passed_over = there.newest()
    assert found is not None
    assert (found.step, found.facts["run"], passed_over) == (10, "r", [])
    assert found.load()["session"] == {"step": 10, "names": ["a", "b"]}
    assert torch.equal(found.load()["model"]["w"], torch.full((100,), 10.0))
    assert Path(found.where) == folder_of(tmp_path / "c", 10)
    objects = [p for p in Path(found.where).iterdir() if p.name != "manifest.json" and not p.name.startswith(".")]
    assert found.bytes == sum(p.stat().st_size for p in objects)
    assert {p.name for p in objects} == found.parts.keys()
    assert [p.name for p in (tmp_path / "c").iterdir() if p.name.startswith(".")] == []


def test_training_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    """Model, AdamW, schedule and scaler, loaded as plain data, go on as if nothing had happened."""

    def made() -> tuple[Any, ...]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).bfloat16()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return model, optimizer, schedule, torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    def train(kit: tuple[Any, ...], steps: range) -> None:
        model, optimizer, schedule, scaler = kit
        for step in steps:
            optimizer.zero_grad()
            x = torch.arange(32.0).reshape(8, 4).add(step).sin().bfloat16()
            scaler.scale(model(x).float().square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()

    def trees(kit: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(("model", "optimizer", "schedule", "scaler"), (part.state_dict() for part in kit), strict=True))

    first, second = made(), made()
    train(first, range(3))
    there = store(tmp_path)
    there.write(3, trees(first), {"metrics": {}})
    train(first, range(3, 6))
    found, _ = there.newest()
    assert found is not None
    parts = found.load()
    assert parts["model"]._metadata == first[0].state_dict()._metadata, "versions of modules travel too"
    for part, name in zip(second, ("model", "optimizer", "schedule", "scaler"), strict=True):
        part.load_state_dict(parts[name])
    train(second, range(3, 6))
    for (name, a), b in zip(first[0].state_dict().items(), second[0].state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert first[2].get_last_lr() == second[2].get_last_lr()
    assert first[3].state_dict() == second[3].state_dict()


def test_kinds_of_values(tmp_path: Path) -> None:
    values = {
        "numpy": np.float64(0.5), "size": torch.Size([2, 3]), "dtype": torch.int8, "none": None, "tuple": (1, 2.0),
        "ordered": OrderedDict(a=1), "scalar": torch.tensor(3), "bf16": torch.ones(2, dtype=torch.bfloat16),
    }  # fmt: skip
    values["counts"], values["bytes"] = Counter("aab"), bytearray(b"ab")
    there = store(tmp_path)
    there.write(1, Copies().take({"session": values}), {"metrics": {}})
    found, _ = there.newest()
    assert found is not None
    back = found.load()["session"]
    assert back["numpy"] == 0.5
    for name in ("size", "dtype", "none", "tuple", "ordered", "scalar", "counts", "bytes"):
        assert back[name] == values[name]
    assert back["bf16"].dtype == torch.bfloat16


@pytest.mark.parametrize("value", [np.ones(3), object(), print, Path()])
def test_what_could_not_be_loaded_again_is_refused_when_it_is_saved(value: Any) -> None:
    with pytest.raises(BadInput, match=r"session\.state\.mine holds a"):
        Copies().take({"session": {"state": {"mine": value}}})


# -- faults while it is written --------------------------------------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "fault", ["os.write", "os.fsync", "os.open", "os.link", "pathlib.Path.replace", "pathlib.Path.mkdir"]
)
@pytest.mark.parametrize("again", [False, True])
def test_a_full_disk_leaves_what_was_there_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, again: bool
) -> None:
    """At the first and at every later call of what fails."""
    import importlib

    there = store(tmp_path)
    saved(there, 5, 10)
    module, _, name = fault.rpartition(".")
    owner = Path if module == "pathlib.Path" else importlib.import_module(module)
    real, failures = getattr(owner, name), 0
    for allowed in range(60):
        left = [allowed]

        def sometimes(*args: Any, left: list[int] = left, **kwargs: Any) -> Any:
            nonlocal failures
            if left[0] == 0:
                failures += 1
                full_disk()
            left[0] -= 1
            return real(*args, **kwargs)

        error = None
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, sometimes)
            try:
                saved(there, 10 if again else 15)
            except OSError as raised:
                error = raised
        if error is None:
            break
        assert "No space left" in str(error)
        assert set(steps(there)) >= {5, 10}, "the one before is still there"
        found, passed_over = newest(there)
        assert found in (10, 15)
        assert passed_over == []
    assert failures >= 1
    saved(there, 10 if again else 15)
    assert len({name.rpartition("/")[0] for name in names_in(tmp_path)}) == len(stores.names(tmp_path)), "none is left"
    assert newest(there) == (10 if again else 15, [])


WRITERS = """
import os, sys, torch
from pathlib import Path
from headway.checkpoint.store import Store
from headway.job import Checkpoint

torch.set_num_threads(1)
for line in sys.stdin:
    if child := os.fork():  # one process imports torch, so that 25 trials take seconds
        os.waitpid(child, 0)
        print("ended", flush=True)
        continue
    store = Store(Path(sys.argv[1]), "a" * 64, Checkpoint(keep_last=2), int(line))
    store.clean()
    found, _ = store.newest()
    step = found.step if found else 0
    print(os.getpid(), flush=True)
    while True:
        step += 1
        w = torch.full((100_000,), float(step))
        for _ in range(1 + step % 2):  # every second one is written twice
            store.write(step, {"model": {"w": w}}, {"run": "r", "metrics": {}})
"""


def test_a_killed_writer_never_leaves_half_a_checkpoint(tmp_path: Path) -> None:
    """SIGKILL at 25 random moments; they are printed, so that they can be repeated."""
    moments = random.Random(int(os.environ.get("HEADWAY_SEED", "7")))
    last = 0
    command = [sys.executable, "-c", WRITERS, str(tmp_path / "c")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for trial in range(25):
            delay = moments.uniform(0.0, 0.25)
            print(f"trial {trial}: killed {delay * 1000:.1f} ms after it began to write", flush=True)
            writers.stdin.write(f"{trial}\n")
            child = int(writers.stdout.readline())
            time.sleep(delay)  # the moment is the test's input, not a wait for something
            os.kill(child, signal.SIGKILL)
            assert writers.stdout.readline() == "ended\n"
            there = store(tmp_path / "c", epoch=trial + 1, keep_last=2)
            there.clean()
            found, passed_over = there.newest()
            assert passed_over == []
            step = found.step if found else 0
            assert step >= last, "a committed checkpoint does not vanish"
            assert found is None or found.load()["model"]["w"].eq(float(step)).all()
            last = step
        writers.stdin.close()
    assert len({name.rpartition("/")[0] for name in names_in(tmp_path / "c")}) == len(stores.names(tmp_path / "c"))
    assert last > 5


# -- damage ----------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink])
@pytest.mark.parametrize("part", ["00000-*", "00001-*", "skeleton.json", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, part: str, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "CHUNK_BYTES", 256)
    there = store(tmp_path)
    saved(there, 5, 10)
    (path,) = folder_of(tmp_path, 10).glob(part)
    damage(path)
    found, said = newest(there)
    assert found == 5
    restored, parts, also = there.restore()
    assert restored is not None
    assert restored.step == 5
    assert parts["model"]["w"].eq(5.0).all()
    if part == "manifest.json" and damage is Path.unlink:  # it was never committed, then
        assert said == also == []
    else:
        assert len(said) == len(also) == 1
        assert "step-00000010" in said[0]
        assert "step-00000010" in also[0]


def test_no_bit_of_a_manifest_can_be_turned_unseen(tmp_path: Path) -> None:
    there = store(tmp_path)
    saved(there, 5)
    path = folder_of(tmp_path, 5) / "manifest.json"
    (name,) = stores.names(tmp_path)
    sound = path.read_bytes()
    meant = json.loads(sound)
    moments = random.Random(3)
    for _ in range(300):
        data = bytearray(sound)
        data[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
        path.write_bytes(data)
        try:
            assert stores.read(tmp_path, name).facts == meant["checkpoint"]["facts"]
            assert json.loads(data) == meant, "only white space was hit"
        except BadCheckpoint:
            continue


def test_all_damaged_is_none_and_each_is_named(tmp_path: Path) -> None:
    there = store(tmp_path)
    saved(there, 5, 10)
    for step in (5, 10):
        flip(chunk_of(tmp_path, step))
    found, passed_over = newest(there)
    assert found is None
    assert len(passed_over) == 2


def test_a_manifest_of_another_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = store(tmp_path)
    saved(there, 5)
    monkeypatch.setattr(writing, "FORMAT", "headway-checkpoint/9")
    saved(there, 10)
    monkeypatch.undo()
    found, (said,) = newest(there)
    assert found == 5
    assert "headway-checkpoint/9" in said


def test_a_sound_checkpoint_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "checkpoint-2", tmp_path, dirs_exist_ok=True)
    (there,) = store(tmp_path).committed()
    torch.save(full_disk, tmp_path / "step-00000010" / "model.pt")
    data = (tmp_path / "step-00000010" / "model.pt").read_bytes()
    there.parts["model.pt"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(BadCheckpoint, match="cannot be loaded"):
        there.load()


@pytest.mark.parametrize("skeleton", [b"[]", b'{"dict":[["a",{"load":"x"}]]}', b"\x80\x04"])
def test_a_skeleton_that_is_none_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeleton: bytes) -> None:
    there = store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(flat, "layout", lambda parts, real=flat.layout: flat.Layout(skeleton, real(parts).spans))
        saved(there, 5)
    (committed,) = there.committed()
    committed.verify()
    with pytest.raises(BadCheckpoint, match="cannot be loaded"):
        committed.load()


def test_another_jobs_checkpoint_is_refused(tmp_path: Path) -> None:
    saved(store(tmp_path), 5)
    with pytest.raises(BadCheckpoint, match="belongs to another job") as caught:
        store(tmp_path, job="b" * 64).newest()
    assert caught.value.exit_code == 2
    assert caught.value.remedy


# -- what stays ------------------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    there = store(tmp_path, keep_last=2, keep_best=1, metric="loss", mode="min")
    saved(there, 1, 2, 3, 4, 5, metrics={1: 0.5, 2: 0.1, 3: 0.3, 5: 0.2})
    assert steps(there) == [2, 4, 5]


def test_one_is_always_left(tmp_path: Path) -> None:
    there = store(tmp_path, keep_last=1)
    saved(there, 1, 2, 3)
    assert steps(there) == [3]


def test_a_damaged_newer_one_does_not_push_out_the_one_just_written(tmp_path: Path) -> None:
    """The run goes on from 5 since 10 is damaged; with keep_last=1, 7 must stay although 10 is 'newer'."""
    there = store(tmp_path, keep_last=1)
    saved(store(tmp_path), 5, 10)
    flip(chunk_of(tmp_path, 10))
    assert newest(there)[0] == 5
    saved(there, 7)
    assert newest(there)[0] == 7
    saved(there, 10)
    assert newest(there) == (10, [])


def test_what_is_not_allowed_is_not_committed(tmp_path: Path) -> None:
    """Asked after the chunks are written: the run may go on elsewhere meanwhile."""
    asked: list[list[str]] = []

    def allowed() -> bool:
        asked.append(sorted(p.name[:5] for p in tmp_path.glob("step-00000005/e*/[!.]*")))
        return False

    assert store(tmp_path).write(5, state(5), {"metrics": {}}, allowed=allowed) is None
    assert asked == [["00000", "skele"]]
    assert steps(store(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_says_where_it_is(tmp_path: Path) -> None:
    saved(store(tmp_path), 5)
    (name,) = stores.names(tmp_path)
    found = stores.read(tmp_path, name)
    assert isinstance(found, Checkpoint)
    assert found.where == str(tmp_path / name)
    assert found.job == JOB
    with pytest.raises(BadCheckpoint, match="is no checkpoint"):
        stores.read(tmp_path, "step-00000005/e000000-other")


# -- 2.16: no state that nothing could be trained from ---------------------------------------------------------------


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ({"model": {"w": torch.tensor([1.0, NAN])}}, "NaN in w"),
        ({"model": {"w": torch.tensor([1.0, -INF])}}, "an infinity in w"),
        ({"model": {"frozen": torch.tensor([NAN])}}, "NaN in frozen"),
        ({"model": {"frozen": torch.tensor([INF])}}, None),
        ({"model": {"mask": torch.tensor([-INF, NAN])}}, None),
        ({"model": {}, "optimizer": {"state": {0: {"exp_avg": torch.tensor([NAN])}}}}, "NaN in the optimiser's state"),
        ({"model": {}, "optimizer": {"state": {0: {"step": 3, "m": torch.tensor([INF])}}}}, None),
        ({"model": {"w": torch.ones(9, dtype=torch.int64)}, "optimizer": {}}, None),
        ({"model": {"w": torch.ones(9).to(torch.float8_e4m3fn)}}, None),
        ({"model": {"w": torch.tensor([NAN]).to(torch.float8_e4m3fn)}}, "NaN in w"),
        ({"model": {"w": torch.cat([torch.ones(5 << 20), torch.tensor([NAN])]).bfloat16()}}, "NaN in w"),
    ],
)
def test_2_16_what_makes_a_state_worthless(parts: dict[str, Any], found: str | None) -> None:
    assert flaw(parts, {"w": True, "frozen": False}) == found


# -- 2.18, 2.20: who writes, and for whom ----------------------------------------------------------------------------


def test_2_18_a_new_leader_leaves_what_the_one_before_is_finishing(tmp_path: Path) -> None:
    there = store(tmp_path / "c", epoch=1)

    def clean() -> bool:
        store(tmp_path / "c", epoch=1).clean()
        return True

    assert there.write(5, state(5), {"metrics": {}}, allowed=clean) is not None
    assert newest(there) == (5, [])


def test_2_18_what_nobody_will_finish_is_removed(tmp_path: Path) -> None:
    def begun(name: str, age_s: float = 0.0) -> Path:
        path = tmp_path / "step-00000005" / name
        path.mkdir(parents=True)
        (path / "00000-ab").touch()
        for each in (path / "00000-ab", path):
            os.utime(each, (time.time() - age_s,) * 2)
        return path

    living = begun("e000002-0123ab")
    begun("e000002-4567cd", stores.LEAVING_S + 5)
    begun("e000001-0123ab")
    own = begun("mine")
    store(tmp_path, epoch=2).clean()
    assert sorted((tmp_path / "step-00000005").iterdir()) == [living, own]


def test_2_20_no_checkpoint_is_committed_once_another_process_leads(tmp_path: Path) -> None:
    first = epochs.claim(tmp_path)
    there = Store(tmp_path / "checkpoints", JOB, Policy(), first)
    saved(there, 5)
    epochs.claim(tmp_path)
    with pytest.raises(epochs.Superseded, match="another process leads run"):
        saved(there, 10)
    assert steps(there) == [5]
    assert there.committed()[0].epoch == first
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
