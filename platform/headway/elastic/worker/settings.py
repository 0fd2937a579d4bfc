"""Torch's and NumPy's settings of this process, as a run finds them: they are put back after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from headway.driver import determinism

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]
"""What gives it, and what sets it."""


def as_found() -> Callable[[], None]:
    """Remember all of them; what is returned puts those back that are others by then.

    Only those, for to set one may import what nobody has used.
    """
    found = [(get, put, get()) for get, put in _settings()]

    def put_back() -> None:
        for get, put, value in found:
            if get() != value:
                put(value)

    return put_back


def _settings() -> Iterator[Setting]:
    """Of torch and NumPy: what gives each, and what sets it."""
    yield torch.get_default_dtype, torch.set_default_dtype
    yield torch.get_num_threads, torch.set_num_threads
    yield torch.is_grad_enabled, torch.set_grad_enabled
    yield torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    yield torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    yield torch.is_warn_always_enabled, torch.set_warn_always
    yield _device, torch.set_default_device
    yield _flags(torch.backends.cudnn, "enabled", "benchmark", "deterministic", "allow_tf32")
    cuda, reduced = torch.backends.cuda, "reduced_precision_reduction"
    yield _flags(cuda.matmul, "allow_tf32", f"allow_bf16_{reduced}", f"allow_fp16_{reduced}")
    yield cuda.flash_sdp_enabled, cuda.enable_flash_sdp
    yield cuda.math_sdp_enabled, cuda.enable_math_sdp
    yield cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp
    yield cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp
    yield cuda.fp16_bf16_reduction_math_sdp_allowed, cuda.allow_fp16_bf16_reduction_math_sdp
    yield _flags(torch.backends.mkldnn, "enabled")
    yield _flags(torch.backends.opt_einsum, "enabled", "strategy")
    yield _flags(torch.utils.deterministic, "fill_uninitialized_memory")
    for device in ("cpu", "cuda"):
        yield partial(torch.is_autocast_enabled, device), partial(torch.set_autocast_enabled, device)
        yield partial(torch.get_autocast_dtype, device), partial(torch.set_autocast_dtype, device)
    yield torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled
    yield _flushes, torch.set_flush_denormal
    yield _of_loaded("torch._inductor.config", "deterministic", lambda: False)
    yield _of_loaded("torch._dynamo.config", "automatic_dynamic_shapes", determinism.any_shape)
    yield lambda: dict(np.geterr()), lambda given: np.seterr(**given)
    yield sys.getrecursionlimit, sys.setrecursionlimit


def _device() -> torch.device | None:
    """That the user's code asked for; None: the default."""
    found = torch.get_default_device()
    return None if found.type == "cpu" else found


def _flushes() -> bool:
    """Whether numbers too small for all of their digits are taken for zero."""
    return not float(torch.tensor(1e-40) * 1.0)


def _flags(home: Any, *names: str) -> Setting:
    def put(values: Any) -> None:
        for name, value in zip(names, values, strict=True):
            if getattr(home, name) != value:
                setattr(home, name, value)

    return lambda: [getattr(home, name) for name in names], put


def _of_loaded(module: str, name: str, default: Callable[[], Any]) -> Setting:
    """Of a module that is asked only where somebody has imported it; until then it will be the default."""

    def put(value: Any) -> None:
        if module in sys.modules:
            setattr(sys.modules[module], name, value)

    return lambda: getattr(sys.modules.get(module), name, default()), put
