"""Searchers that learn a model of what was seen: Optuna's TPE, Gaussian process and CMA-ES.

Straight through Optuna's ask and tell, by define-by-run, so that a condition on another choice is what it is. Ray
Tune's OptunaSearch, which does the same, drops what diverged, and its samplers see no trial that is not finished.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headway.sweeps.events import Config
from headway.sweeps.search.draws import Fresh, by_chance
from headway.sweeps.search.protocol import Known, Searcher
from headway.sweeps.space import Space

if TYPE_CHECKING:
    import optuna

AGAIN = 8
"""Suggestions that were given out already after which chance is asked: a model of a small space loves one of them."""


def tpe(seed: int, startup: int, candidates: int = 24, groups: bool = True) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al., NIPS 2011).

    Args:
        startup: so many observations come from chance.
        candidates: drawn for each suggestion, of which the likeliest to be good is taken.
        groups: settings that hold under the same conditions are modelled together; else those that always hold are, and
            the others each by itself. It takes more time.
    """
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is marked as experimental
        return TPESampler(
            seed=seed,
            n_startup_trials=startup,
            n_ei_candidates=candidates,
            multivariate=True,
            group=groups,
            constant_liar=True,
        )


def gp(seed: int, startup: int) -> optuna.samplers.BaseSampler:
    """Gaussian process with expected improvement. Settings under a condition come from chance."""
    from optuna.samplers import GPSampler, RandomSampler

    return GPSampler(
        seed=seed,
        n_startup_trials=startup,
        independent_sampler=RandomSampler(seed=seed),
        warn_independent_sampling=False,
    )


def cmaes(seed: int, startup: int) -> optuna.samplers.BaseSampler:
    """Covariance matrix adaptation (Hansen and Ostermeier, 2001). Choices, and settings under a condition, come from
    chance."""
    from optuna.samplers import CmaEsSampler, RandomSampler

    return CmaEsSampler(
        seed=seed,
        n_startup_trials=startup,
        independent_sampler=RandomSampler(seed=seed),
        warn_independent_sampling=False,
    )


class Modelled(Searcher):
    """One of Optuna's samplers.

    Args:
        space: to search.
        sampler: see above.
        scored: it learns of complete trials only: see `headway.sweeps.search.observed.Observed`.
        mode: whether the metric is to be small or large.
        seed: of what is drawn where the sampler has nothing new.
        known: from before; the model begins with it.
    """

    def __init__(
        self,
        space: Space,
        sampler: optuna.samplers.BaseSampler,
        scored: bool,
        mode: str,
        seed: int,
        known: Sequence[Known] = (),
    ) -> None:
        import optuna

        from headway.sweeps.search.observed import Observed

        optuna.logging.get_logger("optuna").setLevel(optuna.logging.ERROR)  # it warns of a package that might help it
        self._space, self._of, self._seed = space, space.distributions, seed
        self._sign = 1.0 if mode == "min" else -1.0
        self._storage = Observed(scored)
        self._study = optuna.create_study(storage=self._storage, sampler=sampler, direction="minimize")
        self._fresh = Fresh()
        self._trials: dict[int, optuna.Trial] = {}
        for each in known:
            self._learn(each)

    def suggest(self, trial: int) -> Config | None:
        for _ in range(AGAIN):
            asked, config = self._asked()
            if self._fresh.take(config):
                break
            self._study.tell(asked, state=_states().FAIL)
        else:
            found = self._fresh.drawn(lambda attempt: by_chance(self._space, (self._seed, trial, attempt)))
            if found is None:
                return None
            self._study.enqueue_trial(self._params(found))
            asked, config = self._asked()
        self._trials[trial] = asked
        return config

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        asked = self._trials.get(trial)
        if asked is None:
            return
        if value is not None:
            self._storage.observe(asked._trial_id, step, self._sign * value, final)
        if final:
            self._end(asked, value)
            del self._trials[trial]

    def correct(self, trial: int, config: Config | None) -> None:
        """A trial has other settings than were suggested: those count."""
        asked = self._trials.pop(trial, None)
        if asked is not None:
            self._study.tell(asked, state=_states().FAIL)
        if config is not None:
            self._fresh.take(config)
            self._study.enqueue_trial(self._params(config))
            self._trials[trial] = self._asked()[0]

    def _asked(self) -> tuple[optuna.Trial, Config]:
        asked = self._study.ask()
        return asked, self._space.walk(lambda key, distribution: distribution.suggest(asked, key))

    def _end(self, asked: optuna.Trial, value: float | None) -> None:
        """Without a value, or with one that is no number, it is no complete one; what is seen of it is seen on."""
        if value is None or value != value:
            self._study.tell(asked, state=_states().FAIL)
        else:
            self._study.tell(asked, self._sign * value)

    def _learn(self, known: Known) -> None:
        from optuna.trial import create_trial

        params = self._params(known.config)
        distributions = {key: self._of[key].optuna() for key in params}
        self._study.add_trial(create_trial(state=_states().FAIL, params=params, distributions=distributions))
        latest = self._study.get_trials(deepcopy=False)[-1]
        self._storage.observe(latest._trial_id, known.step, self._sign * known.value, known.whole)

    def _params(self, config: Config) -> dict[str, Any]:
        """Settings by Optuna's own values, those alone that are searched."""
        return {key: self._of[key].param(value) for key, value in config.items() if key in self._of}


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState
