"""A training loop over a session on a device, as a worker of a crew runs it, and what it ends with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headway.checkpoint.store import Store
from headway.data.read.streams import open_readers
from headway.driver import determinism
from headway.elastic.worker.context import Context
from headway.elastic.worker.keeping import Keeping
from headway.elastic.worker.line import Dismissed
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.job import Job, parse
from headway.strategies.connect import connect
from headway.strategies.group import Group
from headway.testing.company import Company, Generation, Notes
from headway.testing.workers import die

Worker = Callable[..., dict[str, Any]]
"""As `part`."""
LANES, STEPS = 4, 8
DIGEST = "a" * 64
"""Of every job."""


@dataclass(frozen=True)
class Play:
    """What happens. Workers are ranks in the crew.

    Args:
        device: that all compute on.
        script: of the generations.
        fields: of the job.
        dies: where a worker is lost: (worker, step), in its lanes.
        until: step after which the run is stopped.
        keeper: of the node, see `keeper.begin`: it is paused there instead, and goes on from there.
        dropout: in the model; its numbers are other ones on a CPU.
    """

    device: str
    script: tuple[Generation, ...] = (Generation((0,)),)
    fields: dict[str, Any] = field(default_factory=dict)
    dies: tuple[tuple[int, int], ...] = ()
    until: int | None = None
    keeper: dict[str, Any] | None = None
    dropout: float = 0.1


class Net(nn.Module):
    """What has kernels of its own on a GPU: a convolution, batch norm, attention, an embedding, dropout."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.wide, self.convolution = nn.Linear(4, 64), nn.Conv1d(8, 8, 3, padding=1, bias=False)
        self.norm, self.dropout = nn.BatchNorm1d(8), nn.Dropout(dropout)
        self.signs, self.last = nn.Embedding(2, 8), nn.Linear(64, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=draws)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.relu(self.norm(self.convolution(self.wide(x).view(-1, 8, 8))))
        wide = wide + self.signs((x[:, 0] > 0).long())[:, None]
        heads = wide[:, None]
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads)[:, 0]
        found: torch.Tensor = self.last(self.dropout(mixed.flatten(1))) * self.scale
        return found


def job_of(play: Play, data: str) -> Job:
    tree = {"name": "n", "task": "t.py:T", "lanes": LANES, "lane_batch": 4, "steps": STEPS, "seed": 3}
    tree |= {"data": {"train": f"{data}/train", "validation": f"{data}/val", "eval_batch": 2}}
    tree |= {"workers": {"max": LANES, "gpus": int(play.device != "cpu")}, "checkpoint": {"every_steps": None}}
    return parse({**tree, "reproducible": "bitwise", "replica_check_every": 3, "clip_norm": 1.0, **play.fields})


def opened(
    group: Group, play: Play, job: Job, folder: str, own: dict[str, Any] | None = None
) -> tuple[Context, Company, Notes]:
    """What a worker of the crew has around its loop. own: datasets, see `open_readers`."""
    determinism.enforce(job)
    torch.backends.cudnn.allow_tf32 = False  # what a CPU is compared with
    train, validation = open_readers(job, device=play.device, own=own)
    paused = play.until if play.keeper is not None else None
    company, notes = Company(group, folder, play.script, LANES, paused=paused), Notes()
    keeping = None
    if play.keeper is not None:
        keeping = Keeping(play.keeper, 10**6, DIGEST, "key", lambda text: None, lambda host, port: None)
        notes.made = keeping.made(1)
        keeping.open()
    saver = Saver(Store(Path(folder) / "checkpoints", DIGEST, job.checkpoint), job.checkpoint, notes)  # type: ignore[arg-type]
    context = Context(
        job=job, device=play.device, train=train, validation=validation, saver=saver,
        journal=notes, run="r", members=company, keeping=keeping,  # type: ignore[arg-type]
    )  # fmt: skip
    return context, company, notes


def part(group: Group, play: Play, folder: str, data: str) -> dict[str, Any]:
    """One worker's; what it ends with."""
    me, job = group.rank, job_of(play, data)
    context, company, notes = opened(group, play, job, folder)
    saver, keeping = context.saver, context.keeping
    model = Net(play.dropout)
    if me:
        nn.init.zeros_(model.last.weight)  # it takes rank 0's
    training = Session(context, model, torch.optim.AdamW(model.parameters(), lr=0.01), None)
    found: dict[str, Any] = {"evaluations": []}

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert batch["x"].device.type == play.device
        return nn.functional.cross_entropy(model(batch["x"]).float(), batch["y"])

    def metrics(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"loss": loss(model, batch), "positive": batch["y"].double().mean()}

    try:
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    if (me, step.number) in play.dies:
                        die()
                    value = loss(training.model, batch)
                    step.record("half", value / 2)
                    if step.number == 1 and job.precision == "fp16":
                        value = value * 1e5  # more than fp16 holds: the update is left out, and the scale halved
                    step.backward(value)
                if step.number == 3:
                    found["evaluations"].append(training.evaluate(metrics))
                if training.step == play.until and keeping is None:
                    training.stop()
        saver.finish()
    except Dismissed:
        found["dismissed"] = True
    finally:
        context.close()
        if keeping is not None:
            keeping.close(end=not context.goes_on)
        saver.close()
        training.engine.pact.close()
    state = {name: value.cpu().tolist() for name, value in training.model.state_dict().items()}
    found |= {"weights": notes.weights, "steps": notes.steps, "state": state, "step": training.step}
    found |= {"words": training.replica.words().tolist(), "been": company.been, "told": company.told}
    kept = training.engine._of  # of which start a keeper's state was gone on from
    return found | {"scale": training.replica.scaler.get_scale(), "kept": kept}


def alone(
    group: Group, plays: list[tuple[str, Play]], folder: str, data: str, worker: Worker = part
) -> list[dict[str, Any]]:
    """Several runs of one worker, one after another in this process; those of one name go on from one another."""
    found = []
    for number, (name, play) in enumerate(plays):
        place = Path(folder) / f"alone-{number}"
        place.mkdir()
        (Path(folder) / f"checkpoints-{name}").mkdir(exist_ok=True)
        (place / "checkpoints").symlink_to(Path(folder) / f"checkpoints-{name}")
        found.append(worker(connect(None, 0, 1), play, str(place), data))
    return found
