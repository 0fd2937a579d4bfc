"""A session keeps its contract over every kind of group: gloo between processes, its like and NCCL's like between
threads. Whatever happens to its members, it ends with the bits of a worker alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway.checkpoint import flat
from headway.checkpoint.store import Store
from headway.core import digest
from headway.data.read.streams import open_readers
from headway.elastic.worker import transfer
from headway.elastic.worker.context import Context
from headway.elastic.worker.line import Dismissed
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.job import parse
from headway.strategies.group import Group
from headway.testing.company import Company, Generation, Notes, Slip
from headway.testing.workers import CREWS, Crew, crew, die

LANES = 4
STEPS = 8
EVALUATED = (4, 8)
"""Steps: the ends of the two epochs."""


@dataclass(frozen=True)
class Play:
    """What happens. Workers are ranks in the crew.

    Args:
        script: of the generations.
        fields: of the job.
        dies: where a worker is lost: (worker, point, step), at "step" (in its lanes), "exchange" (after them),
            "evaluation" (after a batch of it), or another of the engine's points.
        spoiled: where some weights of a worker change their sign: (worker, committed steps).
        slips: see there.
        until: step after which the run is stopped.
        awaited: what others have said before one dies in an evaluation: "batches/done/worker".
        large: the state is held to be large, and cut into many buckets.
        unchecked: nobody looks whether what was read was complete.
        in_parts: so is it for the replicas' comparison.
    """

    script: tuple[Generation, ...]
    fields: dict[str, Any] = field(default_factory=dict)
    dies: tuple[tuple[int, str, int], ...] = ()
    spoiled: tuple[tuple[int, int], ...] = ()
    slips: tuple[Slip, ...] = ()
    until: int | None = None
    awaited: tuple[str, ...] = ()
    large: bool = False
    unchecked: bool = False
    in_parts: bool = False


class Net(nn.Module):
    """Batch norm's statistics and counter, a constant buffer, and no random numbers: threads share their stream."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=draws)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(torch.relu(self.norm(self.first(x)))) * self.scale
        return found


class Own:
    """State of the user's own, of the kinds that belong into host memory."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)
        self.drawn = np.zeros(3)
        self.seen = torch.zeros((), dtype=torch.float64)

    def advance(self) -> None:
        self.drawn = self.drawn + torch.rand(3, generator=self.generator).double().numpy()
        self.seen += 1

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "drawn": torch.from_numpy(self.drawn), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.drawn = state["drawn"].numpy().copy()
        self.seen = state["seen"].clone()


def part(group: Group, play: Play, folder: str, data: str) -> dict[str, Any]:
    """One worker's; what it ends with."""
    if play.large:
        transfer.EXTRA_BYTES, transfer.BUCKET_BYTES = 0, 64
    if play.unchecked:
        Group.confirm = Group.settle  # type: ignore[method-assign]
    digest.PART_BYTES = 64 if play.in_parts else 2**25
    flat.CHUNK_BYTES = 512  # each worker writes some
    me, device = group.rank, group.device
    tree = {"name": "n", "task": "t.py:T", "lanes": LANES, "lane_batch": 4, "epochs": 2, "seed": 3}
    tree |= {"data": {"train": f"{data}/train", "validation": f"{data}/val", "eval_batch": 2}}
    tree |= {"workers": {"max": LANES}, "checkpoint": {"every_steps": None}, "replica_check_every": None}
    job = parse({**tree, "reproducible": "bitwise", **play.fields})
    train, validation = open_readers(job)
    company, notes = Company(group, folder, play.script, LANES, play.slips), Notes()
    saver = Saver(Store(Path(folder) / "checkpoints", "a" * 64, job.checkpoint), job.checkpoint, notes)  # type: ignore[arg-type]
    shared: list[int] = []
    write_share = saver.store.write_share

    def count(step: int, *arguments: Any) -> None:
        shared.append(step)
        write_share(step, *arguments)

    saver.store.write_share = count  # type: ignore[method-assign]
    context = Context(
        job=job, device=str(device), train=train, validation=validation, saver=saver,
        journal=notes, run="r", members=company,  # type: ignore[arg-type]
    )  # fmt: skip

    def mischief(point: str, model: Any, step: int) -> None:
        if (me, point, step) in play.dies:
            die()

    context.trouble = mischief
    model, own = Net(), Own()
    if me:
        nn.init.zeros_(model.last.weight)  # it takes rank 0's
    head = nn.Parameter(torch.full((3, 2), 0.5, device=device))
    training = Session(context, model, torch.optim.AdamW([*model.parameters(), head], lr=0.01), None)
    training.register("own", own)
    found: dict[str, Any] = {"lanes": [], "evaluations": []}

    def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy((training.model(batch["x"]) @ head).float(), batch["y"])

    def metrics(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        if (me, "evaluation", training.step) in play.dies and found["lanes"]:
            for key in play.awaited:
                company.heard(key)
            die()
        found["lanes"].append((training.step, *batch["y"].shape, float(batch["x"].sum())))
        company.say(f"batches/{len(found['lanes'])}")
        return {"loss": loss(batch), "positive": batch["y"].double().mean()}

    try:
        with training:
            for step in training.steps():
                saver.finish()
                for batch in step.lanes():
                    if (me, "step", step.number) in play.dies:
                        die()
                    step.backward(loss(batch))
                own.advance()
                if (me, training.step) in play.spoiled:
                    training.model.last.bias.data.neg_()
                if step.last_of_epoch:
                    found["evaluations"].append(training.evaluate(metrics))
                if training.step == play.until:
                    training.stop()
        saver.finish()
    except Dismissed:
        found["dismissed"] = True
    finally:
        context.close()
        saver.close()
        training.engine.pact.close()
    state = {**model.state_dict(), "head": head.detach()}
    found |= {"weights": notes.weights, "steps": notes.steps, "compared": notes.compared, "told": company.told}
    found |= {
        "state": {name: value.cpu().tolist() for name, value in state.items()},
        "been": company.been,
        "busy": company.busy,
    }
    found |= {"own": [own.drawn.tolist(), own.seen.item()], "step": training.step}
    found |= {"start": notes.start, "shared": shared}
    return found


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """61 rows: 4 steps per epoch, the last of 13 rows. 23 rows to evaluate, 3 batches of each lane."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (20, 11), (30,))
    make_dataset(folder / "val", (23,))
    return str(folder)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    """`part` sets it, in processes too; where workers are threads it is to be as before afterwards."""
    before = flat.CHUNK_BYTES
    yield
    flat.CHUNK_BYTES = before


@pytest.fixture(params=CREWS, name="crew")
def _crew(request: pytest.FixtureRequest, tmp_path: Path) -> Crew:
    return crew(request.param, tmp_path)


@pytest.fixture(name="nccl")
def _nccl(tmp_path: Path) -> Crew:
    return crew("nccl_like", tmp_path)


@pytest.fixture(scope="module", name="alone")
def _alone(data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A worker alone, on the CPU."""
    folder = tmp_path_factory.mktemp("alone")
    return crew("threads", folder)(part, 1, Play((Generation((0,)),)), str(folder), data)[0]  # type: ignore[no-any-return]


def all_of(*members: int) -> Generation:
    return Generation(members)


def same(found: dict[str, Any], alone: dict[str, Any]) -> None:
    """To the bit."""
    assert found["step"] == STEPS
    assert found["steps"] == alone["steps"]
    assert found["state"] == alone["state"]
    assert found["evaluations"][-1] == alone["evaluations"][-1]
    assert (found["weights"], found["own"]) == (alone["weights"], alone["own"])


@pytest.mark.parametrize("workers", [2, 3])
def test_a_session_ends_as_alone_to_the_bit(
    crew: Crew, workers: int, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = Play((all_of(*range(workers)),), {"replica_check_every": 3})
    for found in crew(part, workers, play, str(tmp_path), data):
        same(found, alone)
        assert found["evaluations"] == alone["evaluations"]
        assert found["compared"] == [0, 3, 6]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_in_order_it_ends_as_alone_but_for_rounding(
    nccl: Crew, precision: str, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = Play((all_of(0, 1, 2),), {"reproducible": "order", "replica_check_every": 2, "precision": precision})
    whole = nccl(part, 3, play, str(tmp_path), data)
    for found in whole:
        assert (found["weights"], found["steps"]) == (whole[0]["weights"], whole[0]["steps"])
        assert [step["samples"] for step in found["steps"]] == [step["samples"] for step in alone["steps"]]
        losses, wanted = ([step["loss"] for step in result["steps"]] for result in (found, alone))
        assert losses == pytest.approx(wanted, rel=1e-5 if precision == "fp32" else 0.1)
        assert found["evaluations"][-1] == pytest.approx(
            alone["evaluations"][-1], rel=1e-5 if precision == "fp32" else 0.1
        )


def test_2_2_what_a_session_saved_another_goes_on_from(crew: Crew, tmp_path: Path, data: str) -> None:
    """On a device of its own too: what belongs into host memory stays there."""
    results = []
    for name, ends in (("whole", (None,)), ("parts", (3, 6, None))):
        for number, until in enumerate(ends):
            (tmp_path / f"{name}-{number}").mkdir()
            if number:
                checkpoints = tmp_path / f"{name}-{number - 1}" / "checkpoints"
                checkpoints.rename(tmp_path / f"{name}-{number}" / "checkpoints")
            play = Play((all_of(0, 1),), until=until)
            found = crew(part, 2, play, str(tmp_path / f"{name}-{number}"), data)
        results.append(found)
    for whole, parts in zip(*results, strict=True):
        assert parts["step"] == STEPS
        assert (parts["weights"], parts["state"], parts["own"]) == (whole["weights"], whole["state"], whole["own"])
        assert parts["steps"] == whole["steps"][6:]
    for found in results:
        assert [bool(each["shared"]) for each in found] == [False, True], "the second one wrote its share"


# -- joining, and being behind ---------------------------------------------------------------------------------------


def test_2_12_workers_that_join_take_the_state_through_a_chain(
    crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = Play((all_of(0, 1), Generation((0, 1, 2, 3), after=2), Generation((3, 2), after=5)))
    first, second, *joined = crew(part, 4, play, str(tmp_path), data)
    for found in joined:
        assert found["been"] == [2, 3]
        same(found, alone)
    assert first["dismissed"]
    assert second["dismissed"]
    assert (first["step"], first["been"]) == (6, [1, 2])


def test_2_12_one_that_is_a_step_behind_takes_it_from_those_ahead(
    crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    """The exchange was complete for all, but broke off at worker 1; worker 3 joins, and is next in the chain."""
    play = Play((all_of(0, 1, 2), all_of(2, 0, 1, 3)), slips=(Slip(1, "sum", 2),))
    for number, found in enumerate(crew(part, 4, play, str(tmp_path), data)):
        same(found, alone)
        assert found["been"] == ([2] if number == 3 else [1, 2])


def test_2_12_one_that_is_an_evaluation_behind_takes_its_outcome(
    crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = Play((all_of(0, 1, 2), all_of(0, 1, 2)), slips=(Slip(0, "total", 4),))
    for found in crew(part, 3, play, str(tmp_path), data):
        same(found, alone)
        assert found["evaluations"] == alone["evaluations"]
        assert found["been"] == [1, 2]


def test_2_12_a_state_that_came_in_part_is_none(crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]) -> None:
    """The source goes away while it hands its state on."""
    script = (all_of(0, 1, 2), all_of(0, 1, 2, 3), all_of(0, 1, 2, 3))
    play = Play(script, slips=(Slip(1, "sum", 2), Slip(0, "give", 3)))
    for number, found in enumerate(crew(part, 4, play, str(tmp_path), data)):
        same(found, alone)
        assert found["been"] == ([2, 3] if number == 3 else [1, 2, 3])


@pytest.mark.parametrize("buckets", [0, 1])
def test_a_beginning_that_breaks_off_is_begun_again(
    crew: Crew, buckets: int, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    """Who has told of no beginning has none."""
    play = Play((all_of(0, 1, 2), all_of(0, 1, 2)), slips=(Slip(0, "give", 0, buckets),))
    whole = crew(part, 3, play, str(tmp_path), data)
    for found in whole:
        same(found, alone)
        assert found["start"] == whole[0]["start"] > 0


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a survivor too, a large state is put straight into its place."""
    for name in ("EXTRA_BYTES", "BUCKET_BYTES"):
        monkeypatch.setattr(transfer, name, getattr(transfer, name))  # put back, if it is this process


in_threads = pytest.mark.parametrize("backend", ["threads", "nccl_like"])


@in_threads
@pytest.mark.usefixtures("_large")
def test_2_12_a_survivor_whose_state_came_in_part_goes_on_where_its_code_is(
    backend: str, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    """It needs the state anew, but is no joiner: it has told of its steps, and keeps what its code registered."""
    script = (all_of(0, 1, 2), all_of(0, 1, 2, 3), all_of(0, 1, 2, 3))
    play = Play(script, slips=(Slip(1, "sum", 2), Slip(0, "give", 3, buckets=3)), large=True)
    for found in crew(backend, tmp_path)(part, 4, play, str(tmp_path), data):
        same(found, alone)


TORN = Play(
    (all_of(0, 1), all_of(0, 1), all_of(1)), slips=(Slip(1, "sum", 2), Slip(0, "give", 3, 3, dies=True)), large=True
)
"""Worker 1 has half of the state of worker 0, which is gone."""


@in_threads
@pytest.mark.usefixtures("_large")
def test_2_12_half_a_state_is_nothing_to_go_on_from(backend: str, tmp_path: Path, data: str) -> None:
    with pytest.raises(AssertionError, match="TornState"):
        crew(backend, tmp_path)(part, 2, TORN, str(tmp_path), data)


@in_threads
@pytest.mark.usefixtures("_large")
def test_2_12_what_is_lost_on_its_way_comes_back_from_a_checkpoint(
    backend: str, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = replace(TORN, fields={"checkpoint": {"every_steps": 1}})
    lost, found = crew(backend, tmp_path)(part, 2, play, str(tmp_path), data)
    assert lost is None
    assert (found["step"], found["state"], found["own"]) == (STEPS, alone["state"], alone["own"])
    assert found["steps"] == alone["steps"][3:]


@in_threads
@pytest.mark.usefixtures("_large")
def test_2_13_nobody_goes_back_to_a_checkpoint_in_mid_evaluation(backend: str, tmp_path: Path, data: str) -> None:
    """The evaluation is that of step 4; the newest checkpoint that of step 3."""
    slips = (Slip(1, "total", 4), Slip(0, "give", 4, 3, dies=True))
    play = replace(TORN, fields={"checkpoint": {"every_steps": 3}}, slips=slips)
    with pytest.raises(AssertionError, match=r"TornState.*in an evaluation"):
        crew(backend, tmp_path)(part, 2, play, str(tmp_path), data)


# -- healing ---------------------------------------------------------------------------------------------------------


def test_2_11_a_corrupted_replica_is_healed(crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]) -> None:
    play = Play((all_of(0, 1, 2),), {"replica_check_every": 2}, spoiled=((0, 4),))
    for found in crew(part, 3, play, str(tmp_path), data):
        same(found, alone)
        assert found["told"] == [("w0", 4)]
        assert found["been"] == [1]


def test_2_11_an_ill_sources_state_is_not_handed_on(
    crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    """Worker 0 is ill when worker 3 joins, and would be the one to hand its state on; nobody compares in a step."""
    play = Play((all_of(0, 1, 2), Generation((0, 1, 2, 3), after=3)), {"replica_check_every": 100}, spoiled=((0, 4),))
    for number, found in enumerate(crew(part, 4, play, str(tmp_path), data)):
        same(found, alone)
        assert found["told"] == [("w0", 4)]
        assert found["been"] == ([2] if number == 3 else [1, 2])


def test_2_11_a_source_and_its_copy_have_one_vote(crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]) -> None:
    """Counted by heads it would be two against two."""
    play = Play(
        (all_of(0, 1, 2), Generation((0, 1, 2, 3), after=2)),
        {"replica_check_every": 4},
        spoiled=((0, 4), (3, 4)),
    )
    for found in crew(part, 4, play, str(tmp_path), data):
        same(found, alone)
        assert found["told"] == [("w0", 4), ("w3", 4)]


def test_a_replica_that_is_compared_in_parts_is_healed(
    crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    """What is spoiled is in the part whose turn it is."""
    play = Play((all_of(0, 1, 2),), {"replica_check_every": 2}, spoiled=((0, 4),), in_parts=True)
    for found in crew(part, 3, play, str(tmp_path), data):
        same(found, alone)
        assert found["told"] == [("w0", 4)]


def test_all_parts_of_a_replica_are_compared_in_turn(
    crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = Play((all_of(0, 1),), {"replica_check_every": 3}, in_parts=True)
    for found in crew(part, 2, play, str(tmp_path), data):
        same(found, alone)
        assert found["compared"][:2] == [2, 5], "the ends of rounds"


# -- losing members --------------------------------------------------------------------------------------------------


def test_2_1_a_death_in_mid_step_costs_nothing_but_the_step(
    crew: Crew, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = Play((all_of(0, 1, 2), all_of(0, 2), all_of(2)), dies=((1, "step", 3), (0, "exchange", 6)))
    *lost, found = crew(part, 3, play, str(tmp_path), data)
    assert lost == [None, None]
    same(found, alone)
    assert found["been"] == [1, 2, 3]


@pytest.mark.parametrize(("mode", "point"), [("order", "exchange"), ("bitwise", "step")])
def test_2_1_half_a_sum_is_never_committed(
    nccl: Crew, mode: str, point: str, tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    play = Play((all_of(0, 1, 2), all_of(2, 0)), {"reproducible": mode}, dies=((1, point, 3),))
    first, lost, last = nccl(part, 3, play, str(tmp_path), data)
    assert lost is None
    assert (first["state"], first["steps"]) == (last["state"], last["steps"])
    assert [s["loss"] for s in first["steps"]] == pytest.approx([s["loss"] for s in alone["steps"]], rel=1e-4)
    assert first["been"] == last["been"] == [1, 2]


def test_2_1_the_check_after_the_last_read_is_what_finds_it(
    nccl: Crew, tmp_path: Path, data: str, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, this suite sees a session that trains on with garbage."""
    monkeypatch.setattr(Group, "confirm", Group.confirm)  # put back, if it is this process
    play = Play((all_of(0, 1, 2), all_of(2, 0)), dies=((1, "step", 3),), unchecked=True)

    def ended() -> None:
        found = nccl(part, 3, play, str(tmp_path), data)[0]
        same(found, alone)

    with pytest.raises(AssertionError):
        ended()


# Worker 0 has lanes 0 and 3, the others one each; of 3 batches.
@pytest.mark.parametrize("awaited", [(), ("batches/6/0", "batches/3/2")], ids=["amid lanes", "lanes done"])
def test_2_13_a_death_in_mid_evaluation_leaves_done_what_is_done(
    crew: Crew, awaited: tuple[str, ...], tmp_path: Path, data: str, alone: dict[str, Any]
) -> None:
    """A worker that waits to join is seated later: it cannot begin in the midst of one."""
    script = (all_of(0, 1, 2), all_of(0, 2), Generation((0, 2, 3), after=4))
    play = Play(script, dies=((1, "evaluation", 4),), awaited=awaited)
    first, lost, last, joined = crew(part, 4, play, str(tmp_path), data)
    assert lost is None
    same(joined, alone)
    for found in (first, last):
        same(found, alone)
        assert found["evaluations"] == alone["evaluations"]
        assert (found["been"], found["busy"]) == ([1, 2, 3], [False, True, False])
    done = sorted(batch for found in (first, last, joined) for batch in found["lanes"])
    if awaited:
        assert done == sorted(alone["lanes"]), "each batch once, by one worker"
    assert set(done) == set(alone["lanes"])
