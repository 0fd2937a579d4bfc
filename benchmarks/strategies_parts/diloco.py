"""DiLoCo on the GPT recipe against all_reduce of as many samples: bytes, loss, lost outer gradients, and a ramp.

torchft's own is beside it where torchft can be imported (`pip install torchft-nightly`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strategies_parts import dropping, material, runs, torchft_diloco
from strategies_parts.runs import GPT, How, LeftOut, Plan
from strategies_parts.told import Book, say, shown, spread, table

REPLICAS = 4
TORCHFT = "torchft, diloco"
DENSE, INT8, LONG = 45.0, 150.0, 450.0
"""Times fewer bytes than all_reduce's."""
WORSE, DROPPED_WORSE, PUBLISHED = 0.01, 0.025, 0.021
CHANCE = 0.5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=800, help="of h = 50 (default 800)")
    parser.add_argument("--long-steps", type=int, default=1500, help="of h = 500, once; 0 leaves it out (default 1500)")
    parser.add_argument("--context", type=int, default=256, help="bytes of a row (default 256)")
    parser.add_argument("--way", action="append", help="name of one, may be repeated (all); none: the long ones alone")
    parser.add_argument("--rate", type=float, default=3e-3, help="of the inner AdamW (default 3e-3)")
    parser.add_argument(
        "--after", type=int, default=0, help="steps of all_reduce, whose weights all ways begin with (0)"
    )


def main(options: argparse.Namespace, book: Book) -> None:
    smoke, long = options.smoke, options.long_steps
    if 0 < long < 1000:
        raise SystemExit(f"--long-steps {long}: bytes are counted from the second round of 500 on. Give 1000 or more")
    size = (
        {"context": 32, "width": 32, "heads": 2, "layers": 1} if smoke else {"context": options.context, "width": 128}
    )
    every, steps = (5, 20) if smoke else (50, options.steps)
    with tempfile.TemporaryDirectory(prefix="strategies-") as scratch:
        folder = Path(scratch)
        data = material.source(folder / "data", int(size["context"]), 60 if smoke else None)
        of = _Of(folder, data, {**size, "rate": options.rate}, book, lane_batch=2 if smoke else 4)
        if options.after:
            of.begin_after(options.after)
        own = {"kind": "diloco", "every": every, "inner_state": "own"}
        ways: dict[str, tuple[dict[str, Any], How]] = {
            "all_reduce": ({"kind": "all_reduce"}, How()),
            "diloco": (own, How()),
            "diloco, backed up": ({**own, "inner_state": "backed_up"}, How()),
            "diloco, int8": ({**own, "compression": "int8"}, How()),
            "diloco, streaming": ({**own, "fragments": 2, "overlap": 1 if smoke else 5}, How()),
            "diloco, half dropped": (own, How(patch=dropping.patching(CHANCE, 1))),
            "diloco, half dropped as zeros": (own, How(patch=dropping.patching(CHANCE, 1, zeroed=True))),
            TORCHFT: (own, How()),
        }
        if options.way:
            ways = {name: way for name, way in ways.items() if name in options.way}
        what = f"GPT of {size['width']} wide, context {size['context']}, {REPLICAS} replicas on as many workers"
        what += f", h = {every}, {steps} steps" + (f" after {options.after} of all_reduce" if options.after else "")
        if ways:
            book.put("what", value=what)
        say(f"{what}; the loss is of the test set\n")
        for seed in range(options.seeds):
            for name, (strategy, how) in ways.items():
                of(name, strategy, steps, seed, how)
        reference = of.found.get("all_reduce", [])
        if ways:
            _told(book, of, ways)
            if reference:
                _targets(book, of, smoke)
            _ramp(of, own, every, book)
        if long and not smoke:
            _long(of, own, long, book)


@dataclass(frozen=True)
class _Found:
    """Of a run. loss: of the test set; sent, step_s: see `runs.Done`."""

    loss: float
    sent: float
    step_s: float


class _Of:
    """Runs, and what came of those that were done."""

    def __init__(self, folder: Path, data: Path, size: dict[str, Any], book: Book, lane_batch: int) -> None:
        self.folder, self.data, self.size, self.book, self._batch = folder, data, size, book, lane_batch
        self.found: dict[str, list[_Found]] = {}
        self._number = 0
        self._weights: dict[str, Any] | None = None
        """That all begin with."""

    def begin_after(self, steps: int) -> None:
        """Let all begin with what so many steps of all_reduce come to. Their optimisers and schedules begin anew."""
        plan = self.plan({"kind": "all_reduce"}, steps, 1000, How())
        done = runs.run(replace(plan, how=replace(plan.how, snapshots=max(1, steps - 1))), self.place())
        _, at, self._weights = done.first.snapshots[-1]
        say(f"all begin with weights of {at} steps of all_reduce: loss {done.first.values['loss']:.4f}\n")

    def plan(self, strategy: dict[str, Any], steps: int, seed: int, how: How, workers: int = REPLICAS) -> Plan:
        warm = max(1, min(50, steps // 10))
        return Plan(
            self.data,
            strategy if strategy["kind"] == "all_reduce" else {**strategy, "replicas": REPLICAS},
            workers,
            REPLICAS,
            self._batch,
            steps,
            seed,
            How(GPT, self.size, patch=how.patch, pace=how.pace, weights=self._weights),
            {"clip_norm": 1.0, "schedule": {"name": "cosine", "warmup_steps": warm, "final": 0.05}},
        )

    def place(self) -> Path:
        self._number += 1
        return self.folder / str(self._number)

    def __call__(self, name: str, strategy: dict[str, Any], steps: int, seed: int, how: How) -> _Found | None:
        plan = self.plan(strategy, steps, seed, how)
        try:
            done = self._torchft(plan) if name == TORCHFT else self._ours(plan)
        except LeftOut as error:
            say(f"left out: {name}: {error}")
            self.book.put("left_out", name, value=str(error))
            return None
        self.found.setdefault(name, []).append(done)
        say(f"seed {seed}: {name}: loss {done.loss:.4f}, {done.sent / 1e3:.1f} kB a step from each worker")
        self.book.put("runs", f"{name}, seed {seed}, {steps} steps", value=vars(done))
        return done

    def _ours(self, plan: Plan) -> _Found:
        done = runs.run(plan, self.place())
        return _Found(done.first.values.get("loss", float("nan")), done.sent, done.step_s)

    def _torchft(self, plan: Plan) -> _Found:
        return _Found(*torchft_diloco.run(plan, self.place()))


def _mean(runs_: list[_Found]) -> float:
    return statistics.mean(each.loss for each in runs_)


def _told(book: Book, of: _Of, ways: dict[str, Any]) -> None:
    dense = statistics.mean(each.sent for each in of.found["all_reduce"]) if "all_reduce" in of.found else None
    rows = [("", "test loss", "bytes a step", "fewer", "step s")]
    for name in ways:
        done = of.found.get(name)
        if not done:
            rows.append((name, "left out", "-", "-", "-"))
            continue
        loss, sent = spread([each.loss for each in done]), spread([each.sent for each in done])
        fewer = dense / sent["mean"] if dense and sent["mean"] else None
        book.put("ways", name, value={"loss": loss, "sent": sent, "fewer": fewer})
        step = statistics.median(each.step_s for each in done)
        rows.append(
            (name, shown(loss, ".4f"), f"{sent['mean']:,.0f}", f"{fewer:.1f}x" if fewer else "-", f"{step:.3f}")
        )
    say("")
    table(rows)


def _targets(book: Book, of: _Of, smoke: bool) -> None:
    """Those of h = 50. In the smoke's few steps neither bytes nor losses are what they aim at."""
    ways, dense = book.figures.get("ways", {}), _mean(of.found["all_reduce"])
    if smoke:
        say("targets are of the whole form: h = 50 in full")
        return
    for name, least in (("diloco", DENSE), ("diloco, int8", INT8)):
        if name in ways:
            fewer = ways[name]["fewer"]
            book.target(f"{name}: at least {least:g}x fewer bytes", fewer >= least, f"{fewer:.1f}x")
    plain = of.found.get("diloco")
    if plain:
        worse = _mean(plain) / dense - 1
        book.target("diloco: loss within 1 % of all_reduce's", worse <= WORSE, f"{worse:+.2%}")
        for name in ("diloco, half dropped", "diloco, half dropped as zeros"):
            if name in of.found:
                more = _mean(of.found[name]) / _mean(plain) - 1
                what = f"{name}: at most {DROPPED_WORSE:.1%} worse (published {PUBLISHED:.1%})"
                book.target(what, more <= DROPPED_WORSE, f"{more:+.2%}")


def _ramp(of: _Of, own: dict[str, Any], every: int, book: Book) -> None:
    """1 worker, then 4, then 2, asked for in the middle of rounds. What comes of it without copies of the replicas'
    inner optimisers is told, and is no target."""
    steps = 6 * every
    grow, shrink = every + every // 2, 3 * every + every // 3

    def during(running: Any) -> None:
        running.join(REPLICAS - 1)
        running._hold.value = shrink  # all stand there until there is word of the next size
        running.wait_until(lambda: running.step >= shrink and len(running.members) == REPLICAS, 600.0)
        running.resize(1, 2)
        running.release()

    for inner in ("backed_up", "own"):
        plan = of.plan({**own, "inner_state": inner}, steps, 0, How())
        constant = replace(plan, fields={**plan.fields, "reproducible": "bitwise"})
        moving = replace(constant, least=1, run={"places": 1, "hold": grow})
        try:
            calm = runs.run(constant, of.place())
            ramped = runs.run(moving, of.place(), during)
        except LeftOut as error:
            say(f"left out: the ramp, {inner}: {error}")
            book.put("left_out", f"ramp, {inner}", value=str(error))
            continue
        sizes = [len(event["members"]) for event in ramped.outcome.of("generation")]
        weights = {each.digest for each in (*calm.seen.values(), *ramped.seen.values())}
        same, whole = len(weights) == 1, REPLICAS in sizes and sizes[-1] == 2
        book.put("ramp", inner, value={"sizes": sizes, "same": same, "weights": sorted(weights), "constant": REPLICAS})
        went = " -> ".join(map(str, sizes))
        if inner == "backed_up":
            book.target("a ramp 1 -> 4 -> 2: the same bits as constant size", same and whole, went)
        else:
            say(f"the same ramp with inner_state: own ({went}): {'the same bits' if same else 'not the same bits'}")


def _long(of: _Of, own: dict[str, Any], steps: int, book: Book) -> None:
    """h = 500, once. Bytes are of whole rounds after the first."""
    dense = of("all_reduce, long", {"kind": "all_reduce"}, steps, 0, How())
    for name, strategy in (("diloco, h = 500", own), ("diloco, h = 500, int8", {**own, "compression": "int8"})):
        done = of(name, {**strategy, "every": 500}, steps, 0, How())
        if done is None or dense is None:
            continue
        fewer = dense.sent / done.sent if done.sent else float("inf")
        worse = done.loss / dense.loss - 1
        book.put("long", name, value={"fewer": fewer, "worse": worse})
        if name == "diloco, h = 500":
            book.target(f"{name}: at least {LONG:g}x fewer bytes", fewer >= LONG, f"{fewer:.1f}x, loss {worse:+.2%}")
