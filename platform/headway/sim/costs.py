"""What things cost in seconds; every figure can be replaced by a JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from headway.errors import BadInput


@dataclass(frozen=True)
class Costs:
    """Seconds; the same for every policy where no policy is named.

    The defaults were measured on two shared cores with small models, but for those of fixed groups (group, quorum_s,
    group_detect_s, heal_s), which are assumed until `measured` finds better.

    Args:
        step_s: a step at full strength.
        detect_s: until a lost node is noticed. 2.0 is a link that is silent; a connection that breaks says so in 0.02.
        regroup_s: survivors arrive, connect, and level up.
        join_s: how long a joiner makes the others wait.
        warm_up_s: a new worker imports, builds and connects, beside the others.
        restart_s: stock elastic Ray Train with short time-outs, from the loss to the next step.
        restart_default_s: the same as it comes.
        resize_every_s: how often it looks for more nodes.
        checkpoint_every_s: how far apart the checkpoints are that a restart goes back to.
        group: workers of a fixed replica group, which live and die together.
        quorum_s: what agreeing on a quorum adds to a step.
        group_detect_s: until a quorum gives a lost group up.
        heal_s: a group that comes back takes the others' state; they wait.
    """

    step_s: float = 1.0
    detect_s: float = 2.0
    regroup_s: float = 0.05
    join_s: float = 0.1
    warm_up_s: float = 10.0
    restart_s: float = 16.9
    restart_default_s: float = 73.0
    resize_every_s: float = 60.0
    checkpoint_every_s: float = 60.0
    group: int = 4
    quorum_s: float = 0.005
    group_detect_s: float = 5.0
    heal_s: float = 0.5


def load(path: Path | None) -> Costs:
    """The defaults, with what a file says in their place.

    It is an object of them, one that has it under `costs`, or the results of benchmarks/elasticity.py.

    Raises:
        BadInput: the file cannot be read, or names a cost that there is not, or a value that is no number.
    """
    if path is None:
        return Costs()
    try:
        found: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"the costs {path} cannot be read", str(error), "Name a file with a JSON object.") from error
    if isinstance(found, dict) and "faults" in found:
        return replace(Costs(), **_measured(found["faults"]))  # type: ignore[arg-type]
    values = found.get("costs", found) if isinstance(found, dict) else found
    known = {f.name for f in fields(Costs)}
    if not isinstance(values, dict) or not set(values) <= known:
        unknown = ", ".join(sorted(set(values) - known)) if isinstance(values, dict) else type(values).__name__
        raise BadInput(f"the costs {path} have what is not known", unknown, f"Known are {', '.join(sorted(known))}.")
    if wrong := [k for k, v in values.items() if isinstance(v, bool) or not isinstance(v, int | float) or v < 0]:
        raise BadInput(f"{wrong[0]} in the costs {path} is no number of seconds", remedy="Give one, 0 or more.")
    return replace(Costs(), **values)


MEASURED = {
    "detect_s": ("link cut", "ours"),
    "join_s": ("join", "ours"),
    "restart_s": ("node killed", "ray_train"),
    "group_detect_s": ("node killed", "torchft"),
}
"""Which cost is the median of which fault's `resume_s`, and whose."""


def _measured(faults: dict[str, Any]) -> dict[str, float]:
    medians = {
        cost: (faults.get(fault, {}).get(peer) or {}).get("resume_s") for cost, (fault, peer) in MEASURED.items()
    }
    return {cost: float(seconds["median"]) for cost, seconds in medians.items() if seconds}
