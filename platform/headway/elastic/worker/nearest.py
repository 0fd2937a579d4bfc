"""The nearest good copy of the newest state, for a worker that begins with nobody who has one: the keeper on its node,
another node's keeper, the store.

What the run has recorded decides. A kept state counts if it is of the start of the run that its records are of (or of
the one that this start itself went on from), and if the records of the steps before it are there, or were kept with it:
so nothing is ever missing from them. Whatever is newer than that in the records is cut, and done again.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from headway.checkpoint import flat
from headway.elastic.wire import keepers
from headway.elastic.worker.keeping import ALIGN, Keeping, taken_apart
from headway.elastic.worker.shelf import Digest

MOST_ASKED = 16
PIECE_BYTES = 1 << 22

Where = str | tuple[str, int]


@dataclass(frozen=True)
class Kept:
    """A state that a keeper held.

    Args:
        about: what is known of it: step, made (of which start), whole_from (the first step of which the journal that
            was kept with it has all records), start (of that journal).
        tree: the state.
        here: whether it was this node's keeper's.
    """

    about: dict[str, Any]
    tree: Any
    here: bool

    @property
    def step(self) -> int:
        return int(self.about["step"])

    def journal(self) -> dict[str, Any]:
        """That was kept with it. Raises ValueError where it is none."""
        found: dict[str, Any] = json.loads(self.tree["journal"].numpy().tobytes())
        return found


def as_bytes(journal: dict[str, Any]) -> torch.Tensor:
    """A journal beside a state: its entries are many, and plain."""
    return torch.frombuffer(bytearray(json.dumps(journal).encode()), dtype=torch.uint8)


def nearest(
    keeping: Keeping,
    records: dict[str, Any],
    total_steps: int,
    saved: Callable[[], int],
    say: Callable[[str], None] = lambda text: None,
) -> Kept | None:
    """The newest kept state that counts, unless the store has one that is as new.

    Args:
        keeping: knows the keepers.
        records: what the recorder answers: start, step, made, origin.
        total_steps: of the run.
        saved: gives the step of the newest checkpoint; -1 without one. Asked only where a state is found.
        say: takes a line for people.
    """
    found = [(about, where) for where, states in _asked(keeping) for about in states]
    found = [(about, where) for about, where in found if _counts(about, records, keeping.job, total_steps)]
    found.sort(key=lambda each: (-int(each[0]["step"]), isinstance(each[1], tuple)))
    if not found:
        return None
    newest = saved()
    for about, where in found:
        if int(about["step"]) < newest + (not keeping.shelf):  # a run that was paused has both, and this is nearer
            return None
        try:
            return Kept(about, _read(where, keeping, about), isinstance(where, str))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            say(f"passed over a state of step {about['step']} that a keeper held: {error}")
    return None


def _counts(about: dict[str, Any], records: dict[str, Any], job: str, total_steps: int) -> bool:
    """See the module."""
    if about["job"] != job or about["total_steps"] != total_steps or not about["made"]:
        return False
    made, until = records["origin"]
    if about["made"] != records["made"] and not (about["made"] == made and about["step"] <= until):
        return False
    return bool(min(about["step"], about["whole_from"]) <= records["step"])


def _asked(keeping: Keeping) -> list[tuple[Where, list[dict[str, Any]]]]:
    """What each keeper that is known holds, this node's first."""
    wheres: list[Where] = [keeping.path, *keeping.places()[:MOST_ASKED]]

    def ask(where: Where) -> list[dict[str, Any]]:
        try:
            with contextlib.closing(keepers.call(where, keeping.config["token"], run=keeping.shelf)) as words:
                keepers.send(words.connection, {"op": "list"})
                return list(words.next()["states"])
        except (OSError, EOFError, ValueError, KeyError):
            return []  # it is gone, or not this run's

    with ThreadPoolExecutor(len(wheres), "nearest") as threads:
        return list(zip(wheres, threads.map(ask, wheres), strict=True))


def _read(where: Where, keeping: Keeping, about: dict[str, Any]) -> Any:
    """The tree of a state.

    Raises:
        OSError, EOFError, ValueError: it is not there any more, or damaged.
    """
    with contextlib.closing(keepers.call(where, keeping.config["token"], run=keeping.shelf)) as words:
        words.connection.settimeout(keepers.READ_S)
        keepers.send(words.connection, {"op": "read", "number": about["number"]})
        answer = words.next()
        if not answer["ok"]:
            raise ValueError("it is damaged, or was let go")
        if isinstance(where, str):
            return _mapped(words, about)
        return _received(words, answer["about"])


def _mapped(words: keepers.Words, about: dict[str, Any]) -> Any:
    """From the keeper's memory, which it has just looked at, and which nobody writes to meanwhile."""
    file = words.files.pop()
    try:
        memory = mmap.mmap(file, os.fstat(file).st_size)
    finally:
        os.close(file)
    return taken_apart(memory, about)


def _received(words: keepers.Words, about: dict[str, Any]) -> Any:
    """Over the network, straight into the tensors' memory."""
    found = Digest()

    def fill(memory: memoryview) -> None:
        for first in range(0, len(memory), PIECE_BYTES):
            piece = memory[first : first + PIECE_BYTES]
            words.fill(piece)
            found.add(piece)

    def gap(size: int) -> None:
        fill(memoryview(bytearray(-size % ALIGN)))

    skeleton = bytearray(about["skeleton"])
    fill(memoryview(skeleton))
    gap(len(skeleton))
    tree, spans = flat.rooms(bytes(skeleton))
    for span in spans:
        _fill_span(span, fill)
        gap(len(span))
    if about.get("digest") not in (None, found.told()):
        raise ValueError("it was damaged on its way")
    return tree


def _fill_span(span: torch.Tensor, fill: Callable[[memoryview], None]) -> None:
    if len(span):
        fill(span.numpy().data)
