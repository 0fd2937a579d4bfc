"""The test cloud's books: what is asked of it, what it sells and refuses, what it costs, and how it lies.

It decides by a clock, and what runs on its machines is another's business (`Floor`): with none it is a market for tests
that need no machine, with `headway.testing.cloud.cluster` its machines are namespaces with Ray on them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from headway.cluster.market import CAPACITY, QUOTA, THROTTLED, UNKNOWN, Machine, Market, Option, Refused
from headway.errors import BadInput
from headway.testing.cloud.goods import KILLED, RECLAIMED, TERMINATED, VM, Lies, Offer, Refuse, Request

FOREVER = float("inf")
ELSEWHERE = "another"
"""The cluster whose machine is listed as well when the cloud lies so."""
_HEAD = ("ray-node-type", "head")


class Floor(Protocol):
    """Where the machines stand. Its methods return at once, and raise nothing."""

    def begin(self, vm: VM) -> None:
        """A machine has booted: start what runs on it."""

    def warn(self, vm: VM, notice_s: float) -> None:
        """A machine is told that it will be taken back."""

    def end(self, vm: VM) -> None:
        """A machine is switched off."""


class Nothing:
    """A floor on which nothing runs."""

    def begin(self, vm: VM) -> None:
        """Nothing starts."""

    def warn(self, vm: VM, notice_s: float) -> None:
        """Nobody is told."""

    def end(self, vm: VM) -> None:
        """Nothing ends."""


class Cloud:
    """One account of the cloud. Its methods may be called by several threads at once.

    Args:
        offers: what it sells.
        quota: so many machines may be had at once; None for any number.
        floor: see there.
        clock: Unix seconds.
    """

    def __init__(
        self,
        offers: Sequence[Offer],
        quota: int | None = None,
        floor: Floor | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.offers = {(offer.type, offer.zone): offer for offer in offers}
        self.quota, self.floor, self.clock = quota, floor or Nothing(), clock
        self.machines: list[VM] = []
        """All that there ever were."""
        self.log: list[Request] = []
        self.lies = Lies()
        begun = clock()
        self._prices = {
            key: [(begun, offer.spot_price_per_hour)]
            for key, offer in self.offers.items()
            if offer.spot_price_per_hour is not None
        }
        """What spot machines cost, from which time on."""
        self._capacity = {key: offer.capacity for key, offer in self.offers.items()}
        self._rules: list[Refuse] = []
        self._once: dict[tuple[str, str], VM] = {}
        self._lock = threading.RLock()

    # What is asked of it, by a cluster.

    def market(self, cluster: str) -> Market:
        """The cloud as one cluster sees it."""
        return _Counter(self, cluster)

    def launch(self, cluster: str, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> VM:
        """Sell a machine. Raises Refused, and OSError where the answer is lost."""
        with self._lock:
            now = self.tick()
            self._answer(now, "launch", str(option))
            vm = self._once.get((cluster, once))
            if vm is None:
                try:
                    offer = self._sell(option, now)
                except Refused as refused:
                    self._write(now, "launch", str(option), f"{refused.kind}: {refused}")
                    raise
                vm = self._make(cluster, option, offer, tags, config, now)
                self._once[cluster, once] = vm
                self._write(now, "launch", str(option), vm.id)
                self.tick()
            self._lose(now)
            return vm

    def tag(self, cluster: str, machine: str, tags: Mapping[str, str]) -> None:
        """Put tags on a machine."""
        with self._lock:
            now = self.tick()
            self._answer(now, "tag", machine)
            self._vm(machine, cluster).tags.update(tags)

    def terminate(self, cluster: str, machines: Sequence[str]) -> None:
        """Switch machines off, at once; they are listed a little longer."""
        with self._lock:
            now = self.tick()
            self._answer(now, "terminate", ", ".join(machines))
            for machine in machines:
                vm = self._vm(machine, cluster)
                self._write(now, "terminate", machine, "ok")
                if vm.gone_at is None and vm.ending_at is None and now >= self.lies.stuck:
                    self._switch_off(vm, TERMINATED, now, self._offer(vm).stop_s)
            self.tick()
            self._lose(now)

    def listed(self, cluster: str) -> list[Machine]:
        """All machines of a cluster, or what it says that they are."""
        with self._lock:
            now = self.tick()
            self._answer(now, "machines", cluster)
            self._lose(now)
            mine = [vm for vm in self.machines if vm.cluster == cluster]
            found = [vm.shown() for vm in mine if vm.gone_at is None]
            if now < self.lies.forgets:
                found = [each for each in found if _HEAD in each.tags.items()]
            if now < self.lies.ghosts:
                gone = [vm for vm in mine if vm.gone_at is not None]
                found += [Machine(vm.id, "running", vm.option, vm.tags, vm.ip, vm.asked_at) for vm in gone]
            if now < self.lies.foreign:
                found.append(self._foreign(now).shown())
            return found

    def ended(self, cluster: str, machines: Sequence[str]) -> dict[str, float]:
        """Since when machines of a cluster cost nothing; of those that are gone."""
        with self._lock:
            self._answer(self.tick(), "ended", ", ".join(machines))
            found = {vm.id: vm.gone_at for vm in self.machines if vm.cluster == cluster and vm.id in machines}
            return {id: at for id, at in found.items() if at is not None}

    def spot_prices(self, options: Sequence[Option], since: float) -> list[list[tuple[float, float]]]:
        """What spot machines of these options cost, from which time on; the price at that time is the first."""
        with self._lock:
            self._answer(self.clock(), "spot prices", ", ".join(map(str, options)))
            found = []
            for option in options:
                steps = self._prices.get((option.type, option.zone), [])
                first = max((at for at, _ in steps if at <= since), default=since)
                found.append([step for step in steps if step[0] >= first])
            return found

    # What is done to it.

    def reprice(self, type: str, zone: str, per_hour: float) -> None:
        """Have spot machines of a type in a zone cost so much an hour from now on, those that run among them."""
        with self._lock:
            now = self.tick()
            offer = self.offers[type, zone]
            self.offers[type, zone] = replace(offer, spot_price_per_hour=per_hour)
            self._prices[type, zone].append((now, per_hour))
            for vm in self.machines:
                if vm.option.spot and (vm.option.type, vm.option.zone) == (type, zone) and vm.gone_at is None:
                    vm.repriced.append((now, per_hour))
            self._write(now, "reprice", f"{type} in {zone}", f"${per_hour:g}/h")

    def refuse(
        self,
        kind: str = CAPACITY,
        reason: str = "none is left",
        for_s: float = FOREVER,
        type: str | None = None,
        zone: str | None = None,
        spot: bool | None = None,
    ) -> None:
        """Refuse machines of a type, zone, and market; of all, where none is said."""
        with self._lock:
            now = self.clock()
            self._rules.append(Refuse(kind, reason, now + for_s, type, zone, spot))
            self._write(now, "refuse", f"{type or 'all'} {zone or ''}".strip(), f"{kind}: {reason}")

    def sell(self) -> None:
        """Refuse nothing any more."""
        with self._lock:
            self._rules.clear()
            self._write(self.clock(), "sell", "all", "ok")

    def hold(self, type: str, zone: str, capacity: int | None) -> None:
        """Have so many machines of a type in a zone; those that run may go on."""
        with self._lock:
            self._capacity[type, zone] = capacity
            self._write(self.clock(), "capacity", f"{type} in {zone}", str(capacity))

    def lie(self, for_s: float = FOREVER, never_boots: int = 0, **which: bool) -> None:
        """Do wrong for so long what `Lies` names: `lie(5.0, ghosts=True)`; `lie(0, ghosts=True)` ends it."""
        with self._lock:
            now = self.clock()
            for name in which:
                setattr(self.lies, name, now + for_s)
            self.lies.never_boots = never_boots or self.lies.never_boots
            self._write(now, "lie", " ".join([*which, *(["never_boots"] if never_boots else [])]), f"{for_s:g} s")

    def reclaim(self, machine: str, notice_s: float) -> None:
        """Take a machine back, after a notice."""
        with self._lock:
            vm, now = self._vm(machine), self.tick()
            if vm.gone_at is None and vm.ending_at is None:
                vm.deadline = now + notice_s
                self._write(now, "notice", machine, f"{notice_s:g} s")
                self.floor.warn(vm, notice_s)

    def kill(self, machine: str) -> None:
        """Let a machine fail: it is gone."""
        with self._lock:
            vm, now = self._vm(machine), self.tick()
            if vm.gone_at is None:
                self._write(now, "kill", machine, "ok")
                self._switch_off(vm, KILLED, now, 0.0)
                self.tick()

    def tick(self) -> float:
        """Do what is due; returns the time."""
        with self._lock:
            now = self.clock()
            for vm in self.machines:
                if vm.deadline is not None and now >= vm.deadline and vm.ending_at is None:
                    self._switch_off(vm, RECLAIMED, vm.deadline, 0.0)
                if vm.ending_at is None and vm.running_at is None and vm.boots:
                    due = vm.asked_at + self._offer(vm).boot_s
                    if now >= due:
                        vm.running_at = due
                        self.floor.begin(vm)
                if vm.ending_at is not None and vm.gone_at is None:
                    due = vm.ending_at + (self._offer(vm).stop_s if vm.why == TERMINATED else 0.0)
                    vm.gone_at = due if now >= due else None
            return now

    # What it has taken.

    def dollars(self) -> float:
        """The bill."""
        with self._lock:
            return sum(vm.dollars(self.tick()) for vm in self.machines)

    def charged(self, cluster: str, since: float, until: float) -> float:
        """What of the bill is a cluster's, for a time."""
        with self._lock:
            self.tick()
            mine = [vm for vm in self.machines if vm.cluster == cluster and vm.asked_at <= until]
            there = [vm for vm in mine if vm.gone_at is None or vm.gone_at > since]
            return sum(vm.between(since, until) for vm in there)

    def left(self, cluster: str) -> list[str]:
        """Machines of a cluster that cost, in truth."""
        with self._lock:
            self.tick()
            return [vm.id for vm in self.machines if vm.cluster == cluster and vm.gone_at is None]

    def _answer(self, now: float, verb: str, what: str) -> None:
        if now < self.lies.silent:
            self._write(now, verb, what, "no answer")
            raise OSError("the cloud does not answer")
        if now < self.lies.throttles:
            self._write(now, verb, what, THROTTLED)
            raise Refused(THROTTLED, "RequestLimitExceeded: too many requests")

    def _lose(self, now: float) -> None:
        if now < self.lies.loses:
            raise OSError("the connection was closed before the answer came")

    def _sell(self, option: Option, now: float) -> Offer:
        offer = self.offers.get((option.type, option.zone))
        if offer is None or (option.spot and offer.spot_price_per_hour is None):
            raise Refused(UNKNOWN, f"there is no {option}")
        rule = next((rule for rule in self._rules if rule.meets(option, now)), None)
        if rule is not None:
            raise Refused(rule.kind, rule.reason)
        costing = [vm for vm in self.machines if vm.gone_at is None]
        if self.quota is not None and len(costing) >= self.quota:
            raise Refused(QUOTA, f"MaxSpotInstanceCountExceeded: the account may have {self.quota}")
        most = self._capacity[option.type, option.zone]
        same = [vm for vm in costing if (vm.option.type, vm.option.zone) == (option.type, option.zone)]
        if most is not None and len(same) >= most:
            raise Refused(CAPACITY, f"InsufficientInstanceCapacity: all {most} of {option.type} are taken")
        return offer

    def _make(
        self,
        cluster: str,
        option: Option,
        offer: Offer,
        tags: Mapping[str, str],
        config: Mapping[str, Any],
        now: float,
    ) -> VM:
        price = offer.spot_price_per_hour if option.spot else offer.price_per_hour
        priced = Option(option.type, option.zone, option.spot, price)
        boots = self.lies.never_boots == 0
        self.lies.never_boots = max(0, self.lies.never_boots - 1)
        vm = VM(f"i-{len(self.machines):04d}", cluster, priced, dict(tags), dict(config), now, boots)
        self.machines.append(vm)
        return vm

    def _foreign(self, now: float) -> VM:
        for vm in self.machines:
            if vm.cluster == ELSEWHERE:
                return vm
        offer = next(iter(self.offers.values()))
        tags = {"ray-cluster-name": ELSEWHERE, "ray-node-type": "worker", "ray-user-node-type": "worker"}
        return self._make(ELSEWHERE, Option(offer.type, offer.zone), offer, tags, {}, now)

    def _switch_off(self, vm: VM, why: str, at: float, stop_s: float) -> None:
        vm.ending_at, vm.why = at, why
        vm.gone_at = None if stop_s else at
        self.floor.end(vm)

    def _offer(self, vm: VM) -> Offer:
        return self.offers[vm.option.type, vm.option.zone]

    def _vm(self, machine: str, cluster: str | None = None) -> VM:
        found = next((vm for vm in self.machines if vm.id == machine and cluster in (None, vm.cluster)), None)
        if found is None and cluster is not None:
            raise Refused(UNKNOWN, f"there is no machine {machine}")
        if found is None:
            raise BadInput(f"machine={machine} is not of this cloud", "", "")
        return found

    def _write(self, now: float, verb: str, what: str, answer: str) -> None:
        self.log.append(Request(now, verb, what, answer))


class _Counter:
    """One cluster's market."""

    def __init__(self, cloud: Cloud, cluster: str) -> None:
        self._cloud, self._cluster = cloud, cluster

    def launch(self, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> Machine:
        return self._cloud.launch(self._cluster, option, tags, config, once).shown()

    def tag(self, machine: str, tags: Mapping[str, str]) -> None:
        self._cloud.tag(self._cluster, machine, tags)

    def terminate(self, machines: Sequence[str]) -> None:
        self._cloud.terminate(self._cluster, machines)

    def machines(self) -> Sequence[Machine]:
        return self._cloud.listed(self._cluster)

    def ended(self, machines: Sequence[str]) -> Mapping[str, float]:
        return self._cloud.ended(self._cluster, machines)

    def spot_prices(self, options: Sequence[Option], since: float) -> Mapping[Option, Sequence[tuple[float, float]]]:
        return dict(zip(options, self._cloud.spot_prices(options, since), strict=True))
