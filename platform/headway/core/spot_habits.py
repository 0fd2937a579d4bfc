"""The habits of spot machines that Headway comes with, for want of a run's own; see docs/money.md.

Recordings of AWS spot capacity in us-west-2 by Z. Wu and others, Can't Be Late, NSDI 2024, as kept by FrontierCS (MIT).
Learned by `python benchmarks/policy.py late spot_cant_be_late.csv --habits` from all of its pools.
"""

from __future__ import annotations

from headway.core.phases import Phases

LEARNED = Phases(
    tick_s=600.0,
    there=(False, False, False, False, True, True, True, True),
    moves=(
        (0.413020, 0.011043, 0.004480, 0.063741, 0.005455, 0.371126, 0.129699, 0.001436),
        (0.004147, 0.519065, 0.075503, 0.012321, 0.369406, 0.008951, 0.008211, 0.002396),
        (0.002164, 0.022864, 0.877860, 0.003178, 0.088966, 0.002145, 0.002451, 0.000373),
        (0.009647, 0.000928, 0.001118, 0.957825, 0.000830, 0.019753, 0.007766, 0.002133),
        (0.034891, 0.314628, 0.344814, 0.009261, 0.278930, 0.007163, 0.008579, 0.001733),
        (0.117817, 0.008708, 0.003576, 0.064074, 0.015593, 0.773288, 0.016173, 0.000770),
        (0.030071, 0.000470, 0.000387, 0.007975, 0.000445, 0.002038, 0.958312, 0.000302),
        (0.000482, 0.000687, 0.000824, 0.000396, 0.000713, 0.000462, 0.000427, 0.996010),
    ),
    start=(0.019073, 0.138446, 0.067210, 0.236810, 0.079929, 0.152855, 0.219002, 0.086676),
)
