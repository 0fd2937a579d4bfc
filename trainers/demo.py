"""What `make demo` runs: real images, a worker that is killed, one that takes its place, and proof that nothing shows.

    python trainers/demo.py

Brings Fashion-MNIST (70,000 images), or 5,000 digits of MNIST where it cannot be reached, and trains the recipe in
image_classification/ on it with two workers on an embedded Ray. At a third of the way one worker is killed; the other
goes on alone, and a new one joins. Then the same job runs undisturbed on one worker. Exits with 1 if the weights differ
by a single bit, a sample was lost, or the accuracy is not what the recipe reaches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import headway
from headway.cli.app import say_error
from headway.cli.live import Live
from headway.cli.runs import show
from headway.data.sets.get import get
from headway.job import load
from headway.report import documents, page
from headway.runs import Place

HERE = Path(__file__).resolve().parent
ENOUGH = {"fashion-mnist": 0.88, "mnist-5k": 0.95}


class Trouble:
    """Shows the progress, and kills the worker of rank 1 once a third of the steps are done."""

    def __init__(self, live: Live) -> None:
        self._live, self.killed = live, ""

    def __call__(self, progress: Any) -> None:
        self._live.update(progress)
        if not self.killed and 0 < progress.total_steps <= 3 * progress.step and progress.workers > 1:
            members = json.loads((Path("runs") / progress.run / "members.json").read_text())["workers"]
            for worker in members:
                if worker["rank"] == 1:
                    os.kill(worker["pid"], signal.SIGKILL)
                    self.killed = worker["id"]
                    print(f"\n>>> SIGKILL to {worker['id']} at step {progress.step}\n", file=sys.stderr)


def main() -> int:
    data = get("fashion-mnist", fallback="mnist-5k")
    settings = [f"data.train={data.folder / 'train'}", f"data.validation={data.folder / 'test'}"]
    settings += ["reproducible=bitwise"]
    recipe = HERE / "image_classification" / "job.yaml"
    with Live() as live:
        trouble = Trouble(live)
        report = headway.train(load(recipe, settings), address="local", watch=trouble)
    show(report)
    if report.state != "finished":
        print(f"\nInterrupted. Go on with: .venv/bin/headway resume {report.run}")
        return 130
    print("\nThe same job once more, undisturbed and on one worker:", file=sys.stderr)
    with Live() as live:
        alone = load(recipe, [*settings, "workers.max=1", "tracking.enabled=false"])
        quiet = headway.train(alone, address="local", watch=live.update)
    accuracy, enough = report.metrics["accuracy"], ENOUGH[data.name]
    same_samples = report.samples_sha256 == quiet.samples_sha256
    same_weights = report.weights_sha256 == quiet.weights_sha256
    joined = [r for r in report.recoveries if r["cause"] == "joined"]
    lost = [r for r in report.recoveries if r["cause"] == "process_died"]
    for r in lost:
        print(f"\n{' '.join(r['workers'])} was killed; the other worker went on after {r['pause_s']:.2f} s.")
    for r in joined:
        print(f"{' '.join(r['workers'])} joined between two steps, a pause of {r['pause_s']:.2f} s.")
    print(f"Steps: {report.steps} of {report.total_steps}. Samples as in the quiet run: {_yes(same_samples)}.")
    print(f"Weights as in the quiet run, to the bit: {_yes(same_weights)} ({str(report.weights_sha256)[:16]}).")
    print(f"Test accuracy on {data.name}: {accuracy:.2%} ({enough:.0%} or more expected).")
    print("See the run in MLflow: make ui          Again in numbers: .venv/bin/headway report " + report.run)
    told = documents.of(Place.of(None), [report.run])
    print(f"All of it, on a page to be sent round: {page.write(told, Path(report.path) / 'report.html')}")
    good = same_samples and same_weights and trouble.killed and lost and joined
    return 0 if good and accuracy >= enough else 1


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except headway.HeadwayError as error:
        say_error(error)
        sys.exit(error.exit_code)
