"""What a cluster can buy, and at which price: as its provider tells it to the runs on it.

What it has bought is told by `headway.core.till`. Runs decide by it which market they wish (`headway.core.wishes`);
which of a market's options is tried next is decided where it is bought (`headway.core.shopping`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

KEY = b"offers"
"""Where Ray's internal store keeps it, in the namespace of `headway.core.news`."""
NEARLY = 1e-9
"""So much of a worker is no worker that has no room: tenths do not add up in floating point."""
FITS_MANY = 1000
"""Workers that take nothing: a machine has room for as many as anybody wants."""


@dataclass(frozen=True)
class Offer:
    """One way to get a machine.

    Args:
        node_type: the cluster file's name for what it would be.
        type, zone: the cloud's names; the zone may be "".
        spot: whether it is cheap and may be taken away.
        price_per_hour: dollars; None where nobody tells.
        until: it was refused, and is not asked for again before, in Unix seconds; 0 where it was not.
        why: it was refused.
    """

    node_type: str
    type: str
    zone: str = ""
    spot: bool = False
    price_per_hour: float | None = None
    until: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.type, f"in {self.zone}" if self.zone else "", "spot" if self.spot else ""]))


@dataclass(frozen=True)
class Stock:
    """All of it.

    Args:
        offers: in the file's order.
        resources: what Ray gives out on a machine, by node type.
        idle_s: so long an idle machine stays, and costs, before it is given back.
    """

    offers: tuple[Offer, ...] = ()
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    idle_s: float = 0.0

    def encode(self) -> bytes:
        """For `decode`."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(data: bytes | None) -> Stock:
        """What was encoded; an empty one where there is none, or none that can be read."""
        try:
            read = json.loads(data or b"{}")
            offers = tuple(Offer(**each) for each in read.get("offers", ()))
            resources = {str(kind): dict(each) for kind, each in read.get("resources", {}).items()}
            return Stock(offers, resources, float(read.get("idle_s", 0.0)))
        except (ValueError, TypeError, AttributeError):
            return Stock()

    def share(self, node_type: str, each: Mapping[str, float]) -> float:
        """The part of a machine that one worker takes; 0 of one that has no room for any."""
        room = fit(self.resources.get(node_type, {}), each)
        return 1.0 / room if room else 0.0

    def listed(self, price: Callable[[str, str, bool], float | None]) -> Stock:
        """The same, with prices by type, zone, and whether it is spot, where none is told."""
        offers = [
            offer
            if offer.price_per_hour is not None
            else replace(offer, price_per_hour=price(offer.type, offer.zone, offer.spot))
            for offer in self.offers
        ]
        return replace(self, offers=tuple(offers))

    def unpriced(self, each: Mapping[str, float]) -> list[Offer]:
        """Those that have room for a worker, and no price."""
        return [
            offer for offer in self.offers if offer.price_per_hour is None and self.share(offer.node_type, each) > 0
        ]

    def price(
        self, each: Mapping[str, float], spot: bool | None, now: float | None = None, other: float | None = None
    ) -> float | None:
        """Dollars for an hour of a worker on the cheapest machine that has room for it.

        Args:
            each: what a worker takes, by Ray's names.
            spot: of which market; None for either.
            now: only what is to be had now, as far as is known; None: whether or not.
            other: dollars for it on a machine that has no price; None where nobody said.

        Returns:
            None where nobody tells a price of any such.
        """
        return min((dollars / room for dollars, room in self._ways(each, spot, now, other)), default=None)

    def room(self, each: Mapping[str, float], spot: bool, now: float | None = None, other: float | None = None) -> int:
        """Workers for which the machine of `price` has room; 1 where there is none."""
        ways = self._ways(each, spot, now, other)
        return min(ways, key=lambda way: (way[0] / way[1], way[1]), default=(0.0, 1))[1]

    def whole(
        self, each: Mapping[str, float], spot: bool | None, workers: int, other: float | None = None
    ) -> float | None:
        """Dollars for an hour of so many workers, on the cheapest machines that are theirs alone; as of `price`."""
        ways = self._ways(each, spot, None, other)
        return min((dollars * -(-workers // room) for dollars, room in ways), default=None)

    def _ways(
        self, each: Mapping[str, float], spot: bool | None, now: float | None, other: float | None
    ) -> list[tuple[float, int]]:
        """Dollars for an hour of each machine, and workers for which it has room: one where each worker is paid."""
        found = []
        for offer in self.offers:
            room = fit(self.resources.get(offer.node_type, {}), each)
            if not room or spot not in (None, offer.spot) or (now is not None and offer.until > now):
                continue
            if offer.price_per_hour is not None:
                found.append((offer.price_per_hour, room))
            elif other is not None:
                found.append((other, 1))
        return found

    def sold(self, each: Mapping[str, float], spot: bool) -> bool:
        """Whether such machines for a worker are sold at all."""
        return any(offer.spot == spot and self.share(offer.node_type, each) > 0 for offer in self.offers)

    def to_be_had(self, each: Mapping[str, float], spot: bool, now: float) -> bool:
        """Whether any of them is to be had now: it was not refused of late."""
        fits = [offer for offer in self.offers if offer.spot == spot and self.share(offer.node_type, each) > 0]
        return any(offer.until <= now for offer in fits)


def fit(has: Mapping[str, float], each: Mapping[str, float]) -> int:
    """How many workers, each of which takes so much, a machine has room for. What a file says of its resources is what
    Ray gives out; memory, which few files name, it is held to have enough of."""
    counted = {"CPU", "GPU", *has}
    amounts = {name: amount for name, amount in each.items() if amount > 0 and name in counted}
    return min((times(has.get(name, 0.0), amount) for name, amount in amounts.items()), default=FITS_MANY)


def times(there: float, amount: float) -> int:
    """How often there is a whole amount."""
    return math.floor(there / amount + NEARLY)
