"""A task's own `fit`: called once, on the whole training set, its result checked and packed."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headway.carried import code, fitted
from headway.data.manifest import Manifest
from headway.errors import BadInput, HeadwayError
from headway.faults import blame
from headway.fitting import pieces
from headway.fitting.dataset import Ask, Dataset, here
from headway.job import Job
from headway.task import Task

HERE_BYTES = 256 << 20
"""A training set of up to so many bytes is fitted on in one process, without Ray Data: the bits are the same."""
_MAY = re.compile(rb"\bfit\b")
Tell = Callable[[str], None]


def is_small(datasets: Mapping[str, Manifest]) -> bool:
    """Whether one process reads the training set quickly enough. datasets: by use."""
    return sum(dataset.bytes for use, dataset in datasets.items() if use != "validation") <= HERE_BYTES


def has_fit(found: Any) -> bool:
    """Whether a task's class has a `fit` of its own."""
    return inspect.isclass(found) and issubclass(found, Task) and found.fit is not Task.fit


def may_have_fit(source: code.Source, copied: Path) -> bool:
    """Whether a task may have one, as far as is known without importing it: somewhere in its code is the word."""
    if source.inside is None:
        return True
    return any(_MAY.search(content) for content in _contents(copied))


def _contents(copied: Path) -> Iterator[bytes]:
    for path in copied.rglob("*"):
        if path.is_file() and path.suffix in (".py", ".pkl") and "__pycache__" not in path.parts:
            yield path.read_bytes()


def run(job: Job, found: Any, ask: Ask = here, tell: Tell = lambda place: None) -> bytes | None:
    """Fit a task: what `fit` returned, packed; None where the task has none.

    Python's, NumPy's and torch's generators are seeded by the job's seed before.

    Args:
        job: its datasets' versions are pinned.
        found: the task's class, or a function, which has nothing to fit.
        ask: how the training set is asked, see `headway.fitting.spread`.
        tell: called with where the task is, before its code is called, and with '' after it.

    Raises:
        BadInput: it failed, or returned what cannot be kept; carries the user's traceback where their code raised.
        BadData: the training set cannot be read.
    """
    if not has_fit(found):
        return None
    name = found.__name__
    _seed(job.seed)
    rows = pieces.of(job)
    tell(f"{name}()")
    try:
        task = found(**job.call())
        tell(f"{name}.fit()")
        values = task.fit(Dataset(rows, ask))
    except HeadwayError:
        raise
    except BaseException as error:  # the task's, which may be anything, sys.exit among it
        if isinstance(error, KeyboardInterrupt):
            raise
        bad = BadInput(f"task {name}.fit() failed", blame.reason(error), "Mend the task.")
        bad.traceback = blame.users_traceback(error)
        raise bad from None
    finally:
        tell("")
        rows.close()
    if values is None:
        reason = "what it sets on self is known to this process alone"
        raise BadInput(f"task {name}.fit() returned None", reason, "Return it: it is self.fitted everywhere then.")
    return fitted.pack(values)


def _seed(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
