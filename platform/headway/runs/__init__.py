"""Runs: where they are kept, what is in one, who may write to it, and how one is found again."""

from __future__ import annotations

from headway.runs.folder import GLANCE_S as GLANCE_S
from headway.runs.folder import RunFolder as RunFolder
from headway.runs.folder import create as create
from headway.runs.folder import every as every
from headway.runs.folder import find as find
from headway.runs.folder import kept as kept
from headway.runs.folder import write_job as write_job
