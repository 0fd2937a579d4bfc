"""What a generation's members leave for each other while they build their group.

Torch's own store listens on every interface, knows no token, and lets anyone list, change and delete keys: a secret
prefix hides nothing there. The workers' lines are open, quick and known to be theirs already, so this goes over them;
and what belonged to a generation goes with it.
"""

from __future__ import annotations

from headway.elastic.wire.messages import Put, Value, Want

KEYS_EACH = 16
"""Most keys per member; gloo and NCCL use a few."""

Deliveries = list[tuple[str, Value]]
"""To whom, and what."""


class Rendezvous:
    """See the module. No I/O."""

    def __init__(self) -> None:
        self._number = 0
        self._members: frozenset[str] = frozenset()
        self._values: dict[str, str] = {}
        self._wanted: dict[str, list[str]] = {}

    def begin(self, number: int, members: tuple[str, ...]) -> None:
        """These build a group now; all before is forgotten."""
        self._number, self._members = number, frozenset(members)
        self._values, self._wanted = {}, {}

    def put(self, worker: str, said: Put) -> Deliveries:
        """Keep a value. Raises ValueError for more than a group needs."""
        if not self._concerns(worker, said.generation):
            return []
        if said.key not in self._values and len(self._values) >= KEYS_EACH * len(self._members):
            raise ValueError("too many keys")
        self._values[said.key] = said.value
        waiting = self._wanted.pop(said.key, [])
        return [(each, Value(self._number, said.key, said.value)) for each in waiting]

    def want(self, worker: str, said: Want) -> Deliveries:
        """Give a value, now or once it is there. Raises ValueError for more than a group needs."""
        if not self._concerns(worker, said.generation):
            return []
        if said.key in self._values:
            return [(worker, Value(self._number, said.key, self._values[said.key]))]
        if said.key not in self._wanted and len(self._wanted) >= KEYS_EACH * len(self._members):
            raise ValueError("too many keys")
        waiting = self._wanted.setdefault(said.key, [])
        if worker not in waiting:
            waiting.append(worker)
        return []

    def _concerns(self, worker: str, generation: int) -> bool:
        return generation == self._number and worker in self._members
