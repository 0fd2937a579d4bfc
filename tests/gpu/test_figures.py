"""Step times on a GPU: one worker with eight lanes, against plain PyTorch with the same rows as one batch.

Printed as JSON, and written to gpu.json where OUT names a folder. Nothing is asserted of the times: they are read.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu.device import DEVICE, REHEARSAL, device, settled
from tests.gpu.loop import Play, job_of
from torch import nn

from headway.checkpoint.copies import Copies
from headway.checkpoint.store import Store
from headway.data.read.streams import open_readers
from headway.driver import determinism
from headway.elastic.worker.context import Context
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.elastic.worker.update import autocast
from headway.strategies.connect import connect
from headway.strategies.group import Group
from headway.testing.company import Company, Generation, Notes
from headway.testing.workers import run

pytestmark = [device, pytest.mark.alone]

LANES, ROWS = 8, 32
WARM, STEPS = (5, 30) if not REHEARSAL else (1, 3)
WIDTH, DEPTH, HEADS, CONTEXT, VOCABULARY = (384, 6, 6, 256, 8192) if not REHEARSAL else (32, 2, 2, 16, 64)
MLP = 2975 if not REHEARSAL else 32


class Mlp(nn.Module):
    """20 million parameters. A batch counts rows; what is computed on is drawn on the device, with no data to wait
    for on either side."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [784, MLP, MLP, MLP]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*layers, nn.Linear(MLP, 10))

    def loss(self, rows: int) -> torch.Tensor:
        x, y = _drawn("mlp", rows)
        return nn.functional.cross_entropy(self.layers(x[:rows]).float(), y[:rows])


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, _ = x.shape
        parts = self.attend(self.first(x)).view(rows, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, WIDTH))
        found: torch.Tensor = x + self.feed(self.second(x))
        return found


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def loss(self, rows: int) -> torch.Tensor:
        tokens = _drawn("gpt", rows)[0][: max(1, rows // 4)]
        x = self.tokens(tokens[:, :-1]) + self.places.weight
        return nn.functional.cross_entropy(
            self.last(self.norm(self.blocks(x))).float().flatten(0, 1), tokens[:, 1:].flatten()
        )


MODELS: dict[str, Callable[[], Any]] = {"mlp_20m": Mlp, "gpt": Gpt}
_known: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}


def _drawn(kind: str, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    if kind not in _known:
        draws = torch.Generator().manual_seed(1)
        most = LANES * ROWS
        numbers = torch.randn(most, 784, generator=draws)
        tokens = torch.randint(VOCABULARY, (most // 4, CONTEXT + 1), generator=draws)
        answers = torch.randint(10, (most,), generator=draws)
        _known[kind] = ((numbers if kind == "mlp" else tokens).to(DEVICE), answers.to(DEVICE))
    return _known[kind]


def times_of(begun: list[float]) -> float:
    """Median milliseconds of a step, the first ones left out."""
    return 1e3 * statistics.median(b - a for a, b in zip(begun[WARM:], begun[WARM + 1 :], strict=False))


def plain(kind: str, precision: str) -> float:
    torch.manual_seed(0)
    model = MODELS[kind]().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    times = []
    for _ in range(WARM + STEPS + 1):
        times.append(time.perf_counter())
        with autocast(precision, torch.device(DEVICE)):
            loss = model.loss(LANES * ROWS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # as a loop that shows its loss; a session reads it too
        settled()
    return times_of(times)


def ours(kind: str, precision: str, mode: str, folder: str, data: str) -> float:
    fields = {"lanes": LANES, "lane_batch": ROWS, "steps": WARM + STEPS + 1, "precision": precision}
    tree = {"reproducible": mode, "replica_check_every": None, "clip_norm": None, "workers": {"max": 1}}
    tree["workers"] |= {"gpus": int(not REHEARSAL)}
    job = job_of(Play(DEVICE, fields={**fields, **tree}), data)
    determinism.enforce(job)
    torch.manual_seed(0)
    train, validation = open_readers(job, device=DEVICE)
    company, notes = Company(connect(None, 0, 1), folder, (Generation((0,)),), LANES), Notes()
    saver = Saver(Store(Path(folder) / "checkpoints", "a" * 64, job.checkpoint), job.checkpoint, notes)  # type: ignore[arg-type]
    context = Context(
        job=job, device=DEVICE, train=train, validation=validation, saver=saver,
        journal=notes, run="r", members=company,  # type: ignore[arg-type]
    )  # fmt: skip
    model = MODELS[kind]()
    training = Session(context, model, torch.optim.AdamW(model.parameters(), lr=1e-4), None)
    times = []
    try:
        with training:
            for step in training.steps():
                settled()
                times.append(time.perf_counter())
                for batch in step.lanes():
                    step.backward(model.loss(len(batch["y"])))
    finally:
        context.close()
        saver.close()
        training.engine.pact.close()
    return times_of(times)


def figures(_: Group, mode: str, folder: str, data: str) -> dict[str, dict[str, float]]:
    """Milliseconds a step, of plain PyTorch beside it. A process has one mode: bitwise is told before CUDA starts."""
    found = {}
    for kind in MODELS:
        for precision in ("fp32", "bf16"):
            place = Path(folder) / f"{kind}-{precision}-{mode}"
            place.mkdir()
            row = {"plain_ms": plain(kind, precision)} if mode == "order" else {}
            row[f"{mode}_ms"] = ours(kind, precision, mode, str(place), data)
            found[f"{kind}_{precision}"] = row
    return found


def copying(_: Group) -> dict[str, float]:
    """What the training thread stands still for when a state of 1 GiB is copied, and a bare copy of the same."""
    size = 2**28 if not REHEARSAL else 2**20
    state = {f"part{number}": torch.zeros(size // 8, device=DEVICE) for number in range(8)}
    pinned = [torch.empty(size // 8, pin_memory=not REHEARSAL) for _ in range(8)]
    copies = Copies()

    def bare() -> None:
        for room, value in zip(pinned, state.values(), strict=True):
            room.copy_(value, non_blocking=True)

    found = {}
    for name, act in {"first": lambda: copies.take(state), "again": lambda: copies.take(state), "pinned": bare}.items():
        settled()
        begun = time.perf_counter()
        act()
        settled()
        found[f"{name}_gib_s"] = round(4 * size / 2**30 / (time.perf_counter() - begun), 3)
    return found


def test_figures(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("figures")
    make_dataset(folder / "train", (LANES * ROWS * 4,))
    make_dataset(folder / "val", (23,))
    modes = ("order", "bitwise")
    for name in ("times", "copying", *modes):
        (folder / name).mkdir()
    device = "cpu" if REHEARSAL else torch.cuda.get_device_name()
    found: dict[str, Any] = {"device": device, "torch": torch.__version__, "lanes": LANES, "rows_a_lane": ROWS}
    found["gpt_parameters"] = sum(p.numel() for p in Gpt().parameters())
    parts = [
        run(figures, 1, folder / mode, mode, str(folder / "times"), str(folder), deadline_s=90.0)[0] for mode in modes
    ]
    for name in parts[0]:
        row = parts[0][name] | parts[1][name]
        row |= {f"{mode}_ratio": row[f"{mode}_ms"] / row["plain_ms"] for mode in modes}
        found[name] = {key: round(value, 3) for key, value in row.items()}
        assert all(value > 0 for value in row.values())
    found["copy"] = run(copying, 1, folder / "copying")[0]
    assert (
        set(parts[0]) == set(parts[1]) == {f"{kind}_{precision}" for kind in MODELS for precision in ("fp32", "bf16")}
    )
    with capsys.disabled():
        print(f"\n{json.dumps(found, indent=1)}")
    if out := os.environ.get("OUT"):
        (Path(out) / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
