"""What is foreseen to go wrong with a run's money and time, told once, and once more when it is over. Pure."""

from __future__ import annotations

from dataclasses import dataclass

LATE, MONEY = "deadline", "money"
LASTS_S = 10.0
"""It is told once it was foreseen for so long: the first paces say little."""


@dataclass(frozen=True)
class Told:
    """What is told: what it is about, in words, and whether what was told before is over."""

    about: str
    text: str
    over: bool = False


class Foresight:
    """See the module."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def look(self, about: str, text: str, now: float) -> list[Told]:
        """Take in what is foreseen now.

        Args:
            about: LATE or MONEY.
            text: in words; empty where nothing is.
            now: seconds on one clock.
        """
        if not text:
            self._since.pop(about, None)
            if about not in self._told:
                return []
            self._told.discard(about)
            what = "the deadline can be met again" if about == LATE else "the money lasts to the end again"
            return [Told(about, what, over=True)]
        since = self._since.setdefault(about, now)
        if about in self._told or now - since < LASTS_S:
            return []
        self._told.add(about)
        return [Told(about, text)]
