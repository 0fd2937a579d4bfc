"""Ray Tune's schedulers, made with our words: what each of them is, in Tune's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from headway.core.rungs import steps_of
from headway.sweeps.events import Config
from headway.sweeps.schedule.protocol import Lengths
from headway.sweeps.schedule.tune import METRIC, SLACK, TIME, OfTune, Way

if TYPE_CHECKING:
    from headway.sweeps.space import Space

Mode = Literal["min", "max"]


def stopping(first: int, factor: float, mode: Mode, lengths: Lengths, seed: int) -> OfTune:
    """ASHA as Tune has it: at a rung the best go on at once, the others are ended. The first one there is the best."""
    from ray.tune.schedulers import ASHAScheduler

    ladder = steps_of(first, factor, lengths.steps, lengths.every)
    scheduler = ASHAScheduler(
        time_attr=TIME,
        metric=METRIC,
        mode=mode,
        max_t=max(first, lengths.steps),
        grace_period=first,
        reduction_factor=factor,
        stop_last_trials=False,
    )
    return OfTune(scheduler, mode, Way(_next_of(ladder), ladder, counts_diverged=True), seed)


def hyperband(first: int, factor: int, mode: Mode, lengths: Lengths, trials: int | None, seed: int) -> OfTune:
    """Brackets of successive halving with everybody waiting for everybody (L. Li et al., JMLR 2018).

    Args:
        first: steps of the shortest bracket, about: the longest is a whole trial, and a power of the factor longer.
    """
    from ray.tune.schedulers import HyperBandScheduler

    halvings = max(0, round(math.log(max(1.0, lengths.steps / first), factor)))
    unit = lengths.steps / factor**halvings
    longest = factor**halvings + SLACK  # its brackets are whole numbers by cutting off
    scheduler = HyperBandScheduler(time_attr=TIME, metric=METRIC, mode=mode, max_t=longest, reduction_factor=factor)
    ladder = _ladder(unit, factor, halvings, lengths)
    band = sum(math.ceil(scheduler._s_max_1 / (s + 1) * factor**s) for s in range(scheduler._s_max_1))
    way = Way(_next_of(ladder), ladder, unit=unit, crowd=trials or band, mend=_unlock)
    return OfTune(scheduler, mode, way, seed)


def median(grace: int, samples: int, mode: Mode, lengths: Lengths, seed: int) -> OfTune:
    """Who is worse at its best than the median of the others' means so far is ended (Golovin et al., KDD 2017).

    Args:
        grace: steps before which nobody is.
        samples: so many others it takes.
    """
    from ray.tune.schedulers import MedianStoppingRule

    scheduler = MedianStoppingRule(
        time_attr=TIME, metric=METRIC, mode=mode, grace_period=grace, min_samples_required=samples
    )
    # Trials before their grace are asked about too: the means of others are taken over all that they reported since.
    return OfTune(scheduler, mode, Way(_every(lengths.every), counts_diverged=True, once=True), seed)


def pbt(
    space: Space,
    interval: int,
    quantile: float,
    resample: float,
    keys: Sequence[str],
    mode: Mode,
    lengths: Lengths,
    trials: int,
    seed: int,
) -> OfTune:
    """Population based training (Jaderberg et al., 2017): the worst go on with the best's weights, and other settings.

    Args:
        interval: steps from one such occasion to the next.
        quantile: the part of the population that is the best, and the worst.
        resample: how probably a setting is drawn anew, and not changed by a little.
        keys: settings that change.
    """
    from ray.tune.schedulers import PopulationBasedTraining

    mutations = {key: _for_pbt(space, key) for key in keys}
    scheduler = PopulationBasedTraining(
        time_attr=TIME,
        metric=METRIC,
        mode=mode,
        perturbation_interval=interval,
        hyperparam_mutations=mutations,
        quantile_fraction=quantile,
        resample_probability=resample,
        log_config=False,
    )

    def back(config: Config) -> Config:
        """Within the space: Tune multiplies, and does not look where that leads."""
        return {key: _within(space.distributions[key], config[key]) for key in keys}

    way = Way(_every(_whole(interval, lengths.every)), crowd=trials, back=back)
    return OfTune(scheduler, mode, way, seed)


def pb2(
    space: Space,
    interval: int,
    quantile: float,
    keys: Sequence[str],
    mode: Mode,
    lengths: Lengths,
    trials: int,
    seed: int,
) -> OfTune:
    """Population based bandits (Parker-Holder et al., NeurIPS 2020): as PBT, with the settings by a Gaussian process.

    It sees each setting as its quantile, from 0 to 1, so that a learning rate is one by its logarithm.
    """
    from ray.tune.schedulers.pb2 import PB2

    scheduler = PB2(
        time_attr=TIME,
        metric=METRIC,
        mode=mode,
        perturbation_interval=interval,
        hyperparam_bounds={key: [0.0, 1.0] for key in keys},
        quantile_fraction=quantile,
        log_config=False,
    )
    of = space.distributions

    def there(config: Config) -> Config:
        return {key: float(of[key].unit(config[key])) for key in keys}

    def back(config: Config) -> Config:
        return {key: of[key].at(min(1.0, max(0.0, float(config[key])))) for key in keys}

    way = Way(_every(_whole(interval, lengths.every)), crowd=trials, warns=True, there=there, back=back)
    return OfTune(scheduler, mode, way, seed)


def _for_pbt(space: Space, key: str) -> Any:
    """What Tune changes a setting by: a list by its neighbours, a number by a factor."""
    of = space.distributions[key]
    return list(of.listed) if of.listed is not None else of.tune()


def _within(of: Any, value: Any) -> Any:
    return value if of.holds(value) else of.at(min(1.0, max(0.0, float(of.unit(value)))))


def _ladder(unit: float, factor: int, halvings: int, lengths: Lengths) -> tuple[int, ...]:
    """Steps at which HyperBand halves any of its brackets, put off to evaluations."""
    steps = {math.ceil(unit * factor**each / lengths.every - SLACK) * lengths.every for each in range(halvings)}
    return tuple(sorted(step for step in steps if step < lengths.steps))


def _unlock(scheduler: Any) -> None:
    """HyperBand marks a bracket while it ends trials of it, and leaves the mark: the bracket would wait for them."""
    for band in scheduler._hyperbands:
        for bracket in band:
            if bracket is not None:
                bracket.is_being_processed = False


def _next_of(ladder: Sequence[int]) -> Any:
    return lambda step: next((rung for rung in ladder if rung > step), None)


def _every(steps: int) -> Any:
    return lambda step: (step // steps + 1) * steps


def _whole(steps: int, every: int) -> int:
    return max(1, math.ceil(steps / every)) * every
