"""A large prediction as a Ray Data job: its tasks write parts, and only their notes come back.

They are functions, not actors: processes are used again, so each loads the model once, and none is made that is not
needed. What the task's code raises is returned, for Ray would wrap it beyond recognition.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch

from headway.data.prepare.stages import pipeline
from headway.errors import HeadwayError
from headway.job import Job
from headway.models.output import Part
from headway.models.predicting import Predictor
from headway.models.work import Work

_PART = ("number", *Part.__dataclass_fields__)
_held: dict[bytes, tuple[Work, Predictor]] = {}
"""Of this process: what it predicts with."""


def done(items: pa.Table) -> pa.Table:
    """Runs on the cluster: predict pieces; gives what was written, or why it was not."""
    rows: list[dict[str, Any]] = []
    for item in items.to_pylist():
        number = item["number"]
        try:
            work, predictor = _held_of(item["work"])
            part = work.do(predictor, number, pickle.loads(item["piece"]), item["start"])
        except HeadwayError as error:
            rows.append({**dict.fromkeys(_PART), "number": number, "failed": pickle.dumps(error)})
        else:
            rows.append({"number": number, **vars(part), "failed": None})
    kinds = {"number": pa.int64(), "name": pa.string(), "rows": pa.int64(), "bytes": pa.int64(), "sha256": pa.string()}
    return pa.Table.from_pylist(rows, pa.schema({**kinds, "failed": pa.binary()}))


def _held_of(content: bytes) -> tuple[Work, Predictor]:
    if content not in _held:
        _held.clear()
        work: Work = pickle.loads(content)
        torch.set_num_threads(work.threads)
        _held[content] = work, work.predictor("cuda" if torch.cuda.is_available() else "cpu")
    return _held[content]


def predicted(work: Work, job: Job, left: list[int], address: str | None, say: Any) -> dict[int, Part]:
    """Predict pieces on a cluster, by tasks with the CPUs and GPUs of the training's workers.

    Args:
        work: that is to be done; all machines see the run, the data and the output.
        job: of the run.
        left: numbers of the pieces.
        address: of the cluster, see `headway.driver.attach`.
        say: is told how many rows are done.

    Returns:
        The parts by number.

    Raises:
        BadInput, BadCheckpoint, UserCodeFailed: as of `headway.predict`.
        RunFailed: the cluster.
    """
    with pipeline.ray_for(address) as cpus:
        import ray
        from ray.exceptions import RayError

        gpus = job.workers.gpus if ray.cluster_resources().get("GPU", 0) >= job.workers.gpus else 0
        items = ray.data.from_items(_items(work, left), override_num_blocks=len(left))
        items.context.enable_progress_bars = False
        items.context.print_on_execution_start = False
        share = min(job.workers.cpus, cpus)
        made = items.map_batches(done, batch_size=1, batch_format="pyarrow", num_cpus=share, num_gpus=gpus or None)
        parts: dict[int, Part] = {}
        rows = (work.source.rows or 0) - sum(work.source.pieces[number].rows or 0 for number in left)
        with pipeline.quiet(), pipeline.raising_ours(RayError):
            for bundle in made.iter_internal_ref_bundles():
                for entry in bundle.blocks:
                    for row in ray.get(entry.ref).to_pylist():
                        if row["failed"] is not None:
                            raise pickle.loads(row["failed"])
                        parts[row["number"]] = Part(**{name: row[name] for name in Part.__dataclass_fields__})
                        rows += row["rows"]
                say(rows, work.source.rows)
        return parts


def _items(work: Work, left: list[int]) -> list[dict[str, Any]]:
    """What tasks are told of each piece."""
    whole, starts = pickle.dumps(replace(work, source=replace(work.source, pieces=()))), work.source.starts
    pieces = work.source.pieces
    return [
        {"number": number, "start": starts[number], "piece": pickle.dumps(pieces[number]), "work": whole}
        for number in left
    ]
