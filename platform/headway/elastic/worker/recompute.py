"""Activation checkpointing: a block keeps what it was given, and computes the rest again in the backward pass.

PyTorch does it (`torch.utils.checkpoint`, not reentrant). What is added here makes the second time give what the first
gave, and leave nothing behind: random numbers of NumPy's and Python's generators as well, buffers (the running
statistics of batch norm are moved once, and what a block reads of its buffers is what it read before), and training
modes.

A block gets a class of its own, made from its class, in its place: names of modules and weights stay, a copy or a
pickle of it is a plain one, and what looks for its class (`isinstance`) finds it.
"""

from __future__ import annotations

import copyreg
import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from headway.elastic.worker import blocks

_CACHES = ("past_key_values", "past_key_value", "layer_past")
"""Arguments of layers of `transformers` that would be filled twice."""

Count = Callable[[tuple[Any, ...]], AbstractContextManager[Any]]
_counting: list[Count] = []
_again = 0
"""Blocks that are computed again at this moment."""


def use(wanted: bool | Sequence[str], model: nn.Module, others: Mapping[str, nn.Module]) -> list[blocks.Block]:
    """Have the chosen modules keep no activations. Arguments as of `blocks.chosen`.

    Returns:
        Those that do now; what cannot be changed (a scripted module, or one whose `forward` was replaced) is left out.

    Raises:
        BadInput: a pattern that matches none.
    """
    return [block for block in blocks.chosen(wanted, model, others) if _wrap(block.module)]


def under_way() -> bool:
    """Whether a block is being computed again: what its code says has been said before."""
    return _again > 0


@contextmanager
def counting(count: Count) -> Iterator[None]:
    """Meanwhile blocks keep what they keep by themselves, each in the context that `count` gives for its arguments."""
    _counting.append(count)
    try:
        yield
    finally:
        _counting.pop()


# The class in the class's place


class _Checkpointed:
    """Before a module's class in a class made of both."""

    _headway_plain: type[nn.Module]

    def __init_subclass__(cls, **named: Any) -> None:
        """The user's class is not told: it may keep a list of what is made of it, by name."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        made = super().__reduce_ex__(protocol)
        if not isinstance(made, tuple):
            return made
        own, its = type(self), self._headway_plain
        make, arguments = made[0], tuple(its if each is own else each for each in made[1])
        if make is copyreg.__newobj__:  # type: ignore[attr-defined]  # by which pickle wants the very class
            make = its.__new__
        return (its if make is own else make, arguments, *made[2:])


def _wrap(module: nn.Module) -> bool:
    kind = type(module)
    if issubclass(kind, _Checkpointed):
        return True
    if isinstance(module, torch.jit.ScriptModule) or "forward" in vars(module):
        return False
    try:
        module.__class__ = _made(kind)  # type: ignore[arg-type]  # classes are hashable
    except TypeError:  # a class that lays its objects out in its own way
        return False
    return True


@functools.cache
def _made(kind: type[nn.Module]) -> type[nn.Module]:
    inner = kind.forward
    caches = any(each.__name__ == "GradientCheckpointingLayer" for each in kind.__mro__)

    @functools.wraps(inner)
    def forward(self: nn.Module, *arguments: Any, **named: Any) -> Any:
        if caches and self.training and torch.is_grad_enabled():
            named |= {name: None for name in _CACHES if name in named}
            named |= {"use_cache": False} if "use_cache" in named else {}
        return _run(self, functools.partial(inner, self), arguments, named)

    about = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    made: Any = type(kind)
    content = {**about, "forward": forward, "_headway_plain": kind}
    found: type[nn.Module] = made(kind.__name__, (_Checkpointed, kind), content)
    return found


# The two times


def _run(module: nn.Module, forward: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    if torch.compiler.is_compiling():  # the compiler sees to what is kept, and to buffers, by itself
        return _torch_checkpoint()(forward, *arguments, use_reentrant=False, preserve_rng_state=True, **named)
    if _counting:
        with _counting[-1]((*arguments, *named.values())):
            return forward(*arguments, **named)
    if not _has_hooks():
        return forward(*arguments, **named)
    names, given = list(named), len(arguments)

    def call(*every: Any) -> Any:  # what is named is given by place: it may be called as torch's own arguments are
        return forward(*every[:given], **dict(zip(names, every[given:], strict=True)))

    def contexts() -> tuple[_First, _Second]:
        first = _First(module)
        return first, _Second(first)

    return _torch_checkpoint()(
        call,
        *arguments,
        *named.values(),
        use_reentrant=False,
        preserve_rng_state=True,
        context_fn=contexts,
    )


def _torch_checkpoint() -> Callable[..., Any]:
    from torch.utils.checkpoint import checkpoint

    found: Callable[..., Any] = checkpoint
    return found


def _has_hooks() -> bool:
    """Whether autograd takes hooks here; it does not inside of `torch.func`'s transformations."""
    ask = getattr(torch._C._autograd, "_saved_tensors_hooks_is_enabled", None)
    return ask is None or bool(ask())


class _First:
    """The first time, and what it began with.

    Buffers that are changed by it are kept as they were before. Those of torch's own norms need not be: in training
    they decide nothing of what is computed (and no version tells of their changes, which their kernels make).
    """

    def __init__(self, module: nn.Module) -> None:
        self.modules = list(module.modules())
        self.modes: list[bool] = []
        self.numbers: Any = None
        self.python: Any = None
        self.buffers: list[tuple[nn.Module, str, torch.Tensor, int]] = []
        self._there: list[torch.Tensor | None] = []

    def __enter__(self) -> None:
        self.modes = [module.training for module in self.modules]
        self.numbers, self.python = np.random.get_state(), random.getstate()
        self.buffers = [
            (module, name, buffer.detach().clone(), _version(buffer))
            for module in self.modules
            if not _is_plain_norm(module)
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._there = [module._buffers[name] for module, name, _, _ in self.buffers]

    def __exit__(self, *_: object) -> None:
        found = zip(self.buffers, self._there, strict=True)
        self.buffers = [each for each, there in found if isinstance(each[0], _NormBase) or _changed(each, there)]
        self._there = []
        if random.getstate() == self.python:
            self.python = None
        if _same(np.random.get_state(), self.numbers):
            self.numbers = None


class _Second:
    """Another time, whenever and as often as it comes: as the first was, and without a trace."""

    def __init__(self, first: _First) -> None:
        self._first = first
        self._undo: list[list[Callable[[], Any]]] = []

    def __enter__(self) -> None:
        global _again
        _again += 1
        first = self._first
        undo: list[Callable[[], Any]] = []
        self._undo.append(undo)
        for module, mode in zip(first.modules, first.modes, strict=True):
            if module.training != mode:
                undo.append(functools.partial(setattr, module, "training", module.training))
                module.training = mode
        if first.python is not None:
            undo.append(functools.partial(random.setstate, random.getstate()))
            random.setstate(first.python)
        if first.numbers is not None:
            undo.append(functools.partial(np.random.set_state, np.random.get_state()))
            np.random.set_state(first.numbers)
        # Another tensor in a buffer's place, so that nothing that autograd has of the first one changes.
        for module in first.modules:
            if _is_plain_norm(module):
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        undo.append(_put(module, name, buffer.detach().clone()))
        for module, name, before, _ in first.buffers:
            undo.append(_put(module, name, before.clone()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _again
        _again -= 1
        for each in reversed(self._undo.pop()):
            each()


def _put(module: nn.Module, name: str, buffer: torch.Tensor) -> Callable[[], None]:
    before = module._buffers.get(name)
    module._buffers[name] = buffer

    def back() -> None:
        module._buffers[name] = before

    return back


def _is_plain_norm(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and module.training and type(module).__module__.startswith("torch.nn.")


def _version(buffer: torch.Tensor) -> int:
    """Which goes up with every change; -1 where none is told."""
    return -1 if buffer.is_inference() else buffer._version


def _changed(each: tuple[nn.Module, str, torch.Tensor, int], there: torch.Tensor | None) -> bool:
    module, name, _, version = each
    now = module._buffers.get(name)
    return now is not there or now is None or version < 0 or _version(now) != version


def _same(one: Any, other: Any) -> bool:
    """Whether two states of NumPy's generator are."""
    return bool(one[2:] == other[2:] and np.array_equal(one[1], other[1]))
