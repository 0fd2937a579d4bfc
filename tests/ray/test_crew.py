"""The real crew of a sweep: runs that come and go on one pool of warm processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Project

from headway import runs
from headway.elastic.crew.crew import RealCrew, crew
from headway.job import Job, parse
from headway.runs.place import Place
from headway.sweeps.crew import Holds, Left, Leg, News, Origin, Passed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected"), pytest.mark.timeout(300)]

GATE, END = 32, 64
"""The project's job evaluates at the ends of its two epochs."""


class Driven:
    """A crew of two processes, and all that it has told."""

    def __init__(self, crew: RealCrew, place: Place, project: Project) -> None:
        self.crew, self.place, self.project = crew, place, project
        self.told: list[News] = []
        self.short = 0

    def job(self, **arguments: Any) -> Job:
        return parse(self.project.tree(arguments=arguments))

    def begin(self, run: str, until: int = END, workers: int = 1, **arguments: Any) -> None:
        self.crew.begin(Leg(run, self.job(**arguments), until, workers=workers))

    def until(self, what: Callable[[News], bool], within_s: float = 200.0) -> Any:
        """The first of this kind that was not taken before."""
        deadline = time.monotonic() + within_s
        while True:
            for news in self.told:
                if what(news):
                    self.told.remove(news)
                    return news
            assert time.monotonic() < deadline, self.told
            self.told += self.crew.news(0.2)

    def stands(self, run: str) -> Passed:
        found = self.until(lambda n: isinstance(n, Passed) and n.run == run and n.stands)
        assert isinstance(found, Passed)
        return found

    def left(self, run: str) -> Left:
        found = self.until(lambda n: isinstance(n, Left) and n.run == run)
        assert isinstance(found, Left)
        return found

    def holds(self, run: str, workers: int) -> Holds:
        found = self.until(lambda n: isinstance(n, Holds) and n.workers.get(run, 0) == workers)
        assert isinstance(found, Holds)
        return found

    def facts(self, run: str) -> dict[str, Any]:
        return runs.find(self.place, run).read()

    def pids(self) -> dict[str, int]:
        """Of the pool's processes, by name."""
        import ray

        found = {}
        for number in range(40):
            actor = self.crew._names.find(f"w{number}")
            if actor is not None:
                try:
                    found[f"w{number}"] = ray.get(actor.get_metadata.remote()).pid
                except ray.exceptions.RayActorError:
                    continue  # it has just ended
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.of(str(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def pool(shared_ray: Any, project: Project, place: Place) -> Iterator[Driven]:
    shared_ray.begin()
    folder = place.folder / "s"
    folder.mkdir()
    with crew("s", folder, place, parse(project.tree()), 2, memory=2**26) as found:
        yield Driven(found, place, project)


def weights(pool: Driven, run: str) -> str:
    return str(pool.facts(run)["weights_sha256"])


def test_runs_side_by_side_paused_resized_and_gone_on_with_have_the_bits_of_one_alone(
    pool: Driven, undisturbed: dict[str, Any]
) -> None:
    pool.begin("a", GATE)
    pool.begin("b", GATE)
    assert pool.stands("a").values == pool.stands("b").values
    before = pool.pids()
    pool.crew.leave("a", "paused")
    assert (pool.left("a").why, pool.facts("a")["state"]) == ("paused", "stopped")
    pool.crew.resize("b", 2)
    pool.holds("b", 2)
    pool.crew.go_on("b", END)
    assert pool.left("b") == Left("b", END, "finished")
    pool.begin("a", END, workers=2)
    assert pool.left("a") == Left("a", END, "finished")
    assert weights(pool, "a") == weights(pool, "b") == undisturbed["weights_sha256"]
    assert pool.facts("a")["recoveries"] == 0
    kept, step = pool.facts("a")["origin"]
    assert (bool(kept), step) == (True, GATE), "it went on from its node's memory"
    assert not [event for event in runs.find(pool.place, "a").events() if event["kind"] == "restart"]
    assert pool.pids() == before, "nobody was started anew"


def test_a_users_error_ends_its_run_alone_and_its_processes_go_on_to_the_next(pool: Driven) -> None:
    before = pool.pids()
    pool.begin("fails", END, trouble="raise")
    pool.begin("well", END)
    found = pool.left("fails")
    assert found.why == "failed"
    assert found.failure is not None
    assert found.failure["kind"] == "task"
    assert "no such thing" in found.failure["reason"]
    assert str(pool.project.folder / "digits.py") in found.failure["traceback"], "it is the user's own file"
    assert pool.facts("fails")["state"] == "failed"
    pool.begin("next", GATE)
    assert pool.left("well").why == "finished"
    assert pool.stands("next").step == GATE
    pool.crew.leave("next", "stopped")
    assert pool.left("next") == Left("next", GATE, "stopped")
    assert pool.pids() == before


def test_when_one_of_two_raises_the_other_comes_back_too(pool: Driven) -> None:
    before = pool.pids()
    pool.begin("both", END, workers=2, trouble="raise", rank=1, at=2)
    assert pool.left("both").why == "failed"
    pool.begin("after", GATE, workers=2)
    pool.stands("after")
    pool.crew.leave("after", "stopped")
    pool.left("after")
    assert pool.pids() == before


def test_a_loss_that_is_no_number_is_told_as_that(pool: Driven) -> None:
    pool.begin("nan", END, trouble="nan")
    found = pool.left("nan")
    assert found.why == "failed"
    assert found.failure is not None
    assert found.failure["kind"] == "NonFiniteLoss"


def test_a_process_that_dies_is_replaced_and_fails_nothing(pool: Driven, undisturbed: dict[str, Any]) -> None:
    pool.begin("c", END, pause=0.03)
    pool.begin("d", END, pause=0.03)
    steps = pool.until(lambda n: isinstance(n, Holds) and min([n.steps.get(r, 0) for r in ("c", "d")]) > 3)
    assert isinstance(steps, Holds)
    before = pool.pids()
    os.kill(next(iter(before.values())), signal.SIGKILL)
    assert pool.left("c") == Left("c", END, "finished")
    assert pool.left("d") == Left("d", END, "finished")
    assert weights(pool, "c") == weights(pool, "d") == undisturbed["weights_sha256"]
    assert pool.facts("c")["recoveries"] + pool.facts("d")["recoveries"] == 1
    after = pool.pids()
    assert len(set(after.values()) & set(before.values())) == 1
    pool.told.clear()
    account = pool.until(lambda n: isinstance(n, Holds)).seconds
    assert min(account[cause] for cause in ("start", "compute", "data", "idle")) > 0


def test_what_cannot_begin_leaves_nothing(pool: Driven, place: Place) -> None:
    from headway.errors import BadInput

    tree = pool.project.tree()
    job = parse({**tree, "data": {**tree["data"], "columns": ["imag"]}})
    with pytest.raises(BadInput, match="imag"):
        pool.crew.begin(Leg("never", job, END))
    assert not (Path(place.folder) / "never").exists()
    pool.crew.go_on("never", END)
    pool.crew.leave("never", "stopped")
    pool.crew.resize("never", 2)


@pytest.mark.long
def test_a_process_is_after_many_runs_what_it_was_after_a_few(pool: Driven) -> None:
    """Memory, threads and descriptors: what a run leaves behind would add up over a sweep's hundreds."""

    def some(number: int) -> dict[str, dict[str, int]]:
        for _ in range(number):
            pool.short += 1
            name = f"short{pool.short}"
            job = parse(pool.project.tree(steps=2, epochs=None, arguments={}))
            pool.crew.begin(Leg(name, job, 2, workers=2))
            assert pool.left(name).why == "finished"
        return {name: _taken(pid) for name, pid in pool.pids().items()}

    before, after = some(8), some(24)
    assert before.keys() == after.keys(), "nobody was replaced"
    for name, taken in before.items():
        assert after[name]["threads"] <= taken["threads"] + 1
        assert after[name]["descriptors"] <= taken["descriptors"] + 3
        assert after[name]["bytes"] <= taken["bytes"] + 40 * 2**20


def _taken(pid: int) -> dict[str, int]:
    """What a process holds."""
    process = Path("/proc", str(pid))
    pages = int((process / "statm").read_text().split()[1])
    threads, files = (len(list((process / kind).iterdir())) for kind in ("task", "fd"))
    return {"bytes": pages * os.sysconf("SC_PAGE_SIZE"), "threads": threads, "descriptors": files}


def test_a_run_begins_with_anothers_state_and_has_the_bits_that_it_has_alone(
    pool: Driven, undisturbed: dict[str, Any]
) -> None:
    pool.crew.begin(Leg("source", pool.job(), GATE, save_at=(20,)))
    pool.stands("source")
    pool.crew.begin(Leg("forked", pool.job(), END, Origin("source", 20)))
    assert pool.left("forked").why == "finished"
    pool.crew.leave("source", "stopped")
    pool.left("source")
    assert weights(pool, "forked") == undisturbed["weights_sha256"]
    assert pool.facts("forked")["begun_with"]["step"] == 20
    first = next(event for event in runs.find(pool.place, "forked").events() if event["kind"] == "workers")
    assert first["step"] == 20, "what the other had done was not done again"
