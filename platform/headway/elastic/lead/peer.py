"""What the coordinator knows of a worker's process, and how it is judged by it."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.watch import PULSE_S, At, Sign
from headway.elastic.lead.server import Line
from headway.elastic.wire import link
from headway.elastic.wire.messages import Beat, Hello
from headway.elastic.wire.pulse import Pulse

_AT = tuple(At)
PULSED = 10
"""So many pulses may be missed before a heart counts as one that is not heard."""


@dataclass
class Peer:
    """A worker that has a place. Times named `_at` are on the coordinator's awake clock (`core.watch.Clock`)."""

    node: str = ""
    address: tuple[str, int] | None = None
    """Of its node's raylet."""
    line: Line | None = None
    hello: Hello | None = None
    spawned: bool = False
    died_with_node: bool = False
    raised: bool = False
    """It has said that it ends by an error."""
    heard_at: float = 0.0
    felt_at: float = -1.0
    """When its heart was; before 0 if never."""
    understood_at: float = 0.0
    """When the newest word was sent that it is known to have heard."""
    moved_at: float = 0.0
    deadline: float | None = None
    """Of the shortest notice for its node, on the clock of `time.monotonic`."""
    at: At = At.STARTING
    mark: int = -1
    waiting: bool = False
    stopped: bool = False
    step: int = -1
    lane_s: float = 0.0
    told: int = 0
    """The newest generation that was said on its line; 0: none."""
    exchanged: int = 0
    """Bytes to and from other workers."""
    _beat: int = -1
    _pulse: int = -1

    def place(self, node: str, address: tuple[str, int] | None, at: float) -> None:
        """It has a place now, and everything begins."""
        self.node, self.address = node, address
        self.heard_at = self.understood_at = self.moved_at = at

    def join(self, hello: Hello, line: Line, at: float) -> None:
        """Its process has connected."""
        self.hello, self.line, self.told = hello, line, 0
        self.heard_at = self.understood_at = self.moved_at = at

    def take(self, beat: Beat, at: float, period_s: float = PULSE_S) -> None:
        """A beat. Raises ValueError if it is an old one, or says what there is not. period_s: between two pulses."""
        if beat.number <= self._beat or beat.at >= len(_AT):
            raise ValueError("an old beat")
        self._beat = beat.number
        self.lane_s, self.exchanged = beat.lane_s, max(self.exchanged, beat.exchanged)
        # Its heart may have been lost since it said so, and only one that runs sends beats.
        self.stopped = self.stopped and at - self.felt_at < PULSED * period_s
        self._hear(_AT[beat.at], beat.mark, beat.waiting, beat.step, beat.heard, at)

    def feel(self, pulse: Pulse, at: float) -> None:
        """A pulse. Raises ValueError if it is an old one, or says what there is not."""
        if pulse.number <= self._pulse or pulse.at >= len(_AT):
            raise ValueError("an old pulse")
        self._pulse = pulse.number
        self.stopped, self.felt_at = pulse.stopped, at
        self._hear(_AT[pulse.at], pulse.mark, pulse.waiting, pulse.step, pulse.heard, at)

    def hears(self, at: float, period_s: float) -> bool:
        """Whether its heart is felt, and hears the answers."""
        newest_s = 2 * period_s
        return at - self.felt_at < newest_s and at - self.understood_at < newest_s

    def _hear(self, doing: At, mark: int, waiting: bool, step: int, heard: float, at: float) -> None:
        self.heard_at = at
        self.understood_at = max(self.understood_at, min(heard, at))
        if mark > self.mark or doing != self.at:
            self.moved_at = at
        # A beat that was long under way must not take back what a pulse has said since.
        if mark >= self.mark:
            self.mark, self.at, self.waiting, self.step = mark, doing, waiting, max(step, self.step)

    def sign(
        self, at: float, silence_s: float, member: bool, standing: bool = False, period_s: float = PULSE_S
    ) -> Sign:
        """For the watch; member, standing as there; period_s: between two pulses. The line must be there."""
        assert self.line is not None
        silent_s, deaf_s = at - self.heard_at, at - self.understood_at
        answers = max(silent_s, deaf_s) < silence_s / 2 or link.answers(self.line.socket, silence_s / 2)
        return Sign(
            at=self.at,
            silent_s=silent_s,
            deaf_s=deaf_s,
            answers=answers,
            still_s=at - self.moved_at,
            stopped=self.stopped,
            waiting=self.waiting,
            member=member,
            node=self.node,
            pulsed=0 <= self.heard_at - self.felt_at < PULSED * period_s,
            standing=standing,
        )
