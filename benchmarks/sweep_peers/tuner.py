"""Plain Ray: `tune.Tuner` over a function that runs a TorchTrainer of one worker, as Ray's documentation has it.

Best settings: as many trials at once as there are CPUs for workers, a driver of a trial that takes next to no CPU, no
checkpoint but at the evaluations. With Ray 2.60 trials that ASHA stops keep their placement groups, until nothing is
left for the others, unless RAY_ADDRESS is in the runtime environment and Ray's dashboard runs.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from sweep_peers import workload


def main() -> None:
    size, configurations, _ = workload.given()
    print(json.dumps(sweep(size, configurations)))


def sweep(size: workload.Size, configurations: list[dict[str, Any]]) -> dict[str, Any]:
    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    inside = {"RAY_ADDRESS": f"127.0.0.1:{port}", "PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
    ray.init(
        address="local",
        num_cpus=workload.WORKERS + 1,
        _node_ip_address="127.0.0.1",
        include_dashboard=True,  # whom the cleaner of placement groups asks whether a trial's controller lives
        dashboard_port=0,
        runtime_env={"env_vars": inside},
        logging_level="ERROR",
        object_store_memory=256 * 2**20,
    )
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.001}),
        param_space={"index": tune.grid_search(list(range(len(configurations)))), "all": configurations, "size": size},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            max_concurrent_trials=workload.WORKERS,
            scheduler=AsyncHyperBandScheduler(
                time_attr="step", max_t=size.steps, grace_period=size.first, reduction_factor=size.factor
            ),
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(Path.cwd() / "storage"), verbose=0),
    )
    results = tuner.fit()
    frames = [result.metrics_dataframe for result in results]
    last = [{"trial": number, **_last(frame)} for number, frame in enumerate(frames)]
    found = {
        "best": max(float(frame["accuracy"].max()) for frame in frames if frame is not None and "accuracy" in frame),
        "best_at_the_end": max(row["accuracy"] for row in last),
        "steps": sum(row["step"] for row in last),
        "failed": sum(result.error is not None for result in results),
    }
    ray.shutdown()
    return found


def _last(frame: Any) -> dict[str, Any]:
    if frame is None or "accuracy" not in frame:
        return {"step": 0, "accuracy": 0.0}
    row = frame.iloc[-1]
    return {"step": int(row["step"]), "accuracy": float(row["accuracy"])}


def trial(config: dict[str, Any]) -> None:
    """What Tune calls a trial: it has a training run of its own."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        train,
        train_loop_config={"config": config["all"][config["index"]], "size": config["size"]},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=str(Path(tune.get_context().get_trial_dir()) / "train"),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def train(config: dict[str, Any]) -> None:
    """The worker's loop."""
    import torch
    from ray.train import Checkpoint, report
    from ray.train.torch import prepare_model

    trial = workload.Trial(config["config"], config["size"])
    trial.wrap(prepare_model)
    for found in trial.evaluations():
        with tempfile.TemporaryDirectory() as fresh:
            torch.save(trial.state(), Path(fresh) / "state.pt")
            report(found, checkpoint=Checkpoint.from_directory(fresh))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
