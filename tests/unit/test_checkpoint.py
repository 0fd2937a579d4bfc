"""Checkpoints are there whole or not at all, verified when they are needed, and kept by a policy."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway import epochs
from headway.checkpoint import folder
from headway.checkpoint.copies import Copies
from headway.checkpoint.finite import flaw
from headway.checkpoint.folder import Checkpoint
from headway.checkpoint.store import Store
from headway.errors import BadCheckpoint, BadInput
from headway.job import Checkpoint as Policy

JOB = "a" * 64


def store(root: Path, job: str = JOB, **policy: Any) -> Store:
    return Store(root, job, Policy(**{"keep_last": 9, **policy}))


def state(step: int, size: int = 100) -> dict[str, Any]:
    return {"model": {"w": torch.full((size,), float(step))}, "session": {"step": step, "names": ["a", "b"]}}


def saved(to: Store, *steps: int, metrics: dict[int, float] | None = None) -> None:
    for step in steps:
        values = {"loss": metrics[step]} if metrics and step in metrics else {}
        to.write(step, state(step), {"run": "r", "metrics": values})


def steps(of: Store) -> list[int]:
    return [c.step for c in of.committed()]


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
    assert found.bytes == sum(p.stat().st_size for p in found.folder.glob("*.pt"))
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
    there = store(tmp_path)
    there.write(1, Copies().take({"session": values}), {"metrics": {}})
    found, _ = there.newest()
    assert found is not None
    back = found.load()["session"]
    assert back["numpy"] == 0.5
    for name in ("size", "dtype", "none", "tuple", "ordered", "scalar"):
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
    "fault", ["torch.save", "os.fsync", "pathlib.Path.rename", "pathlib.Path.open", "pathlib.Path.mkdir"]
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
    for allowed in range(20):
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
        assert error.errno == errno.ENOSPC
        there.clean()  # as every run begins; puts back what could not be renamed
        assert steps(there) in ([5, 10], [5, 10, 15]), "the one before is still there"
        found, passed_over = newest(there)
        assert found in (10, 15)
        assert passed_over == []
        assert list(tmp_path.glob(".writing-*")) == []
    assert failures >= 1
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
    store = Store(Path(sys.argv[1]), "a" * 64, Checkpoint(keep_last=2))
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
    there, last = store(tmp_path / "c", keep_last=2), 0
    command = [sys.executable, "-c", WRITERS, str(tmp_path / "c")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for trial in range(25):
            delay = moments.uniform(0.0, 0.06)
            print(f"trial {trial}: killed {delay * 1000:.1f} ms after it began to write", flush=True)
            writers.stdin.write("go\n")
            child = int(writers.stdout.readline())
            time.sleep(delay)  # the moment is the test's input, not a wait for something
            os.kill(child, signal.SIGKILL)
            assert writers.stdout.readline() == "ended\n"
            there.clean()
            found, passed_over = there.newest()
            assert passed_over == []
            step = found.step if found else 0
            assert step >= last, "a committed checkpoint does not vanish"
            assert found is None or found.load()["model"]["w"].eq(float(step)).all()
            last = step
        writers.stdin.close()
    assert [p.name for p in (tmp_path / "c").iterdir() if p.name.startswith(".")] == []
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
@pytest.mark.parametrize("part", ["model.pt", "session.pt", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, part: str, damage: Callable[[Path], None]
) -> None:
    there = store(tmp_path)
    saved(there, 5, 10)
    damage(tmp_path / "step-00000010" / part)
    found, (said,) = newest(there)
    assert found == 5
    assert "step-00000010" in said


def test_no_bit_of_a_manifest_can_be_turned_unseen(tmp_path: Path) -> None:
    there = store(tmp_path)
    saved(there, 5)
    path = tmp_path / "step-00000005/manifest.json"
    sound = path.read_bytes()
    meant = json.loads(sound)
    moments = random.Random(3)
    for _ in range(300):
        data = bytearray(sound)
        data[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
        path.write_bytes(data)
        try:
            assert folder.read(path.parent).parts == meant["checkpoint"]["parts"]
            assert json.loads(data) == meant, "only white space was hit"
        except BadCheckpoint:
            continue


def test_all_damaged_is_none_and_each_is_named(tmp_path: Path) -> None:
    there = store(tmp_path)
    saved(there, 5, 10)
    for path in tmp_path.glob("step-*/model.pt"):
        flip(path)
    found, passed_over = newest(there)
    assert found is None
    assert len(passed_over) == 2


def test_a_manifest_of_another_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = store(tmp_path)
    saved(there, 5)
    monkeypatch.setattr(folder, "FORMAT", "headway-checkpoint/9")
    saved(there, 10)
    monkeypatch.undo()
    found, (said,) = newest(there)
    assert found == 5
    assert "headway-checkpoint/9" in said


def test_a_sound_checkpoint_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    there = store(tmp_path)
    saved(there, 5)
    found, _ = there.newest()
    assert found is not None
    torch.save(full_disk, found.folder / "model.pt")
    with pytest.raises(BadCheckpoint, match="cannot be loaded"):
        found.load()


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
    flip(tmp_path / "step-00000010/model.pt")
    assert newest(there)[0] == 5
    saved(there, 7)
    assert newest(there)[0] == 7
    saved(there, 10)
    assert newest(there) == (10, [])


def test_what_is_not_allowed_is_not_committed(tmp_path: Path) -> None:
    """Asked after the parts are written: the run may go on elsewhere meanwhile."""
    asked: list[list[str]] = []

    def allowed() -> bool:
        asked.append([p.name for p in tmp_path.glob(".writing-*/*")])
        return False

    assert store(tmp_path).write(5, state(5), {"metrics": {}}, allowed=allowed) is None
    assert len(asked) == 1
    assert "model.pt" in asked[0]
    assert "manifest.json" in asked[0]
    assert steps(store(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_cleaning_puts_back_what_an_interrupted_replacement_moved_aside(tmp_path: Path) -> None:
    there = store(tmp_path)
    saved(there, 5, 10)
    (tmp_path / "step-00000010").rename(tmp_path / ".replaced-step-00000010")
    (tmp_path / ".writing-00000010-ab").mkdir()
    there.clean()
    assert newest(there) == (10, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000010"]


def test_a_checkpoint_says_where_it_is(tmp_path: Path) -> None:
    saved(store(tmp_path), 5)
    found = folder.read(tmp_path / "step-00000005")
    assert isinstance(found, Checkpoint)
    assert found.folder == tmp_path / "step-00000005"
    assert found.job == JOB
    with pytest.raises(BadCheckpoint, match="is no checkpoint"):
        folder.read(tmp_path)


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


def test_2_16_an_earlier_releases_checkpoint_with_nan_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = store(tmp_path)
    monkeypatch.setattr(folder, "FORMAT", "headway-checkpoint/1")
    saved(there, 5)
    there.write(10, {"model": {"w": torch.tensor([NAN])}}, {"metrics": {}})
    monkeypatch.undo()
    found, (said,) = newest(there)
    assert found == 5
    assert "step-00000010 holds NaN in w" in said


# -- 2.18, 2.20: who writes, and for whom ----------------------------------------------------------------------------


def test_2_18_a_new_leader_leaves_what_the_one_before_is_finishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, seen = Store(tmp_path / "c", JOB, Policy(), 1), []

    def clean() -> bool:
        Store(tmp_path / "c", JOB, Policy(), 1).clean("w1-b")
        seen.extend(path.name for path in (tmp_path / "c").glob(".writing-*"))
        return True

    assert there.write(5, state(5), {"metrics": {}}, owner="w0-a", allowed=clean) is not None
    assert steps(there) == [5]
    assert seen[0].startswith(".writing-e000001-w0-a-00000005-")


def test_2_18_what_nobody_will_finish_is_removed(tmp_path: Path) -> None:
    def begun(name: str, age_s: float = 0.0) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "model.pt").touch()
        for each in (path / "model.pt", path):
            os.utime(each, (time.time() - age_s,) * 2)
        return path

    living = begun(".writing-e000002-w0-a-00000005-0123abcd")
    begun(".writing-e000002-w0-a-00000006-0123abcd", folder.LEAVING_S + 5)
    begun(".writing-e000002-w1-b-00000005-0123abcd")
    begun(".writing-e000001-w9-c-00000005-0123abcd")
    begun(".writing-00000005-0123abcd")
    Store(tmp_path, JOB, Policy(), 2).clean("w1-b")
    assert list(tmp_path.iterdir()) == [living]


def test_2_20_no_checkpoint_is_committed_once_another_process_leads(tmp_path: Path) -> None:
    first = epochs.claim(tmp_path)
    there = Store(tmp_path / "checkpoints", JOB, Policy(), first)
    saved(there, 5)
    epochs.claim(tmp_path)
    with pytest.raises(epochs.Superseded, match="another process leads run"):
        saved(there, 10)
    assert steps(there) == [5]
    assert there.committed()[0].epoch == first
    assert list((tmp_path / "checkpoints").glob(".writing-*")) == []


def test_a_checkpoint_of_the_layout_before_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "FORMAT", "headway-checkpoint/1")
    saved(store(tmp_path), 5)
    monkeypatch.undo()
    found, passed_over = store(tmp_path).newest()
    assert found is not None
    assert (found.step, found.epoch, found.finite, passed_over) == (5, 0, False, [])
    assert torch.equal(found.load()["model"]["w"], torch.full((100,), 5.0))
