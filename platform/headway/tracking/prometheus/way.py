"""Whose figures leave a process for Prometheus, and how; light enough for those who only say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.core.figures import Subject

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Way:
    """How figures leave the process.

    Args:
        runs: the folder of runs on this machine, where the entry is.
        entry: its name: that of the run, or of the sweep that it belongs to.
        host, port: to listen at; port 0: any.
        through_ray: they are handed to Ray's exporter as well; in a process of Ray's.
    """

    runs: Path
    entry: str
    host: str = LOOPBACK
    port: int = 0
    through_ray: bool = False


@dataclass(frozen=True)
class Exported:
    """The run, and how its figures leave the process."""

    subject: Subject
    way: Way


class Mute:
    """Of a run whose figures nobody asked for."""

    def open(self) -> None:
        """Begin to give them."""

    def event(self, event: Mapping[str, Any]) -> None:
        """See `Figures.event`."""

    def record(self, record: Mapping[str, Any]) -> None:
        """See `Figures.record`."""

    def over(self, state: str) -> None:
        """See `Figures.over`."""

    def close(self) -> None:
        """Give them no more."""
