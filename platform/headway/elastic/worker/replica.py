"""What is the same on all workers after each committed step: model, optimiser, schedule, scaler, and the position.

It knows no network, no clock and no disk.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from torch import nn

from headway.core.digest import WORDS, Chain
from headway.core.keys import key
from headway.elastic.worker import update
from headway.elastic.worker.buffers import LaneBuffers
from headway.errors import BadInput, NonFiniteLoss

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Words = np.ndarray[tuple[int], np.dtype[np.uint16]]


class TornState(RuntimeError):
    """What this worker has came in part, and there is nothing whole to take its place."""


@dataclass
class Outcome:
    """What exchanges have told all workers alike.

    Args:
        losses: of the newest step, each lane's share.
        metrics: of the newest evaluation.
        evaluated_step: that it was of; -1 before the first.
        stopping: the run was asked to stop.
    """

    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    evaluated_step: int = -1
    stopping: bool = False


class Replica:
    """See the module.

    Args:
        model: on its device.
        optimizer: over the model's parameters, and maybe others of the user's (a head that belongs to the loss).
        schedule: of the learning rate, if there is one.
        precision: as in the job.
        device: where it computes; that of the model where not given.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler | None,
        precision: str,
        device: torch.device | None = None,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.device = device or next((p.device for p in model.parameters()), torch.device("cpu"))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.buffers = LaneBuffers(model)
        self.step = 0
        self.exchanges = 0
        """Completed with the others; they tell apart survivors of one step."""
        self.samples = Chain()
        self.outcome = Outcome()
        self.whole = False
        """Whether this is a state that others could go on from: not before the first, nor where one came in part."""
        self.torn = False
        """Whether it came in part: then it is not that of the beginning either."""
        self._registered: dict[str, Any] = {}
        self._loaded: dict[str, Any] = {}
        self._applying = False

    # What is trained

    @property
    def own(self) -> list[nn.Parameter]:
        """Parameters of the optimiser that are not the model's."""
        theirs = {id(p) for p in self.model.parameters()}
        return [p for group in self.optimizer.param_groups for p in group["params"] if id(p) not in theirs]

    @property
    def trainable(self) -> list[nn.Parameter]:
        """All that get gradients now, in the same order on every worker. The user may freeze and unfreeze."""
        return [p for p in (*self.model.parameters(), *self.own) if p.requires_grad]

    def names(self) -> dict[str, bool]:
        """The model's parameters by name, and whether each is trained."""
        return {name: parameter.requires_grad for name, parameter in self.model.named_parameters()}

    # State of the user's own

    def register(self, name: str, state: Any) -> None:
        """Raises BadInput for a name that is taken."""
        if name in self._registered:
            raise BadInput(f"session.register({name!r}) was called twice", "names tell states apart", "Choose another.")
        self._registered[name] = state
        if name in self._loaded:
            state.load_state_dict(self._loaded[name])

    # Whole states

    def snapshot(self, registered: bool = True) -> dict[str, Any]:
        """A tree of tensors and plain values by part (model, optimizer, session), not copied."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "session": {
                "schedule": self.schedule.state_dict() if self.schedule else None,
                "scaler": self.scaler.state_dict(),
                "samples": self.samples.hexdigest(),
                "own": [p.detach() for p in self.own],
                "state": {name: s.state_dict() for name, s in self._registered.items()} if registered else {},
            },
        }

    @torch.no_grad()
    def load(self, parts: dict[str, Any], registered: bool = True) -> None:
        """Take a snapshot's state.

        Raises:
            RuntimeError, ValueError, KeyError: it does not fit.
        """
        rest = parts["session"]
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        for parameter, value in zip(self.own, rest.get("own", []), strict=True):
            parameter.copy_(value)
        if self.schedule and rest["schedule"]:
            self.schedule.load_state_dict(rest["schedule"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(rest["scaler"])
        self.samples = Chain(rest["samples"])
        if registered:
            self._loaded = rest["state"]
            for name, state in self._registered.items():
                if name in self._loaded:
                    state.load_state_dict(self._loaded[name])

    def given(self, registered: bool = True) -> dict[str, Any]:
        """All that another worker needs to go on in this one's place."""
        return {
            "parts": self.snapshot(registered),
            "constants": [b for _, b in self._constants()],
            "step": self.step,
            "exchanges": self.exchanges,
            "outcome": vars(self.outcome),
        }

    def places(self, registered: bool = True) -> dict[str, Any]:
        """What another's `given` may be put straight into. Not so the constants: no checkpoint has them, should the
        rest of it never come."""
        return {**self.given(registered), "constants": None}

    def take(self, given: dict[str, Any], registered: bool = True) -> None:
        """Take another worker's state and place; registered: the user's own state as well."""
        self.load(given["parts"], registered)
        with torch.no_grad():
            for (_, buffer), value in zip(self._constants(), given["constants"], strict=True):
                buffer.copy_(value)
        self.step, self.exchanges = given["step"], given["exchanges"]
        evaluated = self.outcome.evaluated_step
        self.outcome = Outcome(**given["outcome"])
        if not registered:  # its own code goes on, and notes what it does
            self.outcome.evaluated_step = evaluated
        self.whole, self.torn = True, False

    def tensors(self) -> Iterator[torch.Tensor]:
        """All parameters, buffers and optimiser state, in a fixed order."""
        state = self.optimizer.state_dict()["state"]
        yield from (v for v in self.model.state_dict().values() if isinstance(v, torch.Tensor))
        yield from (p.detach() for p in self.own)
        for name in sorted(state):
            yield from (value for _, value in sorted(state[name].items()) if isinstance(value, torch.Tensor))

    def bytes(self) -> int:
        """Size of all that."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def words(self) -> Words:
        """XXH3 of all parameters, buffers and optimiser state, in a fixed order; shape [WORDS]. It finds accidents, so
        it need not withstand malice, and has to keep up with memory."""
        digest = xxhash.xxh3_64()
        for tensor in self.tensors():
            plain = tensor.detach().to("cpu").contiguous()
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        return np.frombuffer(digest.digest(), "<u2")[:WORDS]

    def _constants(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Buffers that the state dict leaves out."""
        kept = set(self.model.state_dict(keep_vars=True))
        return ((name, buffer) for name, buffer in self.model.named_buffers() if name not in kept)

    # Updates

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
    def _may_step(self) -> Iterator[None]:
        self._applying = True
        try:
            yield
        finally:
            self._applying = False

    def apply(self, clip_norm: float | None) -> None:
        """One update from the gradients at hand.

        Raises:
            NonFiniteLoss: the gradient is no number, and nothing was applied. Under fp16 scaling an overflow skips the
                update instead, as it should.
        """
        parameters = self.trainable
        if clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
        norm = update.norm(parameters)
        if not self.scaler.is_enabled() and not math.isfinite(value := float(norm)):
            raise NonFiniteLoss(
                f"the gradient's norm is {value} at step {self.step}, though the loss is a number",
                "the update was not applied",
                "Lower the learning rate, set clip_norm, or look for an infinite derivative (sqrt or norm at 0, log of "
                "a vanishing number).",
            )
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        with self._may_step():
            update.step(self.optimizer, self.schedule, self.scaler)


def seed(purpose: str, *place: int) -> None:
    """Set the process's generators (torch, NumPy, Python) to those of a place in the run: what is drawn follows the
    place, not the worker."""
    chosen = key(purpose, *place)
    torch.default_generator.manual_seed(chosen)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(chosen)
    np.random.seed(chosen & 0xFFFFFFFF)  # users' augmentation may call the global generator
    random.seed(chosen)
