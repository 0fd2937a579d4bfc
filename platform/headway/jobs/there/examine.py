"""What `headway doctor --address` looks at on the cluster: the Ray job's process, and an actor on every machine.

Told, one by one, as lines `found`; see `headway.core.health`.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from headway.core import agents, health
from headway.core.health import Finding, Machine, Trial
from headway.core.news import NAMESPACE
from headway.core.notices import AGENT
from headway.errors import AMISS, FINISHED, HeadwayError
from headway.jobs.spec import FILE, Spec, from_json
from headway.jobs.there import needs
from headway.jobs.there.machine import Examiner
from headway.jobs.there.telling import teller

ANSWER_S = 40.0
"""So long machines are waited for: a process is to be started on each, and Headway brought there."""
CLOCKS = 5
"""How often a clock is asked for; the quickest answer counts."""
TRACKING_S = 30.0
MOST = 256
"""Machines that are looked at."""


def main(spec: Spec, tell: Callable[..., None]) -> int:
    """Look at the cluster that this process is a job of, and tell what was found. Returns the exit code.

    Args:
        spec: of kind doctor; its settings are JSON: {"packages": {name: version, or what it must be}, "tracking": URI}.
        tell: takes a kind of line and its content, as `headway.jobs.told.line`.
    """
    asked = json.loads(spec.settings[0]) if spec.settings else {}
    good = True
    try:
        for finding in _found(spec, asked):
            good = good and finding.level != "fail"
            tell("found", **asdict(finding))
    except Exception as error:  # Ray's own, of many kinds: that it cannot be examined is a finding
        good, lines = False, [line.strip() for line in str(error).splitlines() if line.strip()]
        remedy = "Look at Ray's logs on the head."
        last = Finding("cluster", "fail", "it could not be looked at further", remedy, (lines or [repr(error)])[-1])
        tell("found", **asdict(last))
    code = FINISHED if good else AMISS
    tell("ended", state="examined", message="", exit_code=code)
    return code


def _found(spec: Spec, asked: Mapping[str, Any]) -> Iterator[Finding]:
    import ray

    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level=logging.ERROR)
    try:
        cluster = _Cluster()
        machines = cluster.machines(list(asked.get("packages", {})))
        wanted = {name: partial(needs.fits, wanted=what) for name, what in asked.get("packages", {}).items()}
        yield from health.judged(machines, wanted, cluster.address)
        yield _health_checks(cluster.head)
        yield from agents.judged(cluster.watched(), time.time())
        yield from cluster.places(spec)
        yield from _tracking(asked.get("tracking"), cluster.head)
    finally:
        ray.shutdown()


class _Cluster:
    """The machines of the cluster that this process is connected to, with one of ours on each."""

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()
        self.address = str(ray.get_runtime_context().gcs_address)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        heads = [node["NodeID"] for node in nodes if "node:__internal_head__" in node["Resources"]] or [here]
        nodes.sort(key=lambda node: (node["NodeID"] not in heads, node["NodeManagerAddress"]))
        actor = ray.remote(num_cpus=0)(Examiner)
        self._machines: dict[Any, Machine] = {}
        self._ids: dict[Any, str] = {}
        for node, name in zip(nodes[:MOST], names([node["NodeManagerAddress"] for node in nodes[:MOST]]), strict=True):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            head = node["NodeID"] in heads
            cpus, gpus = (node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU"))
            known = Machine(f"{name} (head)" if head else name, head, ray_cpus=cpus, ray_gpus=gpus)
            begun = actor.options(scheduling_strategy=there, name=None).remote()
            self._machines[begun], self._ids[begun] = known, node["NodeID"]
        self.head = next(machine.name for machine in self._machines.values() if machine.head)

    def machines(self, packages: Sequence[str]) -> list[Machine]:
        """What each says of itself."""
        answers = self._all(lambda actor: actor.facts.remote(packages, None))
        clocks: dict[Any, float] = {}
        for actor, answer in answers.items():
            if not isinstance(answer, str):
                with suppress(Exception):  # it was there a moment ago; what it said counts
                    clocks[actor] = _ahead_s(actor)
        head = next((clocks[actor] for actor in clocks if self._machines[actor].head), 0.0)
        for actor, answer in answers.items():
            known = self._machines[actor]
            if isinstance(answer, str):
                self._machines[actor] = replace(known, error=answer)
            else:
                of_ray = {name: getattr(known, name) for name in ("name", "head", "ray_cpus", "ray_gpus")}
                self._machines[actor] = Machine.of({**answer, **of_ray, "ahead_s": clocks.get(actor, head) - head})
        return list(self._machines.values())

    def watched(self) -> list[agents.Watched]:
        """What the agents of the machines keep."""
        from ray.experimental.internal_kv import _internal_kv_get

        return [
            agents.Watched(machine.name, machine.cloud, _internal_kv_get(AGENT + self._ids[actor], namespace=NAMESPACE))
            for actor, machine in self._machines.items()
        ]

    def places(self, spec: Spec) -> Iterator[Finding]:
        """Whether runs can be kept where they are to be, by every machine."""
        try:
            place = spec.runs if spec.runs is not None else _own_place()
        except HeadwayError as error:
            yield Finding("runs", "fail", error.fact, error.remedy, error.reason, (self.head,))
            return
        if place is None:
            reason = "a run is kept in a store, or in a folder that every machine sees"
            yield Finding("runs", "warn", "no place for runs was given", "Give --runs, or set HEADWAY_RUNS.", reason)
            return
        nonce, living = secrets.token_hex(6), [actor for actor, known in self._machines.items() if not known.error]
        try:
            left = self._all(lambda one: one.leave.remote(place, spec.store, nonce, self._machines[one].name), living)
            seen = self._all(lambda one: one.seen.remote(nonce), [one for one in living if "took_s" in left[one]])
            trials = [_trial(self._machines[one].name, left[one], seen.get(one)) for one in living]
            yield from health.places(place, trials)
            first = next(iter(seen), None)
            if first is not None and "://" in place:
                broken = self._all(lambda actor: actor.conditional.remote(), [first])[first]
                if isinstance(broken, dict) and broken:
                    yield Finding("runs", "fail", broken["fact"], broken["remedy"], broken["reason"], (self.head,))
        finally:
            for _ in range(2):  # a folder that was made for this goes when all have taken away what lay in it
                self._all(lambda actor: actor.clear.remote(), living)

    def _all(self, ask: Callable[[Any], Any], whom: Sequence[Any] | None = None) -> dict[Any, Any]:
        """What each answers; in words why one did not."""
        import ray

        asked = {ask(actor): actor for actor in (self._machines if whom is None else whom)}
        ready, late = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
        found: dict[Any, Any] = {asked[answer]: f"no answer within {ANSWER_S:.0f} s" for answer in late}
        for answer in ready:
            try:
                found[asked[answer]] = ray.get(answer)
            except Exception as error:  # Ray's own: the machine went, or Headway could not be brought there
                lines = [line.strip(" .") for line in str(error).splitlines() if line.strip()]
                words = lines[-1] if lines else type(error).__name__
                found[asked[answer]] = f"no process of ours began there, or it ended ({words})"
        return {actor: found[actor] for actor in asked.values()}


def names(addresses: Sequence[str]) -> list[str]:
    """A name of its own for each: several nodes may be on one machine."""
    found: list[str] = []
    for address in addresses:
        count = sum(each.partition("#")[0] == address for each in found)
        found.append(f"{address}#{count + 1}" if count else address)
    return found


def _ahead_s(actor: Any) -> float:
    """How far its clock is before this process's: by the quickest of some answers, half of whose way it took."""
    import ray

    found: list[tuple[float, float]] = []
    for _ in range(CLOCKS):
        begin, from_here = time.monotonic(), time.time()
        there = ray.get(actor.now.remote(), timeout=ANSWER_S)
        took_s = time.monotonic() - begin
        found.append((took_s, there - from_here - took_s / 2))
    return min(found)[1]


def _trial(name: str, left: Any, seen: Any) -> Trial:
    if isinstance(left, str):
        return Trial(name, None, reason=left)
    if "took_s" not in left:
        return Trial(name, None, fact=left["fact"], reason=left["reason"], remedy=left["remedy"])
    return Trial(name, left["took_s"], tuple(seen) if isinstance(seen, list) else ())


def _own_place() -> str | None:
    """Where this machine itself says that runs are to be kept. Raises BadInput: its settings cannot be read."""
    try:
        from headway import config
    except ImportError:  # it lacks packages, as another line tells
        return None
    return config.load().runs


def _health_checks(head: str) -> Finding:
    """As Ray's library has them in this process, whose environment is that of the head; over that what the head was
    started with."""
    from ray._private import state
    from ray._raylet import Config  # type: ignore[attr-defined]

    found = {
        "period_ms": float(Config.health_check_period_ms()),
        "timeout_ms": float(Config.health_check_timeout_ms()),
        "failure_threshold": float(Config.health_check_failure_threshold()),
    }
    with suppress(Exception):  # kept in another way by another release
        given = state.state.get_system_config()
        found |= {name: float(given[f"health_check_{name}"]) for name in found if f"health_check_{name}" in given}
    return health.health_checks(found, head)


def _tracking(uri: str | None, head: str) -> Iterator[Finding]:
    """Whether MLflow takes records from the head, where the recorder of a run is."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        fact = "no server is named: records go to a file on the machine that leads, beside the run's working copy"
        yield Finding("mlflow", "ok", fact, where=(head,))
        return
    from headway.tracking.admission import admit
    from headway.tracking.store import check_uri, redact, with_password

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "headway"
    try:
        note = _within(TRACKING_S, lambda: admit(check_uri(with_password(uri)), experiment))
    except HeadwayError as error:
        yield Finding("mlflow", "fail", error.fact, error.remedy, error.reason, (head,))
        return
    if note:
        remedy = "Start it, or open the way to it from the head; records wait in the run meanwhile."
        yield Finding("mlflow", "warn", note, remedy, where=(head,))
    else:
        yield Finding("mlflow", "ok", f"{redact(uri)} takes records", where=(head,))


def _within(seconds: float, ask: Callable[[], str]) -> str:
    """The answer of what may hang, or that there is none."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(ask())
        except Exception as error:  # raised below, in the thread that asked
            found.append(error)

    thread = threading.Thread(target=run, name="tracking", daemon=True)
    thread.start()
    thread.join(seconds)
    if found and isinstance(found[0], Exception):
        raise found[0]
    return str(found[0]) if found else f"no answer within {seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main(from_json(Path(FILE).read_text(encoding="utf-8")), teller()))
