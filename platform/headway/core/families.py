"""The names of a run's and a sweep's figures in Prometheus: what each says, its unit, labels, and their number.

They are what dashboards and alerts are made of: a name that is given away here is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.chronicle import CAUSES
from headway.core.incidents import PLANNED
from headway.core.ledger import CAUSES as SPENT_ON

PREFIX = "headway_"
STATES = ("running", "waiting", "finished", "stopped", "interrupted", "failed")
LOST_BY = (*CAUSES, *sorted(PLANNED))
"""Causes of a pause of training: of losses, and of changes that were planned."""
TRIAL_STATES = ("waiting", "running", "standing", "paused", "finished", "stopped", "failed", "diverged")
MOST_METRICS, MOST_WORKERS, MOST_NODES, MOST_DATASETS = 20, 64, 64, 16
GAUGE, COUNTER = "gauge", "counter"


@dataclass(frozen=True)
class Family:
    """Figures of one name.

    Args:
        kind: gauge, or counter, which never falls but for a new beginning.
        help: what it says, with its unit, in a line.
        labels: beside `run` (or `sweep`), which all have.
        most: series of one run, or one sweep.
    """

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    most: int = 1


def _gauge(help: str, *labels: str, most: int = 1) -> Family:
    return Family(GAUGE, help, labels, most)


def _counter(help: str, *labels: str, most: int = 1) -> Family:
    return Family(COUNTER, help, labels, most)


OF_A_RUN = {
    "run_info": _gauge("Always 1: the run's task, and the digest of all that decides its result.", "task", "digest"),
    "run_state": _gauge("1 for the state that the run is in, 0 for the others.", "state", most=len(STATES)),
    "step": _gauge("Committed steps."),
    "steps_planned": _gauge("Steps of the whole run."),
    "epoch": _gauge("Complete walks through the data."),
    "loss": _gauge("Training loss of the newest step."),
    "learning_rate": _gauge("Learning rate of the newest step."),
    "samples_total": _counter("Rows trained on since this start, those of repeated steps again."),
    "last_step_timestamp_seconds": _gauge("When the newest step was committed, in Unix seconds."),
    "goodput_ratio": _gauge("Share of worker-seconds that ended in committed steps, over all starts of the run."),
    "worker_seconds_total": _counter(
        "Worker-seconds by what they went to, over all starts of the run.", "cause", most=len(SPENT_ON)
    ),
    "workers": _gauge("Workers that train."),
    "workers_min": _gauge("Fewest workers to train with."),
    "workers_max": _gauge("Most workers to train with."),
    "generation": _gauge("Number of the present group of workers: it grows with each join and each loss."),
    "recoveries_total": _counter(
        "Times that training went on after a loss or a change of workers.", "cause", most=len(LOST_BY)
    ),
    "recovery_seconds_total": _counter("Seconds that training stood for them.", "cause", most=len(LOST_BY)),
    "lost_steps_total": _counter("Steps that were lost with all who had them, and done again."),
    "checkpoint_step": _gauge("Steps committed before the newest checkpoint."),
    "checkpoint_timestamp_seconds": _gauge("When the newest checkpoint was written, in Unix seconds."),
    "checkpoint_bytes": _gauge("Size of the newest checkpoint."),
    "checkpoint_blocked_seconds_total": _counter("Seconds for which training waited for checkpoints."),
    "checkpoint_failures_total": _counter("Checkpoints that could not be written."),
    "exchanged_bytes_total": _counter("Bytes that workers sent to each other since this start."),
    "dollars_total": _counter(
        "What the run has cost over all its starts: its machines, or its workers by workers.price_per_hour."
    ),
    "budget_used_ratio": _gauge("Share of the job's budget that is spent."),
    "spool_bytes": _gauge("Bytes of records that wait for the tracking store."),
    "worker_lane_seconds": _gauge(
        "Typical seconds that a worker takes for a lane; the slowest.", "worker", most=MOST_WORKERS
    ),
    "replica_mismatches_total": _counter("Replicas that differed from the others, and were healed."),
    "validation": _gauge("Newest value of a validation metric.", "metric", most=MOST_METRICS),
    "quarantined_rows_total": _counter(
        "Rows that were set aside because they could not be read.", "dataset", most=MOST_DATASETS
    ),
    "node_cpu_ratio": _gauge("Share of a node's processors in use.", "node", most=MOST_NODES),
    "node_memory_used_ratio": _gauge("Share of a node's memory in use.", "node", most=MOST_NODES),
    "node_gpu_ratio": _gauge("Share of the time for which a node's GPUs work.", "node", most=MOST_NODES),
    "node_network_bytes_total": _counter(
        "Bytes over a node's network interfaces.", "node", "direction", most=2 * MOST_NODES
    ),
    "node_disk_bytes_total": _counter("Bytes to and from a node's disks.", "node", "direction", most=2 * MOST_NODES),
}
"""By name, without the prefix."""

OF_A_SWEEP = {
    "sweep_trials": _gauge("Trials by state.", "state", most=len(TRIAL_STATES)),
    "sweep_best": _gauge("Best value so far of the metric that the sweep is about."),
    "sweep_workers": _gauge("Workers that work for the sweep, or wait for work."),
    "sweep_worker_seconds_total": _counter("Seconds for which the sweep held workers."),
    "sweep_budget_used_ratio": _gauge("Share of the sweep's budget that is spent, of the limit that is nearest."),
    "sweep_dollars_total": _counter("What they cost, by the price of a worker's hour."),
}

FAMILIES = {PREFIX + name: family for name, family in (OF_A_RUN | OF_A_SWEEP).items()}
"""All of them, by the names that Prometheus has."""
