"""The walk over a pass's lanes in the user's loop: each for itself, or several together."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from headway.core.lanes_together import Group, Mismatch, Reason
from headway.elastic.worker import batches, draws, update
from headway.elastic.worker.engine import now
from headway.elastic.worker.modules import NOWHERE
from headway.elastic.worker.together import Trial, is_memory, is_theirs
from headway.errors import BadInput
from headway.strategies import Strategy

if TYPE_CHECKING:
    from headway.data.read.reader import Batch
    from headway.elastic.worker.carried import Rows
    from headway.elastic.worker.engine import Engine

Tensors = dict[str, torch.Tensor]
"""A batch, as the user's loop is given it."""


class Walk:
    """The part of a `Pass` that goes over lanes; fields are for the pass and the step that it belongs to."""

    number: int
    epoch: int
    rows: int
    sizes: list[int]
    _at: int
    _fullest: int

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pass = 0
        """The number of the pass under way, in the step."""
        self._mine: list[int] = []
        """Lanes that this worker computes in the step."""
        self._found: dict[int, Batch] = {}
        """Their batches, of those that were read already."""
        self._strategy: Strategy | None = None
        self._part = self._part_rows = 0
        """The part of the batch whose body runs, and its rows."""
        self._parts: dict[str, dict[int, tuple[torch.Tensor | float, int]]] = {}
        """What was recorded in parts of a lane's batch: values and rows, by name and part."""
        self._whole = True
        """Whether it is the batch's last."""
        self._lane: int | None = None
        """The lane whose body runs, and has no loss yet."""
        self._open: int | None = None
        """The lane whose body runs; of several that go together, the first."""
        self._group: Group = ()
        """All of them."""
        self._last = False
        """Whether no other batch follows in the pass."""
        self._may_join = self._joined = False
        """Whether lanes may go together in this pass, and whether some do."""
        self._trial: Trial | None = None
        """Of lanes whose gradients are thrown away, while they are computed."""
        self._spoilt = False
        """Whether what was computed is thrown away, and the pass is to be done again by all."""
        self._alone = False
        """Whether it is done again with lanes apart, for its loss was no number."""

    @property
    def update(self) -> str:
        """The name of the update whose pass it is."""
        raise NotImplementedError

    def _walk(self) -> Iterator[Tensors]:
        """All of them, alone or several together."""
        together = self._engine.together
        self._joined = self._spoilt = False
        if not (self._may_join and together.allowed) or self._alone or len(self._mine) < 2:
            yield from self._one_by_one(self._mine, True)
            return
        if not together.measured:
            together.measure()
            yield from self._try_lanes(self._mine[:1], Trial())
            together.measure_done(self._rows_of(self._mine[0]))
            self._begin_anew()
        parted = together.groups(self._mine)
        at = next((at for at, group in enumerate(parted) if len(group) > 1), None)
        if at is None:
            yield from self._one_by_one(self._mine, True)
            return
        mode, first = together.mode(self.update), parted.pop(at)
        due, looked = together.due(mode, (first, *parted), self.number), False
        if due:
            looked = yield from self._do_both_ways(first, not parted)
        else:
            yield from self._do_group(first, not parted)
        for number, group in enumerate(parted, 1):
            if not self._spoilt:
                do = self._do_group if together.allowed else self._one_by_one
                yield from do(group, number == len(parted))
        if self._joined and not self._spoilt and looked is due:  # a look that said nothing is made again
            together.done(mode, (first, *parted), looked)

    def _one_by_one(self, lanes: Sequence[int], last: bool) -> Iterator[Tensors]:
        """last: no others follow."""
        for lane in lanes:
            yield from self._do_group((lane,), last and lane == lanes[-1])

    def _do_group(self, group: Group, last: bool) -> Iterator[Tensors]:
        """Lanes in one pass, or one; one by one where their batches cannot be one."""
        found = self._put_together(group)
        if found is None:
            yield from self._one_by_one(group, last)
        else:
            yield from self._do_batch(group, *found, last)

    def _put_together(self, group: Group) -> tuple[list[Batch], Tensors] | None:
        """The lanes' batches, and the one that is made of them; None: they differ in shape, or there is no memory."""
        engine = self._engine
        engine.spend("data")
        found = [self._found[lane] if lane in self._found else self._read(lane) for lane in group]
        try:
            each = [batches.tensors_of(one, engine.replica.device) for one in found]
            return found, batches.joined(each, [len(one.ids) for one in found])
        except batches.Unlike as error:
            engine.together.unlike(str(error))
        except Exception as error:
            if len(group) < 2 or not is_memory(error):
                raise
            engine.together.halve(group, sum(len(one.ids) for one in found), self.number)
        self._found.update(zip(group, found, strict=True))
        return None

    def _do_batch(
        self, group: Group, found: Sequence[Batch], batch: Tensors, last: bool
    ) -> Generator[Tensors, None, torch.Tensor | None]:
        """Returns what they changed in buffers; None where what was done is thrown away."""
        engine, buffers = self._engine, self._engine.replica.buffers
        engine.pact.check()
        begun = now()
        self._joined |= len(group) > 1
        yield from self._do(group, found, batch, last)
        if self._spoilt:
            return None
        change = buffers.leave(sum(self._share(lane) for lane in group), counters=self._fullest in group)
        assert self._strategy is not None
        self._strategy.lane_done(change)
        engine.members.moved((now() - begun) / len(group))
        return change

    def _do_both_ways(self, group: Group, last: bool) -> Generator[Tensors, None, bool]:
        """A group that is compared with its lanes, which are computed one by one before it. Returns whether they agree,
        and were compared.

        Where random numbers were drawn, nothing is put together: they count one by one, and so do the worker's others.
        """
        engine, together = self._engine, self._engine.together
        put = self._put_together(group)
        if put is None:
            yield from self._one_by_one(group, last)
            return False
        trial = yield from self._try_lanes(group, Trial(group))
        if self._spoilt:
            return False
        assert trial.changes is not None
        apart = together.look(trial.losses, trial.drew)
        self._begin_anew()
        if trial.drew:
            together.part(Mismatch(Reason.RANDOM), self.number, engine.pact.rank == 0)
            yield from self._one_by_one(group, last)
            return False
        change = yield from self._do_batch(group, *put, last=False)  # its gradients are looked at before they are sent
        if change is None:
            return False
        found = together.look([engine.tail.lane_loss(group[0])], False)
        why, compared = together.compare(apart, found, engine.replica.buffers.compared(trial.changes, change))
        if why is not None:
            self._keep_apart(why)
        return why is None and compared

    def _try_lanes(self, lanes: Sequence[int], trial: Trial) -> Generator[Tensors, None, Trial]:
        """Lanes one by one, for nothing but to see what comes of them."""
        engine, buffers = self._engine, self._engine.replica.buffers
        for lane in lanes:
            engine.pact.check()
            engine.spend("data")
            found = self._read(lane)
            self._trial = trial
            try:
                yield from self._do((lane,), [found], batches.tensors_of(found, engine.replica.device), False)
            finally:
                self._trial = None
            if self._spoilt:
                break
            change = buffers.leave(self._share(lane), counters=lane == self._fullest)
            trial.changes = change if trial.changes is None else trial.changes + change
            engine.members.moved()
        return trial

    def _begin_anew(self) -> None:
        """Nothing was computed yet; buffers are put back before each batch."""
        assert self._strategy is not None
        self._strategy.begin(self._mine)
        if (tables := self._tables) is not None:
            tables.start()

    def _keep_apart(self, why: Mismatch) -> None:
        """Lanes do not go together: not in this pass, which is done again, nor later."""
        engine = self._engine
        engine.together.part(why, self.number, engine.pact.rank == 0)
        self._spoilt = True

    def takes(self, error: Exception) -> bool:
        """Whether the pass is done again, in a way that may not raise this error: it came of the rows of several lanes.
        Else it is to be raised on."""
        engine, trial = self._engine, self._trial
        group = self._group if trial is None else trial.group
        if len(group) < 2 or self._open is None or not is_theirs(error):
            return False
        if is_memory(error):  # also of a lane beside their batch: alone it fitted before
            engine.together.halve(group, sum(map(self._rows_of, group)), self.number)
            self._spoilt = True
        elif trial is not None:
            return False
        else:
            engine.together.raised(error)
            self._keep_apart(Mismatch(Reason.RAISED))
        assert self._strategy is not None
        self._strategy.after_backward()  # whatever of it was done
        self._lane = None
        return True

    def _do(self, group: Group, found: Sequence[Batch], batch: Tensors, last: bool) -> Iterator[Tensors]:
        """One batch in the user's loop, of a lane or several; last: no other follows."""
        engine = self._engine
        engine.spend("compute")
        for lane, one in zip(group, found, strict=True):
            engine.tail.ids(lane, one.ids)
        engine.replica.buffers.enter()
        self._parts, self._group, self._last = {}, group, last
        rows = sum(len(one.ids) for one in found)
        cut = batches.parts(batch, rows, engine.job.part_rows) if len(group) == 1 else [(rows, batch)]
        try:
            for self._part, (self._part_rows, part) in enumerate(cut):
                self._whole = self._part + 1 == len(cut)
                yield from self._body(group[0], part)
        finally:
            self._part, self._group = 0, ()
        if not self._spoilt:
            engine.replica.modules.used()
        for name, by_part in self._parts.items():
            weight = sum(rows for _, rows in by_part.values())
            engine.tail.record(group[0], name, sum(value * rows for value, rows in by_part.values()) / weight)
        self._parts = {}

    def _body(self, lane: int, part: Tensors) -> Iterator[Tensors]:
        """One batch, in the user's loop: a lane's, or a part of it, or that of several."""
        engine = self._engine
        chosen = draws.seed("lane", engine.job.seed, self.epoch, self._at, lane, *self._keys)
        self._lane = self._open = engine.replica.modules.lane = lane
        if (tables := self._tables) is not None:
            tables.lane(lane)
        try:
            with update.autocast(engine.job.precision, engine.replica.device):
                yield part
        finally:
            self._open, engine.replica.modules.lane = None, NOWHERE
        if self._lane is not None:
            raise BadInput(
                f"lane {lane} of step {self.number} gave no loss",
                "step.backward(loss) was not called in the loop over step.lanes()",
                "Call it once for each batch.",
            )
        if self._trial is not None:
            self._trial.drew |= draws.drawn(chosen)
        elif len(self._group) > 1 and not self._spoilt and draws.drawn(chosen):
            self._keep_apart(Mismatch(Reason.RANDOM))

    @property
    def _tables(self) -> Rows | None:
        """Of which only rows travel."""
        held = self._engine.held
        return held.tables if held is not None else None

    def _share(self, lane: int) -> float:
        """Of the step's rows that the lane has; of those that were asked for, where some may be set aside."""
        return self._rows_of(lane) / self.rows

    def _rows_of(self, lane: int) -> int:
        return len(self._found[lane].ids) if lane in self._found else self.sizes[lane]

    @property
    def _keys(self) -> tuple[int, ...]:
        """Of the pass in the step, and of the part of a lane's batch, for keys of randomness; nothing of the first."""
        return (self._pass, self._part) if self._part else (self._pass,) if self._pass else ()

    def _read(self, lane: int) -> Batch:
        return self._engine.context.train.batch(self.epoch, self._at, lane)
