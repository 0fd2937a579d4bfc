"""Holds packets back between two interfaces: what `tc netem delay` does, for kernels that have no netem.

Two halves: `Forwarder` starts and ends the program, which is this file run without the rest of Headway. The program
takes whole frames with their offload headers (PACKET_VNET_HDR), so that large segments and sums that are still to be
computed pass through as they are.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import subprocess
import sys
import time

ALL = 3  # ETH_P_ALL
LEVEL, VNET_HDR = 263, 15  # SOL_PACKET, PACKET_VNET_HDR
LARGEST = 10 + 18 + 65535 * 4
BUFFER = 8 * 2**20
OUTGOING = 4  # PACKET_OUTGOING: what this machine itself sends there


class Forwarder:
    """The program under way, in the network of a process.

    Args:
        pid: of that process.
        first: one interface.
        second: the other.
        by_s: seconds for which a frame is held back.
        percent: of frames, drawn at random; others pass at once, and so overtake.
    """

    def __init__(self, pid: int, first: str, second: str, by_s: float, percent: float = 100.0) -> None:
        from headway.testing.network.namespace import inside

        command = [sys.executable, "-I", "-S", __file__, first, second, str(by_s), str(percent)]
        self._process = subprocess.Popen(
            [*inside(pid), *command], start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            from headway.errors import BadInput

            self.close()
            raise BadInput("packets cannot be held back", "the forwarder did not start", "Run as root on Linux.")

    def close(self) -> None:
        """End it; frames that it holds are lost."""
        self._process.kill()
        self._process.communicate()


def main(first: str, second: str, by_s: float, percent: float) -> None:
    """Forward until standard input ends."""
    wires = [_open(first), _open(second)]
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    for wire, other in zip(wires, reversed(wires), strict=True):
        selector.register(wire, selectors.EVENT_READ, other)
    held: list[tuple[float, int, bytes, socket.socket]] = []
    number = 0
    print("ready", flush=True)
    while True:
        wait = held[0][0] - time.monotonic() if held else None
        for key, _ in selector.select(wait if wait is None else max(0.0, wait)):
            if key.data is None:
                return
            for frame in _frames(key.fileobj):  # type: ignore[arg-type]
                number += 1
                late = by_s if random.random() * 100 < percent else 0.0
                heapq.heappush(held, (time.monotonic() + late, number, frame, key.data))
        now = time.monotonic()
        while held and held[0][0] <= now:
            _, _, frame, wire = heapq.heappop(held)
            try:
                wire.send(frame)
            except OSError:  # the cable is full or down: lost, as on a real one
                continue


def _open(interface: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(LEVEL, VNET_HDR, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        wire.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    wire.bind((interface, ALL))
    wire.setblocking(False)
    return wire


def _frames(wire: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < 64:
        try:
            frame, address = wire.recvfrom(LARGEST)
        except OSError:  # nothing more, or the cable is down
            return found
        if address[2] != OUTGOING:
            found.append(frame)
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
