"""What a run's processes are given: its workers, its recorder, and Ray Train, which starts them; and what is noted."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from headway import plan, runs
from headway.carried import code, packed
from headway.core.cost import Terms
from headway.core.figures import Subject
from headway.core.membership import Policy
from headway.core.watch import Patience
from headway.driver import determinism, sizes
from headway.driver.submission import Submission
from headway.job import Budget, Job
from headway.notation import values
from headway.notify.addresses import addresses
from headway.runs import datasets, now
from headway.runs.requests import this_person
from headway.tracking import lineage
from headway.tracking.environment import environment
from headway.tracking.prometheus.way import Exported, Way
from headway.tracking.told import at_start


def source_for(run: runs.RunFolder, checked: plan.Plan) -> code.Source:
    """The task's code as workers open it; of a run that lives in a store they get it by Ray."""
    source = code.carried(checked.source, run.code)
    if run.far is None or not (source.copied or (run.code / code.FITTED).is_file()):
        return source
    import ray

    content = packed.pack(run.code)
    sent = packed.Packed(partial(ray.get, ray.put(content)), hashlib.sha256(content).hexdigest())  # type: ignore[arg-type]
    return replace(source, packed=sent)


def policy(job: Job) -> Policy:
    """Of the run's membership."""
    workers = job.workers
    patience = Patience.of(workers.silence_s, workers.hang_s, workers.patience_s)
    return Policy(job.units, workers.min, workers.max, slow=workers.slow, patience=patience, spares=workers.spares)


def alike(job: Job) -> bool:
    """Whether all machines must round alike."""
    return job.reproducible == "bitwise" or job.replica_check_every is not None


def scaling(job: Job, most: int) -> Any:
    """What Ray Train is told of so many workers."""
    from ray.train import ScalingConfig

    return ScalingConfig(num_workers=most, use_gpu=job.workers.gpus > 0, resources_per_worker=job.workers.each)


def config_of(
    run: runs.RunFolder, job: Job, checked: plan.Plan, source: code.Source, recorder: Any, epoch: int
) -> dict[str, Any]:
    """Of the run's workers, see `headway.elastic.worker.main.main`."""
    return {
        "folder": str(run.path),
        "run": run.name,
        "far": run.far,
        "job": runs.kept(job).model_dump(),
        "epoch": epoch,
        "source": source,
        "digest": checked.digest,
        "keeper": run.keeper(),
        "keepers": run.read().get("keepers", ()),
        "recorder": recorder,
    }


def recorder_options(
    run: runs.RunFolder,
    job: Job,
    checked: plan.Plan,
    epoch: int,
    given: dict[str, str],
    around: Callable[[], dict[str, Any]] = environment,
    put: Callable[[Any], Any] | None = None,
    through_ray: bool = False,
    idle_s: float = 0.0,
) -> dict[str, Any]:
    """Arguments of the run's `Recorder`. What may hold a secret goes by reference: what is handed over by value is kept
    with the actor by the cluster's control store. around: gives the environment that the run is begun in. put: makes
    such a reference; Ray's where not given. through_ray: its figures go to Ray's exporter as well. idle_s: see
    `terms`."""
    if put is None:
        import ray

        put = ray.put
    most_aside = {f"data.{use}": int(found.rows * job.data.quarantine_limit) for use, found in checked.datasets.items()}
    tracking = {"uri": job.tracking.uri, "experiment": job.tracking.experiment, "run_name": run.name}
    tracked = job.tracking.enabled
    return {
        "folder": str(run.path),
        "tracking": put(tracking) if tracked else None,
        "first": _first(run, job, checked, around()),
        "every_steps": job.tracking.every_steps,
        "most_aside": most_aside,
        "epoch": epoch,
        "fail_after": job.checkpoint.fail_after,
        "given": put(given),
        "far": run.far,
        "notify": put(addresses(job.notify)[0]),
        "terms": terms(job, idle_s),
        "exported": exported(run, job, checked, through_ray),
        "machines": "keepers" if checked.keeps else "own",
        "best": (job.checkpoint.metric, job.checkpoint.mode),
    }


def terms(job: Job, idle_s: float = 0.0) -> Terms:
    """By which it is said what the run costs. idle_s: so long machines cost on once the run has left them."""
    budget = job.budget or Budget()
    return Terms(job.workers.price_per_hour, budget.worker_hours, budget.usd, idle_s)


def exported(run: runs.RunFolder, job: Job, checked: plan.Plan, through_ray: bool) -> Exported | None:
    """How the run's figures are given to Prometheus; None: not at all. Runs of one sweep have one entry."""
    if not job.prometheus.enabled:
        return None
    workers = (job.workers.min, job.workers.max)
    entry = str((run.read().get("sweep") or {}).get("name") or run.name)
    leaves = way(run.path.parent, entry, job, through_ray)
    return Exported(Subject(job.task.rpartition("/")[2], checked.digest, workers), leaves)


def way(folder: Path, entry: str, job: Job, through_ray: bool) -> Way:
    """How figures leave the process that keeps records. folder: of runs, on this machine; entry: see `Way`."""
    return Way(folder.resolve(), entry, job.prometheus.host, job.prometheus.port, through_ray)


def _first(run: runs.RunFolder, job: Job, checked: plan.Plan, around: dict[str, Any]) -> dict[str, Any]:
    """The event of `first_event`, with what is to be told of this run alone."""
    facts = run.read()
    by = (facts.get("submission") or {}).get("by") or this_person()
    manifests = {use: dataset.digest for use, dataset in checked.datasets.items()}
    tags = at_start(by, run.where, socket.gethostname(), checked.digest, manifests)
    above = lineage.of(facts)
    return {**first_event(job, checked, around), **above, "tags": {**tags, **above.get("tags", {})}}


def first_event(job: Job, checked: plan.Plan, around: dict[str, Any]) -> dict[str, Any]:
    """What the tracking store is told of a run before it starts."""
    places = plan.places(job)
    datasets = [
        {
            "context": use,
            "name": d.name,
            "digest": d.digest,
            "rows": d.rows,
            "path": places[use][0],
            "version": d.version,
            "label": d.label,
            "schema": plan.columns_read(job, d),
        }
        for use, d in checked.datasets.items()
    ]
    return {
        "kind": "run",
        "job": values.shown(runs.kept(job).model_dump()),
        "datasets": datasets,
        "environment": around,
    }


def note_bits(run: runs.RunFolder, job: Job, checked: plan.Plan, submission: Submission | None = None) -> None:
    """Keep how far the run goes, what its bits hang on, and whose submission leads it from here on, if one does. The
    recorder of a driver that was killed may be writing still."""
    whose = submission.facts if submission else {"submission": None}
    told: dict[str, Any] = {"total_steps": checked.total_steps, "fail_after": job.checkpoint.fail_after}
    told["bits"] = determinism.facts(job)
    granted = submission.granted if submission else 0
    begun = submission.sized(job) if submission else job
    told |= sizes.noted(run, job.workers.min, begun.workers.max, granted)
    told["datasets"] = {
        use: {"name": dataset.name, "rows": dataset.rows, "version": dataset.version, "digest": dataset.digest}
        for use, dataset in checked.datasets.items()
    }
    told["digest"] = checked.digest
    told["notes"] = checked.lost
    told["columns"] = next((plan.seen(job, dataset) for dataset in checked.datasets.values()), None)
    with run.hold_records():
        run.write({**run.read(), **whose, **told})
        datasets.keep(run.path, plan.places(job), checked.datasets)
    now.say(run.path, "for what leads it to start")


def tracked(job: Job) -> Job:
    """The job with its tracking URI checked, good in every working folder, and with the password that it was kept
    without."""
    if not job.tracking.enabled or job.tracking.uri is None:
        return job
    from headway.tracking.store import check_uri, with_password

    uri = check_uri(with_password(job.tracking.uri))
    return job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": uri})})
