"""The files of the dashboards: where they are, and copies of them for Grafana, Perses and Prometheus."""

from __future__ import annotations

import shutil
from pathlib import Path

from headway.errors import BadInput

KINDS = {"grafana": "*.json", "perses": "*.json", "prometheus": "*.yml"}
"""Folders, and the files in each."""


def folder() -> Path:
    """Holds a folder for each of `KINDS`. (A checkout has links to them beside what they are made from.)"""
    return Path(__file__).parent


def export(to: Path) -> list[Path]:
    """Write all files to a folder, over those of an earlier release; whatever else is there stays.

    Returns:
        What was written.

    Raises:
        BadInput: the folder cannot be written.
    """
    written: list[Path] = []
    try:
        for kind, pattern in KINDS.items():
            (to / kind).mkdir(parents=True, exist_ok=True)
            sources = sorted((folder() / kind).glob(pattern))
            written += [Path(shutil.copyfile(source, to / kind / source.name)) for source in sources]
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"dashboards cannot be written to {to}", reason, "Give a folder that can be written.") from None
    return written
