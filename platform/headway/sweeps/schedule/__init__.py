"""Schedulers: which trials go on, which wait, which end early."""

from headway.sweeps.schedule.protocol import Lengths as Lengths
from headway.sweeps.schedule.protocol import Scheduler as Scheduler
from headway.sweeps.schedule.registry import create as create
from headway.sweeps.schedule.registry import rungs_of as rungs_of
