"""What Ray Tune's schedulers see in place of Tune's own controller and trials, as far as they look (Ray 2.60).

Nothing here runs anything: a scheduler is told what happened, and what it does to these is read off afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from headway.sweeps.events import Config

PENDING, RUNNING, PAUSED, TERMINATED, ERROR = "PENDING", "RUNNING", "PAUSED", "TERMINATED", "ERROR"
"""States of a trial, as of `ray.tune.experiment.Trial`."""


@dataclass(frozen=True)
class Saved:
    """In place of a checkpoint: whose, after how many steps."""

    trial: int
    step: int


@dataclass(eq=False)
class TrialStandIn:
    """A trial as a scheduler sees it.

    Args:
        place: its number among those that the scheduler knows.
        number: of our trial; None: nobody has asked for its settings yet.
        config: its settings.
    """

    place: int
    number: int | None = None
    config: Config = field(default_factory=dict)
    status: str = PENDING
    step: int = 0

    def __post_init__(self) -> None:
        self.trial_id = f"{self.place:05d}"
        self.experiment_tag = self.trial_id
        self.evaluated_params: dict[str, Any] = {}
        self.last_result: dict[str, Any] = {}
        self.is_saving = False
        self.checkpoint = None
        self.temporary_state = SimpleNamespace(saving_to=None)
        keeps = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=keeps)

    def __str__(self) -> str:
        return self.trial_id

    @property
    def taken_over(self) -> Saved | None:
        """What it is to go on with, of another."""
        result = self.run_metadata.checkpoint_manager._latest_checkpoint_result
        return None if result is None else result.checkpoint

    def let_go(self) -> None:
        """It has gone on with what it took over."""
        self.run_metadata.checkpoint_manager._latest_checkpoint_result = None

    def is_finished(self) -> bool:
        return self.status in (TERMINATED, ERROR)

    def set_experiment_tag(self, tag: str) -> None:
        self.experiment_tag = tag

    def set_config(self, config: Config) -> None:
        self.config = config


class ControllerStandIn:
    """Tune's controller as a scheduler sees it.

    Args:
        scheduler: which is told of trials that it stops.

    Attributes:
        trials: that are not over.
        stopped: trials that the scheduler ended, other than the one that it was asked about.
    """

    search_alg = None

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.trials: list[TrialStandIn] = []
        self.stopped: list[TrialStandIn] = []

    def get_trials(self) -> list[TrialStandIn]:
        return list(self.trials)

    def get_live_trials(self) -> list[TrialStandIn]:
        """Those that run. The median rule, which asks, would otherwise have a trial yield to any that waits, at every
        evaluation, as long as there are too few to judge by."""
        return [each for each in self.trials if each.status == RUNNING]

    def stop_trial(self, trial: TrialStandIn) -> None:
        waited = trial.status in (PENDING, PAUSED)
        self.close(trial, TERMINATED)
        self.stopped.append(trial)
        if waited:
            self._scheduler.on_trial_remove(self, trial)

    def close(self, trial: TrialStandIn, status: str) -> None:
        """It is over."""
        trial.status = status
        if trial in self.trials:
            self.trials.remove(trial)

    def pause_trial(self, trial: TrialStandIn, should_checkpoint: bool = True) -> None:
        trial.status = PAUSED

    def _schedule_trial_save(self, trial: TrialStandIn, result: dict[str, Any] | None = None) -> Saved:
        assert trial.number is not None
        return Saved(trial.number, trial.step)
