"""Deadlines: the game of Can't Be Late against uniform progress and an omniscient plan.

    python benchmarks/policy.py late ../shared/traces/spot_cant_be_late.csv
    python benchmarks/policy.py late ../shared/traces/spot_cant_be_late.csv --habits

Habits of spot machines are learned from half of the pools and judged by the other half, by every way to halve them. The
second table is at a restart of ours: what `benchmarks/cloud.py growth` measured from a machine's boot to its first
step. Takes two or three minutes. `--habits` learns from all pools and writes core/spot_habits.py instead.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

from measure import keep, kept

from headway.core.habits import learned
from headway.core.late import Late, Situation
from headway.core.phases import Phases
from headway.sim import late, spells

SOURCE = (
    "Recordings of AWS spot capacity in us-west-2 by Z. Wu and others, Can't Be Late, NSDI 2024, as kept by FrontierCS "
    "(MIT)"
)
HABITS = Path(__file__).parents[2] / "platform/headway/core/spot_habits.py"


def options(parser: argparse.ArgumentParser) -> None:
    """Of this part."""
    parser.add_argument("file", type=Path, help="CSV of region,trace,gap_s,availability")
    parser.add_argument("--habits", action="store_true", help="learn what Headway comes with, and write it")


def measure(options: argparse.Namespace) -> None:
    """Play, or learn."""
    recorded = spells.read(options.file)
    if options.habits:
        HABITS.write_text(written(learned([s.there for s in recorded], recorded[0].gap_s), options.file.name))
        return
    paper = late.table(recorded, 48.0, [52.0, 70.0], [0.05, 0.2], every_half=True)
    growth = kept("cloud")["growth"]["ours"]["first_step_after_boot_s"]["median"]
    own = late.table(recorded, 48.0, [52.0, 70.0], [math.ceil(growth / 10.0) * 10.0 / 3600], every_half=True)
    keep(
        "policy_late",
        {
            "what": "48 h of computing, a deadline: mean dollars of all recordings, judged by what other pools taught",
            "source": SOURCE,
            "paper": paper.as_json(),
            "ours": {
                "restart": "benchmarks/cloud.py growth, first_step_after_boot_s, rounded up to 10 s",
                "measured_s": growth,
                **own.as_json(),
            },
            "decision": decisions(recorded[: min(8, len(recorded))]),
        },
    )


def decisions(recorded: list[spells.Spell]) -> dict[str, Any]:
    """Milliseconds that a decision takes, the programme made beforehand, and how long that takes."""
    rules = late.Rules(deadline_s=70 * 3600.0, restart_s=720.0)
    policy, took, first = Late(), [], []
    for spell in recorded:
        policy = policy.successor()

        def timed(now: Situation, at: float, policy: Late = policy) -> str:
            began = time.perf_counter()
            found = policy.decide(now, at).run
            (took if at or first else first).append(time.perf_counter() - began)
            return found

        late.play(spell, rules, timed)
    return {
        "decisions": len(took),
        "mean_ms": round(1000 * statistics.mean(took), 4),
        "p99_ms": round(1000 * sorted(took)[int(0.99 * len(took))], 4),
        "programme_ms": round(1000 * first[0], 1),
    }


def written(phases: Phases, name: str) -> str:
    """The source of the habits that Headway comes with."""
    rows = "".join(f"        ({', '.join(f'{chance:.6f}' for chance in row)}),\n" for row in phases.moves)
    return f'''"""The habits of spot machines that Headway comes with, for want of a run's own; see docs/money.md.

{SOURCE}.
Learned by `python benchmarks/policy.py late {name} --habits` from all of its pools.
"""

from __future__ import annotations

from headway.core.phases import Phases

LEARNED = Phases(
    tick_s={phases.tick_s},
    there={phases.there},
    moves=(
{rows}    ),
    start=({", ".join(f"{chance:.6f}" for chance in phases.start)}),
)
'''
