"""What trying the task costs: seconds until the first step of an embedded run, with the try-out and without.

python benchmarks/try_out.py [--pairs 7] [--other FOLDER]

The job is the MLP of step_time's, on a small set of its own. Runs are interleaved, each in a process of its own, and
what counts is the median of the pairs' differences: this machine's own pace changes from minute to minute. --other
names another checkout's `platform` folder, whose runs are interleaved too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from measure import keep, summary

from headway.data.write.writer import write_dataset

PLATFORM = Path(__file__).parents[1] / "platform"
TASK = """
import headway
from torch import nn
from torch.nn import functional


class Small(headway.Task):
    def model(self):
        return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))

    def loss(self, model, batch):
        return functional.cross_entropy(model(batch["x"]), batch["y"])
"""


def prepared(folder: Path) -> Path:
    """A job of a few steps in an empty folder."""
    x = np.random.default_rng(0).normal(size=(512, 8)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 8)
    write_dataset(folder / "set", [pa.table({"x": column, "y": (x.sum(1) > 0).astype(np.int64)})], name="s", source="")
    (folder / "task.py").write_text(TASK)
    job = {"name": "small", "task": "task.py:Small", "data": {"train": "set", "validation": "set"}}
    job |= {"lanes": 2, "steps": 4, "tracking": {"enabled": False}}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def first_step(job: Path, name: str, *arguments: str, platform: Path = PLATFORM) -> float:
    """Seconds from the command's start until the first step's record."""
    began = time.time()
    command = [sys.executable, "-m", "headway.cli.app", "train", str(job), "--runs", str(job.parent / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(platform)}
    subprocess.run([*command, "--name", name, *arguments], check=True, capture_output=True, env=environment)
    with (job.parent / "runs" / name / "steps.jsonl").open() as lines:
        return float(json.loads(next(lines))["time"]) - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--other", type=Path)
    asked = parser.parse_args()
    tried, untried, other = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        job = prepared(Path(folder))
        for number in range(asked.pairs):
            turns = [
                lambda n=number: tried.append(first_step(job, f"tried-{n}")),
                lambda n=number: untried.append(first_step(job, f"untried-{n}", "--set", "check=false")),
            ]
            if asked.other:
                turns.append(lambda n=number: other.append(first_step(job, f"other-{n}", platform=asked.other)))
            for turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
                turn()
    differences = [a - b for a, b in zip(tried, untried, strict=True)]
    figures = {"what": "seconds until the first step of an embedded run", "pairs": asked.pairs}
    figures |= {"tried_s": summary(tried), "untried_s": summary(untried)}
    figures |= {"added_s": round(statistics.median(differences), 3)}
    if other:
        figures |= {"other_s": summary(other)}
        figures |= {"over_other_s": round(statistics.median(a - b for a, b in zip(tried, other, strict=True)), 3)}
    keep("try_out", figures)


if __name__ == "__main__":
    main()
