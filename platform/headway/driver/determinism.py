"""What a run's bits hang on beside job and data, where it must have the same bits (`reproducible: bitwise`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from headway.errors import BadInput, nearest

if TYPE_CHECKING:
    from headway.job import Job

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")
"""With which cuBLAS sums in one order; see its manual, "Results reproducibility"."""

SHAPES = "TORCH_DYNAMO_AUTOMATIC_DYNAMIC_SHAPES"
"""Whether torch.compile, once it has seen two shapes, compiles for any: then the kernels for a shape, and their bits,
hang on which came before, which a worker that joins or a resumed run has not seen."""

KEYS = {"threads": "workers.cpus", "torch": "torch's version", "device": "workers.gpus"}
"""What sums are rounded by, as `headway resume --allow` names it, and where it is set."""


def facts(job: Job) -> dict[str, Any]:
    """What a run's bits hang on here: threads of a worker, version of torch, kind of device. Empty where none count."""
    if job.reproducible != "bitwise":
        return {}
    # As `torch.__version__`, without the seconds and the memory of its import.
    return {"threads": job.workers.cpus, "torch": version("torch"), "device": "gpu" if job.workers.gpus else "cpu"}


def chosen(allow: Iterable[str]) -> set[str]:
    """The keys that a user allows to differ, each given alone or several with commas.

    Raises:
        BadInput: one is none of KEYS.
    """
    keys = {key.strip() for given in allow for key in given.split(",")}
    for key in sorted(keys - set(KEYS)):
        raise BadInput(f"--allow {key}", "nothing of that name is held against a resume", nearest(key, list(KEYS)))
    return keys


def admit(run: str, before: Mapping[str, Any] | None, now: Mapping[str, Any], allow: set[str]) -> list[str]:
    """What to tell of a run that goes on with other facts than it had.

    Args:
        run: its name.
        before: the facts it was computed with; None: it was begun when none were kept.
        now: those here.
        allow: which may differ.

    Raises:
        BadInput: one differs that may not; names them all, with both values.
    """
    if not now:
        return []
    if before is None:
        known = ", ".join(f"{key}={value}" for key, value in now.items())
        return [f"it is not known with which threads, torch and device {run} began; from here on it has {known}"]
    other = {key: (before.get(key), value) for key, value in now.items() if before.get(key) != value}
    said = [f"{key}={value}, and {was} before" for key, (was, value) in other.items()]
    refused = sorted(set(other) - allow)
    if refused:
        raise BadInput(
            f"run {run} is to have the same bits, and this resume has {'; '.join(said)}",
            "sums would be rounded otherwise from here on",
            f"Resume it as it was ({', '.join(KEYS[key] for key in refused)}), or accept other bits: "
            f"headway resume {run} --allow {','.join(refused)}",
        )
    return [f"other bits from here on, as allowed: {one}" for one in said]


def any_shape() -> bool:
    """Whether the environment has torch.compile compile for any shape."""
    return os.environ.get(SHAPES, "1") == "1"


def enforce(job: Job) -> None:
    """Have GPUs and compiled code give the same bits for the same input, where the job asks for it.

    To be called in a worker before CUDA is started. What torch cannot do in one order it refuses itself, by the name of
    the operation, from then on.

    Raises:
        BadInput: cuBLAS is told otherwise, or CUDA was started before it could be told.
    """
    if job.reproducible != "bitwise":
        return
    os.environ.setdefault(SHAPES, "0")
    compiler = sys.modules.get("torch._dynamo.config")
    if compiler is not None:  # it has read that already
        compiler.automatic_dynamic_shapes = any_shape()  # type: ignore[attr-defined]
    if not job.workers.gpus:
        return
    import torch

    given = os.environ.get(WORKSPACE)
    if given is not None and given not in WORKSPACES:
        raise BadInput(
            f"{WORKSPACE}={given} with reproducible: bitwise",
            "cuBLAS sums in varying orders then",
            f"Unset it, or set it to {' or '.join(WORKSPACES)}.",
        )
    if given is None:
        if torch.cuda.is_initialized():
            raise BadInput(
                f"CUDA was started before reproducible: bitwise could set {WORKSPACE}",
                "cuBLAS reads it once, at its start",
                f"Set {WORKSPACE}={WORKSPACES[0]} in the environment, or touch no GPU as the task's file is imported.",
            )
        os.environ[WORKSPACE] = WORKSPACES[0]
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
