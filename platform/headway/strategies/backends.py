"""Gloo, NCCL, and a worker with nobody else, as a `Group` sees them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ErrorType

from headway.strategies.group import Backend

NCCL_ENVIRONMENT = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",  # else the watchdog ends the process, a survivor, before our abort
    "TORCH_NCCL_BLOCKING_WAIT": "0",  # wait() puts in line; we wait ourselves, and can be freed
    "TORCH_NCCL_ENABLE_MONITORING": "0",  # else a watchdog that is held up by an abort is taken for dead: SIGABRT
    "TORCH_NCCL_PROPAGATE_ERROR": "0",  # peers are told by the coordinator
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",  # else a timeout waits for a dump of all collectives
}
"""Read by each ProcessGroupNCCL as it is made (torch 2.13, ProcessGroupNCCL.cpp)."""


class Gloo:
    """Over TCP between CPUs. A collective that was waited for is complete, or has raised."""

    device: torch.device | None = torch.device("cpu")

    def start(self, store: Any, rank: int, size: int, limit: timedelta, address: str | None) -> Any:
        if address is None:
            return dist.ProcessGroupGloo(store, rank, size, limit)
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._timeout = limit
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
        return dist.ProcessGroupGloo(store, rank, size, options)

    def connect(self, handle: Any) -> None:
        pass

    def done(self, handle: Any) -> bool:
        return True

    def error(self, handle: Any) -> str | None:
        return None

    def abort(self, handle: Any) -> None:
        pass  # does nothing in gloo; its connections are shut down


class Nccl:
    """Between the current CUDA devices of all workers. Not more than one group lives on a device of a process."""

    def __init__(self) -> None:
        self.device: torch.device | None = torch.device("cuda", torch.cuda.current_device())

    def start(self, store: Any, rank: int, size: int, limit: timedelta, address: str | None) -> Any:
        os.environ.update(NCCL_ENVIRONMENT)
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = limit
        return dist.ProcessGroupNCCL(store, rank, size, options)

    def connect(self, handle: Any) -> None:
        with torch.cuda.device(self.device):
            handle.allreduce(
                [torch.zeros(1, dtype=torch.float32, device=self.device)]
            ).wait()  # NCCL connects at the first collective
            torch.cuda.current_stream().synchronize()

    def done(self, handle: Any) -> bool:
        return bool(torch.cuda.current_stream(self.device).query())

    def error(self, handle: Any) -> str | None:
        found = handle.get_error()
        return None if found == ErrorType.SUCCESS else f"NCCL says {found}"

    def abort(self, handle: Any) -> None:
        handle.abort()


class Alone:
    """For a worker with nobody else: both the backend and torch's process group."""

    device: torch.device | None = None

    def start(self, store: Any, rank: int, size: int, limit: timedelta, address: str | None) -> Any:
        return self

    def connect(self, handle: Any) -> None:
        pass

    def done(self, handle: Any) -> bool:
        return True

    def error(self, handle: Any) -> str | None:
        return None

    def abort(self, handle: Any) -> None:
        pass

    def wait(self, *limit: timedelta) -> bool:
        return True

    def allreduce(self, tensors: list[torch.Tensor]) -> Alone:
        return self

    def broadcast(self, tensors: list[torch.Tensor], options: Any) -> Alone:
        return self

    def alltoall_base(self, output: torch.Tensor, input: torch.Tensor, *sizes: list[int]) -> Alone:
        output.copy_(input)
        return self

    def _allgather_base(self, output: torch.Tensor, input: torch.Tensor) -> Alone:
        output.copy_(input)
        return self


BACKENDS: dict[str, type[Backend]] = {"gloo": Gloo, "nccl": Nccl}
