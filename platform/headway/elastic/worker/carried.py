"""What the engine asks of that which a strategy keeps of replicas or ranges, where each is carried by some worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from headway.elastic.worker.replica import Words
    from headway.strategies import Strategy
    from headway.strategies.group import Group


class Carried(Protocol):
    """Of either kind."""

    def begin(self) -> None:
        """All begin from a state that was kept, or from the first."""

    def settle(self) -> None:
        """The members are others: everything goes to its carrier. Raises PeerLost."""

    def gather(self) -> None:
        """Have all of it on rank 0, for a checkpoint. Raises PeerLost."""

    def snapshot(self) -> dict[str, Any]:
        """As `Replica.snapshot`, with what was gathered."""


class Rows(Protocol):
    """Tables of which only rows travel, see `headway.elastic.worker.tables`."""

    def start(self) -> None:
        """Before a pass over lanes, also one that is done again."""

    def lane(self, number: int) -> None:
        """What is computed from here on is of this lane."""

    def require(self) -> None:
        """Raises PeerLost: rows that were asked for did not come."""

    def finish(self) -> list[float]:
        """The lanes' gradients are summed. Raises PeerLost."""

    def pend(self, factor: float) -> None:
        """The update is to be made, with gradients times this."""

    def commit(self) -> None:
        """It is made."""


class OfSteps(Carried, Protocol):
    """Where workers exchange in every step, see `headway.elastic.worker.held`."""

    serves: bool

    @property
    def tables(self) -> Rows | None:
        """Of which only rows travel."""

    @property
    def gathered(self) -> bool:
        """Whether a checkpoint can be taken."""

    def strategy(self, group: Group | None) -> Strategy:
        """For what is trained now."""

    def leave(self) -> None:
        """Somebody is about to leave: what it keeps goes to those that stay. Raises PeerLost."""

    def close(self) -> None:
        """The session is over."""

    def forget(self) -> None:
        """A checkpoint was taken, or left out."""

    def levelled(self) -> None:
        """This worker takes the state of those ahead."""


class OfRounds(Carried, Protocol):
    """Where replicas go on by themselves, see `headway.elastic.worker.rounds`."""

    start: int
    wanted: str | None
    parted: int
    """The newest generation for which those that leave have handed over what they have."""

    @property
    def between(self) -> bool:
        """Whether this worker is at the beginning of a round."""

    @property
    def met(self) -> bool:
        """Whether all have met at the beginning of the step that this worker's loop is at."""

    @property
    def keeps(self) -> bool:
        """Whether replicas differ when a round begins."""

    def given(self, given: dict[str, Any]) -> dict[str, Any]:
        """What is handed to another worker."""

    @property
    def ready(self) -> bool:
        """Whether a checkpoint can be taken here."""

    def taken(self, level: bool, at: int | None, here: dict[str, Any]) -> None:
        """This worker has taken the common state of those ahead."""

    def left(self, met: bool) -> None:
        """All leave; what was not exchanged is given up."""

    def words(self) -> Words:
        """Digest of the common state."""

    def open(self) -> None:
        """The next round begins."""
