"""What a stage of a prepare is."""

from __future__ import annotations

from typing import Protocol, TypeVar

from headway.data.prepare.stages.journal import Workplace

Made = TypeVar("Made", covariant=True)


class Stage(Protocol[Made]):
    """One thing that is done to the whole source. Made of what is decided and of what stages before it made."""

    def run(self, place: Workplace) -> Made:
        """Do it, or what an earlier process has left of it, as the journal says and the disk bears out.

        Raises:
            BadData: the source cannot be read, or changes meanwhile.
            BadInput: a step does not fit the rows.
            RunFailed: Ray failed. What was done is kept.
        """
