"""What to believe of a cloud's list of machines, held against what was asked of it and against what Ray knows.

A cloud's list lags behind, forgets, and shows what is long gone. Ray's autoscaler takes it at its word: of a machine
that is missing from one list it writes off the node, which still works, and ends it when it is listed again. So it is
shown what is believed, not what was said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Draining:
    """Its node is draining.

    Args:
        until: the machine is announced to end then, in Unix seconds; 0 where it was not said when.
    """

    until: float = 0.0


Standing = Literal["alive", "dead"] | Draining

SETTLE_S = 60.0
"""A new machine may not be listed yet for so long."""
INSIST_S = 30.0
"""After so long it is asked again for the end of a machine that is still listed; doubled each time."""
INSIST_LONGEST_S = 600.0


@dataclass(frozen=True)
class Limits:
    """Args:
    boot_s: a machine that has not joined within is given up.
    drained_s: one that was announced to end, and has not, is ended so long after the announced end, or where none was
        said after it began to drain.
    """

    boot_s: float = 900.0
    drained_s: float = 600.0


@dataclass(frozen=True)
class Known:
    """What is remembered of one machine. Times are Unix seconds.

    Args:
        since: of its launch, or when it was first listed.
        joined: whether a node of Ray has been on it.
        draining: since when its node is draining.
        until: its announced end, if it is draining and that was said; else 0.
        ended: when its end was asked for last.
        asked: how often.
        listed: whether the cloud has ever listed it.
    """

    since: float
    joined: bool = False
    draining: float | None = None
    until: float = 0.0
    ended: float | None = None
    asked: int = 0
    listed: bool = False


@dataclass(frozen=True)
class Ending:
    """End this machine, and why."""

    machine: str
    reason: str
    failed_boot: bool = False


@dataclass(frozen=True)
class Belief:
    """Args:
    shown: machines that Ray's autoscaler is told of.
    known: what is to be remembered.
    endings: what is to be ended now.
    joined: those whose node has joined since the last time.
    lost: those that ended, and had never joined.
    masked: shown though the cloud does not list them.
    """

    shown: tuple[str, ...]
    known: Mapping[str, Known]
    endings: tuple[Ending, ...] = ()
    joined: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


def believe(
    known: Mapping[str, Known],
    listed: Mapping[str, bool],
    nodes: Mapping[str, Standing] | None,
    now: float,
    limits: Limits,
    head: str = "",
) -> Belief:
    """Hold a cloud's list against the rest.

    Args:
        known: as the last call left it, with what was launched and ended since.
        listed: machines that the cloud lists, and whether it says that they are on their way out.
        nodes: by machine, what Ray says of its node; None where Ray could not be asked.
        now: Unix seconds.
        limits: see there.
        head: the machine of the head, which nobody here ends.
    """
    kept: dict[str, Known] = {}
    shown, endings, joined, lost, masked = [], [], [], [], []
    for machine in [*known, *(other for other in listed if other not in known)]:
        before = known.get(machine, Known(since=now))
        standing = (nodes or {}).get(machine)
        there = standing == "alive" or isinstance(standing, Draining)
        item = _seen(before, machine in listed, standing, now)
        if item.joined and not before.joined and item.ended is None:
            joined.append(machine)
        if machine in listed and listed[machine] and machine != head:
            kept[machine] = replace(item, ended=item.ended or now)
            if not item.joined and before.ended is None:
                lost.append(machine)
        elif machine in listed:
            ending = None if machine == head else _ending(item, nodes is not None, now, limits)
            if ending:
                endings.append(Ending(machine, *ending))
            if ending is None and item.ended is None:
                shown.append(machine)
            kept[machine] = item
        elif item.ended is None and (there or _unsure(item, nodes is not None, now)):
            shown.append(machine)
            kept[machine] = item
            if item.listed:
                masked.append(machine)
        elif item.ended is None and not item.joined:
            lost.append(machine)
    return Belief(tuple(shown), kept, tuple(endings), tuple(joined), tuple(lost), tuple(masked))


def ended(item: Known, now: float) -> Known:
    """After its end has been asked for once more."""
    return replace(item, ended=now, asked=item.asked + 1)


def _seen(item: Known, listed: bool, standing: Standing | None, now: float) -> Known:
    draining, until = (item.draining or now, standing.until) if isinstance(standing, Draining) else (None, 0.0)
    joined = item.joined or standing is not None
    return replace(item, joined=joined, draining=draining, until=until, listed=item.listed or listed)


def _unsure(item: Known, asked: bool, now: float) -> bool:
    """Whether a machine that is not listed may be there all the same, though Ray knows of no node on it."""
    return (not item.listed and now - item.since < SETTLE_S) or (item.joined and not asked)


def _ending(item: Known, asked: bool, now: float, limits: Limits) -> tuple[str, bool] | None:
    """Why a listed machine has to be ended now, and whether it failed to boot; None if it has not."""
    if item.ended is not None:
        pause = min(INSIST_LONGEST_S, INSIST_S * 2.0 ** min(max(0, item.asked - 1), 16))
        if now - item.ended < pause:
            return None
        return f"its end was asked for {now - item.ended:.0f} s ago, and it is still listed", False
    if asked and not item.joined and now - item.since >= limits.boot_s:
        return f"it did not join within {limits.boot_s:.0f} s", True
    due = None if item.draining is None else max(item.draining, item.until)  # till then it may well work
    if due is not None and now - due >= limits.drained_s:
        return f"it was to end {now - due:.0f} s ago, and did not", False
    return None
