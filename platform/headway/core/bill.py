"""What machines cost: each from its purchase to its end, by the prices of those hours; what of it a run pays, and for
which causes of its ledger.

A bill is fed what happens to machines, in any order, and can be asked at any time: so the lead of a run keeps one, and
whoever reads the run's events later comes to the same dollars.

Clouds charge by the second, and for a minute at least (https://aws.amazon.com/ec2/pricing/on-demand/,
https://cloud.google.com/compute/vm-instance-pricing): `LEAST_S`.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from headway.core.ledger import CAUSES

HOUR_S = 3600.0
MONTH_S = 730 * HOUR_S
"""A month of a price of storage, as clouds count it."""
LEAST_S = 60.0
"""A machine that ran for less costs as much."""
PURCHASE, STAKE = "purchase", "stake"
"""Kinds of events that make a bill: of machines that are bought and gone, with their prices; and of what a run has of
them: its share, since when they carry its workers, what it stores."""
HEAD, STORAGE = "head", "storage"
SPENT_ON = (*CAUSES, HEAD, STORAGE)
"""What dollars go to: causes of a ledger, the head's machine, and what is stored."""

Steps = Sequence[tuple[float, float]]
"""(Unix seconds, value from then on), in order of time; the first holds before it too."""


@dataclass(frozen=True)
class Bought:
    """A machine that costs, or has cost. Times are Unix seconds.

    Args:
        id: the cloud's.
        kind: whether it is the head's, or carries work.
        type, zone: the cloud's names.
        spot: whether it was bought as such.
        since: it costs.
        prices: dollars per hour; of a spot machine there may be several; none where nobody knows.
        until: it cost; None while it does.
        least_s: so many seconds are charged in any case.
    """

    id: str
    type: str
    since: float
    prices: tuple[tuple[float, float], ...]
    kind: Literal["head", "node"] = "node"
    zone: str = ""
    spot: bool = False
    until: float | None = None
    least_s: float = LEAST_S

    @property
    def market(self) -> str:
        """Type, zone, and whether it is spot, in words."""
        where = f" in {self.zone}" if self.zone else ""
        return f"{self.type}{where}{', spot' if self.spot else ''}"

    def charged_until(self, now: float) -> float:
        """Up to when is to be paid by now: a minute at least, from the purchase on."""
        return max(now if self.until is None else min(self.until, now), self.since + self.least_s)

    def per_hour(self, at: float) -> float:
        """Dollars per hour; 0 while it does not cost."""
        there = self.since <= at and (self.until is None or at < self.until)
        return value(self.prices, at) if there and self.prices else 0.0

    def dollars(self, now: float) -> float:
        """All that it has cost by now, whoever pays."""
        if not self.prices or self.since > now:
            return 0.0
        return integral(self.since, self.charged_until(now), self.prices) / HOUR_S


@dataclass
class _Line:
    machine: Bought
    shares: list[tuple[float, float]] = field(default_factory=list)
    carries: list[tuple[float, float]] = field(default_factory=list)
    """Workers of the run that it carries, from when on."""
    per_worker: float | None = None
    """Dollars for an hour of each of them, as long as the machine has no price."""

    @property
    def counts(self) -> bool:
        """Whether anything says what it costs."""
        return bool(self.machine.prices) or self.per_worker is not None

    @property
    def factors(self) -> tuple[Steps, Steps]:
        """Whose product is what the run pays an hour."""
        if self.machine.prices:
            return self.machine.prices, self.shares
        return ((self.machine.since, self.per_worker or 0.0),), ((float("-inf"), 0.0), *self.carries)

    def per_hour(self, now: float) -> float:
        """Dollars of the run, now."""
        there = self.machine.since <= now and (self.machine.until is None or now < self.machine.until)
        first, second = self.factors
        return value(first, now) * value(second, now) if there else 0.0


@dataclass(frozen=True)
class Outlay:
    """How a run stands with its money: dollars so far, of all its starts; dollars per hour now; the Unix seconds."""

    dollars: float
    per_hour: float
    at: float


@dataclass(frozen=True)
class Part:
    """What the run pays of a machine.

    Args:
        machine: which.
        dollars: so far.
        per_hour: dollars, now.
        booting: of the dollars, those before it carried a worker of the run; of one that never did, all.
        carrying: those while it carried one.
        left: those since.
    """

    machine: Bought
    dollars: float
    per_hour: float
    booting: float
    carrying: float
    left: float


class Bill:
    """What a run pays in one of its starts. For one thread at a time.

    Args:
        began: Unix seconds; what machines cost before is not the run's.
        storage: dollars for a gigabyte and month.
    """

    def __init__(self, began: float, storage: float = 0.0) -> None:
        self.began, self.storage = began, storage
        self.ended: float | None = None
        self._lines: dict[str, _Line] = {}
        self._stored: list[tuple[float, float]] = []

    # What happens.

    def bought(self, machine: Bought, share: float = 1.0, per_worker: float | None = None) -> None:
        """There is a machine, of which the run pays such a share from the beginning; or more is known of it.

        One without a price costs per_worker for an hour of each worker of the run on it; where that is not said it is
        left out.
        """
        line = self._lines.get(machine.id)
        if line is None:
            self._lines[machine.id] = _Line(machine, [(machine.since, share)], per_worker=per_worker)
            return
        before, line.per_worker = line.machine, line.per_worker if per_worker is None else per_worker
        until = before.until if machine.until is None else machine.until
        line.machine = replace(machine, prices=machine.prices or before.prices, until=until)

    def priced(self, id: str, at: float, per_hour: float) -> None:
        """From then on a machine costs so many dollars per hour."""
        machine = self._lines[id].machine
        prices = dict(machine.prices) | {at: per_hour}
        self._lines[id].machine = replace(machine, prices=tuple(sorted(prices.items())))

    def gone(self, id: str, at: float | None) -> None:
        """A machine costs nothing any more; None: it does after all."""
        self._lines[id].machine = replace(self._lines[id].machine, until=at)

    def shared(self, id: str, at: float, share: float) -> None:
        """From then on the run pays such a share of a machine, from 0 to 1."""
        _set(self._lines[id].shares, at, share)

    def carries(self, id: str, at: float, workers: int) -> None:
        """From then on a machine carries so many workers of the run."""
        _set(self._lines[id].carries, at, float(workers))

    def stores(self, at: float, gigabytes: float) -> None:
        """From then on so much is stored for the run."""
        _set(self._stored, at, gigabytes)

    def end(self, at: float) -> None:
        """The run pays nothing from then on (but for the least time of a machine)."""
        self.ended = at

    # What it comes to.

    def __contains__(self, id: str) -> bool:
        """Whether a machine is on it."""
        return id in self._lines

    def __bool__(self) -> bool:
        """Whether any machine on it has a price."""
        return any(line.machine.prices for line in self._lines.values())

    def dollars(self, now: float) -> float:
        """So far."""
        return sum(part.dollars for part in self.parts(now)) + self.stored(now)

    def per_hour(self, now: float) -> float:
        """Dollars per hour, now."""
        if self.ended is not None and now >= self.ended:
            return 0.0
        held = value(self._stored, now) if self._stored and now >= self._stored[0][0] else 0.0
        rates = (line.per_hour(now) for line in self._lines.values() if line.counts)
        return sum(rates) + self.storage * held * HOUR_S / MONTH_S

    def stored(self, now: float) -> float:
        """Dollars for storage, so far."""
        if not self._stored:
            return 0.0
        end = now if self.ended is None else min(now, self.ended)
        return self.storage * integral(self._stored[0][0], end, self._stored) / MONTH_S

    def parts(self, now: float) -> list[Part]:
        """By machine: the head's, then the others in the order of purchase."""
        lines = [line for line in self._lines.values() if line.counts and self._pays(line.machine, now)]
        found = [self._part(line, now) for line in lines]
        return sorted(found, key=lambda part: (part.machine.kind != HEAD, part.machine.since, part.machine.id))

    def by_market(self, now: float) -> dict[str, float]:
        """Dollars by `Bought.market`."""
        found: dict[str, float] = {}
        for part in self.parts(now):
            found[part.machine.market] = found.get(part.machine.market, 0.0) + part.dollars
        return found

    def by_cause(
        self,
        now: float,
        account: Mapping[str, float],
        of_machines: Mapping[str, Mapping[str, float]] | None = None,
    ) -> dict[str, float]:
        """Dollars by `SPENT_ON`; their sum is `dollars`.

        A machine's dollars while it carries workers go to what these spent their seconds on; those before, to `start`;
        those after, until it is given back, to `idle`; the head's before and after, to `head`.

        Args:
            now: Unix seconds.
            account: worker-seconds of the run by cause.
            of_machines: the same of the workers of each machine; of one that is not there `account` is taken.
        """
        found = dict.fromkeys(SPENT_ON, 0.0)
        for part in self.parts(now):
            head = part.machine.kind == HEAD
            found[HEAD if head else "start"] += part.booting
            found[HEAD if head else "idle"] += part.left
            for cause, dollars in divided(part.carrying, (of_machines or {}).get(part.machine.id, account)).items():
                found[cause] += dollars
        found[STORAGE] += self.stored(now)
        return found

    def _pays(self, machine: Bought, now: float) -> bool:
        """Whether the run pays anything for it: they have met."""
        end = now if self.ended is None else min(now, self.ended)
        return machine.since <= end and (machine.until is None or machine.until > self.began)

    def _part(self, line: _Line, now: float) -> Part:
        machine, end = line.machine, now if self.ended is None else min(now, self.ended)
        charged = machine if machine.prices else replace(machine, least_s=0.0)
        start, until = max(machine.since, self.began), charged.charged_until(end)
        spans = _spans(line.carries, start, until)
        cost = [integral(*span, *line.factors) / HOUR_S for span in spans]
        carried = [i for i, (_, _, carries) in enumerate(_marked(line.carries, start, until)) if carries]
        first = carried[0] if carried else len(spans)
        booting, carrying = sum(cost[:first]), sum(cost[i] for i in carried)
        left = sum(each for i, each in enumerate(cost) if i > first and i not in carried)
        there = self.ended is None or now < self.ended
        rate = line.per_hour(now) if there else 0.0
        return Part(machine, booting + carrying + left, rate, booting, carrying, left)


def outlay(bills: Sequence[Bill], now: float) -> Outlay:
    """Of a run with these bills, one of each start."""
    return Outlay(sum(bill.dollars(now) for bill in bills), sum(bill.per_hour(now) for bill in bills), now)


def value(steps: Steps, at: float) -> float:
    """Of a step function; before its first step it has the value of that."""
    return steps[max(0, bisect_right(steps, at, key=lambda step: step[0]) - 1)][1]


def integral(start: float, end: float, *factors: Steps) -> float:
    """Of a product of step functions over a time; 0 where it is empty."""
    if end <= start:
        return 0.0
    inside = {at for steps in factors for at, _ in steps if start < at < end}
    edges = [start, *sorted(inside), end]
    whole = 0.0
    for since, until in pairwise(edges):
        rate = 1.0
        for steps in factors:
            rate *= value(steps, since)
        whole += rate * (until - since)
    return whole


def divided(dollars: float, account: Mapping[str, float]) -> dict[str, float]:
    """Dollars by what seconds went to; to `start` where there are no seconds: nobody has said anything yet."""
    whole = sum(account.get(cause, 0.0) for cause in CAUSES)
    if whole <= 0:
        return {"start": dollars}
    return {cause: dollars * account.get(cause, 0.0) / whole for cause in CAUSES if account.get(cause, 0.0)}


def cents(parts: Mapping[str, float], places: int = 2) -> dict[str, float]:
    """Dollars rounded so that they add up to their rounded sum: what is cut off most is rounded up first (the method of
    the largest remainder).

    Args:
        parts: none negative.
        places: behind the point.
    """
    unit = 10**places
    whole = round(sum(parts.values()) * unit)
    down = {name: int(dollars * unit) for name, dollars in parts.items()}
    order = sorted(parts, key=lambda name: (down[name] - parts[name] * unit, name))
    for name in order[: max(0, whole - sum(down.values()))]:
        down[name] += 1
    return {name: down[name] / unit for name in parts}


def replayed(lines: Iterable[Mapping[str, Any]], storage: float = 0.0) -> list[Bill]:
    """The bills of a run's starts, from its events.

    Args:
        lines: of events.jsonl, in order; of them `start`, `purchase`, `stake`, `end`, and the time of any: of a start
            whose end nobody has written, the newest time of its lines is its end, unless it is the last. One of which
            something is missing is left out.
        storage: dollars for a gigabyte and month.
    """
    bills: list[Bill] = []
    newest = 0.0
    for line in lines:
        kind, at = line.get("kind"), float(line.get("time", 0.0))
        if kind == "start":
            if bills and bills[-1].ended is None:
                bills[-1].end(newest)
            bills.append(Bill(at, storage))
            newest = at  # of this one's host, whose clock may be another
        elif bills and kind in (PURCHASE, STAKE):
            with suppress(KeyError, TypeError, ValueError):  # a damaged line is left out
                told(bills[-1], line)
        elif bills and kind == "end":
            bills[-1].end(at)
        newest = max(newest, at)
    return bills


def told(bill: Bill, line: Mapping[str, Any]) -> None:
    """Take a `purchase` or a `stake` of a run's events: all that is known of a machine, or what is new of it.

    Args:
        bill: to be changed.
        line: machine, and of the rest what is known: type, zone, spot, head, since, per_hour, until, share, workers,
            least_s, per_worker (see `Bill.bought`); or stored_gb, or storage, its price. `at` is since when that holds;
            `time` where it is not there. With `since` it is told from the beginning, anew where it was told before. A
            machine that has no price is left out of the bill until it has one.
    """
    at = float(line.get("at", line["time"]))
    bill.storage = float(line.get("storage", bill.storage))
    if "stored_gb" in line:
        bill.stores(at, float(line["stored_gb"]))
    id = line.get("machine")
    if id is None:
        return
    known = id in bill
    if "since" in line:
        kind: Literal["head", "node"] = "head" if line.get("head") else "node"
        since = float(line["since"])
        prices = ((since, float(line["per_hour"])),) if "per_hour" in line else ()
        where = str(line.get("zone", "")), bool(line.get("spot", False))
        least = float(line.get("least_s", LEAST_S))
        machine = Bought(id, str(line["type"]), since, prices, kind, *where, least_s=least)
        per_worker = float(line["per_worker"]) if "per_worker" in line else None
        bill.bought(machine, float(line.get("share", 1.0)), per_worker)
    elif known and "per_hour" in line:
        bill.priced(id, at, float(line["per_hour"]))
    if known and "share" in line:
        bill.shared(id, at, float(line["share"]))
    if id in bill and "workers" in line:
        bill.carries(id, at, int(line["workers"]))
    if id in bill and "until" in line:
        bill.gone(id, None if line["until"] is None else float(line["until"]))


def _set(steps: list[tuple[float, float]], at: float, value: float) -> None:
    """From then on it is so; what was said of the same moment before is replaced."""
    found = bisect_right(steps, at, key=lambda step: step[0])
    if found and steps[found - 1][0] == at:
        steps[found - 1] = (at, value)
    else:
        insort(steps, (at, value), key=lambda step: step[0])


def _marked(carries: Steps, start: float, end: float) -> Iterator[tuple[float, float, bool]]:
    """A time cut where a machine begins or ceases to carry a worker; before the first word it carries none."""
    edges = [start, *(at for at, _ in carries if start < at < end), end]
    for since, until in pairwise(edges):
        there = bool(carries) and since >= carries[0][0] and value(carries, since) > 0
        yield since, until, there


def _spans(carries: Steps, start: float, end: float) -> list[tuple[float, float]]:
    return [(since, until) for since, until, _ in _marked(carries, start, end)]
