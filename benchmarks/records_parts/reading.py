"""How quickly long runs are read: `headway runs` and `headway report` of one of 1,000,000 steps, each as a command; and
the page of one of 100,000 steps and 100 events: until it is written, its size, and its first paint in Chromium.

The runs are written here, in the words of the recorder. Some minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import summary

from records_parts.here import scratch

STEPS, OF_PAGE = 1_000_000, 100_000
EVENTS = 100
REPEATS = 3
STEP_S = 0.05
MAIN = "from headway.cli.app import main; main()"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    least = 10 if options.quick else 1
    with scratch() as folder:
        runs = folder / "runs"
        made(runs / "long", STEPS // least)
        made(runs / "paged", OF_PAGE // least)
        page = folder / "page.html"
        found: dict[str, Any] = {
            "what": f"{STEPS // least:,} steps read; the page of {OF_PAGE // least:,} steps, {EVENTS} events",
            "nothing": called(["--help"]),
            "headway runs": called(["runs", "--runs", str(runs)]),
            "headway report": called(["report", "long", "--runs", str(runs)]),
            "headway report --html": called(["report", "paged", "--runs", str(runs), "--html", str(page)]),
        }
        found["page_bytes"] = page.stat().st_size
        found["first_paint_s"] = painted(page)
    return found


def called(words: list[str]) -> dict[str, Any]:
    """Seconds of the whole command, and the memory of the largest of all until now."""
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", MAIN, *words], capture_output=True, text=True, check=False)
        took.append(time.perf_counter() - begun)
        if done.returncode:
            raise SystemExit(f"headway {' '.join(words)}: {done.stderr}")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": summary(took), "most_memory_mib_so_far": most // 1024}


def painted(page: Path) -> dict[str, Any] | str:
    """Seconds from the request to the first paint, in a browser that is up."""
    from tests import browser

    if browser.program() is None:
        return "no Chromium on this machine"
    script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    took = []
    with browser.browser() as chromium:
        for _ in range(REPEATS):
            with browser.opened(chromium, page.as_uri()) as sight:
                sight.page.wait_for_function(f"{script} !== undefined")
                took.append(sight.page.evaluate(script) / 1000)
    return summary(took)


def made(folder: Path, steps: int) -> None:
    """A run of two workers, one of which is lost and comes back again and again."""
    (folder / "checkpoints").mkdir(parents=True)
    begun = time.time() - steps * STEP_S
    noise = random.Random(1)
    with (folder / "steps.jsonl").open("w") as file:
        for step in range(steps):
            loss = 2.3 * math.exp(-4 * step / steps) + noise.gauss(0, 0.05)
            line = {"step": step, "epoch": step // 1000, "loss": loss, "lr": 0.1, "rows": 256}
            file.write(json.dumps({**line, "time": begun + step * STEP_S, "samples": f"{step:016x}"}) + "\n")
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1000, steps + 1, 1000):
            values = {"accuracy": 1 - math.exp(-5 * step / steps), "loss": 2.3 * math.exp(-4 * step / steps)}
            file.write(json.dumps({"step": step, "time": begun + step * STEP_S, "values": values}) + "\n")
    with (folder / "events.jsonl").open("w") as file:
        file.writelines(json.dumps(event) + "\n" for event in events(steps, begun))
    ledger = {"compute": steps * STEP_S * 1.8, "communication": steps * STEP_S * 0.1, "regroup": 20.0}
    facts = {"run": folder.name, "state": "finished", "message": "", "created": begun, "ended": time.time()}
    counts = {"steps": steps, "total_steps": steps, "steps_per_epoch": 1000, "recoveries": EVENTS // 4}
    (folder / "run.json").write_text(json.dumps({**facts, **counts, "ledger_s": ledger, "goodput": 0.99}))


def events(steps: int, begun: float) -> Iterator[dict[str, Any]]:
    yield {"kind": "start", "time": begun, "by": "", "submission": "", "host": "here", "epoch": 1, "step": 0}
    for number in range(1, EVENTS // 4 + 1):
        step = steps * number // (EVENTS // 4 + 1)
        at, alone = begun + step * STEP_S, number % 2 == 1
        members = ["w0"] if alone else ["w0", f"w{number}"]
        workers = {"step": step, "workers": len(members)}
        yield {"kind": "generation", "time": at, "generation": number, "members": members, "lost": [], **workers}
        yield {"kind": "workers", "time": at, **workers}
        cause, who = ("process_died", [f"w{number - 1}"]) if alone else ("joined", [f"w{number}"])
        times = {"detected_at": at, "resumed_at": at + 0.2, "silent_s": 0.02, "pause_s": 0.2, "lost_steps": 0}
        yield {
            "kind": "recovery",
            "time": at,
            "cause": cause,
            "workers": who,
            "generation": number,
            "step": step,
        } | times
        yield {"kind": "checkpoint", "time": at + 1, "step": step, "bytes": 1_000_000}
    yield {
        "kind": "end",
        "time": begun + steps * STEP_S,
        "state": "finished",
        "message": "",
        "cause": None,
        "step": steps,
    }
