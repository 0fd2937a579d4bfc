"""What a generation's members leave for each other while they build their group.

Torch's own store listens on every interface, knows no token, and lets anyone list, change and delete keys: a secret
prefix hides nothing there. The workers' lines are open, quick and known to be theirs already, so this goes over them;
and what belonged to a generation goes with it.

Gloo has every member ask for a value of every other, one after the other: n² questions to one thread. So whoever asks
for a value is given all that it was not given yet, each encoded once, and most never ask for the others. Who asks for
one that is not there yet waits until more have come: else all would be given each as it comes.
"""

from __future__ import annotations

from dataclasses import replace

from headway.elastic.wire import messages as wire
from headway.elastic.wire.messages import Put, Want

KEYS_EACH = 16
"""Most keys per member; gloo and NCCL use a few."""
MOST_BYTES = 1 << 18
"""Of what is given at once."""
GATHER_S_EACH, GATHER_S = 1e-4, 0.05
"""For which values are gathered: for each member, and at most."""

Deliveries = list[tuple[str, bytes]]
"""To whom, and what: encoded messages."""


class Rendezvous:
    """See the module. No I/O."""

    def __init__(self) -> None:
        self._number = 0
        self._members: frozenset[str] = frozenset()
        self._lines: list[tuple[bytes, bytes]] = []
        """Values in the order in which their keys came, as messages: with more to follow, and without."""
        self._places: dict[str, int] = {}
        """Of keys, in these."""
        self._given: dict[str, int] = {}
        """How many of these a member was given."""
        self._wanted: dict[str, list[str]] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """That have a value."""
        return tuple(self._places)

    @property
    def gather_s(self) -> float:
        """For which values are gathered before `due` is asked."""
        return min(GATHER_S, GATHER_S_EACH * len(self._members))

    def begin(self, number: int, members: tuple[str, ...]) -> None:
        """These build a group now; all before is forgotten."""
        self._number, self._members = number, frozenset(members)
        self._lines, self._places, self._given, self._wanted = [], {}, {}, {}

    def put(self, worker: str, said: Put) -> bool:
        """Keep a value. Returns whether somebody waits for it. Raises ValueError for more than a group needs."""
        if not self._concerns(worker, said.generation):
            return False
        last = wire.Value(self._number, said.key, said.value)
        line = wire.encode(replace(last, more=True)), wire.encode(last)
        if said.key in self._places:
            self._lines[self._places[said.key]] = line
        elif len(self._lines) < KEYS_EACH * len(self._members):
            self._places[said.key] = len(self._lines)
            self._lines.append(line)
        else:
            raise ValueError("too many keys")
        return said.key in self._wanted

    def due(self) -> Deliveries:
        """Values to those that waited for them."""
        come = [key for key in self._wanted if key in self._places]
        return [(each, self._give(each, key)) for key in come for each in self._wanted.pop(key)]

    def want(self, worker: str, said: Want) -> Deliveries:
        """Give a value, now or once it is there. Raises ValueError for more than a group needs."""
        if not self._concerns(worker, said.generation):
            return []
        if said.key in self._places:
            return [(worker, self._give(worker, said.key))]
        if said.key not in self._wanted and len(self._wanted) >= KEYS_EACH * len(self._members):
            raise ValueError("too many keys")
        waiting = self._wanted.setdefault(said.key, [])
        if worker not in waiting:
            waiting.append(worker)
        return []

    def _give(self, worker: str, key: str) -> bytes:
        """The value, and as many as may be of those that the worker was not given."""
        place, first = self._places[key], self._given.get(worker, 0)
        last, size = first, 0
        while last < len(self._lines) and size + len(self._lines[last][0]) <= MOST_BYTES:
            size += len(self._lines[last][0])
            last += 1
        self._given[worker] = last
        given = [*range(first, last), *(() if first <= place < last else (place,))]
        return b"".join((*(self._lines[each][0] for each in given[:-1]), self._lines[given[-1]][1]))

    def _concerns(self, worker: str, generation: int) -> bool:
        return generation == self._number and worker in self._members
