"""Checkpoints are there whole or not at all, verified when they are needed, and kept by a policy."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway.checkpoint import folder
from headway.checkpoint.folder import Checkpoint
from headway.checkpoint.store import Store
from headway.errors import BadCheckpoint, BadInput
from headway.job import Checkpoint as Policy

JOB = "a" * 64


def store(root: Path, job: str = JOB, outcomes: list[Any] | None = None, **policy: Any) -> Store:
    heard = (lambda checkpoint, error: outcomes.append((checkpoint, error))) if outcomes is not None else None
    return Store(root, job, Policy(**{"keep_last": 9, **policy}), *([heard] if heard else []))


def state(step: int, size: int = 100) -> dict[str, Any]:
    return {"model": {"w": torch.full((size,), float(step))}, "session": {"step": step, "names": ["a", "b"]}}


def saved(to: Store, *steps: int, metrics: dict[int, float] | None = None) -> None:
    for step in steps:
        values = {"loss": metrics[step]} if metrics and step in metrics else {}
        to.save(step, lambda step=step: state(step), {"run": "r", "metrics": values})  # type: ignore[misc]
        to.wait()


def steps(of: Store) -> list[int]:
    return [c.step for c in of.committed()]


def newest(of: Store) -> tuple[int | None, list[str]]:
    found, passed_over = of.newest()
    return found.step if found else None, passed_over


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    heard: list[Any] = []
    there = store(tmp_path / "c", outcomes=heard)
    assert there.newest() == (None, [])
    saved(there, 5, 10)
    found, passed_over = there.newest()
    assert found is not None
    assert (found.step, found.facts["run"], passed_over) == (10, "r", [])
    assert found.load()["session"] == {"step": 10, "names": ["a", "b"]}
    assert torch.equal(found.load()["model"]["w"], torch.full((100,), 10.0))
    assert found.bytes == sum(p.stat().st_size for p in found.folder.glob("*.pt"))
    assert [(c.step, error) for c, error in heard] == [(5, None), (10, None)]
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
    there.save(3, lambda: trees(first), {"metrics": {}})
    train(first, range(3, 6))  # goes on while it is written
    found, _ = there.newest() if there.wait() is None else (None, None)
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


def test_the_copy_is_taken_before_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    write = folder.write
    monkeypatch.setattr(folder, "write", lambda *a: go.wait(30) and write(*a))
    live: dict[str, Any] = {
        "model": {"w": torch.zeros(10)},
        "session": {"list": [1], "tags": {"x"}, 1: torch.ones(1), "1": torch.zeros(1)},
    }
    there = store(tmp_path)
    there.save(1, lambda: live, {"metrics": {}})
    live["model"]["w"].fill_(9)
    live["session"]["list"].append(2)
    live["session"]["tags"].add("y")
    go.set()
    there.wait()
    found, _ = there.newest()
    assert found is not None
    assert found.load()["model"]["w"].tolist() == [0.0] * 10
    session = found.load()["session"]
    assert (session["list"], session["tags"]) == ([1], {"x"})
    assert (session[1].item(), session["1"].item()) == (1.0, 0.0), "keys 1 and '1' are two keys"


def test_a_second_save_waits_for_the_first(tmp_path: Path) -> None:
    """Both copies use the same memory."""
    there = store(tmp_path)
    for step in range(1, 6):
        there.save(step, lambda step=step: state(step, 200_000), {"metrics": {}})  # type: ignore[misc]
    there.wait()
    for checkpoint in there.committed():
        assert torch.equal(checkpoint.load()["model"]["w"], torch.full((200_000,), float(checkpoint.step)))


def test_kinds_of_values(tmp_path: Path) -> None:
    values = {
        "numpy": np.float64(0.5), "size": torch.Size([2, 3]), "dtype": torch.int8, "none": None, "tuple": (1, 2.0),
        "ordered": OrderedDict(a=1), "scalar": torch.tensor(3), "bf16": torch.ones(2, dtype=torch.bfloat16),
    }  # fmt: skip
    there = store(tmp_path)
    there.save(1, lambda: {"session": values}, {"metrics": {}})
    there.wait()
    found, _ = there.newest()
    assert found is not None
    back = found.load()["session"]
    assert back["numpy"] == 0.5
    for name in ("size", "dtype", "none", "tuple", "ordered", "scalar"):
        assert back[name] == values[name]
    assert back["bf16"].dtype == torch.bfloat16


@pytest.mark.parametrize("value", [np.ones(3), object(), print, Path()])
def test_what_could_not_be_loaded_again_is_refused_when_it_is_saved(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BadInput, match=r"session\.state\.mine holds a"):
        store(tmp_path).save(1, lambda: {"session": {"state": {"mine": value}}}, {"metrics": {}})


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

    heard: list[Any] = []
    there = store(tmp_path, outcomes=heard)
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

        heard.clear()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, sometimes)
            saved(there, 10 if again else 15)
        ((checkpoint, error),) = heard
        if error is None:
            break
        assert checkpoint is None
        assert "No space left" in error
        assert there.error == error
        there.clean()  # as every run begins; puts back what could not be renamed
        assert steps(there) in ([5, 10], [5, 10, 15]), "the one before is still there"
        found, passed_over = newest(there)
        assert found in (10, 15)
        assert passed_over == []
        assert list(tmp_path.glob(".writing-*")) == []
    assert failures >= 1
    assert there.error is None, "the next success is told too"
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
            store.save(step, lambda: {"model": {"w": w}}, {"run": "r", "metrics": {}})
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
    monkeypatch.setattr(folder, "FORMAT", "headway-checkpoint/2")
    saved(there, 10)
    monkeypatch.undo()
    found, (said,) = newest(there)
    assert found == 5
    assert "headway-checkpoint/2" in said


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
    heard: list[Any] = []
    asked: list[list[str]] = []

    def allowed() -> bool:
        asked.append([p.name for p in tmp_path.glob(".writing-*/*")])
        return False

    there = Store(tmp_path, JOB, Policy(), lambda *outcome: heard.append(outcome), allowed)
    saved(there, 5)
    assert len(asked) == 1
    assert "model.pt" in asked[0]
    assert "manifest.json" in asked[0]
    assert steps(there) == []
    assert heard == []
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
