"""What is the same on all workers after each committed step: model, optimiser, schedule, scaler, and the position.

It knows no network, no clock and no disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from headway import optim
from headway.core.digest import WORDS, Chain
from headway.core.lanes_together import Mismatch, Reason
from headway.elastic.worker import digests, update
from headway.elastic.worker.buffers import LaneBuffers
from headway.elastic.worker.census import Census
from headway.elastic.worker.digests import Digest
from headway.elastic.worker.modules import Modules
from headway.elastic.worker.updates import Update, Updates
from headway.errors import BadInput, NonFiniteLoss, nearest
from headway.hooks import Average
from headway.metrics.merging import Measures
from headway.metrics.running import Running
from headway.strategies.kept import Kept
from headway.weights import plain, plain_state

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Words = np.ndarray[tuple[int], np.dtype[np.uint16]]


GIVEN = ("parts", "constants", "step", "exchanges", "passes", "outcome")
"""Parts of what `Replica.given` gives."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class TornState(RuntimeError):
    """What this worker has came in part, and there is nothing whole to take its place."""


@dataclass
class Outcome:
    """What exchanges have told all workers alike.

    Args:
        losses: of the newest step, each lane's share.
        metrics: of the newest evaluation.
        tables: of it, what is more than a number.
        evaluated_step: that it was of; -1 before the first.
        stopping: the run was asked to stop, or is finished.
        early: by its own loop.
        left: before the step, or the evaluation, that was under way.
        finished: why it is, before its last step.
        records: of the newest step's lanes, means by name; and what was measured until then, where it is recorded.
        record_tables: of that, what is more than a number.
        names: of records that all workers know.
    """

    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    evaluated_step: int = -1
    stopping: bool = False
    early: bool = False
    left: bool = False
    finished: str = ""
    records: dict[str, float] = field(default_factory=dict)
    record_tables: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


class Replica:
    """See the module.

    Args:
        model: on its device.
        optimizer: over the model's parameters, and maybe others of the user's (a head that belongs to the loss); or
            several by name, each over parameters of its own.
        schedule: of the learning rate, if there is one; of several by name.
        precision: as in the job.
        device: where it computes; that of the model where not given.
        others: modules of the user's beside the model, by name.
        clip: limits the gradients of what is given, in place, before each update.
        judged_by: the metric that a schedule like ReduceLROnPlateau is stepped with, after each evaluation.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Mapping[str, Optimizer],
        schedule: LRScheduler | Mapping[str, LRScheduler | None] | None,
        precision: str,
        device: torch.device | None = None,
        others: Mapping[str, nn.Module] | None = None,
        judged_by: str | None = None,
        clip: Callable[[list[nn.Parameter]], Any] | None = None,
    ) -> None:
        self.model, self.updates = model, Updates(optimizer, schedule)
        self.device = device or next((p.device for p in model.parameters()), torch.device("cpu"))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.modules = Modules(model, others)
        self.buffers = LaneBuffers(self.modules)
        self.judged_by, self.clip = judged_by, clip
        self.step = 0
        self.exchanges = 0
        """Completed with the others; they tell apart survivors of one step."""
        self.passes = 0
        """Of the step under way that are applied."""
        self.samples = Chain()
        self.measured = Running(Measures({}))
        """Metrics of training that are no means."""
        self.outcome = Outcome()
        self.kept = Kept()
        """Of the strategy."""
        self.apart: Mismatch | None = None
        """Why lanes are not put together any more, since that gave something else."""
        self.whole = False
        """Whether this is a state that others could go on from: not before the first, nor where one came in part."""
        self.torn = False
        """Whether it came in part: then it is not that of the beginning either."""
        self._registered: dict[str, Any] = {}
        self._weights: digests.Weights = {}
        self._loaded: dict[str, Any] = {}
        self._other_length = False
        """Whether that is of a run of another length."""
        self._applying = False
        self.settle()

    # What is trained

    def settle(self) -> None:
        """What is there now is what the user's code builds, here and on every other worker."""
        self.modules.settle()
        self.buffers.settle()
        self.updates.settle()
        self._names = {id(p): (name, p) for name, p in self.modules.named_parameters()}
        for name, parameter in self.updates.places():
            self._names.setdefault(id(parameter), (name, parameter))
        self._marks = self.marks()
        self._trained = {name: p.requires_grad for name, p in self._names.values()}
        self._known: list[nn.Parameter] = []
        self._census = Census(self.model)
        self._optimised: list[int] | None = None
        """Numbers of the optimisers' parameters when all were named."""
        _ = self.trainable

    @property
    def optimizer(self) -> Optimizer:
        """The only one; of several the first."""
        return next(iter(self.updates)).optimizer

    @property
    def schedule(self) -> LRScheduler | None:
        """Of that one."""
        return next(iter(self.updates)).schedule

    @schedule.setter
    def schedule(self, schedule: LRScheduler | None) -> None:
        next(iter(self.updates)).schedule = schedule

    def only(self, update: str) -> AbstractContextManager[None]:
        """A pass of one of the updates, in which its parameters alone are trained."""
        return self.updates.only(update, [p for _, p in self._names.values()])

    @property
    def everything(self) -> list[nn.Parameter]:
        """All parameters that there were when the session began, in the same order on every worker."""
        return [p for _, p in self._names.values()]

    @property
    def own(self) -> dict[str, nn.Parameter]:
        """Parameters of the optimiser that are not the model's, by name."""
        theirs = {id(p) for p in self.model.parameters()}
        found = (p for p in self.updates.parameters if id(p) not in theirs)
        return {self._name(p): p for p in found}

    @property
    def beside(self) -> dict[str, nn.Parameter]:
        """Parameters of modules beside the model that the optimiser does not have, by name."""
        held = {id(p) for p in self.updates.parameters}
        held |= {id(p) for p in self.model.parameters()}
        return {name: p for name, p in self.modules.named_parameters() if id(p) not in held}

    def moved(self) -> dict[str, nn.Parameter]:
        """Of those, the ones that are not what they were when the session began: a moving average, say."""
        return {name: p for name, p in self.beside.items() if _mark(p) != self._marks.get(name)}

    def marks(self) -> dict[str, int]:
        """By which a change of theirs is known."""
        return {name: _mark(p) for name, p in self.beside.items()}

    @property
    def trainable(self) -> list[nn.Parameter]:
        """All that get gradients now, in the same order on every worker. The user may freeze and unfreeze.

        Raises:
            BadInput: one was made after the session began.
        """
        optimised = [*map(id, self.updates.parameters)]
        if optimised == self._optimised and self._census.holds():
            return self.trained
        self._census, self._optimised = Census(self.model), optimised
        model = {id(p): p for p in self.model.parameters()}
        own = {id(p): p for p in self.updates.parameters if id(p) not in model}
        for number, parameter in (*model.items(), *own.items()):
            if number not in self._names:
                self._name(parameter)
        self._known = [*model.values(), *own.values()]
        return self.trained

    @property
    def trained(self) -> list[nn.Parameter]:
        """`trainable`, of those that there were when it was asked for last."""
        return [p for p in self._known if p.requires_grad]

    @property
    def known(self) -> list[nn.Parameter]:
        """All that may be trained, of those that there were when `trainable` was asked for last."""
        return self._known

    def check_groups(self) -> None:
        """Raises BadInput where an optimiser was given a group that its schedule knows nothing of."""
        for each in self.updates:
            each.check_groups()

    def _name(self, parameter: nn.Parameter) -> str:
        known = self._names.get(id(parameter))
        if known is None:
            raise BadInput(
                f"a parameter of shape {tuple(parameter.shape)} was made after the session began",
                "a worker that joins, or a run that is resumed, builds the model and the optimiser without it",
                "Make it where the model is built, with requires_grad_(False) for as long as it is not to be trained.",
            )
        return known[0]

    def names(self) -> dict[str, bool]:
        """The model's parameters by name, and whether each is trained."""
        return {plain(name): parameter.requires_grad for name, parameter in self.model.named_parameters()}

    # State of the user's own

    @property
    def registers(self) -> bool:
        """Whether there is some."""
        return bool(self._registered)

    def register(self, name: str, state: Any) -> None:
        """Raises BadInput for a name that is taken."""
        if name in self._registered:
            raise BadInput(f"session.register({name!r}) was called twice", "names tell states apart", "Choose another.")
        self._registered[name] = state
        if name in self._loaded:
            self._load_own(state, self._loaded[name])

    def _load_own(self, state: Any, loaded: Any) -> None:
        each = self.updates.of_schedule(state)
        if self._other_length and each is not None and optim.is_recomputable(state):
            # A schedule that the user steps: that of this run's length, as far as it was.
            optim.advance(state, each.optimizer, each.rates, int(loaded["last_epoch"]))
        else:
            state.load_state_dict(loaded)

    def check_schedules(self) -> None:
        """Raises BadInput where the optimiser has a schedule that would not come back."""
        registered = [self.updates.of_schedule(state) for state in self._registered.values()]
        for each in self.updates:
            wrapped = hasattr(each.optimizer.step, "_wrapped_by_lr_sched")
            if each.schedule is not None or not wrapped or each in registered:
                continue
            raise BadInput(
                "the optimiser has a learning-rate schedule that the session does not know of",
                "a resumed run, or a worker that joins, would begin it anew, and train at other rates",
                "Give session(model, optimizer, schedule) a function that makes it; or, where you step it yourself "
                "(once an epoch), session.register('schedule', it).",
            )

    # Whole states

    def snapshot(self, registered: bool = True) -> dict[str, Any]:
        """A tree of tensors and plain values by part (model, optimizer, session), not copied."""
        own = {name: p.detach() for name, p in self.own.items()}
        return {
            "model": self.modules.state(),
            "optimizer": self.updates.map(lambda each: each.optimizer.state_dict()),
            "session": {
                "schedule": self.updates.map(lambda each: each.schedule.state_dict() if each.schedule else None),
                "scaler": self.scaler.state_dict(),
                "samples": self.samples.hexdigest(),
                "own": own or [],
                "state": {name: s.state_dict() for name, s in self._registered.items()} if registered else {},
                **{name: value for name, value in self._rest().items() if value},
            },
        }

    def _rest(self) -> dict[str, Any]:
        """What only some have: buffers of other modules, and parameters of theirs that something else than the
        optimiser moved; keys that appeared at first use; what was frozen or let go, and groups that the optimiser was
        given, since the session began; what was measured in training and is not recorded yet; why lanes are apart."""
        return {
            "buffers": self.modules.others_state(),
            "late": self.modules.late,
            "trained": {n: p.requires_grad for n, p in self._names.values() if p.requires_grad != self._trained[n]},
            "groups": self._groups(),
            "beside": {name: p.detach() for name, p in self.moved().items()},
            "measured": self.measured.state(),
            "apart": [self.apart.reason.name, self.apart.amount] if self.apart is not None else [],
            "strategy": self._strategy(),
        }

    def _strategy(self) -> dict[str, Any]:
        """What the strategy keeps."""
        own = {str(number): tree for number, tree in self.kept.own.items() if tree}
        return {name: tree for name, tree in (("common", self.kept.common), ("own", own)) if tree}

    def _groups(self) -> Any:
        def added(each: Update) -> list[list[str]]:
            groups = each.optimizer.param_groups[each.num_groups :]
            return [[self._name(p) for p in group["params"]] for group in groups]

        return self.updates.map(added) if any(map(added, self.updates)) else []

    @torch.no_grad()
    def load(
        self, parts: dict[str, Any], registered: bool = True, steps: int | None = None, options: bool = False
    ) -> None:
        """Take a snapshot's state.

        Args:
            parts: of the snapshot.
            registered: the user's own state as well.
            steps: it is of another run, or of one of another length: the schedule is that of this one, after so many
                steps.
            options: those of the optimiser's groups stay this run's.

        Raises:
            RuntimeError, ValueError, KeyError: it does not fit.
            BadInput: the schedule cannot be brought there.
        """
        rest = parts["session"]
        self.modules.load(parts["model"], rest.get("buffers", {}), rest.get("late", []))
        self.buffers.settle()
        named, groups = dict(self._names.values()), rest.get("groups")
        for each in self.updates:
            each.regroup(self.updates.of(groups, each) if groups else [], named)
            each.load(self.updates.of(parts["optimizer"], each), options)
        own, kept = self.own, rest.get("own", [])
        # An earlier release's is a list.
        given = plain_state(kept) if isinstance(kept, dict) else dict(zip(own, kept, strict=True))
        if own.keys() != given.keys():
            odd = sorted(own.keys() ^ given.keys())
            raise KeyError(f"parameters of the optimiser's own: {', '.join(odd)} on one side only")
        for name, parameter in own.items():
            parameter.copy_(given[name])
        beside = self.beside
        for name, value in rest.get("beside", {}).items():
            beside[name].copy_(value)
        changed = rest.get("trained", {})
        for name, parameter in self._names.values():
            parameter.requires_grad_(changed.get(name, self._trained[name]))
        for each in self.updates:
            each.load_schedule(self.updates.of(rest["schedule"], each), steps)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(rest["scaler"])
        self.measured.load({} if options else rest.get("measured", {}))  # of other rows, maybe
        reason, amount = rest.get("apart") or ("", 0.0)
        self.apart = Mismatch(Reason[reason], float(amount)) if reason and not options else None
        strategy = rest.get("strategy", {})
        self.kept.common = {} if options else dict(strategy.get("common", {}))
        trees = {int(number): tree for number, tree in strategy.get("own", {}).items()}
        self.kept.own = {n: tree for n, tree in trees.items() if "table" in tree or not options}  # rows are weights
        self.samples, self.passes = Chain(rest["samples"]), 0
        if registered:
            self._loaded = rest["state"]
            self._other_length = steps is not None
            for name, state in self._registered.items():
                if name in self._loaded:
                    self._load_own(state, self._loaded[name])

    def given(self, registered: bool = True) -> dict[str, Any]:
        """All that another worker needs to go on in this one's place."""
        return {
            "parts": self.snapshot(registered),
            "constants": dict(self._constants()),
            "step": self.step,
            "exchanges": self.exchanges,
            "passes": self.passes,
            "outcome": vars(self.outcome),
        }

    def places(self, registered: bool = True) -> dict[str, Any]:
        """What another's `given` may be put straight into. Not so the constants: no checkpoint has them, should the
        rest of it never come."""
        return {**self.given(registered), "constants": None}

    def take(self, given: dict[str, Any], registered: bool = True) -> None:
        """Take another worker's state and place; registered: the user's own state as well."""
        own = self.kept.own
        self.load(given["parts"], registered)
        with torch.no_grad():
            for name, buffer in self._constants():
                value = given["constants"].get(name)
                if value is not None and value.shape == buffer.shape:  # caches come and grow as they are used
                    buffer.copy_(value)
        self.step, self.exchanges, self.passes = given["step"], given["exchanges"], given.get("passes", 0)
        evaluated = self.outcome.evaluated_step
        self.outcome = Outcome(**given["outcome"])
        if not registered:  # its own code goes on, and notes what it does; so do the replicas that it carries
            self.outcome.evaluated_step = evaluated
            self.kept.own = own
        self.whole, self.torn = True, False

    def tensors(self, averages: bool = True) -> Iterator[torch.Tensor]:
        """All parameters, buffers, optimiser state and averages of weights, in a fixed order; without averages where
        not asked for."""
        yield from self.modules.tensors()
        yield from (p.detach() for p in self.own.values())
        others = self.modules.others_state()
        yield from (others[key] for key in sorted(others))
        for state in self.updates.states():
            yield from _in_order(state)
        hooks = [kept for kept in self._registered.values() if averages and isinstance(kept, Average)]
        yield from (hook.average[name] for hook in hooks for name in sorted(hook.average))

    def bytes(self) -> int:
        """Size of all that."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    @property
    def host_bytes(self) -> int:
        """Size of the weights that are in the host's memory."""
        host = (p for _, p in self.modules.named_parameters() if p.device.type == "cpu")
        return sum(p.numel() * p.element_size() for p in host)

    def words(self, part: int = 0, of: int = 1, rates: list[float] | None = None, averages: bool = True) -> Words:
        """Digest of these tensors and the rates, in a fixed order; shape [WORDS]. It finds accidents, so it need not
        withstand malice, and has to keep up with memory; see `digests`.

        Args:
            part: of the tensors' bytes, this one of `of`.
            rates: in place of those of now.
            averages: of weights as well.
        """
        digest = Digest(self._weights)
        for integers in digests.part(self.tensors(averages), part, of):
            digest.add(integers)
        digest.say(repr(self.updates.rates() if rates is None else rates))
        return np.frombuffer(digest.read(), "<u2")[:WORDS]

    def _constants(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Buffers that the state dict leaves out."""
        kept = set(self.model.state_dict(keep_vars=True))
        return ((name, buffer) for name, buffer in self.model.named_buffers() if name not in kept)

    def judge(self, metrics: dict[str, float]) -> None:
        """Step a schedule that goes by a metric, with that of an evaluation.

        Raises:
            BadInput: the evaluation has no such metric.
        """
        for each in self.updates:
            if not isinstance(each.schedule, ReduceLROnPlateau) or self.judged_by is None:
                continue
            if self.judged_by not in metrics:
                raise BadInput(
                    f"schedule.metric={self.judged_by}",
                    "the evaluation has no such metric",
                    nearest(self.judged_by, list(metrics)),
                )
            each.schedule.step(metrics[self.judged_by])

    # Updates

    @property
    def applying(self) -> bool:
        """Whether `apply` steps the optimiser."""
        return self._applying

    def knows(self, optimizer: Optimizer) -> bool:
        """Whether it has a parameter of the model, of the modules beside it, or of the session's optimisers."""
        return any(id(p) in self._names for group in optimizer.param_groups for p in group["params"])

    def refuse_step(self, *_: Any) -> None:
        """A hook of the optimiser: only `apply` may step it.

        Raises:
            BadInput: the user's loop did.
        """
        if not self._applying:
            raise BadInput(
                "optimizer.step() was called in the loop",
                "Headway calls it when all lanes of the step are done",
                "Leave it out, and zero_grad() too.",
            )

    @contextmanager
    def _may_step(self, may: bool = True) -> Iterator[None]:
        self._applying = may
        try:
            yield
        finally:
            self._applying = not may

    def apply(self, clip_norm: float | None, last: bool = True, finite: Callable[[], bool] = lambda: False) -> None:
        """The update whose pass is under way, from the gradients at hand.

        Args:
            clip_norm: largest L2 norm of its gradients.
            last: it is the step's last: schedules are stepped.
            finite: whether all of them are known to be numbers, which is asked where nothing is clipped; else their
                norm says so.

        Raises:
            NonFiniteLoss: the gradient is no number, and nothing was applied. Under fp16 scaling an overflow skips the
                update instead, as it should.
        """
        parameters, optimizer = self.trained, self.updates.now.optimizer
        if clip_norm is not None or self.clip is not None:
            self.scaler.unscale_(optimizer)
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, self._norm(parameters))
        else:
            if not self.scaler.is_enabled() and not finite():
                self._norm(parameters)
            if self.clip is not None:
                self.clip(parameters)
        with self._may_step():
            update.step(optimizer, self.scaler)
            if last:
                self.updates.step_schedules(sometimes=self.scaler.is_enabled())

    def minimize(self, evaluate: Callable[[], float], last: bool = True) -> None:
        """The update whose pass is under way, by an optimiser that evaluates the loss as often as it likes.

        Args:
            evaluate: leaves the gradients at the parameters as they are then.
            last: it is the step's last: schedules are stepped.

        Raises:
            NonFiniteLoss: the gradients at the beginning are no numbers, or the parameters at the end.
        """
        optimizer, begun = self.updates.now.optimizer, False

        def closure() -> torch.Tensor:
            nonlocal begun
            with self._may_step(False), torch.enable_grad():
                loss = evaluate()
            if not begun:
                self._norm(self.trained)
            begun = True
            return torch.tensor(loss, dtype=torch.float64, device=self.device)

        with self._may_step():
            optimizer.step(closure)  # type: ignore[arg-type]  # a tensor, as LBFGS and its like want
            if last:
                self.updates.step_schedules(sometimes=False)
        if not math.isfinite(float(sum(p.detach().float().abs().sum() for p in self.trained))):
            raise NonFiniteLoss(
                f"the update of step {self.step} made parameters that are no numbers",
                f"{type(optimizer).__name__} went too far; the update was not applied",
                "Lower the learning rate, or choose line_search_fn='strong_wolfe'.",
            )

    def _norm(self, parameters: list[nn.Parameter]) -> torch.Tensor:
        """Of all their gradients together. Raises NonFiniteLoss: it is no number (under fp16 scaling it may be)."""
        norm = update.norm(parameters)
        if not self.scaler.is_enabled():
            self.require_number(float(norm))
        return norm

    def require_number(self, value: float) -> None:
        """Of a gradient's norm. Raises NonFiniteLoss."""
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"the gradient's norm is {value} at step {self.step}, though the loss is a number",
                "the update was not applied",
                "Lower the learning rate, set clip_norm, or look for an infinite derivative (sqrt or norm at 0, log of "
                "a vanishing number).",
            )


def _mark(tensor: torch.Tensor) -> int:
    """By which it is known that a tensor was changed; one look at its memory."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return 0
    plain = tensor.detach().contiguous()
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    return int(plain.view(_BITS[plain.element_size()]).sum())


def _in_order(state: Any) -> Iterator[torch.Tensor]:
    """Tensors of an optimiser's state, which some keep under other keys than their parameters' numbers."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for key in sorted(state, key=lambda k: (type(k).__name__, k if isinstance(k, int) else str(k))):
            yield from _in_order(state[key])
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _in_order(value)
