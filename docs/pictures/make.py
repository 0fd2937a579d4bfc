"""Makes the pictures of the documentation anew, from a run that has ended and in a real browser.

    make demo                                                  # or any other run
    python docs/pictures/make.py [report] [mlflow] [--run NAME] [--runs FOLDER]

The run is the newest that finished and has a page in its folder, as `make demo` leaves it of the run in which a worker
is killed; else the newest; unless one is named. Needs the extra `pages` and Chromium. A dashboard's picture is made by
`python -m dashboards.picture`.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SCREEN = (1280, 900)
OF_REPORT = (1280, 1500)
MAIN = "from headway.cli.app import main; main()"
DRAWN_MS = 60_000
SETTLED_MS = 8_000  # MLflow's page asks again and again, and so is never idle
ASSISTANT = "[data-component-id='mlflow.assistant.chat_panel.close']"
PAGE = "report.html"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help=", ".join(PICTURES))
    parser.add_argument("--run", default=None, help="the newest that finished and has a page when not given")
    parser.add_argument("--runs", default="runs", help="folder of runs")
    options = parser.parse_args()
    if unknown := set(options.pictures) - set(PICTURES):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    run = options.run or newest(options.runs)
    from tests.browser import browser

    with browser() as chromium:
        for name in options.pictures or PICTURES:
            PICTURES[name](chromium, run, options.runs)


def newest(runs: str) -> str:
    from headway.runs import Place, outline

    finished = [brief for brief in outline(Place.of(runs)) if brief.state == "finished"]
    if not finished:
        raise SystemExit(f"no run in {runs} has finished; `make demo` makes one")
    paged = [brief for brief in finished if (Path(runs) / brief.run / PAGE).is_file()]
    return max(paged or finished, key=lambda brief: brief.created).run


def report(chromium: Browser, run: str, runs: str) -> None:
    """The top of a run's page, as it is on a desk."""
    from tests.browser import opened

    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "page.html"
        words = ["report", run, "--runs", runs, "--html", str(page), "--redact"]
        subprocess.run([sys.executable, "-c", MAIN, *words], check=True, cwd=ROOT)
        with opened(chromium, page.as_uri(), screen=OF_REPORT) as sight:
            sight.page.wait_for_selector("canvas")
            taken(sight.page, "report")


def mlflow(chromium: Browser, run: str, runs: str) -> None:
    """The curves of a run in MLflow."""
    from mlflow import MlflowClient
    from tests.browser import opened

    from headway.tracking import pages
    from headway.tracking.store import default_uri

    client = MlflowClient(tracking_uri=default_uri(runs))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(experiments, f"tags.`mlflow.runName` = '{run}'", max_results=1)
    with served(runs) as address:
        page = pages.of_run(address, found.info.experiment_id, found.info.run_id)
        assert page is not None
        with opened(chromium, page.replace("?", "/model-metrics?"), screen=SCREEN) as sight:
            sight.page.wait_for_selector("canvas, svg.main-svg", timeout=DRAWN_MS)
            if assistant := sight.page.query_selector(ASSISTANT):  # it opens by itself, over a third of the page
                assistant.click()
            sight.page.wait_for_timeout(SETTLED_MS)
            taken(sight.page, "mlflow")


@contextmanager
def served(runs: str) -> Iterator[str]:
    """`headway ui` while it is open; gives its address."""
    command = [sys.executable, "-c", MAIN, "ui", "--port", "0", "--runs", runs]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        told = next((at for line in server.stdout if (at := re.search(r"http://[\w.:]+", line))), None)
        if told is None:
            raise SystemExit("MLflow's server did not start")
        yield told[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def taken(page: Any, name: str) -> None:
    path = HERE / f"{name}.png"
    page.wait_for_timeout(1000)  # what moves has come to rest
    page.screenshot(path=path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


PICTURES = {"report": report, "mlflow": mlflow}


if __name__ == "__main__":
    main()
