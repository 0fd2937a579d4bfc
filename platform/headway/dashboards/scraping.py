"""A Prometheus that scrapes the runs of a place and this machine's Ray clusters: its configuration and its command."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from headway.dashboards import files
from headway.errors import BadInput
from headway.tracking.prometheus import discovery

DISCOVERY = "prom_metrics_service_discovery.json"
"""Ray writes it on a cluster's head, into its folder of temporary files."""
DOWNLOADS = "https://prometheus.io/download"
GRAFANA = "https://grafana.com/grafana/download"


def program() -> str:
    """The installed Prometheus. Raises BadInput that says how to get it."""
    found = shutil.which("prometheus")
    if found is None:
        raise BadInput(
            "Prometheus is not installed",
            "no `prometheus` is on the PATH",
            f"Debian and Ubuntu have it (`apt install prometheus`), others find it at {DOWNLOADS}. A Prometheus "
            "elsewhere: `headway dashboards export FOLDER` writes its configuration, rules and alerts, too.",
        )
    return found


def discovered_by_ray() -> Path:
    """Where a Ray cluster of this machine says what can be scraped, unless it was given another folder."""
    temporary = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return temporary / "ray" / DISCOVERY


def configuration(runs: Path, ray: Sequence[Path]) -> dict[str, Any]:
    """`prometheus.yml` with the places filled in.

    Args:
        runs: the folder of runs, or of their working copies.
        ray: files that Ray clusters write.
    """
    source = files.folder() / "prometheus"
    tree: dict[str, Any] = yaml.safe_load((source / "prometheus.yml").read_text(encoding="utf-8"))
    tree["rule_files"] = [str(source / name) for name in tree["rule_files"]]
    scraped = {job["job_name"]: job["file_sd_configs"][0] for job in tree["scrape_configs"]}
    scraped["headway"]["files"] = [str(runs.resolve() / discovery.FOLDER / "*.json")]
    scraped["ray"]["files"] = [str(path.resolve()) for path in ray]
    return tree


def command(program: str, config: Path, data: Path, address: str) -> list[str]:
    """How it is started. data: its folder; address: HOST:PORT to listen at."""
    return [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
