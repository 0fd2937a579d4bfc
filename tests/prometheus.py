"""A real Prometheus for tests, as `headway dashboards up` configures it, that scrapes every second."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.cli import serving
from headway.dashboards import scraping


@dataclass(frozen=True)
class Prometheus:
    """One that is up."""

    url: str

    def ask(self, path: str, **parameters: Any) -> Any:
        """Its API's answer. Raises AssertionError for a refusal, with its reason."""
        asked = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def now(self, query: str) -> dict[tuple[str, ...], float]:
        """Values of the present by the values of their labels, in the labels' order."""
        found = self.ask("query", query=query)["result"]
        return {tuple(v for _, v in sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    def over(self, query: str, begin: float, end: float, step_s: float = 1.0) -> list[list[float]]:
        """For each series its values from begin to end, those that are no number left out."""
        found = self.ask("query_range", query=query, start=begin, end=end, step=step_s)["result"]
        series = [[float(value) for _, value in each["values"]] for each in found]
        return [kept for values in series if (kept := [value for value in values if math.isfinite(value)])]


def needed(*programs: str) -> None:
    """Skip the test where one of them is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install prometheus)")


@contextmanager
def scraping_of(runs: Path, folder: Path, *options: str) -> Iterator[Prometheus]:
    """Scrapes the runs of a folder. folder: empty, for what it keeps."""
    needed("prometheus")
    tree = scraping.configuration(runs, [folder / "ray.json"])
    tree["global"].update(scrape_interval="1s", scrape_timeout="1s", evaluation_interval="1s")
    for job in tree["scrape_configs"]:
        job["file_sd_configs"][0]["refresh_interval"] = "1s"
    config, port = folder / "prometheus.yml", serving.free_port("127.0.0.1", 0)
    config.write_text(yaml.safe_dump(tree))
    command = scraping.command(scraping.program(), config, folder / "data", f"127.0.0.1:{port}")
    with (folder / "log").open("w+") as log:
        server: subprocess.Popen[str] = serving.start([*command, *options], log)
        try:
            serving.wait_until_up(server, "Prometheus", "127.0.0.1", port, "/-/ready", log)
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            serving.stop(server)
