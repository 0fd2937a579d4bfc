"""A run's first workers' processes, started before its controller is: they import what takes seconds meanwhile.

Only where there is room for all of them: on a Ray of the driver's own, and where a queue has given them to the run.
They end with the driver. Their places are asked for as the controller would, which takes them over
(`ElasticWorkerGroup.take`); what it does not ask for it never starts.
Touches `ray.train.v2._internal`, see `headway.elastic.lead.group`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import ray
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.util.placement_group import placement_group, remove_placement_group

from headway.core.fitting import room
from headway.driver.names import Names
from headway.elastic.lead.group import process, standing

Early = dict[str, tuple[Any, Any]]
"""By the worker's id: its placement group, and its actor."""

LED = "headway.elastic.lead.controller"
"""What Ray Train tells a worker as it begins holds the run's controller, whose module is imported then."""


def give_up(early: Early, most: int) -> None:
    """Let those beyond so many go, with their places: the run is to be smaller before it began."""
    for name in [name for name in early if int(name[1:]) >= most]:
        group, _ = early.pop(name)
        remove_placement_group(group)  # its process ends with it


def readied(warm: Callable[[], None]) -> None:
    """Called in a process that has nothing to do yet: imports what it would have to when it has."""
    warm()
    importlib.import_module(LED)


def stand_by(
    names: Names, each: dict[str, float], cpus: int, number: int, warm: Callable[[], None]
) -> list[tuple[str, Any]]:
    """Start so many processes that take nothing, on nodes that could hold a worker, as evenly as may be; does not wait.
    None where a worker takes GPUs, which a process is given as it begins. Gives their nodes and actors."""
    nodes = [node for node in ray.nodes() if node["Alive"] and room(node["Resources"], each)]
    if not nodes or each.get("GPU"):
        return []
    env = {"env_vars": get_env_vars_to_propagate()}
    found = []
    for place in range(number):
        node = nodes[place % len(nodes)]["NodeID"]
        actor = standing(names, f"standing-{place}", node, cpus, env)
        actor.execute.remote(readied, warm)
        found.append((node, actor))
    return found


def begin(names: Names, each: dict[str, float], number: int, warm: Callable[[], None]) -> Early:
    """Start so many; does not wait for that.

    Args:
        names: of the run's actors.
        each: what one of them takes, by Ray's names.
        number: of workers that the run begins with, those that stand by among them.
        warm: what each of them does first.
    """
    env = {"env_vars": get_env_vars_to_propagate()}
    found: Early = {}
    for name in (f"w{number}" for number in range(number)):  # as they will be asked for
        group = placement_group([each], name=names.of(name)["name"])
        actor = process(names, name, group, each, env)
        # What goes wrong here goes wrong again, and is told, when the worker begins.
        actor.execute.remote(readied, warm)
        found[name] = group, actor
    return found
