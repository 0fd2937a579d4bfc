"""`headway export`: a run's model in a folder of its own, to be given away.

OUT/README.md            what it is: a card with data, digests, metrics
    model.safetensors    the model's state; of modules beside it too
    code/                the task's Python, what travelled with it, what it had fitted
    predict.py           uses it on rows, without Headway where the task's code allows
    export.json          what that needs to know, and digests of all files
    without/headway/     the parts of Headway that the task's code uses, where these are few
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headway.carried import code
from headway.durable import take_place
from headway.elastic.worker.modules import Modules, of_task
from headway.errors import BadInput
from headway.models import alone, card, columns, kept, loading, predicting, standalone
from headway.models.columns import Columns
from headway.models.kept import Trained
from headway.runs import RunFolder

FORMAT = "headway-export/1"


@dataclass(frozen=True)
class Exported:
    """What was made.

    Args:
        run: its name.
        step: of the checkpoint.
        out: the folder.
        bytes: of all files.
        alone: whether it needs no Headway; else why it does.
        notes: for people.
    """

    run: str
    step: int
    out: str
    bytes: int
    needs_headway: str
    notes: list[str]


def export(
    run: str | Path | RunFolder,
    out: str | Path,
    *,
    step: str | int = "best",
    runs_folder: str | Path | None = None,
) -> Exported:
    """Put a run's model into a folder of its own: weights, the task's code, a script that uses both, a card.

    Args:
        run: its name, folder or URL.
        out: the folder to make.
        step: of the checkpoint: "best", "last" or a number.
        runs_folder: as of `headway.train`.

    Raises:
        BadInput: there is no such run or checkpoint, the folder is there, or the state holds what no such file can.
        BadCheckpoint: the checkpoint is damaged.
    """
    trained = kept.read(kept.find(run, runs_folder), step)
    target = Path(os.path.realpath(out))
    if target.exists():
        raise BadInput(f"{target} already exists", "nothing is overwritten unasked", "Choose another --out.")
    seen = columns.of_run(trained.run, trained.job)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            folder = Path(beside) / "made"
            folder.mkdir()
            needs = _fill(folder, trained, seen)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            take_place(folder, target, Path(beside) / "old")
    except OSError as error:
        raise BadInput(f"{target} cannot be written", error.strerror or str(error), "Choose another --out.") from None
    return Exported(trained.run.name, trained.checkpoint.step, str(target), size, needs, list(trained.notes))


def _fill(folder: Path, trained: Trained, seen: Columns) -> str:
    """Write all of it. Returns why Headway is needed to use it; empty where it is not."""
    model, task = loading.built(trained)
    assert task is not None
    modules = Modules(model, of_task(task, model))
    state, aliases = _state(trained, modules)
    source = loading.source_of(trained)
    if source.inside is None:
        raise BadInput(
            f"the task of run {trained.run.name} is of the installed package {source.module}",
            "its code did not travel with the run, so it cannot be given away with it",
            "Install that package where the model is used, and use headway.load_model there.",
        )
    shutil.copytree(trained.run.code, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    needs = standalone.bring(folder / "code", folder / "without")
    shutil.copy(Path(alone.__file__).with_name("predict.py"), folder / "predict.py")
    _write_tensors(folder / "model.safetensors", state)
    about = _about(trained, seen, source, modules, aliases)
    try:
        json.dumps(about)
    except TypeError as error:
        raise BadInput(f"arguments={trained.job.arguments}", f"export.json cannot hold them: {error}", "") from None
    (folder / "README.md").write_text(card.written(trained, seen, model, about, needs), encoding="utf-8")
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
    (folder / "export.json").write_text(json.dumps({**about, "files": files}, indent=1), encoding="utf-8")
    return needs


def _state(trained: Trained, modules: Modules) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, each once; and further names of those that have some.

    Raises:
        BadInput: something in the state is no tensor.
    """
    beside = {
        name: value.detach()
        for root, other in modules.others.items()
        for name, value in ((f"{root}:{key}", value) for key, value in other.state_dict().items())
    }
    found: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    known: dict[tuple[Any, ...], str] = {}
    for name, value in {**modules.model.state_dict(), **beside}.items():
        if not isinstance(value, torch.Tensor):
            raise BadInput(
                f"the model's state has {name!r}, a {type(value).__name__}", "safetensors hold tensors alone", ""
            )
        place = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
        if value.numel() and place in known:
            aliases[name] = known[place]
            continue
        known[place] = name
        found[name] = value.detach().to("cpu").contiguous().clone()
    return found, aliases


def _write_tensors(path: Path, state: dict[str, torch.Tensor]) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise BadInput(
            "safetensors is not installed", "weights are exported with it", "pip install safetensors"
        ) from None
    save_file(state, path, {"format": "pt"})


def _about(
    trained: Trained, seen: Columns, source: code.Source, modules: Modules, aliases: dict[str, str]
) -> dict[str, Any]:
    job, kept_code = trained.job, trained.run.code
    inside = [f"code/{path.relative_to(kept_code)}" for path in (source.folder, *source.paths)]
    file = source.folder / f"{source.module.replace('.', '/')}.py"
    return {
        "format": FORMAT,
        "headway": standalone.VERSION,
        "torch": torch.__version__,
        "run": trained.run.name,
        "step": trained.checkpoint.step,
        "checkpoint": trained.digest,
        "metrics": dict(trained.checkpoint.facts.get("metrics", {})),
        "module": source.module,
        "file": f"code/{file.relative_to(kept_code).as_posix()}",
        "name": source.name,
        "home": inside[0],
        "paths": inside,
        "arguments": job.call(),
        "fitted": f"code/{code.FITTED}" if (kept_code / code.FITTED).is_file() else None,
        "seed": job.seed,
        "precision": job.precision,
        "batch": predicting.MOST_ROWS if job.data.eval_batch is None else job.data.eval_batch,
        "types": seen.types,
        "label": seen.label,
        "value": seen.value,
        "categories": seen.categories,
        "beside": sorted(modules.others),
        "aliases": aliases,
        "late": list(trained.parts["session"].get("late", [])),
    }


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
