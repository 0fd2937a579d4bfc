"""What a run has cost, and what for: from its events alone, at any time. Printed by `headway cost RUN`.

The same bill that its lead kept while it ran (`headway.core.bill`) is made again from its events. Where no
machine had a price there is what the job says of an hour of a worker (`headway.core.cost`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from headway.core.bill import HEAD, PURCHASE, SPENT_ON, STAKE, STORAGE, Bill, Bought, cents, divided, outlay, replayed
from headway.core.cost import so_far
from headway.core.ledger import CAUSES, PRODUCTIVE
from headway.errors import BadInput
from headway.runs import accounts, columns

if TYPE_CHECKING:
    from headway.runs import RunFolder

PLACES = 6
"""Behind the point, of dollars as JSON."""
MACHINES, WORKERS = "machines", "workers.price_per_hour"
"""What dollars are by."""
_Line = Mapping[str, Any]
_NO_PRICE = (
    "Name a list of prices: provider.headway.prices of the cluster's file, or prices of the job (docs/money.md)."
)


class Machine(BaseModel):
    """What a run paid of a machine."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    machine: str
    """The cloud's id."""
    type: str
    zone: str
    spot: bool
    head: bool
    since: float
    """Unix seconds."""
    until: float | None
    """Null while it costs."""
    per_hour: float
    """Dollars of the run, now; 0 of one that is gone."""
    dollars: float


class Cost(BaseModel):
    """Of a run, all its starts together. The dollars by cause, and those by market, add up to `dollars`."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    run: str
    state: str
    dollars: float
    """So far."""
    per_hour: float
    """Now; 0 at its end."""
    by: str
    """machines, or workers.price_per_hour."""
    by_cause: dict[str, float]
    """Causes of the ledger (start with machines that boot, idle with those that wait for their end), head, storage."""
    wasted: float
    """Those of them that went neither into steps that count, nor to the head or storage."""
    by_market: dict[str, float]
    """By type, zone and kind; and storage."""
    machines: list[Machine]
    steps: int
    """Committed."""
    per_step: float | None
    """Dollars; null before the first."""
    per_1000_steps: float | None
    shared: bool
    """Whether other runs paid a share of its machines."""
    unpriced: list[str]
    """Machines without a price: `dollars` leaves them out."""
    at: float
    """Unix seconds up to which this holds."""
    path: str


def known(run: RunFolder, now: float | None = None) -> Cost | None:
    """The same as `told`; None where nothing has a price."""
    try:
        return told(run, now)
    except BadInput:
        return None


def told(run: RunFolder, now: float | None = None) -> Cost:
    """What a run has cost by now.

    Raises:
        BadInput: the folder is not a run, or nothing that it used has a price.
    """
    facts = run.read()
    led = facts.get("state", "running") == "running" and run.is_led()
    events = [event for event in columns.lines(run.events_file) if _dated(event)]
    lines = [line for line in columns.lines(run.path / accounts.FILE) if _sound(line)]
    starts = _by_start(events, lines)
    bills = replayed(_in_order(starts))
    newest = (event for part in starts[-1] for event in part) if starts else (*events, *lines)
    last = max([float(each["time"]) for each in newest], default=0.0)
    now = (time.time() if led else last) if now is None else now
    if bills and bills[-1].ended is None and not led:
        bills[-1].end(last)
    account = accounts.known(run.path, facts)
    steps = run.last_step() + 1
    state = str(facts.get("state") or "running")
    about = {"run": run.name, "state": state if led or state != "running" else "interrupted", "path": run.where}
    bought = [event for event in events if event.get("kind") in (PURCHASE, STAKE)]
    priced = {event.get("machine") for event in bought if {"per_hour", "per_worker"} & set(event)}
    unpriced = sorted({_words(each) for each in bought if each.get("unpriced") and each.get("machine") not in priced})
    if any(bills):
        accounts_of = _accounts_of(account, [own for _, own in starts])
        return _by_machines(bills, now, accounts_of, steps, {**about, "unpriced": unpriced}, bought)
    if unpriced:
        raise BadInput(f"{run.name} ran on {', '.join(unpriced)}, which has no price", "", _NO_PRICE)
    dollars = so_far(facts, sum(account.values()))
    if dollars is None:
        reason = "neither its machines nor an hour of its workers has one"
        raise BadInput(f"nothing that {run.name} used has a price", reason, f"{_NO_PRICE} Or workers.price_per_hour.")
    price = facts.get("price_per_hour") or 0.0
    workers = int((run.workers() or [{}])[-1].get("workers", 0)) if led else 0
    by_cause = cents(dict.fromkeys(SPENT_ON, 0.0) | divided(dollars, account), PLACES)
    return _cost({**about, "unpriced": []}, WORKERS, by_cause, {}, [], steps, price * workers, now, shared=False)


def _by_machines(
    bills: Sequence[Bill],
    now: float,
    accounts_of: Iterable[Mapping[str, float]],
    steps: int,
    about: Mapping[str, Any],
    bought: Sequence[Mapping[str, Any]],
) -> Cost:
    by_cause = dict.fromkeys(SPENT_ON, 0.0)
    ats = [*([math.inf] * (len(bills) - 1)), now]  # those before are over, whatever the clock of their host said
    for bill, at, spent in zip(bills, ats, accounts_of, strict=True):
        for cause, dollars in bill.by_cause(at, spent).items():
            by_cause[cause] += dollars
    found: dict[str, tuple[Bought, float, float]] = {}
    for bill, at in zip(bills, ats, strict=True):
        for part in bill.parts(at):
            _, dollars, _ = found.get(part.machine.id, (part.machine, 0.0, 0.0))
            found[part.machine.id] = (part.machine, dollars + part.dollars, part.per_hour)
    shown = cents({id: each for id, (_, each, _) in found.items()}, PLACES)
    machines = [
        Machine(
            machine=id,
            type=machine.type,
            zone=machine.zone,
            spot=machine.spot,
            head=machine.kind == HEAD,
            since=machine.since,
            until=machine.until,
            per_hour=round(rate, PLACES),
            dollars=shown[id],
        )
        for id, (machine, _, rate) in found.items()
    ]
    markets: dict[str, float] = {}
    for machine, each, _ in found.values():
        markets[machine.market] = markets.get(machine.market, 0.0) + each
    stored = sum(bill.stored(at) for bill, at in zip(bills, ats, strict=True))
    markets |= {STORAGE: stored} if stored else {}
    shared = any(float(event.get("share", 1.0)) < 1.0 for event in bought)
    rate = outlay(bills[-1:], now).per_hour
    return _cost(about, MACHINES, cents(by_cause, PLACES), cents(markets, PLACES), machines, steps, rate, now, shared)


def _cost(
    about: Mapping[str, Any],
    by: str,
    by_cause: dict[str, float],
    by_market: dict[str, float],
    machines: list[Machine],
    steps: int,
    per_hour: float,
    now: float,
    shared: bool,
) -> Cost:
    dollars = round(sum(by_cause.values()), PLACES)
    lost = [cause for cause in CAUSES if cause not in PRODUCTIVE]
    each = dollars / steps if steps else None
    return Cost(
        **about,
        dollars=dollars,
        per_hour=round(per_hour, PLACES),
        by=by,
        by_cause={cause: spent for cause, spent in by_cause.items() if spent},
        wasted=round(sum(by_cause[cause] for cause in lost), PLACES),
        by_market=by_market,
        machines=machines,
        steps=steps,
        per_step=each,
        per_1000_steps=None if each is None else round(1000 * each, PLACES),
        shared=shared,
        at=now,
    )


def _by_start(events: Sequence[_Line], lines: Sequence[_Line]) -> list[tuple[list[_Line], list[_Line]]]:
    """What each start wrote: its events, and its lines of the account, both in the order in which they were written,
    for hosts' clocks differ: a start on another host may seem to have begun before the one before it ended."""
    found: list[tuple[list[_Line], list[_Line]]] = []
    for event in events:
        if event.get("kind") == "start":
            found.append(([], []))
        if found:
            found[-1][0].append(event)
    begins = [float(of_start[0]["time"]) for of_start, _ in found]
    ends = [max(float(event["time"]) for event in of_start) for of_start, _ in found]
    at, before = 0, -math.inf
    for line in lines if found else ():
        time = float(line["time"])
        while at + 1 < len(found) and time >= begins[at + 1] and (time < before or begins[at + 1] >= ends[at]):
            at, before = at + 1, -math.inf
        found[at][1].append(line)
        before = time
    return found


def _accounts_of(account: Mapping[str, float], lines: Sequence[Sequence[_Line]]) -> Iterator[dict[str, float]]:
    """Worker-seconds by cause of each start: what the account, which is of all of them, grew by. lines: of each."""
    stands: list[Mapping[str, float]] = [{}]
    for of_start in lines[:-1]:
        stands.append(of_start[-1]["seconds"] if of_start else stands[-1])
    for before, after in pairwise([*stands, account]):
        yield {cause: max(0.0, after.get(cause, 0.0) - before.get(cause, 0.0)) for cause in CAUSES}


def _in_order(starts: Iterable[tuple[Sequence[_Line], Sequence[_Line]]]) -> Iterator[_Line]:
    """Events of each start, and the times at which its account was kept: a leader that was killed lived at least so
    long."""
    for events, lines in starts:
        yield from events
        yield from ({"kind": "alive", "time": float(line["time"])} for line in lines)


def _words(event: Mapping[str, Any]) -> str:
    where = f" in {event['zone']}" if event.get("zone") else ""
    return f"{event.get('type', '')}{where}{', spot' if event.get('spot') else ''}"


def _dated(line: Mapping[str, Any]) -> bool:
    return isinstance(line.get("time"), int | float)


def _sound(line: Mapping[str, Any]) -> bool:
    return _dated(line) and isinstance(line.get("seconds"), dict)
