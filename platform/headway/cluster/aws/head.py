"""A process in which Ray's launcher makes a head of a machine: over ssh, by the commands of the cluster's file.

    python -m headway.cluster.aws.head FOLDER [--no-restart]

It is one of its own because Ray's launcher prints, ends its process where it fails, and leaves threads and ssh behind.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider

from headway.cluster.market import Machine
from headway.cluster.markets import open_market

CONFIG = "ray.json"
"""In a cluster's folder: what Ray gets."""


class AtHand(NodeProvider):
    """The machines of a cluster as Ray's launcher asks for them, here where no Ray runs. It makes and ends none.

    Args:
        provider_config: the provider section.
        cluster_name: of it.
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._market: Any = open_market(provider_config, cluster_name)
        self._seen: dict[str, Machine] = {}

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        self._seen = {machine.id: machine for machine in self._market.machines() if machine.state != "stopping"}
        return [id for id, machine in self._seen.items() if tag_filters.items() <= machine.tags.items()]

    def is_running(self, node_id: str) -> bool:
        return self._machine(node_id).state == "running"

    def is_terminated(self, node_id: str) -> bool:
        self.non_terminated_nodes({})
        return node_id not in self._seen

    def node_tags(self, node_id: str) -> dict[str, str]:
        return dict(self._machine(node_id).tags)

    def external_ip(self, node_id: str) -> str | None:  # type: ignore[override]  # while it has none
        found = self._market.addresses().get(node_id)
        return str(found) if found else None

    def internal_ip(self, node_id: str) -> str | None:  # type: ignore[override]
        return self._machine(node_id).ip or None

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        self._market.tag(node_id, tags)

    def _machine(self, node_id: str) -> Machine:
        if node_id not in self._seen or self._seen[node_id].state != "running":
            self.non_terminated_nodes({})
        return self._seen[node_id]


def fingerprint(config: Mapping[str, Any]) -> str:
    """Of what a head is launched with, as Ray's launcher has it: another one means another machine."""
    from ray.autoscaler._private.util import hash_launch_conf

    head = config["available_node_types"][config["head_node_type"]]
    return str(hash_launch_conf(dict(head["node_config"]), config["auth"]))


def _main(folder: Path, restart: bool) -> None:
    from ray.autoscaler._private.cli_logger import cli_logger
    from ray.autoscaler._private.commands import get_or_create_head_node

    cli_logger.configure(log_style="record", color_mode="false", verbosity=1)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    get_or_create_head_node(
        config,
        str(folder / CONFIG),
        no_restart=not restart,
        restart_only=False,
        yes=True,
        override_cluster_name=None,
        _provider=AtHand(config["provider"], config["cluster_name"]),
    )


if __name__ == "__main__":
    _main(Path(sys.argv[1]), "--no-restart" not in sys.argv[2:])
