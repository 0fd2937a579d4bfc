"""From a job to a report: begin a run, or go on with one, on an embedded or an existing Ray cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextlib import closing as closed_after
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from headway import plan, runs, tryout, variables
from headway.carried import asked, code
from headway.data.own import materialised, naming
from headway.driver import attach, determinism, means, rayjob, signals, sizes
from headway.driver.equipment import note_bits, tracked
from headway.driver.in_process import ADDRESS
from headway.driver.leading import OBJECT_STORE_BYTES, lead, place_of
from headway.driver.names import Names
from headway.driver.progress import Progress as Progress
from headway.driver.progress import Watch as Watch
from headway.driver.progress import tell
from headway.driver.submission import Submission
from headway.errors import BadInput
from headway.fitting import work
from headway.job import Job, load, taken
from headway.notify.addresses import addresses
from headway.report import Report
from headway.runs import audit, closing, swept


def train(
    job: Job | dict[str, Any] | str | Path,
    *,
    task: Any = None,
    data: Mapping[str, Any] | None = None,
    name: str | None = None,
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch | None = None,
    submission: Submission | None = None,
) -> Report:
    """Run a job from its beginning.

    Args:
        job: a Job, the same as a mapping, or the path of its YAML file.
        task: in place of the job's, as it is: a class, an object of one, or a function that is a loop of its own. What
            stands at the top of a file is taken from there, all else (of a notebook, say) by value: the run keeps it,
            and is resumed under the same Python and torch only.
        data: in place of the job's: by `train` and `validation`, folders or datasets as they are (a map-style Dataset,
            arrays by name, a frame, a stream, a function that gives one). They travel as the task does.
        name: of the run; the job's name with the time when not given.
        runs_folder: where the run is kept: a folder that every machine of the cluster sees under the same path, or the
            URL of an object store (s3://, gs://, az://). HEADWAY_RUNS, the user's config file, else "runs" when not
            given. In a Ray job, "runs" is `headway-runs` of the user's home, since the job's own folder does not last.
        address: "local" for an embedded Ray, "auto" or HOST:PORT for an existing cluster; None for the one that
            RAY_ADDRESS names, else local. A Ray that this process is already connected to is used as it is.
            "in-process": no Ray, one worker, in the calling thread (see `headway.driver.in_process`).
        watch: called a few times a second with the progress; in a thread of its own where the run is in this process.
        submission: given by the driver of a run that was submitted, see `headway.jobs`.

    Returns:
        The report; its state is "finished", "interrupted" after Ctrl-C, or "stopped" after `headway stop` (both can be
        resumed).

    Raises:
        BadInput: the job, its data or its task cannot be used; nothing was started.
        UserCodeFailed: the task raised; carries its traceback.
        RunFailed: the run could not go on.
    """
    code.refuse_on_import("headway.train")
    place, told = rayjob.place(runs_folder)
    job = tracked(asked.job_of(job, task, materialised.stored(data, place.folder, place.url)))
    local = _admit(job, address)
    with variables.in_force(job), _trial(job, local) as trial:
        checked = _checked(job, submission)
        job = plan.pinned(job, checked)
        waits = _admitted(job, place.folder)
        was_there = place.folder.exists()
        run = runs.create(place, name, job, submission.facts if submission else None)
        with _undone_in_vain(run, submission, was_there), run.led() as epoch:
            note_bits(run, job, checked, submission)
            first = [told] if told else []
            tell(watch, run, checked, [f"note: {note}" for note in (*first, *checked.warnings, *waits)])

            def settle() -> None:
                _audited(run, "submit" if submission else "train", job, checked, submission, watch)

            with closing.left(run, epoch):
                if local:
                    report: Report = _in_process().lead(run, job, checked, watch, epoch, begun=settle)
                    return report
                return lead(run, job, checked, trial, address, watch, epoch, submission, settle=settle)


def _in_process() -> ModuleType:
    """Not before it is asked for: it imports torch, which who leads a run elsewhere has no use for."""
    from headway.driver.in_process import leading

    return leading


def _admit(job: Job, address: str | None) -> bool:
    """Whether the run is to be in this process. Raises BadInput: an address of another kind, or a job for more."""
    if address == ADDRESS:
        _in_process().admit(job)
        return True
    attach.admit(address)
    return False


def _trial(job: Job, local: bool) -> AbstractContextManager[tryout.Trial]:
    """Of the job's task; of a run in this process the first step is its trial."""
    return tryout.begun(job.model_copy(update={"check": None}) if local else job)


@contextmanager
def _undone_in_vain(run: runs.RunFolder, submission: Submission | None, was_there: bool) -> Iterator[None]:
    """As if nothing was started, where the task failed its trial, there is no cluster, or it was ended before.

    Args:
        was_there: whether the folder of the runs was.
    """
    try:
        yield
    except BaseException as error:  # raised again
        vain = isinstance(error, BadInput | KeyboardInterrupt) or (submission and not submission.has_begun())
        if vain and run.last_step() < 0:
            run.discard()
            if not was_there:
                with suppress(OSError):
                    run.path.parent.rmdir()
        raise


def resume(
    name: str,
    *,
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch | None = None,
    settings: list[str] | None = None,
    allow: Sequence[str] = (),
    submission: Submission | None = None,
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
    code.refuse_on_import("headway.resume")
    run, allowed = runs.find(rayjob.place(runs_folder)[0], name), determinism.chosen(allow)
    swept.leave_alone(place_of(run), run.name, "resume")
    job = tracked(load(run.job_file, sizes.kept(run, settings or [])))
    local = _admit(job, address)

    def say(message: str) -> None:
        if watch is not None:
            watch(Progress(run.name, 0, 0, 0, None, 0.0, 0.0, 0, 0.0, {}, [message]))

    with variables.in_force(job), _trial(job, local) as trial, run.led(say) as epoch, closing.left(run, epoch):
        facts = run.read()
        checked = _checked(job, submission, run)
        _refuse_finished(run, job, facts, checked.total_steps, settings or [])
        waits = _admitted(job, run.path.parent)
        from headway.checkpoint.store import Store

        start, passed_over = Store(run.checkpoint_root, checked.digest, job.checkpoint, epoch, run.counting).newest()
        here = determinism.facts(job)
        told = determinism.admit(run.name, facts.get("bits"), here, allowed) if start else []

        def settle() -> None:
            _audited(run, "resume", job, checked, submission, watch)
            runs.write_job(run, job)
            note_bits(run, job, checked, submission)

        where = f"step {start.step}" if start else "the beginning: it has no sound checkpoint"
        notes = [f"note: {reason}" for reason in waits]
        if facts.get("state") == "finished" and facts.get("message"):
            notes.append(f"note: {facts['message']}; it is called again, and goes on from there until it ends again")
        notes += [f"passed over a damaged checkpoint: {reason}" for reason in passed_over]
        tell(watch, run, checked, [*notes, *told, f"resuming {run.name} from {where}"])
        if local:
            report: Report = _in_process().lead(run, job, checked, watch, epoch, settle)
            return report
        step = start.step if start else None
        return lead(run, job, checked, trial, address, watch, epoch, submission, step, settle)


def _refuse_finished(
    run: runs.RunFolder, job: Job, facts: dict[str, Any], total_steps: int, settings: list[str]
) -> None:
    """Raises BadInput: the run has done all that was wanted of it, and nothing says that more is wanted."""
    if facts.get("state") != "finished":
        return
    steps = facts.get("steps", 0)
    if steps >= total_steps:
        raise BadInput(
            f"run {run.name} has finished",
            f"all {total_steps} steps are done",
            "Start a new run, or extend it with --set epochs=N.",
        )
    if not settings:
        length = "steps" if job.steps else "epochs"
        raise BadInput(
            f"run {run.name} has finished {facts.get('message') or 'early'}",
            "its loop would be called again, and may end at once",
            f"Say what is to be otherwise: --set {length}=N, --set stop.patience=N; "
            f"--set {length}={getattr(job, length)} has it called once more as it is.",
        )


def rehearse(
    job: Job | dict[str, Any] | str | Path,
    submission: Submission,
    *,
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch | None = None,
) -> None:
    """All that a submitted run's beginning looks at, and nothing more: no run is made.

    Raises:
        BadInput: the run would not begin.
    """
    job = tracked(taken(job))
    place, told = rayjob.place(runs_folder)
    with variables.in_force(job), tryout.begun(job) as trial:
        checked = _checked(job, submission)
        job = plan.pinned(job, checked)
        notes = [*([told] if told else []), *checked.warnings, *_admitted(job, place.folder)]
        trial.ask(job, checked, submission.code, inside=True, fits=work.is_small(checked.datasets))
        stop = threading.Event()
        cpus = max(os.cpu_count() or 1, job.workers.most * job.workers.cpus + 1)
        ray_for = partial(attach.ray_for, address, cpus, OBJECT_STORE_BYTES, metadata=Names(job.name).metadata)
        with (
            signals.asking(stop),
            ray_for(working_dir=submission.code),
            closed_after(submission.look(job, checked, place)) as look,
        ):
            if means.minds(job):
                means.admit(job, means.Known(time.time()), means.stock(), time.time(), means.nodes())
            found = trial.answer(stop.is_set)
            if stop.is_set():
                raise KeyboardInterrupt
            if watch is not None:
                said = [f"note: {note}" for note in (*notes, *found.notes)]
                watch(Progress("", 0, checked.total_steps, 0, None, 0.0, 0.0, 0, 0.0, {}, said))
            look.done(found.told(checked), stop.is_set)
            if stop.is_set():
                raise KeyboardInterrupt


def _checked(job: Job, submission: Submission | None, run: runs.RunFolder | None = None) -> plan.Plan:
    """The plan, by the task's code where it is: on this machine, as it came with a submission, or as a run that is gone
    on with has kept it."""
    if submission is None:
        return plan.check(job, None if run is None else _source(run, job))
    submission.demand_data(job)
    if submission.code is None:
        assert run is not None
        return plan.check(job, code.kept(job.task, run.code))
    source = code.delivered(job.task, submission.code)
    return replace(plan.check(job, source), origin=code.sender(job.task, source, submission.code))


def _audited(
    run: runs.RunFolder,
    verb: str,
    job: Job,
    checked: plan.Plan,
    submission: Submission | None,
    watch: Watch | None,
) -> None:
    """Have it in the log of the place that this run begins, or goes on, and by whose will."""
    whose = {"submission": submission.id} if submission else {}
    details = {"job": job.name, "task": job.task, "workers": [job.workers.min, job.workers.most], **whose}
    by = submission.by if submission else None
    audit.note(
        place_of(run), verb, run.name, by=by, details=details, say=lambda text: tell(watch, run, checked, [text])
    )


def _source(run: runs.RunFolder, job: Job) -> code.Source:
    """The task's code where the job says, as its author may have mended it; else the copy that the run carries."""
    try:
        source = code.locate(job.task)
        code.survey(source, naming.with_files(job))
        return source
    except BadInput:
        if not run.code.is_dir():
            raise
        return code.kept(job.task, run.code)


def _admitted(job: Job, runs_folder: Path) -> list[str]:
    """What is to be noted of addresses that are told of the run, and of the tracking store, which is asked whether it
    takes it. Raises BadInput: it does not, or an address is none."""
    _, unknown = addresses(job.notify)
    if not job.tracking.enabled:
        return unknown
    from headway.tracking.admission import admit
    from headway.tracking.store import default_uri

    environ = {**os.environ, **variables.given(job)}
    note = admit(job.tracking.uri or default_uri(runs_folder), job.tracking.experiment, environ)
    return [*unknown, note] if note else unknown
