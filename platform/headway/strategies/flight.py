"""The messages of a step that are under way, and what is known of their loss."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from headway.strategies import PeerLost
from headway.strategies.group import Group, Work


class Flight:
    """Launches collectives, and never raises in doing so: it may happen inside the user's backward pass.

    After the first failure nothing more is launched, and `wait` raises.

    Args:
        group: of the workers.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._works: list[Work] = []
        self._loss: RuntimeError | None = None

    def launch(self, start: Callable[..., Work], *arguments: Any) -> Work | None:
        """Start a collective, a method of the group; None where there is no point any more."""
        if self._loss is not None:
            return None
        try:
            work = start(*arguments)
        except RuntimeError as error:
            self._loss = error
            return None
        self._works.append(work)
        return work

    def wait(self, work: Work | None = None) -> None:
        """Until a collective is done; by default all.

        Raises:
            PeerLost: a peer went away. Nothing is under way any more, and no buffer is written to.
        """
        try:
            if self._loss is not None:
                raise self._loss
            for each in self._works if work is None else [work]:
                each.wait()
        except RuntimeError as error:
            self._loss = error
            self.drop()
            raise PeerLost(str(error)) from error
        if work is None:
            self._works = []

    def drop(self) -> None:
        """Break off what is under way, and return when none of it writes to its buffers any more."""
        if self._works or self._loss is not None:
            self._group.sever()  # also frees those that wait for us
        for work in self._works:
            with contextlib.suppress(RuntimeError):
                work.wait()
        self._works = []

    def restart(self) -> None:
        """For the next step."""
        self.drop()
        self._loss = None
