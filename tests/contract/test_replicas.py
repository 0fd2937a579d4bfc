"""Every way of meeting keeps the contract of rounds, and the contract finds one that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from headway.strategies.kept import Kept
from headway.strategies.options import Strategy as Options
from headway.strategies.outer import MEETINGS, DiLoCo, LocalSGD, Met, Round
from headway.testing.replicas import ReplicasContract


class TestLocalSGD(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "local_sgd", "every": 4}


class TestDiLoCo(ReplicasContract):
    """With all of it: fragments, exchanges under way, what was left out of them."""

    strategy: ClassVar[dict[str, Any]] = {
        **{"kind": "diloco", "every": 10, "fragments": 2, "overlap": 2},
        "compression": {"kind": "int8", "dense_below": 0},
    }


class TestGossip(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "gossip", "every": 2, "average_every": 3}


@pytest.mark.long
class TestLocalSGDOfWeights(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "local_sgd", "every": 4, "average": "weights"}


@pytest.mark.long
class TestDiLoCoAsItIs(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "diloco", "every": 5}


@pytest.mark.long
class TestGossipOnAGraph(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "gossip", "graph": "exponential", "average_every": 4}


# One of a user's own


class Median:
    """Weights are the replicas' coordinate-wise median, which forgives one that went astray."""

    averages_state = False

    def __init__(self, options: Options) -> None:
        pass

    def meet(self, given: Round, kept: Kept) -> Met:
        import torch

        count = len(given.shares)
        zero = torch.zeros_like(given.start)
        alone = Round(**{**vars(given), "shares": dict.fromkeys(range(count), 1.0)})
        # A sum in which all but one are zero arrives exactly.
        each = [alone.mean({r: end if r == n else zero for r, end in given.ends.items()}) for n in range(count)]
        return Met(torch.stack(each).median(0).values)


@pytest.mark.long
class TestOneOfAUsersOwn(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "local_sgd", "every": 4, "average": "weights"}
    meeting = Median


# Some that break it


class ByWorkers(LocalSGD):
    """A mean of the workers' means, as where replicas are the workers'."""

    def meet(self, given: Round, kept: Kept) -> Met:
        mine = sum(given.ends.values()) / len(given.ends)
        return Met(given.mean(dict.fromkeys(given.ends, mine)))


class Forgetful(DiLoCo):
    """What it has from one round to the next is the object's, so that it is in no checkpoint."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._mine = Kept()

    def meet(self, given: Round, kept: Kept, changes: Any = None) -> Met:
        met = super().meet(given, self._mine, changes)
        self._mine = Kept(met.kept, met.memories)
        return Met(met.common, met.own)


class Tenured(LocalSGD):
    """Replicas weigh by how often the worker that carries them has met: what another worker does not know of."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._met = 0

    def meet(self, given: Round, kept: Kept) -> Met:
        self._met += 1
        return Met(given.mean({r: end * (1 + self._met / 8) for r, end in given.ends.items()}) / (1 + self._met / 8))


class ByWorkersContract(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "local_sgd", "every": 4, "average": "weights"}
    meeting = ByWorkers


class ForgetfulContract(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "diloco", "every": 4}
    meeting = Forgetful


class TenuredContract(ReplicasContract):
    strategy: ClassVar[dict[str, Any]] = {"kind": "local_sgd", "every": 4, "average": "weights"}
    meeting = Tenured


@pytest.mark.parametrize(
    ("contract", "check"),
    [
        (ByWorkersContract, ReplicasContract.test_the_same_bits_on_any_number_of_workers),
        (ForgetfulContract, ReplicasContract.test_stopped_and_gone_on_with_by_others),
        (TenuredContract, ReplicasContract.test_a_worker_joins_in_the_middle_of_a_round),
    ],
)
def test_the_contract_finds_a_meeting_that_breaks_it(
    contract: type[ReplicasContract], check: Callable[[ReplicasContract, Path], None], tmp_path: Path
) -> None:
    before = dict(MEETINGS)
    with pytest.raises(AssertionError, match=r"which came of one worker alone|other bits"):
        check(contract(), tmp_path)
    assert before == MEETINGS, "of workers' processes alone"
