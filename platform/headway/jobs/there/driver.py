"""Leads a submitted run on the cluster that it came to, and tells whoever submitted it how that goes.

It is what `headway train` is on a machine of the cluster, and differs in this: the task's code came with the job, the
cluster is looked at before the run begins, and a run of the same name that this very submission made is gone on with.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway import plan, runs
from headway.core import ends
from headway.driver import rayjob, signals
from headway.driver import run as runner
from headway.driver.submission import Began, Look, Submission
from headway.errors import FINISHED, INTERRUPTED, STOPPED, BadInput, HeadwayError
from headway.faults import blame, internal
from headway.job import Job
from headway.jobs import secrets
from headway.jobs.spec import CODE, FILE, Spec, from_json
from headway.jobs.there import before, preflight
from headway.jobs.there.shown import Said, plan_told
from headway.jobs.there.telling import Tell, teller
from headway.runs import Led, NoRun, Place, RunFolder, Taken
from headway.runs.requests import Box, Ear, Heard, Stop, of_attempt

NOTHING_BEGAN = "it was ended before it began; nothing was started"
LED_ON = "what waited for the run's leader was ended; that goes on"
LOOK_S = 5.0
"""Between two looks at whether a run is led elsewhere."""


def main() -> int:
    """Returns the exit code."""
    signals.begin()
    threading.Thread(target=_listen, name="asked", daemon=True).start()
    rayjob.leave_folder()  # workers begin where the task's files are, as those of every other run
    spec = from_json(Path(FILE).read_text(encoding="utf-8"))
    return Driver(spec, Path.cwd() / CODE, teller()).run()


class Driver:
    """Of one submission.

    Args:
        spec: what is asked for.
        code: folder of the task's code, as it came; it is not there where none was sent.
        tell: whoever submitted.
    """

    def __init__(self, spec: Spec, code: Path, tell: Tell) -> None:
        self._spec, self._tell = spec, tell
        self._code = code if code.is_dir() else None
        self._began = False
        self._said = Said(_print)
        self._ear: Ear | None = None
        self._heard: Heard | None = None
        self._led_elsewhere = False

    def run(self) -> int:
        """Do what is asked for, and tell how it ended; returns the exit code."""
        try:
            with before.laid(self._spec):
                return self._done()
        except KeyboardInterrupt as error:
            return self._unbegun(error if isinstance(error, Heard) else self._heard)
        except HeadwayError as error:
            return self._failed(error, error.traceback)
        except Exception as error:  # ours, or Ray's: whoever submitted sees the whole of it
            return self._failed(internal.of(error, "on the cluster"), blame.whole_traceback(error))
        finally:
            if self._ear is not None:
                self._ear.close()

    def _done(self) -> int:
        if self._spec.kind == "check":
            self._free()
            runner.rehearse(self._job(), self._submission(), runs_folder=self._spec.runs, watch=self._said)
            return self._ended("checked", "", FINISHED)
        self._ear = Ear(Box.of(self._place(), self._spec.run), [of_attempt(self._spec.attempt)], self._asked)
        self._ear.start()
        report = self._train() if self._spec.kind == "train" else self._resume()
        return self._ended(report.state, report.message, ends.exit_code(report.state, report.cause))

    def _train(self) -> Any:
        """Begin the run; where this submission has made it already, go on with it."""
        run = self._there()
        if run is not None:
            return self._again(run)
        try:
            return runner.train(
                self._job(),
                name=self._spec.run,
                runs_folder=self._spec.runs,
                watch=self._said,
                submission=self._submission(),
            )
        except Taken:  # by a twin of this job, meanwhile, or by somebody else
            run = self._there()
            if run is None:
                raise
            return self._again(run)

    def _again(self, run: RunFolder) -> Any:
        """Go on with a run that is there.

        Raises:
            BadInput: it is another submission's.
        """
        facts = before.facts_of(run)
        if not self._is_ours(facts):
            raise before.taken(run, facts)
        if not run.job_file.is_file():  # made, and its driver ended before a word of it was written
            try:
                run.remove()
            except Led as error:  # it is being written
                return self._resume() if self._followed(error) is None else None
            return self._train()
        return self._resume()

    def _resume(self) -> Any:
        """Go on with the run; where this submission leads it already, once that has gone, or not at all."""
        run = self._there()
        facts = {} if run is None else before.facts_of(run)
        if run is not None and self._is_ours(facts) and facts.get("state") == "finished":
            self._elsewhere(run, f"run {run.name} was led by this submission, and has finished")
            return _end_of(facts)
        while True:
            try:
                return runner.resume(
                    self._spec.run,
                    runs_folder=self._spec.runs,
                    watch=self._said,
                    settings=secrets.resolved_settings(self._spec.settings, self._spec.sent),
                    allow=self._spec.allow,
                    submission=self._submission(),
                )
            except Led as error:
                end = self._followed(error)
                if end is not None:
                    return end

    def _followed(self, error: Led) -> ends.End | None:
        """Wait while another process of this very submission leads the run. Gives its end; None where that process has
        gone, and the run has not ended.

        Raises:
            Led: it is led by another's.
        """
        run = self._there()
        if run is None or not self._is_ours(before.facts_of(run)):
            raise error
        self._elsewhere(run, f"{error.fact} already, by this very submission: {error.reason}")
        if self._ear is not None and self._ear.stop is None:
            self._ear.close()  # what is asked of this attempt is asked of that process
        while _seems_led(run):
            time.sleep(LOOK_S)
        run = self._there()
        facts = {"state": "interrupted", "message": "it was removed"} if run is None else before.facts_of(run)
        return _end_of(facts) if facts.get("state") in ends.OVER else None

    def _elsewhere(self, run: RunFolder, text: str) -> None:
        if not self._led_elsewhere:
            self._tell("note", text=text)
            self._tell("began", run=run.name, where=run.where, epoch=0, resumed_from=None, elsewhere=True)
        self._led_elsewhere = True

    def _is_ours(self, facts: dict[str, Any]) -> bool:
        return before.is_ours(facts, self._spec)

    def _there(self) -> RunFolder | None:
        """The run of that name, if there is one."""
        try:
            return runs.find(self._place(), self._spec.run)
        except NoRun:
            return None

    def _place(self) -> Place:
        return rayjob.place(self._spec.runs)[0]

    def _free(self) -> None:
        """Raises BadInput: the name is taken."""
        run = self._there()
        if run is not None:
            raise before.taken(run, before.facts_of(run))

    def _job(self) -> Job:
        return before.job_of(self._spec)

    def _submission(self) -> Submission:
        spec = self._spec
        return Submission(
            spec.submission,
            spec.attempt,
            spec.by,
            self._code,
            self._look,
            self._begun,
            lambda: self._began,
            spec.granted,
            spec.held,
            spec.warm,
        )

    def _look(self, job: Job, checked: plan.Plan, place: Place) -> Look:
        if self._spec.tried:
            return preflight.Before()

        def tell(final: plan.Plan, found: preflight.Found) -> None:
            self._tell("plan", **plan_told(self._spec.run, job, final, place, found, self._said.notes))

        def lacks(node: str, packages: dict[str, list[str | None]]) -> None:
            self._tell("lacks", packages=packages, node=node)

        def note(text: str) -> None:
            self._tell("note", text=text)

        return preflight.begin(job, place, self._spec.packages, tell, lacks, note)

    def _asked(self, stop: Stop) -> None:
        """In the ear's thread. Once the run has begun, its leader hears the same by itself. A second signal ends this
        process at once: what is asked for again is no second one, unless it is more urgent."""
        before = self._heard.stop if self._heard is not None else None
        if not self._began and (before is None or (stop.now and not before.now)):
            self._heard = Heard(stop)
            os.kill(os.getpid(), signal.SIGTERM)

    def _begun(self, began: Began) -> None:
        self._began = True
        if self._ear is not None and self._ear.stop is None:
            self._ear.close()
        self._tell(
            "began",
            run=began.run,
            where=began.where,
            far=began.far,
            epoch=began.epoch,
            resumed_from=began.resumed_from,
        )

    def _ended(self, state: str, message: str, code: int) -> int:
        self._tell("ended", state=state, message=message, exit_code=code)
        return code

    def _unbegun(self, heard: Heard | None) -> int:
        """It was asked to end before it began."""
        if self._led_elsewhere:
            return self._ended("interrupted", LED_ON, INTERRUPTED)
        if heard is None:
            return self._ended("interrupted", NOTHING_BEGAN, INTERRUPTED)
        return self._ended("stopped", f"{heard} before it began; nothing was started", STOPPED)

    def _failed(self, error: HeadwayError, trace: str) -> int:
        if not self._began:
            said = {"fact": error.fact, "reason": error.reason, "remedy": error.remedy}
            self._tell("refused", **said, traceback=trace, exit_code=error.exit_code)
            return error.exit_code
        if trace:
            _print(trace)
        _print(f"headway: {error}")
        return self._ended("failed", str(error), error.exit_code)


def _seems_led(run: RunFolder) -> bool:
    try:
        return run.is_led()
    except OSError:  # its store is away: nothing is known
        return True
    except BadInput:  # it was removed
        return False


def _end_of(facts: dict[str, Any]) -> ends.End:
    """As a run's facts have it."""
    return ends.End(facts["state"], facts.get("message") or "", facts.get("cause"))


def _listen() -> None:
    """Hear from the parent that an end is asked for, or that it is gone."""
    if not os.read(0, 1):  # not by sys.stdin: a thread that waits there may not be left behind
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):  # nobody reads any more, and to print would be an error
            os.dup2(nowhere, descriptor)
    if not signals.asked():
        os.kill(os.getpid(), signal.SIGTERM)


def _print(text: str) -> None:
    with suppress(OSError):  # the parent is gone: an end was asked for by that
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
