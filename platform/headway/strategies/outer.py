"""What replicas do when they meet: local SGD, DiLoCo and gossip, over flat vectors of weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from headway.core import graphs
from headway.strategies.compress.exchange import Exchange
from headway.strategies.compress.ways import Among
from headway.strategies.kept import Kept, Tree
from headway.strategies.totals import start, total

if TYPE_CHECKING:
    from headway.strategies.group import Group
    from headway.strategies.options import Compression
    from headway.strategies.options import Outer as OuterOptions
    from headway.strategies.options import Strategy as Options
    from headway.strategies.totals import Total


@dataclass(frozen=True)
class Round:
    """What a worker brings.

    Args:
        number: of the round, from 0.
        last: the run ends with it.
        start: the common weights at its beginning; shape [elements].
        ends: those of the replicas carried here at its end, by number; likewise.
        now: where these replicas are by now, where their ends were taken earlier; likewise.
        shapes: of the tensors that lie in it, one after another.
        shares: of the round's rows that each replica had, of all replicas; they add up to 1.
        replicas: carried, by rank.
        group: of the workers; None for one alone.
    """

    number: int
    last: bool
    start: torch.Tensor
    ends: Mapping[int, torch.Tensor]
    now: Mapping[int, torch.Tensor]
    shapes: Sequence[torch.Size]
    shares: Mapping[int, float]
    replicas: tuple[tuple[int, ...], ...]
    group: Group | None

    def mean(self, values: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Of one vector of each replica, weighted by rows; the same bits on any number of workers. Raises PeerLost."""
        if len(self.shares) == 1:
            return values[0].clone()
        out = torch.empty_like(next(iter(values.values())))
        total(self.group, {r: v * self.shares[r] for r, v in values.items()}, out, self.replicas, len(self.shares))
        return out


@dataclass(frozen=True)
class Met:
    """What comes of it; nothing has changed yet.

    Args:
        common: the new common weights; None: they stay.
        own: of each replica carried here, where they differ from these.
        kept: what `Kept.common` becomes.
        memories: what the strategy keeps of each replica carried here.
        figures: for the records, by name.
    """

    common: torch.Tensor | None
    own: dict[int, torch.Tensor] = field(default_factory=dict)
    kept: Tree = field(default_factory=dict)
    memories: dict[int, Tree] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


class Meeting(Protocol):
    """A way of meeting."""

    averages_state: bool
    """Whether the inner optimisers' state is averaged as well, so that replicas are alike when a round begins."""

    def meet(self, given: Round, kept: Kept) -> Met:
        """All workers call it. Raises PeerLost: nothing has changed."""


class Change:
    """What the round changed on average, under way: the weights before less those after it, sent in a smaller form
    where that is asked for. All workers make, and wait for, the same ones in the same order.

    Args:
        given: what this worker brings.
        kept: what was left out so far; it is left as it is.
        compression: as in the job.
        tensors: of these alone, from the first up to, not including, the last.
    """

    def __init__(
        self, given: Round, kept: Kept, compression: Compression, tensors: tuple[int, int] | None = None
    ) -> None:
        first, last = tensors or (0, len(given.shapes))
        before, size = (sum(shape.numel() for shape in given.shapes[a:b]) for a, b in ((0, first), (first, last)))
        self.part = slice(before, before + size)
        """Of the flat weights."""
        self.after = Kept(
            {name: dict(tree) if isinstance(tree, dict) else tree for name, tree in kept.common.items()},
            {r: {name: dict(tree) for name, tree in kept.own.get(r, {}).items()} for r in given.ends},
        )
        """What `kept` becomes, after `wait`."""
        mine = {r: (given.start[self.part] - end[self.part]) * given.shares[r] for r, end in given.ends.items()}
        self._exchange: Exchange | None = None
        self._total: Total | None = None
        self._dtype, self._out = given.start.dtype, next(iter(mine.values()))
        if compression.kind != "none":
            among = Among(given.group, given.replicas, len(given.shares), given.start.device)
            name = "outer" if tensors is None else f"outer{first}"
            self._exchange = Exchange(compression, given.shapes[first:last], among, self.after, name)
            self._out = torch.empty(size, dtype=torch.float32, device=given.start.device)
            self._exchange.start({r: each.float() for r, each in mine.items()})
        elif len(given.shares) > 1:
            self._out = torch.empty_like(self._out)
            self._total = start(given.group, mine, self._out, given.replicas, len(given.shares))

    def wait(self) -> torch.Tensor:
        """The mean. Raises PeerLost."""
        if self._total is not None:
            self._total.wait()
        if self._exchange is not None:
            self._exchange.wait(self._out)
            if bool(torch.isfinite(self._out).all()):  # what is no number would be sent for ever
                self._exchange.commit()
        return self._out.to(self._dtype)

    def drop(self) -> None:
        """It is not waited for: break it off, and the group with it."""
        for each in (self._total, self._exchange):
            if each is not None:
                each.drop()


class LocalSGD:
    """Weights are averaged (Stich 2019, Local SGD Converges Fast and Communicates Little), with the inner optimisers'
    state (Yu et al. 2019) where `average` is all."""

    def __init__(self, options: Options) -> None:
        self.averages_state, self._compression = options.average == "all", options.compression

    def meet(self, given: Round, kept: Kept) -> Met:
        if self._compression.kind == "none":
            return Met(given.mean(given.ends))
        change = Change(given, kept, self._compression)
        return Met(given.start - change.wait(), kept=change.after.common, memories=change.after.own)


class DiLoCo:
    """What a round changed on average is taken for a gradient by an outer optimiser (Douillard et al. 2023, DiLoCo:
    Distributed Low-Communication Training of Language Models, algorithm 1). Where the model is in fragments, one of
    them is exchanged at a time, in turn (Douillard et al. 2025, Streaming DiLoCo, section 2.2): its peak is that of a
    part."""

    averages_state = False

    def __init__(self, options: Options) -> None:
        self._outer, self._compression, self._fragments = options.outer, options.compression, options.fragments
        self._mixing = options.mixing if options.overlap else 0.0

    def begin(self, given: Round, kept: Kept) -> list[Change]:
        """Have the exchange under way, which `meet` waits for; of one fragment, but for the last."""
        parts = fragments([shape.numel() for shape in given.shapes], self._fragments)
        if len(parts) == 1:
            return [Change(given, kept, self._compression)]
        due = parts if given.last else [parts[given.number % len(parts)]]
        return [Change(given, kept, self._compression, each) for each in due]

    def meet(self, given: Round, kept: Kept, changes: list[Change] | None = None) -> Met:
        begun, changes = changes is not None, changes or self.begin(given, kept)
        if begun and given.last:  # the loop asked for the end since then: the other fragments as well
            there = {change.part.start for change in changes}
            parts = fragments([shape.numel() for shape in given.shapes], self._fragments)
            starts = [sum(shape.numel() for shape in given.shapes[:first]) for first, _ in parts]
            due = [part for part, start in zip(parts, starts, strict=True) if start not in there]
            changes = [*changes, *(Change(given, kept, self._compression, part) for part in due)]
        weights, momentum = given.start.clone(), kept.common.get("momentum")
        momentum = momentum.clone() if momentum is not None else torch.zeros_like(weights)
        own = {r: end.clone() for r, end in given.now.items()} if self._differ(given) else {}
        common, memories = dict(kept.common), {r: dict(kept.own.get(r, {})) for r in given.ends}
        for change in changes:
            part, gradient = change.part, change.wait()
            weights[part], momentum[part] = stepped(weights[part], gradient, momentum[part], self._outer)
            for mine in own.values():  # whatever was done meanwhile is mixed in (Streaming DiLoCo, section 2.3)
                mixing = 0.0 if given.last else self._mixing
                mine[part] = weights[part] if not mixing else torch.lerp(weights[part], mine[part], mixing)
            common |= {name: tree for name, tree in change.after.common.items() if name != "momentum"}
            for r, tree in change.after.own.items():
                memories[r] |= tree
        if self._outer.momentum:
            common["momentum"] = momentum
        return Met(weights, own, common, memories)

    def _differ(self, given: Round) -> bool:
        """Whether replicas are not at the common weights when the next round begins."""
        return not given.last and (self._fragments > 1 or self._mixing > 0)


class Gossip:
    """Each replica takes the mean of its neighbours' weights and its own (Lian et al. 2017, D-PSGD); every so many
    rounds, and at the end, all take the exact mean."""

    averages_state = False

    def __init__(self, options: Options) -> None:
        self._graph, self._every = options.graph, options.average_every

    def meet(self, given: Round, kept: Kept) -> Met:
        count = len(given.shares)
        if not given.last and (given.number + 1) % self._every:
            return Met(None, own=self._mixed(given, count))
        even = Round(**{**vars(given), "shares": dict.fromkeys(range(count), 1 / count)})
        mean = even.mean(given.ends)
        apart = {r: (end - mean).square().sum().reshape(1) for r, end in given.ends.items()}
        return Met(mean, figures={"consensus_distance": float(even.mean(apart)) ** 0.5})

    def _mixed(self, given: Round, count: int) -> dict[int, torch.Tensor]:
        there = dict(given.ends)
        if given.group is not None and given.group.size > 1:
            there |= _passed(given.group, graphs.needs(self._graph, count, given.replicas), given.ends)
        found = {}
        for r in given.ends:
            mixed = torch.zeros_like(given.ends[r])
            for other, weight in graphs.weights(self._graph, r, count).items():
                mixed.add_(there[other], alpha=weight)
            found[r] = mixed
        return found


def _passed(
    group: Group, needs: Sequence[tuple[int, int, int]], mine: Mapping[int, torch.Tensor]
) -> dict[int, torch.Tensor]:
    """What passes between workers, at once: replica, from and to. Returns what came. Raises PeerLost."""
    came: dict[int, torch.Tensor] = {}
    works = []
    like = next(iter(mine.values()))
    for replica, source, target in needs:
        if target == group.rank:
            came[replica] = torch.empty_like(like, device=group.device)
            works.append(group.start_receive(came[replica], source))
    sent = {r: value.to(group.device) for r, value in mine.items()}
    for replica, source, target in needs:
        if source == group.rank:
            works.append(group.start_send(sent[replica], target))
    for work in works:
        work.wait()
    group.confirm()
    return {r: value.to(like.device) for r, value in came.items()}


def fragments(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Consecutive tensors cut into so many parts of about the same number of elements (fewer where there are fewer
    tensors): the first of each, and the one behind its last."""
    ends = list(itertools.accumulate(sizes))
    count, whole = max(1, min(count, len(sizes))), sum(sizes)
    cuts = [0]
    for part in range(1, count):
        nearest = min(range(len(ends)), key=lambda at: abs(ends[at] - whole * part / count)) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), len(sizes) - (count - part)))
    return list(itertools.pairwise([*cuts, len(sizes)]))


def stepped(
    weights: torch.Tensor, gradient: torch.Tensor, momentum: torch.Tensor, options: OuterOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of torch's SGD, on copies: the new weights and the new momentum, which begins with nought."""
    momentum = momentum * options.momentum + gradient
    change = gradient + options.momentum * momentum if options.nesterov else momentum
    return weights - options.lr * change, momentum


MEETINGS: dict[str, Callable[[Options], Meeting]] = {"local_sgd": LocalSGD, "diloco": DiLoCo, "gossip": Gossip}
"""By kind. One of a user's own takes a kind's place, with its options, where the task's file puts it here; what it must
promise is in `headway.testing.replicas`."""


def meeting(options: Options) -> Meeting:
    """Of a kind whose replicas differ between exchanges."""
    return MEETINGS[options.kind](options)


def shares(rows: Sequence[int]) -> dict[int, float]:
    """Of each replica, by the rows that it had; even where nobody had any."""
    whole = sum(rows)
    return {r: each / whole if whole else 1 / len(rows) for r, each in enumerate(rows)}
