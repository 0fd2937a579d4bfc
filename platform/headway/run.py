"""From a job to a report: lead a run on an embedded or an existing Ray cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from headway import code, determinism, embedded, plan, runs
from headway.errors import BadInput, RunFailed, UserCodeFailed
from headway.job import Job, load, parse
from headway.report import Report
from headway.report import load as load_report

POLL_S = 0.2
KNOCK_S = 10.0
OBJECT_STORE_BYTES = 256 * 2**20
TRACKING_CLOSE_S = 60.0


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        run: its name.
        step: committed steps.
        total_steps: asked for; 0 while not known.
        epoch: complete walks through the data.
        loss: of the newest step.
        samples_per_s: over the latest seconds.
        steps_per_s: likewise.
        workers: in the group; 0 while none has started.
        goodput: share of worker-seconds that ended in committed steps.
        metrics: the newest evaluation.
        messages: to show, each once.
    """

    run: str
    step: int
    total_steps: int
    epoch: int
    loss: float | None
    samples_per_s: float
    steps_per_s: float
    workers: int
    goodput: float
    metrics: dict[str, float]
    messages: list[str]


Watch = Callable[[Progress], None]


def train(
    job: Job | dict[str, Any] | str | Path,
    *,
    name: str | None = None,
    runs_folder: str | Path = "runs",
    address: str | None = None,
    watch: Watch | None = None,
) -> Report:
    """Run a job from its beginning.

    Args:
        job: a Job, the same as a mapping, or the path of its YAML file.
        name: of the run; the job's name with the time when not given.
        runs_folder: where the run's folder is made. Every machine of the cluster must see it under the same path.
        address: None or "local" for an embedded Ray, "auto" or HOST:PORT for an existing cluster. A Ray that this
            process is already connected to is used as it is.
        watch: called a few times a second with the progress.

    Returns:
        The report; its state is "finished", or "interrupted" after Ctrl-C (resumable).

    Raises:
        BadInput: the job, its data or its task cannot be used; nothing was started.
        UserCodeFailed: the task raised; carries its traceback.
        RunFailed: the run could not go on.
    """
    if not isinstance(job, Job):
        job = parse(job) if isinstance(job, dict) else load(job)
    job = _tracked(job)
    folder = Path(runs_folder)
    checked = plan.check(job, space=folder)
    job = plan.pinned(job, checked)
    run = runs.create(folder, name, job)
    with run.led() as epoch:
        _note_bits(run, job)
        _tell(watch, run, checked, [f"note: {warning}" for warning in checked.warnings])
        try:
            return _lead(run, job, checked, address, watch, epoch)
        except BadInput:  # there is no cluster to run on: as if nothing had been started
            shutil.rmtree(run.path, ignore_errors=True)
            raise


def resume(
    name: str,
    *,
    runs_folder: str | Path = "runs",
    address: str | None = None,
    watch: Watch | None = None,
    settings: list[str] | None = None,
    allow: Sequence[str] = (),
) -> Report:
    """Go on with a run from its newest sound checkpoint (or from its beginning, if it has none).

    Args:
        name: of the run, or the path of its folder.
        settings: `key=value` changes to the job; only those that do not change what the run computes are accepted.
        allow: what may differ of threads, torch and device, though the run is to have the same bits.

    The other arguments, results and errors are those of `train`.

    Raises:
        BadInput: there is no such run, it has finished, or it is running; or its bits would change, unasked.
        BadCheckpoint: its newest sound checkpoint belongs to another job.
    """
    run, allowed = runs.find(Path(runs_folder), name), determinism.chosen(allow)
    job = _tracked(load(run.job_file, settings))
    with run.led() as epoch:
        facts = run.read()
        checked = plan.check(job, space=run.path, source=_source(run, job))
        if facts.get("state") == "finished" and facts.get("steps", 0) >= checked.total_steps:
            raise BadInput(
                f"run {run.name} has finished",
                f"all {checked.total_steps} steps are done",
                "Start a new run, or extend it with --set epochs=N.",
            )
        from headway.checkpoint.store import Store

        start, passed_over = Store(run.checkpoints, checked.digest, job.checkpoint).newest()
        here = determinism.facts(job)
        told = determinism.admit(run.name, facts.get("bits"), here, allowed) if start else []
        runs.write_job(run, job)
        _note_bits(run, job)
        where = f"step {start.step}" if start else "the beginning: it has no sound checkpoint"
        notes = [f"passed over a damaged checkpoint: {reason}" for reason in passed_over]
        _tell(watch, run, checked, [*notes, *told, f"resuming {run.name} from {where}"])
        return _lead(run, job, checked, address, watch, epoch)


def _note_bits(run: runs.RunFolder, job: Job) -> None:
    """Keep what the run's bits hang on from here on. The recorder of a driver that was killed may still be writing."""
    with run.hold_records():
        run.write({**run.read(), "bits": determinism.facts(job)})


def _tell(watch: Watch | None, run: runs.RunFolder, checked: plan.Plan, messages: list[str]) -> None:
    """Messages from before the first worker starts."""
    if watch is not None:
        watch(Progress(run.name, 0, checked.total_steps, 0, None, 0.0, 0.0, 0, 0.0, {}, messages))


def _source(run: runs.RunFolder, job: Job) -> code.Source:
    """The task's code where the job says, as its author may have mended it; else the copy that the run carries."""
    try:
        return code.locate(job.task)
    except BadInput:
        where, _, name = job.task.rpartition(":")
        module = Path(where).stem if where.endswith(".py") else where
        inside = "" if where.endswith(".py") else where.partition(".")[0]
        if not run.code.is_dir():
            raise
        return code.Source(run.code, module, name, inside)


def _tracked(job: Job) -> Job:
    """The job with its tracking URI checked, good in every working folder, and with the password that it was kept
    without."""
    if not job.tracking.enabled or job.tracking.uri is None:
        return job
    from headway.tracking.store import check_uri, with_password

    uri = check_uri(with_password(job.tracking.uri))
    return job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": uri})})


def _lead(
    run: runs.RunFolder, job: Job, checked: plan.Plan, address: str | None, watch: Watch | None, epoch: int
) -> Report:
    if checked.source.folder != run.code:
        code.carry(checked.source, run.code)
    stop = threading.Event()
    with _signals(stop), _ray(job, address, run):
        import ray

        recorder = _recorder(run, job, checked, epoch)
        ended = threading.Event()
        trouble: list[BaseException] = []

        def fit() -> None:
            try:
                _fit(run, job, checked, recorder, epoch)
            except BaseException as error:  # told to the leading thread below
                trouble.append(error)
            finally:
                ended.set()

        threading.Thread(target=fit, name="ray-train", daemon=True).start()
        failure = _watch(run, recorder, ended, stop, watch)
        if failure is None and trouble:
            last = str(trouble[0]).strip().splitlines() or [type(trouble[0]).__name__]
            failure = {"kind": "ray", "fact": "Ray Train ended the run", "reason": last[-1], "remedy": ""}
        done = ray.get(recorder.done.remote())
        if failure is not None:
            state, message = "failed", _said(failure)
        elif done >= checked.total_steps:
            state, message = "finished", ""
        else:
            state, message = "interrupted", f"stopped on request after step {done}"
        found = ray.get(recorder.finish.remote(state, message, TRACKING_CLOSE_S if job.tracking.enabled else 0.0))
        ray.kill(recorder)
    if failure is None and found.get("unwritten"):
        remedy = f"Free space, then `headway resume {run.name}`."
        failure = {"kind": "records", "fact": "the last records could not be written", "reason": found["unwritten"]}
        failure["remedy"] = remedy
    if failure is not None:
        original = "" if checked.source.folder == run.code else str(checked.source.folder)
        raise _raised(failure, str(run.code), original)
    return load_report(run)


def _watch(
    run: runs.RunFolder, recorder: Any, ended: threading.Event, stop: threading.Event, watch: Watch | None
) -> dict[str, Any] | None:
    """Follow the run to its end. Returns the failure, if there was one."""
    import ray

    seen, asked, failed_at = 0, False, None
    while True:
        last = ended.wait(POLL_S)
        if stop.is_set() and not asked:
            ray.get(recorder.request_stop.remote())
            asked = True
        found = ray.get(recorder.progress.remote(seen))
        seen = found["messages_seen"]
        if watch is not None:
            shown = {field.name: found[field.name] for field in fields(Progress) if field.name in found}
            watch(Progress(run=run.name, **shown))
        if found["failure"] is not None:
            failed_at = failed_at or time.monotonic()
            if last or time.monotonic() - failed_at > 10.0:  # workers that hang in a reduction end with the cluster
                failure: dict[str, Any] = found["failure"]
                return failure
        if last:
            return None


def _fit(run: runs.RunFolder, job: Job, checked: plan.Plan, recorder: Any, epoch: int) -> None:
    from ray.train import RunConfig, ScalingConfig

    from headway.core.membership import Policy
    from headway.core.watch import Patience
    from headway.elastic.lead.controller import ElasticTrainer
    from headway.elastic.worker.main import main

    workers = job.workers
    patience = Patience.of(workers.silence_s, workers.hang_s, workers.patience_s)
    resources = {"CPU": float(workers.cpus)}
    resources |= {"GPU": float(workers.gpus)} if workers.gpus else {}
    resources |= {"memory": float(workers.memory)} if workers.memory else {}
    ElasticTrainer(
        main,
        {
            "policy": Policy(job.lanes, workers.min, workers.max, slow=workers.slow, patience=patience),
            "recorder": recorder,
            "alike": job.reproducible == "bitwise" or job.replica_check_every is not None,
        },
        train_loop_config={
            "folder": str(run.path),
            "job": runs.kept(job).model_dump(mode="json"),
            "epoch": epoch,
            "source": code.carried(checked.source, run.code),
            "digest": checked.digest,
            "recorder": recorder,
        },
        scaling_config=ScalingConfig(num_workers=workers.max, use_gpu=workers.gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(name=run.name, storage_path=str(run.path / "ray")),
    ).fit()


def _recorder(run: runs.RunFolder, job: Job, checked: plan.Plan, epoch: int) -> Any:
    import ray
    from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]

    from headway.elastic.lead.recorder import Recorder

    here = ray.get_runtime_context().get_node_id()
    actor = ray.remote(num_cpus=0, label_selector={RAY_NODE_ID_KEY: here})(Recorder)
    most_aside = {f"data.{use}": int(found.rows * job.data.quarantine_limit) for use, found in checked.datasets.items()}
    rest = (job.tracking.every_steps, most_aside, epoch, job.checkpoint.fail_after)
    if not job.tracking.enabled:
        return actor.remote(str(run.path), None, {}, *rest)
    tracking = {"uri": job.tracking.uri, "experiment": job.tracking.experiment, "run_name": run.name}
    return actor.remote(str(run.path), tracking, _first_event(job, checked), *rest)


def _first_event(job: Job, checked: plan.Plan) -> dict[str, Any]:
    """What the tracking store is told of a run before it starts."""
    from headway.tracking.environment import environment

    places = plan.places(job)
    datasets = [
        {
            "context": use,
            "name": d.name,
            "digest": d.digest,
            "rows": d.rows,
            "path": places[use][0],
            "schema": dict(d.schema),
        }
        for use, d in checked.datasets.items()
    ]
    return {
        "kind": "run",
        "job": runs.kept(job).model_dump(mode="json"),
        "datasets": datasets,
        "environment": environment(),
    }


@contextmanager
def _ray(job: Job, address: str | None, run: runs.RunFolder) -> Iterator[None]:
    """A Ray to run on. Only what was started or connected here is ended."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    _hush()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address in (None, "local"):
        cpus = max(os.cpu_count() or 1, job.workers.max * job.workers.cpus + 1)
        embedded.start(cpus, OBJECT_STORE_BYTES, **quiet)
    else:
        _knock(str(address))
        shipped = {"working_dir": str(run.code), "py_modules": [str(Path(__file__).parent)]}
        try:
            ray.init(address=address, runtime_env=shipped, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(str(address), error) from None
    try:
        yield
    finally:
        ray.shutdown()


def _hush() -> None:
    """Ray prints what befalls the cluster on standard output, which belongs to the report; we tell it in our words."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None


def _knock(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> BadInput:
    reason = f"no Ray cluster answers there ({str(error).splitlines()[0]})"
    return BadInput(f"--address {address}", reason, "Check the address, or leave it out to run on this machine.")


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the run to take a checkpoint and end; a second one ends this process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: Any) -> None:
        if stop.is_set():
            os.write(sys.stderr.fileno(), b"\nended at once, as asked twice\n")
            os._exit(130)
        stop.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _said(failure: dict[str, Any]) -> str:
    if failure["kind"] == "task":
        return f"the task raised {failure['reason']} in {failure['fact']}"
    return str(RunFailed(failure["fact"], failure["reason"], failure["remedy"]))


def _raised(failure: dict[str, Any], copied: str, original: str) -> RunFailed:
    """The failure as an error; a traceback names the user's own files, not the copies that the workers ran."""
    trace = failure.get("traceback", "")
    trace = trace.replace(copied, original) if original else trace
    if failure["kind"] == "task":
        return UserCodeFailed(failure["fact"], failure["reason"], trace)
    error = RunFailed(failure["fact"], failure["reason"], failure["remedy"])
    error.traceback = trace
    return error
