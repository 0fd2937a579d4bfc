"""Optuna with as many processes as workers: each trains a trial in itself, and is pruned by successive halving.

No Ray, no start of a trial: the least that a sweep on one machine can cost. A trial that is pruned is never gone on
with, one that runs has one core to its end, and a process that dies loses its trial.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from sweep_peers import workload

JOURNAL = "journal.log"


def main() -> None:
    size, configurations, rest = workload.given()
    if "process" in rest:
        work(size, configurations)
        return
    study = _study(size)
    for number in range(len(configurations)):
        study.enqueue_trial({"index": number})
    command = [sys.executable, "-m", "sweep_peers.processes", workload.saved(size, process=True)]
    processes = [subprocess.Popen(command) for _ in range(workload.WORKERS)]
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(f"processes ended with {codes}")
    trials = study.get_trials()
    values = [max(trial.intermediate_values.values()) for trial in trials]
    last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in trials]
    steps = sum(max(trial.intermediate_values) for trial in trials)
    print(json.dumps({"best": max(values), "best_at_the_end": max(last), "steps": steps, "failed": 0}))


def _study(size: workload.Size) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(JOURNAL)),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=size.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=size.first, reduction_factor=size.factor),
        load_if_exists=True,
    )


def work(size: workload.Size, configurations: list[dict[str, Any]]) -> None:
    """One process: trials as long as there are any that wait."""
    import optuna

    def objective(trial: optuna.Trial) -> float:
        number = trial.suggest_int("index", 0, len(configurations) - 1)
        found: dict[str, float] = {}
        for found in workload.Trial(configurations[number], size).evaluations():
            trial.report(found["accuracy"], int(found["step"]))
            if trial.should_prune():
                raise optuna.TrialPruned
        return found["accuracy"]

    study = _study(size)
    while any(trial.state is optuna.trial.TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
        study.optimize(objective, n_trials=1)


if __name__ == "__main__":
    main()
