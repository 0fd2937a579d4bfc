"""What a driver on the cluster says of a run: its plan for whoever submitted it, and lines in its log."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headway import plan
from headway.driver import rayjob
from headway.driver.progress import Progress
from headway.job import Job
from headway.jobs.there.preflight import Found
from headway.runs.place import Place, is_url

EVERY_S = 10.0
"""Between two lines that say how far the run is."""


class Said:
    """Prints what a run says of itself. Give it as `watch`.

    Args:
        write: takes a line.
        clock: seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.notes: list[str] = []
        """What it said before its first step, for the plan."""
        self._write, self._clock = write, clock
        self._step, self._at = -1, -EVERY_S
        self._metrics: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        """A few times a second."""
        for message in progress.messages:
            self._write(message)
            if progress.step == 0:
                self.notes.append(message.removeprefix("note: "))
        if progress.step and progress.metrics != self._metrics:
            self._metrics = progress.metrics
            shown = "  ".join(f"{name} {value:.4f}" for name, value in progress.metrics.items())
            self._write(f"step {progress.measured}: validation  {shown}")
        now = self._clock()
        last = progress.step == progress.total_steps
        if progress.step > 0 and progress.step != self._step and (last or now - self._at >= EVERY_S):
            self._step, self._at = progress.step, now
            loss = "-" if progress.loss is None else f"{progress.loss:.4f}"
            several = "" if progress.workers == 1 else "s"
            self._write(
                f"step {progress.step}/{progress.total_steps}  epoch {progress.epoch}  loss {loss}  "
                f"{progress.samples_per_s:,.0f} samples/s  {progress.workers} worker{several}"
            )


def plan_told(
    run: str, job: Job, checked: plan.Plan, place: Place, found: Found, notes: Sequence[str]
) -> dict[str, Any]:
    """The plan as it is told, see `headway.jobs.told`: plain values, and none of the job's secrets.

    Args:
        run: its name.
        job: pinned.
        checked: what it comes to.
        place: of the runs.
        found: of the cluster.
        notes: what was said meanwhile, the plan's own warnings among it.
    """
    places = plan.places(job)
    data = {
        use: {"place": places[use][0], "rows": known.rows, "version": known.version}
        for use, known in checked.datasets.items()
    }
    bad = {address: tried.why for address, tried in found.tried.items() if not tried.good}
    return {
        "run": run,
        "runs": str(place),
        "where": place.place_of(run),
        "data": data,
        "tried": {"nodes": len(found.tried), "good": len(found.tried) - len(bad), "bad": bad},
        "workers": {
            "min": job.workers.min,
            "max": job.workers.max,
            "now": found.now,
            "most": found.most,
            "each": job.workers.each,
            "autoscaler": found.autoscaler,
        },
        "lanes": {str(workers): lanes for workers, lanes in checked.lanes_per_worker.items()},
        "sizes": checked.sizes,
        "rows": checked.rows,
        "steps": checked.total_steps,
        "global_batch": checked.global_batch,
        "parameters": checked.parameters,
        "checkpoint_bytes": checked.checkpoint_bytes,
        "strategy": checked.told_strategy,
        "lanes_together": checked.together,
        "activation_checkpointing": checked.checkpointed,
        "memory": checked.memory,
        "warnings": [*dict.fromkeys((*checked.warnings, *notes, *found.notes))],
        "readers": readers(place, [path for path, _ in job.data.stored.values()]),
        "installed": installed(rayjob.runtime_env()),
        "cluster": {
            "ray": importlib.metadata.version("ray"),
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "nodes": len(found.tried),
        },
    }


def installed(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Size of the packages that Ray installed for this job; empty where it installed none."""
    asked: Any = next((runtime_env[kind] for kind in ("uv", "pip") if runtime_env.get(kind)), [])
    lines = asked.get("packages", []) if isinstance(asked, dict) else asked
    names = [found[0] for line in lines if (found := re.match(r"[A-Za-z0-9._-]+", str(line)))]
    sizes = {name: _size(name) for name in names}
    return {"packages": sizes, "bytes": sum(sizes.values())} if sizes else {}


def _size(name: str) -> int:
    """Bytes of an installed distribution's files; 0 where that is not known."""
    try:
        return sum(file.size or 0 for file in importlib.metadata.files(name) or ())
    except importlib.metadata.PackageNotFoundError:
        return 0


def readers(place: Place, data: list[str]) -> list[str]:
    """Who can read what the run reads and writes, in sentences."""
    found = []
    if place.url is not None:
        found.append(f"the run's records, code and checkpoints: whoever may read {place.url}")
    else:
        found.append(f"the run's records, code and checkpoints: every user of the nodes who may read {place.folder}")
    stores = sorted({path for path in data if is_url(path)})
    folders = sorted({path for path in data if not is_url(path)})
    found += [f"the data: whoever may read {', '.join(stores)}"] if stores else []
    found += [f"the data: every user of the nodes who may read {', '.join(folders)}"] if folders else []
    found.append("the code and this plan: every holder of the cluster's token, while the job is in Ray's list")
    return found
