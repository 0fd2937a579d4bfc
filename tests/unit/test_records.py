"""Numbers of the user's own: the same on any number of workers, under the user's names, each once; metrics by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headway.checkpoint.store import Store
from headway.data.read.streams import open_readers
from headway.elastic.worker.context import Context
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session, Step
from headway.job import parse
from headway.strategies.group import Group
from headway.testing.company import Company, Generation, Notes, Slip
from headway.testing.workers import crew

LANES, STEPS = 4, 6


class Kept(Notes):
    """Notes with what was recorded: by step and name, how often, and as what."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[int, str, float]] = []
        self.owned: list[tuple[int, str, float]] = []
        self.measured: list[tuple[int, str, float]] = []
        self.notes: list[str] = []

    def restart(self, start: int, found: bool = False) -> None:
        super().restart(start, found)
        self.values.clear()

    def journal(self) -> dict[str, Any]:
        return {**super().journal(), "values": [list(value) for value in self.values]}

    def take(self, journal: dict[str, Any]) -> None:
        super().take(journal)
        self.values = [(step, name, value) for step, name, value in journal["values"]]

    def recorded(self, step: int, values: dict[str, float]) -> None:
        self.values += [(step, name, value) for name, value in values.items()]

    def own(self, step: int, values: dict[str, float]) -> None:
        self.owned += [(step, name, value) for name, value in values.items()]

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.measured += [(step, name, value) for name, value in values.items()]

    def note(self, text: str) -> None:
        self.notes.append(text)


def nothing(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Habit:
    """What the user's code records; importable by name."""

    lane: Callable[[Step, dict[str, torch.Tensor], torch.Tensor], None] = nothing
    after: Callable[[Session, Step], None] = nothing
    end: Callable[[Session], None] = nothing
    metrics: Callable[[nn.Module, dict[str, torch.Tensor]], Any] | None = None


def part(
    group: Group, habit: Habit, script: tuple[Generation, ...], slips: tuple[Slip, ...], folder: str, data: str,
    mode: str,
) -> dict[str, Any]:  # fmt: skip
    tree = {"name": "n", "task": "t.py:T", "lanes": LANES, "lane_batch": 4, "steps": STEPS, "seed": 3}
    tree |= {"data": {"train": f"{data}/train", "validation": f"{data}/val", "eval_batch": 3}}
    tree |= {"workers": {"max": LANES}, "checkpoint": {"every_steps": None}, "reproducible": mode}
    job = parse({**tree, "replica_check_every": 2})
    train, validation = open_readers(job)
    company, notes = Company(group, folder, script, LANES, slips), Kept()
    saver = Saver(Store(Path(folder) / "checkpoints", "a" * 64, job.checkpoint), job.checkpoint, notes)  # type: ignore[arg-type]
    context = Context(
        job=job, device=str(group.device), train=train, validation=validation, saver=saver,
        journal=notes, run="r", members=company,  # type: ignore[arg-type]
    )  # fmt: skip
    model = nn.Linear(4, 2)
    nn.init.constant_(model.weight, 0.1)
    nn.init.zeros_(model.bias)
    training = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None)
    found: dict[str, Any] = {}
    try:
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
                    habit.lane(step, batch, loss)
                    step.backward(loss)
                habit.after(training, step)
            if habit.metrics:
                found["metrics"] = training.evaluate(habit.metrics)
            habit.end(training)
        saver.finish()
    finally:
        context.close()
        saver.close()
        training.engine.pact.close()
    return {**found, "values": notes.values, "owned": notes.owned, "measured": notes.measured, "notes": notes.notes}


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """61 rows: the last step of an epoch has 13. 23 rows to evaluate."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (20, 11), (30,))
    make_dataset(folder / "val", (23,))
    return str(folder)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(name="ran")
def _ran(tmp_path: Path, data: str) -> Callable[..., list[dict[str, Any]]]:
    count = iter(range(100))

    def run(
        habit: Habit, *script: Generation, slips: tuple[Slip, ...] = (), mode: str = "bitwise", kind: str = "threads"
    ) -> list[dict[str, Any]]:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        size = len({m for generation in script for m in generation.members})
        return crew(kind, folder)(part, size, habit, script, slips, str(folder), data, mode)  # type: ignore[no-any-return]

    return run


def all_of(*members: int) -> Generation:
    return Generation(members)


# -- step.record -----------------------------------------------------------------------------------------------------


def of_lanes(step: Step, batch: dict[str, torch.Tensor], loss: torch.Tensor) -> None:
    """One name of all lanes, as a tensor; one of some lanes, as a number; one that comes late."""
    step.record("ids/mean", batch["id"].double().mean())
    if int(batch["id"][0]) % 2:
        step.record("odd", float(batch["id"][0]) / 3)
    if step.number >= 3:
        step.record("loss", loss)


def test_a_record_of_lanes_is_the_mean_over_their_rows(ran: Callable[..., Any]) -> None:
    batches: dict[int, list[list[int]]] = {}

    def noting(step: Step, batch: dict[str, torch.Tensor], loss: torch.Tensor) -> None:
        batches.setdefault(step.number, []).append(batch["id"].tolist())
        of_lanes(step, batch, loss)

    (found,) = ran(Habit(noting), all_of(0))
    values = {(step, name): value for step, name, value in found["values"]}
    assert len(values) == len(found["values"]), "each once"
    for step, lanes in batches.items():
        ids = [i for lane in lanes for i in lane]
        assert values[step, "ids/mean"] == pytest.approx(sum(ids) / len(ids), rel=1e-12)
        odd = [lane for lane in lanes if lane[0] % 2]
        rows = sum(map(len, odd))
        if rows:
            assert values[step, "odd"] == pytest.approx(sum(len(o) * o[0] / 3 for o in odd) / rows, rel=1e-12)
        assert ((step, "odd") in values) == bool(rows)
        assert ((step, "loss") in values) == (step >= 3)


def test_it_is_the_same_to_the_bit_on_any_number_of_workers_whatever_happens(ran: Callable[..., Any]) -> None:
    (alone,) = ran(Habit(of_lanes), all_of(0))
    for found in ran(Habit(of_lanes), all_of(0, 1, 2)):
        assert found["values"] == alone["values"]
    joins = (all_of(0, 1), Generation((0, 1, 2), after=2))
    behind = (all_of(0, 1, 2), all_of(2, 0, 1))
    late = (Slip(1, "agree", 0),)  # the others have the names, and the step
    for script, slips in ((joins, ()), (behind, (Slip(1, "sum", 0),)), (behind, late), (behind, (Slip(0, "sum", 4),))):
        for found in ran(Habit(of_lanes), *script, slips=slips):
            assert found["values"] == alone["values"], "no point twice, none missing"


def test_it_is_so_over_what_behaves_like_nccl(ran: Callable[..., Any]) -> None:
    (alone,) = ran(Habit(of_lanes), all_of(0))
    script = (all_of(0, 1, 2), all_of(2, 0, 1))
    for found in ran(Habit(of_lanes), *script, slips=(Slip(1, "agree", 0),), kind="nccl_like"):
        assert found["values"] == alone["values"]


def twice(step: Step, batch: Any, loss: Any) -> None:
    step.record("x", 1.0)
    step.record("x", 2.0)


def of_a_vector(step: Step, batch: Any, loss: Any) -> None:
    step.record("x", batch["x"])


def nameless(step: Step, batch: Any, loss: Any) -> None:
    step.record("", 1.0)


def outside(session: Session, step: Step) -> None:
    step.record("x", 1.0)


@pytest.mark.parametrize(
    ("habit", "said"),
    [
        (Habit(twice), r"step\.record\('x', \.\.\.\) was called twice"),
        (Habit(of_a_vector), r"a tensor of shape \(4, 4\) and torch\.float32 for 'x'"),
        (Habit(nameless), "was given the name ''"),
        (Habit(after=outside), r"outside the loop over step\.lanes.*session\.record"),
    ],
)
def test_what_is_no_record_of_lanes_is_refused(habit: Habit, said: str, ran: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=rf"BadInput.*{said}"):
        ran(habit, all_of(0))


# -- session.record --------------------------------------------------------------------------------------------------


def alike(session: Session, step: Step) -> None:
    session.record({"train/loss": step.loss})
    if step.number % 2:
        session.record({"norm": session.model.weight.detach().norm()})


def test_what_is_the_same_on_all_workers_is_recorded_once(ran: Callable[..., Any]) -> None:
    (alone,) = ran(Habit(after=alike), all_of(0))
    assert [name for step, name, _ in alone["values"] if step == 2] == ["train/loss", "norm"]
    joins = (all_of(0, 1), Generation((0, 1, 2), after=2))
    behind = (all_of(0, 1, 2), all_of(2, 0, 1))
    for script, slips in (((all_of(0, 1),), ()), (joins, ()), (behind, (Slip(1, "sum", 3),))):
        for found in ran(Habit(after=alike), *script, slips=slips):
            assert found["values"] == alone["values"]


def unlike(session: Session, step: Step) -> None:
    session.record({"same": 1.0})
    if step.number == 2:
        session.record({"mine": float(session.rank)})


def by_the_first(session: Session, step: Step) -> None:
    if session.rank == 0:
        session.record({"led": 1.0})


def at_the_end(session: Session) -> None:
    session.record({"last": float(session.rank)})


@pytest.mark.parametrize(
    ("habit", "said"),
    [
        (Habit(after=unlike), r"'mine' = 0\.0 on worker 0, 1\.0 on 1.*step\.record\(name, value\)"),
        (Habit(after=by_the_first), r"'led' on some workers only.*step\.record"),
        (Habit(end=at_the_end), r"'last' = 0\.0 on worker 0, 1\.0 on 1.*per_worker=True"),
    ],
)
@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_what_differs_between_workers_is_refused(habit: Habit, said: str, mode: str, ran: Callable[..., Any]) -> None:
    ran(habit, all_of(0), mode=mode)  # nobody to differ from
    with pytest.raises(AssertionError, match=rf"BadInput.*{said}"):
        ran(habit, all_of(0, 1), mode=mode)


def each_its_own(session: Session, step: Step) -> None:
    session.record({"rank": session.rank}, per_worker=True)


def test_each_workers_own_is_kept_under_its_name(ran: Callable[..., Any]) -> None:
    for number, found in enumerate(ran(Habit(after=each_its_own), all_of(0, 1))):
        assert found["owned"] == [(step + 1, f"rank/w{number}", float(number)) for step in range(STEPS)]
        assert found["values"] == []


# -- metrics by name -------------------------------------------------------------------------------------------------


def by_class(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Of each class that is in the batch, and one that a single batch has."""
    found: dict[str, Any] = {"rows": 1.0}
    for label in batch["y"].unique().tolist():
        found[f"mark_{label}"] = 10.0 * (label + 1)
    if 5 in batch["id"].tolist():
        found["fifth"] = torch.tensor(2.5)
        found["odd"] = float("nan")
    return found


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_a_metric_that_some_batches_have_is_the_mean_over_their_rows(mode: str, ran: Callable[..., Any]) -> None:
    (alone,) = ran(Habit(metrics=by_class), all_of(0), mode=mode)
    assert {n: v for n, v in alone["metrics"].items() if n != "odd"} == {
        "fifth": 2.5, "mark_0": 10.0, "mark_1": 20.0, "rows": 1.0
    }  # fmt: skip
    assert alone["metrics"]["odd"] != alone["metrics"]["odd"]
    assert [note for note in alone["notes"] if "odd" in note and "NaN" in note]
    for workers in (2, 3) if mode == "order" else (3,):
        for found in ran(Habit(metrics=by_class), all_of(*range(workers)), mode=mode):
            assert repr(found["metrics"]) == repr(alone["metrics"])


def no_dict(model: nn.Module, batch: Any) -> Any:
    return torch.tensor(1.0)


def a_list(model: nn.Module, batch: Any) -> Any:
    return {"all": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [(no_dict, r"metrics\(\) returned a Tensor"), (a_list, r"metrics\(\) was given a list for 'all'")],
)
def test_metrics_that_are_no_numbers_are_refused(metrics: Any, said: str, ran: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=rf"BadInput.*{said}"):
        ran(Habit(metrics=metrics), all_of(0))
