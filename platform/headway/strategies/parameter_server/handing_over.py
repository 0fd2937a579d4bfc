"""Ranges change hands: when workers come and go, and when a checkpoint is written or read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from headway.core.ranges import backed_up, carriers
from headway.strategies.group import Group
from headway.strategies.kept import Kept, Tree
from headway.strategies.parameter_server.cut import Cut
from headway.strategies.parameter_server.parcel import receive, send
from headway.strategies.parameter_server.shard import joined, sliced

Age = tuple[int, int]
"""Of what is had of a range: its term (see `server.Held`), and after how many updates it is."""


def hand_over(
    group: Group | None,
    carried: Sequence[Sequence[int]],
    kept: Kept,
    device: torch.device | None = None,
    fail_over: bool = True,
    newest: bool = False,
) -> tuple[int, ...]:
    """After a change of workers, before the next step: every range to who carries it now and to the one after, from
    whoever has it, and nothing to anybody else.

    All workers call it, once those that were behind have the weights and `kept.common` of those ahead. What is older
    than the weights is of no use: a range is taken as after the update that is the newest of all; of who was in the
    middle of that update, from `kept.doubtful`.

    Args:
        group: of the workers; None for one alone.
        carried: numbers of the ranges by rank, from now on.
        kept: own, backups and doubtful as they are; own and backups as they ought to be afterwards.
        device: for what comes; the group's where not given.
        fail_over: each range is with the next worker as well.
        newest: ranges are updated each for itself (ssp, asp; trees of `Server.trees`): of each the newest is taken, of
            the newest term, and `kept.common` does not matter.

    Returns:
        Numbers of the ranges that nobody has any more, the same on all workers. They are {} in kept.own: go on from a
        checkpoint. (With `newest` also those that nobody has had yet.)

    Raises:
        PeerLost: a worker went away; kept is as before.
    """
    rank, size = (group.rank, group.size) if group is not None else (0, 1)
    mine = _held(kept)
    common = int(kept.common.get("at", 0))
    told = group.gather([common, {n: sorted(found) for n, found in mine.items()}]) if group is not None else None
    told = told or [[common, {n: sorted(found) for n, found in mine.items()}]]
    at = max(int(each[0]) for each in told)
    ages: dict[int, Age] = {}
    for _, held in told:
        for number, found in held.items():
            ages[number] = max([ages.get(number, (0, 0)), *map(tuple, found)]) if newest else (0, at)
    holders: dict[int, list[int]] = {}
    for who, (_, held) in enumerate(told):
        for number, found in held.items():
            if ages[number] in map(tuple, found):
                holders.setdefault(number, []).append(who)
    wanted = {number: [who] for number, who in carriers(carried).items()}
    if fail_over:
        for who in range(size):
            for number in backed_up(carried, who):
                wanted[number].append(who)
    lost = tuple(sorted(number for number in wanted if number not in holders)) if at or newest else ()
    came: dict[int, Tree] = {n: found[ages[n]] for n, found in mine.items() if ages[n] in found}
    for number, source, to in _moves(wanted, holders):
        assert group is not None
        if rank == source:
            send(group, came[number], to)
        elif rank == to:
            came[number] = receive(group, source, device or group.device)
    kept.own = {number: came.get(number, {}) for number in sorted(carried[rank])}
    kept.backups = {n: came.get(n, {}) for n in backed_up(carried, rank)} if fail_over else {}
    kept.doubtful = {}
    kept.common["at"] = at
    return lost


def gathered_state(
    group: Group | None,
    carried: Sequence[Sequence[int]],
    kept: Kept,
    cut: Cut,
    optimizer: Optimizer,
    to: int | None = None,
) -> dict[str, Any]:
    """The optimiser's `state_dict()` as if it had made all updates itself: any other strategy can go on from it.

    All workers call it. It takes the whole state's memory on who gets it.

    Args:
        group: of the workers; None for one alone.
        carried: numbers of the ranges by rank.
        kept: of this worker.
        cut: the run's parameters in ranges.
        optimizer: the user's.
        to: the rank that gets it; all where not given. The others get nothing.

    Raises:
        PeerLost: a worker went away.
    """
    rank, size = (group.rank, group.size) if group is not None else (0, 1)
    trees, of = dict(kept.own), carriers(carried)
    receivers = range(size) if to is None else [to]
    device = cut.parameters[0].device if cut.parameters else torch.device("cpu")
    for number in sorted(of):
        for receiver in receivers:
            if receiver == of[number]:
                continue
            assert group is not None
            if rank == of[number]:
                send(group, trees[number], receiver)
            elif rank == receiver:
                trees[number] = receive(group, of[number], device)
    if rank not in receivers:
        return {}
    return whole_state(trees, cut, optimizer)


def whole_state(trees: Mapping[int, Tree], cut: Cut, optimizer: Optimizer) -> dict[str, Any]:
    """As `gathered_state`, from the ranges' trees; what is in none is as the optimiser has it."""
    found: dict[str, Any] = optimizer.state_dict()
    state = dict(found["state"])
    pieces: dict[int, list[tuple[Any, Mapping[str, Any]]]] = {}
    for number, tree in sorted(trees.items()):
        for piece in cut.ranges[number]:
            if (part := tree.get("state", {}).get(str(piece.tensor))) is not None:
                pieces.setdefault(piece.tensor, []).append((piece, part))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        parts = pieces.get(cut.numbers[id(parameter)])
        if parts:
            state[index] = joined(parts, parameter)
    return {**found, "state": state}


def scattered(state_dict: Mapping[str, Any], cut: Cut, optimizer: Optimizer, numbers: Sequence[int]) -> dict[int, Tree]:
    """Trees of some ranges, from a whole state; each as after no update. The opposite of `whole_state`.

    It need not be called where the optimiser was given the state by `load_state_dict`: the first update takes from
    there what the ranges do not have.

    Args:
        state_dict: of the optimiser.
        cut: the run's parameters in ranges.
        optimizer: the user's, with the same groups.
        numbers: of the ranges.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    whole = {
        cut.numbers[id(p)]: (p, state_dict["state"][i]) for i, p in enumerate(parameters) if i in state_dict["state"]
    }
    found: dict[int, Tree] = {}
    for number in numbers:
        here = {}
        for piece in cut.ranges[number]:
            if piece.tensor in whole:
                parameter, state = whole[piece.tensor]
                here[str(piece.tensor)] = sliced(state, parameter, piece)
        found[number] = {"at": 0, "state": here}
    return found


def _held(kept: Kept) -> dict[int, dict[Age, Tree]]:
    """By number of a range and age: what is here of it."""
    found: dict[int, dict[Age, Tree]] = {}
    for trees in (kept.own, kept.backups, kept.doubtful):
        for number, tree in trees.items():
            if tree:
                found.setdefault(number, {}).setdefault((int(tree.get("term", 0)), int(tree["at"])), tree)
    return found


def _moves(wanted: Mapping[int, Sequence[int]], holders: Mapping[int, Sequence[int]]) -> list[tuple[int, int, int]]:
    """Number, source and receiver of what must travel, in an order that all share. Who receives one may give it."""
    found = []
    for number in sorted(wanted):
        have = list(holders.get(number, ()))
        for to in wanted[number]:
            if have and to not in have:
                found.append((number, have[-1], to))
                have.append(to)
    return found
