"""Ray's autoscaler asks this one provider for machines, whatever the cloud: any market can be behind it.

Ray decides how many machines of which type; here it is decided which option of that type is tried next
(`headway.core.shopping`), and what to believe of the cloud's list (`headway.core.inventory`). Ray says nothing of a
refusal, and asks again every few seconds, each time as if for the first; so a request waits here until it is served, or
for a few minutes, and what it waits for is told (`headway.core.news`). What was bought is told too, with prices
(`headway.core.till`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from headway.cluster import ray_side
from headway.cluster.market import Machine, Market, Option, Refused
from headway.cluster.markets import open_market
from headway.cluster.prices.book import Book, of_rows, shipped
from headway.cluster.till import SPOT_EVERY_S, Clerk
from headway.core import inventory, kinds, news, wishes
from headway.core.inventory import Known, Limits
from headway.core.offers import Offer, Stock
from headway.core.shopping import AS_LISTED, NEVER_CAME, SOUGHT, UNREACHABLE, Patience, Shopping, Try, Wait
from headway.core.till import Till
from headway.core.wishes import Wish

log = logging.getLogger(__name__)

TAG_CLUSTER = "headway-cluster"
"""The tag that tells this cluster from another of the same name."""
HOLD_S = 300.0
"""A request waits here for so long; Ray then looks again whether it is still wanted."""
LEAST_PAUSE_S = 0.05
STALE_S = 120.0
"""For so long the last list will do where the cloud does not tell."""
WISHES_S = 1.0
"""What runs wish is read again after so long."""
WISHED_S = 2.0
"""A request that waits looks so often whether another market is wished meanwhile, where runs have wishes."""


class Provider(NodeProvider):
    """See Ray's class. Its methods are called by several threads at once.

    Args:
        provider_config: the provider section as `ClusterFile.for_ray` makes it. Its `headway` may have, beside what a
            file says: id (of this cluster), hold_s, pauses (a factor for all seconds between requests), sells (the node
            types: what Ray gives out on one, and its options) and idle_s (after which an idle machine is given back).
        cluster_name: as in the file.
        market: in place of the one that the section names.
        standings: what Ray says of each machine's node; None where it cannot be asked.
        tell: writes the news.
        show: writes what is sold, for runs.
        wished: reads what runs wish.
        tell_till: writes what was bought.
        till_before: reads what was written of it last.
        clock: Unix seconds.
        sleep: waits for so long.
    """

    def __init__(
        self,
        provider_config: dict[str, Any],
        cluster_name: str,
        market: Market | None = None,
        standings: Callable[[], Mapping[str, inventory.Standing] | None] = ray_side.standings,
        tell: Callable[[news.News], None] = ray_side.tell,
        show: Callable[[Stock], None] = ray_side.show,
        wished: Callable[[], Sequence[Wish]] = ray_side.wished,
        tell_till: Callable[[Till], None] = ray_side.tell_till,
        till_before: Callable[[], Till | None] = ray_side.till_before,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(provider_config, cluster_name)
        own = provider_config.get("headway") or {}
        self._market = market or open_market(provider_config, cluster_name)
        self._standings, self._tell, self._clock, self._sleep = standings, tell, clock, sleep
        self._show, self._wished = show, wished
        self._wishes: tuple[Sequence[Wish], float] = (), -WISHES_S
        """As they were read, and when."""
        self._dead: set[str] = set()
        """Machines whose nodes are."""
        self._aims: dict[str, tuple[str, bool]] = {}
        """What requests that are under way are for: node type, and whether a spot machine of it."""
        self._sells: Mapping[str, Mapping[str, Any]] = own.get("sells") or {}
        self._idle_s, self._shown = float(own.get("idle_s", 0.0)), Stock()
        self._marks = {TAG_RAY_CLUSTER_NAME: cluster_name, **({TAG_CLUSTER: str(own["id"])} if "id" in own else {})}
        self._hold_s = float(own.get("hold_s", HOLD_S))
        self._limits = Limits(boot_s=60.0 * float(own.get("boot_limit_minutes") or 15.0))
        self._shopping: Shopping[Option] = Shopping(Patience().scaled(float(own.get("pauses", 1.0))))
        self._journal = news.Journal()
        self._known: dict[str, Known] = {}
        self._machines: dict[str, Machine] = {}
        self._asked: dict[str, Option] = {}
        """As machines were asked for; the cloud may say something else of them, a price for one."""
        self._masked: tuple[str, ...] = ()
        self._listed_at = 0.0
        self._listed: frozenset[str] = frozenset()
        own_list = of_rows(own.get("prices") or [], "provider.headway.prices")
        book = Book(own_list, shipped(str(provider_config.get("market", ""))))
        self._book = book
        spot_every_s = SPOT_EVERY_S * float(own.get("pauses", 1.0))
        self._clerk = Clerk(self._market, book, tell_till, spot_every_s, till_before)
        self._lock, self._counting = threading.RLock(), threading.Lock()

    # What Ray's autoscaler calls.

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Get so many machines; waits until it has them.

        Raises:
            NodeLaunchException: one cannot be had now. Those that were got are listed all the same.
        """
        options, order = offered(node_config, tags)
        config = {key: value for key, value in node_config.items() if key != "headway"}
        got = [self._get(options, order, {**tags, **self._marks}, config) for _ in range(count)]
        return {machine.id: {} for machine in got}

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """The machines that are believed to be there; machines that have to be ended are."""
        with self._lock:
            shown, endings = self._look()
        for ending in endings:
            self._end(ending.machine, ending.reason)
        self._publish()
        self._count()
        self._publish()  # what it has learnt of prices
        return [each for each in shown if tag_filters.items() <= self.node_tags(each).items()]

    def terminate_nodes(self, node_ids: Sequence[str]) -> None:
        """End machines. What fails is raised, and Ray asks again."""
        try:
            self._market.terminate(list(node_ids))
        except (Refused, OSError) as error:
            self._note(news.ENDING, f"{', '.join(node_ids)} cannot be ended: {error}")
            raise
        finally:
            self._publish()
        with self._lock:
            for machine in node_ids:
                item = self._known.get(machine, Known(since=self._clock()))
                self._known[machine] = inventory.ended(item, self._clock())

    def terminate_node(self, node_id: str) -> None:
        """End one machine."""
        self.terminate_nodes([node_id])

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        """Put tags on a machine."""
        self._market.tag(node_id, tags)
        with self._lock:
            machine = self._machines[node_id]
            self._machines[node_id] = replace(machine, tags={**machine.tags, **tags})

    def node_tags(self, node_id: str) -> dict[str, str]:
        """Tags of a machine that was listed, or made here."""
        return dict(self._machines[node_id].tags)

    def is_running(self, node_id: str) -> bool:
        """Whether it has booted."""
        machine, known = self._machines.get(node_id), self._known.get(node_id)
        return machine is not None and (machine.state == "running" or (known is not None and known.joined))

    def is_terminated(self, node_id: str) -> bool:
        """Whether it is not there any more, as far as was seen."""
        known = self._known.get(node_id)
        return known is None or known.ended is not None

    def internal_ip(self, node_id: str) -> str:
        """Its address."""
        return self._machines[node_id].ip

    external_ip = internal_ip

    # Getting one.

    def _get(
        self, options: Sequence[Option], order: str, tags: Mapping[str, str], config: Mapping[str, Any]
    ) -> Machine:
        kind, ask = tags.get(TAG_RAY_USER_NODE_TYPE, ""), uuid.uuid4().hex
        waited_s = 0.0
        try:
            while True:
                step = self._choose(options, order, kind, ask)
                if isinstance(step, Try):
                    machine = self._ask(step, tags, config, ask)
                    if machine is not None:
                        return machine
                    continue  # an option that refuses is not asked again at once
                with self._lock:
                    self._journal.waits(ask, kind, self._clock(), step.reason)
                self._publish()
                if waited_s >= self._hold_s:
                    raise NodeLaunchException("not to be had", step.reason, None)
                longest_s = WISHED_S if self._wishes[0] else self._hold_s
                pause_s = min(self._hold_s - waited_s, longest_s, max(LEAST_PAUSE_S, step.until - self._clock()))
                self._sleep(pause_s)
                waited_s += pause_s
        finally:
            with self._lock:
                self._aims.pop(ask, None)
                self._journal.waits_no_more(ask, kind, self._clock())
            self._publish()

    def _choose(self, options: Sequence[Option], order: str, kind: str, ask: str) -> Try[Option] | Wait:
        wished = self._what_is_wished()
        with self._lock:
            now = self._clock()
            self._aims.pop(ask, None)
            there = [spot for of, spot in (*self._held(), *self._aims.values()) if of == kind]
            spot = wishes.market(wished, self._has(kind), there, now) if wished else None
            if spot is not None:
                self._aims[ask] = kind, spot
            fits = [
                option for option in options if spot in (None, option.spot)
            ] or options  # else it is as well as none
            speeds = {type: speed for wish in wished if wish.holds(now) for type, speed in wish.speeds.items()}
            if speeds and order == SOUGHT:
                fits, order = kinds.by_worth(fits, speeds), AS_LISTED
            step = self._shopping.choose(fits, now, order)
            if isinstance(step, Try):
                self._shopping = self._shopping.asked(step.option, now)
            return step

    def _ask(self, step: Try[Option], tags: Mapping[str, str], config: Mapping[str, Any], ask: str) -> Machine | None:
        """Ask the market for one; None, and what was learnt, if it refuses."""
        option, asked = step.option, self._clock()
        once = uuid.uuid5(uuid.NAMESPACE_OID, f"{ask} {option}").hex  # an answer that was lost is had by asking again
        try:
            machine = self._market.launch(option, tags, config, once)
        except Refused as refused:
            self._refused(option, refused.kind, str(refused), asked, refused.retry_s)
            return None
        except OSError as error:
            self._refused(option, UNREACHABLE, str(error), asked)
            return None
        with self._lock:
            self._aims.pop(ask, None)
            self._shopping = self._shopping.served(option)
            self._machines.setdefault(machine.id, machine)
            self._asked[machine.id] = option
            self._known.setdefault(machine.id, Known(since=self._clock()))
        self._note(news.CHOSEN, f"{machine.id}: {step.reason}")
        return machine

    def _refused(self, option: Option, kind: str, reason: str, asked: float, retry_s: float | None = None) -> None:
        with self._lock:
            self._shopping = self._shopping.refused(option, kind, reason, self._clock(), retry_s, asked)
        self._note(news.REFUSED, f"{option}: {kind}: {reason}")

    def _what_is_wished(self) -> Sequence[Wish]:
        """By runs; what was heard last where nobody can be asked."""
        now = self._clock()
        if now - self._wishes[1] >= WISHES_S:
            try:
                self._wishes = self._wished(), now
            except Exception:  # Ray's store is away
                self._wishes = self._wishes[0], now
        return self._wishes[0]

    def _has(self, kind: str) -> Mapping[str, float]:
        """What Ray gives out on a machine of a type."""
        return self._sells.get(kind, {}).get("resources") or {}

    # What there is.

    def _look(self) -> tuple[tuple[str, ...], tuple[inventory.Ending, ...]]:
        now = self._clock()
        try:
            listed = {each.id: each for each in self._market.machines() if self._marks.items() <= each.tags.items()}
            self._listed_at, self._listed = now, frozenset(listed)
        except (Refused, OSError) as error:
            self._note(news.LISTING, f"the cloud does not tell what there is: {error}")
            if now - self._listed_at > STALE_S:
                self._publish()
                raise
            listed = {machine: self._machines[machine] for machine, item in self._known.items() if item.listed}
        self._machines = {**self._machines, **listed}
        states = {each.id: each.state == "stopping" for each in listed.values()}
        standings = self._standings()
        self._dead = {each for each, standing in (standings or {}).items() if standing == "dead"}
        belief = inventory.believe(self._known, states, standings, now, self._limits, self._head())
        newly = set(belief.masked) - set(self._masked)
        self._masked = belief.masked
        for machine in newly:
            self._note(news.LISTING, f"{machine} is not listed by the cloud, and works: it is kept")
        for machine in belief.joined:
            self._shopping = self._shopping.came(self._option(machine))
        for machine in [*belief.lost, *(each.machine for each in belief.endings if each.failed_boot)]:
            self._never_came(machine)
        self._known = dict(belief.known)
        self._machines = {each: machine for each, machine in self._machines.items() if each in self._known}
        self._asked = {each: option for each, option in self._asked.items() if each in self._known}
        return belief.shown, belief.endings

    def _head(self) -> str:
        kinds = {each: machine.tags.get(TAG_RAY_NODE_KIND) for each, machine in self._machines.items()}
        return next((each for each, kind in kinds.items() if kind == NODE_KIND_HEAD), "")

    def _option(self, machine: str) -> Option:
        return self._asked[machine] if machine in self._asked else self._machines[machine].option

    def _never_came(self, machine: str) -> None:
        option, reason = self._option(machine), f"{machine} ended, or was given up, before it joined"
        self._shopping = self._shopping.refused(option, NEVER_CAME, reason, self._clock())
        self._note(news.BOOT, f"{option}: {reason}")

    def _end(self, machine: str, reason: str) -> None:
        self._note(news.ENDING, f"{machine} is ended: {reason}")
        try:
            self.terminate_nodes([machine])
        except (Refused, OSError):  # noted; it is tried again with the next look
            log.warning("%s cannot be ended now", machine)

    # Telling.

    def _note(self, kind: str, text: str) -> None:
        log.info("%s: %s", kind, text)
        with self._lock:
            self._journal.note(self._clock(), kind, text)

    def _held(self) -> list[tuple[str, bool]]:
        """Of each machine that works and stays, or is on its way, its node type, and whether it is a spot machine."""
        gone = {each for each, known in self._known.items() if known.ended is not None or known.draining is not None}
        gone |= self._dead
        there = [each for each in self._machines.values() if each.id not in gone and each.state != "stopping"]
        return [(each.tags.get(TAG_RAY_USER_NODE_TYPE, ""), self._option(each.id).spot) for each in there]

    def _stock(self) -> Stock:
        """What runs are told of what is sold."""
        offers = []
        for kind, sold in self._sells.items():
            for option in (Option(**each) for each in sold.get("one_of") or ()):
                refusal = self._shopping.refusals.get(option)
                until, why = (refusal.until, refusal.kind) if refusal is not None else (0.0, "")
                price = self._clerk.spot.get((option.type, option.zone)) if option.spot else None
                if price is None:
                    price = option.price_per_hour
                if price is None:
                    price = self._book.per_hour(option.type, option.zone, option.spot)
                offers.append(Offer(kind, option.type, option.zone, option.spot, price, until, why))
        return Stock(tuple(offers), {kind: self._has(kind) for kind in self._sells}, self._idle_s)

    def _count(self) -> None:
        """Keep the account of what was bought; the cloud may take its time to answer, and holds nobody up."""
        with self._lock:
            there = {id: self._machines[id] for id in self._known if id in self._machines}
            asked, listed, head, now = dict(self._asked), self._listed, self._head(), self._clock()
        sells = [Option(**each) for sold in self._sells.values() for each in sold.get("one_of") or ()]
        if self._counting.acquire(blocking=False):
            try:
                self._clerk.look(there, asked, listed, head, now, sells)
            finally:
                self._counting.release()

    def _publish(self) -> None:
        with self._lock:
            stock = self._stock()
            if stock != self._shown:
                try:
                    self._show(stock)
                    self._shown = stock
                except Exception:  # as below
                    log.debug("what is sold could not be written", exc_info=True)
            untold = self._journal.untold()
            if untold is None:
                return
            try:
                self._tell(untold)
            except Exception:  # Ray's store is away: the news wait, and machines do not
                log.debug("the news could not be written", exc_info=True)
            else:
                self._journal.told(untold)


def offered(node_config: Mapping[str, Any], tags: Mapping[str, str]) -> tuple[list[Option], str]:
    """The options that a node type stands for, and the order in which they are tried."""
    own = node_config.get("headway") or {}
    options = [Option(**each) for each in own.get("one_of") or ()]
    return options or [Option(tags.get(TAG_RAY_USER_NODE_TYPE, ""))], str(own.get("order", SOUGHT))
