"""best.yaml: the best configuration of a sweep as a job that is ready to train."""

from __future__ import annotations

from headway.errors import BadInput
from headway.job import Job, to_yaml
from headway.notation.plain import write
from headway.runs.folder import kept
from headway.sweeps.report import SweepReport

FILE = "best.yaml"


def written(report: SweepReport, job: Job, file: str = FILE) -> str:
    """The file's text: where it comes from, and the job.

    Args:
        job: with the settings of the best evaluation.
        file: its name, for the words in it.

    Raises:
        BadInput: no trial was evaluated yet, or all of them failed.
    """
    best = report.best
    if best is None or best.best is None:
        raise BadInput(
            f"sweep {report.sweep} has no best trial", "none was evaluated and went on well", "Let it go on first."
        )
    others = f"of {len(report.trials)} trials, {report.worker_s:,.0f} worker-seconds, {report.state}"
    told = [
        f"The best of sweep {report.sweep} ({others}).",
        f"Trial {best.trial}: {report.metric} {best.best:.6g} after {best.best_step} steps. Its settings:",
        *(f"  {line}" for line in write(best.best_settings).splitlines()),
    ]
    if best.best_origin is not None:
        source, step = best.best_origin
        told.append(f"It went on from trial {source}'s weights of step {step}: alone it may come out otherwise.")
    told.append(f"Train it: headway train {file}")
    return "".join(f"# {line}\n" for line in told) + to_yaml(kept(job))
