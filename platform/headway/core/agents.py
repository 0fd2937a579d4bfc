"""Whether the machines of a cluster are watched for their ends, judged from what their agents keep beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headway.core.health import Finding

SILENT_S = 60.0
"""An agent that lives says so every ten seconds."""
CLOUDS = {"aws": "AWS", "gcp": "Google", "azure": "Azure"}


@dataclass(frozen=True)
class Watched:
    """A machine, and what its agent keeps.

    Args:
        machine: its name.
        cloud: whose it is, as its firmware says: aws, gcp, azure; "" where that is not known.
        kept: by its agent; None where none is or was.
    """

    machine: str
    cloud: str = ""
    kept: bytes | None = None


def judged(machines: Sequence[Watched], now: float) -> Iterator[Finding]:
    """Findings about the agents. now: Unix seconds."""
    good: list[str] = []
    without: list[Watched] = []
    for each in machines:
        sign = _read(each.kept)
        if sign is None:
            without.append(each)
            continue
        finding = _of(sign, each.machine, now)
        if finding is None:
            good.append(each.machine)
        else:
            yield finding
    yield from _unwatched(without, len(without) < len(machines))
    if good:
        yield Finding("notices", "ok", "an agent listens for the end of the machine", where=tuple(good))


def _of(sign: dict[str, Any], machine: str, now: float) -> Finding | None:
    age_s = now - float(sign["at"])
    leaves = sign.get("leaves") or {}
    if sign.get("late"):
        fact = f"the end that was announced ({leaves.get('why', '')}) has not come"
        reason = "Ray takes no node back that it drains: it gets no work any more"
        return Finding("notices", "warn", fact, "Start Ray on it anew, or end the machine.", reason, (machine,))
    if age_s > SILENT_S:
        reason = "the machine would go without notice, and what its worker does just then is done again"
        remedy = "Look whether it runs there: python -m headway.cluster.agent watch."
        return Finding("notices", "warn", f"its agent has said nothing for {age_s:.0f} s", remedy, reason, (machine,))
    trouble = sign.get("trouble") or {}
    if trouble:
        source, what = next(iter(trouble.items()))
        reason = "a notice would not be heard"
        remedy = "Look at --notices and --url of the agent. In a container of AWS's the hop limit must be 2."
        return Finding("notices", "warn", f"its agent hears nothing ({source}: {what})", remedy, reason, (machine,))
    return None


def _unwatched(machines: Sequence[Watched], others: bool) -> Iterator[Finding]:
    """others: some machines of the cluster have an agent."""
    clouds = sorted({each.cloud for each in machines if each.cloud})
    names = tuple(each.machine for each in machines if others or each.cloud)
    if names:
        whose = " and ".join(CLOUDS.get(cloud, cloud) for cloud in clouds) or "their owner"
        fact = "no agent listens for the end of the machine"
        reason = f"where {whose} takes it away, its lanes move after that and not before"
        cloud = clouds[0] if len(clouds) == 1 else "aws|gcp|azure"
        remedy = f"Start one beside Ray there: python -m headway.cluster.agent watch --notices {cloud}."
        yield Finding("notices", "warn", fact, remedy, reason, names)
    elif machines:
        fact = "no agent listens for the end of a machine"
        reason = "these are no cloud's, as far as it shows: they go when somebody who can say so lets them go"
        yield Finding("notices", "ok", fact, reason=reason, where=tuple(each.machine for each in machines))


def _read(kept: bytes | None) -> dict[str, Any] | None:
    try:
        sign = json.loads(kept or b"null")
        float(sign["at"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return dict(sign)
