"""This machine as a market: a machine is a Ray node of processes, which the cluster's host starts and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headway.cluster.local import orders
from headway.cluster.local.fleet import TYPE
from headway.cluster.market import CAPACITY, UNKNOWN, Machine, Option, Refused
from headway.errors import BadInput, HeadwayError


class ThisMachine:
    """See `headway.cluster.market.Market`.

    Args:
        folder: of the cluster, where its host listens.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def launch(self, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> Machine:
        """Start a node of the type that the tags name, else of the option's."""
        order = {
            "do": "launch",
            "type": tags.get(TYPE, option.type),
            "option": asdict(option),
            "tags": dict(tags),
            "once": once,
        }
        try:
            return _machine(orders.ask(self._folder, order)["machine"])
        except BadInput as error:
            raise Refused(UNKNOWN, str(error)) from None
        except HeadwayError as error:
            raise Refused(CAPACITY, str(error)) from None

    def tag(self, machine: str, tags: Mapping[str, str]) -> None:
        """Put tags on a machine."""
        orders.ask(self._folder, {"do": "tag", "machine": machine, "tags": dict(tags)})

    def terminate(self, machines: Sequence[str]) -> None:
        """End nodes."""
        orders.ask(self._folder, {"do": "terminate", "machines": list(machines)})

    def machines(self) -> Sequence[Machine]:
        """The head and the nodes that are there."""
        return [_machine(each) for each in orders.ask(self._folder, {"do": "machines"})["machines"]]


def open_market(provider: Mapping[str, Any], cluster: str) -> ThisMachine:
    """The market of a provider section."""
    return ThisMachine(Path(provider["headway"]["market"]["folder"]))


def _machine(found: Mapping[str, Any]) -> Machine:
    option = Option(**found["option"])
    return Machine(found["id"], found["state"], option, found["tags"], found["ip"], found["since"])
