"""Machines that come and go by themselves: Headway and stock elastic Ray Train on the same test cloud.

    python benchmarks/cloud.py                      all of it; a quarter of an hour for each of the two traces
    python benchmarks/cloud.py growth reclaim       some; what is not measured keeps its figures
    python benchmarks/cloud.py --show               nothing; what is kept is shown, and what was not measured
    python benchmarks/cloud.py trace --trace ../shared/traces/spot_aws_p3.csv --minutes 10 --nodes 4

The cloud is `headway.testing.cloud`'s: machines are namespaces of this one with a boot delay and a price, bought by
Ray's autoscaler (v2) through the same provider for both. What both train is that of benchmarks/elasticity.py: a global
batch of 64 rows, each of which costs a sleep that stands for an accelerator at work. Needs root and iproute2.

`growth`: from nothing to three machines, the driver is killed, idle machines go, the cluster is taken down. `reclaim`:
three machines, one is taken back after a notice of five seconds, and there is no other. `trace`: a spot fleet's
recorded life, compressed (headway/sim/compress.py), is what can be bought; goodput is the rows that were trained on by
what the machines that were paid for could have trained on in their time.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from elastic_peers import ray_train, workload
from elastic_peers.faults import load, python_path
from elastic_peers.on_cloud import CONTESTANTS, ENVIRONMENT, Done, Ours, fresh, grown, longest_pause, repeated
from measure import keep, kept, summary

from headway.errors import BadInput
from headway.sim import trace as traces
from headway.sim.compress import compress, mean_nodes
from headway.sim.trace import Trace
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.cluster import CloudCluster
from headway.testing.cloud.goods import RECLAIMED, VM, Offer
from headway.testing.cluster import HEALTH
from headway.testing.links import cut_possible
from headway.testing.story import place
from headway.testing.story.drill import left, sold

SECTIONS = ("growth", "reclaim", "trace")
HEAD = Offer("head", "a", price_per_hour=0.1, spot_price_per_hour=None, boot_s=0.1)
BOOT_S, IDLE_S, NOTICE_S = 2.0, 6.0, 5.0
START_S, RESUME_S, GONE_S = 240.0, 150.0, 90.0
"""Until as many train as may; until training goes on after a machine was taken; until idle machines are gone."""
MOST, AFTER = 3, 20
PARAMETERS = 200_000
SECONDS_PER_ROW = 0.004
ENDLESS = 100_000
PEER = {**ray_train.SETTINGS, "num_workers": "one to as many as there may be machines", "train": ENVIRONMENT}
TRACE = Path(__file__).parents[2] / "shared" / "traces" / "spot_aws_p3.csv"


@contextmanager
def on(offer: Offer, most: int, peer: str) -> Iterator[tuple[CloudCluster, Path]]:
    """A cluster of machines of one kind on a cloud of its own, and a folder for the contestant."""
    environment = {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1", "SECONDS_PER_ROW": str(SECONDS_PER_ROW)}
    checks = ray_train.HEALTH_CHECKS if peer == "ray_train" else {}
    with tempfile.TemporaryDirectory(prefix="cloud-") as scratch, patch.dict(HEALTH, checks):
        file = place.cluster_file(1, most, IDLE_S, (HEAD, offer))
        with CloudCluster(file, Cloud([HEAD, offer]), environment={**environment, **ENVIRONMENT}) as cluster:
            yield cluster, Path(scratch)


def until(what: str, condition: Callable[[], Any], limit_s: float) -> Any:
    """Wait for it; returns what it said. Raises TimeoutError."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.2)
    return found


def workers(cluster: CloudCluster) -> list[VM]:
    """The machines that ever were, but the head's."""
    return [vm for vm in cluster.cloud.machines if vm is not cluster.head_machine]


def growth(peer: str) -> dict[str, Any]:
    """Nothing, three machines, a driver that is killed, nothing."""
    with on(Offer("worker", "a", boot_s=BOOT_S), MOST, peer) as (cluster, folder):
        began = time.time()
        training = CONTESTANTS[peer](cluster, folder, MOST, ENDLESS, PARAMETERS)
        until("all train", lambda: grown(training.done(), MOST), START_S)
        booted = sorted(vm.running_at for vm in workers(cluster) if vm.running_at is not None)
        first, done = training.done()[0].time, training.done()
        joined = [grown(done, size) for size in range(1, MOST + 1)]
        time.sleep(3.0)
        killed = time.time()
        training.driver.kill()
        training.driver.wait()
        with suppress(TimeoutError):
            until("idle machines are gone", lambda: all(vm.gone_at for vm in workers(cluster)), GONE_S)
        gone = [vm.gone_at for vm in workers(cluster)]
        return {
            "first_step_s": first - began,
            "first_step_after_boot_s": first - booted[0],
            "joined_after_boot_s": [at - up for at, up in zip(joined, booted, strict=False) if at is not None],
            "steps_repeated": repeated(done),
            "idle_gone_s": max(gone) - killed if all(gone) else None,
            "left_after_down": left(cluster),
        }


def reclaim(peer: str) -> dict[str, Any]:
    """Three train, one machine is taken back, and there is no other."""
    with on(Offer("worker", "a", boot_s=BOOT_S), MOST, peer) as (cluster, folder):
        training = CONTESTANTS[peer](cluster, folder, MOST, ENDLESS, PARAMETERS)
        whole = until("all train", lambda: grown(training.done(), MOST), START_S)
        until("they train for a while", lambda: len([d for d in training.done() if d.time > whole]) > AFTER, START_S)
        cluster.empty(float("inf"))
        victim = next(vm for vm in workers(cluster) if vm.number is not None and vm.gone_at is None)
        at = time.time()
        cluster.reclaim(victim.number or 0, NOTICE_S)

        def gone_on() -> bool:
            new = [d for d in fresh(training.done()) if d.time > at + NOTICE_S and d.size < MOST]
            return victim.gone_at is not None and len(new) > AFTER

        until("training goes on with two", gone_on, RESUME_S)
        done = training.done()
        found = {
            "pause_s": longest_pause(done, at),
            "steps_repeated": repeated([d for d in done if d.time > whole]),
            "load": load(),
        }
        if isinstance(training, Ours):
            drains = [event["time"] for event in training.events("drain") if event["time"] >= at]
            lost = [event for event in training.events("recovery") if event["detected_at"] >= at]
            found["visible_s"] = drains[0] - at if drains else None
            found["handing_over_pause_s"] = lost[0]["pause_s"] if lost else None
            found["lost_steps"] = sum(event["lost_steps"] for event in lost)
        return found


class Weather(threading.Thread):
    """A trace, lived through: what can be bought is what was there, and what is too much is taken back with notice.

    Args:
        cluster: whose cloud it is.
        offer: that the trace is about.
        small: the trace.
        seed: of the choice of the machine that is taken.
    """

    def __init__(self, cluster: CloudCluster, offer: Offer, small: Trace, seed: int = 0) -> None:
        super().__init__(daemon=True)
        self._cluster, self._offer, self._trace = cluster, offer, small
        self._chance, self._ended = random.Random(seed), threading.Event()
        self.reclaimed = 0

    def run(self) -> None:
        began, capacity, cloud = time.monotonic(), 0, self._cluster.cloud
        for change in self._trace.changes:
            if self._ended.wait(max(0.0, began + change.at - time.monotonic())):
                return
            capacity += 1 if change.up else -1
            cloud.hold(self._offer.type, self._offer.zone, capacity)
            there = [vm for vm in workers(self._cluster) if vm.ending_at is None and vm.deadline is None]
            if len(there) > capacity:
                self.reclaimed += 1
                cloud.reclaim(self._chance.choice(there).id, NOTICE_S)

    def end(self) -> None:
        """Leave the cloud as it is."""
        self._ended.set()
        self.join()


def trace(peer: str, small: Trace, most: int) -> dict[str, Any]:
    """A spot fleet's life."""
    offer = Offer("worker", "a", capacity=0, boot_s=BOOT_S)
    with on(offer, most, peer) as (cluster, folder):
        began = time.time()
        weather = Weather(cluster, offer, small)
        weather.start()
        training = CONTESTANTS[peer](cluster, folder, most, steps_of(small), PARAMETERS)
        finished = False
        with suppress(TimeoutError):
            until("the end of the trace", lambda: training.driver.poll() is not None, small.until)
            finished = training.driver.returncode == 0
        ended = time.time()
        weather.end()
        done, machines = [d for d in training.done() if d.time <= ended], sold(cluster)
        training.driver.kill()
        training.driver.wait()
        leftovers = left(cluster)
    paid_s = sum((min(ended, m.gone or ended) - max(began, m.asked)) for m in machines if not m.head)
    rows = len({d.step for d in done}) * workload.GLOBAL_BATCH
    taken = sum(m.why == RECLAIMED for m in machines)
    return {
        **{"seconds": ended - began, "finished": finished, "machines": len(machines) - 1, "reclaimed": taken},
        **{"machine_seconds": paid_s, "dollars": sum(m.dollars(ended) for m in machines)},
        **{"steps": len({d.step for d in done}), "steps_repeated": repeated(done)},
        **{"missing": missing(done), "longest_pause_s": longest_pause(done, 0.0)},
        **{"goodput": rows * SECONDS_PER_ROW / paid_s, "left_after_down": leftovers, "load": load()},
    }


def missing(done: Sequence[Done]) -> int:
    """Steps below the highest that nobody committed."""
    steps = {each.step for each in done}
    return max(steps, default=-1) + 1 - len(steps)


def steps_of(small: Trace) -> int:
    """As many as three quarters of the machines' time is good for: the run is to end before the trace."""
    return int(0.75 * mean_nodes(small) * small.until / (workload.GLOBAL_BATCH * SECONDS_PER_ROW))


def repeats(section: Callable[[str], dict[str, Any]], peer: str, count: int) -> dict[str, Any]:
    """A section several times, with medians of what are numbers."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        try:
            found.append(section(peer))
        except TimeoutError as error:
            found.append({"failed": str(error)})
        print(f"    {section.__name__} {peer} {number + 1}/{count}: {found[-1]}", flush=True)
    whole = [each for each in found if "failed" not in each]
    numbers = {k for each in whole for k, v in each.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    medians = {key: summary([each[key] for each in whole if each.get(key) is not None]) for key in sorted(numbers)}
    return {**medians, "repeats": found, "when": time.strftime("%Y-%m-%d"), "load": load()}


def shown(found: Mapping[str, Any]) -> Iterator[str]:
    """Of each section and contestant a line: medians and single figures, or that there are none."""
    for section in SECTIONS:
        for peer in CONTESTANTS:
            figures = found.get(section, {}).get(peer)
            if figures is None:
                yield f"{section:8} {peer:10} not measured"
                continue
            values = {key: each["median"] if isinstance(each, dict) else each for key, each in figures.items()}
            told = [f"{key} {each:g}" for key, each in values.items() if isinstance(each, int | float)]
            times = f" ({len(figures['repeats'])} times)" if "repeats" in figures else ""
            yield f"{section:8} {peer:10} {', '.join(told)}{times}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="by default all")
    parser.add_argument("--peers", default=",".join(CONTESTANTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--show", action="store_true", help="measure nothing, and show what is kept")
    asked = parser.parse_args()
    if asked.show:
        print("\n".join(shown(kept("cloud"))))
        return
    if (reason := cut_possible()) is not None:
        raise BadInput("no test cloud can be made here", reason, "Run as root on Linux with iproute2.")
    if "trace" in (asked.sections or SECTIONS) and not asked.trace.is_file():
        remedy = "Name one by --trace, or the sections that need none: growth reclaim."
        raise BadInput(f"{asked.trace} cannot be read", "a recorded trace does not come with this repository", remedy)
    os.environ["SECONDS_PER_ROW"] = str(SECONDS_PER_ROW)
    found = {name: dict(value) for name, value in kept("cloud").items() if name in SECTIONS}
    for section in asked.sections or SECTIONS:
        for peer in asked.peers.split(","):
            if section == "trace":
                small = compress(traces.read(asked.trace), 60 * asked.minutes, asked.nodes)
                figures = trace(peer, small, asked.nodes) | {"trace": small.name, "when": time.strftime("%Y-%m-%d")}
                print(f"    trace {peer}: {figures}", flush=True)
            else:
                figures = repeats(globals()[section], peer, asked.repeats)
            found.setdefault(section, {})[peer] = figures
            what = f"machines that boot in {BOOT_S:g} s, {PARAMETERS:,} parameters, {SECONDS_PER_ROW * 1e3:g} ms a row"
            keep("cloud", {"what": what, "peer": PEER, **found})  # as far as it got


if __name__ == "__main__":
    main()
