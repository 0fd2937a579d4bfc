"""Who pays for a machine that several runs use: each its share, by the slots that it holds there.

- Whose workers hold slots on a machine pay for it, each in proportion to them: who is alone pays all of it.
- A machine on which nobody holds any is paid by the run that held some last, as long as that goes on: it idles until
  the cluster gives it back.
- The rest, the head and machines that boot or wait, are paid by all runs of the cluster, in proportion to the slots
  that they hold altogether; alike while nobody holds any.

So at each moment the shares of all runs add up to one. Every run decides for itself, by what all of them tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

HELD = b"held:"
"""Before a run's name, in Ray's internal store: where it says what it holds."""
Slots = Mapping[str, float]
"""By machine, what a run holds of it: the largest share of its CPUs, GPUs or memory."""


class Tenancy:
    """What one run pays.

    Args:
        me: the run, by the name that all runs know it by.
    """

    def __init__(self, me: str) -> None:
        self._me = me
        self._last: dict[str, frozenset[str]] = {}
        """Who held slots on a machine last."""

    def shares(self, machines: Iterable[str], holds: Mapping[str, Slots], head: str = "") -> dict[str, float]:
        """The run's share of each machine, from 0 to 1.

        Args:
            machines: that cost.
            holds: by run, of those that go on, this one among them.
            head: the machine of the head: of that too who holds slots there pays for it.
        """
        runs = {**holds, self._me: holds.get(self._me, {})}
        whole = {run: sum(slots.values()) for run, slots in runs.items()}
        all_slots = sum(whole.values())
        common = whole[self._me] / all_slots if all_slots > 0 else 1.0 / len(runs)
        found = {}
        for machine in machines:
            here = {run: slots[machine] for run, slots in runs.items() if slots.get(machine, 0.0) > 0}
            if here:
                self._last[machine] = frozenset(here)
                found[machine] = here.get(self._me, 0.0) / sum(here.values())
                continue
            last = self._last.get(machine, frozenset()) & set(runs)
            if last and machine != head:
                found[machine] = 1.0 / len(last) if self._me in last else 0.0
            else:
                found[machine] = common
        return found
