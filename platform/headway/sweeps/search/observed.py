"""What a model learns from: whole trials, and those that are under way, wait, or were ended early.

Optuna's samplers look at trials that are complete; some at pruned ones too. With a scheduler that pauses, most trials
are neither for most of the sweep, though they were evaluated: here they are seen by their last value.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Container
from statistics import NormalDist

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

Standing = tuple[int, int, float]
"""Of what was observed, the best first: 0 for a whole trial, 1 for one that is not, 2 for one that diverged; minus the
step after which it was evaluated; its loss."""


class Observed(InMemoryStorage):
    """Trials of an Optuna study, in memory, as a sampler is to see them.

    Args:
        scored: every trial with an observation is seen as complete. Where all are whole it has its loss; else the place
            of its standing, as a normal score: losses after different numbers of steps are no one scale, but an order.
            False: one that is not whole is seen as pruned after its last step, which Optuna's TPE puts in the same
            order itself.
    """

    def __init__(self, scored: bool) -> None:
        super().__init__()
        self._scored = scored
        self._standings: dict[int, Standing] = {}
        self._views: dict[int, FrozenTrial] = {}
        self._stale = False

    def observe(self, trial_id: int, step: int, loss: float, whole: bool) -> None:
        """A trial was evaluated. loss: the less the better; NaN: it diverged, and comes last."""
        if math.isnan(loss):
            self._standings[trial_id] = (2, 0, 0.0)
        else:
            self._standings[trial_id] = (0 if whole else 1, 0 if whole else -step, loss)
        if self._scored:
            self._stale = True
        else:
            self._views[trial_id] = self._shown(trial_id, self._standings[trial_id])

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if self._stale:
            self._score()
        seen = [self._views.get(each._trial_id, each) for each in super().get_all_trials(study_id, deepcopy=False)]
        if states is not None:
            seen = [each for each in seen if each.state in states]
        return copy.deepcopy(seen) if deepcopy else seen

    def _shown(self, trial_id: int, standing: Standing) -> FrozenTrial:
        """As TPE is to see it."""
        kind, step, loss = standing
        shown = copy.copy(self.get_trial(trial_id))
        shown.state = TrialState.PRUNED if kind else TrialState.COMPLETE
        shown.values = None if kind else [loss]
        shown.intermediate_values = {-step: loss} if kind == 1 else {}
        return shown

    def _score(self) -> None:
        self._stale = False
        order = sorted(self._standings, key=lambda each: (self._standings[each], each))
        losses = [loss for kind, _, loss in self._standings.values() if kind == 0]
        on_one_scale = losses and not any(kind == 1 for kind, _, _ in self._standings.values())
        for place, trial_id in enumerate(order):
            kind, _, loss = self._standings[trial_id]
            if on_one_scale:
                score = loss if kind == 0 else max(losses)
            else:
                score = NormalDist().inv_cdf((place + 0.5) / len(order))
            shown = copy.copy(self.get_trial(trial_id))
            shown.state, shown.values = TrialState.COMPLETE, [score]
            self._views[trial_id] = shown
