"""Faults: what each way loses when a worker is killed, joins, is away for a while or is sent away, and on resuming.

Per fault: the longest time without a committed step, less the usual step; steps that were done again; and whether the
weights are to the bit those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headway.testing.elastic import Run
from strategies_parts import material, runs
from strategies_parts.runs import Done, How, LeftOut, Pace, Plan
from strategies_parts.told import Book, say, table

WAYS: dict[str, dict[str, Any]] = {
    "all_reduce": {"kind": "all_reduce"},
    "all_reduce, int8": {"kind": "all_reduce", "compression": "int8", "replicas": 4},
    "parameter_server": {"kind": "parameter_server"},
    "ssp(4)": {"kind": "parameter_server", "consistency": "ssp", "staleness": 4, "every": 5, "replicas": 4},
    "asp": {"kind": "parameter_server", "consistency": "asp", "every": 5, "replicas": 4},
    "bsp + 1 backup": {"kind": "parameter_server", "backup_workers": 1, "every": 5, "replicas": 4},
    "local_sgd": {"kind": "local_sgd", "every": 5, "replicas": 4},
    "diloco": {"kind": "diloco", "every": 5, "replicas": 4},
    "diloco, own": {"kind": "diloco", "every": 5, "replicas": 4, "inner_state": "own"},
    "diloco, streaming": {"kind": "diloco", "every": 6, "replicas": 4, "fragments": 2, "overlap": 1},
    "diloco, quorum": {"kind": "diloco", "every": 5, "replicas": 4, "quorum": 3, "grace_s": 0.2},
    "gossip": {"kind": "gossip", "replicas": 4},
}
SMOKE = ("all_reduce", "diloco")
WORKERS, LANES, STEPS = 4, 8, 60
AT = 22
"""Steps before the fault: in the middle of a round."""
AWAY_S = 4.0
"""For which a worker is stopped: longer than it is waited for (the job's silence_s is 1)."""


def _there(running: Run, number: int = WORKERS) -> None:
    running.wait_until(lambda: running.step >= AT and len(running.members) == number, 300.0)


def killed(running: Run) -> None:
    _there(running)
    running.kill(running.members[-1])


def joined(running: Run) -> None:
    running.join(1)


def away(running: Run) -> None:
    """As a node that is cut off, and comes back: it is silent."""
    _there(running)
    worker = running.members[-1]
    running.stop(worker)
    back = threading.Timer(AWAY_S, running.resume, (worker,))
    back.daemon = True
    back.start()


def resized(running: Run) -> None:
    _there(running)
    running.resize(1, WORKERS - 1)


def resumed(running: Run) -> None:
    """All die at once; the run goes on from its newest checkpoint."""
    _there(running)
    for worker in list(running.members):
        running.kill(worker)


FAULTS: dict[str, tuple[Callable[[Run], None], dict[str, Any]]] = {
    "killed": (killed, {}),
    "joined": (joined, {"places": WORKERS - 1, "hold": AT}),
    "away and back": (away, {}),
    "one less by resize": (resized, {}),
    "resumed": (resumed, {}),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", action="append", help="names of ways (all)")


def main(options: argparse.Namespace, book: Book) -> None:
    chosen = options.only or (SMOKE if options.smoke else list(WAYS))
    faults = {name: FAULTS[name] for name in (("killed", "joined") if options.smoke else FAULTS)}
    say(f"{WORKERS} workers, {STEPS} steps, a checkpoint at every 10th; computing is emulated by sleeping\n")
    rows = [("", *faults)]
    with tempfile.TemporaryDirectory(prefix="strategies-") as scratch:
        data = material.digits(Path(scratch) / "data")
        for name in chosen:
            number = 0

            def one(during: Callable[[Run], None] | None, run: dict[str, Any], name: str = name) -> Done:
                nonlocal number
                number += 1
                place = Path(scratch) / f"{list(WAYS).index(name)}-{number}"
                return runs.run(_plan(data, WAYS[name], run, 0.01 if options.smoke else 0.02), place, during)

            try:
                calm = one(None, {})
            except LeftOut as error:
                say(f"left out: {name}: {error}")
                book.put("left_out", name, value=str(error))
                rows.append((name, "left out", *("-" for _ in range(len(faults) - 1))))
                continue
            cells = []
            for fault, (during, run) in faults.items():
                repeats = []
                for _ in range(options.seeds):
                    try:
                        repeats.append(_figures(one(during, run), calm))
                    except LeftOut as error:
                        say(f"{name}: {fault}: the run ended: {error}")
                        book.put("ended", f"{name}: {fault}", value=str(error))
                book.put("ways", name, fault, value=repeats)
                cells.append(_cell(repeats, stood=fault == "joined"))
                say(f"{name}: {fault}: {cells[-1]}")
            rows.append((name, *cells))
    say("\nseconds without a step, steps again, weights")
    table(rows)


def _plan(data: Path, strategy: dict[str, Any], run: dict[str, Any], pace_s: float) -> Plan:
    how = How(arguments={"widths": [32], "rate": 0.05}, pace=Pace(pace_s / 2), evaluate=False)
    workers = {"min": 1, "max": WORKERS, "silence_s": 1.0, "hang_s": 30.0}
    fields = {"reproducible": "bitwise", "checkpoint": {"every_steps": 10}, "workers": workers}
    if strategy.get("consistency", "bsp") != "bsp" or {"quorum", "backup_workers"} & strategy.keys():
        del fields["reproducible"]
    return Plan(data, strategy, WORKERS, LANES, 8, STEPS, 3, how, fields, run, deadline_s=300.0)


def _figures(done: Done, calm: Done) -> dict[str, Any]:
    times: dict[int, float] = {}
    for seen in done.seen.values():
        for step, at in seen.times.items():
            times[step] = min(times.get(step, at), at)
    ordered = sorted(times.values())
    gaps = [after - before for before, after in itertools.pairwise(ordered)]
    again = sum(int(event.get("lost_steps", 0)) for event in done.outcome.of("restart"))
    digests = {each.digest for each in (*done.seen.values(), *calm.seen.values())}
    return {
        "without_s": max(gaps) - statistics.median(gaps) if gaps else float("nan"),
        "pause_s": max((float(event["pause_s"]) for event in done.outcome.of("recovery")), default=None),
        "again": again,
        "same": len(digests) == 1,
        "sizes": [len(event["members"]) for event in done.outcome.of("generation")],
    }


def _cell(repeats: list[dict[str, Any]], stood: bool) -> str:
    """stood: all were held until the worker had warmed up; what it cost is the recorded pause."""
    if not repeats:
        return "ended"
    without = statistics.median((each["pause_s"] or 0.0) if stood else each["without_s"] for each in repeats)
    same = {each["same"] for each in repeats}
    words = "same" if same == {True} else "other" if same == {False} else "differ"
    return f"{without:.2f} s, {max(each['again'] for each in repeats)}, {words}"
