"""Headway: elastic PyTorch training on Ray. The cluster decides how fast, never what."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.driver.run import resume as resume
    from headway.driver.run import train as train
    from headway.elastic.worker.session import session as session
    from headway.errors import HeadwayError as HeadwayError
    from headway.hooks import Hook as Hook
    from headway.job import Job as Job
    from headway.models.evaluate import evaluate as evaluate
    from headway.models.export import export as export
    from headway.models.loading import load_model as load_model
    from headway.models.predict import predict as predict
    from headway.report import Report as Report
    from headway.strategies.parameter_server.embedding import ServedEmbedding as ServedEmbedding
    from headway.sweeps.report import SweepReport as SweepReport
    from headway.sweeps.run import sweep as sweep
    from headway.sweeps.trainable import tune_trainable as tune_trainable
    from headway.task import Task as Task

__version__ = "0.1.0"
__all__ = [
    "HeadwayError",
    "Hook",
    "Job",
    "Report",
    "ServedEmbedding",
    "SweepReport",
    "Task",
    "__version__",
    "evaluate",
    "export",
    "load_model",
    "predict",
    "resume",
    "session",
    "sweep",
    "train",
    "tune_trainable",
]

_HOMES = {
    "HeadwayError": "headway.errors",
    "Hook": "headway.hooks",
    "Job": "headway.job",
    "Report": "headway.report",
    "ServedEmbedding": "headway.strategies.parameter_server.embedding",
    "Task": "headway.task",
    "SweepReport": "headway.sweeps.report",
    "evaluate": "headway.models.evaluate",
    "export": "headway.models.export",
    "load_model": "headway.models.loading",
    "predict": "headway.models.predict",
    "resume": "headway.driver.run",
    "sweep": "headway.sweeps.run",
    "session": "headway.elastic.worker.session",
    "train": "headway.driver.run",
    "tune_trainable": "headway.sweeps.trainable",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import headway` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headway' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
