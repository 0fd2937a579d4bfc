"""Where these tests compute: a CUDA device; or the CPU, to rehearse them on a machine without one.

bash tests/gpu/run.sh                         on a machine with a GPU; Ray and MLflow need not be there
HEADWAY_GPU_TESTS=cpu bash tests/gpu/run.sh   a rehearsal: the same tests, but for those that only a GPU can fail
"""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = os.environ.get("HEADWAY_GPU_TESTS", "cuda")
REHEARSAL = DEVICE == "cpu"
BACKEND = "gloo" if REHEARSAL else "nccl"

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # to look for a device starts no CUDA: children may

device = pytest.mark.skipif(
    not REHEARSAL and not torch.cuda.is_available(),
    reason="there is no CUDA device; HEADWAY_GPU_TESTS=cpu rehearses these tests on the CPU",
)
"""For tests that compute on DEVICE."""
gpu_only = pytest.mark.skipif(
    REHEARSAL or not torch.cuda.is_available(), reason="there is no CUDA device, and the CPU has nothing like this"
)
"""For tests of what only a GPU has."""


def settled() -> None:
    """All that was put in line on the device is done."""
    if not REHEARSAL:
        torch.cuda.synchronize()
