"""What a worker's signs of life mean: silence of each kind, a thread that hangs."""

from __future__ import annotations

from dataclasses import dataclass

START_SILENCE_S = 60.0  # imports and builds may hold Python's lock for long
LONE_PATIENCE = 5.0  # nobody waits for a worker that is alone, and its user's code may be long at work
STOPPED_PATIENCE = 2.0  # its machine answers: it may be about to go on


@dataclass(frozen=True)
class Sign:
    """What is known of a worker now.

    Args:
        silent_s: seconds since it was last heard.
        answers: whether its machine acknowledges what is sent to it.
        still_s: seconds since its training thread's watermark moved.
        waiting: it waits for the others in an exchange or regroup.
        member: it is in the active generation.
    """

    silent_s: float
    answers: bool
    still_s: float
    waiting: bool
    member: bool


def verdict(sign: Sign, others_wait: bool, alone: bool, silence_s: float, hang_s: float) -> str | None:
    """Why the worker is to be held for gone, or None.

    Args:
        others_wait: some other member waits for it.
        alone: it is the only member.
        silence_s: longest silence while the link may be cut.
        hang_s: longest time without progress while others wait.
    """
    if not sign.member:
        return "start_failed" if sign.silent_s > max(START_SILENCE_S, silence_s) else None
    if not sign.answers and sign.silent_s > silence_s:
        return "link_cut"
    if sign.silent_s > STOPPED_PATIENCE * silence_s:
        return "stopped"
    if not sign.waiting and sign.still_s > hang_s * (LONE_PATIENCE if alone else 1.0) and (others_wait or alone):
        return "hung"
    return None
