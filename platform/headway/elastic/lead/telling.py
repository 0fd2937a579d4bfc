"""What the members of a generation are told of it: little to each, however many there are.

What is the same for all is encoded once. A membership is told as what became of the one before to all that know that,
and whole to who has come since; where members are is told to whoever asks, which is who cannot reach them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headway.core import events, roll
from headway.core.spots import spots
from headway.elastic.lead.peer import Peer
from headway.elastic.wire import messages as wire


class Telling:
    """See the module."""

    def __init__(self) -> None:
        self._number = 0
        self._members: tuple[str, ...] = ()
        """Of the newest generation that was told."""
        self._going = 0
        self._seats: dict[str, list[tuple[str, str, int]]] | None = None
        """Of the members of the one that was told to go, by address; None until somebody asks."""

    def publish(self, generation: events.Generation, peers: Mapping[str, Peer]) -> None:
        """To all that are connected."""
        number, members = generation.number, generation.members
        whole = wire.publish(number, ((), roll.written(members)), generation.urgent, 0)
        change = roll.change(self._members, members) if self._number else None
        brief = wire.publish(number, change, generation.urgent, self._number) if change is not None else whole
        lanes = generation.carries()
        for worker, peer in peers.items():
            if peer.line is not None:
                line = brief if peer.told == self._number else whole
                peer.line.write(line(lanes.get(worker, ())))
                peer.told = number
        self._number, self._members = number, members

    def go(self, action: events.Go, peers: Mapping[str, Peer]) -> None:
        """To the members."""
        generation, positions = action.generation, action.positions
        self._going, self._seats = generation.number, None
        source = generation.members.index(action.source) if action.source is not None else None
        newest = positions[source] if source is not None else (-1, 0)
        found = spots([peers[worker].node for worker in generation.members])
        line = wire.go(
            wire.Go(generation.number, source, newest, _behind(positions, newest), action.lease_s, (0, 0, 0, 0, 0))
        )
        for worker, spot in zip(generation.members, found, strict=True):
            peer = peers[worker]
            if peer.line is not None:
                peer.line.write(line((spot.rank, spot.local_rank, spot.local_size, spot.node_rank, spot.nodes)))

    def seats(self, asked: wire.Locate, members: Sequence[str], peers: Mapping[str, Peer]) -> wire.Seats | None:
        """Who is where; None: of a generation that is over.

        Args:
            members: of the generation that was told to go.
        """
        if asked.generation != self._going:
            return None
        if self._seats is None:
            self._seats = {}
            for worker in members:
                hello = peers[worker].hello if worker in peers else None
                if hello is not None:
                    self._seats.setdefault(hello.node_ip, []).append((worker, hello.node_ip, hello.probe_port))
        addresses = asked.addresses[: wire.MOST_LOCATED]
        found = [seat for address in addresses for seat in self._seats.get(address, ())]
        return wire.Seats(asked.generation, addresses, tuple(found))


def _behind(positions: Sequence[tuple[int, int]], newest: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
    """Those that are elsewhere than the newest, as of `wire.Go`."""
    found: list[list[int]] = []
    for rank, (step, exchanges) in enumerate(positions):
        if (step, exchanges) == newest:
            continue
        if found and found[-1][0] + found[-1][1] == rank and (found[-1][2], found[-1][3]) == (step, exchanges):
            found[-1][1] += 1
        else:
            found.append([rank, 1, step, exchanges])
    return tuple((first, count, step, exchanges) for first, count, step, exchanges in found)
