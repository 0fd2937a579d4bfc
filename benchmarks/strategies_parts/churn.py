"""Under churn: which share of the machines' time ends in committed steps, from real small runs, and simulated at 1,000.

A trace of machines that come and go (`--trace`, as `headway simulate` reads them; one of spot machines is drawn else)
is scaled to eight workers and played in a minute. Workers that go are killed without notice. Computing is EMULATED by
sleeping. `stock restart` is emulated too: at each change all are killed, and after a pause they go on from the newest
checkpoint, on as many as there are then.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import RESULTS

from headway.core.ledger import goodput
from headway.sim import compare, costs
from headway.sim import trace as traces
from headway.testing.elastic import Run
from strategies_parts import material, runs
from strategies_parts.runs import How, LeftOut, Pace, Plan
from strategies_parts.told import Book, say, shown, spread, table

WAYS: dict[str, dict[str, Any]] = {
    "elastic all_reduce": {"kind": "all_reduce"},
    "diloco": {"kind": "diloco", "every": 10},
    "diloco, quorum": {"kind": "diloco", "every": 10, "quorum": 6, "grace_s": 0.2},
    "stock restart": {"kind": "all_reduce"},
}
MOST, LANES = 8, 8
SIMULATED = 1000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trace", type=Path, help="CSV or JSON of machines; one is drawn where not given")
    parser.add_argument("--seconds", type=float, default=60.0, help="for which it is played (default 60)")
    parser.add_argument("--restart-s", type=float, default=2.0, help="the pause of a stock restart (default 2)")
    parser.add_argument("--churn-batch-ms", type=float, default=20.0, help="that a lane takes, emulated (default 20)")


def main(options: argparse.Namespace, book: Book) -> None:
    seconds, pace_s = (4.0, 0.01) if options.smoke else (options.seconds, options.churn_batch_ms / 1000)
    trace = traces.read(options.trace) if options.trace else traces.generate("spot", 64, seed=1)
    sizes = scaled(trace, 4 if options.smoke else MOST, seconds)
    changes = sum(a != b for (_, a), (_, b) in itertools.pairwise(sizes))
    factor = trace.until / seconds
    what = f"{trace.name}, {factor:,.0f} times as fast, scaled to {MOST} workers: {changes} changes in {seconds:g} s"
    book.put("what", value=what)
    say(f"{what}; emulated: {pace_s * 1000:g} ms a lane, {options.restart_s:g} s a stock restart\n")
    found: dict[str, list[dict[str, float]]] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="strategies-") as scratch:
        data = material.digits(Path(scratch) / "data")
        for seed in range(options.seeds):
            for name, strategy in WAYS.items():
                if name in refused or (options.smoke and name not in ("elastic all_reduce", "stock restart")):
                    continue
                place = Path(scratch) / f"{list(WAYS).index(name)}-{seed}"
                pause_s = None
                if name == "stock restart":
                    pause_s = min(options.restart_s, 0.5) if options.smoke else options.restart_s
                try:
                    figures = _run(data, strategy, sizes, seconds, pace_s, pause_s, place, seed)
                except LeftOut as error:
                    refused[name] = str(error)
                    say(f"left out: {name}: {error}")
                    book.put("left_out", name, value=str(error))
                    continue
                found.setdefault(name, []).append(figures)
                book.put("runs", f"{name}, seed {seed}", value=figures)
                say(f"seed {seed}: {name}: {figures['useful']:.1%} useful, {figures['steps']:.0f} steps")
    rows = [("emulated", "useful share", "by the account", "steps")]
    for name in WAYS:
        if name not in found:
            rows += [(name, "left out", "-", "-")] if name in refused else []
            continue
        told = {key: spread([each[key] for each in found[name]]) for key in ("useful", "goodput", "steps")}
        book.put("ways", name, value=told)
        rows.append((name, shown(told["useful"], ".3f"), shown(told["goodput"], ".3f"), shown(told["steps"], ".0f")))
    say("")
    table(rows)
    if not options.smoke:
        _simulated(book)


def scaled(trace: traces.Trace, most: int, seconds: float) -> list[tuple[float, int]]:
    """Moments of a play of so many seconds, and workers from then on: 1 to `most`; the trace's beginning, in which
    the first machines come one after another, is one moment."""
    there, found = 0, []
    for change in trace.changes:
        there += 1 if change.up else -1
        found.append((change.at / trace.until * seconds, max(1, round(there / trace.peak * most))))
    settled = next(at for at, (_, size) in enumerate(found) if size >= most // 2)
    kept = [(0.0, found[settled][1])]
    for at, size in found[settled + 1 :]:
        if size != kept[-1][1]:
            kept.append((at, size))
    return kept


def _run(
    data: Path,
    strategy: dict[str, Any],
    sizes: list[tuple[float, int]],
    seconds: float,
    pace_s: float,
    pause_s: float | None,
    place: Path,
    seed: int,
) -> dict[str, float]:
    """Raises LeftOut. pause_s: of a stock restart; None: the run is elastic."""
    known: dict[str, float] = {}

    def during(running: Run) -> None:
        running.wait_until(lambda: running.step >= 1 and len(running.members) >= sizes[0][1], 120.0)
        begun, first = time.monotonic(), running.step
        size, taken, at = sizes[0][1], 0.0, begun
        for moment, coming in [*sizes[1:], (seconds, 0)]:
            due = begun + moment
            while (left := due - time.monotonic()) > 0:
                time.sleep(min(0.05, left))
            now = time.monotonic()
            taken, at = taken + size * (now - at), now
            if coming:
                (_elastic if pause_s is None else _stock(pause_s))(running, size, coming)
                size = coming
        running.wait_until(lambda: running.step > first, 120.0)  # on a machine that has no time for it
        known.update(first=first, taken=taken + size * (time.monotonic() - at), last=running.step)
        running.request_stop()

    workers = {"min": 1, "max": max(size for _, size in sizes), "silence_s": 2.0, "hang_s": 60.0}
    given = strategy if strategy["kind"] == "all_reduce" else {**strategy, "replicas": LANES}
    plan = Plan(
        data,
        given,
        workers["max"],  # type: ignore[arg-type]
        LANES,
        8,
        1_000_000,
        seed,
        How(arguments={"widths": [32]}, pace=Pace(pace_s), evaluate=False),
        {"checkpoint": {"every_steps": 20}, "workers": workers},
        {"places": sizes[0][1]},
        deadline_s=120.0,
    )
    done = runs.run(plan, place, during)
    steps = known["last"] - known["first"]
    return {
        "steps": steps,
        "useful": steps * LANES * pace_s / known["taken"],
        "goodput": goodput(done.outcome.account),
        "again": float(sum(int(event.get("lost_steps", 0)) for event in done.outcome.of("restart"))),
    }


def _elastic(running: Run, size: int, coming: int) -> None:
    running.places(coming - size)
    _take_away(running, size - coming)


def _take_away(running: Run, number: int) -> None:
    for worker in list(running.processes)[::-1][: max(0, number)]:
        running.kill(worker)


def _stock(pause_s: float) -> Callable[[Run, int, int], None]:
    def restart(running: Run, size: int, coming: int) -> None:
        running.places(-size)
        _take_away(running, len(running.processes))
        time.sleep(pause_s)
        running.places(coming)

    return restart


def _simulated(book: Book) -> None:
    """By Headway's simulator, which knows membership and restarts, and nothing of rounds."""
    measured = RESULTS / "elasticity.json"
    prices = costs.load(measured if measured.exists() else None)
    found = compare.compare(traces.generate("spot", SIMULATED, seed=0), prices, ("live", "restart"))
    rows = [(f"simulated, {found.workers:,} workers, spot", "goodput", "steps")]
    for name, account in found.accounts.items():
        book.put("simulated", name, value=account.as_json())
        rows.append((account.policy, f"{account.goodput:.4f}", f"{account.steps:,}"))
    table(rows)
    words = "the simulator has no rounds: a lost worker's replicas are computed again there, which it cannot tell"
    say(f"left out: diloco at {SIMULATED:,} workers: {words}")
    book.put("left_out", "diloco, simulated", value=words)
