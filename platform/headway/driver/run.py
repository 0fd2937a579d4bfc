"""From a job to a report: begin a run, or go on with one, on an embedded or an existing Ray cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing as closed_after
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from headway import plan, runs, tryout, variables
from headway.carried import code
from headway.driver import attach, determinism, rayjob, signals, sizes
from headway.driver.equipment import note_bits, tracked
from headway.driver.leading import OBJECT_STORE_BYTES, lead, place_of
from headway.driver.names import Names
from headway.driver.progress import Progress as Progress
from headway.driver.progress import Watch as Watch
from headway.driver.progress import tell
from headway.driver.submission import Submission
from headway.errors import BadInput
from headway.job import Job, load, taken
from headway.report import Report
from headway.runs import audit, closing, swept


def train(
    job: Job | dict[str, Any] | str | Path,
    *,
    name: str | None = None,
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch | None = None,
    submission: Submission | None = None,
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
        submission: given by the driver of a run that was submitted, see `headway.jobs`.

    Returns:
        The report; its state is "finished", "interrupted" after Ctrl-C, or "stopped" after `headway stop` (both can be
        resumed).

    Raises:
        BadInput: the job, its data or its task cannot be used; nothing was started.
        UserCodeFailed: the task raised; carries its traceback.
        RunFailed: the run could not go on.
    """
    job = tracked(taken(job))
    attach.admit(address)
    place, told = rayjob.place(runs_folder)
    with variables.in_force(job), tryout.begun(job) as trial:
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
                return lead(run, job, checked, trial, address, watch, epoch, submission, settle=settle)


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
    attach.admit(address)
    run, allowed = runs.find(rayjob.place(runs_folder)[0], name), determinism.chosen(allow)
    swept.leave_alone(place_of(run), run.name, "resume")
    job = tracked(load(run.job_file, sizes.kept(run, settings or [])))

    def say(message: str) -> None:
        if watch is not None:
            watch(Progress(run.name, 0, 0, 0, None, 0.0, 0.0, 0, 0.0, {}, [message]))

    with variables.in_force(job), tryout.begun(job) as trial, run.led(say) as epoch, closing.left(run, epoch):
        facts = run.read()
        checked = _checked(job, submission, run)
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
        step = start.step if start else None
        return lead(run, job, checked, trial, address, watch, epoch, submission, step, settle)


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
        trial.ask(job, checked, submission.code, inside=True)
        stop = threading.Event()
        cpus = max(os.cpu_count() or 1, job.workers.most * job.workers.cpus + 1)
        ray_for = partial(attach.ray_for, address, cpus, OBJECT_STORE_BYTES, metadata=Names(job.name).metadata)
        with (
            signals.asking(stop),
            ray_for(working_dir=submission.code),
            closed_after(submission.look(job, checked, place)) as look,
        ):
            found = trial.answer(stop.is_set)
            if stop.is_set():
                raise KeyboardInterrupt
            if watch is not None:
                said = [f"note: {note}" for note in (*notes, *found.notes)]
                watch(Progress("", 0, checked.total_steps, 0, None, 0.0, 0.0, 0, 0.0, {}, said))
            sizes_found = found.parameters, found.checkpoint_bytes
            look.done(replace(checked, parameters=sizes_found[0], checkpoint_bytes=sizes_found[1]), stop.is_set)
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
        code.survey(source, job.files)
        return source
    except BadInput:
        if not run.code.is_dir():
            raise
        return code.kept(job.task, run.code)


def _admitted(job: Job, runs_folder: Path) -> list[str]:
    """What is to be noted of the tracking store, which is asked whether it takes the run. Raises BadInput if not."""
    if not job.tracking.enabled:
        return []
    from headway.tracking.admission import admit
    from headway.tracking.store import default_uri

    environ = {**os.environ, **variables.given(job)}
    note = admit(job.tracking.uri or default_uri(runs_folder), job.tracking.experiment, environ)
    return [note] if note else []
