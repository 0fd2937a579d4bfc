"""Faults by script: what happens to whom, once which step is committed. Pure; `headway.testing.injector` does them.

    kill worker=1 step=30; cut node=2 step=50 for=8s; blip head step=60 for=3s; part workers=0,1 step=70 for=8s

The same as `Faults().kill(worker=1, at_step=30).cut(node=2, at_step=50, for_s=8)...`. A worker is named by its rank at
that moment, a node by its number in the cluster; both count from 0.
"""

from headway.testing.faults.drawing import BENIGN, CLOUD, LASTING_S, RANDOM, random_faults
from headway.testing.faults.fault import Fault, Faults, in_order, script
from headway.testing.faults.reading import parse
from headway.testing.faults.verbs import DEADLINE_S, VERBS, Verb

__all__ = [
    "BENIGN",
    "CLOUD",
    "DEADLINE_S",
    "LASTING_S",
    "RANDOM",
    "VERBS",
    "Fault",
    "Faults",
    "Verb",
    "in_order",
    "parse",
    "random_faults",
    "script",
]
