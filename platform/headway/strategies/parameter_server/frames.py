"""What passes between workers and servers: a head of fixed size and raw numbers behind it, over TCP.

Both sides prove that they know the run's token before anything else, each by a digest over numbers that both drew.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import hmac
import os
import socket
import struct
from dataclasses import dataclass, replace

import torch

from headway.strategies.lost import PeerLost

MOST_BYTES = 1 << 32
"""Of one frame's numbers."""
_HEAD = struct.Struct("<4sBBxxIiqqfQ")
_MAGIC = b"HWP1"
_NONCE = 32


class Verb(enum.IntEnum):
    """What is asked, and what is answered."""

    PULL = 1
    PUSH = 2
    PUSH_PULL = 3
    FORWARD = 4
    """From who carries a range to who has its copy: make this update too."""
    DONE = 16
    WAIT = 17
    """The slowest replica is too far behind, or the update that is waited for is not there yet: ask again."""
    AGAIN = 18
    """The copy cannot be reached, so nothing can be promised: ask again."""
    ELSEWHERE = 19
    """Not carried here, or not any more: ask the other one."""
    REFUSED = 20
    """It does not fit; a bytes' message says why."""


FALLBACK = 1
"""Flag: the range's carrier does not answer, so that who has the copy carries it from now on."""
LATE = 2
"""Flag of an answer to a push: the step was complete without it, and nothing is made of it."""


@dataclass(frozen=True)
class Frame:
    """Without its numbers.

    Args:
        verb: see `Verb`.
        number: of the range.
        replica: whose gradient.
        step: of the replica, whose gradient it is, or before which values are wanted; -1: any.
        version: updates of the range that the values are after, in an answer; that they were after by which a gradient
            was reckoned, in a push.
        factor: by which a gradient is multiplied where it becomes an update (`Slab`), or is multiplied already
            (`Averaged`).
        flags: see `FALLBACK` and `LATE`.
        size: bytes that follow.
    """

    verb: Verb
    number: int = 0
    replica: int = -1
    step: int = -1
    version: int = 0
    factor: float = 1.0
    flags: int = 0
    size: int = 0


def as_sent(factor: float) -> float:
    """A factor as it arrives: whoever has a range and whoever has its copy reckon with the same."""
    return float(struct.unpack("<f", struct.pack("<f", factor))[0])


_MOST_AT_ONCE = 512
"""Buffers of one call; the kernel takes 1024."""


class Connection:
    """One side of an authenticated connection; of one thread at a time.

    Args:
        link: of a finished handshake, see `connected` and `accepted`.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._room = torch.empty(0, dtype=torch.uint8)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, frame: Frame, *parts: torch.Tensor) -> None:
        """A head and tensors' bytes. The tensors are contiguous, in host memory.

        Raises:
            OSError: the other side is gone.
        """
        frame = replace(frame, size=sum(part.nbytes for part in parts))
        head = _HEAD.pack(
            _MAGIC,
            frame.verb,
            frame.flags,
            frame.number,
            frame.replica,
            frame.step,
            frame.version,
            frame.factor,
            frame.size,
        )
        # All at once: a head that is held back until more comes (MSG_MORE) may be held back for 0.2 s.
        rest = [memoryview(head), *(_memory(part) for part in parts if part.nbytes)]
        while rest:
            sent = self._link.sendmsg(rest[:_MOST_AT_ONCE])
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if sent:
                rest[0] = rest[0][sent:]

    def receive(self, into: torch.Tensor | None = None) -> tuple[Frame, torch.Tensor]:
        """The next frame, and its bytes as uint8; they are overwritten by the next one's.

        Args:
            into: where they are put if it is just of their size; contiguous, in host memory.

        Raises:
            OSError: the other side is gone (EOFError) or does not keep to the protocol.
        """
        head = bytearray(_HEAD.size)
        _fill(self._link, memoryview(head))
        magic, verb, flags, number, replica, step, version, factor, size = _HEAD.unpack(head)
        if magic != _MAGIC or size > MOST_BYTES or verb not in Verb.__members__.values():
            raise OSError("no frame")
        if into is not None and into.nbytes == size:
            room = into.detach().view(-1).view(torch.uint8)
        else:
            if len(self._room) < size:
                self._room = torch.empty(size, dtype=torch.uint8)
            room = self._room[:size]
        if size:
            _fill(self._link, _memory(room))
        return Frame(Verb(verb), number, replica, step, version, factor, flags, size), room

    def close(self) -> None:
        """Also what another thread waits for in it ends."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()


def connected(address: tuple[str, int], token: bytes, patience_s: float) -> Connection:
    """A connection to a server.

    Args:
        address: host and port.
        token: the run's.
        patience_s: for connecting, and for every answer.

    Raises:
        OSError: nobody answers in time.
        PeerLost: it does not know the token.
    """
    link = socket.create_connection(address, timeout=patience_s)
    try:
        mine, theirs, answer = os.urandom(_NONCE), bytearray(_NONCE), bytearray(_NONCE)
        link.sendall(mine)
        _fill(link, memoryview(theirs))
        link.sendall(_proof(token, b"client", mine, bytes(theirs)))
        _fill(link, memoryview(answer))
        if not hmac.compare_digest(answer, _proof(token, b"server", mine, bytes(theirs))):
            raise PeerLost(f"{address[0]}:{address[1]} is no server of this run")
    except BaseException:  # raised again; nobody else would close it
        link.close()
        raise
    return Connection(link)


def accepted(link: socket.socket, token: bytes, patience_s: float) -> Connection:
    """The other side of `connected`.

    Raises:
        OSError: whoever connected does not know the token, or says nothing.
    """
    link.settimeout(patience_s)
    theirs, mine, proof = bytearray(_NONCE), os.urandom(_NONCE), bytearray(_NONCE)
    link.sendall(mine)
    _fill(link, memoryview(theirs))
    _fill(link, memoryview(proof))
    if not hmac.compare_digest(proof, _proof(token, b"client", bytes(theirs), mine)):
        raise OSError("it does not know the run's token")
    link.sendall(_proof(token, b"server", bytes(theirs), mine))
    link.settimeout(None)
    return Connection(link)


def _proof(token: bytes, who: bytes, client: bytes, server: bytes) -> bytes:
    return hmac.new(token, who + client + server, hashlib.sha256).digest()


def _memory(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


def _fill(link: socket.socket, room: memoryview) -> None:
    at = 0
    while at < len(room):
        got = link.recv_into(room[at:])
        if not got:
            raise ConnectionResetError("the other side closed the connection")
        at += got
