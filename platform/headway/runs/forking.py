"""A run that begins with another's state: its checkpoint of that step, and the records of the steps before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.durable import sync_folder
from headway.errors import BadCheckpoint, BadInput

if TYPE_CHECKING:
    from headway.checkpoint.found import Checkpoint
    from headway.runs.folder import RunFolder
    from headway.storage.protocol import Storage


def begin_with(run: RunFolder, source: RunFolder, step: int, exact: bool, digest: str, epoch: int) -> None:
    """Let a run go on from another's state, whatever it has of its own.

    Its own records until there stay; of the steps that it has not done, they are the other's. One that is not exact
    and began so before, with the same job, begins with what it had then.

    Args:
        run: led by this process, with nobody at work on it.
        source: of the same place.
        step: of the other's, that it has a checkpoint of.
        exact: it is what the run would have computed itself. Else only the weights and what the optimiser has summed up
            are taken; its settings and the schedule are the run's own.
        digest: of the run's job.
        epoch: in which this process leads the run.

    Raises:
        BadInput: the other run has no sound checkpoint of that step.
        OSError: it cannot be written.
    """
    from headway.checkpoint import store, writing
    from headway.checkpoint.fork import ORIGIN, fork

    told, this = run.read(), {"run": source.name, "step": step, "exact": exact, "job": digest}
    name = "" if exact else _begun(run, told.get("begun_with"), this)
    found = None if name else _of_step(source, step)
    root = _storage(run)
    stale = [each for each in store.names(run.checkpoint_root, run.counting) if store.step_of(each) > step]
    for each in stale:  # it does not go on from there
        writing.discard(root, each)
    if found is not None:
        facts: dict[str, Any] = {"run": run.name, ORIGIN: {"run": source.name, "step": step, "exact": exact}}
        name = fork(found, root, epoch, digest, facts).name
    _records(run, run if found is None else source, step)
    told.update(made="", origin=("", -1))  # no keeper's state of this run is as new as that
    told["begun_with"] = {**this, "checkpoint": name}
    run.write(told)


def _begun(run: RunFolder, before: Any, this: dict[str, Any]) -> str:
    """The checkpoint with which it began so once already: whoever led it then was killed, and the other run may have
    let its own go since, or have another of that step. Empty where there is none."""
    from headway.checkpoint import store

    if not isinstance(before, dict) or {**before, "checkpoint": ""} != {**this, "checkpoint": ""}:
        return ""
    with suppress(BadCheckpoint, KeyError):
        return store.read(run.checkpoint_root, before["checkpoint"]).name
    return ""


def _of_step(source: RunFolder, step: int) -> Checkpoint:
    from headway.checkpoint import store

    names = [n for n in store.names(source.checkpoint_root, source.counting) if store.step_of(n) == step]
    for name in reversed(names):
        with suppress(BadCheckpoint):
            return store.read(source.checkpoint_root, name)
    raise BadInput(
        f"run {source.name} has no checkpoint of step {step}", "another run was to begin with it", "Begin without it."
    )


def _storage(run: RunFolder) -> Storage:
    from headway.storage.folder import FolderStorage

    root = run.checkpoint_root
    return FolderStorage(root) if isinstance(root, Path) else root


def _records(run: RunFolder, source: RunFolder, step: int) -> None:
    """A step's line has the number of steps before it; a measurement's, those that are done. The steps come last: by
    them it is known how far the run is."""
    run.cut("steps", step - 1)
    run.cut("metrics", step)
    measured = max((line["step"] for line in run.measurements()), default=-1)
    _append(run.path / "metrics.jsonl", (line for line in source.measurements() if measured < line["step"] <= step))
    last = run.last_step()
    _append(run.path / "steps.jsonl", (line for line in source.steps() if last < line["step"] < step))
    sync_folder(run.path)


def _append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if text:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
