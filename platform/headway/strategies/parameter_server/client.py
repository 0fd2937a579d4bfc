"""What a worker asks of the servers: pull, push, and both in one round trip; with somebody else where one is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from headway.errors import BadInput
from headway.strategies.lost import PeerLost
from headway.strategies.parameter_server.frames import FALLBACK, LATE, Connection, Frame, Verb, connected
from headway.strategies.parameter_server.server import PATIENCE_S, Address, Server, new_room

PAUSE_S = 0.01
"""Before a server is asked again that could promise nothing."""


@dataclass
class Route:
    """Where a range is: at its carrier, and the copy, if there is one."""

    carrier: Address
    copy: Address | None = None


class _Link:
    """To one server; one question at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: Connection | None = None

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None


class Client:
    """Any thread may ask; questions to one server are asked one after another.

    Args:
        token: the run's.
        routes: of each range by its number.
        patience_s: for an answer, before the copy is asked. It must be longer than a server needs for an update.
        limit_s: in which a question must be answered by somebody. Waiting for slow replicas does not count.
        local: this worker's own server and its address, which is asked without a connection.
        given_up: whether no answer is to be waited for any more, since a worker is gone.
    """

    def __init__(
        self,
        token: bytes,
        routes: Mapping[int, Route],
        patience_s: float = PATIENCE_S,
        limit_s: float = 30.0,
        local: tuple[Address, Server] | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._local, self._given_up = local, given_up
        self._token, self._patience_s, self._limit_s = token, patience_s, limit_s
        self._routes = {number: Route(route.carrier, route.copy) for number, route in routes.items()}
        self._links: dict[Address, _Link] = {}
        self._lock = threading.Lock()
        self._closed = False

    def pull(
        self,
        number: int,
        step: int = -1,
        version: int = 0,
        ids: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, int]:
        """Values of a range.

        Args:
            number: of the range.
            step: that a replica begins with them: it is waited until it may (`headway.core.clocks`); -1: at once.
            version: updates of the range that must be in them.
            ids: of the rows that are wanted, where the range is of rows; int64.
            out: where values are put; float32, contiguous, in host memory, of their size.

        Returns:
            float32, shape [elements]; and after how many updates of the range they are, to be given to the push.

        Raises:
            PeerLost: nobody answers.
            BadInput: the server refuses, and says why.
        """
        frame = Frame(Verb.PULL, number, step=step, version=version)
        content, answer = self._asked(frame, out, *(() if ids is None else (ids.contiguous(),)))
        return content, answer.version

    def push(
        self,
        number: int,
        *content: torch.Tensor,
        replica: int,
        step: int,
        version: int = 0,
        pull: bool = False,
        out: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, int]:
        """Give a gradient; it is made an update of, once, though it be sent again.

        Args:
            number: of the range.
            content: see `slab.packed` and `rows.packed`.
            replica: whose gradient.
            step: of the replica; it sends those of a range one after another.
            version: what the pull gave that it was reckoned by.
            pull: have the new values in the same round trip.
            out: as of `pull`.

        Returns:
            As `pull`; values are empty where they were not asked for.

        Raises:
            PeerLost: nobody answers; it may have been taken or not, and may be pushed again.
            BadInput: the server refuses, and says why.
        """
        verb = Verb.PUSH_PULL if pull else Verb.PUSH
        found, answer = self._asked(Frame(verb, number, replica, step, version), out, *content)
        return found, answer.version

    def offer(
        self, number: int, content: torch.Tensor, replica: int, step: int, version: int = 0, share: float = 1.0
    ) -> tuple[int, bool]:
        """Give a gradient that may be late, see `Averaged`.

        Args:
            number, content, replica, step, version: as of `push`.
            share: of the step's rows, by which the gradient is multiplied.

        Returns:
            The range's version after it, and whether it was taken.

        Raises:
            PeerLost, BadInput: as `push`.
        """
        _, answer = self._asked(Frame(Verb.PUSH, number, replica, step, version, share), None, content)
        return answer.version, not answer.flags & LATE

    def route(self, number: int) -> Route:
        """Where a range is, as far as is known here."""
        return self._routes[number]

    def close(self) -> None:
        """Who waits for an answer gets PeerLost."""
        with self._lock:
            self._closed = True
            links = list(self._links.values())
        for link in links:
            if (connection := link.connection) is not None:
                connection.close()

    def _asked(self, frame: Frame, out: torch.Tensor | None, *parts: torch.Tensor) -> tuple[torch.Tensor, Frame]:
        route = self._routes[frame.number]
        end, why, flags = time.monotonic() + self._limit_s, "", 0
        while not self._closed:
            try:
                answer, content = self._once(route.carrier, replace(frame, flags=flags), out, parts)
            except OSError as error:
                verb, why = Verb.ELSEWHERE, f"{type(error).__name__}: {error}"
            else:
                verb = answer.verb
                if verb is Verb.DONE:
                    return content.view(torch.float32), answer
                if verb is Verb.REFUSED:
                    raise BadInput(
                        f"a server refused {frame.verb.name} of range {frame.number}",
                        bytes(content.numpy()).decode(errors="replace"),
                        "The workers do not agree on how parameters are cut.",
                    )
                why = verb.name
            if verb is Verb.WAIT:
                if self._given_up():
                    break
                end = time.monotonic() + self._limit_s
                continue
            if verb is Verb.ELSEWHERE and route.copy is not None:
                route.carrier, route.copy, flags = route.copy, route.carrier, FALLBACK
            if self._given_up() or time.monotonic() > end:
                break
            time.sleep(PAUSE_S)
        raise PeerLost(f"no server of range {frame.number} answers: {why or 'closed'}")

    def _once(
        self, address: Address, frame: Frame, out: torch.Tensor | None, parts: tuple[torch.Tensor, ...]
    ) -> tuple[Frame, torch.Tensor]:
        if self._local is not None and self._local[0] == address:
            return _answered(self._local[1], frame, out, parts)
        with self._lock:
            link = self._links.setdefault(address, _Link())
        with link.lock:
            try:
                if link.connection is None:
                    link.connection = connected(address, self._token, self._patience_s)
                link.connection.send(frame, *parts)
                answer, content = link.connection.receive(out)
                own = len(content) == 0 or (out is not None and content.data_ptr() == out.data_ptr())
                return answer, content if own else content.clone()
            except BaseException:  # raised again; what was half said cannot be gone on with
                link.drop()
                raise


def _answered(
    server: Server, frame: Frame, out: torch.Tensor | None, parts: tuple[torch.Tensor, ...]
) -> tuple[Frame, torch.Tensor]:
    def room(elements: int) -> torch.Tensor:
        return out if out is not None and out.numel() == elements else new_room(elements)

    answer, found = server.answer(frame, _bytes(parts), room)
    return answer, _bytes(found)


def _bytes(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    flat = [part.detach().view(-1).view(torch.uint8) for part in parts]
    if len(flat) == 1:
        return flat[0]
    return torch.cat(flat) if flat else torch.empty(0, dtype=torch.uint8)
