"""A worker's hold on its node's keeper: when the state is kept, and the copy into the shared memory.

The training thread only copies, between two steps; the keeper is started, and memory is asked for, in a thread. Where
anything fails, training goes on, and the state is as far away as the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from headway.checkpoint import flat
from headway.core.upkeep import Upkeep
from headway.elastic.wire import keepers
from headway.elastic.worker import keeper
from headway.elastic.worker.shelf import HEAD, HEAD_BYTES, SLOTS
from headway.errors import BadInput

AGAIN_S = 5.0
"""Between two attempts to reach a keeper."""
READY_S = 1.0
"""So long a worker that leaves waits for its keeper."""
SPARE = 1.1
"""Room is asked for with so much to spare: journals grow."""
ALIGN = flat.ALIGN

Places = tuple[tuple[str, int], ...]


class Keeping:
    """See the module.

    Args:
        config: see `keeper.begin`.
        every: steps between two; "auto": as the cost allows.
        job: digest of what decides the run's result.
        key: of the run's leader, for names of its starts.
        say: takes a line for people; called in the thread.
        tell: takes the address at which others reach the keeper; called in the thread. Raises OSError.
        places: of the keepers that the lead knows.
    """

    def __init__(
        self,
        config: dict[str, Any],
        every: int | str,
        job: str,
        key: str,
        say: Callable[[str], None],
        tell: Callable[[str, int], None],
        places: Callable[[], Places] = tuple,
    ) -> None:
        self.config, self.job = config, job
        self._key, self._say, self._tell, self.places = key, say, tell, places
        self.upkeep = Upkeep(every if isinstance(every, int) else None)
        self._hold: _Hold | None = None
        """There when it can be written to."""
        self._open: _Hold | None = None
        self._asked = False
        self._again_at = 0.0
        self._off = self._said = ""
        self._nodes = 1
        self._copies: Places = ()
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self.kept, self.spent_s = 0, 0.0
        """States so far, and what they cost the training thread."""

    @property
    def shelf(self) -> str:
        """The run's name where a keeper serves several; else empty."""
        return str(self.config.get("shelf", ""))

    @property
    def path(self) -> str:
        """Of the node's keeper's socket, whether one is there or not."""
        return keeper.socket_path(self.config)

    def made(self, generation: int) -> str:
        """A name for what a start of the run does: the same on all its workers, another in each start and driver."""
        return keepers.mac(self._key, f"start {generation}")[:16]

    def open(self) -> None:
        """Have a keeper, as soon as may be. Returns at once."""
        self._ask(self._connect)

    def carried(self, nodes: int) -> None:
        """So many nodes carry workers now. The state is copied to another's keeper only where it is one."""
        self._nodes = nodes

    def restart(self) -> None:
        """The run begins anew, from whatever state."""
        self.upkeep.restart()

    def due(self, step: int, at: float) -> bool:
        """Whether to keep the state after so many steps; called once after each. at: seconds on any one clock."""
        self.upkeep.stepped(at)
        if self._off or not self.upkeep.due(step):
            return False
        if self._hold is None:
            if not self._asked and at >= self._again_at:
                self._again_at = at + AGAIN_S
                self._ask(self._connect)
            return False
        return True

    def ready(self) -> bool:
        """Whether a state can be kept now; waits for what is under way in the thread, but not for long."""
        if self._hold is None and not self._off:
            idle = threading.Event()
            self._ask(idle.set)
            idle.wait(READY_S)
        return self._hold is not None

    def keep(self, step: int, tree: Callable[[], Any], about: dict[str, Any]) -> bool:
        """Copy the state; returns whether it is kept.

        Args:
            step: committed.
            tree: gives tensors and plain values, not copied.
            about: what `nearest` is told of it.
        """
        hold = self._hold
        if hold is None or hold.read:
            return False
        begun = time.monotonic()
        try:
            layout = flat.layout(tree())
            size = _size(layout)
            if not hold.fits(size):
                self._hold = None
                self._ask(lambda: self._make_room(hold, size))
                done = False
            else:
                done = hold.write(layout, size, {**about, "step": step, "job": self.job})
        except OSError:  # the keeper is gone, or does not get on
            self._hold, done = None, False
            self._ask(self._connect)
        except Exception as error:  # of the user's own state, say: the first checkpoint finds it, and ends the run
            told = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
            self._give_up(f"the state cannot be kept in memory: {told}")
            return False
        cost = time.monotonic() - begun
        self.spent_s += cost
        if done:
            self.kept += 1
            self.upkeep.kept(step, cost)
            self._direct(hold)
        else:
            self.upkeep.tried(cost)
        return done

    def account(self) -> tuple[int, float, int, float, float]:
        """States kept; what they cost the training thread in seconds; at last: steps between two, a state's cost, and a
        step's time."""
        upkeep = self.upkeep
        return self.kept, self.spent_s, upkeep.every, upkeep.cost_s, upkeep.step_s

    def close(self, end: bool = False) -> None:
        """Say no more. end: the run is over, and no keeper of it is needed any more."""
        self._off = self._off or "closed"
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join(timeout=2 * keeper.START_S)
        if self._open is not None:
            self._open.close()
        if end:
            keepers.end_all((self.path, *self.places()), self.config["token"], self.shelf)

    # In the thread

    def _ask(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)
            self._thread.start()
        self._asked = True
        self._tasks.put(task)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                self._note(f"the newest state is not kept in memory for now: {error}")
            self._asked = False

    def _connect(self) -> None:
        self._hold = None
        if self._open is not None:
            self._open.close()
            self._open = None
        if self._off:
            return
        hold = _Hold(keeper.begin(self.config), self.config["token"], self.shelf)
        self._open = hold
        if hold.port:
            with contextlib.suppress(OSError):  # whoever leads is gone, and so will this worker be
                self._tell(self.config["host"], hold.port)
        if hold.mine:
            self._copies = ()
            self._hold = hold

    def _make_room(self, hold: _Hold, size: int) -> None:
        try:
            hold.make_room(int(size * SPARE) + (1 << 16))
        except _NotNow:
            return
        except keepers.Refused as error:
            self._give_up(f"the newest state is not kept in memory on this node: {error}")
            return
        self._hold = hold

    def _direct(self, hold: _Hold) -> None:
        """Have the state copied elsewhere, where no other node carries a worker."""
        wanted: Places = ()
        if self._nodes < 2:
            own = (self.config["host"], hold.port)
            wanted = tuple(place for place in self.places() if place != own)
        if wanted != self._copies:
            try:
                hold.copies(wanted)
                self._copies = wanted
            except OSError:  # as in `keep`
                self._hold = None
                self._ask(self._connect)

    def _give_up(self, reason: str) -> None:
        self._off, self._hold = reason, None
        self._note(reason)

    def _note(self, reason: str) -> None:
        if reason != self._said:
            self._said = reason
            self._say(f"{reason}; training goes on, and a worker that is lost falls back to the newest checkpoint")


class _NotNow(OSError):
    """Another worker of this node writes to its keeper, which is as good; or somebody reads what is in the slot."""


class _Hold:
    """A connection to the keeper as its writer, and the memory of its slots. Raises OSError, EOFError, ValueError."""

    def __init__(self, path: str, token: str, run: str) -> None:
        self._words = keepers.call(path, token, run=run)
        self._connection = self._words.connection
        self._writes = False
        self._claim()
        self._memory: list[mmap.mmap | None] = [None] * SLOTS
        self._views: list[torch.Tensor] = [torch.empty(0, dtype=torch.uint8)] * SLOTS

    def _claim(self) -> None:
        """Be the one that writes, if it is time to, or see whether nobody does: until then another worker of the node
        may, and states may be brought from elsewhere, and have numbers."""
        keepers.send(self._connection, {"op": "write", "now": self._writes})
        answer = self._words.next()
        self.mine, self.port = bool(answer["ok"]), int(answer["port"])
        self._number, self._newest = int(answer["newest"]), int(answer["slot"])

    @property
    def _free(self) -> int:
        return 1 - self._newest

    @property
    def read(self) -> bool:
        """Whether somebody reads what is in the slot that is free."""
        memory = self._memory[self._free]
        return memory is not None and HEAD.unpack_from(memory)[1] > 0

    def fits(self, size: int) -> bool:
        return len(self._views[self._free]) >= HEAD_BYTES + size

    def make_room(self, size: int) -> None:
        """In the slot that is free, and, as long as nothing is in it that would be lost, in the other.

        Raises:
            Refused: the machine has too little memory.
            _NotNow: see there.
        """
        if not self._writes:
            self._writes = True
            self._claim()
            if not self.mine:
                raise _NotNow
        for place in dict.fromkeys((self._free, self._newest if self._memory[self._newest] is None else self._free)):
            if place == self._newest and self._number:
                continue  # it holds the newest state: its turn comes when the other is sealed
            keepers.send(self._connection, {"op": "room", "slot": place, "bytes": size})
            answer = keepers.patiently(self._words)
            if not answer["ok"]:
                raise _NotNow if answer["later"] else keepers.Refused(str(answer["reason"]))
            file = self._words.files.pop()
            try:
                memory = mmap.mmap(file, os.fstat(file).st_size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
            finally:
                os.close(file)
            self._memory[place], self._views[place] = memory, torch.frombuffer(memory, dtype=torch.uint8)

    def write(self, layout: flat.Layout, size: int, about: dict[str, Any]) -> bool:
        """Into the free slot, and seal it; False where somebody reads it at this moment."""
        place = self._free
        memory, view = self._memory[place], self._views[place]
        assert memory is not None
        before, _ = HEAD.unpack_from(memory)
        memory[:8] = bytes(8)
        if HEAD.unpack_from(memory)[1]:
            memory[:8] = before.to_bytes(8, "little")
            return False
        at = HEAD_BYTES
        for span in (torch.frombuffer(bytearray(layout.skeleton), dtype=torch.uint8), *layout.spans):
            view[at : at + len(span)].copy_(span)
            at += -(-len(span) // ALIGN) * ALIGN
        number = self._number + 1
        memory[:8] = number.to_bytes(8, "little")
        told = {**about, "number": number, "bytes": size, "skeleton": len(layout.skeleton)}
        word = {"op": "seal", "slot": place, "about": told}
        keepers.offer(self._connection, word)
        self._number, self._newest = number, place
        return True

    def copies(self, places: Places) -> None:
        keepers.offer(self._connection, {"op": "copies", "to": places})

    def close(self) -> None:
        self._words.close()


def _size(layout: flat.Layout) -> int:
    """Bytes behind the head."""
    return sum(-(-len(span) // ALIGN) * ALIGN for span in (layout.skeleton, *layout.spans))


def taken_apart(memory: Any, about: dict[str, Any]) -> Any:
    """The tree that a slot's memory holds, in memory of its own. Raises ValueError where it is none."""
    view = torch.frombuffer(memory, dtype=torch.uint8)
    at = HEAD_BYTES + -(-about["skeleton"] // ALIGN) * ALIGN
    tree, spans = flat.rooms(view[HEAD_BYTES : HEAD_BYTES + about["skeleton"]].numpy().tobytes())
    for span in spans:
        span.copy_(view[at : at + len(span)])
        at += -(-len(span) // ALIGN) * ALIGN
    return tree
