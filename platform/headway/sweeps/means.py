"""What the runs of one trial come to together: their mean, once all of them are as far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headway.sweeps.events import Reported, Values


@dataclass
class Means:
    """Of the runs of a trial, of which there is one for each of its `repeats`.

    Args:
        trial: its number.
        runs: their names.
    """

    trial: int
    runs: Sequence[str]
    _told: dict[int, dict[str, tuple[Values, bool]]] = field(default_factory=dict)
    """By step, by run: what was evaluated, and whether it stands there."""
    _said: dict[int, bool] = field(default_factory=dict)
    """By step: that was reported, and whether as standing."""
    _ended: dict[str, int] = field(default_factory=dict)
    """Runs that are at their end, by their own account before the others: after which step."""

    def passed(self, run: str, step: int, values: Values, stands: bool) -> Reported | None:
        """A run was evaluated; gives what is to be reported of the trial, once for each step, or twice where it was
        first passed and is then stood at."""
        there = self._told.setdefault(step, {})
        stands = stands or there.get(run, ({}, False))[1]
        there[run] = (values, stands)
        return self._whole(step)

    def ended(self, run: str) -> list[Reported]:
        """A run is at its end, which the others may not be: what it was evaluated to last counts for all later steps.
        Gives what is to be reported by now."""
        steps = [step for step, there in self._told.items() if run in there]
        if not steps:
            return []
        self._ended[run] = max(steps)
        found = (self._whole(step) for step in sorted(self._told) if step > self._ended[run])
        return [said for said in found if said is not None]

    def newest(self) -> Reported | None:
        """What was reported last, once more: as standing."""
        if not self._said:
            return None
        step = max(self._said)
        return Reported(self.trial, step, mean([values for values, _ in self._told[step].values()]), True)

    def _whole(self, step: int) -> Reported | None:
        there = self._told[step]
        for run, last in self._ended.items():
            if last < step:
                there[run] = (self._told[last][run][0], True)
        if len(there) < len(self.runs):
            return None
        all_stand = all(each for _, each in there.values())
        if self._said.get(step, False) or (step in self._said and not all_stand):
            return None
        self._said[step] = all_stand
        return Reported(self.trial, step, mean([values for values, _ in there.values()]), all_stand)

    def again(self) -> None:
        """They go on with another's weights: what they said before is of no account."""
        self._told.clear()
        self._said.clear()
        self._ended.clear()


def mean(all_of_them: Sequence[Values]) -> Values:
    """Of each metric that all have. NaN where one is."""
    common = set(all_of_them[0]).intersection(*all_of_them)
    return {name: sum(values[name] for values in all_of_them) / len(all_of_them) for name in sorted(common)}
