"""Runs: where they are kept, what is in one, who may write to it, and how one is found again."""

from __future__ import annotations

from headway.runs.finding import briefs as briefs
from headway.runs.finding import create as create
from headway.runs.finding import every as every
from headway.runs.finding import find as find
from headway.runs.finding import glance as glance
from headway.runs.finding import leader as leader
from headway.runs.finding import named as named
from headway.runs.finding import outline as outline
from headway.runs.folder import GLANCE_S as GLANCE_S
from headway.runs.folder import RunFolder as RunFolder
from headway.runs.folder import is_run as is_run
from headway.runs.folder import kept as kept
from headway.runs.folder import write_job as write_job
from headway.runs.listing import Brief as Brief
from headway.runs.place import DEFAULT as DEFAULT
from headway.runs.place import Place as Place
from headway.runs.refusals import Led as Led
from headway.runs.refusals import NoRun as NoRun
from headway.runs.refusals import Taken as Taken
