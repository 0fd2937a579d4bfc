"""Where the worker-seconds of a simulated run went."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import Any

CAUSES = ("start", "spare", "idle", "detect", "regroup", "restart", "quorum", "repeated")


@dataclass
class Account:
    """Every worker-second that the trace offers has a cause; those of committed steps are the goodput.

    Args:
        policy: name.
        steps: committed, and not undone by going back to a checkpoint.
        repeated: steps that were committed and had to be done again.
        committed_s: worker-seconds in `steps`.
        uneven_s: the part of committed_s in which workers with a lane less waited for the others.
        lost_s: worker-seconds by cause.
        points: (seconds, nodes there, workers that train, share of full throughput) at each change.
    """

    policy: str
    steps: int = 0
    repeated: int = 0
    committed_s: float = 0.0
    uneven_s: float = 0.0
    lost_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    points: list[tuple[float, int, int, float]] = field(default_factory=list)
    changes: int = 0

    @property
    def available_s(self) -> float:
        """All worker-seconds."""
        return self.committed_s + sum(self.lost_s.values())

    @property
    def goodput(self) -> float:
        """Share of the worker-seconds that ended in a committed step."""
        return self.committed_s / self.available_s if self.available_s else 0.0

    def lose(self, cause: str, worker_seconds: float) -> None:
        """Book lost worker-seconds."""
        self.lost_s[cause] += worker_seconds

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "policy": self.policy,
            "goodput": round(self.goodput, 4),
            "steps": self.steps,
            "steps_repeated": self.repeated,
            "changes": self.changes,
            "available_s": round(self.available_s, 1),
            "committed_s": round(self.committed_s, 1),
            "uneven_s": round(self.uneven_s, 1),
            "lost_s": {cause: round(s, 1) for cause, s in self.lost_s.items()},
        }


class Training:
    """A stretch of steps after another, booked when it stops; knows what a checkpoint would not bring back.

    Args:
        account: to book in.
        checkpoint_every_s: seconds of training between two checkpoints.
    """

    def __init__(self, account: Account, checkpoint_every_s: float) -> None:
        self.account, self.every_s = account, checkpoint_every_s
        self.workers, self.step_s, self.since = 0, 1.0, 0.0
        self._after_checkpoint_s = 0.0
        self._at_risk: list[tuple[int, float]] = []

    def begin(self, at: float, workers: int, step_s: float) -> None:
        """`workers` take `step_s` for a step from now on."""
        self.since, self.workers, self.step_s = at, workers, step_s

    def steps(self, at: float) -> int:
        """Steps that have ended by `at`, in this stretch."""
        return max(0, floor((at - self.since) / self.step_s + 1e-9))

    def stop(self, at: float, lose_rest: str = "repeated") -> int:
        """Book the stretch; returns its steps. What was done of a step that did not end is lost to a cause."""
        steps, workers = self.steps(at), self.workers
        self.account.steps += steps
        self.account.committed_s += steps * self.step_s * workers
        self.account.lose(lose_rest, max(0.0, at - self.since - steps * self.step_s) * workers)
        self._after_checkpoint_s += steps * self.step_s
        self._at_risk.append((steps, self.step_s * workers))
        if self._after_checkpoint_s >= self.every_s:
            self._after_checkpoint_s %= self.every_s
            self._at_risk = [(min(steps, floor(self._after_checkpoint_s / self.step_s)), self.step_s * workers)]
        self.workers = 0
        return steps

    def fall_back(self) -> int:
        """Everything since the newest checkpoint is lost; returns how many steps."""
        lost = sum(steps for steps, _ in self._at_risk)
        worker_seconds = sum(steps * each for steps, each in self._at_risk)
        self.account.steps -= lost
        self.account.repeated += lost
        self.account.committed_s -= worker_seconds
        self.account.lose("repeated", worker_seconds)
        self._at_risk, self._after_checkpoint_s = [], 0.0
        return lost
