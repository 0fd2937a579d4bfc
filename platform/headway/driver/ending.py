"""What became of a run, as its driver says it: in order, or by a failure, in the user's words and with their files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

from headway import runs
from headway.carried import code, packed
from headway.core import ends
from headway.errors import HeadwayError, RunFailed, UserCodeFailed
from headway.faults import causes, internal
from headway.faults.last_words import last_words
from headway.runs.requests import Ear

LOGS_S = 4.0
"""For so long the last words of workers on other machines are waited for."""


def asked(ear: Ear) -> ends.Asked:
    """Why the run is to end, where it is."""
    return ends.Asked(ear.stop.by, ear.stop.now) if ear.stop is not None else ends.Asked()


def of_itself(by: str | None, why: str) -> ends.Asked | None:
    """Why a run is to end that nobody asked to: as its recorder has it; None where it is not to."""
    return ends.Asked(by, why=why) if why else None


def ended(run: runs.RunFolder, recorder: Any, total_steps: int, ear: Ear, stop: bool, cut: bool) -> ends.End:
    """What became of a run that ended in order. cut: its workers had no time for a checkpoint."""
    import ray

    why = asked(ear) if stop else of_itself(*ray.get(recorder.stopped.remote()))
    if not cut:
        done, own, reason = ray.get([verb.remote() for verb in (recorder.done, recorder.own_end, recorder.end_reason)])
        return ends.ended(done, total_steps, own, why, reason=reason)
    steps = ray.get(recorder.progress.remote(0))["step"]
    return ends.ended(min(steps, total_steps - 1), total_steps, False, why, newest(run))


def newest(run: runs.RunFolder) -> int:
    """The step of the newest checkpoint; 0 where there is none, or it cannot be seen."""
    from headway.checkpoint.store import committed_last

    with suppress(HeadwayError, OSError):
        found = committed_last(run.checkpoint_root, run.counting)
        return found.step if found is not None else 0
    return 0


def of_ray(error: BaseException) -> dict[str, Any]:
    """The failure that made Ray Train end, or that our own thread beside it died of."""
    ours = causes.ours(error)
    if ours is not None:
        told = {"fact": ours.fact, "reason": ours.reason, "remedy": ours.remedy}
        return {"kind": type(ours).__name__, **told, "traceback": ours.traceback}
    found = causes.of(error)
    kind = "ray" if found.kind == causes.MACHINES else found.kind
    fact = "Ray Train ended the run" if kind == "ray" else "what leads the run"
    return {"kind": kind, "fact": fact, "reason": found.reason, "remedy": found.remedy, "traceback": found.traceback}


def explained(failure: dict[str, Any], run: runs.RunFolder) -> dict[str, Any]:
    """Where workers died without a word to us: what their logs say."""
    if failure["kind"] != "workers":
        return failure
    words = last_words(run.printed, within_s=LOGS_S if run.far is not None else 0.0)
    reason = f"the last that one of them wrote of it: {words}" if words else failure["reason"]
    remedy = f"Look into `headway logs {quote(run.where)}`, or try a smaller lane_batch."
    return {**failure, "reason": reason, "remedy": remedy}


def said(failure: dict[str, Any]) -> str:
    if failure["kind"] == "task":
        return f"the task raised {failure['reason']} in {failure['fact']}"
    if failure["kind"] == "internal":
        return f"a fault of Headway's own, {failure['fact']}: {failure['reason']}"
    return str(RunFailed(failure["fact"], failure["reason"], failure["remedy"]))


def own_files(failure: dict[str, Any], sent: packed.Packed | None, copy: Path, base: Path) -> dict[str, Any]:
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


def raised(failure: dict[str, Any], run: runs.RunFolder) -> RunFailed:
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
    error.traceback, error.exit_code = trace, ends.failed(failure["kind"], "").exit_code
    return error
