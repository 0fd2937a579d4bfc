"""The agent at work: it listens to the machine's cloud, and does what `headway.core.notices` decides."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from headway.cluster.agent.asking import Unheard
from headway.cluster.agent.gcs import Away, Gcs
from headway.cluster.agent.leaving import Leaving
from headway.cluster.agent.nodes import RayNode
from headway.cluster.agent.services import Service, Source
from headway.core.notices import AGENT, AHEAD_S, RISK_KEY, AtRisk, Doubt, Drain, Judge, Nonsense, Notice

logger = logging.getLogger("headway.agent")

EVERY_S = 0.5
"""Between two questions to a source."""
SOON_S = 0.05
"""Until a notice is asked for again, to be believed."""
LONGEST_S = 5.0
"""Between two questions to a source that gives no answer."""
SIGN_S = 10.0
"""Between two signs of life."""
IDLE_S = 2.0
"""Between two looks whether a machine at risk still has work."""


@dataclass
class State:
    """What is known of the agent, as it is kept beside the node; times are Unix seconds.

    Args:
        notices: the cloud's name.
        heard: when a source answered last, by its name.
        trouble: why it does not, by its name.
        leaves: why, and when, the machine goes.
        late: whether that time is over long since.
    """

    notices: str
    heard: dict[str, float] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    leaves: dict[str, object] = field(default_factory=dict)
    late: bool = False

    def json(self, now: float) -> bytes:
        told = {"at": now, "notices": self.notices, "heard": self.heard, "trouble": self.trouble}
        return json.dumps({**told, "leaves": self.leaves, "late": self.late}).encode()


class Watch:
    """Listens until it is cancelled.

    Args:
        cloud: its name.
        service: of it; None where only signals are heard.
        judge: decides.
        nodes: the Ray nodes of this machine.
        instance: the cloud's id of this machine; "" where it is not known.
    """

    def __init__(
        self,
        cloud: str,
        service: Service | None,
        judge: Judge,
        nodes: Callable[[], list[RayNode]],
        instance: str = "",
    ) -> None:
        self.state = State(cloud)
        self._service, self._judge, self._nodes, self._instance = service, judge, nodes, instance
        self.leaving = Leaving(nodes, logger.warning)
        self._changed = asyncio.Event()
        self._signed: dict[str, RayNode] = {}

    async def run(self) -> None:
        """Listen to all sources."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._give_signs())
            for source in self._service.sources() if self._service is not None else []:
                group.create_task(self._listen(source))

    async def stop(self, within_s: float, why: str) -> None:
        """The machine stops: have its nodes drained, and wait until nothing runs there, or the time is over."""
        deadline = min(time.time() + within_s, *[*self.leaving.told.values(), float("inf")])
        if await asyncio.to_thread(self.leaving.drain, deadline, why):
            await asyncio.to_thread(self.leaving.wait, deadline)

    async def forget(self) -> None:
        """Leave no sign of life behind, and nothing to be waited for."""
        self.leaving.over.set()
        for node in self._signed.values():  # their raylets may be gone by now
            with suppress(Away):
                await asyncio.to_thread(_ask, node, lambda gcs, id: gcs.delete(AGENT + id))

    async def _listen(self, source: Source) -> None:
        failures, patient = 0, False
        while True:
            try:
                notices = await source.ask(patient)
                if notices:
                    await self._own()
            except (Unheard, Nonsense) as error:
                failures, patient = failures + 1, False
                self._troubled(source, str(error))
                await asyncio.sleep(min(EVERY_S * 2.0 ** min(failures, 10), LONGEST_S))
                continue
            failures = 0
            self._well(source)
            for deed in self._judge.hear(source.name, notices, time.monotonic()):
                self._do(deed)
            patient = not self._judge.unsure(source.name)
            await asyncio.sleep(EVERY_S if patient else SOON_S)

    def _troubled(self, source: Source, reason: str) -> None:
        if self.state.trouble.get(source.name) != reason:
            logger.warning("%s: %s", source.name, reason)
            self.state.trouble[source.name] = reason
            self._changed.set()

    def _well(self, source: Source) -> None:
        self.state.heard[source.name] = time.time()
        if self.state.trouble.pop(source.name, None) is not None:
            logger.warning("%s: it answers again", source.name)
            self._changed.set()

    def _do(self, deed: Drain | AtRisk | Doubt) -> None:
        if isinstance(deed, Doubt):
            logger.warning("%s", deed.reason)
            return
        self._group.create_task(self._leave(deed) if isinstance(deed, Drain) else self._replace(deed.notice))

    async def _own(self) -> None:
        """Whether the service speaks for this machine. Raises Unheard, Nonsense."""
        if self._instance and self._service is not None:
            whose = await self._service.whose()
            if whose != self._instance:
                raise Nonsense(f"it announces the end of {whose}, and this is {self._instance}")

    async def _leave(self, deed: Drain) -> None:
        deadline = time.time() + deed.left_s
        self.state.leaves = {"why": deed.notice.words, "deadline": deadline}
        self._changed.set()
        await asyncio.to_thread(self.leaving.drain, deadline, deed.notice.words)
        if deed.notice.event and self._service is not None and await asyncio.to_thread(self.leaving.wait, deadline):
            try:
                await self._service.may_go(deed.notice)
            except (Unheard, Nonsense) as error:
                logger.warning("the cloud does not hear that the machine may go: %s", error)

    async def _replace(self, notice: Notice) -> None:
        """Have whoever leads a run replace its worker here, and drain the node when nothing runs on it any more."""
        logger.warning("%s: it is drained when its workers are replaced", notice.words)
        word = json.dumps({"why": notice.words, "at": time.time()}).encode()
        while not self.leaving.told:
            await self._keep(RISK_KEY, word)
            if await asyncio.to_thread(self._is_idle):
                why = f"{notice.words}, and nothing runs on it"
                await asyncio.to_thread(self.leaving.drain, time.time() + AHEAD_S, why)
                return
            await asyncio.sleep(IDLE_S)

    def _is_idle(self) -> bool:
        """Whether nothing runs on any node of this machine."""
        try:
            return all(_ask(node, lambda gcs, id: gcs.idle(id)) for node in self._nodes())
        except Away:
            return False

    async def _give_signs(self) -> None:
        while True:
            for doubt in self._judge.look(time.monotonic()):
                logger.warning("%s", doubt.reason)
                self.state.late = True
            await self._keep(AGENT, self.state.json(time.time()))
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), SIGN_S)
            except TimeoutError:
                continue

    async def _keep(self, kind: str, value: bytes) -> None:
        """Beside each node of this machine, in Ray's internal store."""
        for node in await asyncio.to_thread(self._nodes):
            self._signed[node.id] = node
            try:
                await asyncio.to_thread(_ask, node, lambda gcs, id: gcs.put(kind + id, value))
                self.state.trouble.pop("cluster", None)
            except Away as away:
                if self.state.trouble.get("cluster") != str(away):
                    logger.warning("%s", away)
                    self.state.trouble["cluster"] = str(away)


def _ask(node: RayNode, what: Callable[[Gcs, str], Any]) -> Any:
    """Of the node's cluster, about the node."""
    with Gcs(node.gcs, node.environment, node.owner) as gcs:
        return what(gcs, node.id)
