"""Looks at a source, makes datasets of it, and writes the task and the job. Nothing that is there is overwritten."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa

from headway.data.manifest import FILE, Manifest, load
from headway.data.prepare.here import is_small, prepared_here
from headway.data.prepare.options import Options
from headway.data.prepare.progress import Note, Say, nobody
from headway.data.prepare.sources.listing import chosen, listed
from headway.data.prepare.whole import prepared
from headway.data.read.groups import Groups
from headway.data.store.files import LocalFiles
from headway.data.tensors import TensorType
from headway.errors import BadInput
from headway.init import columns, images, table, text, written
from headway.init.columns import Roles

SPLIT = "train=0.8,validation=0.1,test=0.1"
PARTS = ("train", "validation", "test")
STEPS = 600
"""That a run is to have, about."""
LANES = 4
IMAGE_SIZE = "64x64"

JOB = """# What is trained, on what, how big. All keys: headway job schema
name: $name
task: task.py:$task
data:
  train: $train
  validation: $validation$columns
lanes: $lanes                     # parts of the batch, whatever machines there are: $lanes x $lane_batch rows a step
lane_batch: $lane_batch
epochs: $epochs
workers: {min: 1, max: 2}
optimizer: {name: adamw, lr: $rate, weight_decay: 0.01}
schedule: {name: cosine, warmup_steps: $warmup}
checkpoint: {keep_best: 1, metric: $metric, mode: $mode}
"""


@dataclass(frozen=True)
class Begun:
    """What was made.

    Args:
        files: written.
        parts: the datasets by their folders, with rows.
        kind: table, images or text.
        roles: of a table's columns.
        notes: for people.
        commands: what may be called next.
    """

    files: list[Path]
    parts: dict[str, int]
    kind: str
    roles: Roles | None
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Written:
    """A task that is to be written: its file, and what its job depends on."""

    text: str
    metric: str
    mode: str
    rate: str
    columns: list[str] = field(default_factory=list)


def begin(
    source: str | Path,
    target: str | None = None,
    name: str | None = None,
    folder: Path = Path(),
    image_size: str | None = None,
    say: Say = nobody,
    note: Note = lambda text: None,
) -> Begun:
    """Make datasets, a task and a job.

    Args:
        source: a file or a folder: of a table (CSV, Parquet, JSON lines), of images by class, of text; or a folder that
            holds the datasets train and validation already.
        target: column of a table that is to be predicted.
        name: of the job, the task and the datasets' folder; after the source when not given.
        folder: for task.py, job.yaml and data/NAME.
        image_size: HxW that images become.
        say: is told how far the preparation is.
        note: is told what is not kept, or was changed.

    Raises:
        BadInput: a file is there already, or the target cannot be predicted; nothing was written.
        BadData: the source cannot be read.
    """
    path = Path(source)
    called = written.job_name(name or path.name.partition(".")[0])
    files = [folder / "task.py", folder / "job.yaml"]
    for file in files:
        if os.path.lexists(file):
            reason = "nothing is overwritten"
            raise BadInput(f"{file} is there already", reason, "Go into another folder, or move it away.")
    made = (path / "train" / FILE).is_file()
    kind = _kind_of_dataset(path) if made else _kind(path)
    if (kind == "table") != (target is not None):
        raise _of_target(kind, path, target)
    data = path if made else folder / "data" / called
    task_name = written.class_name(called)
    with _undone(data, folder):
        manifests = _there(path) if made else _prepared(path, data, kind, target, image_size, say, note)
        task, roles = _task(kind, task_name, path.name, data, manifests, target)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files[0].write_text(task.text, encoding="utf-8")
            files[1].write_text(_job(called, task_name, task, data, folder, manifests["train"]), encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(f"{folder} cannot be written", reason, "Choose another --to.") from None
    parts = {str(data / part): manifest.rows for part, manifest in manifests.items()}
    test = data / ("test" if "test" in manifests else "validation")
    rows = path if kind == "table" and not made else test
    commands = [
        f"headway train {shlex.quote(str(files[1]))} --local --name first",
        f"headway evaluate first {shlex.quote(str(test))}",
        f"headway predict first {shlex.quote(str(rows))} --out predictions",
    ]
    return Begun(files, parts, kind, roles, roles.notes if roles else [], commands)


@contextmanager
def _undone(data: Path, folder: Path) -> Iterator[None]:
    """What was made here goes again when this fails, so that the next try has room."""
    fresh = not os.path.lexists(data)
    folders = [each for each in (data.parent, folder) if not each.exists()]
    try:
        yield
    except BaseException:  # raised again: an interrupt leaves as little behind as a refusal
        if fresh:
            shutil.rmtree(data, ignore_errors=True)
        for each in folders:
            with suppress(OSError):  # somebody has put something there
                each.rmdir()
        raise


def _kind(path: Path) -> str:
    kind, _ = chosen(path, listed(path), None)
    known = {"csv": "table", "parquet": "table", "jsonl": "table", "images": "images", "text": "text"}
    if kind not in known:
        reason = "a task is written for tables, images by class and text"
        raise BadInput(f"{path} holds {kind}", reason, "Prepare it: headway data prepare; and write a task.")
    return known[kind]


def _kind_of_dataset(path: Path) -> str:
    names = {name for name, _ in load(path / "train").schema}
    return "images" if names == {"image", "label"} else "text" if names == {"tokens"} else "table"


def _of_target(kind: str, path: Path, target: str | None) -> BadInput:
    if target is not None:
        reason = (
            "images have the names of their folders for classes" if kind == "images" else "text predicts its next byte"
        )
        return BadInput(f"--target {target}", f"{path} holds {kind}: {reason}", "Leave it out.")
    return BadInput("--target is missing", f"{path} is a table", "Name the column to predict: --target COLUMN.")


def _there(path: Path) -> dict[str, Manifest]:
    """Datasets that are there already."""
    if not (path / "validation" / FILE).is_file() and not (path / "test" / FILE).is_file():
        reason, remedy = (
            "it has no validation beside train",
            f"Make it: headway data prepare SRC {path} --split {SPLIT}",
        )
        raise BadInput(f"{path} is half a dataset", reason, remedy)
    return {part: load(path / part) for part in PARTS if (path / part / FILE).is_file()}


def _prepared(
    path: Path, data: Path, kind: str, target: str | None, image_size: str | None, say: Say, note: Note
) -> dict[str, Manifest]:
    """The source as datasets: parts by a hash of each row, which stay the same when rows are added."""
    given: dict[str, Any] = {"split": SPLIT}
    if kind == "table":
        given |= {"label": target, "filter": f"col({str(target)!r}) is not None"}
    if kind == "images":
        given["image_size"] = image_size or IMAGE_SIZE
    elif image_size is not None:
        raise BadInput(f"--image-size {image_size}", f"{path} holds no images", "Leave it out.")
    options = Options(**given)
    try:
        return prepared_here(path, data, options) if is_small(path) else prepared(path, data, options, say, note)
    except BadInput as error:
        if "--" not in error.remedy:
            raise
        remedy = f"{error.remedy} That is an option of `headway data prepare {path} {data} --split {SPLIT}`, "
        remedy += f"whose datasets `headway init {data}` takes."
        raise type(error)(error.fact, error.reason, remedy) from None


def _task(
    kind: str, name: str, source: str, data: Path, manifests: dict[str, Manifest], target: str | None
) -> tuple[_Written, Roles | None]:
    train = manifests["train"]
    sample = _first_rows(data / "train", train)
    if kind == "images":
        names = train.categories.get("label", [])
        shape = sample.schema.field("image").type.shape
        text_of = images.task(name, source, written.listed(names), shape[2] if len(shape) == 3 else 1)
        return _Written(text_of, "accuracy", "max", "2e-3"), None
    if kind == "text":
        kind_of = sample.schema.field("tokens").type
        assert isinstance(kind_of, TensorType)
        return _Written(text.task(name, source, kind_of.shape[0] - 1), "loss", "min", "1e-3"), None
    assert target is not None
    roles = columns.judged(sample, target)
    metric = "auc" if len(roles.classes) == 2 else "accuracy" if roles.kind == "classes" else "absolute_error"
    mode = "min" if metric == "absolute_error" else "max"
    return _Written(table.task(roles, name, source), metric, mode, "2e-3", roles.used), roles


def _first_rows(folder: Path, manifest: Manifest) -> pa.Table:
    groups = Groups(LocalFiles(folder, manifest))
    found, rows = [], 0
    for number in itertools.count():
        group = groups.load(number).table
        assert group is not None
        found.append(group)
        rows += group.num_rows
        if rows >= columns.ROWS or number + 1 == len(manifest.groups):
            return pa.concat_tables(found)
    raise AssertionError


def _job(called: str, name: str, task: _Written, data: Path, folder: Path, train: Manifest) -> str:
    """The job's file: a batch of a twenty-fifth of the rows, within reason, and epochs for about STEPS steps."""
    lane_batch = 8
    while lane_batch < 256 and 25 * 2 * LANES * lane_batch <= train.rows:
        lane_batch *= 2
    an_epoch = -(-train.rows // (LANES * lane_batch))
    epochs = max(2, min(50, round(STEPS / an_epoch)))
    place = os.path.relpath(data, folder)
    validation = "validation" if (data / "validation" / FILE).is_file() else "test"
    return Template(JOB).substitute(
        name=called,
        task=name,
        train=_quoted(f"{place}/train"),
        validation=_quoted(f"{place}/{validation}"),
        columns="".join(["\n  columns:", *(f"\n    - {_quoted(column)}" for column in task.columns)])
        if task.columns
        else "",
        lanes=LANES,
        lane_batch=lane_batch,
        epochs=epochs,
        rate=task.rate,
        warmup=min(100, an_epoch * epochs // 10),
        metric=task.metric,
        mode=task.mode,
    )


def _quoted(value: str) -> str:
    """Text as a value of YAML, on one line: in quotes where it is more than a plain word."""
    from headway.notation.plain import write

    plain = write(value).removesuffix("\n...\n").strip()
    return plain if value.isascii() and "\n" not in plain else json.dumps(value, ensure_ascii=False)
