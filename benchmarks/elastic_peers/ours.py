"""Headway under the same faults, by its own fire drill, in the default mode (`reproducible: order`).

The job and its task are written into a folder outside the repository, as a user's would be. What was repeated or missed
comes from the drill's own account: the digests of the samples of every step, held against the order of the samples.
"""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import yaml

from elastic_peers import faults, workload
from headway.data.write.writer import write_dataset
from headway.errors import HeadwayError
from headway.runs import RunFolder
from headway.testing.account import Account
from headway.testing.drill import drill
from headway.testing.links import possible

T = TypeVar("T")
LANES = 8
STEPS = {"join": 600}
OTHER_STEPS = 160
SCRIPTS = {
    "worker killed": "kill worker={which} step={step}",
    "node killed": "kill node={which} step={step}",
    "join": "add node step={step}",
    "stopped": "stop worker={which} step={step}",
    "link cut": "cut node={which} step={step}",
    "last worker killed": "kill worker=0 step={step}",
    "all workers killed": "kill all step={step}",
    "link one way": "oneway node={which} step={step} to=all",
    "pair parted": "part workers=0,1 step={step}",
    "all links away": "cut nodes=0,1 step={step} for=3s",
    "head away": "blip head step={step} for=3s",
    "last worker killed with spare": "kill worker=0 step={step}",
    "worker killed with spare": "kill worker={which} step={step}",
}
"""`link one way`: what the node sends is lost, what is sent to it arrives."""
KEPT = ("last worker killed", "all workers killed")
"""Nobody is left who has the state but the nodes' keepers."""
AWAY_S = 3.0
PASSES = ("all links away", "head away")
"""Nobody is lost in these: what counts is how long after their end a step is committed, and the longest pause."""
CAST = {
    "last worker killed with spare": (2, ["workers.max=1", "workers.spares=1"]),
    "worker killed with spare": (3, ["workers.max=2", "workers.spares=1"]),
}
"""Machines, and what the job says of its workers."""
LATE, LATE_STEPS = (201, 260), 400
"""When the fault comes in these: the spare must have had the time to start."""
TASK = """
import workload
from headway import Task


class Numbers(Task):
    def __init__(self, parameters, seed):
        self.parameters, self.seed, self.samples = parameters, seed, None

    def model(self):
        return workload.build(self.parameters, self.seed)

    def optimizer(self, model):
        return workload.optimizer(model)

    def loss(self, model, batch):
        self.samples = self.samples or workload.Samples(model, self.seed)
        return self.samples.loss(model, batch["number"].tolist())
"""


def measure(fault: str, repeats: int, parameters: int, seed: int) -> dict[str, Any]:
    """Seconds, steps and samples of a fault; every repeat is kept."""
    lacking = [reason for verb in SCRIPTS[fault].split()[:1] if (reason := possible(verb)) is not None]
    if lacking:
        return faults.unmeasured(f"it cannot be brought about here: {lacking[0]}")
    found = []
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory(prefix="ours-") as folder:
            chance = random.Random(f"{fault} {seed} {repeat}")
            steps = LATE_STEPS if fault in CAST else STEPS.get(fault, OTHER_STEPS)
            job = write(Path(folder), parameters, seed + repeat, steps, rows=steps * workload.GLOBAL_BATCH)
            found.append(_once(job, fault, chance))
        print(f"    {fault} {repeat + 1}/{repeats}: {found[-1]}", flush=True)
    settings = {"reproducible": "order", "checkpoint_every_steps": workload.CHECKPOINT_EVERY, "workers": "the defaults"}
    return {"settings": settings, "repeats": found}


def write(folder: Path, parameters: int, seed: int, steps: int, rows: int) -> Path:
    """The job's file, with its task and its data beside it."""
    shutil.copy(Path(workload.__file__), folder / "workload.py")
    (folder / "task.py").write_text(TASK)
    numbers = pa.table({"number": np.arange(rows)})
    write_dataset(folder / "train", [numbers], name="numbers", source="made by a benchmark")
    job = {
        "name": "numbers",
        "task": "task.py:Numbers",
        "arguments": {"parameters": parameters, "seed": seed},
        "data": {"train": "train"},
        "lanes": LANES,
        "lane_batch": workload.GLOBAL_BATCH // LANES,
        "steps": steps,
        "seed": seed,
        "checkpoint": {"every_steps": workload.CHECKPOINT_EVERY},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def _once(job: Path, fault: str, chance: random.Random) -> dict[str, Any]:
    script = SCRIPTS[fault].format(which=chance.randrange(2), step=chance.randrange(41, 60))
    nodes = 1 if fault in ("join", "last worker killed") else 2
    load = faults.load()
    if fault in KEPT:
        return {**_kept(job, script, nodes), "load": load}
    if fault in PASSES:
        return {**_passed(job, script), "load": load}
    if fault in CAST:
        late = SCRIPTS[fault].format(which=chance.randrange(2), step=chance.randrange(*LATE))
        return {**_replaced(job, late, *CAST[fault]), "load": load}
    try:
        account = drill(job, faults=script, nodes=nodes, settings=["reproducible=order"], quiet_run=False)
    except HeadwayError as error:
        return {"failed": str(error)}
    joined = [r for r in account.recoveries if r["cause"] == "joined"]
    lost = [r for r in account.recoveries if r["fault"] and r["cause"] != "joined"]
    answers = joined if fault == "join" else lost
    if not answers or account.state != "finished":
        return {"failed": f"{account.state}: {account.message or 'no recovery was recorded'}", **asdict(account)}
    seconds = answers[0]["pause_s"] if fault == "join" else answers[0]["resumed_s"]
    return {
        "resume_s": seconds,
        "first_step_s": seconds,
        "detected_s": answers[0]["detected_s"],
        **_counted(account),
        "load": load,
    }


COUNTED = ("steps_repeated", "samples_repeated", "samples_missed", "steps")


def _drilled(
    job: Path, script: str, nodes: int, look: Callable[[RunFolder], T], settings: Sequence[str] = ()
) -> tuple[Account, float, T] | dict[str, Any]:
    """A drill without a quiet run beside it: its account, when the fault happened, and what is looked up in the run's
    folder, which goes; or why there is none."""
    try:
        every = ["reproducible=order", *settings]
        account = drill(job, faults=script, settings=every, nodes=nodes, quiet_run=False, keep=True)
    except HeadwayError as error:
        return {"failed": str(error)}
    assert account.folder is not None
    try:
        began = account.faults[0]["time"]
        if account.state != "finished" or began is None:
            return {"failed": f"{account.state}: {account.message or 'the fault did not happen'}"}
        (path,) = Path(account.folder).glob("runs/fire")
        return account, began, look(RunFolder(path))
    finally:
        shutil.rmtree(account.folder, ignore_errors=True)


def _times(run: RunFolder) -> list[float]:
    return sorted(step["time"] for step in run.steps())


def _counted(account: Account) -> dict[str, Any]:
    return {name: getattr(account, name) for name in COUNTED}


def _replaced(job: Path, script: str, nodes: int, workers: list[str]) -> dict[str, Any]:
    """A worker is killed: seconds until a step is committed again, and until one is by as many workers as before."""
    found = _drilled(job, script, nodes, lambda run: (_times(run), list(run.events())), workers)
    if isinstance(found, dict):
        return found
    account, began, (times, events) = found
    groups = [(e["time"], e["workers"]) for e in events if e["kind"] == "generation"]
    before = next(size for at, size in reversed(groups) if at < began)
    after = [at for at, size in groups if at > began and size == before]
    again = [at for at in times if at > began]
    full = [at for at in times if after and at > after[0]]
    full_s = full[0] - began if full else None
    return {"resume_s": again[0] - began, "full_strength_s": full_s, "workers": before, **_counted(account)}


def _kept(job: Path, script: str, nodes: int) -> dict[str, Any]:
    """No worker is left, and the machines live: seconds until the next step is committed, and what is done again.
    `steps_allowed` is what the upkeep of 2 % comes to: 50 x the time of a copy over that of a step, or 3."""
    found = _drilled(job, script, nodes, lambda run: (run.read()["states_kept"], list(run.events()), _times(run)))
    if isinstance(found, dict):
        return found
    account, began, (kept, events, times) = found
    begins = [event for event in events if event["kind"] == "restart"]
    if not begins:
        return {"failed": "nothing began again"}
    after = next(at for at in times if at > begins[0]["time"])
    allowed = max(3.0, 50.0 * kept["cost_s"] / kept["step_s"]) if kept["step_s"] else None
    rest = {"from_keeper": bool(begins[0].get("kept")), "steps_allowed": allowed, "states_kept": kept}
    return {"resume_s": after - began, **_counted(account), **rest}


def _passed(job: Path, script: str) -> dict[str, Any]:
    """A fault that passes: seconds from its end to the next committed step, and the longest pause around it."""
    found = _drilled(job, script, 2, _times)
    if isinstance(found, dict):
        return found
    account, began, times = found
    after = [at for at in times if at >= began + AWAY_S]
    pauses = [b - a for a, b in itertools.pairwise(times) if began - 1.0 <= b <= began + AWAY_S + 10.0]
    back_s = after[0] - began - AWAY_S
    killed = account.healthy_killed
    return {"resume_s": back_s, "pause_s": max(pauses), "healthy_killed": killed, **_counted(account)}
