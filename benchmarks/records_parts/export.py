"""What it costs the process that keeps a run's records to have them scraped: eight workers on eight nodes, twenty steps
a second, every 5 s; its processor's time beside that of one without, at the same time. And how many series there are,
also when workers, datasets and metrics are far more than a page shows. Four minutes.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from headway.core.cost import Terms
from headway.core.figures import Subject
from headway.tracking.prometheus.way import Exported, Way
from records_parts.here import Elsewhere, scratch

SECONDS = 240.0
EVERY_S = 5.0
STEPS_PER_S = 20
WORKERS, MANY = 8, 500


def measure(options: argparse.Namespace) -> dict[str, Any]:
    seconds = SECONDS / (10 if options.quick else 1)
    with scratch() as runs:
        with Elsewhere(runs / "silent") as silent, Elsewhere(runs / "shown", more=exported(runs)) as shown:
            begin(silent, WORKERS), begin(shown, WORKERS)
            address = f"http://{target(runs)}/metrics"
            text = urllib.request.urlopen(address).read().decode()  # imports what it needs
            used, scrapes = fed([silent, shown], address, seconds)
        with Elsewhere(runs / "many", more=exported(runs, "many")) as many:
            begin(many, MANY)
            crowded = urllib.request.urlopen(f"http://{target(runs, 'many')}/metrics").read().decode()
    return {
        "what": f"{WORKERS} workers, {STEPS_PER_S} steps a second, a scrape every {EVERY_S:g} s, {seconds:g} s",
        "core_share": {"with": used[1], "without": used[0], "more": round(used[1] - used[0], 5)},
        "scrape_ms": scrapes,
        "series": series(text),
        "bytes": len(text),
        f"series of {MANY} workers": series(crowded),
    }


def exported(runs: Path, name: str = "shown") -> dict[str, Any]:
    """Options of the recorder whose figures are served."""
    subject = Subject("task.py:Task", "a" * 64, (1, WORKERS))
    return {"terms": Terms(0.5), "exported": Exported(subject, Way(runs, name))}


def begin(recorder: Elsewhere, workers: int) -> None:
    """A run of many workers that has seen some of them go, with metrics."""
    names = [f"w{number}" for number in range(workers)]
    of = {"kind": "generation", "generation": 1, "members": names, "workers": workers, "step": 0, "time": time.time()}
    recorder.ask("push", "w0", [note("began", 0, 0, total_steps=10**6, steps_per_epoch=100)])
    recorder.ask("event", {**of, "lanes": {}})
    for number, cause in enumerate(("process_died", "joined", "drained", "silent")):
        times = {"detected_at": time.time(), "resumed_at": time.time() + 0.2, "silent_s": 0.0, "pause_s": 0.2}
        told = {"cause": cause, "workers": [names[number]], "generation": 1, "step": 0, "time": time.time()}
        recorder.ask("event", {"kind": "recovery", **told, **times})
    values = {f"metric_{number}": 0.5 for number in range(min(workers, 100) // 2)}
    recorder.ask("push", "w0", [note("metrics", 0, 1, values=values)])
    account(recorder, workers, 10.0)


def note(kind: str, step: int, number: int, **entry: Any) -> dict[str, Any]:
    return {"kind": kind, "time": time.time(), "place": (1, step, f"{kind}:{number}", 0), "step": step, **entry}


def account(recorder: Elsewhere, workers: int, passed: float) -> None:
    """What the coordinator tells once a second, and of nodes."""
    seconds = {"compute": passed * workers * 0.9, "communication": passed * 0.1, "data": passed * 0.05}
    lanes = {f"w{number}": 0.01 + number * 1e-4 for number in range(workers)}
    recorder.ask("event", {"kind": "ledger", "seconds": seconds, "goodput": 0.98, "workers": workers, "lane_s": lanes})
    totals = {f"{name}_bytes": int(passed * 1e6) for name in ("received", "sent", "read", "written")}
    node = {"cpu": 0.5, "memory": 0.25, **totals}
    recorder.ask("event", {"kind": "nodes", "nodes": {f"node-{number}": node for number in range(workers)}})


def fed(recorders: list[Elsewhere], address: str, seconds: float) -> tuple[list[float], dict[str, float]]:
    """Shares of a core that the recorders take, and milliseconds of a scrape."""
    before, took, step = [cpu_s(recorder) for recorder in recorders], [], 0
    begun = scraped = told = time.monotonic()
    while (now := time.monotonic()) - begun < seconds:
        for recorder in recorders:
            entry = {"epoch": 0, "loss": 1 / (step + 1), "lr": 0.1, "rows": 256, "samples": f"{step:016x}"}
            recorder.ask("push", "w0", [note("step", step, 0, **entry)])
        if now - told >= 1.0:
            for recorder in recorders:
                account(recorder, WORKERS, now - begun)
            told = now
        if now - scraped >= EVERY_S:
            urllib.request.urlopen(address).read()
            took.append((time.monotonic() - now) * 1000)
            scraped = now
        step += 1
        time.sleep(max(0.0, begun + step / STEPS_PER_S - time.monotonic()))
    passed = time.monotonic() - begun
    used = [(cpu_s(each) - was) / passed for each, was in zip(recorders, before, strict=True)]
    ordered = sorted(took)
    return [round(share, 5) for share in used], {
        "p50": round(ordered[len(ordered) // 2], 2),
        "max": round(ordered[-1], 2),
    }


def cpu_s(recorder: Elsewhere) -> float:
    return float(sum(psutil.Process(recorder.pid).cpu_times()[:2]))


def target(runs: Path, name: str = "shown") -> str:
    """From the entry that Prometheus reads."""
    file, until = runs / ".prometheus" / f"{name}.json", time.monotonic() + 120
    while not file.exists():
        if time.monotonic() > until:
            raise SystemExit(f"{file} did not come")
        time.sleep(0.1)
    return str(json.loads(file.read_text())[0]["targets"][0])


def series(text: str) -> int:
    return sum(1 for line in text.splitlines() if line and not line.startswith("#"))
