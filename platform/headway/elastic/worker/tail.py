"""What rides on the gradient reduction beside the gradients: a float32 vector, most entries filled by one worker."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from headway.core.digest import WORDS, of_ids
from headway.core.lanes_together import Mismatch, Reason
from headway.core.order import Rows

Words = np.ndarray[tuple[int, int], np.dtype[np.uint16]]
Numbers = np.ndarray[tuple[int], np.dtype[np.float32]]
LARGEST = 2**24
"""Whole numbers below it cross a float32 sum unharmed."""


REASONS = list(Reason)
FLAGS = 8 + 2 + len(REASONS) + 1
PARTS = 3
"""Floats of a lane's record: that there is one, its value in float32, and what is left of it."""


class Tail:
    """Layout: stop request, news of a generation, of buffers and of more to say, a halt, an end by a loop's own
    account, an evaluation in a step's place, a checkpoint after it, a step that is to be done again, that lanes went
    together, why they are to be kept apart and by how much they differed; the lanes' losses and rows, the digests of
    their sample ids, the replicas' and the lineages that they are of; what workers recorded; the lanes' records.

    Every entry but these flags is written by exactly one worker and zero elsewhere, so sums are exact.

    Args:
        lanes: number of lanes.
        seats: most workers that may compare digests, as far as is known; see `know`.
    """

    def __init__(self, lanes: int, seats: int) -> None:
        self._lanes, self._planned = lanes, seats
        self._losses = slice(FLAGS, FLAGS + lanes)
        self._rows = _after(self._losses, lanes)
        self._ids = _after(self._rows, lanes * WORDS)
        self._waiting: dict[int, torch.Tensor] = {}
        self._names: list[str] = []
        self.unnamed: dict[tuple[str, int], torch.Tensor | float] = {}
        """Records of names that not all workers know, by name and lane."""
        self.measured: dict[int, dict[str, Any]] = {}
        """Copies of metrics that are no means, updated in this worker's lanes: by lane and name."""
        self._recorded: dict[tuple[int, int], torch.Tensor | float] = {}
        self.know([], seats)

    def fits(self, names: list[str], workers: int) -> bool:
        """Whether it is laid out for the records of these names and so many workers."""
        return self._names == names and self._seats == max(self._planned, workers)

    def know(self, names: list[str], workers: int) -> None:
        """Have room for the records of these names and the digests of so many workers, which may be more than were
        planned; the same on all workers. Clears."""
        self._names, self._seats = list(names), max(self._planned, workers)
        self._replicas = _after(self._ids, self._seats * WORDS)
        self._lineages = _after(self._replicas, self._seats)
        self._said = _after(self._lineages, self._seats * (1 + WORDS))
        self._records = _after(self._said, len(names) * self._lanes * PARTS)
        self.size = self._records.stop
        self._values: Numbers = np.zeros(self.size, dtype=np.float32)  # an entry of an array is set without a dispatch
        self.take(self.values)
        self.clear()

    @property
    def names(self) -> list[str]:
        """That there is room for."""
        return self._names

    def clear(self) -> None:
        self._values.fill(0.0)
        self._waiting, self._recorded, self.unnamed, self.measured = {}, {}, {}, {}

    @property
    def values(self) -> torch.Tensor:
        """To be summed over workers; on the CPU, shape [size]."""
        if self._waiting:
            lanes = [self._losses.start + lane for lane in self._waiting]
            self._values[lanes] = torch.stack(list(self._waiting.values())).cpu().numpy()
            self._waiting = {}
        if self._recorded:
            for (lane, number), value in zip(self._recorded, floats(self._recorded.values()), strict=True):
                at = self._records.start + (number * self._lanes + lane) * PARTS
                self._values[at : at + PARTS] = _apart(value)
            self._recorded = {}
        return torch.from_numpy(self._values)

    def ids(self, lane: int, ids: Rows) -> None:
        """The samples that a lane took."""
        self._values[self._rows.start + lane] = len(ids)
        at = self._ids.start + lane * WORDS
        self._values[at : at + WORDS] = of_ids(ids)

    def loss(self, lane: int, loss: torch.Tensor) -> None:
        """A scalar, which stays where it is until the exchange: to read it now would wait for the device. Those of
        several parts of a lane's batch add up."""
        self._waiting[lane] = self._waiting[lane] + loss if lane in self._waiting else loss

    def lane_loss(self, lane: int) -> torch.Tensor:
        """What a lane's loss is so far; it stays where it is."""
        return self._waiting[lane]

    def record(self, lane: int, name: str, value: torch.Tensor | float) -> None:
        """A number of the user's own, the mean over the lane's rows; a tensor stays where it is, as a loss does.

        Raises:
            ValueError: the lane has one of that name.
        """
        place = (lane, self._names.index(name)) if name in self._names else None
        if place in self._recorded or (name, lane) in self.unnamed:
            raise ValueError(f"lane {lane} has a record {name!r}")
        if place is not None:
            self._recorded[place] = value
        else:
            self.unnamed[name, lane] = value

    def said(self, rank: int, words: np.ndarray[Any, np.dtype[np.uint16]] | None) -> None:
        """The digest of what this worker recorded outside of lanes; None: it was not there for all of it."""
        if words is not None:
            at = self._said.start + rank * (1 + WORDS)
            self._values[at] = 1.0
            self._values[at + 1 : at + 1 + WORDS] = words

    def replica(self, rank: int, lineage: int, words: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> None:
        """This worker's digest of its replica, shape [WORDS], and what that comes from."""
        at = self._replicas.start + rank * WORDS
        self._values[at : at + WORDS] = words
        self._values[self._lineages.start + rank] = lineage

    def flags(
        self,
        stop: bool,
        news: bool,
        late: bool = False,
        halt: bool = False,
        own: bool = False,
        evaluates: bool = False,
        save: bool = False,
    ) -> None:
        """Whether this worker knows that the run shall stop, or that another generation was published; whether it has
        buffers that not all have agreed on; whether its loop ended before this step, or asks for the end after it;
        whether it is at an evaluation; whether a checkpoint is to be taken after this step."""
        flags = (stop, news, late, bool(self.unnamed or self.measured), halt, own, evaluates, save)
        self._values[: len(flags)] = flags

    def lanes(self, together: bool, spoilt: bool, apart: Mismatch | None) -> None:
        """Whether lanes of this worker went together; whether what it sums is to be thrown away; why lanes are to be
        kept apart, as far as it knows."""
        self._values[8:10] = spoilt, together
        if apart is not None:
            self._values[10 + REASONS.index(apart.reason)] = 1.0
            self._values[FLAGS - 1] = apart.amount

    def take(self, summed: torch.Tensor) -> None:
        """Take what came back from the reduction; on the CPU."""
        self._sum: Numbers = summed.numpy()
        self._flags: list[float] = self._sum[:FLAGS].tolist()

    def stopping(self) -> bool:
        return self._flags[0] > 0

    def news(self) -> bool:
        return self._flags[1] > 0

    def late(self) -> bool:
        """Whether anybody has buffers that not all have agreed on."""
        return self._flags[2] > 0

    def more(self) -> bool:
        """Whether anybody has more to say than rides here: records of names that not all know, states of metrics."""
        return self._flags[3] > 0

    def halting(self) -> bool:
        """Whether anybody's loop ended before this step."""
        return self._flags[4] > 0

    def own_end(self) -> bool:
        """Whether anybody's loop asks for the end of the run."""
        return self._flags[5] > 0

    def evaluating(self) -> int:
        """How many are at an evaluation."""
        return int(self._flags[6])

    def saving(self) -> bool:
        """Whether a checkpoint is to be taken after this step."""
        return self._flags[7] > 0

    def spoilt(self) -> bool:
        """Whether the step is to be done again, whatever came of it."""
        return self._flags[8] > 0

    def together(self) -> bool:
        """Whether anybody's lanes went together."""
        return self._flags[9] > 0

    def apart(self) -> Mismatch | None:
        """Why lanes are to be kept apart, if anybody says so: the first reason, and by how much on average."""
        said = self._flags[10 : FLAGS - 1]
        if not any(said):
            return None
        reason = next(reason for reason, count in zip(REASONS, said, strict=True) if count)
        return Mismatch(reason, self._flags[FLAGS - 1] / sum(said))

    def said_alike(self, size: int) -> bool:
        """Whether all of the first `size` workers that were there recorded the same outside of lanes."""
        found = self._sum[self._said].reshape(-1, 1 + WORDS)[:size]
        return len({tuple(row) for row in found[found[:, 0] > 0].tolist()}) < 2

    def records(self, more: Iterable[tuple[str, int, float]] = ()) -> dict[str, float]:
        """Means over the rows of the lanes that recorded a name; more: (name, lane, value) that came another way."""
        rows = self._sum[self._rows].tolist()
        found: dict[str, dict[int, float]] = {}
        if self._names:
            parts = self._sum[self._records].astype(np.float64).reshape(len(self._names), self._lanes, PARTS).tolist()
            for name, lanes in zip(self._names, parts, strict=True):
                found[name] = {lane: high + low for lane, (there, high, low) in enumerate(lanes) if there}
        for name, lane, value in more:
            _, high, low = _apart(value).tolist()  # the same bits, whichever way it came
            found.setdefault(name, {})[lane] = high + low
        means = {}
        for name, by_lane in found.items():
            weight = sum(rows[lane] for lane in by_lane)
            if weight:
                means[name] = sum(by_lane[lane] * rows[lane] for lane in sorted(by_lane)) / weight
        return means

    def losses(self) -> list[float]:
        """Each lane's share of the loss; their sum is the loss of the step."""
        values: list[float] = self._sum[self._losses].tolist()
        return values

    def rows(self) -> int:
        """Rows that all lanes together took."""
        return int(self._sum[self._rows].sum(dtype=np.float64))

    def rows_by_lane(self) -> list[int]:
        """That each lane took."""
        return [int(rows) for rows in self._sum[self._rows].tolist()]

    def digests(self) -> Words:
        """Of the lanes' sample ids; shape [lanes, WORDS]."""
        return self._words(self._ids)

    def replicas(self, size: int) -> list[tuple[int, bytes]]:
        """Lineage and digest of the first `size` workers."""
        words = self._words(self._replicas)
        lineages = self._sum[self._lineages].tolist()
        return [(int(lineages[rank]), words[rank].tobytes()) for rank in range(size)]

    def _words(self, where: slice) -> Words:
        return self._sum[where].astype(np.uint16).reshape(-1, WORDS)


def _after(before: slice, size: int) -> slice:
    return slice(before.stop, before.stop + size)


def floats(values: Iterable[torch.Tensor | float]) -> list[float]:
    """Numbers of both kinds as Python's, with one wait for a device at most."""
    every = list(values)
    tensors = [value for value in every if isinstance(value, torch.Tensor)]
    if not tensors:
        return [float(value) for value in every]
    device = tensors[0].device if len({t.device for t in tensors}) == 1 else torch.device("cpu")
    read = iter(torch.stack([t.detach().reshape(()).to(device, torch.float64) for t in tensors]).tolist())
    return [next(read) if isinstance(value, torch.Tensor) else float(value) for value in every]


def _apart(value: float) -> Numbers:
    """A record as float32: 48 of its 53 bits cross."""
    with np.errstate(over="ignore"):  # what is too large is infinite
        high = float(np.float32(value))
    return np.array([1.0, high, value - high if math.isfinite(high) else 0.0], dtype=np.float32)
