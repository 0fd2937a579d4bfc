"""Outer gradients that are lost on their way, as DiLoCo's authors simulated it (Douillard et al. 2023, section 3.1,
asynchronous communication): a replica whose gradient is dropped goes on from its own weights in the next round, and the
others' mean is taken over those that came."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any


def patch(chance: float, seed: int, zeroed: bool) -> None:
    """In a worker: from here on DiLoCo loses outer gradients.

    Args:
        chance: of each, in each round.
        seed: of the draws, which are the same on all workers.
        zeroed: what is lost counts as no change, and its replica begins anew with the others: nothing is weighed up.
    """
    from headway.strategies import outer

    begin, meet = outer.DiLoCo.begin, outer.DiLoCo.meet

    def beginning(self: Any, given: Any, kept: Any) -> Any:
        lost = dropped(chance, seed, given.number, len(given.shares))
        ends = {r: given.start if r in lost else end for r, end in given.ends.items()}
        came = 0.0 if zeroed else sum(share for r, share in given.shares.items() if r not in lost)
        shares = given.shares
        if came:
            shares = {r: 0.0 if r in lost else share / came for r, share in given.shares.items()}
        return begin(self, replace(given, ends=ends, shares=shares), kept)

    def meeting(self: Any, given: Any, kept: Any, changes: Any = None) -> Any:
        met = meet(self, given, kept, changes)  # which begins by itself where nothing is under way
        if given.last or zeroed:
            return met
        lost = dropped(chance, seed, given.number, len(given.shares))
        return replace(met, own={**met.own, **{r: given.now[r].clone() for r in lost if r in given.now}})

    outer.DiLoCo.begin, outer.DiLoCo.meet = beginning, meeting  # type: ignore[method-assign]


def dropped(chance: float, seed: int, number: int, replicas: int) -> set[int]:
    """Replicas whose outer gradient of a round is lost."""
    return {r for r in range(replicas) if random.Random(f"{seed} {number} {r}").random() < chance}


def patching(chance: float, seed: int, zeroed: bool = False) -> Callable[[], None]:
    """`patch` with its arguments, for `runs.How`."""
    return partial(patch, chance, seed, zeroed)
