"""Who pays for a machine that several runs use: each its share, by the slots that it holds there.

- Whose workers hold slots on a machine pay for it, each in proportion to them: who is alone pays all of it.
- A machine on which nobody holds any is paid by the run that held some last, as long as that goes on: it idles until
  the cluster gives it back.
- The rest, the head and machines that boot or wait, are paid by all runs of the cluster, in proportion to the slots
  that they hold altogether; alike while nobody holds any.

So at each moment the shares of all runs add up to one. Every run decides for itself, by what all of them tell: what
they hold, and of machines on which nobody does who held some last, so that a run that comes later knows it too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

HELD = b"held:"
"""Before a run's name, in Ray's internal store: where it says what it holds."""
Slots = Mapping[str, float]
"""By machine, what a run holds of it: the largest share of its CPUs, GPUs or memory."""
Last = Mapping[str, tuple[float, Collection[str]]]
"""By machine on which nobody holds slots, the runs that did last, and when that was seen, in Unix seconds."""


@dataclass(frozen=True)
class Held:
    """What a run tells."""

    slots: Slots = field(default_factory=dict)
    last: Last = field(default_factory=dict)

    def encode(self, at: float) -> bytes:
        """For `decode`. at: Unix seconds."""
        last = {machine: [seen, sorted(runs)] for machine, (seen, runs) in self.last.items()}
        return json.dumps({"at": at, "slots": dict(self.slots), "last": last}).encode()

    @staticmethod
    def decode(data: bytes | None, since: float) -> Held | None:
        """What was encoded; None where it cannot be read, or was told before that time."""
        try:
            said = json.loads(data or b"")
            slots = {str(machine): float(share) for machine, share in said["slots"].items()}
            last = {str(m): (float(seen), frozenset(map(str, by))) for m, (seen, by) in said.get("last", {}).items()}
            return Held(slots, last) if float(said["at"]) > since else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


class Tenancy:
    """What one run pays.

    Args:
        me: the run, by the name that all runs know it by.
    """

    def __init__(self, me: str) -> None:
        self._me = me
        self._last: dict[str, tuple[float, frozenset[str]]] = {}
        """Who held slots on a machine last, and when that was seen."""
        self._held: set[str] = set()
        """Machines on which somebody does."""

    def last(self) -> Last:
        """What other runs are to know."""
        return {machine: each for machine, each in self._last.items() if machine not in self._held}

    def shares(
        self,
        machines: Iterable[str],
        holds: Mapping[str, Slots],
        head: str = "",
        now: float = 0.0,
        told: Iterable[Last] = (),
    ) -> dict[str, float]:
        """The run's share of each machine, from 0 to 1.

        Args:
            machines: that cost.
            holds: by run, of those that go on, this one among them.
            head: the machine of the head: of that too who holds slots there pays for it.
            now: Unix seconds.
            told: by the other runs; of a machine the newest counts.
        """
        machines = list(machines)
        for last in told:
            for machine, (seen, by) in last.items():
                if machine not in self._last or seen > self._last[machine][0]:
                    self._last[machine] = seen, frozenset(by)
        self._last = {machine: each for machine, each in self._last.items() if machine in set(machines)}
        self._held = {machine for slots in holds.values() for machine, share in slots.items() if share > 0}
        runs = {**holds, self._me: holds.get(self._me, {})}
        whole = {run: sum(slots.values()) for run, slots in runs.items()}
        all_slots = sum(whole.values())
        common = whole[self._me] / all_slots if all_slots > 0 else 1.0 / len(runs)
        found = {}
        for machine in machines:
            here = {run: slots[machine] for run, slots in runs.items() if slots.get(machine, 0.0) > 0}
            if here:
                self._last[machine] = now, frozenset(here)
                found[machine] = here.get(self._me, 0.0) / sum(here.values())
                continue
            paying = self._last[machine][1] & set(runs) if machine in self._last else frozenset()
            if paying and machine != head:
                found[machine] = 1.0 / len(paying) if self._me in paying else 0.0
            else:
                found[machine] = common
        return found
