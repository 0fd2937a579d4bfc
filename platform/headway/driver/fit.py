"""A task's `fit` over a training set that is too large for one process: called beside the driver, its questions asked
as Ray Data jobs on the whole cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from headway import variables
from headway.carried import code
from headway.errors import BadInput
from headway.faults import internal
from headway.fitting import work
from headway.job import Job

LOOK_S = 0.2


def on_cluster(job: Job, source: code.Source, stopped: Callable[[], bool]) -> bytes | None:
    """What the task is fitted to, packed; None where it has no `fit`, or was stopped.

    Args:
        job: its datasets' versions are pinned.
        source: of the task, as this machine has it.
        stopped: asked now and then whether to give up.

    Raises:
        BadInput: it failed, or returned what cannot be kept; carries the user's traceback where their code raised.
        RunFailed: Ray or its machines did.
    """
    import ray
    from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]

    beside = {RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    remote: Any = ray.remote(num_cpus=0, label_selector=beside)(_fit)
    reference = remote.remote([ray.put((job, source, variables.given(job)))])
    while not ray.wait([reference], timeout=LOOK_S)[0]:
        if stopped():
            ray.cancel(reference, force=True)
            return None
    try:
        answer: dict[str, Any] = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise internal.of(error, "while the task was fitted") from None
    if "refused" in answer:
        bad = BadInput(*answer["refused"])
        bad.traceback = answer["traceback"]
        raise bad
    found: bytes | None = answer["values"]
    return found


def _fit(given: list[Any]) -> dict[str, Any]:
    """Runs in a process of Ray's. given: a reference, for what is sent by value may hold secrets."""
    import ray
    import torch

    from headway.fitting.spread import Spread

    job, source, environment = ray.get(given[0])
    os.environ.update(environment)
    torch.set_num_threads(job.workers.cpus)
    try:
        return {"values": work.run(job, code.load(source), Spread(environment))}
    except BadInput as error:
        return {"refused": [error.fact, error.reason, error.remedy], "traceback": error.traceback}
