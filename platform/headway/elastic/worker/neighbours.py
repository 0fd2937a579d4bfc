"""The pulses of one node's hearts in one datagram, where there are so many workers that system calls count.

One of the hearts is the *hub*, whichever came first: the others give it their pulses over a socket of the machine's,
and have their answers from it. Every pulse stays sealed for its own worker, so that a hub can tell and change nothing.
It is a convenience: one that is gone is replaced by the next who notices, and one that does not answer is gone round,
so that a heart which stands still silences nobody else. Only Python's own library is imported here.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from typing import Any

from headway.elastic.wire import pulse

HOLD_S = 0.02
"""For others' pulses of the same moment."""
ROUND_S = 10.0
"""For so long the hub is gone round after a pulse that had no answer by the next."""
HELD, BUNDLES = 64, 64
"""Pulses that wait, and bundles whose answers may still come."""


class Neighbours:
    """See the module.

    Args:
        lead: address and port that take pulses.
        address: of this node.
        pulses: the socket to there.
    """

    def __init__(self, lead: tuple[str, int], address: str, pulses: socket.socket) -> None:
        name = hashlib.sha256(f"{lead} {address}".encode()).digest()
        self._name = b"\0headway-hearts-" + name[:16].hex().encode()
        self.phase = int.from_bytes(name[16:20], "big") / 2**32
        """Of a period, at which all of this node beat: nodes differ."""
        self._lead, self._pulses = lead, pulses
        self._near: socket.socket | None = None
        self._hub: socket.socket | None = None
        self._round_until = self._asked_at = self._answered_at = 0.0
        self._held: list[tuple[bytes, Any]] = []
        """Pulses, and whom their answers go to; None: to this one."""
        self.flush_at = float("inf")
        self._number = 0
        self._bundles: dict[int, list[Any]] = {}

    @property
    def sources(self) -> list[socket.socket]:
        """Where something may come in; then it is for `take`."""
        return [each for each in (self._near, self._hub) if each is not None]

    def close(self) -> None:
        for each in self.sources:
            each.close()
        self._near = self._hub = None

    def send(self, datagram: bytes, now: float) -> bool:
        """Whether a pulse is on its way; else it is to be sent alone."""
        if self._hub is None and self._asked_at > self._answered_at:
            self._round_until, self._asked_at = now + ROUND_S, 0.0
        if now < self._round_until:
            return False
        if self._hub is None and self._give(datagram):
            self._asked_at = now
            return True
        if self._hub is None and not self._lead_them():
            return False
        self._hold(datagram, None, now)
        return True

    def heard(self, now: float) -> None:
        """The lead has answered this heart."""
        self._answered_at = now

    def take(self, ready: list[Any], now: float) -> list[bytes]:
        """What came from neighbours. Returns answers that are for this heart."""
        found = []
        if self._near in ready and self._near is not None:
            with contextlib.suppress(OSError):
                found.append(self._near.recv(pulse.MOST_BYTES))
        if self._hub in ready and self._hub is not None:
            for _ in range(HELD):
                try:
                    datagram, sender = self._hub.recvfrom(pulse.MOST_BYTES)
                except OSError:
                    break
                if sender and len(self._held) < HELD:
                    self._hold(datagram, sender, now)
        return found

    def flush(self, now: float) -> None:
        """Send what is held, if it is time."""
        if now < self.flush_at:
            return
        held, self._held, self.flush_at = self._held, [], float("inf")
        for first in range(0, len(held), pulse.BUNDLED):
            together = held[first : first + pulse.BUNDLED]
            self._number += 1
            self._bundles[self._number] = [sender for _, sender in together]
            if len(self._bundles) > BUNDLES:
                del self._bundles[next(iter(self._bundles))]
            with contextlib.suppress(OSError):  # the network is away
                self._pulses.sendto(pulse.bundle(self._number, [each for each, _ in together]), self._lead)

    def answered(self, datagram: bytes) -> list[bytes]:
        """What the lead has sent: answers that are for this heart; those of others are handed on."""
        try:
            number, parts = pulse.unbundled(datagram)
        except ValueError:
            return []
        mine = []
        for sender, part in zip(self._bundles.pop(number, ()), parts, strict=False):
            if sender is None:
                mine.append(part)
            elif part and self._hub is not None:
                with contextlib.suppress(OSError):
                    self._hub.sendto(part, sender)
        return mine

    def _hold(self, datagram: bytes, sender: Any, now: float) -> None:
        self._held.append((datagram, sender))
        self.flush_at = min(self.flush_at, now + HOLD_S)

    def _give(self, datagram: bytes) -> bool:
        """To the hub, if there is one."""
        try:
            if self._near is None:
                self._near = _socket(b"")
            self._near.sendto(datagram, self._name)
        except OSError:
            return False
        return True

    def _lead_them(self) -> bool:
        """Be the hub, unless another is just now."""
        try:
            self._hub = _socket(self._name)
        except OSError:
            return False
        return True


def _socket(name: bytes) -> socket.socket:
    """Of this machine; no name: the kernel gives one. Raises OSError: it is taken, or there is no such thing here."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.bind(name)
    except BaseException:  # raised again: nothing stays open
        made.close()
        raise
    return made
