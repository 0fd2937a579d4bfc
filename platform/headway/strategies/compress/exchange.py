"""The sum over replicas of one flat tensor each, in the form that the job asks for.

Three pieces, as the field splits them: a compressor (what is sent), a memory (what was left out, and is added to what
is sent next: error feedback, Karimireddy et al. 2019; with momentum, so that what waits is not older than it seems:
Lin et al. 2018, Deep Gradient Compression), and an exchange (with whom). What comes of it has the same bits
on every worker, and on any number of workers that carry the same replicas.

    exchange = Exchange(options.compression, shapes, among, kept)
    exchange.start({3: flat, 4: other}, ...)    # whatever else there is to do meanwhile
    exchange.wait(out)
    exchange.commit()                           # only now does what is kept change
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from headway.errors import BadInput
from headway.strategies import totals
from headway.strategies.compress import low_rank
from headway.strategies.compress.casts import Cast
from headway.strategies.compress.factored import Factored
from headway.strategies.compress.gathered import Gathered
from headway.strategies.compress.int8 import Int8
from headway.strategies.compress.sharded import Sharded
from headway.strategies.compress.top_k import TopK, share
from headway.strategies.compress.ways import Among, Left, Way
from headway.strategies.kept import Kept, Tree
from headway.strategies.options import Compression
from headway.strategies.totals import Replicas

CASTS = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Exchange:
    """See the module.

    Args:
        options: as in the job.
        shapes: of the tensors that lie one after another in the flat one.
        among: whom.
        kept: of the run. `own[r][name]` has what replica r is to send later: "left_out", as large as what is
            compressed, and "left_out_of_sum", of the shard of its number; and with momentum "speed", as large as the
            tensors; `common[name]` has "steps" that were
            committed, "shapes", and "right", PowerSGD's right factors. What is of other shapes is not used.
        name: of this exchange, where there are several.
        extra: elements behind the tensors, which are summed exactly.
    """

    def __init__(
        self,
        options: Compression,
        shapes: Sequence[Sequence[int]],
        among: Among,
        kept: Kept,
        name: str = "compression",
        extra: int = 0,
    ) -> None:
        self._options, self._among, self._kept, self._name = options, among, kept, name
        found = [torch.Size(shape) for shape in shapes]
        self._shapes = [list(shape) for shape in found]
        whole = [self._compresses(shape) for shape in found]
        sizes = [shape.numel() for shape in found]
        ends = list(itertools.accumulate([*sizes, extra], initial=0))
        self.elements = ends[-1]
        """Of the flat tensor."""
        spans = list(itertools.pairwise(ends))
        self._dense = _runs([span for span, c in zip(spans, [*whole, False], strict=True) if not c])
        self._compressed = _runs([span for span, c in zip(spans, [*whole, False], strict=True) if c])
        self._dense_elements, self._elements = _count(self._dense), _count(self._compressed)
        self._feedback = options.error_feedback and options.kind in ("int8", "top_k", "power_sgd")
        shaped = [shape for shape, c in zip(found, whole, strict=True) if c]
        self._way = self._made(shaped) if self._elements else None
        self._at = dict(_within(whole, sizes))
        self._before = self._left = Left()
        self._done = False
        self._tensors = ends[-2]
        """Elements of the tensors."""
        self._spans = spans[: len(sizes)]
        self._speeds: dict[int, torch.Tensor] = {}
        """Of each replica here, with the step that is under way, before what is sent of it comes to rest."""
        self._total: totals.Total | None = None
        self._whole = False

    @property
    def compressed(self) -> int:
        """Elements that are compressed."""
        return self._elements

    @property
    def summed(self) -> bool:
        """Whether the last exchange came to its end here, and what it left out is known and not kept yet."""
        return self._done

    @property
    def message_bytes(self) -> int:
        """What stands for one replica's numbers, once there is compression."""
        return 4 * self._dense_elements + (self._way.message_bytes if self._way is not None else 0)

    def start(
        self, values: Mapping[int, torch.Tensor], present: Replicas | None = None, ahead: int | None = None
    ) -> None:
        """Begin; that a worker went away is raised by `wait`. All workers start and wait in the same order, also among
        the group's other collectives.

        Args:
            values: of the replicas carried here that take part, by number: flat, float32, left as they are, and not to
                be touched until `wait`.
            present: those that take part, by rank; all when not given.
            ahead: messages that are under way at most; None: all.

        Raises:
            BadInput: values that are not float32.
        """
        among, self._done = self._among, False
        others = {str(value.dtype) for value in values.values() if value.dtype != torch.float32}
        if others:
            raise BadInput(
                f"compression={self._options.kind} of numbers of {', '.join(sorted(others))}",
                "what is left out of them is kept in float32, and whole numbers would arrive as others",
                "Give float32, or sum them as they are (headway.strategies.totals).",
            )
        present = [sorted(numbers) for numbers in (among.replicas if present is None else present)]
        self._whole = self._way is None or self._steps < self._options.start_step
        values = self._moving(values)
        dense = values if self._whole else {n: _cut(v, self._dense) for n, v in values.items()}
        size = self.elements if self._whole else self._dense_elements
        self._out = torch.empty(size, dtype=torch.float32, device=among.device)
        self._total = totals.start(among.group, dense, self._out, present, among.count, ahead)
        if not self._whole:
            assert self._way is not None
            if isinstance(self._way, Gathered):
                step, options = self._steps - self._options.start_step, self._options
                self._way.codec = TopK(share(step, options.warm_up, options.ratio))
            self._before = before = self._known()
            given = {n: self._given(_cut(v, self._compressed), before.own.get(n)) for n, v in values.items()}
            self._way.start(given, present, before, ahead)

    def wait(self, out: torch.Tensor) -> None:
        """The sum, complete.

        Args:
            out: float32, flat; none of the values. On PeerLost it may hold anything.

        Raises:
            PeerLost: a worker went away; nothing is under way any more.
        """
        assert self._total is not None
        self._total.wait()
        self._left = Left()
        if self._whole:
            out.copy_(self._out)
        else:
            assert self._way is not None
            _paste(out, self._dense, self._out)
            alone = len(self._compressed) == 1
            room = out[slice(*self._compressed[0])] if alone else out.new_empty(self._elements)
            self._left = self._way.wait(room)
            if not alone:
                _paste(out, self._compressed, room)
        self._done = True

    def commit(self, unused: Sequence[int] = ()) -> None:
        """What the last exchange left out is kept. Do it once where the sum is used, and not at all where it holds what
        is no number: it would be sent for ever.

        Args:
            unused: numbers of tensors whose sum is not used: what arrived of them is to be sent again.
        """
        if not self._done:
            return
        common, own = self.after(unused)
        self._kept.common[self._name] = common
        for number, tree in own.items():
            self._kept.own.setdefault(number, {})[self._name] = tree

    def after(self, unused: Sequence[int] = ()) -> tuple[Tree, dict[int, Tree]]:
        """What `common[name]` becomes, and `own[r][name]` of each replica here, where the last exchange's sum is used:
        for who keeps it otherwise than by `commit`, in whose place it is called. Nothing has changed."""
        assert self._done, "there is no sum"
        left, self._left, self._done = self._left, Left(), False
        for number in unused:
            if number in self._at:
                self._take_back(left, *self._at[number])
        self._before = Left()
        known = self._kept.common.get(self._name, {})
        common = {**known, "steps": self._steps + 1, "shapes": self._shapes} | (
            {"right": left.common} if left.common else {}
        )
        own: dict[int, Tree] = {}
        for key, tensors in (("left_out", left.own), ("left_out_of_sum", left.of_sum)):
            for number, tensor in tensors.items():
                if number not in own:
                    own[number] = dict(self._kept.own.get(number, {}).get(self._name, {}))
                own[number][key] = tensor
        for number, speed in self._speeds.items():
            tree = own.setdefault(number, dict(self._kept.own.get(number, {}).get(self._name, {})))
            tree["speed"] = self._rested(number, speed, unused)
        self._speeds = {}
        return common, own

    def drop(self) -> None:
        """Break it off, and the group with it, if it is under way."""
        for each in (self._total, self._way):
            if each is not None:
                each.drop()

    @property
    def _steps(self) -> int:
        return int(self._kept.common.get(self._name, {}).get("steps", 0))

    def _moving(self, values: Mapping[int, torch.Tensor]) -> Mapping[int, torch.Tensor]:
        """What replicas bring, clipped and with their momentum, where that is asked for; what lies behind the tensors
        as it is."""
        options, found, self._speeds = self._options, {}, {}
        if options.kind != "top_k" or not (options.momentum or options.local_clip):
            return values
        for number, value in values.items():
            gradient, rest = value[: self._tensors], value[self._tensors :]
            if options.local_clip is not None:  # of like replicas each has this share of their sum's length
                most = options.local_clip / math.sqrt(self._among.count)
                gradient = gradient * (most / (gradient.norm() + 1e-6)).clamp(max=1.0)
            if options.momentum:
                speed = self._speed(number)
                gradient = gradient.clone() if speed is None else torch.add(gradient, speed, alpha=options.momentum)
                self._speeds[number] = gradient
            found[number] = torch.cat([gradient, rest])
        return found

    def _speed(self, number: int) -> torch.Tensor | None:
        """That a replica's gradients have gathered, as far as it fits."""
        if self._shapes != [list(shape) for shape in self._kept.common.get(self._name, {}).get("shapes", ())]:
            return None
        speed = self._kept.own.get(number, {}).get(self._name, {}).get("speed")
        return speed.to(self._among.device) if speed is not None and len(speed) == self._tensors else None

    def _rested(self, number: int, speed: torch.Tensor, unused: Sequence[int]) -> torch.Tensor:
        """What a replica's speed becomes: none where it was sent, lest it goes on by what is old (momentum factor
        masking, Lin et al. 2018, section 3.3); what it was where nothing is used."""
        speed, before = speed.clone(), self._speed(number)
        if not self._whole and isinstance(self._way, Gathered):
            room = _cut(speed, self._compressed).clone()
            room[self._way.sent[number]] = 0.0
            _paste(speed, self._compressed, room)
        for tensor in unused:
            first, last = self._spans[tensor]
            speed[first:last] = 0.0 if before is None else before[first:last]
        return speed

    def _take_back(self, left: Left, first: int, last: int) -> None:
        """What was kept before of some compressed elements is kept still."""
        for n, tensor in left.own.items():
            before = self._before.own.get(n)
            tensor[first:last] = 0.0 if before is None else before[first:last]
        assert self._way is not None
        for n, tensor in left.of_sum.items():
            at, before = self._way.shard(n), self._before.of_sum.get(n)
            begin, end = (min(max(each - at, 0), len(tensor)) for each in (first, last))
            tensor[begin:end] = 0.0 if before is None or len(before) != len(tensor) else before[begin:end]

    def _known(self) -> Left:
        """What was kept, as far as it fits."""
        common = self._kept.common.get(self._name, {})
        if [list(shape) for shape in common.get("shapes", ())] != self._shapes:
            return Left()
        carried = self._among.replicas[self._among.rank]
        trees = {n: self._kept.own.get(n, {}).get(self._name, {}) for n in carried if self._feedback}
        own = {n: tree["left_out"] for n, tree in trees.items() if "left_out" in tree}
        of_sum = {n: tree["left_out_of_sum"] for n, tree in trees.items() if "left_out_of_sum" in tree}
        device = self._among.device
        return Left(
            {n: tensor.to(device) for n, tensor in own.items() if len(tensor) == self._elements},
            {n: tensor.to(device) for n, tensor in of_sum.items()},
            list(common.get("right", [])),
        )

    def _given(self, values: torch.Tensor, left: torch.Tensor | None) -> torch.Tensor:
        """What a replica brings; its own to be written over where that is done."""
        if left is not None:
            return values + left
        return values.clone() if self._feedback else values

    def _compresses(self, shape: torch.Size) -> bool:
        options = self._options
        match options.kind:
            case "none":
                return False
            case "fp16" | "bf16":
                return shape.numel() > 0
            case "power_sgd":
                return shape.numel() >= options.dense_below and low_rank.pays(shape, options.rank)
            case _:
                return shape.numel() >= max(options.dense_below, 1)

    def _made(self, shapes: Sequence[torch.Size]) -> Way:
        options, among, elements, feedback = self._options, self._among, self._elements, self._feedback
        match options.kind:
            case "int8":
                return Sharded(Int8(), elements, among, feedback)
            case "top_k":
                return Gathered(TopK(options.ratio), elements, among, feedback)
            case "power_sgd":
                return Factored(shapes, options.rank, among, feedback)
            case kind:
                return Sharded(Cast(CASTS[kind]), elements, among, feedback)


def compressed_total(
    exchange: Exchange, values: Mapping[int, torch.Tensor], out: torch.Tensor, present: Replicas | None = None
) -> None:
    """The sum at once; see `Exchange.start` and `wait`."""
    exchange.start(values, present, totals.AHEAD)
    exchange.wait(out)


def _runs(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans, those that touch put together."""
    found: list[tuple[int, int]] = []
    for first, last in spans:
        if first == last:
            continue
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found


def _within(whole: Sequence[bool], sizes: Sequence[int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Numbers of the tensors that are compressed, and where they lie among those alone."""
    at = 0
    for number, (compressed, size) in enumerate(zip(whole, sizes, strict=True)):
        if compressed:
            yield number, (at, at + size)
            at += size


def _count(runs: Sequence[tuple[int, int]]) -> int:
    return sum(last - first for first, last in runs)


def _cut(flat: torch.Tensor, runs: Sequence[tuple[int, int]]) -> torch.Tensor:
    """The runs, one after another; a view where there is one alone."""
    parts = [flat[first:last] for first, last in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else flat[:0]


def _paste(flat: torch.Tensor, runs: Sequence[tuple[int, int]], values: torch.Tensor) -> None:
    for (first, last), part in zip(runs, values.split([last - first for first, last in runs]), strict=True):
        flat[first:last] = part
