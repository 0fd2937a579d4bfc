"""Whole runs that lose all their workers at once, while their machines live: they go on from what keepers hold, nothing
is missing from the records, and the end is that of the quiet run to the bit."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_elastic_run import STEPS, Calm, check, job, run_of, train
from tests.unit.test_elastic_run import calm as calm
from tests.unit.test_elastic_run import data as data

from headway.elastic.wire import keepers
from headway.elastic.worker import keeper
from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.elastic.worker.standing import Standing
from headway.runs import RunFolder
from headway.testing.elastic import Run, keeper_of

PACE_S = 0.005
OFTEN = {"every_steps": 1000, "memory_every": 1}


def one_machine(worker: str) -> str:
    return "m0"


def two_machines(worker: str) -> str:
    return f"m{int(worker[1:]) % 2}"


def each_its_own(worker: str) -> str:
    """Whoever starts comes to a machine where nobody was before."""
    return f"of-{worker}"


@pytest.fixture(autouse=True)
def ended(tmp_path: Path) -> Iterator[None]:
    """No keeper outlives its test."""
    yield
    config = keeper_of(tmp_path / "run")
    for path in keeper.folder().glob(f"{config['run'][:16]}-*.sock"):
        keepers.end(str(path), config["token"])


def restarts(run: Run) -> list[dict[str, Any]]:
    """Beginnings from a state that a keeper held."""
    return [event for event in RunFolder(run.folder).events() if event["kind"] == "restart" and event.get("kept")]


def kill_all(run: Run) -> None:
    for worker in list(run.processes):
        run.kill(worker)


def kept_on(run: Run, machine: str) -> list[int]:
    """Steps of the states that a machine's keeper holds, the newest first; none where there is no keeper."""
    config = keeper_of(run.folder)
    path = keeper.socket_path({**config, "folder": str(keeper.folder()), "machine": machine})
    with contextlib.suppress(OSError), contextlib.closing(keepers.call(path, config["token"])) as words:
        keepers.send(words.connection, {"op": "list"})
        return [about["step"] for about in words.next()["states"]]
    return []


def newest_on(run: Run, *machines: str) -> int:
    return max([step for machine in machines for step in kept_on(run, machine)], default=0)


def until_somebody_keeps(context: Context, session: Session, step: int, where: str) -> None:
    """Nobody gets on before one of them can keep a state: a keeper may take its time to come, and a run ends."""
    if where != "before" or session.engine.standing is Standing.REHEARSING:
        return
    told, until = run_of(context) / f"keeps-{session.engine._made}-{step}", time.monotonic() + 20.0
    while not told.exists() and time.monotonic() < until:
        if context.keeping is not None and context.keeping._hold is not None:
            told.touch()
        time.sleep(0.002)


@pytest.mark.parametrize("machines", [one_machine, each_its_own])
def test_the_only_worker_is_killed(tmp_path: Path, data: Path, calm: Calm, machines: Any) -> None:
    made = job(data, workers={"max": 1}, checkpoint=OFTEN)
    with Run(tmp_path / "run", made, train, PACE_S, until_somebody_keeps, machines=machines, hold=10) as run:
        run.wait_until(lambda: run.step >= 10 and newest_on(run, machines(run.members[0])) >= 9)
        kill_all(run)
        run.release()
        outcome = run.result()
    check(outcome, calm)
    (restart,) = restarts(run)
    assert restart["from_step"] >= 9
    assert restart["lost_steps"] <= 1


def test_a_spare_goes_on_from_what_is_kept(tmp_path: Path, data: Path, calm: Calm) -> None:
    made = job(data, workers={"max": 1, "spares": 1}, checkpoint=OFTEN)
    with Run(tmp_path / "run", made, train, PACE_S, until_somebody_keeps, machines=one_machine, hold=10) as run:
        run.wait_until(lambda: run.step >= 10 and newest_on(run, "m0") >= 9)
        run.kill(run.members[0])
        run.release()
        outcome = run.result()
    check(outcome, calm)
    (restart,) = restarts(run)
    assert restart["from_step"] >= 9


def test_all_workers_of_all_machines_are_killed_again_and_again(tmp_path: Path, data: Path, calm: Calm) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    made = job(data, workers={"max": 3}, checkpoint=OFTEN)
    with Run(tmp_path / "run", made, train, PACE_S, until_somebody_keeps, machines=two_machines, hold=8) as run:
        for step in (5, 11, 17):
            run.wait_until(lambda: run.step >= step and newest_on(run, "m0", "m1") >= step - 1)  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.03))
            kill_all(run)
            run.stand(step + 9)
        run.release()
        outcome = run.result()
    check(outcome, calm)
    assert len(restarts(run)) == 3
    assert all(restart["from_step"] > 0 for restart in restarts(run))
    assert all(restart["lost_steps"] <= 3 for restart in restarts(run))


def test_a_driver_that_died_with_all_workers(tmp_path: Path, data: Path, calm: Calm) -> None:
    """Another recorder has only what is on the disk: what is kept with the state fills it up."""
    made = job(data, workers={"max": 2}, checkpoint=OFTEN)
    with Run(tmp_path / "run", made, train, PACE_S, until_somebody_keeps, machines=one_machine, hold=8) as run:
        run.wait_until(lambda: RunFolder(run.folder).last_step() >= 5)  # however slow the disk is
        run._recorder._scribe._done = lambda tasks: time.sleep(0.05)  # type: ignore[assignment,func-returns-value]
        run.stand(11)
        run._recorder._scribe._thread.join(20.0)  # it gives up at the next that is to be written
        recorded = RunFolder(run.folder).last_step()
        run.stand(recorded + 6)
        run.wait_until(lambda: run.step >= recorded + 6 and newest_on(run, "m0") >= recorded + 5)
        kill_all(run)
    assert RunFolder(run.folder).last_step() == recorded, "what came after was lost with it"
    with Run(tmp_path / "run", made, train, PACE_S, machines=one_machine) as run:
        outcome = run.result()
    check(outcome, calm)
    (restart,) = restarts(run)
    assert restart["from_step"] >= recorded + 4


def test_without_keepers_it_is_the_checkpoint(tmp_path: Path, data: Path, calm: Calm) -> None:
    made = job(data, workers={"max": 1}, checkpoint={"every_steps": 7, "memory_every": None})
    with Run(tmp_path / "run", made, train, PACE_S, machines=one_machine) as run:
        run.wait_until(lambda: run.step >= 10)
        kill_all(run)
        outcome = run.result()
    check(outcome, calm)
    assert not restarts(run)
    assert len(outcome.steps) == STEPS


def corrupt_at_step_6(context: Context, session: Session, step: int, where: str) -> None:
    """Not before its keeper is there."""
    deadline = time.monotonic() + 20.0
    while where == "before" and step < 6 and context.keeping._hold is None:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    if (where, step, context.members.alone().names[0]) == ("before", 6, "w1"):
        with torch.no_grad():
            session.model.weight.view(torch.int64)[2] ^= 1 << 40  # type: ignore[union-attr,operator,index]


def test_a_replica_that_was_healed_is_kept_anew_at_once(tmp_path: Path, data: Path) -> None:
    """The state of step 8 was ill already, which was found before step 10."""
    made = job(data, workers={"min": 3}, checkpoint={**OFTEN, "memory_every": 8})
    with Run(tmp_path / "run", made, train, PACE_S, corrupt_at_step_6, machines=each_its_own) as run:
        outcome = run.result()
        assert (outcome.failure, [e["worker"] for e in outcome.of("replica")]) == (None, ["w1"])
        assert kept_on(run, "of-w1") == [19, 11]
        assert kept_on(run, "of-w0")[0] < 19, "each eighth since the first"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.long)])
def test_random_kills(tmp_path: Path, data: Path, calm: Calm, seed: int) -> None:
    """Of some workers or of all, at any moment, in a start among them: nothing shows afterwards."""
    chance = random.Random(seed)
    made = job(data, workers={"max": 3}, checkpoint={"every_steps": 1000})
    with Run(tmp_path / "run", made, train, PACE_S, machines=two_machines) as run:
        for _ in range(5):
            step = run.step
            run.wait_until(lambda: run.step > step or run.step >= STEPS - 6)  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.1))
            if run.step >= STEPS - 6:
                break
            there = sorted(run.processes)
            for worker in chance.sample(there, chance.randrange(1, len(there) + 1)) if there else ():
                run.kill(worker)
        outcome = run.result(90.0)
    check(outcome, calm)
