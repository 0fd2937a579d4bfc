"""The pulses of a worker's heart and the coordinator's answers: small datagrams, each sealed with the run's token.

They need no connection and none of the worker's threads: they come while its interpreter is locked, and the first that
gets through after a cut link tells at once that it is back. Only Python's own library is imported here.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import NamedTuple

from headway.core.watch import PULSE_S as PULSE_S

LONGEST_S = 60.0
NAME_BYTES = 64
_SEAL_BYTES = 16
_PULSE, _ANSWER, _BUNDLE = b"HWP2", b"HWA2", b"HWB1"
MOST_BYTES = 160
"""Longest pulse."""
BUNDLED = 8
"""Most pulses in one datagram, so that it fits into a packet."""
_FIELDS = struct.Struct("!QdQqBBBQ")
_ANSWERED = struct.Struct("!Qdf")
_NUMBERED = struct.Struct("!4sIB")


class Pulse(NamedTuple):
    """What a heart says.

    Args:
        worker: whose heart it is.
        number: grows from pulse to pulse.
        heard: `Answer.at` of the newest answer; 0 before the first.
        mark: moves with the training thread.
        step: committed steps.
        at: index of a `core.watch.At`.
        waiting: for the others.
        stopped: the worker's process stands still (SIGSTOP, a debugger).
        cpu_ms: that it has used.
    """

    worker: str
    number: int
    heard: float
    mark: int
    step: int
    at: int
    waiting: bool
    stopped: bool
    cpu_ms: int


class Answer(NamedTuple):
    """number: of the pulse; at: the coordinator's clock; period_s: until the next is wanted."""

    number: int
    at: float
    period_s: float = PULSE_S


def key(token: str, worker: str) -> bytes:
    """Of one worker's pulses and answers."""
    return hmac.digest(token.encode(), b"pulse:" + worker.encode(), "sha256")


def pulse(said: Pulse, secret: bytes) -> bytes:
    """One datagram."""
    name = said.worker.encode()
    flags = (said.at, said.waiting, said.stopped)
    body = _FIELDS.pack(said.number, said.heard, said.mark, said.step, *flags, said.cpu_ms)
    return _sealed(_PULSE + bytes([len(name)]) + name + body, secret)


def claimed(datagram: bytes) -> str:
    """The worker that a pulse says it is of, not yet verified. Raises ValueError for what is no pulse."""
    if len(datagram) < 5 or datagram[:4] != _PULSE or datagram[4] > NAME_BYTES:
        raise ValueError("not a pulse")
    return datagram[5 : 5 + datagram[4]].decode()


def opened(datagram: bytes, secret: bytes) -> Pulse:
    """Raises ValueError for what this worker's heart did not say."""
    worker = claimed(datagram)
    begin = 5 + datagram[4]
    if len(datagram) != begin + _FIELDS.size + _SEAL_BYTES:
        raise ValueError("not a pulse")
    _verify(datagram, secret)
    number, heard, mark, step, at, waiting, stopped, cpu_ms = _FIELDS.unpack_from(datagram, begin)
    return Pulse(worker, number, heard, mark, step, at, waiting > 0, stopped > 0, cpu_ms)


def answer(said: Answer, secret: bytes) -> bytes:
    """One datagram."""
    return _sealed(_ANSWER + _ANSWERED.pack(said.number, said.at, said.period_s), secret)


def opened_answer(datagram: bytes, secret: bytes) -> Answer:
    """Raises ValueError for what the coordinator did not say."""
    if datagram[:4] != _ANSWER or len(datagram) != 4 + _ANSWERED.size + _SEAL_BYTES:
        raise ValueError("not an answer")
    _verify(datagram, secret)
    number, at, period_s = _ANSWERED.unpack_from(datagram, 4)
    if not 0.0 < period_s <= LONGEST_S:
        raise ValueError("not a time between pulses")
    return Answer(number, at, round(period_s, 6))  # as it was before it was a float of four bytes


def bundle(number: int, parts: Sequence[bytes]) -> bytes:
    """Pulses of several hearts, or the answers to them in the same order (empty where there is none), as one datagram.
    Each is sealed for its own worker; what they come in is not."""
    return _NUMBERED.pack(_BUNDLE, number, len(parts)) + b"".join(bytes([len(part)]) + part for part in parts)


def is_bundle(datagram: bytes) -> bool:
    """Whether it is one, or says so."""
    return datagram[:4] == _BUNDLE


def unbundled(datagram: bytes) -> tuple[int, list[bytes]]:
    """Number and parts of a bundle. Raises ValueError for what is none."""
    if len(datagram) < _NUMBERED.size or not is_bundle(datagram):
        raise ValueError("not a bundle")
    _, number, count = _NUMBERED.unpack_from(datagram)
    at, parts = _NUMBERED.size, list[bytes]()
    while at < len(datagram) and len(parts) < count:
        size = datagram[at]
        parts.append(datagram[at + 1 : at + 1 + size])
        at += 1 + size
    if at != len(datagram) or len(parts) != count or count > BUNDLED:
        raise ValueError("not a bundle")
    return number, parts


def _sealed(body: bytes, secret: bytes) -> bytes:
    return body + _seal(body, secret)


def _verify(datagram: bytes, secret: bytes) -> None:
    if not hmac.compare_digest(datagram[-_SEAL_BYTES:], _seal(datagram[:-_SEAL_BYTES], secret)):
        raise ValueError("not sealed by this run")


def _seal(body: bytes, secret: bytes) -> bytes:
    # BLAKE2 is keyed by itself, and takes a third of HMAC's time: tens of thousands come each second.
    return hashlib.blake2b(body, digest_size=_SEAL_BYTES, key=secret).digest()
