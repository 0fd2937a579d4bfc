"""A device that is not the CPU, on machines without one: `far:0`, whose memory is host memory in disguise.

Its tensors say that they live elsewhere, and torch believes it: autograd gives the device a thread of its own, mixing
with tensors of the CPU is refused, numpy is too. What they do is done by the CPU's kernels. Work that is put in line
and done later is a `Line`, as a stream of CUDA's; each thread that stands for a worker has its own, and tensors
remember the line that they were made in.

Made with torch's hook for backends written in Python (torch.utils.backend_registration); `install` it once.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "far"

_this_thread = threading.local()
_aten = torch.ops.aten
_MAY_MIX = {_aten.copy_.default, _aten._to_copy.default, _aten.set_.source_Tensor}


class Line:
    """What a device has still to do, in order. Each entry says, when asked, whether it is done, and then is."""

    def __init__(self) -> None:
        self._entries: deque[Callable[[bool], bool]] = deque()
        self._lock = threading.RLock()

    def put(self, entry: Callable[[bool], bool]) -> None:
        """Put in line. It is called with whether to wait, and returns whether it is done."""
        with self._lock:
            self._entries.append(entry)

    def advance(self, wait: bool) -> bool:
        """Do what can be done, or everything; returns whether nothing is left."""
        with self._lock:
            while self._entries and self._entries[0](wait):
                self._entries.popleft()
            return not self._entries


_MAIN = Line()


def line() -> Line | None:
    """Of this thread; None in autograd's, which serves all."""
    found: Line | None = getattr(_this_thread, "line", None)
    return found or (_MAIN if threading.current_thread() is threading.main_thread() else None)


def work_on(line: Line) -> None:
    """Let this thread work on a line."""
    _this_thread.line = line


class Far(torch.Tensor):
    """A tensor on a far device. `near` is its memory: looking there first is looking too early."""

    near: torch.Tensor
    line: Line | None
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, near: torch.Tensor, line: Line | None) -> Far:
        made: Far = torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=torch.device(NAME, 0),
        )
        made.near, made.line = near, line
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Far({self.near})"

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """With it, `module.to` leaves parameters the objects that they are, as on CUDA: optimisers know them."""
        return ["near"], self.line

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], line: Any, size: Any, stride: Any) -> Far:
        return Far(inner["near"], line)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        ours = [value for value in given if isinstance(value, Far)]
        strangers = [value for value in given if not isinstance(value, Far) and value.dim()]
        if strangers and func not in _MAY_MIX and "index" not in func.__name__:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {func} was given {NAME} and cpu")
        lines = {value.line for value in ours if value.line is not None}
        for each in lines:
            each.advance(wait=True)  # the device works in order
        its = next(iter(lines), None)
        wanted = kwargs.get("device")
        found = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        same = {id(value.near): value for value in ours} | {id(value): value for value in strangers}
        stays = wanted is None or torch.device(wanted).type == NAME

        def back(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in same:
                return same[id(value)]
            return Far(value, its) if stays else value

        return tree_map(back, found)


def _near(value: Any) -> Any:
    if isinstance(value, Far):
        return value.near
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value


def _cast(product: Any) -> Callable[..., torch.Tensor]:
    """What autocast makes of a product; all else it leaves alone here."""
    autocast = torch._C.DispatchKeySet(torch._C._dispatch_key_parse("AutocastPrivateUse1"))

    def casting(*given: torch.Tensor | None) -> torch.Tensor:
        dtype = torch.get_autocast_dtype(NAME)
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            found: torch.Tensor = product(*(each if each is None else each.to(dtype) for each in given))
            return found

    return casting


class _Module:
    """What torch asks of `torch.far`."""

    is_available = is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


@functools.cache
def install() -> object:
    """Make the device known to torch, in this process; returns what must be kept."""

    class Guard(torch._C._acc.DeviceGuard):
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.PrivateUse1

    class Hooks(torch._C._acc.PrivateUse1Hooks):
        is_available = is_built = staticmethod(lambda: True)

        def has_primary_context(self, index: int) -> bool:
            return True

    def empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Far:
        return Far(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format), line())

    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Far:
        return Far(torch.empty_strided(size, stride, dtype=dtype), line())

    def copy_from(source: torch.Tensor, to: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        _near(to).copy_(_near(source))
        return to

    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module(), Hooks(), Guard())
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    for name in ("linear", "matmul"):
        library.impl(name, _cast(getattr(_aten, name).default), "AutocastPrivateUse1")
    rest = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    rest.fallback(torch.library.fallthrough_kernel)
    return library, rest


def first_pass() -> None:
    """Make the first backward pass of this process, where threads will make theirs on the device: autograd starts
    its own, and what these need of Python, at the first pass; three first ones at once have been seen to wait for each
    other for ever."""
    weight = torch.ones(2, device=torch.device(NAME, 0), requires_grad=True)
    weight.register_post_accumulate_grad_hook(lambda parameter: None)
    (weight * weight).sum().backward()
