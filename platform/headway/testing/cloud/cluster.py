"""A cluster on the test cloud: Ray's autoscaler on its head buys machines, which are namespaces on this machine.

with CloudCluster(file, Cloud(offers)) as cluster:
    driver = cluster.run(["headway", "train", "job.yaml", "--address", cluster.address])
    cluster.reclaim(0, notice_s=5.0)

It is a `headway.testing.cluster.Cluster` whose nodes come and go by themselves: `nodes` holds all that ever booted, in
the order in which they did, and what can be done to a node there can be done here. The cloud's interface and the
metadata services of its machines are in the machines' network. When the owner ends, everything does.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self, cast

from headway.cluster.autoscaling import environment as of_autoscaler
from headway.cluster.file import ClusterFile
from headway.cluster.local.cluster import HEAD, Shape
from headway.cluster.local.machine import Node
from headway.cluster.market import Option
from headway.cluster.teardown import Left, tear_down
from headway.core.news import KEY, NAMESPACE, News
from headway.errors import HeadwayError, RunFailed
from headway.testing.cloud.api import Api
from headway.testing.cloud.boot import TYPE, Agent, listens, shape
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.goods import VM
from headway.testing.cluster import Cluster
from headway.testing.metadata import Cloud as Service
from headway.testing.metadata import Metadata
from headway.testing.network import namespace
from headway.testing.network.switch import NETWORK

GATEWAY = f"{NETWORK}.254"
"""Where the cloud itself is, in the network of its machines."""
GATEWAY_ADDRESS = "02:00:0a:4d:00:fe"
TICK_S = 0.05
START_S = 60.0
MARKET = "headway.testing.cloud.api:open_market"
_NAME, _KIND, _CLUSTER = "ray-cluster-name", "ray-node-type", "headway-cluster"


class CloudCluster(Cluster):
    """Use it as a context manager.

    Args:
        file: of the cluster; its types and options are what the cloud sells.
        cloud: that it is on; no other cluster is.
        interval_s: seconds between two looks of Ray's autoscaler.
        pauses: a factor for the seconds between two requests for what was refused.
        hold_s: a request that cannot be served is given up after so long.
        environment: variables for all nodes, beside this process's own.
        jobs: the head takes jobs over HTTP.
    """

    def __init__(
        self,
        file: ClusterFile,
        cloud: Cloud,
        *,
        interval_s: int = 1,
        pauses: float = 0.1,
        hold_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
        jobs: bool = False,
    ) -> None:
        super().__init__(0, links=True, environment=environment, jobs=jobs)
        self.file, self.cloud = file, cloud
        self.id = uuid.uuid4().hex[:12]
        self._pauses, self._hold_s = pauses, hold_s
        self._api: Api | None = None
        self._ending, self._joinable = threading.Event(), threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="test cloud", daemon=True)
        self._machines: list[VM] = []
        """Of the nodes, by number."""
        self._metadata: Metadata | None = None
        self._agents: dict[str, Agent] = {}
        self._busy: list[threading.Thread] = []
        """What is being started or ended on machines."""
        cloud.floor = self
        limit = file.headway.boot_limit_minutes
        own = {**of_autoscaler(limit, interval_s), "RAY_NODE_TYPE_NAME": file.head, "RAY_CLOUD_INSTANCE_ID": ""}
        self._head_shape = Shape(cpus=0, environment=own)

    @property
    def head_machine(self) -> VM:
        """The head's."""
        return next(vm for vm in self.cloud.machines if vm.cluster == self.file.name and vm.tags[_KIND] == "head")

    def machine(self, number: int) -> VM:
        """The machine of a node."""
        self._node(number)
        return self._machines[number]

    def kill_node(self, number: int) -> None:
        """Let a node's machine fail, without notice."""
        self.cloud.kill(self.machine(number).id)

    def reclaim(self, number: int, notice_s: float) -> None:
        """Take a node's machine back: it is told so by its metadata service, and gone after so long."""
        self.cloud.reclaim(self.machine(number).id, notice_s)

    def empty(self, for_s: float) -> None:
        """Have no machine to sell for so long, of whatever kind."""
        self.cloud.refuse(for_s=for_s)

    def down(self, patience_s: float = 60.0) -> Left:
        """End the cluster's machines, as `headway cluster down` does; returns what the cloud still lists."""
        return tear_down(self.cloud.market(self.file.name), patience_s=patience_s, settle_s=0.5)

    # What the cloud asks of its floor.

    def begin(self, vm: VM) -> None:
        """See `Floor`."""
        if vm.tags.get(_KIND) != "head":
            self._aside(self._boot, vm)

    def warn(self, vm: VM, notice_s: float) -> None:
        """See `Floor`."""
        if self._metadata is not None and vm.id in self._metadata.instances:
            self._metadata.instances[vm.id].reclaim(notice_s)

    def end(self, vm: VM) -> None:
        """See `Floor`."""
        self._aside(self._switch_off, vm)

    def start(self) -> Self:
        """Start the head, and wait until its autoscaler works: whoever asks before it finds none.

        Raises:
            BadInput: no networks can be made here.
            RunFailed: the head, or its autoscaler, did not start.
        """
        super().start()
        deadline = time.monotonic() + START_S
        while self.news() is None:
            if time.monotonic() > deadline:
                self.close()
                raise RunFailed("Ray's autoscaler does not work", f"it has told nothing for {START_S:.0f} s", "")
            time.sleep(TICK_S)
        return self

    def news(self) -> News | None:
        """What the autoscaler has told of late; None before it has begun."""
        found = self.head.ask({"read": [NAMESPACE.decode(), KEY.decode()]}).get("text")
        return None if found is None else News.decode(found.encode())

    def close(self) -> None:
        """End the cluster, the cloud, and whatever runs there."""
        self._ending.set()
        if self._ticker.ident is not None:
            self._ticker.join()
        super().close()

    # What a cluster of `Cluster` is asked for.

    def _prepare(self) -> None:
        super()._prepare()
        # A bridge takes the least address of its ports unless it has one of its own: the machines' caches were stale
        # whenever one comes or goes, and the cloud was silent for ten seconds.
        address = f"link set switch address {GATEWAY_ADDRESS}"
        namespace.ip(self.switch.pid, address, f"address add {GATEWAY}/24 dev switch")
        self._api = Api(self.cloud, GATEWAY, self.switch.pid)
        self._api.open()
        self._metadata = namespace.within(self.switch.pid, Metadata(GATEWAY).start)
        self._ticker.start()
        head = self._buy_head()
        own = {**self._head_shape.environment, "RAY_CLOUD_INSTANCE_ID": head.id}
        self._head_shape = replace(self._head_shape, environment=own)
        assert self._folder is not None
        self._autoscaler = self._folder / "cluster.json"
        self._autoscaler.write_text(json.dumps(self._for_ray(self._api.url)))  # JSON is YAML

    def _for_ray(self, url: str) -> dict[str, Any]:
        given = self.file.for_ray(self.id, url=url)
        own = {**given["provider"]["headway"], "pauses": self._pauses, "hold_s": self._hold_s}
        return {**given, "provider": {**given["provider"], "market": MARKET, "headway": own}}

    def _buy_head(self) -> VM:
        kind = self.file.spec.available_node_types[self.file.head]
        tags = {_NAME: self.file.name, _KIND: "head", TYPE: self.file.head, _CLUSTER: self.id}
        option: Option = kind.options(self.file.head)[0]
        vm = self.cloud.launch(self.file.name, option, tags, {}, "head")
        while vm.running_at is None:  # it boots by the clock, as all do
            if self._ending.wait(TICK_S):
                raise RunFailed("the test cloud was closed", "its head had not booted", "")
            self.cloud.tick()
        return vm

    def _clear(self) -> None:
        for thread in self._busy:
            thread.join()
        for agent in self._agents.values():
            agent.end()
        for service in (self._api, self._metadata):
            if service is not None:
                service.close()
        super()._clear()

    def _begin_head(self) -> None:
        super()._begin_head()
        self._joinable.set()

    def _bare(self, node: Node) -> bool:
        return False  # the head's autoscaler is ours, and so is the agent of every node

    def _boot(self, vm: VM) -> None:
        """What a machine does as it starts: it joins the cluster, as soon as the head can be joined.

        Its autoscaler buys machines before it says where it is.
        """
        while not self._joinable.wait(TICK_S):
            if self._ending.is_set():
                return
        of_vm = shape(self.file, vm)
        with self._lock:
            if self._closed or vm.ending_at is not None:
                return
            node = self._launch(len(self.nodes), of_vm)
            self.nodes.append(node)
            self._machines.append(vm)
            vm.number, vm.ip = node.number, node.ip
        try:
            self._begin(node, of_vm)
            self._listen(vm, node)
        except (HeadwayError, OSError):
            if vm.ending_at is None and not self._ending.is_set():  # else it was switched off as it booted
                raise

    def _listen(self, vm: VM, node: Node) -> None:
        whose = listens(self.file)
        if whose and self._metadata is not None:
            service = self._metadata.instance(vm.id, cast(Service, whose))
            self._agents[vm.id] = Agent(node, service, self.environment)
            self._agents[vm.id].start()
            if vm.deadline is not None:  # it was told before anybody listened
                service.reclaim(max(0.0, vm.deadline - self.cloud.clock()))

    def _switch_off(self, vm: VM) -> None:
        with self._lock:
            node = self.head if vm.tags.get(_KIND) == "head" else None
            if vm.number is not None and vm.number != HEAD:
                node = self.nodes[vm.number]
        if node is not None:
            node.end()
        if vm.id in self._agents:
            self._agents[vm.id].end()

    def _aside(self, do: Callable[[VM], None], vm: VM) -> None:
        thread = threading.Thread(target=do, args=(vm,), daemon=True)
        self._busy = [*(each for each in self._busy if each.is_alive()), thread]
        thread.start()

    def _tick(self) -> None:
        while not self._ending.wait(TICK_S):
            self.cloud.tick()
