"""Whole elastic runs of every strategy: the same bits on any number of workers, whoever dies, leaves or comes, in the
middle of a round or at its end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_elastic_run import data as data
from tests.waiting import until
from torch import nn

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.job import Job, parse
from headway.testing.elastic import Outcome, Run, advance

LANES, STEPS = 8, 22
KINDS: dict[str, dict[str, Any]] = {
    "local_sgd": {"kind": "local_sgd", "every": 4},
    "local_sgd of weights": {"kind": "local_sgd", "every": 4, "average": "weights"},
    "diloco": {"kind": "diloco", "every": 5},
    "diloco in fragments": {"kind": "diloco", "every": 6, "fragments": 2},
    "diloco with overlap": {"kind": "diloco", "every": 10, "fragments": 2, "overlap": 2},
    "diloco with overlap in int8": {
        "kind": "diloco",
        "every": 5,
        "overlap": 3,
        "compression": {"kind": "int8", "dense_below": 0},
    },
    "diloco in int8": {"kind": "diloco", "every": 5, "compression": {"kind": "int8", "dense_below": 0}},
    "ssp": {"kind": "parameter_server", "consistency": "ssp", "staleness": 2, "every": 5},
    "asp": {"kind": "parameter_server", "consistency": "asp", "every": 5},
    "backup workers": {"kind": "parameter_server", "backup_workers": 1, "every": 5},
    "gossip": {"kind": "gossip", "average_every": 3},
    "int8": {"kind": "all_reduce", "compression": {"kind": "int8", "dense_below": 8}},
    "top_k with momentum": {
        "kind": "all_reduce",
        "compression": {
            "kind": "top_k",
            "ratio": 0.1,
            "dense_below": 8,
            "momentum": 0.5,
            "warm_up": 8,
            "local_clip": 4.0,
        },
    },
    "power_sgd": {"kind": "all_reduce", "compression": {"kind": "power_sgd", "rank": 2, "dense_below": 8}},
    "parameter_server": {"kind": "parameter_server"},
    "gossip on a graph": {"kind": "gossip", "graph": "exponential", "every": 2, "average_every": 4},
}
COMPRESSED = [name for name, each in KINDS.items() if "compression" in each and each["kind"] == "all_reduce"]
"""What such a replica left out is lost with a worker that dies without notice: its run ends with other bits."""
UPDATES = {"ssp": 4, "asp": 4, "backup workers": 3}
"""Of a step of four replicas, where each makes one by itself, or takes part in one."""
UNREPEATABLE = [*UPDATES]
FEW = ("top_k with momentum", "parameter_server", "ssp", "backup workers")
"""That all is done to in every tier: of each mechanism one; tests/contract/test_replicas.py has those that meet."""


def chosen(names: Iterable[str]) -> pytest.MarkDecorator:
    """These kinds; others than a few at length only."""
    return pytest.mark.parametrize(
        "kind", [name if name in FEW else pytest.param(name, marks=pytest.mark.long) for name in names]
    )


every_kind = pytest.mark.parametrize("kind", KINDS)
kinds = chosen(KINDS)
exact = chosen([name for name in KINDS if name not in COMPRESSED])


def job(data: Path, kind: str, workers: int = 4, **fields: Any) -> Job:
    tree = {
        "name": "n",
        "task": "t.py:T",
        "data": {"train": str(data / "train"), "validation": str(data / "val")},
        "lanes": LANES,
        "lane_batch": 2,
        "steps": STEPS,
        "seed": 3,
        "checkpoint": {"every_steps": 7},
        "replica_check_every": 5,
        "reproducible": "order" if kind in UNREPEATABLE else "bitwise",
        "strategy": {**({} if kind == "parameter_server" else {"replicas": 4}), **KINDS[kind]},
        # One that has no processor for some seconds is not lost: those that are to be lost are killed.
        "workers": {"min": 1, "max": workers, "silence_s": 10.0, "hang_s": 60.0},
    }
    return parse({**tree, **fields})


def all_there(made: Job) -> Job:
    """Nobody begins before all are there, however long they take."""
    return made.model_copy(update={"workers": made.workers.model_copy(update={"min": made.workers.max})})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Linear(16, 1)
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(x)))
        found: torch.Tensor = self.last(nn.functional.dropout(hidden, 0.2, self.training))
        return found.square().mean()


def train(context: Context, pace_s: float = 0.0, optimizer: str = "adamw") -> dict[str, Any]:
    torch.set_num_threads(1)
    model = Net()
    made: torch.optim.Optimizer = (
        torch.optim.AdamW(model.parameters(), lr=2**-6)
        if optimizer == "adamw"
        else torch.optim.SGD(model.parameters(), lr=2**-5, momentum=0.9)
    )
    session = Session(context, model, made, lambda o, steps: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps))
    found = []
    with session:
        for step in session.steps():
            for batch in step.lanes():
                time.sleep(pace_s)
                step.record("ids", batch["id"].double().mean())
                step.backward(model(batch["x"].float()))
            advance(session.step)
            if step.last_of_epoch:
                found.append(session.evaluate(lambda m, b: {"value": m(b["x"].float())}))
        served = session.engine.rounds.served if session.engine.rounds is not None else None
        versions = {n: tree["at"] for n, tree in served.trees().items()} if served is not None else {}
    return {
        "weights": {name: value.clone().numpy() for name, value in model.state_dict().items()},
        "step": session.step,
        "versions": versions,
        "evaluated": found,
    }


def done(run: Run, deadline_s: float = 90.0) -> Outcome:
    outcome = run.result(deadline_s)
    assert outcome.failure is None, outcome.failure
    return outcome


def same(outcome: Outcome, calm: Outcome, kind: str = "") -> None:
    """To the bit: weights, losses, samples, records; of what hangs on who comes first, the samples alone."""
    roughly = kind in UNREPEATABLE
    assert [line["step"] for line in outcome.steps] == list(range(STEPS))
    keys = ("step", "lr", "epoch") + (() if roughly else ("loss",)) + (() if kind == "backup workers" else ("samples",))
    told = [[{key: line.get(key) for key in keys} for line in each.steps] for each in (outcome, calm)]
    assert told[0] == told[1]
    wanted = next(iter(calm.results.values()))["weights"]
    assert outcome.results
    for name, found in outcome.results.items():
        for key, value in found["weights"].items():
            assert roughly or (value == wanted[key]).all(), f"{name}: {key}: {value} is not {wanted[key]}"
        if roughly:  # each replica's update of each step is made once, by each range
            assert set(found["versions"].values()) <= {UPDATES[kind] * STEPS}, found["versions"]
    if roughly:
        assert sum(line["loss"] for line in outcome.steps[-6:]) < sum(line["loss"] for line in outcome.steps[:6])


Calm = Callable[[str], Outcome]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Calm:
    """Each kind on one worker, undisturbed."""
    known: dict[str, Outcome] = {}

    def of(kind: str) -> Outcome:
        if kind not in known:
            with Run(tmp_path_factory.mktemp("calm") / "run", job(data, kind, 1), train) as run:
                known[kind] = done(run)
        return known[kind]

    return of


@pytest.mark.parametrize("workers", [3, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 4))])
@every_kind
def test_the_same_bits_on_any_number_of_workers(
    kind: str, workers: int, tmp_path: Path, data: Path, calm: Calm
) -> None:
    with Run(tmp_path / "run", job(data, kind, workers), train) as run:
        same(done(run), calm(kind), kind)


@exact
def test_a_worker_is_killed_in_the_middle_of_a_round(kind: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", all_there(job(data, kind, 3)), train, 0.02, hold=7) as run:
        run.wait_until(lambda: run.step >= 7)
        run.resize(1, 3)
        run.kill("w1")
        run.release()
        outcome = done(run)
    same(outcome, calm(kind), kind)
    assert outcome.of("generation")[1]


@kinds
def test_a_worker_joins_in_the_middle_of_a_round(kind: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, kind, 3), train, 0.01, places=1, hold=6) as run:
        run.join(2)
        outcome = done(run)
    same(outcome, calm(kind), kind)
    assert [len(event["members"]) for event in outcome.of("generation")][-1] > 1


@kinds
def test_resumed_from_a_checkpoint(kind: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data, kind, 2), train, 0.02) as run:
        run.wait_until(lambda: run.step >= 13)
        for worker in list(run.members):
            run.kill(worker)
        outcome = done(run)
    same(outcome, calm(kind), kind)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 8))])
@exact
def test_random_harm(kind: str, seed: int, tmp_path: Path, data: Path, calm: Calm) -> None:
    draw = random.Random(1000 * seed + len(kind))
    with Run(tmp_path / "run", job(data, kind, draw.choice([2, 3, 4])), train, 0.01) as run:
        # Not in the same moment: of two that have each other's copies nothing would be left, see below.
        for at in (draw.randrange(1, 9), draw.randrange(15, STEPS - 1)):
            run.wait_until(lambda at=at: run.step >= at or run._over.is_set())
            victims = [worker for worker in run.members if worker in run.processes]
            if run._over.is_set() or len(victims) < 2:
                break
            victim = draw.choice(victims)
            print(f"seed {seed}: at step {run.step} kill {victim} of {victims}")
            run.kill(victim)
        same(done(run), calm(kind), kind)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_what_was_left_out_is_lost_with_a_worker_that_dies(kind: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", all_there(job(data, kind, 3)), train, 0.02, hold=7) as run:
        run.wait_until(lambda: run.step >= 7)
        run.resize(1, 3)
        run.kill("w1")
        run.release()
        outcome = done(run)
    assert [line["samples"] for line in outcome.steps] == [line["samples"] for line in calm(kind).steps]
    for found, wanted in zip(outcome.steps, calm(kind).steps, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=0.05)


@pytest.mark.parametrize("kind", ["diloco", "parameter_server", "asp", "backup workers"])
def test_two_that_die_at_once_take_their_copies_with_them(kind: str, tmp_path: Path, data: Path) -> None:
    """What is lost begins anew, from the round's beginning or from a checkpoint; every sample is still taken."""
    with Run(tmp_path / "run", job(data, kind, 4), train, 0.02) as run:
        run.wait_until(lambda: run.step >= 8)
        for victim in list(run.members)[1:3]:
            run.kill(victim)
        outcome = done(run)
    assert [line["step"] for line in outcome.steps] == list(range(STEPS))


@kinds
def test_several_leave_at_once_by_plan(kind: str, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", all_there(job(data, kind, 4)), train, 0.02, hold=4) as run:
        run.wait_until(lambda: run.step >= 4)
        run.resize(1, 2)
        run.wait_until(lambda: [len(now.members) for now in (run.coordinator.membership.published,) if now] == [2])
        run.release()
        outcome = done(run)
    same(outcome, calm(kind), kind)
    assert len(outcome.of("generation")[-1]["members"]) == 2


EVERY, SLOW, GRACE_S = 6, 2, 1.5
"""Steps of a round; rounds in which one is slow; for which the others wait for it."""


def paced(context: Context) -> dict[str, Any]:
    """The second worker begins the first rounds when the others come to their ends, and its lanes take long."""
    model = Net()
    session = Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-5), None)
    rows: dict[int, int] = {}
    me, run = context.members.alone().names[0], Path(context.saver.store.root.url).parent
    with session:
        for step in session.steps():
            number, at = divmod(step.number, EVERY)
            for batch in step.lanes():
                if me == "w1" and number < SLOW:
                    until(lambda at=number: len(list(run.glob(f"through-{at}-*"))) == 3, within_s=60.0)
                    time.sleep(GRACE_S / 4)
                elif at == EVERY - 1:
                    (run / f"through-{number}-{me}").touch()
                rows[step.number] = rows.get(step.number, 0) + len(batch["id"])
                step.backward(model(batch["x"].float()))
            advance(session.step)
    return {"weights": {name: value.clone().numpy() for name, value in model.state_dict().items()}, "rows": rows}


def test_a_step_waits_for_all_but_the_backups(tmp_path: Path, data: Path) -> None:
    """Of a slow worker's steps most come too late, and it leaves out those that are complete; then it takes part."""
    made = job(data, "backup workers", 4, strategy={**KINDS["backup workers"], "every": 12, "replicas": 4})
    with Run(tmp_path / "run", made, paced) as run:
        run.wait_until(lambda: len(run.members) == 4)
        outcome = done(run)
    assert [line["step"] for line in outcome.steps] == list(range(STEPS))
    late = outcome.results["w1"]["rows"]
    assert len(set(range(12)) - set(late)) >= 6, "of the slow steps it left most out"
    assert set(range(14, STEPS)) & set(late), "and takes part later"
    others = [set(found["rows"]) for worker, found in outcome.results.items() if worker != "w1"]
    assert all(set(range(12)) <= each for each in others)
    weights = [result["weights"] for result in outcome.results.values()]
    assert all((each[name] == weights[0][name]).all() for each in weights for name in each), "all end alike"


def test_a_round_waits_for_its_quorum_and_a_grace_and_no_longer(tmp_path: Path, data: Path) -> None:
    """Who is late brings what it has done, and goes on with the next round. Later none is late by so much."""
    strategy = {"kind": "diloco", "every": EVERY, "quorum": 3, "grace_s": GRACE_S, "replicas": 4}
    made = all_there(job(data, "diloco", 4, strategy=strategy, reproducible="order"))
    with Run(tmp_path / "run", made, paced) as run:
        outcome = done(run)
    assert [line["step"] for line in outcome.steps] == list(range(STEPS))
    late = outcome.results["w1"]["rows"]
    others = [result["rows"] for worker, result in outcome.results.items() if worker != "w1"]
    assert all(set(rows) == set(range(STEPS)) for rows in others)
    assert set(range(SLOW * EVERY)) - set(late), "of the slow rounds it left steps out"
    assert set(range(SLOW * EVERY, STEPS)) <= set(late), "and none later"
    weights = [result["weights"] for result in outcome.results.values()]
    assert all((each[name] == weights[0][name]).all() for each in weights for name in each), "all end alike"
