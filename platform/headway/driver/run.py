"""From a job to a report: lead a run on an embedded or an existing Ray cluster."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from headway import plan, runs, tryout, variables
from headway.carried import code, packed
from headway.driver import attach, determinism, rayjob, signals
from headway.driver.names import Names
from headway.errors import BadInput, RunFailed, UserCodeFailed
from headway.faults import causes, internal
from headway.faults.last_words import last_words, newest_first
from headway.job import Job, load, taken
from headway.notation import values
from headway.report import Report
from headway.report import load as load_report

POLL_S = 0.2
OBJECT_STORE_BYTES = 256 * 2**20
TRACKING_CLOSE_S = 60.0
HEARD_S = 2.0
"""So long a run that is to stop, and has no workers, may yet get some; there is nothing to be saved without them."""


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
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch | None = None,
) -> Report:
    """Run a job from its beginning.

    Args:
        job: a Job, the same as a mapping, or the path of its YAML file.
        name: of the run; the job's name with the time when not given.
        runs_folder: where the run is kept: a folder that every machine of the cluster sees under the same path, or the
            URL of an object store (s3://, gs://, az://). HEADWAY_RUNS, the user's config file, else "runs" when not
            given. In a Ray job, "runs" is `headway-runs` of the user's home, since the job's own folder does not last.
        address: "local" for an embedded Ray, "auto" or HOST:PORT for an existing cluster; None for the one that
            RAY_ADDRESS names, else local. A Ray that this process is already connected to is used as it is.
        watch: called a few times a second with the progress.

    Returns:
        The report; its state is "finished", or "interrupted" after Ctrl-C (resumable).

    Raises:
        BadInput: the job, its data or its task cannot be used; nothing was started.
        UserCodeFailed: the task raised; carries its traceback.
        RunFailed: the run could not go on.
    """
    job = _tracked(taken(job))
    attach.admit(address)
    place, told = rayjob.place(runs_folder)
    with variables.in_force(job), tryout.begun(job) as trial:
        checked = plan.check(job)
        job = plan.pinned(job, checked)
        waits = _admitted(job, place.folder)
        was_there = place.folder.exists()
        run = runs.create(place, name, job)
        with run.led() as epoch:
            _note_bits(run, job)
            first = [told] if told else []
            _tell(watch, run, checked, [f"note: {note}" for note in (*first, *checked.warnings, *waits)])
            try:
                return _lead(run, job, checked, trial, address, watch, epoch)
            except (BadInput, KeyboardInterrupt):
                # The task failed its trial, there is no cluster, or it was ended before: as if nothing was started.
                if run.last_step() < 0:
                    run.discard()
                    if not was_there:
                        with suppress(OSError):
                            place.folder.rmdir()
                raise


def resume(
    name: str,
    *,
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch | None = None,
    settings: list[str] | None = None,
    allow: Sequence[str] = (),
) -> Report:
    """Go on with a run from its newest sound checkpoint (or from its beginning, if it has none).

    Args:
        name: of the run, or its folder or URL.
        settings: `key=value` changes to the job; only those that do not change what the run computes are accepted.
        allow: what may differ of threads, torch and device, though the run is to have the same bits.

    The other arguments, results and errors are those of `train`.

    Raises:
        BadInput: there is no such run, it has finished, or it is running; or its bits would change, unasked.
        BadCheckpoint: its newest sound checkpoint belongs to another job.
    """
    attach.admit(address)
    run, allowed = runs.find(rayjob.place(runs_folder)[0], name), determinism.chosen(allow)
    job = _tracked(load(run.job_file, settings))

    def say(message: str) -> None:
        if watch is not None:
            watch(Progress(run.name, 0, 0, 0, None, 0.0, 0.0, 0, 0.0, {}, [message]))

    with variables.in_force(job), tryout.begun(job) as trial, run.led(say) as epoch:
        facts = run.read()
        checked = plan.check(job, source=_source(run, job))
        if facts.get("state") == "finished" and facts.get("steps", 0) >= checked.total_steps:
            raise BadInput(
                f"run {run.name} has finished",
                f"all {checked.total_steps} steps are done",
                "Start a new run, or extend it with --set epochs=N.",
            )
        waits = _admitted(job, run.path.parent)
        from headway.checkpoint.store import Store

        start, passed_over = Store(run.checkpoint_root, checked.digest, job.checkpoint, epoch, run.counting).newest()
        here = determinism.facts(job)
        told = determinism.admit(run.name, facts.get("bits"), here, allowed) if start else []
        runs.write_job(run, job)
        _note_bits(run, job)
        where = f"step {start.step}" if start else "the beginning: it has no sound checkpoint"
        notes = [f"note: {reason}" for reason in waits]
        if facts.get("state") == "finished" and facts.get("message"):
            notes.append(f"note: {facts['message']}; it is called again, and goes on from there until it ends again")
        notes += [f"passed over a damaged checkpoint: {reason}" for reason in passed_over]
        _tell(watch, run, checked, [*notes, *told, f"resuming {run.name} from {where}"])
        return _lead(run, job, checked, trial, address, watch, epoch)


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
        source = code.locate(job.task)
        code.survey(source, job.files)
        return source
    except BadInput:
        if not run.code.is_dir():
            raise
        return code.kept(job.task, run.code)


def _tracked(job: Job) -> Job:
    """The job with its tracking URI checked, good in every working folder, and with the password that it was kept
    without."""
    if not job.tracking.enabled or job.tracking.uri is None:
        return job
    from headway.tracking.store import check_uri, with_password

    uri = check_uri(with_password(job.tracking.uri))
    return job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": uri})})


def _admitted(job: Job, runs_folder: Path) -> list[str]:
    """What is to be noted of the tracking store, which is asked whether it takes the run. Raises BadInput if not."""
    if not job.tracking.enabled:
        return []
    from headway.tracking.admission import admit
    from headway.tracking.store import default_uri

    environ = {**os.environ, **variables.given(job)}
    note = admit(job.tracking.uri or default_uri(runs_folder), job.tracking.experiment, environ)
    return [note] if note else []


@contextmanager
def _told_by_cause() -> Iterator[None]:
    """Ray's errors as what is at the bottom of them: what leads the run needs it all the time."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("ray."):
            raise internal.of(error, "while the run was led") from None
        raise


@_told_by_cause()
def _lead(
    run: runs.RunFolder,
    job: Job,
    checked: plan.Plan,
    trial: tryout.Trial,
    address: str | None,
    watch: Watch | None,
    epoch: int,
) -> Report:
    if not checked.source.copied:
        code.carry(checked.source, run.code, checked.cargo)
    trial.ask(job, checked, run.code, attach.where(address).address is not None)
    stop = threading.Event()
    cpus = max(os.cpu_count() or 1, job.workers.most * job.workers.cpus + 1)
    given = variables.given(job)
    copy = code.carried(checked.source, run.code)
    home = copy.folder if copy.copied else run.code  # where workers of a cluster open what they name without a folder
    names = Names(run.name)

    def tell(message: str) -> None:
        _tell(watch, run, checked, [message])

    with (
        signals.asking(stop),
        ExitStack() as after,  # all of Ray's processes
        attach.ray_for(address, cpus, OBJECT_STORE_BYTES, working_dir=home, metadata=names.metadata, tell=tell),
    ):
        import ray

        found = trial.answer(stop.is_set)  # it went on while Ray started
        _tell(watch, run, checked, [f"note: {note}" for note in found.notes])
        if found.checkpoint_bytes is not None and run.far is None:
            plan.check_space(job, found.checkpoint_bytes, run.path)
        recorder = _recorder(run, job, checked, epoch, names, given)
        source = _source_for(run, checked)
        if run.far is not None:
            ray.get(recorder.failure.remote())  # it has begun
            after.enter_context(run.handed_over())
            recorder.ship.remote()
        ended = threading.Event()
        trouble: list[BaseException] = []

        def fit() -> None:
            try:
                _fit(run, job, checked, source, recorder, epoch, names)
            except BaseException as error:  # told to the leading thread below
                trouble.append(error)
            finally:
                ended.set()

        if stop.is_set():  # while Ray started
            ended.set()
        else:
            threading.Thread(target=fit, name="ray-train", daemon=True).start()
        failure, cut = _watch(run, recorder, ended, stop, watch, names)
        if failure is None and trouble and not cut:
            failure = _of_ray(trouble[0])
        if failure is not None and not checked.source.copied:
            failure = _own(failure, source.packed, run.code, checked.cargo.base)
        done = ray.get(recorder.done.remote())
        if failure is not None:
            failure = _explained(failure, run)
            state, message = "failed", _said(failure)
        else:
            state, message = _ended(done, checked.total_steps, ray.get(recorder.own_end.remote()))
        found = ray.get(recorder.finish.remote(state, message, TRACKING_CLOSE_S if job.tracking.enabled else 0.0))
        ray.kill(recorder)
    if failure is None and found.get("unwritten"):
        remedy = f"Free space, then `headway resume {run.name}`."
        failure = {"kind": "records", "fact": "the last records could not be written", "reason": found["unwritten"]}
        failure["remedy"] = remedy
    if failure is not None:
        raise _raised(failure, run)
    return load_report(run)


def _watch(
    run: runs.RunFolder,
    recorder: Any,
    ended: threading.Event,
    stop: threading.Event,
    watch: Watch | None,
    names: Names,
) -> tuple[dict[str, Any] | None, bool]:
    """Follow the run to its end. Gives the failure, if there was one, and whether it was cut short: there was nobody
    who could have heard that it is to stop."""
    import ray

    seen, failed_at, cut = 0, None, False
    asked_at: float | None = None
    while True:
        last = ended.wait(POLL_S)
        if stop.is_set() and asked_at is None:
            ray.get(recorder.request_stop.remote())
            asked_at = time.monotonic()
        found = ray.get(recorder.progress.remote(seen))
        seen = found["messages_seen"]
        if watch is not None:
            shown = {field.name: found[field.name] for field in fields(Progress) if field.name in found}
            watch(Progress(run=run.name, **shown))
        if found["failure"] is not None:
            failed_at = failed_at or time.monotonic()
            if last or time.monotonic() - failed_at > 10.0:  # workers that hang in a reduction end with the cluster
                failure: dict[str, Any] = found["failure"]
                return failure, cut
        if last:
            return None, cut
        if asked_at is not None and not found["workers"] and time.monotonic() - asked_at > HEARD_S:
            cut = names.end("controller") or cut


def _source_for(run: runs.RunFolder, checked: plan.Plan) -> code.Source:
    """The task's code as workers open it; of a run that lives in a store they get it by Ray."""
    source = code.carried(checked.source, run.code)
    if run.far is None or not source.copied:
        return source
    import ray

    content = packed.pack(run.code)
    sent = packed.Packed(partial(ray.get, ray.put(content)), hashlib.sha256(content).hexdigest())  # type: ignore[arg-type]
    return replace(source, packed=sent)


def _fit(
    run: runs.RunFolder,
    job: Job,
    checked: plan.Plan,
    source: code.Source,
    recorder: Any,
    epoch: int,
    names: Names,
) -> None:
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
            "policy": Policy(
                job.lanes, workers.min, workers.max, slow=workers.slow, patience=patience, spares=workers.spares
            ),
            "recorder": recorder,
            "alike": job.reproducible == "bitwise" or job.replica_check_every is not None,
            "names": names,
        },
        train_loop_config={
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
        },
        scaling_config=ScalingConfig(num_workers=workers.max, use_gpu=workers.gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(name=run.name, storage_path=str(run.path / "ray")),
    ).fit()


def _recorder(
    run: runs.RunFolder, job: Job, checked: plan.Plan, epoch: int, names: Names, given: dict[str, str]
) -> Any:
    import ray
    from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]

    from headway.elastic.lead.recorder import Recorder

    here = ray.get_runtime_context().get_node_id()
    actor = ray.remote(num_cpus=0, label_selector={RAY_NODE_ID_KEY: here})(Recorder).options(**names.of("recorder"))
    most_aside = {f"data.{use}": int(found.rows * job.data.quarantine_limit) for use, found in checked.datasets.items()}
    # By reference: what is handed over by value is kept with the actor by the cluster's control store.
    rest = (job.tracking.every_steps, most_aside, epoch, job.checkpoint.fail_after, ray.put(given), run.far)
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
            "schema": plan.columns_read(job, d),
        }
        for use, d in checked.datasets.items()
    ]
    return {
        "kind": "run",
        "job": values.shown(runs.kept(job).model_dump()),
        "datasets": datasets,
        "environment": environment(),
    }


def _ended(steps: int, total_steps: int, own: bool) -> tuple[str, str]:
    """State and message of a run that ended well. own: the task's loop ended by itself, by `break` or session.stop."""
    if steps >= total_steps:
        return "finished", ""
    if own:
        return "finished", f"the task's loop ended after step {steps} of {total_steps}"
    return "interrupted", f"stopped on request after step {steps}"


def _of_ray(error: BaseException) -> dict[str, Any]:
    """The failure that made Ray Train end, or that our own thread beside it died of."""
    ours = causes.ours(error)
    if ours is not None:
        told = {"fact": ours.fact, "reason": ours.reason, "remedy": ours.remedy}
        return {"kind": type(ours).__name__, **told, "traceback": ours.traceback}
    found = causes.of(error)
    kind = "ray" if found.kind == causes.MACHINES else found.kind
    fact = "Ray Train ended the run" if kind == "ray" else "what leads the run"
    return {"kind": kind, "fact": fact, "reason": found.reason, "remedy": found.remedy, "traceback": found.traceback}


def _explained(failure: dict[str, Any], run: runs.RunFolder) -> dict[str, Any]:
    """Where workers died without a word to us: what their logs say."""
    if failure["kind"] != "workers":
        return failure
    run.fetch_logs()
    if not run.logs.is_dir():
        return failure
    words = last_words(newest_first(run.logs))
    reason = f"the last that one of them wrote of it: {words}" if words else failure["reason"]
    return {**failure, "reason": reason, "remedy": f"Look into {run.where}/logs, or try a smaller lane_batch."}


def _said(failure: dict[str, Any]) -> str:
    if failure["kind"] == "task":
        return f"the task raised {failure['reason']} in {failure['fact']}"
    if failure["kind"] == "internal":
        return f"a fault of Headway's own, {failure['fact']}: {failure['reason']}"
    return str(RunFailed(failure["fact"], failure["reason"], failure["remedy"]))


def _own(failure: dict[str, Any], sent: packed.Packed | None, copy: Path, base: Path) -> dict[str, Any]:
    """The failure with the user's own files in it, not the copies that the workers ran; and which did not travel."""
    reason, trace = failure["reason"], failure.get("traceback", "")
    if sent is not None:
        reason, trace = (packed.as_kept(text, sent.sha256, copy) for text in (reason, trace))
    reason, left = code.own_paths(reason, copy, base)
    trace, _ = code.own_paths(trace, copy, base)
    found = {**failure, "reason": reason, "traceback": trace}
    if left:
        found["remedy"] = code.left_behind(left)
    return found


def _raised(failure: dict[str, Any], run: runs.RunFolder) -> RunFailed:
    """The failure as an error."""
    trace = failure.get("traceback", "")
    if failure["kind"] == "task":
        failed = UserCodeFailed(failure["fact"], failure["reason"], trace)
        failed.remedy = failure["remedy"]
        return failed
    if failure["kind"] == "internal":
        then = f"`headway resume {run.name}` goes on from the newest checkpoint"
        return internal.fault(failure["fact"], failure["reason"], trace, run.path, then)
    error = RunFailed(failure["fact"], failure["reason"], failure["remedy"])
    error.traceback = trace
    return error
