"""Stragglers: seconds to a target accuracy where batches are slow now and then, or one worker always is.

Computing is EMULATED: a lane's body sleeps beside what a small network costs, so that eight workers share two cores.
Weights are kept as they come, with their times, and evaluated after the run: an evaluation would be a barrier.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strategies_parts import material, runs
from strategies_parts.runs import How, LeftOut, Pace, Plan
from strategies_parts.told import Book, say, shown, spread, table

WHOLE = 1_000_000
"""Steps of a round of ssp, asp and backup workers: the whole run, for its end is a barrier."""
WAYS: dict[str, dict[str, Any]] = {
    "all_reduce": {"kind": "all_reduce"},
    "bsp": {"kind": "parameter_server"},
    "bsp + 1 backup": {"kind": "parameter_server", "backup_workers": 1, "every": WHOLE},
    "ssp(4)": {"kind": "parameter_server", "consistency": "ssp", "staleness": 4, "every": WHOLE},
    "asp": {"kind": "parameter_server", "consistency": "asp", "every": WHOLE},
    "local_sgd": {"kind": "local_sgd", "every": 8},
    "diloco": {"kind": "diloco", "every": 16},
    "gossip": {"kind": "gossip"},
}
SMOKE = ("all_reduce", "bsp", "bsp + 1 backup", "local_sgd")
TRANSIENT, SLOW = "5 % of batches take 10 x", "one worker is 3 x slower"


@dataclass(frozen=True)
class Published:
    """That one is sooner at the target than the other; and why it may not be so here."""

    sooner: str
    later: str
    source: str
    else_: str


ORDERS: dict[str, tuple[Published, ...]] = {
    TRANSIENT: (
        Published(
            "ssp(4)",
            "bsp",
            "Ho et al. 2013, Stale Synchronous Parallel",
            "stale updates with momentum may cost more steps than waiting costs seconds",
        ),
        Published(
            "bsp + 1 backup",
            "bsp",
            "Chen et al. 2016, Revisiting Distributed Synchronous SGD",
            "with 8 workers and 5 % two are slow in 5.7 % of steps; a share of the rows is thrown away",
        ),
        Published(
            "bsp + 1 backup",
            "asp",
            "Chen et al. 2016",
            "their models suffer more of staleness than a small network does",
        ),
        Published(
            "local_sgd",
            "all_reduce",
            "Wang and Joshi 2019, Adaptive Communication Strategies",
            "of 8 workers over 8 steps the slowest sum counts, which has a slow batch in nearly every round",
        ),
        Published(
            "gossip",
            "all_reduce",
            "Assran et al. 2019, Stochastic Gradient Push",
            "they let neighbours go on; here all agree on each round's end before they exchange",
        ),
    ),
    SLOW: (
        Published("bsp + 1 backup", "bsp", "Chen et al. 2016", "the slow worker's rows never count"),
        Published("asp", "bsp", "Dean et al. 2012, DistBelief", "the slow worker's updates are very old"),
        Published(
            "ssp(4)", "bsp", "Ho et al. 2013", "who is always slow holds the others back once they are 4 steps ahead"
        ),
    ),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", type=float, default=0.82, help="accuracy (default 0.82)")
    parser.add_argument("--batch-ms", type=float, default=20.0, help="that a batch takes, emulated (default 20)")
    parser.add_argument("--straggler-steps", type=int, default=600, help="at most (default 600)")
    if not any("--data" in action.option_strings for action in parser._actions):
        parser.add_argument("--data", type=Path, default=Path("data/fashion-mnist"), help="with train and test")


def main(options: argparse.Namespace, book: Book) -> None:
    workers, steps = (4, 40) if options.smoke else (8, options.straggler_steps)
    target, seconds = (0.5, 0.005) if options.smoke else (options.target, options.batch_ms / 1000)
    book.put("what", value=f"EMULATED computing, {seconds * 1000:g} ms a batch, {workers} workers, target {target:.0%}")
    say(f"{book.figures['what']}\n")
    with tempfile.TemporaryDirectory(prefix="strategies-") as scratch:
        data = options.data
        if options.smoke or not (data / "train").exists():
            say("scikit-learn's digits" + ("" if options.smoke else f": {data} is not there"))
            data = material.digits(Path(scratch) / "data")
        network = {"widths": [64], "rate": 0.05}
        of = runs.accuracy(data, network)
        for scenario, pace in (
            (TRANSIENT, Pace(seconds, chance=0.05, times=10.0)),
            (SLOW, Pace(seconds, rank=workers - 1, times=3.0)),
        ):
            found: dict[str, list[tuple[float | None, float, float]]] = {}
            refused: dict[str, str] = {}
            for seed in range(options.seeds):
                for name, strategy in WAYS.items():
                    if name in refused or (options.smoke and name not in SMOKE):
                        continue
                    each = Pace(**{**vars(pace), "seed": seed})
                    how = How(arguments=network, pace=each, snapshots=max(1, steps // 100), evaluate=False)
                    given = (
                        strategy
                        if strategy["kind"] in ("all_reduce", "parameter_server")
                        else {**strategy, "replicas": workers}
                    )
                    plan = Plan(data, given, workers, workers, 16, steps, seed, how)
                    place = Path(scratch) / f"{len(found)}-{scenario[:3]}-{name.replace(' ', '')}-{seed}"
                    try:
                        done = runs.run(plan, place)
                    except LeftOut as error:
                        refused[name] = str(error)
                        say(f"left out: {name}: {error}")
                        book.put("left_out", name, value=str(error))
                        continue
                    curve = [(at, step, of(state)) for at, step, state in done.first.snapshots]
                    reached = next((at for at, _, right in curve if right >= target), None)
                    best = max((right for *_, right in curve), default=0.0)
                    found.setdefault(name, []).append((reached, done.wall_s / max(1, done.steps - 1), best))
                    value = {"reached_s": reached, "curve": [[round(each, 4) for each in point] for point in curve]}
                    book.put("runs", scenario, f"{name}, seed {seed}", value=value)
                    when = "not reached" if reached is None else f"{reached:.2f} s"
                    say(f"{scenario}: seed {seed}: {name}: {when}, best {best:.1%}")
            _told(scenario, found, refused, book, target)


def _told(
    scenario: str,
    found: dict[str, list[tuple[float | None, float, float]]],
    refused: dict[str, str],
    book: Book,
    target: float,
) -> None:
    rows, means = [(f"{scenario} (emulated)", f"s to {target:.0%}", "s a step", "best %")], {}
    for name in WAYS:
        if name in refused:
            rows.append((name, "left out", "-", "-"))
        if name not in found:
            continue
        times = [reached for reached, *_ in found[name] if reached is not None]
        whole = len(times) == len(found[name])
        step, best = (spread([each[at] * scale for each in found[name]]) for at, scale in ((1, 1.0), (2, 100.0)))
        value = {"reached_s": spread(times) if times else None, "of": len(found[name]), "step_s": step, "best": best}
        book.put("ways", scenario, name, value=value)
        if whole:
            means[name] = value["reached_s"]["mean"]
        told = shown(value["reached_s"]) + ("" if whole else f" ({len(times)} of {len(found[name])})")
        rows.append((name, told, shown(step), shown(best, ".1f")))
    say("")
    table(rows)
    for one in ORDERS[scenario]:
        pair = f"{one.sooner} before {one.later}"
        if one.sooner not in means or one.later not in means:
            continue
        ratio = means[one.sooner] / means[one.later]
        if ratio < 1:
            words = f"as published ({one.source}): {pair}, {ratio:.2f} of its time"
        else:
            words = f"DIFFERS from what is published ({one.source}): {pair}; here {ratio:.2f} of its time: {one.else_}"
        say(words)
        book.put("published", scenario, pair, value=words)
    say("")
