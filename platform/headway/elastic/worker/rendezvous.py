"""Torch's store for a process group's making, over the worker's own line to the coordinator."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from torch.distributed import Store  # type: ignore[attr-defined]

TIMEOUT = timedelta(seconds=30)


class Mail(Protocol):
    """What the line does for a store."""

    def put(self, generation: int, key: str, value: bytes) -> None:
        """Leave a value for the generation's other members."""

    def fetch(self, generation: int, key: str, timeout_s: float) -> bytes:
        """Wait for a value. Raises RuntimeError if it does not come in time, or the generation is no more."""

    def known(self, generation: int, key: str) -> bool:
        """Whether a value has come already."""


class LineStore(Store):
    """Keys of one generation. See `headway.elastic.lead.rendezvous` for why it is not torch's.

    Args:
        mail: the line.
        generation: whose members meet here.
    """

    def __init__(self, mail: Mail, generation: int) -> None:
        super().__init__()
        self._mail, self._generation, self._timeout = mail, generation, TIMEOUT

    def clone(self) -> LineStore:
        return self

    def set(self, key: str, value: bytes | str) -> None:
        self._mail.put(self._generation, key, value.encode() if isinstance(value, str) else bytes(value))

    def get(self, key: str) -> bytes:
        return self._mail.fetch(self._generation, key, self._timeout.total_seconds())

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        for key in keys:
            self._mail.fetch(self._generation, key, (timeout or self._timeout).total_seconds())

    def check(self, keys: list[str]) -> bool:
        return all(self._mail.known(self._generation, key) for key in keys)

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout = timeout

    @property
    def timeout(self) -> timedelta:
        return self._timeout

    def has_extended_api(self) -> bool:
        return False
