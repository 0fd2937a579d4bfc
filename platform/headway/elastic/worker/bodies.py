"""The weights, buffers and optimiser state of a replica, put in the model's place and taken out again: by pointers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headway.errors import BadInput
from headway.strategies.parameter_server.shard import copied

if TYPE_CHECKING:
    from headway.elastic.worker.replica import Replica

States = dict[nn.Parameter, dict[str, Any]]


@dataclass
class Body:
    """What differs between replicas.

    Args:
        weights: of all parameters, in the order of `Bodies.parameters`.
        buffers: of all modules; None where there is none yet.
        optimizer: its state by parameter.
    """

    weights: list[torch.Tensor]
    buffers: list[torch.Tensor | None]
    optimizer: States


class Bodies:
    """Of one session.

    Args:
        replica: whose model, modules and optimiser they are put in.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._optimizer = replica.optimizer
        self.parameters = replica.everything
        held = {id(p) for p in replica.updates.parameters}
        self._held = [id(p) in held for p in self.parameters]
        self._order = {p: number for number, p in enumerate(replica.updates.parameters)}
        self._by_number = list(replica.updates.parameters)

    @property
    def trained(self) -> list[int]:
        """Numbers of the parameters that the optimiser holds and that are no whole numbers."""
        return [n for n, p in enumerate(self.parameters) if self._held[n] and _is_number(p)]

    @property
    def shapes(self) -> list[torch.Size]:
        """Of the tensors that lie in `flat`, one after another."""
        return [_real(self.parameters[n].data).shape for n in self.trained]

    def check(self) -> None:
        """Raises BadInput: the optimiser was given parameters since the session began."""
        if [*map(id, self._replica.updates.parameters)] != [*map(id, self._by_number)]:
            raise BadInput(
                "the optimiser was given a group of parameters in the course of the run (add_param_group)",
                "its replicas go on by themselves, and those under way have no values of their own for them",
                "Make all groups at the beginning, with requires_grad_(False) on those that are to wait.",
            )

    def now(self) -> Body:
        """What is in place; the tensors themselves."""
        places = self._replica.modules.places()
        buffers = [module._buffers.get(name) for _, module, name in places]
        return Body([p.data for p in self.parameters], buffers, dict(self._optimizer.state))  # type: ignore[arg-type]

    def put(self, body: Body) -> None:
        """Have it in place."""
        for parameter, value in zip(self.parameters, body.weights, strict=True):
            parameter.data = value
            parameter.grad = None
        for (_, module, name), buffer in zip(self._replica.modules.places(), body.buffers, strict=True):
            module._buffers[name] = buffer
        self._optimizer.state = defaultdict(dict, body.optimizer)  # type: ignore[arg-type]

    @contextmanager
    def borrowed(self) -> Iterator[Body]:
        """A copy of what is in place is there meanwhile."""
        before = self.now()
        body = self.copy(before)
        self.put(body)
        try:
            yield body
        finally:
            self.put(before)

    def copy(self, body: Body) -> Body:
        """Another one to be trained: of what nothing moves it has the same tensors."""
        weights = [w.clone() if held else w for w, held in zip(body.weights, self._held, strict=True)]
        return Body(weights, [None if b is None else b.clone() for b in body.buffers], cloned(body.optimizer))

    # As trees, which travel and are kept

    def optimizer_tree(self, states: States) -> dict[str, Any]:
        """By the parameter's number in the optimiser."""
        return {str(self._order[p]): dict(state) for p, state in states.items() if p in self._order}

    def optimizer_of(self, tree: dict[str, Any]) -> States:
        """The opposite; tensors are where the parameters are, but for those without dimensions."""
        found: States = {}
        for number, state in tree.items():
            parameter = self._by_number[int(number)]
            found[parameter] = {key: _there(value, parameter) for key, value in state.items()}
        return found

    def tree(self, body: Body) -> dict[str, Any]:
        """All of it."""
        weights = [w for w, held in zip(body.weights, self._held, strict=True) if held]
        return {"weights": weights, "buffers": list(body.buffers), "optimizer": self.optimizer_tree(body.optimizer)}

    def body_of(self, tree: dict[str, Any], common: Body) -> Body:
        """The opposite; common: where it has what nothing moves."""
        moved = iter(tree["weights"])
        weights = [next(moved).to(w.device) if held else w for w, held in zip(common.weights, self._held, strict=True)]
        pairs = zip(tree["buffers"], common.buffers, strict=True)
        buffers = [b if b is None or at is None else b.to(at.device) for b, at in pairs]
        return Body(weights, buffers, self.optimizer_of(tree["optimizer"]))

    # As one vector, which is summed

    def flat(self, body: Body) -> torch.Tensor:
        """The trained weights; float32, or float64 where some are; shape [elements]."""
        return _flat([body.weights[n] for n in self.trained])

    @torch.no_grad()
    def spread(self, flat: torch.Tensor, weights: list[torch.Tensor]) -> None:
        """The opposite, into these tensors of all weights."""
        _spread(flat, [weights[n] for n in self.trained])

    def rest(self, body: Body, optimizer: bool) -> torch.Tensor:
        """What is averaged beside them: buffers of real numbers, and of the optimiser's state what has dimensions;
        float32, shape [elements]."""
        return _flat(self._averaged(body, optimizer))

    @torch.no_grad()
    def spread_rest(self, flat: torch.Tensor, body: Body, optimizer: bool) -> None:
        _spread(flat, self._averaged(body, optimizer))

    def shape_of_rest(self, body: Body, optimizer: bool) -> list[list[Any]]:
        """By which replicas that have the same are known."""
        states = self.optimizer_tree(body.optimizer) if optimizer else {}
        return [
            [number, key, list(value.shape)]
            for number in sorted(states, key=int)
            for key, value in sorted(states[number].items())
            if _is_averaged(value)
        ]

    def _averaged(self, body: Body, optimizer: bool) -> list[torch.Tensor]:
        found = [b for b in body.buffers if b is not None and _is_number(b)]
        for parameter in sorted(body.optimizer, key=self._order.__getitem__) if optimizer else ():
            state = body.optimizer[parameter]
            found += [state[key] for key in sorted(state) if _is_averaged(state[key])]
        return found

    def counters(self, body: Body) -> list[Any]:
        """Buffers that are no real numbers, as arrays."""
        return [b.cpu().numpy() for b in body.buffers if b is not None and not _is_number(b)]

    @torch.no_grad()
    def set_counters(self, arrays: list[Any], body: Body) -> None:
        mine = [b for b in body.buffers if b is not None and not _is_number(b)]
        for buffer, value in zip(mine, arrays, strict=True):
            buffer.copy_(torch.from_numpy(value).view(buffer.shape))


def _is_number(tensor: torch.Tensor) -> bool:
    """Real or complex."""
    return tensor.is_floating_point() or tensor.is_complex()


def _is_averaged(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and _is_number(value)


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """A view of real numbers."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    tensors = [_real(t.detach()) for t in tensors]
    wide = any(t.dtype == torch.float64 for t in tensors)
    parts = [t.reshape(-1).to(torch.float64 if wide else torch.float32) for t in tensors]
    return torch.cat(parts) if parts else torch.zeros(0)


def _spread(flat: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    at = 0
    for tensor in map(_real, tensors):
        tensor.copy_(flat[at : at + tensor.numel()].view(tensor.shape))
        at += tensor.numel()


def cloned(states: States) -> States:
    """With tensors of its own."""
    return {p: copied(state) for p, state in states.items()}


def _there(value: Any, parameter: nn.Parameter) -> Any:
    if isinstance(value, torch.Tensor) and value.dim():
        return value.to(parameter.device)
    return value
