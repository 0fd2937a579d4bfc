"""Learning-rate schedules by name: the factor on the base rate at a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self


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
OPTIONS: dict[str, tuple[str, ...]] = {"cosine": ("final",), "linear": ("final",), "step": ("every", "factor")}
"""Keys of a job's section that each goes by, beside `warmup_steps`."""
BY_LENGTH = frozenset({"cosine", "linear"})
"""Those that follow from the run's length."""


class Section(Protocol):
    """A job's, with the keys of OPTIONS."""

    name: str
    warmup_steps: int


@dataclass(frozen=True)
class Shape:
    """A schedule by name, of a run.

    Args:
        name: one of SCHEDULES.
        steps: of the whole run.
        warmup_steps: of linear warm-up before its own factor holds.
        options: by name, see OPTIONS.
    """

    name: str
    steps: int
    warmup_steps: int = 0
    options: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, section: Section, steps: int) -> Self:
        """As a job names it."""
        options = tuple((name, getattr(section, name)) for name in OPTIONS.get(section.name, ()))
        return cls(section.name, steps, section.warmup_steps, options)

    def factor(self, step: int) -> float:
        """On the base rate, of the update after so many steps."""
        after, warmup = max(0, step - self.warmup_steps), self.warmup_steps
        made: float = SCHEDULES[self.name](after, max(1, self.steps - warmup), **dict(self.options))
        return warmed_up(made, step, warmup)
