"""The modules whose state a run keeps: the model, and others of the user's (a loss with parameters, a second network).

Buffers may appear at first use: a mask that is built when the length is known. What was made in a lane depends on who
carries which lane, so a buffer counts only once all workers have agreed on what it was at the beginning; the step in
which it appeared is then done again. Whoever resumes or joins gets it before its module would make it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as registration

from headway.errors import BadInput
from headway.weights import plain, plain_state, state_for

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

NOWHERE = 2**31
"""In place of a lane, for what was made outside of lanes."""

DEEP = 8
"""Containers within containers in which a task's modules are looked for."""
MOST = 1000
"""Entries of a container that are looked at: one that holds more holds data."""
_CLOSED = (torch.Tensor, torch.optim.Optimizer, type, ModuleType, FunctionType, MethodType, str, int, float)

Place = tuple[str, nn.Module, str]
"""A buffer's key, the module that has it, and its name there. A key is that of the model's state dict; NAME:PATH for
other modules."""


class Modules:
    """See the module.

    Args:
        model: on its final device.
        others: by name; what they share with the model, or with one another, counts once.
    """

    def __init__(self, model: nn.Module, others: Mapping[str, nn.Module] | None = None) -> None:
        self.model, self.others = model, dict(others or {})
        self.lane = NOWHERE
        """That is under way."""
        self._late: dict[str, torch.Tensor] = {}
        """What all have agreed on, by key: as it was at the beginning."""
        self._made: dict[str, tuple[int, torch.Tensor]] = {}
        """By key: the lane that made it here, and as what."""
        self._promised: set[str] = set()
        """Keys whose modules do not know yet that they were given them."""
        self._suspect = self._ours = False
        self._every: list[nn.Module] | None = None
        """All modules, once they were asked for."""
        self.settle()

    # What there is

    def settle(self) -> None:
        """What is there now was there from the beginning."""
        self._owners = {id(module): prefix for prefix, module in self._modules()}
        self._keys = {*self.model.state_dict(keep_vars=True), *(key for key, _, _ in self._others_buffers())}
        self._every = None

    @property
    def modes(self) -> bytes:
        """Which of them are in training mode, one byte each in a fixed order."""
        if self._every is None:
            self._every = [module for _, module in self._modules()]
        return bytes(module.training for module in self._every)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's, then those of the others, each once; shared ones by their first name."""
        yield from ((plain(name), parameter) for name, parameter in self.model.named_parameters())
        seen = {id(parameter) for parameter in self.model.parameters()}
        for root, other in self.others.items():
            for name, parameter in other.named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{root}:{plain(name)}", parameter

    def places(self) -> list[Place]:
        """The buffers that are kept, in the same order on every worker."""
        found = {key: (key, module, name) for key, module, name in self._present()}
        begun = [place for key, place in found.items() if key in self._keys]
        return begun + [found[key] for key in sorted(self._late) if key in found]

    @property
    def late(self) -> list[str]:
        """Keys of those that appeared at first use, and that all have."""
        return sorted(map(plain, self._late))

    def state(self) -> dict[str, Any]:
        """The model's state dict by plain names, without what was not agreed on."""
        return plain_state(self._state())

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.model.state_dict()
        for key in self._unagreed():
            state.pop(key, None)
        return state

    def others_state(self) -> dict[str, torch.Tensor]:
        """Buffers of the others, by key, without what was not agreed on."""
        there = {key: module._buffers[name] for key, module, name in self._others_buffers()}
        return {plain(k): v for k, v in there.items() if v is not None and (k in self._keys or k in self._late)}

    def tensors(self) -> Iterator[torch.Tensor]:
        """Those of the model's state dict, and what appeared in it after them: in the same order on every worker."""
        state = self._state()
        yield from (v for k, v in state.items() if isinstance(v, torch.Tensor) and k not in self._late)
        yield from (state[key] for key in sorted(self._late) if key in state)

    def _unagreed(self) -> list[str]:
        """Keys of buffers that are not kept yet."""
        if not self._suspect:
            return []
        return [key for key, _, _ in self._present() if key not in self._keys and key not in self._late]

    def load(self, state: Mapping[str, Any], others: Mapping[str, torch.Tensor], late: list[str]) -> None:
        """Take a state, with the keys in it that appeared at first use where it comes from.

        Raises:
            RuntimeError, ValueError, KeyError: it does not fit.
        """
        mine = self.model.state_dict(keep_vars=True)
        state, mine_of = state_for(self.model, state), {plain(key): key for key in self._homes()}
        others = {mine_of.get(plain(key), key): value for key, value in others.items()}
        late = [mine_of.get(plain(key), key) for key in late]
        for key in late:
            if key in state and key not in mine:
                self._give(key, state[key])
        there = {key: (module, name) for key, module, name in self._present()}
        for key in [key for key in there if key not in self._keys and key not in state and key not in others]:
            module, name = there[key]  # made here and not there: as it was made, until all have agreed
            if key in self._late or key in self._made:
                module._buffers[name] = (self._late[key] if key in self._late else self._made[key][1]).clone()
            self._suspect = True
        mine = self.model.state_dict(keep_vars=True)
        spare = {k: mine[k].detach() for k in there if k in mine and k not in self._keys and k not in state}
        self.model.load_state_dict({**state, **spare} if spare else state)
        for key, value in others.items():
            if key in there:
                module, name = there[key]
                module._buffers[name].copy_(value)  # type: ignore[union-attr]
            else:
                self._give(key, value)
        given = {**state, **others}
        self._late = {key: self._late.get(key, given[key].detach().clone()) for key in late}

    # What appears

    @contextmanager
    def watched(self) -> Iterator[None]:
        """See what is made meanwhile, and as what."""
        handles: list[RemovableHandle] = [
            registration.register_module_buffer_registration_hook(self._registered),  # type: ignore[arg-type]
            registration.register_module_module_registration_hook(self._grown),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def used(self) -> None:
        """A lane was done: whatever makes buffers at its first use has made them."""
        self._promised.clear()

    def found(self) -> dict[str, int]:
        """The lane that made it, by key, of what this worker has and not all have agreed on.

        Raises:
            BadInput: it is in a module that was made on the way.
        """
        if not self._suspect:
            return {}
        found = {}
        for key, module, _ in self._present():
            if key not in self._keys and key not in self._late:
                if id(module) not in self._owners:
                    raise _homeless(key)
                found[key] = self._made[key][0] if key in self._made else NOWHERE
        self._suspect = bool(found)
        self._made = {key: made for key, made in self._made.items() if key in found or key in self._late}
        return found

    def first(self, key: str) -> torch.Tensor:
        """What it was when it was made here."""
        if key in self._made:
            return self._made[key][1]
        module, name = self._at(key)
        value = module._buffers[name]
        assert value is not None
        return value.detach()

    def adopt(self, key: str, value: torch.Tensor) -> None:
        """All have agreed that it is there, and was this at the beginning.

        Raises:
            BadInput: the module that has it is not there.
        """
        module, name = self._at(key)
        if module._buffers.get(name) is None:
            self._give(key, value)
        else:
            module._buffers[name] = value.to(self._device(module), copy=True)
        self._late[key] = value.detach().clone()

    def _give(self, key: str, value: torch.Tensor) -> None:
        """Have a buffer in its place before its module makes it."""
        module, name = self._at(key)
        if name not in module._buffers:
            module.__dict__.pop(name, None)
        self._ours = True
        try:
            module.register_buffer(name, value.detach().to(self._device(module), copy=True))
        finally:
            self._ours = False
        self._promised.add(key)

    def _registered(self, module: nn.Module, name: str, buffer: Any) -> torch.Tensor | None:
        """A hook of torch's, for every buffer that is put in its place."""
        owner = self._owners.get(id(module))
        if owner is None or self._ours or not isinstance(buffer, torch.Tensor):
            return None
        key = owner + name
        if key in self._promised:
            self._promised.discard(key)
            there = module._buffers.get(name)
            if there is not None and (there.shape, there.dtype) == (buffer.shape, buffer.dtype):
                return there
        if key not in self._keys and key not in self._late:
            self._suspect = True
            self._made.setdefault(key, (self.lane, buffer.detach().clone()))
        return None

    def _grown(self, module: nn.Module, name: str, child: Any) -> None:
        """A hook of torch's, for every module that is put into another."""
        self._suspect |= id(module) in self._owners
        self._every = None

    def _homes(self) -> Iterator[str]:
        """Keys of all buffers that there are, and that all have agreed on."""
        yield from self._late
        yield from (key for key, _, _ in self._present())

    def _at(self, key: str) -> tuple[nn.Module, str]:
        root, colon, path = key.rpartition(":")
        owner, _, name = path.rpartition(".")
        try:
            return (self.others[root] if colon else self.model).get_submodule(owner), name
        except (AttributeError, KeyError):
            raise _homeless(key) from None

    def _device(self, module: nn.Module) -> torch.device:
        tensors = (*module.parameters(), *module.buffers(), *self.model.parameters())
        return next((t.device for t in tensors), torch.device("cpu"))

    # Walking

    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Each once, with what its buffers' keys begin with."""
        seen: set[int] = set()
        roots = [("", self.model), *((f"{name}:", other) for name, other in self.others.items())]
        for root, whole in roots:
            for path, module in whole.named_modules():
                if id(module) not in seen:
                    seen.add(id(module))
                    yield root + path + ("." if path else ""), module

    def _present(self) -> Iterator[Place]:
        kept = set(self.model.state_dict(keep_vars=True))
        for full_name, _ in self.model.named_buffers():
            owner, _, name = full_name.rpartition(".")
            if full_name in kept:
                yield full_name, self.model.get_submodule(owner), name
        yield from self._others_buffers()

    def _others_buffers(self) -> Iterator[Place]:
        if self.others:
            for prefix, module in self._modules():
                if ":" in prefix:
                    for name, buffer in module._buffers.items():
                        if buffer is not None and name not in module._non_persistent_buffers_set:
                            yield prefix + name, module, name


def of_task(task: Any, model: nn.Module) -> dict[str, nn.Module]:
    """The modules beside the model that an object or its class has as attributes, also in lists, dicts and objects."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = {id(task)}

    def look(name: str, value: Any, depth: int) -> None:
        if isinstance(value, nn.Module):
            if value is not model:
                found.setdefault(name, value)
            return
        inner: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            inner = value.items()
        elif type(value) in (list, tuple):
            inner = enumerate(value)
        elif not isinstance(value, _CLOSED):
            inner = _attributes(value).items()
        if depth < DEEP and id(value) not in seen:
            seen.add(id(value))
            for key, each in islice(inner, MOST):
                look(f"{name}.{key}", each, depth + 1)

    for name, value in vars(task).items():
        look(name, value, 0)
    for kind in type(task).__mro__:
        for name, value in vars(kind).items():
            if isinstance(value, nn.Module) and name not in vars(task):
                look(name, value, 0)
    return found


def _attributes(value: Any) -> dict[str, Any]:
    """Its own, without asking its class, which may make up others."""
    try:
        found: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found


def _homeless(key: str) -> BadInput:
    return BadInput(
        f"the buffer {key.replace(':', '.')} is in a module that was made after the session began",
        "a worker that joins, or a run that is resumed, has no such module to put it in",
        "Make the module where the model is built; its buffers may come later.",
    )
