"""Who has come to the end of a round: told by a datagram, since nobody may wait for it.

One that is lost costs no more than the time of waiting for whoever did not get it.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headway.elastic.worker.pact import Pact

TIMES = 3
"""That it is sent."""
_NOTE = struct.Struct("<qi")


class Arrivals:
    """Of one generation. All workers make one together.

    Args:
        pact: of it.
        address: of this machine, for the others.
        units: that each worker carries, by rank.

    Raises:
        PeerLost: a member is gone.
    """

    def __init__(self, pact: Pact, address: str, units: tuple[tuple[int, ...], ...]) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((address, 0))
            self._socket.setblocking(False)
            told = pact.gather([secrets.token_hex(16), *self._socket.getsockname()[:2]])
        except BaseException:  # raised again; nobody else would close it
            self._socket.close()
            raise
        self._key = bytes.fromhex(told[0][0])
        self._others = [(str(host), int(port)) for rank, (_, host, port) in enumerate(told) if rank != pact.rank]
        self._rank, self._units = pact.rank, units
        self._there: set[int] = set()
        self._start = -1

    def tell(self, start: int) -> None:
        """This worker has come to the end of the round that began with this step."""
        note = _NOTE.pack(start, self._rank)
        for _ in range(TIMES):
            for other in self._others:
                with contextlib.suppress(OSError):
                    self._socket.sendto(note + self._proof(note), other)

    def there(self, start: int) -> int:
        """How many replicas of others are known to be there."""
        if start != self._start:
            self._start, self._there = start, set()
        with contextlib.suppress(OSError):  # there is no more
            while True:
                note = self._socket.recv(256)
                self._take(note[: _NOTE.size], note[_NOTE.size :])
        return sum(len(self._units[rank]) for rank in self._there)

    def _take(self, note: bytes, proof: bytes) -> None:
        if len(note) == _NOTE.size and hmac.compare_digest(proof, self._proof(note)):
            start, rank = _NOTE.unpack(note)
            if start == self._start and 0 <= rank < len(self._units) and rank != self._rank:
                self._there.add(rank)

    def _proof(self, note: bytes) -> bytes:
        return hmac.new(self._key, note, "sha256").digest()

    def close(self) -> None:
        self._socket.close()
