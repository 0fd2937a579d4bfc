"""Whole elastic runs without Ray: whatever happens to the workers, the run ends as if nothing had.

The model's sums are exact in any order (dyadic numbers in float64), so that results can be compared to the bit though
lanes move: an update that was missed, applied twice, or computed from other samples or other randomness shows.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headway.checkpoint.store import Store
from headway.core.events import Launch
from headway.core.ledger import Ledger
from headway.core.membership import READY
from headway.data.read.streams import open_readers
from headway.elastic.worker.context import Context
from headway.elastic.worker.engine import now
from headway.elastic.worker.evaluation import Evaluation
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.elastic.worker.standing import Standing
from headway.job import Job, parse
from headway.strategies import PeerLost
from headway.testing.elastic import Outcome, Run, advance

LANES = 4
STEPS = 24


class Exact(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(4, dtype=torch.float64))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x.double() * 4).round() / 4
        if self.training:
            self.seen += x.mean(0) / 16
            self.batches += 1
            x = nn.functional.dropout(x, 0.5)
        return (x @ self.weight).mean()


class Counter:
    """State of the user's own."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows: 4 full steps per epoch."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


def job(data: Path, **fields: Any) -> Job:
    workers = {"min": 1, "max": 3, "silence_s": 1.0, "hang_s": 5.0, **fields.pop("workers", {})}
    tree = {
        "name": "n",
        "task": "t.py:T",
        "data": {"train": str(data / "train"), "validation": str(data / "val")},
        "lanes": LANES,
        "lane_batch": 4,
        "steps": STEPS,
        "seed": 3,
        "checkpoint": {"every_steps": 7},
        "replica_check_every": 5,
        "workers": workers,
    }
    return parse({**tree, **fields})


Hook = Callable[[Context, Session, int, str], None]


def run_of(context: Context) -> Path:
    """The run's folder."""
    return Path(context.saver.store.root.url).parent


def train(context: Context, pace_s: float = 0.0, hook: Hook | None = None) -> dict[str, Any]:
    """A loop with all that a user may do: evaluation, numbers and state of their own.

    Args:
        pace_s: so long a lane takes at least.
        hook: called as hook(context, session, step, where), to do harm.
    """
    model, counter = Exact(), Counter()
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-6, momentum=0.5)
    session = Session(context, model, optimizer, lambda o, steps: torch.optim.lr_scheduler.StepLR(o, 8, 0.5))
    session.register("counter", counter)

    def at(where: str) -> None:
        if hook is not None:
            hook(context, session, session.step, where)

    with session:
        for step in session.steps():
            at("before")
            for batch in step.lanes():
                time.sleep(pace_s)
                at("lane")
                if int(batch["id"][0]) % 3:  # of some lanes only
                    step.record("ids", batch["id"].double().mean() / 3)
                step.backward(model(batch["x"]))
            advance(session.step)
            at("after")
            counter.count += 1
            session.record({"counted": float(counter.count)})
            if step.last_of_epoch:
                session.evaluate(lambda m, b: at("evaluate") or {"value": m(b["x"])})  # type: ignore[func-returns-value]
                at("evaluated")
    state = optimizer.state_dict()["state"][0]["momentum_buffer"]
    return {
        "weight": model.weight.tolist(),
        "seen": model.seen.tolist(),  # type: ignore[operator]
        "batches": int(model.batches),  # type: ignore[arg-type]
        "momentum": state.tolist(),
        "rate": optimizer.param_groups[0]["lr"],
        "count": counter.count,
        "step": session.step,
    }


class Calm:
    """A run that nothing happens to, in this process."""

    def __init__(self, data: Path, folder: Path) -> None:
        made = job(data)
        training, validation = open_readers(made)
        self.steps: list[dict[str, Any]] = []
        self.values: list[tuple[int, dict[str, float]]] = []
        context = Context(
            job=made, device="cpu", train=training, validation=validation,
            saver=Saver(Store(folder, "a" * 64, made.checkpoint), made.checkpoint, self),  # type: ignore[arg-type]
            journal=self, run="calm", members=Alone(LANES), ledger=Ledger(now()),  # type: ignore[arg-type]
        )  # fmt: skip
        self.result = train(context)
        context.saver.finish()
        context.close()

    stop_requested = False

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self.steps.append({"step": step, "epoch": epoch, "loss": loss, "lr": rate, "rows": rows, "samples": samples})

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.values.append((step, values))

    recorded = metrics

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calm]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Calm(data, tmp_path_factory.mktemp("calm"))
    torch.set_num_threads(threads)


def check(outcome: Outcome, calm: Calm) -> None:
    """The run did what it should, whatever happened."""
    assert outcome.failure is None, outcome.failure
    assert [s["step"] for s in outcome.steps] == list(range(STEPS)), "each step is recorded once, in order"
    for found, wanted in zip(outcome.steps, calm.steps, strict=True):
        assert {name: found[name] for name in wanted} == wanted
    values: dict[int, dict[str, float]] = {}
    for step, value in calm.values:
        values.setdefault(step, {}).update(value)
    assert {m["step"]: m["values"] for m in outcome.evaluations} == values
    assert outcome.results, "somebody reached the end"
    for worker, result in outcome.results.items():
        late = result["count"] - STEPS  # of one that joined after the last step, whose loop went round for nothing
        assert late in (0, 1)
        assert {**result, "count": STEPS} == calm.result, worker
    assert outcome.facts["weights_sha256"]
    assert all(seconds >= -1e-6 for seconds in outcome.account.values()), outcome.account


def test_an_undisturbed_run(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train) as run:
        outcome = run.result()
    check(outcome, calm)
    assert len(outcome.results) == 3


def test_a_member_killed_in_mid_step(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, 0.005, hold=9) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 5)
        victim = run.members[1]
        run.places(-1)  # nobody takes its place
        run.kill(victim)
        run.release()
        outcome = run.result()
    check(outcome, calm)
    (recovery,) = [e for e in outcome.of("recovery") if e["cause"] == "process_died"]
    assert list(recovery["workers"]) == [victim]
    assert recovery["detected_at"] <= recovery["resumed_at"]


def wait_for_the_others() -> None:
    """Until they most probably have received all; if not, the exchange is repeated, and lost once more."""
    time.sleep(0.3)


def lose_after_step_9(context: Context, session: Session, step: int, where: str) -> None:
    """The second worker's exchange of step 9 breaks when the others have what they need."""
    if (where, step, context.members.alone().names[0]) != ("lane", 9, "w1"):
        return
    pact = session.engine.pact
    whole = pact.sum

    def lose(tail: torch.Tensor) -> Any:
        whole(tail)
        wait_for_the_others()
        raise PeerLost("scripted")

    pact.sum = lose  # type: ignore[method-assign]


def lose_after_evaluation(context: Context, session: Session, step: int, where: str) -> None:
    """The second worker does not get the evaluation's outcome, which the others have."""
    worker, outcome = context.members.alone().names[0], run_of(context) / "evaluated"
    if (where, step, worker) == ("evaluated", 8, "w0"):
        outcome.touch()
    if (where, step, worker) != ("after", 8, "w1"):
        return
    real = Evaluation.means

    def means(evaluation: Evaluation) -> dict[str, float]:
        Evaluation.means = real  # type: ignore[method-assign]
        real(evaluation)
        deadline = time.monotonic() + 10.0
        while not outcome.exists() and not context.members.broken and time.monotonic() < deadline:
            time.sleep(0.005)
        raise PeerLost("scripted")

    Evaluation.means = means  # type: ignore[method-assign]


@pytest.mark.parametrize("hook", [lose_after_step_9, lose_after_evaluation])
def test_a_survivor_that_is_behind_levels_up(tmp_path: Path, data: Path, calm: Calm, hook: Hook) -> None:
    """What its loop does after the step is done once, and it can lead from then on."""
    with Run(tmp_path / "run", job(data), train, 0.005, hook, places=3) as run:
        run.wait_until(lambda: run.step >= 14)
        run.places(-1)
        run.kill("w0")
        outcome = run.result()
    check(outcome, calm)
    assert "scripted" in {e["reason"] for e in outcome.of("lost")}


def level_up_at_the_second_attempt(context: Context, session: Session, step: int, where: str) -> None:
    """As above, with a state that is too large to be kept beside what comes, and a break while it comes."""
    lose_after_step_9(context, session, step, where)
    if (where, step, context.members.alone().names[0]) != ("lane", 9, "w1"):
        return
    from headway.elastic.worker import transfer

    transfer.EXTRA_BYTES = 0
    pact = type(session.engine.pact)
    whole = pact.take

    def take(self: Any, *arguments: Any) -> Any:
        pact.take = whole  # type: ignore[method-assign]
        whole(self, *arguments)
        raise PeerLost("scripted")

    pact.take = take  # type: ignore[method-assign]


def test_2_12_a_survivor_that_levels_up_at_the_second_attempt_keeps_its_own_state(
    tmp_path: Path, data: Path, calm: Calm
) -> None:
    """What its loop does after the step would be done twice upon the others' state."""
    with Run(tmp_path / "run", job(data), train, 0.005, level_up_at_the_second_attempt, places=3) as run:
        outcome = run.result()
    check(outcome, calm)
    assert {worker: result["count"] for worker, result in outcome.results.items()} == dict.fromkeys(
        ("w0", "w1", "w2"), STEPS
    )


def get_half_an_outcome(context: Context, session: Session, step: int, where: str) -> None:
    """The second worker is behind by an evaluation, and what it is handed breaks off with its source's death."""
    lose_after_evaluation(context, session, step, where)
    if (where, step, context.members.alone().names[0]) != ("after", 8, "w1"):
        return
    from headway.elastic.worker import transfer

    transfer.EXTRA_BYTES = 0
    pact, half = type(session.engine.pact), run_of(context) / "half"

    def take(*arguments: Any) -> Any:
        half.touch()
        while not context.members.broken:
            time.sleep(0.005)
        raise PeerLost("scripted")

    pact.take = take  # type: ignore[method-assign]


def test_2_13_nobody_goes_back_to_a_checkpoint_in_mid_evaluation(tmp_path: Path, data: Path, calm: Calm) -> None:
    """Its loop would go on behind the step, with the state before it, and with lanes' sums of both."""
    with Run(tmp_path / "run", job(data), train, 0.005, get_half_an_outcome, places=2) as run:
        run.wait_until((run.folder / "half").exists)
        run.places(-1)
        run.kill("w0")
        outcome = run.result()
    check(outcome, calm)


def wait_in_evaluation(context: Context, session: Session, step: int, where: str) -> None:
    flag = run_of(context) / "go-on"
    while (where, step) == ("evaluate", 8) and not flag.exists() and not context.members.broken:
        time.sleep(0.005)


def test_one_joins_where_another_dies_in_mid_evaluation(tmp_path: Path, data: Path, calm: Calm) -> None:
    """It must not begin the next step while the others still evaluate."""
    with Run(tmp_path / "run", job(data), train, 0.0, wait_in_evaluation, places=2) as run:
        run.wait_until(lambda: run.step >= 8)
        run.places(1)
        known = run.coordinator.membership.workers
        run.wait_until(lambda: "w2" in known and known["w2"].phase != "warming")
        run.kill("w0")
        (run.folder / "go-on").touch()
        outcome = run.result()
    check(outcome, calm)
    members = [e["members"] for e in outcome.of("generation")]
    assert members[1] == ("w1",), "nobody new in mid-evaluation"
    assert ("w1", "w2") in members[2:]


def die_while_the_last_checkpoint_is_written(context: Context, session: Session, step: int, where: str) -> None:
    if (where, step, context.members.alone().names[0]) == ("after", STEPS, "w0"):
        context.saver.store.write = lambda *arguments: kill_me()  # type: ignore[method-assign]


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_leader_dies_while_it_writes_the_last_checkpoint(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, 0.0, die_while_the_last_checkpoint_is_written) as run:
        outcome = run.result()
    check(outcome, calm)
    store = Store(tmp_path / "run/checkpoints", "a" * 64, job(data).checkpoint)
    assert store.committed()[-1].step == STEPS


def test_all_die_and_the_run_goes_on_from_its_checkpoint(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, 0.02, hold=14) as run:
        run.wait_until(lambda: run.step >= 12)
        for worker in list(run.processes):
            run.kill(worker)
        run.release()
        outcome = run.result()
    check(outcome, calm)
    assert len(outcome.of("generation")) > 1


def test_where_nobody_had_a_state_it_is_told_at_which_step_all_begin(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[int] = []
    monkeypatch.setattr(Alone, "began", lambda self, step: begins.append(step))
    Calm(data, tmp_path / "run")
    assert begins == [0]


def spare_of(run: Run) -> str:
    """Waits for one that stands by while others train."""
    known = run.coordinator.membership.workers
    run.wait_until(lambda: any(w.phase == READY for w in list(known.values())) and run.step >= 2)
    return next(name for name, w in known.items() if w.phase == READY)


STRUCK = 6
"""Steps done when one is killed; an evaluation comes after each fourth."""


def until_one_is_killed(context: Context, session: Session, step: int, where: str) -> None:
    """Nobody gets on with the seventh step before `strike`: a spare may take its time to come, and a run ends."""
    if where == "before" and step == STRUCK and session.engine.standing is not Standing.REHEARSING:
        until = time.monotonic() + 60
        while not (run_of(context) / "struck").exists() and time.monotonic() < until:
            time.sleep(0.005)


def strike(run: Run, victim: str) -> None:
    """Kill one while all stand, and let the others get on: in an evaluation, whoever is new would wait for its end."""
    run.wait_until(lambda: run.step >= STRUCK)
    run.kill(victim)
    (run.folder / "struck").touch()


def test_a_spare_begins_at_once_when_the_last_worker_dies(tmp_path: Path, data: Path, calm: Calm) -> None:
    made = job(data, workers={"max": 1, "spares": 1}, checkpoint={"every_steps": 1})
    with Run(tmp_path / "run", made, train, 0.05, until_one_is_killed) as run:
        spare = spare_of(run)
        (member,) = run.members
        strike(run, member)
        outcome = run.result()
    check(outcome, calm)
    first, second, *_ = outcome.of("generation")
    assert (first["members"], second["members"]) == ((member,), (spare,))
    assert outcome.account["spare"] > 0


def rehearses_when_all_are_gone(context: Context, session: Session, step: int, where: str) -> None:
    """Whoever comes while somebody trains gets on only when those are known to be gone; see `until_one_is_killed`."""
    until_one_is_killed(context, session, step, where)
    folder, until = run_of(context), time.monotonic() + 60
    if where == "before" and session.engine.standing is Standing.REHEARSING and (folder / "comes").exists():
        (folder / "rehearses").touch()
        while not session.engine.members.broken and time.monotonic() < until:
            time.sleep(0.005)


def test_who_rehearses_while_the_last_worker_dies_begins_from_the_checkpoint(
    tmp_path: Path, data: Path, calm: Calm
) -> None:
    """It needs nobody for that: that a member is gone is no fault of its own, and ends no run."""
    made = job(data, workers={"max": 2, "hang_s": 60.0, "silence_s": 10.0}, checkpoint={"every_steps": 1})
    with Run(tmp_path / "run", made, train, 0.0, rehearses_when_all_are_gone, places=1) as run:
        run.wait_until(lambda: run.step >= STRUCK)
        (member,) = run.members
        (run.folder / "comes").touch()
        run.places(2)
        run.wait_until(lambda: (run.folder / "rehearses").exists())
        (run.folder / "comes").unlink()
        strike(run, member)
        outcome = run.result()
    check(outcome, calm)
    assert outcome.of("raised") == []
    assert "w1" in outcome.of("generation")[1]["members"]


def test_a_spare_joins_as_soon_as_the_others_have_gone_on(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, workers={"max": 2, "spares": 1}), train, 0.05, until_one_is_killed) as run:
        spare, (victim, other) = spare_of(run), run.members
        strike(run, victim)
        outcome = run.result()
    check(outcome, calm)
    members = [e["members"] for e in outcome.of("generation")]
    assert members[1:3] == [(other,), (other, spare)]
    assert other in outcome.results


def test_a_spare_is_seated_with_the_others_where_all_are_needed(tmp_path: Path, data: Path, calm: Calm) -> None:
    made = job(data, workers={"min": 2, "max": 2, "spares": 1})
    with Run(tmp_path / "run", made, train, 0.05, until_one_is_killed) as run:
        spare, (victim, other) = spare_of(run), run.members
        strike(run, victim)
        outcome = run.result()
    check(outcome, calm)
    assert [set(e["members"]) for e in outcome.of("generation")][1] == {other, spare}
    assert not outcome.of("pause")


def test_a_spare_that_dies_changes_nothing_for_the_others(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, workers={"max": 2, "spares": 1}), train, 0.1, until_one_is_killed) as run:
        spare = spare_of(run)
        run.kill(spare)
        run.wait_until(lambda: "w3" in run.coordinator.membership.workers)
        (run.folder / "struck").touch()
        outcome = run.result()
    check(outcome, calm)
    assert len(outcome.of("generation")) == 1
    assert not outcome.of("recovery")


def tell_what_is_held(context: Context, session: Session, step: int, where: str) -> None:
    """Windows of rows in memory while the rehearsal reads, and when the worker has rehearsed."""
    held = context.train._sources[0]._held  # type: ignore[attr-defined]
    folder = run_of(context)
    if where == "lane" and session.engine.standing is Standing.REHEARSING:
        (folder / "rehearsing").write_text(str(len(held)))

    def trouble(point: str, model: Any, step: int) -> None:
        if point == "join":
            windows = context.train._sources[0]._held  # type: ignore[attr-defined]
            (folder / "waiting").write_text(str(len(windows)))

    context.trouble = trouble


def test_a_spare_holds_no_rows_while_it_waits(tmp_path: Path, data: Path) -> None:
    made = job(data, workers={"max": 1, "spares": 1})
    with Run(tmp_path / "run", made, train, 0.1, tell_what_is_held) as run:
        spare_of(run)
        told = [run.folder / name for name in ("rehearsing", "waiting")]
        run.wait_until(lambda: all(file.exists() and file.read_text() for file in told))
        assert int(told[0].read_text()) > 0
        assert told[1].read_text() == "0"


def test_a_spare_that_stands_still_is_replaced_before_it_is_needed(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, workers={"max": 1, "spares": 1}), train, 0.2) as run:
        spare = spare_of(run)
        run.stop(spare)
        run.wait_until(lambda: spare not in run.coordinator.membership.workers)
        outcome = run.result()
    check(outcome, calm)
    assert len(outcome.of("generation")) == 1


def test_a_spare_that_stands_by_costs_next_to_nothing(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data, workers={"max": 1, "spares": 1}), train, 0.2) as run:
        process = run.processes[spare_of(run)].pid

        def spent_s() -> float:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        before, begun = spent_s(), time.monotonic()
        run.wait_until(lambda: time.monotonic() - begun > 2.0)
        share = (spent_s() - before) / (time.monotonic() - begun)
    assert share < 0.1, f"{share:.1%} of a core"


def test_places_are_filled_in_the_order_asked_for(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data), train, places=0) as run:
        run.wait_until(lambda: len(run._slots.waiting) == 3)
        asked = [*run._slots.waiting, *(f"x{number}" for number in range(50))]
        for worker in asked[3:]:
            run.launch(Launch(worker, 0.0, "a test"))
        assert run._slots.waiting == asked == ["w0", "w1", "w2", *asked[3:]]


def test_a_drained_worker_leaves_before_its_deadline(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, 0.0, a_second_a_step_until_told, places=3, leave_s=9.5) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 1)
        run.places(-1)
        run.drain("w0", 10.0)
        run.wait_until(lambda: "w0" not in run.members)
        (run.folder / "go-on").touch()
        outcome = run.result()
    check(outcome, calm)
    (recovery,) = outcome.of("recovery")
    assert (recovery["cause"], list(recovery["workers"])) == ("drained", ["w0"])


def a_second_a_step_until_told(context: Context, session: Session, step: int, where: str) -> None:
    begun = time.monotonic()
    while where == "before" and not (run_of(context) / "go-on").exists() and time.monotonic() - begun < 1.0:
        time.sleep(0.01)


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_another_size_while_it_runs_changes_nothing_else(mode: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    """More than the job ever said, and fewer: the places that it leaves are free at once."""
    fields = {"workers": {"max": 2, "hang_s": 30.0}, "reproducible": mode}
    with Run(tmp_path / "run", job(data, **fields), train, 0.0, a_second_a_step_until_told, places=4) as run:
        run.wait_until(lambda: len(run.members) == 2 and run.step >= 1)
        run.resize(1, 4)
        run.wait_until(lambda: len(run.members) == 4)
        run.resize(1, 1)
        run.wait_until(lambda: len(run.members) == 1 and run._slots.free == 3)
        (run.folder / "go-on").touch()
        outcome = run.result()
    check(outcome, calm)
    assert [len(e["members"]) for e in outcome.of("generation")][-1] == 1
    assert outcome.facts["target"] == {"min": 1, "max": 1, "request": "", "at_once": 1}
    assert [(e["min"], e["max"], e["by"]) for e in outcome.of("resize")] == [(1, 4, "mary"), (1, 1, "mary")]


def test_a_stopped_worker_is_given_up_and_may_not_come_back(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, 0.01, places=3, hold=6) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 3)
        run.places(-1)
        run.stop("w2")
        run.release()
        outcome = run.result()
        run.resume("w2")
    check(outcome, calm)
    (recovery,) = outcome.of("recovery")
    assert (recovery["cause"], list(recovery["workers"])) == ("stopped", ["w2"])
    assert recovery["silent_s"] >= 2.0


def hang_at_step_6(context: Context, session: Session, step: int, where: str) -> None:
    while (where, step, context.members.alone().names[0]) == ("lane", 6, "w1"):
        time.sleep(0.1)


@pytest.mark.parametrize("mode", ["order", "bitwise"])  # where the others then wait differs
def test_a_training_thread_that_hangs_is_given_up(mode: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, reproducible=mode), train, 0.0, hang_at_step_6) as run:
        outcome = run.result()
    check(outcome, calm)
    assert [(e["cause"], list(e["workers"])) for e in outcome.of("recovery") if e["cause"] != "joined"] == [
        ("hung", ["w1"])
    ]


def raise_at_step_5(context: Context, session: Session, step: int, where: str) -> None:
    if (where, step) == ("lane", 5):
        raise ValueError("the user's mistake")


def test_what_the_users_code_raises_ends_the_run(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data), train, 0.0, raise_at_step_5) as run:
        outcome = run.result()
    assert "the user's mistake" in str(outcome.failure)
    assert [s["step"] for s in outcome.steps] == list(range(len(outcome.steps)))


def corrupt_at_step_10(context: Context, session: Session, step: int, where: str) -> None:
    if (where, step, context.members.alone().names[0]) == ("before", 10, "w1"):
        with torch.no_grad():
            session.model.weight.view(torch.int64)[2] ^= 1 << 40  # type: ignore[union-attr,operator,index]


@pytest.mark.parametrize("workers", [3, 2])
def test_a_flipped_bit_is_found(tmp_path: Path, data: Path, calm: Calm, workers: int) -> None:
    """And healed from the majority, if there is one."""
    whole = job(data, workers={"min": workers})  # nobody comes after the step
    with Run(tmp_path / "run", whole, train, 0.0, corrupt_at_step_10, places=workers) as run:
        outcome = run.result()
    if workers == 2:
        assert "none has a majority" in str(outcome.failure)
        return
    check(outcome, calm)
    (event,) = outcome.of("replica")
    assert (event["worker"], event["step"]) == ("w1", 10)


def hold_the_lock(context: Context, session: Session, step: int, where: str) -> None:
    """Foreign code that holds the interpreter's lock for five times `silence_s`, in the first step."""
    if (where, step, context.members.alone().names[0]) == ("lane", 0, "w1"):
        ctypes.PyDLL(None).usleep(5_000_000)


def test_2_8_code_that_holds_the_interpreters_lock_is_no_death(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, workers={"hang_s": 20.0}), train, 0.0, hold_the_lock) as run:
        outcome = run.result()
    check(outcome, calm)
    assert outcome.of("recovery") == []
    assert len(outcome.results) == 3


def break_a_disk(context: Context, session: Session, step: int, where: str) -> None:
    if (where, context.members.alone().names[0]) == ("lane", "w1") and step >= 8:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_2_3_a_member_whose_hardware_fails_leaves_and_the_others_go_on(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, 0.005, break_a_disk) as run:
        run.wait_until(lambda: len(run.members) == 3)
        run.places(-1)
        outcome = run.result()
    check(outcome, calm)
    assert [e["worker"] for e in outcome.of("raised")] == ["w1"]
    assert ("hardware", ("w1",)) in [(e["cause"], tuple(e["workers"])) for e in outcome.of("recovery")]


def refuse_to_start(worker: str) -> None:
    if worker in ("w2", "w3"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/mnt/data")


def test_2_3_joiners_that_raise_in_their_set_up_are_failed_starts(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, 0.02, places=3, setup=refuse_to_start) as run:
        outcome = run.result()
    check(outcome, calm)
    assert {"w2"} <= {e["worker"] for e in outcome.of("raised")} <= {"w2", "w3"}
    assert all(e["starting"] and e["fault"] == "machine" for e in outcome.of("raised"))


def never_start(worker: str) -> None:
    raise ValueError("this job cannot work anywhere")


def test_2_3_where_nobody_can_start_the_run_fails_with_that_reason(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data), train, setup=never_start) as run:
        outcome = run.result()
    assert "this job cannot work anywhere" in str(outcome.failure)


def get_half_a_state(context: Context, session: Session, step: int, where: str) -> None:
    """What the first that joins is handed breaks off in the middle, for good: its source is killed then."""
    if (where, step, context.members.alone().names[0]) != ("lane", 0, "w1"):
        return
    pact, half = type(session.engine.pact), run_of(context) / "half"

    def take(self: Any, source: int, receivers: Any, into: Any) -> Any:
        with torch.no_grad():
            into["parts"]["model"]["weight"][:2] = 7.0
        half.touch()
        while not context.members.broken:
            time.sleep(0.005)
        raise PeerLost("scripted")

    pact.take = take  # type: ignore[method-assign]


def test_2_1_half_a_state_is_no_beginning(tmp_path: Path, data: Path, calm: Calm) -> None:
    """There is no checkpoint yet, and nobody else is left: whoever has it must not go on from it."""
    made = job(data, checkpoint={"every_steps": 1000})
    with Run(tmp_path / "run", made, train, 0.08, get_half_a_state, places=1, hold=3) as run:
        run.join()
        run.wait_until((run.folder / "half").exists)
        run.kill("w0")
        outcome = run.result()
    check(outcome, calm)


def scheduled(seed: int, folder: Path, data: Path) -> Outcome:
    """A run with random harm."""
    draw = random.Random(seed)
    most = draw.choice([2, 3, 3])
    fewest = draw.choice([1, 1, 2])
    workers = {"min": fewest, "max": most, "spares": seed % 2}
    with Run(folder, job(data, workers=workers), train, draw.choice([0.0, 0.005, 0.02])) as run:
        for at in sorted(draw.sample(range(STEPS), draw.randint(1, 4))):
            harm = draw.choice(["kill", "kill", "kill", "kill two", "stop", "drain", "room"])
            try:
                run.wait_until(lambda at=at: run.step >= at)  # type: ignore[misc]
            except AssertionError:
                if run._over.is_set():
                    break
                raise
            # One that stands still before it is a member is given a minute.
            there = sorted(run.members if harm == "stop" else run.processes)
            victims = draw.sample(there, min(len(there), 2 if harm == "kill two" else 1))
            print(f"seed {seed}: at step {run.step} {harm} {victims} of {run.members}")
            for victim in victims:
                if harm.startswith("kill"):
                    run.kill(victim)
                elif harm == "stop":
                    run.stop(victim)
                elif harm == "drain":
                    run.drain(victim, draw.choice([0.5, 3.0]))
        return run.result()


@pytest.mark.parametrize("seed", range(6))
def test_random_harm(seed: int, tmp_path: Path, data: Path, calm: Calm) -> None:
    check(scheduled(seed, tmp_path / "run", data), calm)


def noted(context: Context) -> dict[str, Any]:
    """The loop above, with a note of every row that is evaluated; the second worker stands still in its first batch of
    step 8's."""
    folder, worker = run_of(context), context.members.alone().names[0]

    def note(session: Session, batch: dict[str, torch.Tensor]) -> None:
        with (folder / f"evaluated-{worker}").open("a") as file:
            file.writelines(f"{session.step} {row}\n" for row in batch["id"].tolist())
        while (session.step, worker) == (8, "w1"):
            time.sleep(0.01)

    model = Exact()
    session = Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None)
    found = {}
    with session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"]))
            advance(session.step)
            if step.last_of_epoch:
                found[session.step] = session.evaluate(
                    lambda m, b: note(session, b) or {"value": m(b["x"])}  # type: ignore[func-returns-value]
                )["value"]
    return found


def test_2_13_lanes_that_were_evaluated_stay_so_when_a_member_dies(tmp_path: Path, data: Path) -> None:
    """And one that waits to join is not seated meanwhile."""
    with Run(tmp_path / "run", job(data, workers={"max": 3}), noted, places=2) as run:
        stands = run.folder / "evaluated-w1"
        run.wait_until(lambda: stands.exists() and "8 " in stands.read_text())
        done = run.folder / "evaluated-w0"
        run.wait_until(lambda: done.read_text().count("\n8 ") == 8, 30)
        run.places(1)
        known = run.coordinator.membership.workers
        run.wait_until(lambda: "w2" in known and known["w2"].phase != "warming")
        run.kill("w1")
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    rows = [line for line in done.read_text().split("\n") if line.startswith("8 ")]
    assert sorted(rows) == sorted({f"8 {row}" for row in range(16)}), "each row once"
    assert [tuple(e["members"]) for e in outcome.of("generation")][1] == ("w0",)
    values = [result[8] for result in outcome.results.values() if 8 in result]
    assert values
    assert len(set(values)) == 1
