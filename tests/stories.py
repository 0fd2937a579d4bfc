"""Documents for tests of pages: a run of any length, whose workers are lost and replaced; runs compared; a sweep."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any

CREATED = 1_790_000_000.0
RATE = 18.0
"""Steps a second."""
POINTS = 4000
CAUSES = ("process_died", "node_died", "link_cut", "hung")


def story(name: str = "digits-under-fire", steps: int = 2400, losses: int = 3, seed: int = 1) -> dict[str, Any]:
    """A story as `headway.report.story` tells it, by hand.

    Args:
        steps: committed updates.
        losses: workers that were lost; each is replaced a while later.
    """
    seconds = steps / RATE + 0.5 * losses + 6.0
    changes = _changes(steps, losses)
    return {
        "version": 1,
        "kind": "run",
        "run": {
            "name": name,
            "state": "finished",
            "message": "",
            "cause": None,
            "by": "ada@lab",
            "created": CREATED,
            "started": CREATED + 4,
            "ended": CREATED + seconds,
            "seconds": seconds,
            "path": f"runs/{name}",
            "notes": [],
        },
        "words": {
            "what": "A convolutional network of 421,642 parameters, told to recognise ten kinds of clothing.",
            "data": "60,000 images of fashion-mnist to learn from, and 10,000 others to be judged by.",
            "how_well": "It reached an accuracy of 0.9127 at step 2,300, the best of 24 evaluations.",
            "how_long": "2 minutes 27 seconds, for 2,400 steps: 5.1 walks through the data, on 2 to 4 workers.",
            "cost": "492 worker-seconds, of which 94.8 % ended in steps that count: $0.0274 at $0.20 a worker's hour.",
            "trouble": f"{losses} workers were lost. It did not matter: the others went on after 0.6 s at most, "
            "and no step was lost or repeated.",
            "again": f"Run it again with `headway train job.yaml --name {name}-again`.",
        },
        "task": {"name": "Clothes", "description": "Ten kinds of clothing", "model": "CNN", "parameters": 421_642},
        "job": {
            "yaml": "name: digits\ntask: task.py:Clothes\nlanes: 8\nlane_batch: 16\nworkers: {min: 2, max: 4}\n",
            "digest": "sha256:5b1f0a",
            "code_digest": "sha256:77aa01",
        },
        "data": _data(),
        "headline": {
            "steps": steps,
            "total_steps": steps,
            "epochs": round(steps * 128 / 60000, 2),
            "samples": steps * 128,
            "goodput": 0.948,
            "losses": losses,
            "joins": losses,
            "repeated_steps": 0,
            "workers_max": 4,
            "worker_seconds": 492.0,
            "dollars": 0.0274,
            "best": {"metric": "accuracy", "mode": "max", "value": 0.9127, "step": int(steps * 0.96)},
            "metrics": {"accuracy": 0.9114, "f1": 0.9102},
        },
        "series": _series(steps, seed),
        "marks": _marks(steps, changes),
        "workers": _workers(changes),
        "lanes": _lanes(changes),
        "ledger": _ledger(seconds),
        "recoveries": [_recovery(change) for change in changes if change[1] != "begun"],
        "checkpoints": [
            {
                "step": step,
                "seconds": step / RATE + 5,
                "bytes": 5_060_000,
                "metrics": {"accuracy": round(0.9 + step / steps / 80, 4)},
                "path": f"runs/{name}/checkpoints/step-{step:08d}",
            }
            for step in range(steps // 8, steps + 1, steps // 8)
        ],
        "evaluations": [{"step": steps, "values": {"accuracy": 0.9114}, "tables": {"confusion": _confusion()}}],
        "figures": [
            {"name": "first filters", "step": steps, "mime": "image/png", "data": png(64, 32), "caption": "as learnt"},
            {"name": "notes", "step": steps, "text": "Shirts are taken for T-shirts, and the other way round."},
            {"name": "worst", "step": steps, "table": {"columns": ["id", "loss"], "rows": [[17, 4.2], [40021, 3.9]]}},
        ],
        "events": _events(steps, changes),
        "nodes": _nodes(seconds),
        "environment": {
            "python": "3.11.2",
            "torch": "2.13.0",
            "host": "lab-7",
            "cpus": 8,
            "packages": {"ray": "2.60.0"},
        },
        "reproduce": {
            "commands": ["git checkout 51f499c", "headway train job.yaml --set seed=1"],
            "digests": {"samples": "9f31c2", "weights": "01ab44", "job": "5b1f0a"},
            "git": {"commit": "51f499c", "dirty": False, "remote": "https://example.org/clothes.git"},
        },
        "redacted": False,
    }


def png(width: int, height: int) -> str:
    """A picture of colours that go over into each other, as base64."""
    rows = b"".join(
        b"\0" + b"".join(struct.pack("BBB", 255 * x // width, 120, 255 * y // height) for x in range(width))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(whole).decode()


Change = tuple[int, str, str, list[str]]
"""Step, cause, worker, and who trains from then on."""


def _changes(steps: int, losses: int) -> list[Change]:
    members = ["w0", "w1", "w2", "w3"]
    found: list[Change] = [(0, "begun", "", list(members))]
    for number in range(losses):
        at = int(steps * (number + 1) / (losses + 1.5))
        gone = members.pop(1 + number % 3)
        found.append((at, CAUSES[number % len(CAUSES)], gone, list(members)))
        members.append(f"w{number + 4}")
        found.append((at + max(1, steps // (6 * losses)), "joined", members[-1], list(members)))
    return found


def _series(steps: int, seed: int) -> list[dict[str, Any]]:
    every = max(1, steps // POINTS)
    at = list(range(0, steps, every))
    noise = [math.sin(12.9898 * (i + seed)) * 43758.5453 % 1.0 - 0.5 for i in range(len(at))]
    loss = [
        2.1 * math.exp(-3.2 * s / steps) + 0.24 + 0.3 * n * math.exp(-1.2 * s / steps)
        for s, n in zip(at, noise, strict=True)
    ]
    judged = list(range(steps // 24, steps + 1, max(1, steps // 24)))
    accuracy = [0.915 - 0.34 * math.exp(-5 * s / steps) + 0.006 * math.sin(s + seed) for s in judged]
    return [
        _one("loss", "loss", at, loss),
        _one("validation/loss", "loss", judged, [1.5 * math.exp(-4 * s / steps) + 0.27 for s in judged]),
        _one("accuracy", "validation", judged, accuracy),
        _one("f1", "validation", judged, [a - 0.004 for a in accuracy]),
        _one("learning rate", "recorded", at, [0.002 * 0.5 * (1 + math.cos(math.pi * s / steps)) for s in at]),
        _one("gradient norm", "recorded", at, [1.2 + n for n in noise]),
        _one("samples a second", "rate", at, [2304 + 300 * n for n in noise]),
    ]


def _one(name: str, group: str, step: list[int], value: list[float]) -> dict[str, Any]:
    seconds = [round(s / RATE + 5, 2) for s in step]
    return {"name": name, "group": group, "unit": "", "step": step, "seconds": seconds, "value": value}


def _marks(steps: int, changes: list[Change]) -> list[dict[str, Any]]:
    found = [{"step": 0, "kind": "start", "cause": "", "workers": [], "words": "started on lab-7"}]
    for step, cause, worker, members in changes[1:]:
        joined = cause == "joined"
        words = f"{worker} joined" if joined else f"lost {worker}; the others went on after 0.55 s, nothing was lost"
        kind = "joined" if joined else "lost"
        found.append({"step": step, "kind": kind, "cause": cause, "workers": members, "words": words})
    found += [
        {"step": step, "kind": "checkpoint", "cause": "", "workers": [], "words": f"checkpoint of step {step}"}
        for step in range(steps // 8, steps + 1, steps // 8)
    ]
    found.append(
        {"step": steps // 2, "kind": "slow", "cause": "", "workers": ["w0"], "words": "w0 is 1.4 times as slow"}
    )
    found.append({"step": steps, "kind": "end", "cause": "", "workers": [], "words": "finished"})
    return [{**mark, "seconds": float(mark["step"]) / RATE + 5} for mark in sorted(found, key=lambda m: int(m["step"]))]


def _workers(changes: list[Change]) -> list[dict[str, Any]]:
    return [{"step": s, "seconds": s / RATE + 5, "workers": len(m), "cause": c} for s, c, _, m in changes]


def _lanes(changes: list[Change]) -> list[dict[str, Any]]:
    return [
        {
            "generation": number,
            "step": step,
            "seconds": step / RATE + 5,
            "members": members,
            "lanes": [list(range(8 * i // len(members), 8 * (i + 1) // len(members))) for i in range(len(members))],
        }
        for number, (step, _, _, members) in enumerate(changes)
    ]


def _ledger(seconds: float) -> dict[str, Any]:
    rates = {"start": 8.1, "compute": 410.0, "communication": 52.0, "data": 4.2, "checkpoint": 2.1, "regroup": 3.6}
    rates |= {"repeated": 2.0, "idle": 10.0}
    at = [seconds * i / 60 for i in range(61)]
    grown = {
        cause: [total * (min(1.0, t / 6) if cause == "start" else max(0.0, t - 5) / (seconds - 5)) for t in at]
        for cause, total in rates.items()
    }
    return {"seconds": rates, "over_time": {"seconds": at, "causes": grown}}


def _recovery(change: Change) -> dict[str, Any]:
    step, cause, worker, _ = change
    joined = cause == "joined"
    pause, silent = (0.08, None) if joined else (0.55 + 0.001 * (step % 70), 0.31)
    return {
        "cause": cause,
        "workers": [worker],
        "step": step,
        "seconds": step / RATE + 5,
        "silent_s": silent,
        "pause_s": pause,
        "lost_steps": 0,
        "kept": False,
    }


def _events(steps: int, changes: list[Change]) -> list[dict[str, Any]]:
    found = [{"seconds": 0.0, "step": 0, "words": "started on lab-7: submitted by ada@lab", "count": 1}]
    for step, cause, worker, _ in changes[1:]:
        words = f"{worker} joined before step {step}" if cause == "joined" else f"lost {worker}: its process ended"
        found.append({"seconds": step / RATE + 5, "step": step, "words": words, "count": 1})
    found.append({"seconds": steps / RATE + 5, "step": steps, "words": f"checkpoint of step {steps}", "count": 8})
    return found


def _nodes(seconds: float) -> list[dict[str, Any]]:
    at = [seconds * i / 40 for i in range(41)]
    return [
        {
            "name": f"node-{n}",
            "seconds": at,
            "cpu": [0.7 + 0.2 * math.sin(t / 4 + n) for t in at],
            "memory": [0.31 + 0.001 * t / seconds for t in at],
            "gpu": None,
            "network": [4e6 + 1e6 * math.sin(t / 3) for t in at],
            "disk": [2e5 for _ in at],
        }
        for n in range(2)
    ]


def _data() -> list[dict[str, Any]]:
    pixels = {"name": "image", "type": "uint8[28, 28]", "min": 0, "max": 255, "mean": 72.94, "std": 90.02}
    counts = [22000, 4100, 3100, 2600, 2300, 2400, 2800, 3900, 6100, 10700]
    label = {"name": "label", "type": "int64", "distinct": 10, "top": [["shirt", 6000], ["coat", 6000], ["bag", 6000]]}
    columns = [{**pixels, "histogram": {"edges": [25.5 * i for i in range(11)], "counts": counts}}, label]
    return [
        {
            "role": "train",
            "name": "fashion-mnist",
            "digest": "a3f1" * 16,
            "rows": 60000,
            "columns": columns,
            "quarantined": 2,
        },
        {
            "role": "validation",
            "name": "fashion-mnist",
            "digest": "77b0" * 16,
            "rows": 10000,
            "columns": [],
            "quarantined": 0,
        },
    ]


def _confusion() -> list[list[int]]:
    return [[930 if i == j else (i * 7 + j * 13) % 23 for j in range(10)] for i in range(10)]


def everywhere(tree: Any, text: str) -> Any:
    """A tree with this text in place of each of its texts; what the page goes by stays."""
    if isinstance(tree, dict):
        kept_keys = ("kind", "group", "mime", "data", "state")
        return {key: value if key in kept_keys else everywhere(value, text) for key, value in tree.items()}
    if isinstance(tree, list):
        return [everywhere(value, text) for value in tree]
    return text if isinstance(tree, str) else tree


def compared(*stories: dict[str, Any], **differences: list[dict[str, Any]]) -> dict[str, Any]:
    found = {"job": [], "code": [], "data": [], "environment": [], **differences}
    words = {
        "what": "2 runs beside each other.",
        "how_well": "a is better.",
        "differences": "They differ in job (seed).",
    }
    return {"version": 1, "kind": "comparison", "words": words, "differences": found, "runs": list(stories)}


def swept(trials: int = 6) -> dict[str, Any]:
    """A sweep's document, by hand: the lower the rate the better."""
    each = [
        {
            "trial": n,
            "run": f"s-{n:04d}",
            "settings": {"optimizer.lr": 10.0**-n, "task.width": [64, 128][n % 2]},
            "state": "failed" if n == 0 else "finished",
            "why": "its loss became no number" if n == 0 else "",
            "step": 100,
            "value": None if n == 0 else 0.5 + n / 100,
            "best": None if n == 0 else 0.5 + n / 100,
            "best_step": None if n == 0 else 100,
            "best_settings": {"optimizer.lr": 10.0**-n, "task.width": [64, 128][n % 2]},
            "best_origin": None,
            "values": {},
            "evaluations": [] if n == 0 else [[50, 0.4 + n / 100], [100, 0.5 + n / 100]],
            "rungs": 1,
            "worker_s": 12.5,
            "origin": None,
        }
        for n in range(trials)
    ]
    report = {
        "sweep": "s",
        "state": "finished",
        "message": "",
        "metric": "accuracy",
        "mode": "max",
        "order": "async",
        "best": each[-1],
        "trials": each,
        "wanted": trials,
        "counts": {"finished": trials - 1, "failed": 1},
        "rungs": {},
        "workers": [[0.0, 1], [2.0, 2], [30.0, 0]],
        "seconds": 30.0,
        "worker_s": 75.0,
        "ledger_s": {"compute": 60.0, "idle": 15.0},
        "goodput": 0.8,
        "idle_s": 15.0,
        "dollars": 0.02,
        "importance": {"optimizer.lr": 0.9, "task.width": 0.1},
        "importance_note": "of 5 trials",
        "pictures": [],
        "tracking": {},
        "path": "runs/s",
    }
    words = {"what": "6 trials of one job were tried.", "how_well": "The best accuracy was 0.55."}
    return {"version": 1, "kind": "sweep", "words": words, "report": report, "created": None, "reproduce": {}}
