"""The provider's account of what a cluster has bought: it sees every list of the cloud, and tells the runs on it.

A cloud's list says what costs now. Here is remembered since when, at which price, and, once it is gone, until when; who
begins anew goes on with what was told last. The
cloud is asked for what only it knows (`headway.cluster.market.Charges`): when a machine ceased to cost, and what spot
machines cost by the hour. Where it tells no price, that of the cluster's file counts, then the list of prices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from headway.cluster.market import Charges, Machine, Market, Option, Refused
from headway.cluster.prices.book import STORAGE, Book
from headway.core.till import Sold, Till

log = logging.getLogger(__name__)

SPOT_EVERY_S = 60.0
"""Seconds between two questions for spot prices."""


class Clerk:
    """For one thread at a time, but for `open`.

    Args:
        market: of the cluster.
        book: what machines cost where the cloud does not tell.
        tell: writes the till. Whatever it raises, it is tried again with the next look.
        spot_every_s: seconds between two questions for spot prices.
        before: what was told last, by whoever kept the account before. While it raises nothing is counted.
    """

    def __init__(
        self,
        market: Market,
        book: Book,
        tell: Callable[[Till], None],
        spot_every_s: float = SPOT_EVERY_S,
        before: Callable[[], Till | None] = lambda: None,
    ) -> None:
        self._before: Callable[[], Till | None] | None = before
        self.spot: Mapping[tuple[str, str], float] = {}
        """What spot machines cost by the hour, by type and zone: the newest that the cloud has told."""
        self.till = Till(storage=book.per_hour(STORAGE) or 0.0)
        self._charges = market if isinstance(market, Charges) else None
        self._book, self._tell, self._every_s = book, tell, spot_every_s
        self._told: Till | None = None
        self._asked_at = float("-inf")

    def look(
        self,
        machines: Mapping[str, Machine],
        asked: Mapping[str, Option],
        listed: Collection[str],
        head: str,
        now: float,
        sells: Collection[Option] = (),
    ) -> None:
        """Take what there is, and tell it where it is news.

        Args:
            machines: that are believed to be there, or on their way out.
            asked: how some of them were asked for.
            listed: of them those that the cloud lists.
            head: the machine of the head.
            now: Unix seconds.
            sells: what may be bought: the prices of spot ones are asked for beforehand.
        """
        if self._before is not None:
            try:
                before = self._before()
            except Exception:  # Ray's store is away: what was bought before must not be written over
                log.debug("what was bought before could not be read", exc_info=True)
                return
            self._before = None
            self.till = self.till if before is None else replace(before, storage=self.till.storage)
        new = [self._sold(each, asked.get(id), id == head) for id, each in machines.items() if self._is_new(id, listed)]
        gone = [each for each in self.till.living() if each.id not in machines]
        if new or gone:
            self.till = replace(self.till.having(*new, *self._closed(gone, now)), at=now)
        if now - self._asked_at >= self._every_s or any(each.spot for each in (*new, *gone)):
            self._ask_prices({each.id for each in gone}, now, sells)
        if self.till != self._told:
            try:
                self._tell(self.till)
                self._told = self.till
            except Exception:  # Ray's store is away: it waits
                log.debug("what was bought could not be written", exc_info=True)

    def _is_new(self, id: str, listed: Collection[str]) -> bool:
        """Whether a machine is to be taken up: one that was thought to be gone, and is listed again, too."""
        known = self.till.machines.get(id)
        return known is None or (known.until is not None and id in listed)

    def _sold(self, machine: Machine, asked: Option | None, head: bool) -> Sold:
        known = self.till.machines.get(machine.id)
        if known is not None:
            return replace(known, until=None)
        option = machine.option
        told = option.price_per_hour
        if told is None and asked is not None:
            told = asked.price_per_hour
        if told is None:
            told = self._book.per_hour(option.type, option.zone, option.spot)
        prices = () if told is None else ((machine.since, told),)
        return Sold(machine.id, option.type, option.zone, option.spot, machine.since, prices, head)

    def _closed(self, gone: list[Sold], now: float) -> list[Sold]:
        """Machines that are not there any more, with the end that the cloud names; else they were there till now."""
        if not gone:
            return []
        ends: Mapping[str, float] = {}
        if self._charges is not None:
            try:
                ends = self._charges.ended([each.id for each in gone])
            except (Refused, OSError) as error:
                log.info("the cloud does not tell when machines ended: %s", error)
        return [replace(each, until=max(each.since, min(now, ends.get(each.id, now)))) for each in gone]

    def _ask_prices(self, gone: Collection[str], now: float, sells: Collection[Option]) -> None:
        """Of those that cost, of those that have just ceased to, and of those that may be bought."""
        sold = self.till.machines.values()
        spots = [each for each in sold if each.spot and (each.until is None or each.id in gone)]
        self._asked_at = now
        kinds = {Option(each.type, each.zone, spot=True) for each in spots}
        kinds |= {Option(each.type, each.zone, spot=True) for each in sells if each.spot}
        if self._charges is None or not kinds:
            return
        try:
            found = self._charges.spot_prices(sorted(kinds, key=str), min((each.since for each in spots), default=now))
        except (Refused, OSError) as error:
            log.info("the cloud does not tell what spot machines cost: %s", error)
            return
        self.spot = {**self.spot, **{(kind.type, kind.zone): steps[-1][1] for kind, steps in found.items() if steps}}
        changed = [_repriced(each, found.get(Option(each.type, each.zone, spot=True), ())) for each in spots]
        if any(new is not old for new, old in zip(changed, spots, strict=True)):
            self.till = replace(self.till.having(*changed), at=now)


def _repriced(sold: Sold, steps: Collection[tuple[float, float]]) -> Sold:
    """With the cloud's own prices, from its purchase on."""
    if not steps:
        return sold
    known = [step for step in steps if step[0] <= sold.since]
    first = known[-1:] or list(steps)[:1]
    until = float("inf") if sold.until is None else sold.until
    prices = ((sold.since, first[0][1]), *(step for step in steps if sold.since < step[0] < until))
    few = tuple(step for at, step in enumerate(prices) if at == 0 or prices[at - 1][1] != step[1])
    return sold if few == sold.prices else replace(sold, prices=few)
