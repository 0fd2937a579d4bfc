"""Which way to get a machine is tried next, and why: cheapest first, and a refused one not again at once.

One node type of a cluster's file stands for a list of options. After a refusal an option cools down, longer each time;
so does the whole market where it asks for less haste, or cannot be reached. A machine that was paid for and never
joined is a refusal too: only one that joins makes up for it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

CAPACITY, QUOTA, THROTTLED, FORBIDDEN, UNKNOWN = "capacity", "quota", "throttled", "forbidden", "unknown"
UNREACHABLE, NEVER_CAME = "unreachable", "never came"
"""The kinds of refusal: those of a market, the market that does not answer, the machine that never joined."""

OF_ALL = frozenset({THROTTLED, UNREACHABLE})
"""Kinds that say nothing of one option: the whole market is left alone for a while."""

SOUGHT, AS_LISTED = "cheapest", "as_listed"
"""The orders in which options are tried."""


class Priced(Hashable, Protocol):
    """An option; its words are shown."""

    @property
    def price_per_hour(self) -> float | None: ...


Way = TypeVar("Way", bound=Priced)


@dataclass(frozen=True)
class Patience:
    """Seconds to leave alone what refused, by kind of refusal; doubled with every refusal in a row.

    Args:
        first_s: after the first.
        longest_s: never longer.
    """

    first_s: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            {
                CAPACITY: 20.0,
                QUOTA: 60.0,
                THROTTLED: 2.0,
                UNREACHABLE: 2.0,
                FORBIDDEN: 300.0,
                UNKNOWN: 300.0,
                NEVER_CAME: 60.0,
            }
        )
    )
    longest_s: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            {
                CAPACITY: 600.0,
                QUOTA: 900.0,
                THROTTLED: 60.0,
                UNREACHABLE: 60.0,
                FORBIDDEN: 3600.0,
                UNKNOWN: 3600.0,
                NEVER_CAME: 1800.0,
            }
        )
    )

    def scaled(self, factor: float) -> Patience:
        """With all seconds times `factor`, which is positive."""
        first = {kind: seconds * factor for kind, seconds in self.first_s.items()}
        return Patience(first, {kind: seconds * factor for kind, seconds in self.longest_s.items()})

    def pause_s(self, kind: str, times: int) -> float:
        """Seconds to wait after so many refusals of a kind in a row."""
        return float(min(self.longest_s[kind], self.first_s[kind] * 2.0 ** min(times - 1, 30)))


@dataclass(frozen=True)
class Refusal:
    """What an option, or the market, said no to.

    Args:
        kind: see above.
        reason: in the cloud's words.
        since: of the first in a row, Unix seconds.
        times: in a row.
        until: not asked again before.
        at: of the latest, Unix seconds.
    """

    kind: str
    reason: str
    since: float
    times: int
    until: float
    at: float

    def words(self, now: float) -> str:
        """As a person is told it."""
        again = f", asked again in {self.until - now:.0f} s" if self.until > now else ""
        often = f" ({self.times} times)" if self.times > 1 else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.kind} for {max(0.0, now - self.since):.0f} s now{often}{reason}{again}"


@dataclass(frozen=True)
class Try(Generic[Way]):
    """Ask for this one."""

    option: Way
    reason: str


@dataclass(frozen=True)
class Wait:
    """Ask for nothing before `until`, Unix seconds."""

    until: float
    reason: str


@dataclass(frozen=True)
class Shopping(Generic[Way]):
    """What is known of a market's refusals.

    Args:
        refusals: by option.
        whole: of the market as such.
    """

    patience: Patience = field(default_factory=Patience)
    refusals: Mapping[Way, Refusal] = field(default_factory=dict)
    whole: Refusal | None = None

    def choose(self, options: Sequence[Way], now: float, order: str = SOUGHT) -> Try[Way] | Wait:
        """Which option to ask for.

        Args:
            options: at least one.
            now: Unix seconds.
            order: SOUGHT, those of no price last; or AS_LISTED.
        """
        if self.whole is not None and self.whole.until > now:
            return Wait(self.whole.until, f"the cloud: {self.whole.words(now)}")
        ranked = ordered(options, order)
        passed: list[str] = []
        for option in ranked:
            refusal = self.refusals.get(option)
            if refusal is None or refusal.until <= now:
                return Try(option, "; ".join([_why(option, ranked, order), *passed]))
            passed.append(f"{option}: {refusal.words(now)}")
        soonest = min(self.refusals[option].until for option in ranked)
        return Wait(soonest, "; ".join(passed))

    def asked(self, option: Way, now: float) -> Shopping[Way]:
        """It is being asked for: after a refusal, by one at a time."""
        refusal = self.refusals.get(option)
        if refusal is None:
            return self
        later = replace(refusal, until=now + self.patience.pause_s(refusal.kind, 1))
        return replace(self, refusals={**self.refusals, option: later})

    def refused(
        self, option: Way, kind: str, reason: str, now: float, retry_s: float | None = None, asked: float | None = None
    ) -> Shopping[Way]:
        """An option was refused.

        Args:
            kind: one of this module; any other counts as UNKNOWN.
            reason: in the cloud's words.
            now: Unix seconds.
            retry_s: what the cloud said of when to ask again.
            asked: when this was asked for. Requests that were on their way together are one refusal, not many.
        """
        kind = kind if kind in self.patience.first_s else UNKNOWN
        before = self.whole if kind in OF_ALL else self.refusals.get(option)
        together = before is not None and asked is not None and asked <= before.at
        times = (before.times if before else 0) + (0 if together else 1)
        pause = max(self.patience.pause_s(kind, times), retry_s or 0.0)
        refusal = Refusal(kind, reason, before.since if before else now, times, now + pause, now)
        if kind in OF_ALL:
            return replace(self, whole=refusal)
        return replace(self, refusals={**self.refusals, option: refusal})

    def served(self, option: Way) -> Shopping[Way]:
        """A machine was got: the market answers, and has this option; whether it boots is still to be seen."""
        refusal = self.refusals.get(option)
        kept = refusal is not None and refusal.kind == NEVER_CAME
        return replace(self, whole=None, refusals=self.refusals if kept else self._without(option))

    def came(self, option: Way) -> Shopping[Way]:
        """A machine of this option has joined the cluster."""
        return replace(self, refusals=self._without(option))

    def _without(self, option: Way) -> dict[Way, Refusal]:
        return {other: refusal for other, refusal in self.refusals.items() if other != option}


def ordered(options: Sequence[Way], order: str = SOUGHT) -> list[Way]:
    """The options in the order in which they are tried."""
    if order == AS_LISTED:
        return list(options)
    return sorted(options, key=lambda option: (option.price_per_hour is None, option.price_per_hour or 0.0))


def _why(option: Priced, ranked: Sequence[Priced], order: str) -> str:
    if len(ranked) == 1:
        return f"{option}, the only one"
    if option is ranked[0]:
        return f"{option}, {'the first of the list' if order == AS_LISTED else 'the cheapest'}"
    return f"{option}, the next {'of the list' if order == AS_LISTED else 'in price'}"
