"""Policies side by side over one trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headway.errors import BadInput
from headway.sim import peers
from headway.sim.account import CAUSES, Account
from headway.sim.costs import Costs
from headway.sim.live import Replay
from headway.sim.trace import Trace

POLICIES = ("live", "restart", "restart-default", "groups")
LANES_EACH = 64
LANES_AT_MOST = 80_000


@dataclass(frozen=True)
class Comparison:
    """What came of each policy. slowest_decision_s: CPU seconds of the membership's slowest answer to one event."""

    trace: Trace
    workers: int
    lanes: int
    accounts: dict[str, Account]
    slowest_decision_s: float | None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "trace": self.trace.name,
            "seconds": round(self.trace.until, 1),
            "losses": self.trace.losses,
            "workers": self.workers,
            "lanes": self.lanes,
            "slowest_decision_s": self.slowest_decision_s,
            "policies": {name: account.as_json() for name, account in self.accounts.items()},
        }


def compare(
    trace: Trace,
    costs: Costs,
    policies: tuple[str, ...] = POLICIES,
    workers: int | None = None,
    lanes: int | None = None,
    notice_s: float = 0.0,
    spares: int = 0,
) -> Comparison:
    """Replay a trace once for each policy.

    Args:
        workers: at most; as many as there are ever nodes where not given.
        lanes: of the live run; 64 for each worker where not given, fewer beyond 1,250 workers.
        notice_s: how long before a node goes the live run is told.
        spares: workers of the live run that stand by on nodes of their own.

    Raises:
        BadInput: an unknown policy, or fewer lanes than workers.
        RunFailed: the membership gave the simulated run up.
    """
    most = workers or trace.peak
    lanes = lanes or min(LANES_EACH * most, max(LANES_AT_MOST, most))
    if lanes < most:
        raise BadInput(f"{lanes} lanes cannot be carried by {most} workers", remedy="Give more lanes or fewer workers.")
    if unknown := set(policies) - set(POLICIES):
        raise BadInput(f"there is no policy {min(unknown)}", remedy=f"Take of {', '.join(POLICIES)}.")
    replay = Replay(trace, costs, lanes, most, notice_s, spares)
    run: dict[str, Callable[[], Account]] = {
        "live": replay.run,
        "restart": lambda: peers.restart(trace, costs, most, costs.restart_s, "restart, tuned"),
        "restart-default": lambda: peers.restart(trace, costs, most, costs.restart_default_s, "restart, default"),
        "groups": lambda: peers.groups(trace, costs, most),
    }
    accounts = {name: run[name]() for name in POLICIES if name in policies}
    return Comparison(trace, most, lanes, accounts, replay.slowest_s if "live" in policies else None)


def rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """The table, heads first, a column for each policy; seconds lost as shares of all there were."""
    accounts = list(comparison.accounts.values())
    yield ("", *(a.policy for a in accounts))
    yield ("goodput", *(f"{a.goodput:.4f}" for a in accounts))
    yield ("steps done", *(f"{a.steps:,}" for a in accounts))
    yield ("steps repeated", *(f"{a.repeated:,}" for a in accounts))
    for cause in CAUSES:
        yield (f"lost: {cause}", *(_share(a.lost_s[cause], a) for a in accounts))
    yield ("in steps: uneven", *(_share(a.uneven_s, a) for a in accounts))


def _share(seconds: float, account: Account) -> str:
    return f"{100 * seconds / (account.available_s or 1.0):.2f}%"
