"""The messages of a step that are under way, and what is known of their loss."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from headway.strategies.group import Group, Work
from headway.strategies.lost import PeerLost


class Flight:
    """Launches collectives, and never raises in doing so: it may happen inside the user's backward pass.

    After the first failure nothing more is launched, and `wait` raises.

    Args:
        group: of the workers.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._works: list[Work] = []
        self._loss: Exception | None = None

    def launch(self, start: Callable[..., Work], *arguments: Any) -> Work | None:
        """Start a collective, a method of the group; None where there is no point any more."""
        if self._loss is not None:
            return None
        try:
            work = start(*arguments)
        except Exception as error:  # raised by `wait`, under its own name
            self._loss = error
            return None
        self._works.append(work)
        return work

    def order(self, work: Work | None) -> None:
        """What is done with a collective's tensors from here on comes after it.

        Raises:
            PeerLost: as `wait`.
        """
        with self._watched():
            if self._loss is not None or work is None:
                raise self._loss or PeerLost("it was not begun")
            work.wait()

    def wait(self, work: Work | None = None, then: Callable[[int], None] | None = None) -> None:
        """Until a collective is done; by default all. It may still have been broken off, see `confirm`.

        Args:
            work: to be waited for alone.
            then: called after each with its number, in the order in which they were launched, while others are on
                their way.

        Raises:
            PeerLost: a peer went away. Nothing is under way any more, and no buffer is written to.
        """
        with self._watched():
            if self._loss is not None:
                raise self._loss
            for number, each in enumerate(self._works if work is None else [work]):
                each.wait()
                if then is not None:
                    then(number)
            self._group.confirm()  # reading would wait too, but without a limit
            if work is None:
                self._works = []

    def confirm(self) -> None:
        """What was waited for and read is complete and right.

        Raises:
            PeerLost: as `wait`.
        """
        with self._watched():
            self._group.confirm()

    def drop(self) -> None:
        """Break off what is under way, and return when none of it writes to its buffers any more."""
        if self._works or self._loss is not None:
            self._group.sever()  # also frees those that wait for us
            for work in self._works:
                with contextlib.suppress(RuntimeError):
                    work.wait()
            with contextlib.suppress(RuntimeError):
                self._group.settle()
        self._works = []

    def restart(self) -> None:
        """For the next step."""
        self.drop()
        self._loss = None

    @contextlib.contextmanager
    def _watched(self) -> Any:
        try:
            yield
        except Exception as error:
            self._loss = error
            self.drop()
            raise
