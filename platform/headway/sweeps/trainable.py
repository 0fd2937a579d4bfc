"""For people who use `tune.Tuner`: a job as a class trainable, which pauses, goes on elsewhere, takes the next trial.

    tuner = tune.Tuner(
        headway.tune_trainable("job.yaml"),
        param_space={"optimizer.lr": tune.loguniform(1e-4, 1e-1)},
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", num_samples=16, reuse_actors=True,
                                    scheduler=ASHAScheduler(time_attr="step", max_t=940, grace_period=235)),
    )

A trial is one worker, in its Tune actor; each `train()` goes to the job's next evaluation. What a sweep of Headway's
own adds, Tune's loop has no room for: see docs/sweeps.md.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import PlacementGroupFactory, Trainable
from ray.tune.result import DONE

from headway import plan, variables
from headway.carried import code, packed
from headway.errors import BadInput
from headway.job import Job, taken
from headway.sweeps.settings import settle

if TYPE_CHECKING:
    from headway.sweeps.alone import Given, Way

STEP = "step"
"""By which a scheduler of Tune's goes: its `time_attr`."""


def tune_trainable(job: Job | dict[str, Any] | str | Path) -> type[Trainable]:
    """A class trainable of `ray.tune` that trains this job; a trial's config is laid over it by the job's dotted keys
    ("optimizer.lr"), or by nested ones.

    Args:
        job: a Job, the same as a mapping, or the path of its YAML file.

    Returns:
        A subclass of `ray.tune.Trainable`. It reports `step`, and every validation metric of the task by its name, at
        each evaluation that the job asks for.

    Raises:
        BadInput: the job cannot be used, or has nothing to be evaluated on.
    """
    from headway.sweeps.alone import Given

    job = taken(job)
    if job.data.validation is None:
        raise BadInput("data.validation is not set", "a trial is judged by its evaluations", "Set data.validation.")
    checked = plan.check(job)
    training = tuple(dataset for use, dataset in checked.datasets.items() if use != "validation")
    whole = plan.pinned(job, checked).model_dump()
    rest = Given(_travelling(checked), training, variables.given(job))

    class Trained(_Trained):
        tree, given = whole, rest

    Trained.__name__ = job.name
    return Trained


def _travelling(checked: plan.Plan) -> code.Source:
    """The task's code, with the files beside it, for machines that do not see this one's."""
    if checked.source.inside is None:
        return checked.source
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:
        code.carry(checked.source, Path(folder), checked.cargo)
        content = packed.pack(Path(folder))
        source = code.carried(checked.source, Path(folder))
    return replace(source, packed=packed.Packed(partial(bytes, content), hashlib.sha256(content).hexdigest()))


class _Trained(Trainable):
    """See `tune_trainable`."""

    tree: dict[str, Any]
    given: Given
    _way: Way | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Those of one worker."""
        each = Job.model_validate(cls.tree).workers.each
        return PlacementGroupFactory([{name: amount for name, amount in each.items() if amount}])

    def setup(self, config: dict[str, Any]) -> None:
        self._job = settle(dict(_flat(config)), self.tree)

    def step(self) -> dict[str, Any]:
        """To the next evaluation; what it gave."""
        there = self._there().advance()
        return {STEP: there.step, **there.values, DONE: there.over}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The state at this evaluation. Before the first one there is none: the trial begins anew."""
        if self._way is not None:
            self._way.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from there. Of a trial of other settings (population based training) the weights and what the optimiser
        has summed up are taken. Raises BadCheckpoint."""
        self.cleanup()
        self._there().begin_with(Path(checkpoint))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """This process takes another trial."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        if self._way is not None:
            self._way.leave()
            shutil.rmtree(self._way.folder, ignore_errors=True)
            self._way = None

    def _there(self) -> Way:
        """Its way, begun where it was not."""
        from headway.sweeps.alone import Way

        if self._way is None:
            self._way = Way(self._job, self.given, Path(tempfile.mkdtemp(prefix="headway-trial-")))
        return self._way


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
