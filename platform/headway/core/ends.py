"""How a run ends: what its end is called, whose it is, and which exit code tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["running", "finished", "stopped", "interrupted", "failed"]
Cause = Literal["task", "platform"]

RESUMABLE = ("stopped", "interrupted", "failed")
OVER = ("finished", *RESUMABLE)
EXIT_CODES = {"finished": 0, "stopped": 4, "interrupted": 130}
FAILED = {"task": 1, "platform": 3}
STATES = {code: state for state, code in EXIT_CODES.items()} | dict.fromkeys(FAILED.values(), "failed")
"""By exit codes."""
TASK = {"task", "UserCodeFailed", "NonFiniteLoss", "BadInput", "BadData"}
"""Kinds of failures that what the user brought caused: code, data, a loss that is no number. All others are the
platform's: where nobody can tell (workers that died without a word), a supervisor may try again."""


@dataclass(frozen=True)
class Asked:
    """Why a run was asked to end.

    Args:
        by: who asked for it by `headway stop`; None where a signal did.
        now: whether it was to end without a checkpoint.
        why: in words, where it was no person's wish.
    """

    by: str | None = None
    now: bool = False
    why: str = ""


@dataclass(frozen=True)
class End:
    """What became of a start of a run.

    Args:
        state: running only where that is not known.
        message: why, where the state needs a reason.
        cause: whose failure it was, where it failed.
    """

    state: State
    message: str = ""
    cause: Cause | None = None

    @property
    def exit_code(self) -> int:
        return exit_code(self.state, self.cause)


def exit_code(state: str, cause: str | None = None) -> int:
    """Of a command that led a run to this state. Of runs of earlier releases no cause is known: then 1."""
    return FAILED.get(cause or "task", 1) if state == "failed" else EXIT_CODES.get(state, 1)


def cause_of(kind: str) -> Cause:
    """Whose a failure of this kind is; the kind is a worker's word for it, or the name of an error's class."""
    return "task" if kind in TASK else "platform"


def failed(kind: str, message: str) -> End:
    """It could not go on."""
    return End("failed", message, cause_of(kind))


def ended(
    steps: int, total_steps: int, own: bool, asked: Asked | None, kept: int | None = None, reason: str = ""
) -> End:
    """It ended in order.

    Args:
        steps: that are done.
        total_steps: that the job asks for.
        own: whether the task's loop ended by itself, and nobody had asked for it.
        asked: why it was asked to end; None where nobody did.
        kept: the step of the newest checkpoint, where it is an earlier one.
        reason: that the loop, or a hook, gave for its end.
    """
    if steps >= total_steps:
        return End("finished")
    if own:
        return End("finished", early(steps, total_steps, reason))
    by = "ended by a signal" if asked is None or asked.by is None else f"stopped by {asked.by}"
    by = asked.why if asked is not None and asked.why else by
    rest = f"; its newest checkpoint is of step {kept}" if kept is not None and kept < steps else ""
    return End("interrupted" if asked is None or asked.by is None else "stopped", f"{by} after step {steps}{rest}")


def early(steps: int, total_steps: int, reason: str) -> str:
    """What is said of a run whose task's loop ended by itself before its last step."""
    told = f": {reason}" if reason else ""
    return f"early: the task's loop ended after step {steps} of {total_steps}{told}"
