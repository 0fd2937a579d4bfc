"""What an error of Ray's comes from, in words: found in all that Ray wraps around it, not in its last line."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headway.errors import HeadwayError
from headway.faults import blame

MACHINES = "machines"
TASK = "task"
INTERNAL = "internal"

_NO_MEMORY = re.compile(r"low on memory|out[ -]of[ -]memory|oom[ -]?kill", re.IGNORECASE)
_KILLED = re.compile(r"exit(?:ed with)? (?:code|signal|type)[^\n]*|SIG[A-Z]{3,}[^\n]*|received [^\n]*signal[^\n]*")


@dataclass(frozen=True)
class Cause:
    """Why something that ran on the cluster failed.

    Args:
        kind: whose it is: machines (or Ray), task, internal (Headway's own).
        reason: in a line.
        remedy: what to do about it; may be empty.
        traceback: of the code that raised, where some did: the author's frames, or all where it is ours.
        passes: whether the same may succeed when it is tried again.
    """

    kind: str
    reason: str
    remedy: str = ""
    traceback: str = ""
    passes: bool = False


_KNOWN: dict[str, tuple[str, str, bool]] = {
    "RuntimeEnvSetupError": (
        "the runtime environment could not be made",
        "Mend what its `pip`, `conda` or `working_dir` asks for, or leave it out.",
        False,
    ),
    "AuthenticationError": ("the cluster refused this process's token", "Set RAY_AUTH_TOKEN to the cluster's.", False),
    "OutOfMemoryError": (
        "a machine ran out of memory, and Ray ended the process that took most",
        "Take fewer or smaller rows at once, or a machine with more memory.",
        True,
    ),
    "OutOfDiskError": ("a machine's disk is full", "Free space where Ray keeps its temporary files.", True),
    "ObjectStoreFullError": ("Ray's object store is full", "Take smaller rows, or give Ray a larger store.", True),
    "TaskUnschedulableError": ("no machine of the cluster can take the work", "Ask for less, or add machines.", False),
    "ActorUnschedulableError": ("no machine of the cluster can take the work", "Ask for less, or add machines.", False),
    "NodeDiedError": ("a machine of the cluster is gone", "", True),
    "LocalRayletDiedError": ("Ray's own process on this machine ended", "", True),
    "WorkerCrashedError": (
        "a process of Ray's ended without a word (out of memory, or a crash in native code)",
        "",
        True,
    ),
    "ActorUnavailableError": ("a process of Ray's cannot be reached", "", True),
    "ActorDiedError": ("a process of Ray's ended", "", True),
    "RayActorError": ("a process of Ray's ended", "", True),
    "ObjectLostError": ("what a machine held was lost with it", "", True),
    "GetTimeoutError": ("Ray did not answer in time", "", True),
    "TaskCancelledError": ("the work was cancelled", "", True),
}
"""By the name of Ray's class: what it means, what to do, whether it passes; the first that is found counts."""


def ours(error: BaseException) -> HeadwayError | None:
    """The error of Headway's, raised on purpose somewhere, that this one wraps."""
    for each in blame.chain(error):
        if isinstance(each, HeadwayError) and not _classes(each):  # Ray's own copies are both
            return each
    return None


def of(error: BaseException) -> Cause:
    """The cause of an error, Ray's or not."""
    chain = list(blame.chain(error))
    by_name = {name: each for each in chain for name in reversed(_classes(each))}
    for each in chain:
        if "RayTaskError" in _classes(each) and not _is_rays(getattr(each, "cause", None)):
            return _raised(each, str(vars(each).get("traceback_str") or each))
    if "ActorDiedError" in by_name and _NO_MEMORY.search(str(by_name["ActorDiedError"])):
        by_name["OutOfMemoryError"] = by_name["ActorDiedError"]
    for name, (meaning, remedy, passes) in _KNOWN.items():
        if name in by_name:
            detail = _detail(name, by_name[name])
            return Cause(MACHINES, f"{meaning} ({detail})" if detail else meaning, remedy, passes=passes)
    last = chain[-1]
    if blame.is_ours(last):
        return Cause(INTERNAL, blame.reason(last), traceback=blame.whole_traceback(error))
    return Cause(MACHINES, blame.reason(last), traceback=blame.users_traceback(last) if not _is_rays(last) else "")


def _raised(error: BaseException, text: str) -> Cause:
    """By what some code raised in a process of Ray's; its traceback came in words."""
    cause = getattr(error, "cause", None)
    said = blame.reason(cause) if isinstance(cause, BaseException) else text.strip().splitlines()[-1].strip()
    frames = blame.frames_of(text)
    if blame.are_ours(frames):
        return Cause(INTERNAL, said, traceback=blame.bounded(text.strip()))
    return Cause(TASK, said, traceback=blame.bounded(_without_ours(text)))


def _without_ours(text: str) -> str:
    """A traceback in words without the frames of Ray's and ours."""
    kept, leave = [], False
    for line in text[max(0, text.find("Traceback (most")) :].strip().splitlines():
        if line.startswith("  File "):
            leave = blame.is_hidden(line.split('"')[1] if '"' in line else "")
        elif not line.startswith("    "):
            leave = False
        if not leave:
            kept.append(line)
    return "\n".join(kept)


def _detail(name: str, error: BaseException) -> str:
    text = str(error)
    if name in ("RuntimeEnvSetupError", "AuthenticationError"):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " ".join(lines[1:] if name == "RuntimeEnvSetupError" else lines[:1])[: blame.MOST_CHARACTERS]
    found = _KILLED.search(text)
    return found[0].strip().rstrip(".")[:200] if found else ""


def _classes(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] == "ray"]


def _is_rays(error: object) -> bool:
    return error is not None and type(error).__module__.partition(".")[0] == "ray"
