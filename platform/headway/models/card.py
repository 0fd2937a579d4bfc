"""The card of an exported model: what it is, what it was trained on, how good it was, how it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from torch import nn

from headway.models.columns import Columns
from headway.models.kept import Trained


def written(trained: Trained, seen: Columns, model: nn.Module, about: dict[str, Any], needs: str) -> str:
    """The card, as Markdown.

    Args:
        trained: the run.
        seen: columns of its training set.
        model: with its state.
        about: of export.json.
        needs: what of Headway the task's code uses that was not brought along; empty: nothing.
    """
    return "\n".join(_lines(trained, seen, model, about, needs)) + "\n"


def _lines(trained: Trained, seen: Columns, model: nn.Module, about: dict[str, Any], needs: str) -> Iterator[str]:
    job, facts = trained.job, trained.run.read()
    numbers = sum(parameter.numel() for parameter in model.parameters())
    yield f"# {job.name}"
    yield ""
    yield f"Step {about['step']} of run `{about['run']}`, trained by Headway {about['headway']}: `{about['name']}` in"
    yield f"`{about['file']}`, {numbers:,} parameters."
    yield ""
    yield "## Use it"
    yield ""
    yield "    pip install torch numpy pyarrow safetensors" + (" headway" if needs else "")
    yield "    python predict.py rows.parquet predictions.parquet"
    yield ""
    if needs:
        yield f"Headway has to be installed: the task's code uses {needs}."
    else:
        yield "Headway need not be installed: what the task's code uses of it is in `without/`."
    yield ""
    yield f"It wants these columns: {_columns(seen)}." if seen.types else "Its columns are not known."
    if seen.label:
        yield f"It predicts `{seen.label}`, which need not be there."
    yield ""
    yield "## How good it was"
    yield ""
    yield from _metrics(about["metrics"], job.data.validation)
    yield ""
    yield "## What it was trained on"
    yield ""
    yield from _data(trained, facts.get("datasets") or {})
    yield ""
    yield f"Global batch {job.global_batch} ({job.lanes} lanes of {job.lane_batch} rows), "
    yield f"{facts.get('steps', about['step'])} steps, seed {job.seed}, {job.precision}, torch {about['torch']}."
    yield ""
    yield "## Digests"
    yield ""
    yield f"Checkpoint (SHA-256 over those of its parts): `{about['checkpoint']}`."
    yield "Those of all files are in `export.json`, and `predict.py` compares them."
    yield ""
    yield "## The job"
    yield ""
    told = job.model_dump(include={"task", "arguments", "optimizer", "schedule", "epochs", "steps", "clip_norm"})
    told["task"] = told["task"].rpartition("/")[2]
    yield from (f"    {line}" for line in yaml.safe_dump(told, sort_keys=False).splitlines())


def _columns(seen: Columns) -> str:
    return ", ".join(f"`{name}` ({kind})" for name, kind in seen.types.items() if name != seen.label)


def _metrics(metrics: dict[str, float], validation: str | None) -> Iterator[str]:
    if not metrics:
        yield "This state was not evaluated."
        return
    yield f"On the validation set{f' ({_last(validation)})' if validation else ''}, at this step:"
    yield ""
    yield "| metric | value |"
    yield "|---|---|"
    yield from (f"| {name} | {value:.6g} |" for name, value in sorted(metrics.items()))


def _data(trained: Trained, noted: dict[str, Any]) -> Iterator[str]:
    if noted:
        yield "| use | dataset | rows | version | SHA-256 |"
        yield "|---|---|---|---|---|"
        for use, of in noted.items():
            yield f"| {use} | {of['name']} | {of['rows']:,} | {of['version']} | `{of['digest']}` |"
        return
    for source in trained.job.data.sources:
        yield f"- {_last(source.path)}, version {source.version or 1}"


def _last(path: str) -> str:
    return "/".join(path.rstrip("/").split("/")[-2:])
