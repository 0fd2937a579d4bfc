"""torch's compiler is not imported before somebody compiles: it takes as long as all the rest of torch.

torch's optimisers import it as they are made (`torch._disable_dynamo`, to keep methods from being compiled) and as they
are stepped (for a mark in what is compiled, which does nothing elsewhere). While there is no compiler in the process,
there is nothing to be marked for it; from the moment that there is one, everything is as torch has it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

_MARK = "__dynamo_disable"
"""Where `torch._compile` keeps a method's marked form."""
_COMPILER = "torch._dynamo"

Method = Callable[..., Any]


def leave_for_later() -> None:
    """Have torch's optimisers made and stepped without the compiler. Where torch does it in another way by now, this
    changes nothing."""
    if _COMPILER in sys.modules:
        return
    for method in vars(torch.optim.Optimizer).values():
        inner = getattr(method, "__wrapped__", None)
        if _is(method, "inner") and inner is not None and not hasattr(inner, _MARK):
            setattr(inner, _MARK, _unmarked(method, inner))
    for kind in vars(torch.optim).values():
        step: Any = vars(kind).get("step") if isinstance(kind, type) else None
        if _is(step, "_use_grad") and hasattr(step, "__wrapped__"):
            kind.step = _stepped(step)


def _is(method: Any, name: str) -> bool:
    """Whether a function was defined under this name, whatever it wraps."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_name == name


def _unmarked(method: Method, inner: Method) -> Method:
    """In place of what `torch._disable_dynamo` would make of `inner` at its first call."""

    @functools.wraps(inner)
    def plain(*arguments: Any, **named: Any) -> Any:
        if _COMPILER not in sys.modules:
            return inner(*arguments, **named)
        if getattr(inner, _MARK, None) is plain:
            delattr(inner, _MARK)
        return method(*arguments, **named)

    return plain


def _stepped(step: Method) -> Method:
    """A `step` of torch's, as `torch.optim.optimizer._use_grad_for_differentiable` has it outside of what is
    compiled."""
    inner: Method = step.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(inner)
    def plain(self: torch.optim.Optimizer, *arguments: Any, **named: Any) -> Any:
        if _COMPILER in sys.modules:
            return step(self, *arguments, **named)
        before = torch.is_grad_enabled()
        try:
            torch.set_grad_enabled(self.defaults["differentiable"])
            return inner(self, *arguments, **named)
        finally:
            torch.set_grad_enabled(before)

    return plain
