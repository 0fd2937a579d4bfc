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
    with Run(tmp_path / "run", made(data), train, 0.01, places=2, hold=7) as run:
        run.wait_until(lambda: len(run.members) == 2 and run.step >= 5, DEADLINE_S)
        run.places(-1)
        run.kill(run.members[1])
        run.stand(14)
        run.wait_until(lambda: len(run.members) == 1, DEADLINE_S)
        run.join()
        outcome = run.result(DEADLINE_S)
    check(outcome, calm[4, 0.0])
    assert "lanes_apart" not in outcome.facts
    peaks = outcome.facts["memory_peak"]
    assert len(peaks) >= 2, "of those that came to the end"
    assert all(each["host"] > each["base"] > 0 for each in peaks.values())
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


def context_of(data: Path, folder: Path, company: Company, **fields: Any) -> tuple[Context, Notes]:
    """Of one of those that take part, and what hears it."""
    made = job(data, reproducible="order", replica_check_every=None, **fields)
    training, validation = open_readers(made)
    notes: Any = Notes()
    saver = Saver(Store(folder / "checkpoints", "a" * 64, made.checkpoint), made.checkpoint, notes)
    context = Context(
        job=made, device="cpu", train=training, validation=validation, saver=saver,
        journal=notes, run="r", members=company,
    )  # fmt: skip
    return context, notes


def verdict_is_missed(group: Group, folder: str, data: str) -> dict[str, Any]:
    """One of two workers that take part: the second takes the exchange of the step that shows why for a broken one."""
    company = Company(group, folder, [Generation((0, 1)), Generation((0, 1))], 4, [Slip(1, "sum", 3)])
    context, notes = context_of(Path(data), Path(folder), company, steps=6)
    torch.manual_seed(0)
    model, sizes = Exact(), []
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None) as session:
        for step in session.steps():
            model.p = 0.5 if step.number >= 3 and group.rank == 0 else 0.0
            for batch in step.lanes(together=True):
                sizes.append((step.number, len(batch["x"])))
                step.backward(model(batch["x"]))
    context.saver.close()
    context.close()
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


def number_is_missed(group: Group, folder: str, data: str) -> dict[str, Any]:
    """One of two workers: the second takes for a broken one the exchange by which all were to do the step again by
    lane. The loss is no number once, at the first worker, with all its lanes together."""
    company = Company(group, folder, [Generation((0, 1)), Generation((0, 1))], 4, [Slip(1, "sum", 3)])
    context, notes = context_of(Path(data), Path(folder), company, steps=6)
    torch.manual_seed(0)
    model = Exact()
    bad: list[int] = []
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None) as session:
        for step in session.steps():
            for batch in step.lanes(together=True):
                loss = model(batch["x"])
                if step.number == 3 and group.rank == 0 and len(batch["x"]) > BATCH and not bad:
                    bad.append(step.number)
                    loss = loss * float("nan")
                step.backward(loss)
    context.saver.close()
    context.close()
    steps = [(step["step"], step["loss"]) for step in notes.steps]
    apart = session.replica.apart
    return {"been": company.been, "weights": notes.weights, "steps": steps, "apart": apart and apart.reason.name}


def test_a_worker_that_misses_that_a_loss_was_no_number_does_what_the_others_do(tmp_path: Path, data: Path) -> None:
    first, second = workers.run(number_is_missed, 2, tmp_path, str(tmp_path), str(data))
    assert first["been"] == second["been"] == [1, 2]
    assert first["weights"] == second["weights"]
    assert first["apart"] == second["apart"]
    assert [step for step, _ in first["steps"]] == list(range(6))


class Full(torch.autograd.Function):
    """There is no memory for its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def harried(group: Group, folder: str, data: str) -> dict[str, Any]:
    """One of three. The third dies while it tries both ways; the second has no memory when it does so in the group that
    it then has, nor the first one later, in a backward pass."""
    company = Company(group, folder, [Generation((0, 1, 2)), Generation((0, 1))], 8)
    context, notes = context_of(Path(data), Path(folder), company, steps=STEPS, lanes=8, rows_together=8 * BATCH)
    torch.manual_seed(0)
    model = Exact()
    sizes: list[tuple[int, int]] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-6, momentum=0.5)
    with Session(context, model, optimizer, None) as session:
        for step in session.steps():
            for batch in step.lanes(together=True):
                rows = len(batch["x"])
                if group.rank == 2 and [number for number, _ in sizes].count(1) == 1:
                    workers.die()
                first = (step.number, rows) not in sizes
                sizes.append((step.number, rows))
                try:
                    if first and (group.rank, step.number, rows) == (1, 1, 4 * BATCH):
                        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
                    loss = model(batch["x"])
                    if first and (group.rank, step.number, rows) == (0, 9, 4 * BATCH):
                        loss = Full.apply(loss)  # type: ignore[no-untyped-call]
                    step.backward(loss)
                except torch.OutOfMemoryError as error:
                    if not step.takes(error):
                        raise
    context.saver.close()
    context.close()
    found = {"weight": model.weight.tolist(), "seen": model.seen.tolist(), "batches": model.batches.tolist()}
    return {"steps": notes.steps, "sizes": sizes, "found": found, "been": company.been}


def test_a_death_and_no_memory_while_both_ways_are_tried(tmp_path: Path, data: Path, calm: Calm) -> None:
    first, second, third = workers.run(harried, 3, tmp_path, str(tmp_path), str(data))
    assert third is None
    wanted = calm[8, 0.0]
    assert first["been"] == second["been"] == [1, 2]
    assert [step["step"] for step in first["steps"]] == list(range(STEPS))
    for found, step in zip(first["steps"], wanted.steps, strict=True):
        assert (found["samples"], found["rows"]) == (step["samples"], step["rows"])
        assert found["loss"] == pytest.approx(step["loss"], rel=1e-6)
    for worker in (first, second):
        assert worker["found"] == {name: wanted.result[name] for name in worker["found"]}
        assert [size for step, size in worker["sizes"] if step == STEPS - 1] == [2 * BATCH] * 2


LONG = 200
KILLED, JOINED, BROKEN = 9, 15, 21
"""Steps; early, since whoever joins waits for the others that long."""


def trained(context: Context) -> list[tuple[int, int]]:
    """A model whose sums are not exact. Returns (step, rows) of the batches."""
    torch.manual_seed(0)
    model, sizes = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3)), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Session(context, model, optimizer, None) as session:
        for step in session.steps():
            for batch in step.lanes(together=True):
                sizes.append((step.number, len(batch["x"])))
                loss = nn.functional.cross_entropy(model(batch["x"].float() / 10), batch["id"] % 3)
                step.backward(loss)
        if session.replica.apart is not None:
            raise AssertionError(f"lanes were parted: {session.replica.apart}")
    return sizes


def disturbed(group: Group, folder: str, data: str) -> dict[str, Any]:
    """One of four: the third dies in mid-run, the fourth joins later, and once an exchange breaks off."""
    torch.set_num_threads(1)
    script = [Generation((0, 1, 2)), Generation((0, 1)), Generation((0, 1, 3), JOINED), Generation((0, 1, 3))]
    company = Company(group, folder, script, 8, [Slip(2, "sum", KILLED, dies=True), Slip(1, "sum", BROKEN)])
    more = {"steps": LONG, "lanes": 8, "rows_together": 8 * BATCH, "checkpoint": {"every_steps": None}}
    context, notes = context_of(Path(data), Path(folder), company, **more)
    sizes = trained(context)
    context.saver.close()
    context.close()
    return {"steps": notes.steps, "been": company.been, "sizes": sizes, "weights": notes.weights}


def test_losses_are_those_of_lanes_apart_at_each_of_200_steps_whoever_comes_and_goes(
    tmp_path: Path, data: Path
) -> None:
    more = {"steps": LONG, "lanes": 8, "lanes_together": "never", "checkpoint": {"every_steps": None}}
    calm = Undisturbed(job(data, reproducible="order", **more), tmp_path / "calm", trained)
    assert {size for _, size in calm.result} == {BATCH}
    found = workers.run(disturbed, 4, tmp_path, str(tmp_path), str(data), deadline_s=DEADLINE_S)
    assert found[2] is None, "it died"
    assert [each["been"] for each in found if each] == [[1, 2, 3, 4], [1, 2, 3, 4], [3, 4]]
    assert len({each["weights"] for each in found if each}) == 1
    steps = found[0]["steps"]
    assert [step["step"] for step in steps] == list(range(LONG))
    for step, wanted in zip(steps, calm.steps, strict=True):
        assert (step["samples"], step["rows"]) == (wanted["samples"], wanted["rows"])
        assert step["loss"] == pytest.approx(wanted["loss"], rel=1e-3), step["step"]
    sizes = found[0]["sizes"]
    for number, most in ((7, 3 * BATCH), (13, 4 * BATCH), (190, 3 * BATCH)):
        assert [size for step, size in sizes if step == number] == [most]
