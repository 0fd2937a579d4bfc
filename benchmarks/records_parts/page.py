"""How quickly MLflow's page opens: for 1,000 of our runs, and for one of 1,000,000 steps, against ten of 100 points
that MLflow's own client made. The same Chromium, a real server for each, one after the other in turns.

Our runs are made by what makes all of them: the recorder's curves, the spool, the writer. Half an hour, most of it for
the thousand runs.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import summary

from headway.cli import serving, ui
from headway.core import nodes
from headway.elastic.lead.drawing import Drawing
from headway.job import parse
from headway.tracking import environment, mlflow_writer, pages
from headway.tracking.spool import Spool
from headway.tracking.store import connect, default_uri
from headway.tracking.told import at_end, at_start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FEW, POINTS = 10, 100
MANY, STEPS_OF_MANY, LONG = 1000, 2000, 1_000_000
KEYS = 6
"""Of the baseline's runs."""
TURNS = 5
STEP_S = 0.1
WITHIN_MS = 240_000
BEGAN = 1_790_000_000.0
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
CURVES = "() => document.querySelectorAll('.js-plotly-plot .scatterlayer path.js-line').length >= {}"
ROWS = "() => document.querySelectorAll('.ag-center-cols-container .ag-row').length >= {}"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    least = 10 if options.quick else 1
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch, ExitStack() as after:
        few, many, long = (Path(scratch) / name for name in ("few", "many", "long"))
        began = time.perf_counter()
        theirs(few)
        keys = [ours(many, f"run-{number:04d}", STEPS_OF_MANY, number) for number in range(MANY // least)]
        made_s = time.perf_counter() - began
        keys.append(ours(long, "long", LONG // least, 1))
        chromium = after.enter_context(browser())
        found = {name: after.enter_context(served(chromium, runs)) for name, runs in _named(few, many, long)}
        first = {
            "a table of runs": {"few": found["few"].table, "many": found["many"].table},
            "a run's curves": {name: found[name].curves for name in ("few", "many", "long")},
        }
        took = {what: turns(of) for what, of in first.items()}
    told: dict[str, Any] = {
        "what": f"{FEW} runs of {POINTS} points; {MANY // least:,} of ours; one of {LONG // least:,} steps",
        "keys_of_a_run": sorted(keys[0]),
        "making_s": round(made_s, 1),
    }
    for what, of in took.items():
        told[what] = {name: summary(seconds) for name, seconds in of.items()}
        least_of = told[what]["few"]["median"]
        told[what]["against few"] = {n: round(told[what][n]["median"] / least_of, 3) for n in of if n != "few"}
    return told


def _named(*runs: Path) -> Iterator[tuple[str, Path]]:
    return ((each.name, each) for each in runs)


def turns(of: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each, in turns, after one that warms the server."""
    for open_it in of.values():
        open_it()
    taken: dict[str, list[float]] = {name: [] for name in of}
    for turn in range(TURNS):
        for name in sorted(of, reverse=bool(turn % 2)):
            taken[name].append(of[name]())
    return taken


# -- what is shown ---------------------------------------------------------------------------------------------------


def theirs(runs: Path) -> None:
    """Runs that MLflow's client logs, a value at a time of so many metrics."""
    from mlflow.entities import Metric

    runs.mkdir()
    client, artifacts = connect(default_uri(runs), runs)
    experiment = client.create_experiment("headway", artifact_location=f"{artifacts}/1")
    for number in range(FEW):
        run = client.create_run(experiment, run_name=f"few-{number}")
        for step in range(POINTS):
            at = int((BEGAN + step) * 1000)
            client.log_batch(run.info.run_id, [Metric(f"m{key}", 1 / (step + 1), at, step) for key in range(KEYS)])
        client.set_terminated(run.info.run_id)


def ours(runs: Path, name: str, steps: int, seed: int) -> set[str]:
    """A run of so many steps, as the recorder and the writer make it, with all that a run of the image recipe has; the
    keys of its metrics."""
    draw, keys = random.Random(seed), set[str]()
    job = parse({"name": name, "task": "/t.py:T", "data": {"train": "/d"}, "steps": steps})
    spool = Spool(runs / name / "spool.jsonl")
    tree = {"kind": "run", "time": BEGAN, "job": {**job.model_dump(mode="json"), "task": "/t.py:T"}}
    datasets = [
        {"context": use, "name": "images", "digest": f"{seed:064x}", "rows": 60_000} for use in ("train", "validation")
    ]
    tags = at_start("somebody@here", str(runs / name), "here", f"{seed:064x}", {"train": f"{seed:064x}"})
    spool.append({**tree, "datasets": datasets, "environment": AROUND, "tags": tags})
    spool.append({"kind": "state", "time": BEGAN, "state": "running", "message": ""})

    def track(event: dict[str, Any]) -> None:
        keys.update(event["values"])
        spool.append(event)

    facts: dict[str, Any] = {"ledger_s": dict.fromkeys(("compute", "communication", "idle"), 1.0), "goodput": 0.9}
    drawing = Drawing(job.tracking.every_steps, ("accuracy", "max"), None, {}, {}, track, facts.update)
    gauges = {"samples_per_s": 900.0, "workers": 4.0, "goodput": 0.9}
    watched = nodes.Nodes(BEGAN)
    for step in range(steps):
        at, noise = BEGAN + step * STEP_S, draw.random()
        loss = math.exp(-step / steps * 5) + noise / 20
        drawing.step(
            {"step": step, "time": at, "loss": loss, "lr": 0.1},
            lambda noise=noise: {**gauges, "samples_per_s": 900 + noise},
        )
        if step % 200 == 199:
            values = {"loss": loss, "accuracy": 1 - loss / 2}
            drawing.evaluated({"step": step + 1, "time": at, "values": values})
        if step % 100 == 0:
            watched.take({"here": _reading(at - BEGAN + 1, noise)}, at)
            if watched.due(at):
                drawing.machines(watched.line(at), step)
    drawing.rest()
    told = {"state": "finished", "message": "", "time": BEGAN + steps * STEP_S, "tags": at_end(facts)}
    spool.append({"kind": "state", **told})
    spool.close()
    sent = mlflow_writer.sync(runs / name, timeout_s=3600)
    if sent.error or sent.waiting:
        raise SystemExit(f"{name}: {sent.waiting} points wait ({sent.error})")
    return keys


AROUND = environment.environment()


def _reading(at: float, noise: float) -> dict[str, Any]:
    return {
        **{"name": "here", "cpu_busy_s": at * (1 + noise / 10), "cpu_s": at * 2, "memory": 1 + noise, "memory_all": 4},
        **{"received": int(at * 1e6), "sent": int(at * 1e6), "read": int(at * 1e5), "written": int(at * 1e5)},
    }


# -- who looks -------------------------------------------------------------------------------------------------------


@contextmanager
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = next((each for each in CHROMIUM if Path(each).exists()), None)
    if path is None:
        raise SystemExit("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


class Shown:
    """MLflow's pages over a folder of runs."""

    def __init__(self, chromium: Browser, address: str, runs: Path) -> None:
        self._chromium, self._address = chromium, address
        client, _ = connect(default_uri(runs), runs)
        self._experiment = client.get_experiment_by_name("headway").experiment_id
        page = client.search_runs([self._experiment], max_results=1)
        self._run, self._rows = page[0].info.run_id, len(client.search_runs([self._experiment], max_results=FEW))

    def table(self) -> float:
        """Seconds until the table of runs has its first rows."""
        return self._seconds(f"#/experiments/{self._experiment}/runs?{pages.MODE}", ROWS.format(min(FEW, self._rows)))

    def curves(self) -> float:
        """Seconds until a run's first curves are drawn."""
        where = f"#/experiments/{self._experiment}/runs/{self._run}/model-metrics?{pages.MODE}"
        return self._seconds(where, CURVES.format(KEYS // 2))

    def _seconds(self, where: str, drawn: str) -> float:
        context = self._chromium.new_context(viewport={"width": 1280, "height": 900})
        try:
            page: Page = context.new_page()
            begun = time.perf_counter()
            page.goto(f"{self._address}/{where}", wait_until="commit")
            page.wait_for_function(drawn, timeout=WITHIN_MS, polling=20)
            return time.perf_counter() - begun
        finally:
            context.close()


@contextmanager
def served(chromium: Browser, runs: Path) -> Iterator[Shown]:
    port = serving.free_port("127.0.0.1", 0)
    with tempfile.TemporaryFile("w+") as log:
        server = ui._start(runs, "127.0.0.1", port, log)
        try:
            serving.wait_until_up(server, "MLflow's server", "127.0.0.1", port, "/health", log)
            yield Shown(chromium, f"http://127.0.0.1:{port}", runs)
        finally:
            serving.stop(server)
