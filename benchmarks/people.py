"""From plain Python to predictions: what a person waits for, and what they write, beside what others have.

python benchmarks/people.py [first_step] [predict] [lines] [--repeats 5]

Each part is kept in results/people.json when it is done; without a name all are measured. The peers (Accelerate,
Lightning, transformers and datasets) must be installed for `lines` and `first_step`. What is measured is a process of
its own each time, from its start; those of a part take turns, so that all see the same machine.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measure import keep, kept, summary
from people_peers import made
from try_out import PLATFORM, prepared

PEERS = Path(__file__).parent / "people_peers"
FRAMEWORKS = ("headway", "lightning", "accelerate", "ray_train")
CASES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "table": ("churn.csv", made.churn),
    "gan": ("ring.npy", made.ring),
    "huggingface": ("tokens.jsonl", made.tokens),
    "lightning_module": ("churn.csv", made.churn),
}
SMALL, LARGE, LARGER = 50_000, 500_000, 1_500_000
"""Rows: predicted in all; and, for the pace, the difference between these two."""


def run(command: list[str], folder: Path) -> tuple[float, str]:
    """When a command was started, and what it printed."""
    paths = [str(PLATFORM), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)}
    began = time.time()
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return began, done.stdout


def headway(folder: Path, *arguments: str) -> tuple[float, str]:
    return run(["-m", "headway.cli.app", *arguments], folder)


# The first step


def first_step(repeats: int) -> dict[str, Any]:
    """Seconds from a command's start until the first step of the same net on the same rows is done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = prepared(folder)
        rows = folder / "rows.npz"
        table = pq.read_table(sorted((folder / "set").glob("*.parquet")))
        x = np.stack(table["x"].to_numpy()).astype(np.float32)
        np.savez(rows, x=x, y=table["y"].to_numpy())
        ways: dict[str, Callable[[int], float]] = {
            "headway_local": lambda n: _ours(folder, job, f"local-{n}", "--local"),
            "headway_embedded": lambda n: _ours(folder, job, f"embedded-{n}", "--address", "local"),
            "ray_init_alone": lambda _: _theirs(folder, "ray_alone", rows),
            **{peer: lambda _, peer=peer: _theirs(folder, f"with_{peer}", rows) for peer in FRAMEWORKS[1:]},
        }
        found = taken_in_turns(ways, repeats)
    extra = [a - b for a, b in zip(found["headway_embedded"], found["ray_init_alone"], strict=True)]
    shown = {way: summary(seconds) for way, seconds in found.items()}
    over = round(statistics.median(extra), 3)
    met = {"local_s": [shown["headway_local"]["median"], 3.0], "embedded_s": [shown["headway_embedded"]["median"], 9.0]}
    return {"seconds": shown, "embedded_over_ray_init_s": over, "targets": {**met, "over_ray_init_s": [over, 5.0]}}


def _ours(folder: Path, job: Path, name: str, *where: str) -> float:
    began, _ = headway(folder, "train", str(job), "--runs", str(folder / "runs"), "--name", name, *where)
    with (folder / "runs" / name / "steps.jsonl").open() as lines:
        return float(json.loads(next(lines))["time"]) - began


def _theirs(folder: Path, script: str, rows: Path) -> float:
    began, said = run([str(PEERS / "first_step" / f"{script}.py"), str(rows)], folder)
    told = next(line for line in said.splitlines() if "first step" in line)
    return float(told.partition("first step ")[2].split()[0]) - began


def taken_in_turns(ways: dict[str, Callable[[int], float]], repeats: int) -> dict[str, list[float]]:
    """So many of each; who begins changes."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(repeats):
        order = list(ways)
        for way in order[number % len(order) :] + order[: number % len(order)]:
            found[way].append(ways[way](number))
            print(f"{way}: {found[way][-1]:.2f} s", file=sys.stderr)
    return found


# Predictions


def predict(repeats: int) -> dict[str, Any]:
    """Seconds of a whole command on few rows, and rows per second of a long one, beside a plain loop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = _trained(folder)
        sets = {rows: _rows(folder / f"{rows}.parquet", rows) for rows in (SMALL, LARGE, LARGER)}
        bare = str(PEERS / "predict" / "bare.py")

        def by_headway(rows: int) -> Callable[[int], float]:
            said = ("predict", "runs/wide", str(sets[rows]), "--out")
            return lambda n: seconds(headway, folder, *said, f"out-{rows}-{n}")

        def by_loop(rows: int) -> Callable[[int], float]:
            return lambda n: seconds(run, [bare, str(weights), str(sets[rows]), f"bare-{rows}-{n}.parquet"], folder)

        sizes = (SMALL, LARGE, LARGER)
        ways = {f"headway_{rows}": by_headway(rows) for rows in sizes}
        found = taken_in_turns(ways | {f"loop_{rows}": by_loop(rows) for rows in sizes}, repeats)
    middle = {way: statistics.median(values) for way, values in found.items()}
    pace = {
        who: (LARGER - LARGE) / (middle[f"{who}_{LARGER}"] - middle[f"{who}_{LARGE}"]) for who in ("headway", "loop")
    }
    of_pace, of_time = pace["headway"] / pace["loop"], middle[f"headway_{SMALL}"] / middle[f"loop_{SMALL}"]
    return {
        "seconds": {way: summary(values) for way, values in found.items()},
        "rows_per_s": {who: round(value) for who, value in pace.items()},
        "targets": {"of_the_loops_pace": [round(of_pace, 3), 0.9], "of_its_time": [round(of_time, 3), 1.5]},
    }


def seconds(what: Callable[..., Any], *arguments: Any) -> float:
    began = time.monotonic()
    what(*arguments)
    return time.monotonic() - began


def _rows(path: Path, rows: int) -> Path:
    random = np.random.default_rng(rows)
    numbers = {f"x{number}": random.normal(size=rows).astype(np.float32) for number in range(16)}
    pq.write_table(pa.table({**numbers, "label": random.integers(0, 2, rows)}), path, row_group_size=65_536)
    return path


def _trained(folder: Path) -> Path:
    """A run named wide, of a few steps, and its weights in a file for the loop."""
    from headway.data.write.writer import write_dataset

    rows = pq.read_table(_rows(folder / "few.parquet", 4096))
    write_dataset(folder / "set", [rows], name="s", source="")
    job = {"name": "wide", "task": str(PEERS / "predict" / "task.py") + ":Wide", "data": {"train": "set"}}
    job |= {"lanes": 2, "steps": 8, "tracking": {"enabled": False}}
    (folder / "job.yaml").write_text(json.dumps(job))
    headway(folder, "train", "job.yaml", "--local", "--runs", "runs", "--name", "wide")
    model = "headway.load_model('runs/wide', step='last')[0]"
    run(["-c", f"import headway, torch; torch.save({model}.state_dict(), 'wide.pt')"], folder)
    return folder / "wide.pt"


# Lines


def lines(repeats: int) -> dict[str, Any]:
    """Lines of code of each script; each is run, and says what it reached. repeats: of no use here."""
    found: dict[str, Any] = {}
    for case, (name, make) in CASES.items():
        found[case] = {}
        for framework in FRAMEWORKS:
            script = PEERS / case / f"with_{framework}.py"
            with tempfile.TemporaryDirectory() as folder:
                _, said = run([str(script), str(make(Path(folder) / name))], Path(folder))
            reached = said.strip().splitlines()[-1]
            found[case][framework] = {"lines": written(script.read_text()), "reached": reached}
            print(f"{case}, {framework}: {found[case][framework]['lines']} lines, {reached}", file=sys.stderr)
    return {"lines": found}


def written(source: str) -> int:
    """Lines that hold code: not empty, no comment, no docstring."""
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            said = node.body[0]
            held -= set(range(said.lineno, (said.end_lineno or said.lineno) + 1))
    return len(held)


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {"first_step": first_step, "predict": predict, "lines": lines}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    for name in asked.parts or PARTS:
        when = {"when": time.strftime("%Y-%m-%d"), "torch": torch.__version__}
        keep("people", {**kept("people"), name: {**PARTS[name](asked.repeats), **when}})


if __name__ == "__main__":
    main()
