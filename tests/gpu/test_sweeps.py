"""What a sweep asks of a GPU: one process works for run after run, a run is paused and goes on, and one begins with
another's steps; each has the bits that it has alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu.device import DEVICE, REHEARSAL, device
from tests.gpu.loop import DIGEST, STEPS, Play, alone, part

from headway.checkpoint import store
from headway.checkpoint.fork import ORIGIN, fork
from headway.elastic.wire import keepers
from headway.elastic.worker import keeper
from headway.elastic.worker.afresh import Afresh
from headway.storage.folder import FolderStorage
from headway.strategies.connect import connect
from headway.strategies.group import Group
from headway.testing.workers import Crew

pytestmark = device

PRECISIONS = ["fp32", "bf16"]


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """To the bit, the optimiser's state too."""
    assert found["step"] == STEPS
    assert (found["words"], found["weights"]) == (wanted["words"], wanted["weights"])
    assert found["state"] == wanted["state"]


def spoil() -> None:
    """What a run's code may leave behind in its process."""
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)
    torch.set_grad_enabled(False)
    torch.nn.modules.module.register_module_forward_hook(lambda module, given, found: found * 2)
    torch.manual_seed(99)
    torch.rand(3, device=DEVICE)


def pooled(group: Group, plays: list[Play], folder: str, data: str) -> list[dict[str, Any]]:
    """Runs of one pool's process, each of which leaves it in disorder; memory of the device that is left after each."""
    afresh, found = Afresh(), []
    for number, play in enumerate(plays):
        place = Path(folder) / f"pooled-{number}"
        place.mkdir()
        ended = part(connect(None, 0, 1), play, str(place), data)
        spoil()
        assert afresh.again() == ""
        held = 0 if REHEARSAL else torch.cuda.memory_allocated()
        found.append({**ended, "held": held})
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_process_works_for_run_after_run_as_new(processes: Crew, precision: str, tmp_path: Path, data: str) -> None:
    first, second = (Play(DEVICE, fields={"seed": seed, "precision": precision}) for seed in (3, 4))
    (wanted,) = processes(alone, 1, [("second", second)], str(tmp_path), data)[0]
    found = processes(pooled, 1, [first, second, first, second], str(tmp_path), data)[0]
    same(found[1], wanted)
    same(found[3], wanted)
    same(found[2], found[0])
    assert found[0]["words"] != found[1]["words"]
    assert found[3]["held"] <= found[1]["held"], "nothing of a run stays on the device"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A keeper of several runs."""
    place = Path("/tmp") / f"hg-{os.getpid()}-{tmp_path.name[-8:]}"  # a socket's path is short
    place.mkdir(mode=0o700)
    config = {"run": "r" * 32, "token": "secret", "machine": "m0", "host": "127.0.0.1", "folder": str(place)}
    config |= {"linger_s": 60.0, "shelf": "s.0001", "memory": 10**9}
    yield config
    keepers.end(keeper.socket_path(config), "secret")
    for path in place.iterdir():
        path.unlink(missing_ok=True)
    place.rmdir()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_that_was_paused_goes_on_from_memory_or_from_its_checkpoint(
    processes: Crew, precision: str, tmp_path: Path, data: str, kept: dict[str, Any]
) -> None:
    fields = {"precision": precision}
    whole = Play(DEVICE, fields=fields)
    paused, gone_on = Play(DEVICE, fields=fields, until=4, keeper=kept), Play(DEVICE, fields=fields, keeper=kept)
    plays = [("whole", whole), ("near", paused), ("near", gone_on), ("far", paused), ("far", whole)]
    wanted, half, near, again, far = processes(alone, 1, plays, str(tmp_path), data)[0]
    assert (half["step"], again["step"]) == (4, 4)
    assert (bool(near["kept"]), bool(far["kept"])) == (True, False)
    for found in (near, far):
        same(found, wanted)
        assert half["steps"] + found["steps"] == wanted["steps"]
        assert half["evaluations"] + found["evaluations"] == wanted["evaluations"]


def forked(group: Group, play: Play, step: int, folder: str, data: str) -> dict[str, Any]:
    """A run that begins with the checkpoint of another."""
    place = Path(folder) / "forked"
    (place / "checkpoints").mkdir(parents=True)
    (source,) = [c for c in store.committed(Path(folder) / "checkpoints-first") if c.step == step]
    facts = {"run": "forked", ORIGIN: {"run": "first", "step": step, "exact": True}}
    fork(source, FolderStorage(place / "checkpoints"), 0, DIGEST, facts)
    return part(connect(None, 0, 1), play, str(place), data)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_that_begins_with_anothers_steps_has_the_bits_that_it_has_alone(
    processes: Crew, precision: str, tmp_path: Path, data: str
) -> None:
    optimizer = {"name": "adamw", "lr": 0.01}

    def play(every: int, until: int | None = None) -> Play:
        schedule = {"name": "step", "every": every, "factor": 0.5}
        fields = {"precision": precision, "optimizer": optimizer, "schedule": schedule}
        return Play(DEVICE, fields=fields, until=until)

    plays = [("first", play(6, until=5)), ("second", play(7))]
    first, wanted = processes(alone, 1, plays, str(tmp_path), data)[0]
    (found,) = processes(forked, 1, play(7), 5, str(tmp_path), data)
    same(found, wanted)
    assert first["steps"] + found["steps"] == wanted["steps"]
