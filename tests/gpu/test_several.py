"""Several workers, processes on one GPU over gloo: the bits of one, whatever happens to its members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.gpu.device import DEVICE, device
from tests.gpu.loop import Play, alone, part
from tests.gpu.test_alone import same

from headway.testing.company import Generation
from headway.testing.workers import Crew, crew

pytestmark = device

Alone = dict[str, dict[str, Any]]
PRECISIONS = ("fp32", "bf16", "fp16")


@pytest.fixture(scope="module", name="one")
def _one(data: str, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A worker alone, on the same device, by precision."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "crew").mkdir()
    plays = [(precision, Play(DEVICE, fields={"precision": precision})) for precision in PRECISIONS]
    return dict(zip(PRECISIONS, crew("gloo", folder / "crew")(alone, 1, plays, str(folder), data)[0], strict=True))


def all_of(*members: int) -> Generation:
    return Generation(members)


@pytest.mark.parametrize(("workers", "precision"), [(2, "fp32"), (3, "fp32"), (2, "bf16"), (2, "fp16")])
def test_they_end_as_one_to_the_bit(
    processes: Crew, workers: int, precision: str, tmp_path: Path, data: str, one: Alone
) -> None:
    play = Play(DEVICE, (all_of(*range(workers)),), {"precision": precision})
    for found in processes(part, workers, play, str(tmp_path), data):
        same(found, one[precision])
        assert found["evaluations"] == one[precision]["evaluations"]
        assert found["steps"] == one[precision]["steps"]
        assert found["told"] == []


def test_in_order_they_end_as_one_but_for_rounding(processes: Crew, tmp_path: Path, data: str, one: Alone) -> None:
    play = Play(DEVICE, (all_of(0, 1),), {"reproducible": "order"})
    first, second = processes(part, 2, play, str(tmp_path), data)
    assert (first["weights"], first["words"]) == (second["weights"], second["words"])
    losses, wanted = ([step["loss"] for step in found["steps"]] for found in (first, one["fp32"]))
    assert losses == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_that_joins_takes_the_state(processes: Crew, precision: str, tmp_path: Path, data: str, one: Alone) -> None:
    play = Play(DEVICE, (all_of(0, 1), Generation((0, 1, 2), after=3)), {"precision": precision})
    for number, found in enumerate(processes(part, 3, play, str(tmp_path), data)):
        same(found, one[precision])
        assert found["been"] == ([2] if number == 2 else [1, 2])


def test_a_peer_that_is_killed_costs_nothing_but_the_step(
    processes: Crew, tmp_path: Path, data: str, one: Alone
) -> None:
    play = Play(DEVICE, (all_of(0, 1, 2), all_of(0, 2), all_of(2)), dies=((1, 3), (0, 6)))
    *lost, found = processes(part, 3, play, str(tmp_path), data)
    assert lost == [None, None]
    same(found, one["fp32"])
    assert found["been"] == [1, 2, 3]
