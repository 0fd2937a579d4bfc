"""Lanes in one pass while workers come and go: the run ends as one whose lanes were apart, undisturbed.

The model's sums are exact in any order and any grouping (dyadic numbers in float64), so that results can be compared to
the bit, though lanes move and go together in other groups.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import Undisturbed, job, rows
from torch import nn

from headway.checkpoint.store import Store
from headway.data.read.streams import open_readers
from headway.elastic.worker.context import Context
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.job import Job
from headway.strategies.group import Group
from headway.testing import workers
from headway.testing.company import Company, Generation, Notes, Slip
from headway.testing.elastic import Outcome, Run, advance

STEPS = 24
BATCH = 4
"""Rows of a lane."""
DEADLINE_S = 120.0


class Exact(nn.Module):
    """It has a buffer that moves by the mean of the rows, which is the same together; dropout where p is given."""

    seen: torch.Tensor
    batches: torch.Tensor

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(4, dtype=torch.float64))
        self.register_buffer("batches", torch.tensor(0))
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x.double() * 4).round() / 4
        if self.training:
            self.seen += x.mean(0) / 16
            self.batches += 1
        if self.p:
            x = nn.functional.dropout(x, self.p)
        return (x @ self.weight).mean()


def train(context: Context, pace_s: float = 0.0, p: float = 0.0, most: int = 1000, together: bool = True) -> Any:
    """A loop as the ready-made one is: it says what was raised.

    Args:
        pace_s: so long a batch takes at least.
        p: of dropout.
        most: rows for which there is memory.
        together: whether lanes may go so.
    """
    torch.manual_seed(0)
    model, sizes = Exact(p), []
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-6, momentum=0.5)
    with Session(context, model, optimizer, None) as session:
        for step in session.steps():
            for batch in step.lanes(together=together):
                time.sleep(pace_s)
                sizes.append((step.number, len(batch["x"])))
                step.record("ids", batch["id"].double().mean() / 4)
                try:
                    if len(batch["x"]) > most:
                        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
                    step.backward(model(batch["x"]))
                except torch.OutOfMemoryError as error:
                    if not step.takes(error):
                        raise
            advance(session.step)
    note(context, sizes)
    state = optimizer.state_dict()["state"][0]["momentum_buffer"]
    found = {"weight": model.weight, "seen": model.seen, "batches": model.batches, "momentum": state}
    return {name: value.tolist() for name, value in found.items()}


def note(context: Context, sizes: list[tuple[int, int]]) -> None:
    """Leave in the run's folder what each worker was given."""
    folder = Path(context.saver.store.root.url).parent
    (folder / f"sizes-{context.members.alone().names[0]}.json").write_text(json.dumps(sizes))


def sizes_of(run: Path) -> dict[str, list[tuple[int, int]]]:
    """(step, rows) of the batches, by worker that came to the end."""
    return {path.stem: json.loads(path.read_text()) for path in run.glob("sizes-*.json")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


def made(data: Path, **fields: Any) -> Job:
    return job(data, **{"reproducible": "order", "steps": STEPS, "checkpoint": {"every_steps": 100}, **fields})


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, float], Undisturbed]]:
    """By lanes and dropout: runs with lanes apart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for lanes, p in ((4, 0.0), (4, 0.5), (8, 0.0)):
        folder = tmp_path_factory.mktemp("calm")
        context = made(data, lanes=lanes, lanes_together="never", workers={"max": 1})
        found[lanes, p] = Undisturbed(context, folder / "checkpoints", functools.partial(train, p=p))
    yield found
    torch.set_num_threads(threads)


def check(outcome: Outcome, wanted: Undisturbed) -> None:
    """The run did what it should, whatever happened, and whichever lanes went together."""
    assert outcome.failure is None, outcome.failure
    assert [s["step"] for s in outcome.steps] == list(range(STEPS)), "each step is recorded once, in order"
    for found, calm in zip(outcome.steps, wanted.steps, strict=True):
        assert found["loss"] == pytest.approx(calm["loss"], rel=1e-6), "it is summed in float32, of other parts"
        assert {name: found[name] for name in calm} == {**calm, "loss": found["loss"]}
    assert {m["step"]: m["values"] for m in outcome.evaluations} == wanted.values
    assert outcome.results, "somebody reached the end"
    for worker, result in outcome.results.items():
        assert result == wanted.result, worker


Calm = dict[tuple[int, float], Undisturbed]


def test_a_member_is_killed_and_another_joins(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", made(data), train, 0.01, places=2, hold=14) as run:
        run.wait_until(lambda: len(run.members) == 2 and run.step >= 5, DEADLINE_S)
        run.places(-1)
        run.kill(run.members[1])
        run.wait_until(lambda: len(run.members) == 1, DEADLINE_S)
        run.join()
        outcome = run.result(DEADLINE_S)
    check(outcome, calm[4, 0.0])
    assert "lanes_apart" not in outcome.facts
    found = sizes_of(tmp_path / "run")
    assert len(found) == 2
    for worker, sizes in found.items():
        assert sizes[-1][1] == 2 * BATCH, worker
    most = {size for sizes in found.values() for step, size in sizes if step == 12}
    assert 4 * BATCH in most, "the one that was left had all lanes, and put them together"


def test_lanes_are_parted_on_all_workers_whoever_sees_why(tmp_path: Path, data: Path, calm: Calm) -> None:
    """With dropout; one worker is lost afterwards, and one joins that never saw it."""
    with Run(tmp_path / "run", made(data), train, 0.01, 0.5, places=2, hold=10) as run:
        run.wait_until(lambda: len(run.members) == 2 and run.step >= 4, DEADLINE_S)
        run.join()
        outcome = run.result(DEADLINE_S)
    check(outcome, calm[4, 0.5])
    assert outcome.facts["lanes_apart"]["apart"] == "random"
    for worker, sizes in sizes_of(tmp_path / "run").items():
        assert {size for _, size in sizes} == {BATCH}, worker


def test_eight_workers_become_one_that_has_memory_for_two_lanes(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", made(data, lanes=8, workers={"max": 8}), train, 0.0, 0.0, 2 * BATCH, hold=6) as run:
        run.wait_until(lambda: len(run.members) == 8 and run.step >= 6, DEADLINE_S)
        run.places(-7)
        for worker in run.members[1:]:
            run.kill(worker)
        run.release()
        outcome = run.result(DEADLINE_S)
        told = [text for text in run._recorder._messages if "too much for a worker's memory" in text]
    check(outcome, calm[8, 0.0])
    assert len(told) == 1, "once, though the group was halved twice"
    ((_, sizes),) = sizes_of(tmp_path / "run").items()
    assert max(size for _, size in sizes) == 8 * BATCH
    assert [size for step, size in sizes if step == STEPS - 1] == [2 * BATCH] * 4


def verdict_is_missed(group: Group, folder: str, data: str) -> dict[str, Any]:
    """One of two workers that take part: the second takes the exchange of the step that shows why for a broken one."""
    made = job(Path(data), reproducible="order", steps=6, replica_check_every=None)
    training, validation = open_readers(made)
    script = [Generation((0, 1)), Generation((0, 1))]
    company, notes = Company(group, folder, script, 4, [Slip(1, "sum", 3)]), Notes()
    saver = Saver(Store(Path(folder) / "checkpoints", "a" * 64, made.checkpoint), made.checkpoint, notes)  # type: ignore[arg-type]
    context = Context(
        job=made, device="cpu", train=training, validation=validation, saver=saver,
        journal=notes, run="r", members=company,  # type: ignore[arg-type]
    )  # fmt: skip
    torch.manual_seed(0)
    model, sizes = Exact(), []
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None) as session:
        for step in session.steps():
            model.p = 0.5 if step.number >= 3 and group.rank == 0 else 0.0
            for batch in step.lanes(together=True):
                sizes.append((step.number, len(batch["x"])))
                step.backward(model(batch["x"]))
    context.close()
    saver.close()
    assert session.replica.apart is not None
    return {"sizes": sizes, "been": company.been, "weights": notes.weights, "why": session.replica.apart.reason.name}


def test_a_worker_that_misses_the_verdict_hears_it_in_the_next_exchange(tmp_path: Path, data: Path) -> None:
    """Only the first worker draws random numbers; the second would find nothing by itself."""
    first, second = workers.run(verdict_is_missed, 2, tmp_path, str(tmp_path), str(data))
    assert first["been"] == second["been"] == [1, 2]
    assert first["weights"] == second["weights"]
    assert (first["why"], second["why"]) == ("RANDOM", "RANDOM")
    for worker in (first, second):
        assert [size for step, size in worker["sizes"] if step == 2] == [BATCH, BATCH, 2 * BATCH]
        assert {size for step, size in worker["sizes"] if step > 3} == {BATCH}
    missed = [size for step, size in second["sizes"] if step == 3]
    both = [BATCH, BATCH, 2 * BATCH]
    assert missed == [2 * BATCH, *both, BATCH, BATCH], "together; once more, its fourth time; apart"
