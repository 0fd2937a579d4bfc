"""Questions to a service that may be anything: each has a time and a size that it cannot exceed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp

from headway.core.notices import Answer

TOTAL_S = 1.0
"""From the question to the answer's last byte; the services are on the machine's own link."""
CONNECT_S = 0.5
MOST_BYTES = 1 << 16
LINE_BYTES = 1 << 13


class Unheard(Exception):
    """The service gave no answer."""


class Asker:
    """Asks a service; use it as an async context manager.

    No proxy is used, whatever the environment says, since these services know a machine by where it asks from. No
    redirection is followed, no cookie kept, nothing unpacked.

    Args:
        base: http://HOST[:PORT][/PREFIX].
    """

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, headers: Mapping[str, str] | None = None, total_s: float = TOTAL_S) -> Answer:
        """Ask for a path below the base.

        Raises:
            Unheard: no answer, or none in time, or one without an end.
        """
        return await self._ask("GET", path, headers or {}, None, total_s)

    async def put(self, path: str, headers: Mapping[str, str]) -> Answer:
        """As `get`."""
        return await self._ask("PUT", path, headers, None, TOTAL_S)

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """As `get`."""
        return await self._ask("POST", path, headers, body, TOTAL_S)

    async def _ask(
        self, verb: str, path: str, headers: Mapping[str, str], body: bytes | None, total_s: float
    ) -> Answer:
        assert self._session is not None
        limit = aiohttp.ClientTimeout(total=total_s, connect=CONNECT_S)
        try:
            async with self._session.request(
                verb, self.base + path, headers=dict(headers), data=body, timeout=limit, allow_redirects=False
            ) as answer:
                told = {name.lower(): value for name, value in answer.headers.items()}
                return Answer(answer.status, told, await _bounded(answer.content))
        except TimeoutError:
            raise Unheard(f"no answer within {total_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unheard(f"no answer ({type(error).__name__}: {str(error)[:200]})") from None


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """All of an answer. Raises Unheard where that is too much."""
    found = b""
    while part := await content.read(MOST_BYTES):
        found += part
        if len(found) > MOST_BYTES:
            raise Unheard(f"an answer of more than {MOST_BYTES >> 10} KiB")
    return found


async def pause(seconds: float) -> None:
    """Wait; a name of its own, so that tests need not."""
    await asyncio.sleep(seconds)
