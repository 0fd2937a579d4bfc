"""What `make demo` runs: real images, a training run on an embedded Ray, and what to look at afterwards.

    python trainers/demo.py

Brings Fashion-MNIST (70,000 images), or 5,000 digits of MNIST where it cannot be reached, and trains the recipe in
image_classification/ on it with two workers. Exits with 1 if the accuracy is not what the recipe reaches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import headway
from headway.cli.app import say_error
from headway.cli.live import Live
from headway.cli.runs import show
from headway.data.get import get
from headway.job import load

HERE = Path(__file__).resolve().parent
ENOUGH = {"fashion-mnist": 0.88, "mnist-5k": 0.95}


def main() -> int:
    data = get("fashion-mnist", fallback="mnist-5k")
    folders = [f"data.train={data.folder / 'train'}", f"data.validation={data.folder / 'test'}"]
    job = load(HERE / "image_classification" / "job.yaml", folders)
    with Live() as live:
        report = headway.train(job, watch=live.update)
    show(report)
    if report.state != "finished":
        print(f"\nInterrupted. Go on with: .venv/bin/headway resume {report.run}")
        return 130
    accuracy, enough = report.metrics["accuracy"], ENOUGH[data.name]
    print(f"\nTest accuracy on {data.name}: {accuracy:.2%} ({enough:.0%} or more expected).")
    print("See the run in MLflow: make ui          Again in numbers: .venv/bin/headway report " + report.run)
    return 0 if accuracy >= enough else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except headway.HeadwayError as error:
        say_error(error)
        sys.exit(error.exit_code)
