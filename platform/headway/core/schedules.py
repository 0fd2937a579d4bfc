"""Learning-rate schedules by name: the factor on the base rate at a step."""

from __future__ import annotations

import math


def constant(step: int, steps: int) -> float:
    return 1.0


def cosine(step: int, steps: int, final: float = 0.0) -> float:
    """From 1 to `final` along half a cosine (Loshchilov & Hutter 2017, SGDR, eq. 5, without restarts)."""
    done = min(1.0, step / max(1, steps))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))


def linear(step: int, steps: int, final: float = 0.0) -> float:
    """From 1 to `final` along a line."""
    return 1.0 + (final - 1.0) * min(1.0, step / max(1, steps))


def staircase(step: int, steps: int, every: int = 1000, factor: float = 0.1) -> float:
    """Multiplied by `factor` every `every` steps."""
    return float(factor ** (step // every))


def warmed_up(factor: float, step: int, warmup_steps: int) -> float:
    """A linear climb to the schedule's factor over the first steps (Goyal et al. 2017, section 2.2)."""
    return factor * min(1.0, (step + 1) / warmup_steps) if warmup_steps else factor


SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear, "step": staircase}
