"""What a keeper asks of a cluster. Nothing here waits long: what takes a while is begun, and seen later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headway.core.enqueued import Entry, Seen
from headway.core.queued import Node


class Cluster(Protocol):
    """The one that has the workers."""

    def nodes(self, runs: Sequence[str]) -> list[Node] | None:
        """Its machines that are there, and who of these runs works where; None where that cannot be asked now."""

    def grows(self) -> bool:
        """Whether it may have machines that it has not."""

    def order(self, entry: Entry | None, workers: int) -> None:
        """Have a cluster that buys machines know that room for so many workers of an entry is lacking, from now on;
        None: nothing is."""

    def seen(self, entry: Entry) -> Seen:
        """What there is of an entry's newest start."""

    def start(self, entry: Entry) -> None:
        """Begin a start, by its name, or go on with the run; if it was begun, nothing."""

    def resize(self, entry: Entry) -> None:
        """Have the run know how many workers it is to have, by the name of that order."""

    def pause(self, entry: Entry) -> None:
        """Ask a start for a checkpoint and its end; also one that has not come yet."""
