"""Compression against the numbers as they are: bytes on the wire, step time on narrow links, accuracy at the end.

What comes of a run does not hang on its links. So accuracies and bytes are of whole runs on links as they are, three
seeds of each; step times are of short runs on shaped links, in rounds in which all sides take turns in an order that is
drawn anew, each as a share of the same round's dense one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lanes import interval

from strategies_parts import links, material, peers, runs
from strategies_parts.runs import How, LeftOut, Plan
from strategies_parts.told import Book, say, shown, spread, table

SIDES: dict[str, dict[str, Any]] = {
    "dense": {"kind": "all_reduce"},
    "fp16": {"kind": "all_reduce", "compression": "fp16"},
    "bf16": {"kind": "all_reduce", "compression": "bf16"},
    "int8": {"kind": "all_reduce", "compression": "int8"},
    "top_k 1 %": {"kind": "all_reduce", "compression": {"kind": "top_k", "ratio": 0.01}},
    "top_k 1 %, momentum": {
        "kind": "all_reduce",
        "compression": {"kind": "top_k", "ratio": 0.01, "momentum": 0.9, "warm_up": 80, "local_clip": 5.0},
    },
    "power_sgd": {"kind": "all_reduce", "compression": {"kind": "power_sgd", "rank": 4}},
}
SMOKE = ("dense", "int8", "top_k 1 %", "ddp, fp16 hook")
LINKS = {"100 Mbit/s": 100e3, "1 Gbit/s": 1e6}
FEWER = {2: 40.0, 8: 10.0}
"""Times fewer bytes of top_k 1 %, by workers."""
POINTS = 0.5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("data/fashion-mnist"), help="with train and test")
    parser.add_argument("--rounds", type=int, default=10, help="of step times on each link (default 10)")
    parser.add_argument("--whole-steps", type=int, default=1500, help="of whole runs (default 1500)")
    parser.add_argument("--side", action="append", help="name of one, may be repeated (all)")
    parser.add_argument("--workers", type=int, action="append", help="may be repeated (2 and 8)")
    parser.add_argument("--link", action="append", choices=list(LINKS), help="may be repeated (all)")
    parser.add_argument("--unshaped", action="store_true", help="leave links as they are")


def prepare(options: argparse.Namespace) -> None:
    """Before anything is run: this may begin the program anew, in a network of its own."""
    options.why_unshaped = "asked for" if options.unshaped else links.apart()


def main(options: argparse.Namespace, book: Book) -> None:
    why = options.why_unshaped
    with tempfile.TemporaryDirectory(prefix="strategies-") as scratch:
        folder = Path(scratch)
        data = options.data
        if options.smoke or not (data / "train").exists():
            say(
                "scikit-learn's digits, for the smoke"
                if options.smoke
                else f"{data} is not there: scikit-learn's digits"
            )
            data = material.digits(folder / "data")
        given = {"widths": [64] if options.smoke else [512, 256], "rate": 0.02}
        of = _Of(folder, data, given, 8 if options.smoke else 64, book)
        counts = (2,) if options.smoke else options.workers or (2, 8)
        steps = 30 if options.smoke else options.whole_steps
        sides = SMOKE if options.smoke else options.side or (*SIDES, *peers.HOOKS)
        say(f"a plain network of widths {given['widths']}, {of.rows} rows a step in all\n")
        for workers in counts:
            for seed in range(options.seeds):
                for name in sides:
                    of.whole(name, workers, steps, seed)
            _told(of, workers, book, options.smoke)
        speeds: dict[str, float | None] = {name: LINKS[name] for name in options.link or LINKS}
        if why is not None:
            say(f"links are not shaped here ({why}): step times are of links as they are")
            speeds = {"as they are": None}
        elif options.smoke:
            speeds = {"1 Gbit/s": 1e6}
        rounds = 1 if options.smoke else options.rounds
        for workers in counts:
            for speed, kbit in speeds.items():
                of.times(workers, speed, kbit, rounds, shaped=why is None)


class _Of:
    def __init__(self, folder: Path, data: Path, arguments_: dict[str, Any], rows: int, book: Book) -> None:
        self.folder, self.data, self.arguments, self.rows, self.book = folder, data, arguments_, rows, book
        self.found: dict[tuple[str, int], list[dict[str, float]]] = {}
        self._number = 0

    def once(
        self, name: str, workers: int, steps: int, seed: int, network: links.Links | None = None
    ) -> dict[str, float]:
        """Raises LeftOut."""
        self._number += 1
        place = self.folder / str(self._number)
        if name in peers.HOOKS:
            enter = network.enter if network is not None else None
            rows = self.rows // workers
            peer = peers.run(name, workers, place, self.data, self.arguments, rows, steps, seed, enter)
            return {key: getattr(peer, key) for key in ("sent", "step_s", "loss", "accuracy")}
        strategy, given = SIDES[name], self.arguments
        if "momentum" in strategy.get("compression", ()):  # it stands for the optimiser's
            given = {**given, "momentum": 0.0}
        plan = Plan(
            self.data,
            strategy,
            workers,
            workers,
            self.rows // workers,
            steps,
            seed,
            How(arguments=given, evaluate=network is None),
            run={} if network is None else {"host": network.host, "enter": network.enter},
        )
        done = runs.run(plan, place)
        told = {"sent": done.sent, "step_s": done.step_s, "loss": done.loss}
        return {**told, "accuracy": done.first.values.get("accuracy", float("nan"))}

    def whole(self, name: str, workers: int, steps: int, seed: int) -> None:
        try:
            found = self.once(name, workers, steps, seed)
        except LeftOut as error:
            say(f"left out: {name}, {workers} workers: {error}")
            self.book.put("left_out", f"{name}, {workers} workers", value=str(error))
            return
        self.found.setdefault((name, workers), []).append(found)
        self.book.put("runs", f"{name}, {workers} workers, seed {seed}", value=found)
        say(
            f"seed {seed}: {workers} workers: {name}: {found['sent'] / 1e3:.1f} kB a step from each, "
            f"loss {found['loss']:.4f}, accuracy {found['accuracy']:.2%}"
        )

    def times(self, workers: int, speed: str, kbit: float | None, rounds: int, shaped: bool) -> None:
        """Step times of all sides on one kind of link."""
        steps = 16 if rounds > 1 else 6
        seconds: dict[str, dict[int, float]] = {}
        draw = random.Random(7)
        with ExitStack() as stack:
            network = stack.enter_context(links.Links(workers, kbit)) if shaped else None
            names = [name for name in (*SIDES, *peers.HOOKS) if (name, workers) in self.found]
            for number in range(rounds):
                for name in draw.sample(names, len(names)):
                    try:
                        found = self.once(name, workers, steps, number, network)
                    except LeftOut as error:
                        say(f"left out: {name} on {speed}: {error}")
                        continue
                    seconds.setdefault(name, {})[number] = found["step_s"]
                say(f"{workers} workers, {speed}: round {number + 1} of {rounds}")
        rows = [(f"{workers} workers, {speed}", "step, median s", "of dense", "95 %")]
        dense = seconds.get("dense", {})
        for name in names:
            own = seconds.get(name, {})
            ratios = [own[number] / dense[number] for number in own if number in dense]
            if not ratios:
                continue
            low, high = interval(ratios)
            median, step = statistics.median(ratios), statistics.median(own.values())
            pays = "does not pay" if low > 1 and name != "dense" else ""
            value = {"step_s": step, "of_dense": [median, low, high], "rounds": len(ratios)}
            self.book.put("step_time", speed, str(workers), name, value=value)
            rows.append((name, f"{step:.4f}", f"{median:.3f}", f"{low:.3f} to {high:.3f} {pays}".rstrip()))
        table(rows)


def _told(of: _Of, workers: int, book: Book, smoke: bool) -> None:
    def spread_of(name: str, key: str, of_: Callable[[float], float] = float) -> dict[str, Any]:
        return spread([of_(each[key]) for each in of.found[name, workers]])

    rows = [(f"{workers} workers", "bytes a step", "fewer", "loss", "accuracy %")]
    names = [name for name in (*SIDES, *peers.HOOKS) if (name, workers) in of.found]
    for name in names:
        sent = spread_of(name, "sent")
        reference = "ddp" if name in peers.HOOKS else "dense"
        dense = spread_of(reference, "sent")["mean"] if (reference, workers) in of.found else None
        fewer = dense / sent["mean"] if dense and sent["mean"] else float("nan")
        loss, right = spread_of(name, "loss"), spread_of(name, "accuracy", lambda value: 100 * value)
        book.put(str(workers), name, value={"sent": sent, "fewer": fewer, "loss": loss, "accuracy": right})
        rows.append((name, f"{sent['mean']:,.0f}", f"{fewer:.1f}x", shown(loss, ".4f"), shown(right, ".2f")))
    say("")
    table(rows)
    for name in ("top_k 1 %", "top_k 1 %, momentum"):
        if smoke or not {("dense", workers), (name, workers)} <= of.found.keys():
            continue
        kept = book.figures[str(workers)]
        fewer, least = kept[name]["fewer"], FEWER[workers]
        lost = kept["dense"]["accuracy"]["mean"] - kept[name]["accuracy"]["mean"]
        book.target(f"{name}, {workers} workers: at least {least:g}x fewer bytes", fewer >= least, f"{fewer:.1f}x")
        what = f"{name}, {workers} workers: at most {POINTS} points of accuracy less"
        book.target(what, lost <= POINTS, f"{-lost:+.2f} points")
