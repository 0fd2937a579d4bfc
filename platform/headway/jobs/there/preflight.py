"""What is tried on the cluster before a run begins: does a worker fit, and can the nodes that hold one read the data,
write where the run is kept, and import what it needs?

Every such node is tried at once, by a task of its own that takes none of its resources, so that a busy cluster is tried
too; meanwhile the job's own task is tried by the driver. Who gives no answer in time is told, and not waited for.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway import plan, variables
from headway.core.fitting import room, rooms, short
from headway.driver import rayjob
from headway.elastic.lead.room import has_autoscaler
from headway.errors import BadInput
from headway.job import Job
from headway.jobs.there import needs
from headway.jobs.there.reach import Tried, reach
from headway.runs.place import Place

LIMIT_S = 20.0
"""So long nodes are waited for."""
MAKING_S = 900.0
"""The same where each node makes an environment first: it downloads what may be gigabytes."""
TURN_S, NOTE_S = 0.5, 30.0
"""Between two looks at whether it is still waited for, and two words on what for."""
MOST_NODES = 256
"""That are tried; of a larger cluster the first of them."""
SHOWN = 3
"""Nodes that a sentence names."""


@dataclass(frozen=True)
class Node:
    """A living node of the cluster.

    Args:
        id: Ray's.
        address: of its machine.
        total, free: resources by Ray's names.
    """

    id: str
    address: str
    total: Mapping[str, float]
    free: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """What was found of the cluster.

    Args:
        now, most: workers that have room at the moment, and on the cluster as it is without others.
        tried: what nodes found, by their addresses; only of nodes that can hold a worker.
        autoscaler: whether there may be more nodes.
        notes: for people.
    """

    now: int
    most: int
    tried: Mapping[str, Tried]
    autoscaler: bool
    notes: Sequence[str]


class Preflight:
    """A look at the cluster that is under way.

    Args:
        job: pinned to the versions of its datasets.
        place: of the runs.
        packages: that the run needs, with versions.
        nodes: of the cluster.
        autoscaler: whether there may be more.
        tell: takes the plan, see `headway.jobs.told`.
        lacks: takes what a node lacks, by its address.
        note: takes what is waited for.

    Raises:
        BadInput: no node, and none that may come, holds a worker.
    """

    def __init__(
        self,
        job: Job,
        place: Place,
        packages: Mapping[str, str],
        nodes: Sequence[Node],
        autoscaler: bool,
        tell: Callable[[plan.Plan, Found], None],
        lacks: Callable[[str, dict[str, list[str | None]]], None],
        note: Callable[[str], None],
    ) -> None:
        self._job, self._place, self._tell, self._lacks, self._note = job, place, tell, lacks, note
        self._nodes, self._autoscaler = nodes, autoscaler
        self._holders = [node for node in nodes if room(node.total, job.workers.each)]
        if not self._holders and not autoscaler:
            raise too_large(job.workers.each, nodes)
        self._mark = f"headway-tried-{secrets.token_hex(8)}"
        self._made: Sequence[Path] = ()
        self._late: Sequence[str] = ()
        """Addresses of nodes that gave no answer in time."""
        self._asked = self._ask(packages)

    def done(self, checked: plan.Plan, given_up: Callable[[], bool]) -> None:
        """Wait for the answers, and tell the plan.

        Args:
            checked: with what the task's trial gave.
            given_up: asked now and then; True ends the waiting, and nothing is told.

        Raises:
            BadInput: too few nodes could carry the run.
        """
        tried = self._answers(given_up)
        if given_up():
            return
        for address, found in tried.items():
            if found.lacks:
                self._lacks(address, found.lacks)
        each, workers = self._job.workers.each, self._job.workers
        good = [node for node in self._holders if node.address not in tried or tried[node.address].good]
        bad = {address: found for address, found in tried.items() if not found.good}
        most = rooms((node.total for node in good), each)
        notes = [] if not bad else [f"{_among(bad)}: workers that start there fail, and others are asked for"]
        if bad and most < workers.min and not self._autoscaler:
            raise unfit(bad, most, workers.min)
        now = rooms((node.free for node in good), each)
        if most < workers.min:
            notes.append(f"{most} workers have room at most, and workers.min is {workers.min}: it waits for machines")
        elif now < workers.min:
            notes.append(f"{now} workers have room now, and workers.min is {workers.min}: it waits until others end")
        if self._late:
            silent = f"{', '.join(self._late[:SHOWN])}{' and others' if len(self._late) > SHOWN else ''}"
            notes.append(f"not tried, for no answer came in time: {silent}")
        self._tell(checked, Found(now, most, tried, self._autoscaler, notes))

    def close(self) -> None:
        """Remove what was written beside the runs, and the folders that were made for it, where nothing else is in."""
        if self._place.url is None:
            with suppress(OSError):
                (self._place.folder / self._mark).unlink()
                for folder in self._made:
                    folder.rmdir()

    def _ask(self, packages: Mapping[str, str]) -> dict[Any, Node]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if self._place.url is None:
            self._made = _marked(self._place.folder, self._mark)
        remote = ray.remote(num_cpus=0, max_retries=0)(reach)
        given: Any = ray.put(variables.given(self._job))  # by reference: Ray's pages show what goes by value
        runs = _opened(self._place)
        asked = {}
        for node in self._holders[:MOST_NODES]:
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            task = remote.options(scheduling_strategy=there, name="headway:preflight")
            found = task.remote(self._job.data.stored, self._job.data.store, runs, dict(packages), self._mark, given)
            asked[found] = node
        return asked

    def _answers(self, given_up: Callable[[], bool]) -> dict[str, Tried]:
        import ray

        found: dict[str, Tried] = {}
        if not self._asked:
            return found
        ready, late = self._waited(ray.wait, given_up)
        for answer in ready:
            node = self._asked[answer]
            try:
                found[node.address] = ray.get(answer)
            except ray.exceptions.RayError as error:  # the node went away, or no process began on it
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                found[node.address] = Tried("", runs=f"no process could be begun there: {reason}")
        for answer in late:  # a busy node, most likely: what is not known is no reason to refuse
            ray.cancel(answer, force=True)
        self._late = [self._asked[answer].address for answer in late]
        return found

    def _waited(
        self, wait: Callable[..., tuple[list[Any], list[Any]]], given_up: Callable[[], bool]
    ) -> tuple[list[Any], list[Any]]:
        """Answers that came, and those that did not in time; wait: as `ray.wait`."""
        makes = makes_environment(rayjob.runtime_env())
        began = noted = time.monotonic()
        while True:
            ready, late = wait([*self._asked], num_returns=len(self._asked), timeout=TURN_S)
            now = time.monotonic()
            if not late or given_up() or now - began > (MAKING_S if makes else LIMIT_S):
                return ready, late
            if makes and now - noted > NOTE_S:
                noted = now
                self._note(f"{len(late)} of {len(self._asked)} nodes make the environment of this job's processes")


class Before:
    """The cluster was tried before, when the run was begun on it: it is not again."""

    def done(self, checked: plan.Plan, given_up: Callable[[], bool]) -> None:
        """There is nothing to wait for."""

    def close(self) -> None:
        """Nothing is left of it."""


def begin(
    job: Job,
    place: Place,
    packages: Mapping[str, str],
    tell: Callable[[plan.Plan, Found], None],
    lacks: Callable[[str, dict[str, list[str | None]]], None],
    note: Callable[[str], None],
) -> Preflight:
    """Look at the cluster that this process is connected to. Raises BadInput as `Preflight`."""
    return Preflight(job, place, packages, living(), has_autoscaler(), tell, lacks, note)


def living() -> list[Node]:
    """The living nodes of the cluster that this process is connected to."""
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"], free.get(node["NodeID"], {}))
        for node in ray.nodes()
        if node["Alive"]
    ]


def too_large(each: Mapping[str, float], nodes: Sequence[Node]) -> BadInput:
    """Of a worker that fits on no node."""
    wanted = ", ".join(f"{name} {amount:g}" for name, amount in each.items())
    lacks = short((node.total for node in nodes), each)
    reason = "; ".join(f"the most that a node has is {name} {most:g}" for name, (_, most) in lacks.items())
    reason = reason or "no node has all of that at once"
    remedy = "Ask for less (workers.cpus, workers.gpus, workers.memory), or add a larger machine to the cluster."
    return BadInput(f"a worker wants {wanted}, and no node of the cluster holds one", reason, remedy)


def unfit(bad: Mapping[str, Tried], most: int, fewest: int) -> BadInput:
    """Of a cluster on too few of whose nodes a worker would find what it needs."""
    lacks = next((found.lacks for found in bad.values() if found.lacks), None)
    if lacks and all(found.lacks for found in bad.values()):
        told = needs.refusal(lacks, f"node {next(iter(bad))}")
        return BadInput(told["fact"], told["reason"], told["remedy"])
    remedy = "Mend that on the nodes, or give --runs and data that all of them reach; `headway doctor --address` looks."
    reason = f"{most} workers have room elsewhere, and workers.min is {fewest}"
    return BadInput(f"the cluster could not carry this run: {_among(bad)}", reason, remedy)


def _among(bad: Mapping[str, Tried]) -> str:
    named = [f"on node {address} {found.why}" for address, found in list(bad.items())[:SHOWN]]
    more = [f"and on {len(bad) - SHOWN} more nodes"] if len(bad) > SHOWN else []
    return "; ".join([*named, *more])


def _opened(place: Place) -> dict[str, Any]:
    if place.url is None:
        return {"folder": str(place.folder.resolve())}
    from headway import config

    return {"url": place.url, "options": config.load().store.model_dump()}


def makes_environment(runtime_env: Mapping[str, Any]) -> bool:
    """Whether each node first makes an environment for this job's processes (`--install`)."""
    return any(runtime_env.get(kind) for kind in ("uv", "pip", "conda"))


def _marked(folder: Path, mark: str) -> list[Path]:
    """A file by which nodes know whether they see the driver's folder. Gives the folders that were made for it,
    innermost first. Raises BadInput."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / mark).touch()
        return made
    except OSError as error:
        raise BadInput(f"runs cannot be kept in {folder}", str(error), "Give another folder: --runs.") from None
