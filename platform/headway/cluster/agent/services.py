"""The metadata services of the clouds: which questions they are asked, and with what.

Each source of notices is asked again and again; what its answers mean is in `headway.core.notices`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from headway.cluster.agent.asking import Asker
from headway.core import notices
from headway.core.notices import Answer, Nonsense, Notice

LINK_LOCAL = "http://169.254.169.254"
"""Where all three have it; by number, for a name might be anybody's."""
KEEP_S = 21600
"""So long a token of AWS is asked for."""
TOKEN_CHARS = 1024
WAIT_S = 60
"""So long Google's service is told to wait for something to say."""
SLACK_S = 5.0


@dataclass(frozen=True)
class Source:
    """What may announce something.

    Args:
        name: for people.
        ask: gives all that it announces now; of a patient one, when that has changed or some time has passed. It
            raises Unheard or Nonsense.
    """

    name: str
    ask: Callable[[bool], Awaitable[tuple[Notice, ...]]]


class Service(Protocol):
    """A cloud's metadata service."""

    def sources(self) -> list[Source]:
        """What is to be asked."""

    async def whose(self) -> str:
        """The cloud's id of the machine for which it speaks. Raises Unheard, Nonsense."""

    async def may_go(self, notice: Notice) -> None:
        """Nothing is left on the machine that has to be waited for. Raises Unheard, Nonsense."""


class Aws:
    """AWS's, in its second version: every question carries a token that was asked for by PUT."""

    def __init__(self, asker: Asker, clock: Callable[[], float] = time.monotonic) -> None:
        self._asker, self._clock = asker, clock
        self._token, self._until = "", float("-inf")
        self._renewing = asyncio.Lock()

    def sources(self) -> list[Source]:
        async def action(_: bool) -> tuple[Notice, ...]:
            return notices.aws_action(await self._get("spot/instance-action"), time.time())

        async def rebalance(_: bool) -> tuple[Notice, ...]:
            return notices.aws_rebalance(await self._get("events/recommendations/rebalance"), time.time())

        return [Source("spot notice", action), Source("rebalance recommendation", rebalance)]

    async def whose(self) -> str:
        return _word(await self._get("instance-id"))

    async def may_go(self, notice: Notice) -> None:
        return

    async def _get(self, path: str) -> Answer:
        token = await self._valid("")
        answer = await self._asker.get(f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})
        if answer.status != 401:
            return answer
        token = await self._valid(token)  # it knows this one no more: the machine was stopped and started
        return await self._asker.get(f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})

    async def _valid(self, refused: str) -> str:
        """A token, and another than this one."""
        async with self._renewing:
            if self._token == refused or self._clock() > self._until:
                await self._renew()
        return self._token

    async def _renew(self) -> None:
        header = "X-aws-ec2-metadata-token-ttl-seconds"
        answer = await self._asker.put("/latest/api/token", {header: str(KEEP_S)})
        self._token = _word(answer)
        told = answer.headers.get(header.lower(), "")
        keep_s = int(told) if told.isascii() and told.isdigit() and len(told) < 9 else KEEP_S
        self._until = self._clock() + min(keep_s, KEEP_S) / 2


class Gcp:
    """Google's, which waits with an answer until there is news."""

    HEADERS = {"Metadata-Flavor": "Google"}  # noqa: RUF012

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._tags: dict[str, str] = {}

    def sources(self) -> list[Source]:
        async def preempted(patient: bool) -> tuple[Notice, ...]:
            return notices.gcp_preempted(await self._get("preempted", patient), time.time())

        async def maintenance(patient: bool) -> tuple[Notice, ...]:
            return notices.gcp_maintenance(await self._get("maintenance-event", patient), time.time())

        return [Source("preemption", preempted), Source("maintenance", maintenance)]

    async def whose(self) -> str:
        return _word(await self._asker.get("/computeMetadata/v1/instance/id", self.HEADERS))

    async def may_go(self, notice: Notice) -> None:
        return

    async def _get(self, what: str, patient: bool) -> Answer:
        path, total_s = f"/computeMetadata/v1/instance/{what}", 1.0
        tag = self._tags.get(what)
        if patient and tag is not None:
            path += f"?wait_for_change=true&timeout_sec={WAIT_S}&last_etag={tag}"
            total_s = WAIT_S + SLACK_S
        answer = await self._asker.get(path, self.HEADERS, total_s)
        said = answer.headers.get("etag", "")
        if answer.status == 200 and 0 < len(said) <= 64 and said.isalnum():
            self._tags[what] = said
        else:
            self._tags.pop(what, None)
        return answer


class Azure:
    """Azure's scheduled events, which may be told that nothing need be waited for."""

    HEADERS = {"Metadata": "true"}  # noqa: RUF012
    EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
    COMPUTE = "/metadata/instance/compute?api-version=2021-02-01"
    PATIENCE_S = 5.0

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._name = ""

    def sources(self) -> list[Source]:
        async def events(_: bool) -> tuple[Notice, ...]:
            self._name = self._name or await self._compute("name")
            answer = await self._asker.get(self.EVENTS, self.HEADERS, self.PATIENCE_S)
            return notices.azure_events(answer, time.time(), self._name)

        return [Source("scheduled events", events)]

    async def whose(self) -> str:
        return await self._compute("vmId")

    async def may_go(self, notice: Notice) -> None:
        body = json.dumps({"StartRequests": [{"EventId": notice.event}]}).encode()
        answer = await self._asker.post(self.EVENTS, self.HEADERS, body)
        if answer.status != 200:
            raise Nonsense(f"it answers {answer.status} to the word that the machine may go")

    async def _compute(self, name: str) -> str:
        answer = await self._asker.get(self.COMPUTE, self.HEADERS, self.PATIENCE_S)
        found = notices.document(answer).get(name)
        if not isinstance(found, str) or not found:
            raise Nonsense(f"the machine has no {name}")
        return found


CLOUDS: dict[str, Callable[[Asker], Service]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


def _word(answer: Answer) -> str:
    """An answer that is one word, as ids and tokens are."""
    text = answer.body.decode("latin-1").strip()
    if answer.status != 200:
        raise Nonsense(f"it answers {answer.status}")
    if not 0 < len(text) <= TOKEN_CHARS or not text.isascii() or not text.isprintable() or " " in text:
        raise Nonsense("it gives no word where one belongs")
    return text
