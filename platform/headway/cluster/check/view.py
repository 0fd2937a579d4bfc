"""A cluster's file as rules look at it: whatever is missing or of a strange kind is simply not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headway.cluster.check.finding import Way, at, listed, mapped, texts

HERE = ("this-machine", "test-cloud")
STARTED = (*HERE, "aws")
"""Kinds that `headway cluster up` starts, with commands of its own where the file has none; others are Ray's."""
TYPES = "available_node_types"


@dataclass(frozen=True)
class Offer:
    """One way to get a machine, as it stands in a file.

    Args:
        way: to it.
        type, zone, spot, price: of it; "" and None where they are not said.
    """

    way: Way
    type: str
    zone: str
    spot: bool
    price: float | None = None


class View:
    """A file's tree.

    Args:
        tree: as it was read.
    """

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.provider = mapped(tree.get("provider"))
        self.kind = str(self.provider.get("type", ""))
        self.headway = mapped(self.provider.get("headway"))
        self.types = {str(name): mapped(each) for name, each in mapped(tree.get(TYPES)).items()}

    @property
    def here(self) -> bool:
        """Whether its machines are processes of this one."""
        return self.kind in HERE

    @property
    def started(self) -> bool:
        """Whether Headway starts it, and fills in what is left out."""
        return self.kind in STARTED

    @property
    def region(self) -> str:
        """Where it is; "" where that is not said."""
        return str(self.provider.get("region") or self.provider.get("location") or "")

    @property
    def head(self) -> str:
        """The head's type."""
        return str(self.tree.get("head_node_type") or next(iter(self.types), ""))

    @property
    def workers(self) -> dict[str, dict[Any, Any]]:
        """The other types."""
        return {name: each for name, each in self.types.items() if name != self.head}

    def offers(self, name: str) -> list[Offer]:
        """What a type stands for."""
        each, way = self.types.get(name, {}), (TYPES, name)
        options = listed(each.get("one_of"))
        if options:
            return [_offer((*way, "one_of", number), mapped(one)) for number, one in enumerate(options)]
        config = mapped(each.get("node_config"))
        return [Offer((*way, "node_config"), _machine(config), _zone(config), _spot(config))]

    @property
    def spots(self) -> list[str]:
        """Worker types all of whose machines may be taken away."""
        return [name for name in self.workers if all(offer.spot for offer in self.offers(name))]

    def said(self, key: str) -> str | None:
        """A list of commands as one text; None where the file has none."""
        lines = [each for each in listed(self.tree.get(key)) if isinstance(each, str)]
        return "\n".join(lines) if lines else None

    def commands(self) -> Iterator[tuple[Way, str]]:
        """All commands of the file."""
        for key, value in self.tree.items():
            if str(key).endswith("_commands"):
                yield from texts(value, (key,))
        for name, each in self.types.items():
            for key, value in each.items():
                if str(key).endswith("_commands"):
                    yield from texts(value, (TYPES, name, key))

    def images(self) -> Iterator[tuple[Way, str]]:
        """Images of containers and machines, each once."""
        seen = set()
        for key, value in mapped(self.tree.get("docker")).items():
            if str(key).endswith("image") and isinstance(value, str):
                yield ("docker", key), value
        for name, each in self.types.items():
            for way, value in texts(each.get("node_config"), (TYPES, name, "node_config")):
                if str(way[-1]) in ("ImageId", "sourceImage", "imageVersion") and value not in seen:
                    seen.add(value)
                    yield way, value


def _offer(way: Way, one: Mapping[Any, Any]) -> Offer:
    price = one.get("price_per_hour")
    said = float(price) if isinstance(price, int | float) and not isinstance(price, bool) else None
    return Offer(way, str(one.get("type", "")), str(one.get("zone", "")), one.get("spot") is True, said)


def _machine(config: Mapping[Any, Any]) -> str:
    azure = at(config, "azure_arm_parameters", "vmSize")
    return str(config.get("InstanceType") or config.get("machineType") or azure or "")


def _zone(config: Mapping[Any, Any]) -> str:
    return str(at(config, "Placement", "AvailabilityZone") or config.get("zone") or "")


def _spot(config: Mapping[Any, Any]) -> bool:
    """Whether a cloud's own keys ask for what may be taken away."""
    aws = at(config, "InstanceMarketOptions", "MarketType") == "spot"
    google = config.get("scheduling")
    some = google if isinstance(google, list) else [google]
    gcp = any(at(each, "preemptible") is True or at(each, "provisioningModel") == "SPOT" for each in some)
    return aws or gcp or str(at(config, "azure_arm_parameters", "priority", default="")).lower() == "spot"
