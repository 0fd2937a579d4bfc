"""Code of the user's beside the loop: a `Hook` is called after a step, an epoch, an evaluation, on every worker alike.

Ready-made: `EarlyStopping`, `EMA`, `SWA`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headway.core.stopping import Course, Rule, judged, over
from headway.errors import BadInput, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "hook."
"""Before a hook's name, where its state is kept in checkpoints."""
MODES = ("min", "max")


class Hook:
    """Subclass this, write those of the methods that you need, and give instances: `Task.hooks()` of a task,
    `headway.session(..., hooks=[...])` of a loop.

    All methods but `on_save` are called on every worker, at the same steps with the same weights and metrics, and must
    do the same on all: nothing of a worker's own (its clock, its rank, its lanes) may decide what they change. They
    come after the step's commit, once for each step, however often the step was repeated; a worker that joins takes up
    at the step that all are at.

    What a hook keeps between calls it gives from `state_dict()` (tensors, numbers, text, lists and dicts of them) and
    takes in `load_state_dict(state)`: it is in checkpoints, in kept states, and goes to workers that join. A hook
    without these two has no state; if its attributes change all the same, the run ends and says so. What need not
    travel (a counter of messages) stays out of `state_dict()`, which may be empty.
    """

    def on_step_end(self, session: Any, step: Any) -> None:
        """A step is committed; before whatever follows `step.lanes()` in the loop.

        Args:
            session: the run's `headway.Session`: model, optimizer, step (committed ones), epoch, total_steps, metrics,
                record(), save(), stop().
            step: `headway.elastic.worker.session.Step`: number, epoch, rows, loss, last_of_epoch.
        """

    def on_epoch_end(self, session: Any) -> None:
        """The last step of an epoch is done, with the loop's body, and its evaluation where that has one."""

    def on_evaluate(self, session: Any, metrics: dict[str, float]) -> None:
        """An evaluation is done.

        Args:
            session: as above.
            metrics: over the whole validation set, by name; the same on every worker.
        """

    def on_save(self, session: Any) -> None:
        """A checkpoint of this moment was begun; on the worker that writes it alone (checkpoints may be due by the
        clock, which is each worker's own), so nothing that is to be kept may change here."""


class EarlyStopping(Hook):
    """Ends the run when a validation metric has not improved for some evaluations. The job's `stop` makes one.

    A run that is resumed goes on counting where it was, and ends at the same step.

    Args:
        metric: by the name that `metrics()` gives it.
        patience: evaluations without an improvement after which the run ends; at least 1.
        mode: min or max: whether less or more of the metric is better.
        min_delta: a change that is not larger than this is no improvement.

    Raises:
        BadInput: patience below 1, an unknown mode, a negative min_delta.
    """

    def __init__(self, metric: str = "loss", patience: int = 3, mode: str = "min", min_delta: float = 0.0) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            reason = "it is the number of evaluations without an improvement after which the run ends"
            raise BadInput(f"EarlyStopping(patience={patience!r})", reason, "Set it to 1 or more.")
        if mode not in MODES:
            raise BadInput(f"EarlyStopping(mode={mode!r})", "unknown mode", nearest(mode, list(MODES)))
        if not min_delta >= 0:
            reason = "it is the size of a change, whichever way is better"
            raise BadInput(f"EarlyStopping(min_delta={min_delta!r})", reason, "Set it to 0 or more.")
        self.rule = Rule(metric, patience, mode, float(min_delta))
        self.course = Course()
        self._length = 0

    def on_evaluate(self, session: Any, metrics: dict[str, float]) -> None:
        """Raises BadInput where nobody reports the metric."""
        rule = self.rule
        if not metrics:  # no row of the validation set is left
            return
        if rule.metric not in metrics:
            raise BadInput(
                f"stop.metric={rule.metric}",
                f"the evaluation has no such metric: it gives {', '.join(sorted(metrics))}",
                nearest(rule.metric, list(metrics)),
            )
        self.course = judged(rule, self.course, session.step, metrics[rule.metric])
        self._length = session.total_steps
        why = over(rule, self.course)
        if why:
            session.engine.finish(why)

    def over(self, total_steps: int) -> str:
        """Why the run is over by the state that was loaded; empty: it is not, or its length was changed since."""
        return over(self.rule, self.course) if total_steps == self._length else ""

    def state_dict(self) -> dict[str, Any]:
        rule = self.rule
        told = [rule.metric, rule.patience, rule.mode, rule.min_delta]
        return {"rule": told, "course": dict(vars(self.course)), "length": self._length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        metric, patience, mode, min_delta = state["rule"]
        if (metric, mode) != (self.rule.metric, self.rule.mode):  # of another metric: that tells nothing of this one
            self.course, self._length = Course(), 0
            return
        self.course = Course(**state["course"])
        same = (patience, min_delta) == (self.rule.patience, self.rule.min_delta)
        self._length = state["length"] if same else 0


class Average(Hook):
    """Averages of the model's parameters, kept beside it under the same names, on the same device.

    Args:
        buffers: average its floating-point buffers (batch norm's statistics) as well.
        evaluate: whether `session.evaluate` measures the averaged weights.
    """

    def __init__(self, buffers: bool, evaluate: bool) -> None:
        self.evaluate = evaluate
        self.updates = 0
        """That the average is of."""
        self.average: dict[str, Tensor] = {}
        """By name, as in the model's state dict; empty before the first update."""
        self._buffers = buffers

    def _formula(self) -> Any:
        """Of torch's: called as formula(averages, values, updates)."""
        raise NotImplementedError

    def _take(self, model: nn.Module) -> None:
        """One more update of the average."""
        import torch

        with torch.no_grad():
            found = self.tensors(model)
            if not self.updates:
                self.average = {name: value.detach().clone() for name, value in found.items()}
            else:
                if self.average.keys() != found.keys():
                    odd = sorted(self.average.keys() ^ found.keys())
                    raise BadInput(
                        f"the model's {', '.join(odd[:3])} came or went while it was averaged",
                        f"{type(self).__name__} averages each of its parameters from the first update on",
                        "Make all of them in model().",
                    )
                averages = [self.average[name].to(value.device) for name, value in found.items()]
                self._formula()(averages, list(found.values()), self.updates)
                self.average = dict(zip(found, averages, strict=True))
            self.updates += 1

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """What is averaged of a model, by name as in its state dict."""
        found: dict[str, Tensor] = {plain(name): p for name, p in model.named_parameters()}
        if self._buffers:
            kept = model.state_dict(keep_vars=True)
            named = {name: b for name, b in model.named_buffers() if name in kept and b.is_floating_point()}
            found |= {plain(name): buffer for name, buffer in named.items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError: it is of another model."""
        given = state["average"]
        mine = self.average
        if mine.keys() == given.keys():
            for name, value in given.items():
                if mine[name].shape != value.shape:
                    raise ValueError(f"the averaged {name} has the shape {tuple(value.shape)}")
                mine[name].copy_(value)
        else:
            self.average = {name: value.detach().clone() for name, value in given.items()}
        self.updates = int(state["updates"])


class EMA(Average):
    """An exponential moving average of the weights: after each step, average = decay x average + (1 - decay) x weights
    (Polyak and Juditsky 1992; as torch.optim.swa_utils).

    Args:
        decay: between 0 and 1, like 0.999.
        every: steps between two updates.
        buffers: average floating-point buffers (batch norm's statistics) as well; else evaluation has the model's own.
        evaluate: whether `session.evaluate` measures the averaged weights, and with it the best checkpoint and `stop`.

    Raises:
        BadInput: a decay that is none, or `every` below 1.
    """

    def __init__(self, decay: float = 0.999, every: int = 1, buffers: bool = False, evaluate: bool = False) -> None:
        if not 0.0 <= decay < 1.0:
            reason = "it is the share of the old average that stays, from 0 to below 1"
            raise BadInput(f"EMA(decay={decay!r})", reason, "Take 0.999 for some thousand steps.")
        _require_steps("EMA", "every", every, 1)
        super().__init__(buffers, evaluate)
        self.decay, self.every = decay, every

    def _formula(self) -> Any:
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        return get_ema_multi_avg_fn(self.decay)

    def on_step_end(self, session: Any, step: Any) -> None:
        if session.step % self.every == 0:
            self._take(session.model)


class SWA(Average):
    """The mean of the weights at several steps near the end (stochastic weight averaging, Izmailov et al. 2018; as
    torch.optim.swa_utils).

    Args:
        start: the first step (committed ones) whose weights count.
        every: steps between two.
        buffers: average floating-point buffers as well: batch norm's statistics, which would else be those of the last
            weights.
        evaluate: whether `session.evaluate` measures the averaged weights, once there are some.

    Raises:
        BadInput: `start` or `every` below 1.
    """

    def __init__(self, start: int, every: int = 1, buffers: bool = True, evaluate: bool = False) -> None:
        _require_steps("SWA", "start", start, 1)
        _require_steps("SWA", "every", every, 1)
        super().__init__(buffers, evaluate)
        self.start, self.every = start, every

    def _formula(self) -> Any:
        from torch.optim.swa_utils import get_swa_multi_avg_fn

        return get_swa_multi_avg_fn()

    def on_step_end(self, session: Any, step: Any) -> None:
        if session.step >= self.start and (session.step - self.start) % self.every == 0:
            self._take(session.model)


def averaged(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """Averaged weights by name, as in the model's state dict, from the part `session` of a checkpoint; None: the run
    kept none, or had not begun to."""
    for name, state in sorted(part.get("state", {}).items()):
        if name.startswith(PREFIX) and isinstance(state, dict) and state.get("average") and "updates" in state:
            return dict(state["average"])
    return None


def plain(name: str) -> str:
    """A parameter's name, without what torch.compile puts into it."""
    return name.replace("_orig_mod.", "")


def named(hooks: Sequence[Any]) -> dict[str, Any]:
    """Hooks by the names that their states are kept under: their classes', with a number from the second on.

    Raises:
        BadInput: one is none, or has half of the two that make a state.
    """
    if not isinstance(hooks, list | tuple):
        kind = type(hooks).__name__
        raise BadInput(f"hooks() returned a {kind}", "a run may have several hooks", "Return a list of them.")
    found: dict[str, Any] = {}
    for hook in hooks:
        if not isinstance(hook, Hook):
            is_class = isinstance(hook, type) and issubclass(hook, Hook)
            shown = f"the class {hook.__name__}" if isinstance(hook, type) else f"a {type(hook).__name__}"
            remedy = f"Write {hook.__name__}(...)." if is_class else "Let its class be one of headway.Hook."
            raise BadInput(f"hooks has {shown}", "a hook is an instance of headway.Hook", remedy)
        kind = type(hook).__name__
        name = next(n for n in (kind, *(f"{kind}.{i}" for i in range(2, len(hooks) + 2))) if n not in found)
        gives, takes = (callable(getattr(hook, verb, None)) for verb in ("state_dict", "load_state_dict"))
        if gives != takes:
            has, lacks = ("state_dict", "load_state_dict") if gives else ("load_state_dict", "state_dict")
            reason = "its state is given by the one and taken by the other, in a resumed run or on a worker that joins"
            raise BadInput(f"the hook {name} has {has}() and no {lacks}()", reason, f"Write {lacks}() as well.")
        found[name] = hook
    return found


def _require_steps(kind: str, name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{kind}({name}={value!r})", "it is a number of steps", f"Set it to {least} or more.")
