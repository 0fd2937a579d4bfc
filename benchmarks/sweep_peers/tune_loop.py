"""Tune's own loop with a scheduler that pauses at a rung and promotes, as asynchronous successive halving does.

Four trials and two rungs. A trial is as good as nothing, but for SETUP_S until it is ready, which stands for imports,
data and a model: what is paid once by a class trainable whose actors are reused, and at each entry by a function.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

TRIALS, RUNGS, SETUP_S, WORKERS = 4, 2, 1.0, 2


class Promotes(FIFOScheduler):
    """Every trial pauses at the first rung; all go on to the second."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._most = Path(folder, "held.json")
        self._running = 0

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        running = sum(each.status == Trial.RUNNING for each in tune_controller.get_trials())
        if running > self._running:
            self._running = running
            self._most.write_text(json.dumps({"running": running, **held()}))
        return TrialScheduler.PAUSE if result["rung"] < RUNGS else TrialScheduler.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        for status in (Trial.PENDING, Trial.PAUSED):
            for trial in tune_controller.get_trials():
                if trial.status == status:
                    return trial
        return None


def held() -> dict[str, int]:
    """What trials that run hold of the cluster: placement groups, and actors."""
    import ray
    from ray.util import placement_group_table
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    return {
        "placement_groups": len(groups),
        "actors": len(list_actors(address=address, filters=[("state", "=", "ALIVE")])),
    }


def note(what: str) -> None:
    """Count it, whichever process it happens in."""
    with Path(os.environ["TUNE_LOOP_NOTES"]).open("a") as file:
        file.write(f"{what}\n")


def function(config: dict[str, Any]) -> None:
    note("set-up")
    time.sleep(SETUP_S)
    rung, there = 0, tune.get_checkpoint()
    if there is not None:
        with there.as_directory() as folder:
            rung = int(Path(folder, "rung").read_text())
    while rung < RUNGS:
        rung += 1
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "rung").write_text(str(rung))
            tune.report({"rung": rung}, checkpoint=tune.Checkpoint.from_directory(folder))


class Class(tune.Trainable):
    ready = False

    def setup(self, config: dict[str, Any]) -> None:
        if not self.ready:
            note("set-up")
            time.sleep(SETUP_S)
        self.ready, self.rung = True, 0

    def step(self) -> dict[str, Any]:
        self.rung += 1
        return {"rung": self.rung, "done": self.rung >= RUNGS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "rung").write_text(str(self.rung))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.rung = int(Path(checkpoint, "rung").read_text())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True


def main(kind: str) -> None:
    import ray

    folder = str(Path.cwd())
    os.environ["TUNE_LOOP_NOTES"] = f"{folder}/notes.txt"
    inside = {name: os.environ[name] for name in ("TUNE_LOOP_NOTES", "PYTHONPATH")}
    ray.init(
        address="local", num_cpus=WORKERS, _node_ip_address="127.0.0.1", logging_level="ERROR",
        runtime_env={"env_vars": inside},
    )  # fmt: skip
    if kind == "nothing":
        print(json.dumps(_refused(folder)))
        return
    begun = time.monotonic()
    tuner = tune.Tuner(
        Class if kind == "class" else function,
        tune_config=tune.TuneConfig(num_samples=TRIALS, scheduler=Promotes(folder), reuse_actors=kind == "class"),
        run_config=tune.RunConfig(name="loop", storage_path=f"{folder}/storage", verbose=0),
    )
    results = tuner.fit()
    seconds = round(time.monotonic() - begun, 1)
    set_ups = len(Path(os.environ["TUNE_LOOP_NOTES"]).read_text().splitlines())
    rungs = [result.metrics["rung"] for result in results]
    looked = Path(folder, "held.json")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "set_ups": set_ups,
                "rungs": rungs,
                "held": json.loads(looked.read_text()),
            }
        )
    )


def _refused(folder: str) -> dict[str, Any]:
    """What Tune says to a trial that wants no resources, and next to none."""
    found: dict[str, Any] = {}
    for cpus in (0, 0.001):
        tuner = tune.Tuner(
            tune.with_resources(Class, {"CPU": cpus}),
            run_config=tune.RunConfig(name=f"cpu-{cpus}", storage_path=f"{folder}/storage", verbose=0),
        )
        try:
            (result,) = tuner.fit()
            found[f"CPU: {cpus}"] = "runs" if result.error is None else str(result.error).strip().splitlines()[-1]
        except Exception as error:
            found[f"CPU: {cpus}"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return found


if __name__ == "__main__":
    main(sys.argv[1])
