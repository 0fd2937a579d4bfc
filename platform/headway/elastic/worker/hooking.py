"""Calls a session's hooks, and sees to it that what they keep is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from headway import hooks as ready
from headway.elastic.worker import hollow, said
from headway.errors import BadInput
from headway.hooks import Average, EarlyStopping, Hook

if TYPE_CHECKING:
    from torch import nn

    from headway.elastic.worker.engine import Engine
    from headway.job import Job

JOBS = "job.stop"
"""Name of the hook that the job's `stop` makes; no class can have it."""
MOST = 1000
"""Entries of a container that are compared."""
DIGEST_BITS = 48
"""Of a state's digest, which is compared as a float64."""


class Hooks:
    """See the module.

    Args:
        engine: whose replica keeps their states.
        session: given to them.
        given: of the task or the loop.

    Raises:
        BadInput: one of them is none.
    """

    def __init__(self, engine: Engine, session: Any, given: Any) -> None:
        self._engine, self._session = engine, session
        self.tell: Callable[[str], None] = lambda place: None
        """Called with where a hook is, in words, before it is called; with nothing when it is through."""
        self._hooks: dict[str, Hook] = {**ready.named(given), **_of_job(engine.job)}
        self._marks: dict[str, dict[str, Any]] = {}
        for name, hook in self._hooks.items():
            if _has_state(hook):
                engine.replica.register(ready.PREFIX + name, hook)
            else:
                self._marks[name] = _marks(hook)

    def begun(self) -> None:
        """All have begun, or begun anew, from a state that was kept: it may be one that is over."""
        for hook in self._hooks.values():
            if isinstance(hook, EarlyStopping) and (why := hook.over(self._engine.total_steps)):
                self._engine.finish(why)

    def step_ended(self, step: Any) -> None:
        """A step is committed. step: the session's."""
        self._call("on_step_end", step)
        every = self._engine.job.replica_check_every
        if every is not None and step.number % every == 0:
            self._say()

    def epoch_ended(self) -> None:
        self._call("on_epoch_end")

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        self._call("on_evaluate", dict(metrics))

    def saved(self) -> None:
        """A checkpoint was begun, by this worker."""
        self._call("on_save")

    @contextmanager
    def weights(self, model: nn.Module) -> Iterator[None]:
        """With the weights that an evaluation measures: averaged ones, where a hook says so and has some. Nobody may be
        handed a state meanwhile."""
        average = next((h for h in self._hooks.values() if isinstance(h, Average) and h.evaluate and h.updates), None)
        if average is None:
            yield
            return
        there = average.tensors(model)
        own = {name: tensor.data for name, tensor in there.items()}
        try:
            for name, value in average.average.items():
                there[name].data = value.to(there[name].device)
            yield
        finally:
            for name, value in own.items():
                there[name].data = value

    def _call(self, verb: str, *arguments: Any) -> None:
        for name, hook in self._hooks.items():
            self.tell(f"{name}.{verb}()")
            getattr(hook, verb)(self._session, *arguments)
            self._check(name)
            self.tell("")

    def _check(self, name: str) -> None:
        """Raises BadInput where a hook without a state has one."""
        if name not in self._marks:
            return
        before, now = self._marks[name], _marks(self._hooks[name])
        odd = sorted(key for key in before.keys() | now.keys() if before.get(key, _NONE) != now.get(key, _NONE))
        if odd:
            raise BadInput(
                f"the hook {name} changed its {', '.join(odd)} and has no state_dict",
                "a resumed run, or a worker that joins, would begin without what it has counted",
                f"Write {name}.state_dict() and load_state_dict(state); what need not travel may be left out of it.",
            )

    def _say(self) -> None:
        """Have the states of the user's own compared over workers; those of ours are compared as weights are."""
        for name, hook in self._hooks.items():
            if _has_state(hook) and not isinstance(hook, Average):
                text, tensors = hollow.pack(hook.state_dict())  # type: ignore[attr-defined]
                digest = xxhash.xxh3_64(text)
                for tensor in tensors:
                    digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
                number = digest.intdigest() % 2**DIGEST_BITS
                self._engine.said.add(self._engine.replica.step, {said.HOOK + name: float(number)})


_NONE = object()


def _of_job(job: Job) -> dict[str, Hook]:
    stop = job.stop
    return {} if stop is None else {JOBS: EarlyStopping(stop.metric, stop.patience, stop.mode, stop.min_delta)}


def _has_state(hook: Hook) -> bool:
    return callable(getattr(hook, "state_dict", None))


def _marks(hook: Hook) -> dict[str, Any]:
    """By which a change of its attributes is known: plain values by themselves, tensors by their versions, small
    containers by what is in them, all others as the objects that they are."""
    return {name: _mark(value, 0) for name, value in vars(hook).items()}


def _mark(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return (type(value).__name__, repr(value))
    if isinstance(value, torch.Tensor):
        return id(value), value._version
    if isinstance(value, dict | list | tuple | set | frozenset) and len(value) <= MOST and depth < 2:
        entries = value.items() if isinstance(value, dict) else value
        found = [_mark(entry, depth + 1) for entry in entries]
        return type(value).__name__, tuple(found) if not isinstance(value, set | frozenset) else frozenset(found)
    if isinstance(value, dict | list | tuple | set | frozenset):
        return type(value).__name__, len(value)
    return type(value).__name__, id(value)
