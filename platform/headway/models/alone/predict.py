#!/usr/bin/env python
"""Use this model on rows: python predict.py DATA [OUT.parquet]

DATA is a Parquet or CSV file (by commas, semicolons, tabs or bars), or a folder of Parquet. Needs torch, numpy,
pyarrow, safetensors, and what the task's own code in code/ imports; Headway only if that uses more of it than without/
holds.

From Python: `model, task, about = load()`, then as in `main`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import nn

HERE = Path(__file__).resolve().parent
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load(device: str = "cpu") -> tuple[nn.Module, Any, dict[str, Any]]:
    """The model in evaluation mode, the task, and what export.json says of them."""
    about: dict[str, Any] = json.loads((HERE / "export.json").read_text(encoding="utf-8"))
    for name, digest in about["files"].items():
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{name} is not the file that was exported: its SHA-256 differs")
    with contextlib.chdir(HERE / about["home"]):  # where the task finds files that it names without a folder
        task = _task(about)
        torch.manual_seed(about["seed"])
        model = task.model()
        model = model if isinstance(model, nn.Module) else nn.ModuleDict(dict(model))
    others = {root: _at(task, root) for root in about["beside"]}
    _fill(model, others, about)
    for module in (model, *others.values()):
        module.to(device).eval()
    return model, task, about


def _task(about: dict[str, Any]) -> Any:
    sys.path[:0] = [str(HERE / path) for path in about["paths"]]
    if importlib.util.find_spec("headway") is None:
        sys.path.append(str(HERE / "without"))
    importlib.import_module("headway.data.tensors")  # columns of tensors are known from here on
    torch.manual_seed(about["seed"])
    spec = importlib.util.find_spec(about["module"]) if about["module"].isidentifier() else None
    if spec is None or not str(spec.origin).startswith(str(HERE)):  # a file that is called as a module of Python's is
        spec = importlib.util.spec_from_file_location(f"task_{about['module']}", HERE / about["file"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    task = getattr(module, about["name"])(**about["arguments"])
    if about["fitted"]:
        task.fitted = _fitted((HERE / about["fitted"]).read_bytes())
    return task


def _fitted(content: bytes) -> Any:
    """What the task had learnt from its training set before training."""
    from headway.checkpoint import flat

    line, _, rest = content.partition(b"\n")
    head = json.loads(line)
    at = head["skeleton"]
    values, rooms = flat.rooms(rest[:at])
    for room, size in zip(rooms, head["spans"], strict=True):
        if size:
            room.copy_(torch.frombuffer(bytearray(rest[at : at + size]), dtype=torch.uint8))
        at += size
    return values


def _at(found: Any, path: str) -> Any:
    """A module beside the model: an attribute of the task's, or in a list, a dict or an object of it."""
    for part in path.split("."):
        if isinstance(found, dict):
            found = found[part] if part in found else found[int(part)]
        else:
            found = found[int(part)] if isinstance(found, list | tuple) else getattr(found, part)
    return found


def _fill(model: nn.Module, others: dict[str, nn.Module], about: dict[str, Any]) -> None:
    """Tensors are named as in the model's state dict; ROOT:NAME in modules beside it."""
    with safe_open(HERE / "model.safetensors", "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    state |= {name: state[first] for name, first in about["aliases"].items()}
    for name in about["late"]:  # buffers that the model makes when it is used first
        root, _, path = name.rpartition(":")
        owner, _, own = path.rpartition(".")
        module = (others[root] if root else model).get_submodule(owner)
        if own not in module._buffers:
            module.register_buffer(own, state[name].clone())
    model.load_state_dict({name: value for name, value in state.items() if ":" not in name})
    with torch.no_grad():
        for root, module in others.items():
            there = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            for name, value in state.items():
                if name.startswith(f"{root}:"):
                    there[name.removeprefix(f"{root}:")].copy_(value)


def read(place: Path, about: dict[str, Any]) -> Iterator[pa.Table]:
    """Rows, a batch at a time, with the columns that training saw and their types."""
    named = {name: _type(kind) for name, kind in about["types"].items()}
    types = {name: kind for name, kind in named.items() if kind is not None}
    if place.name.endswith((".csv", ".csv.gz")):
        tables: Iterator[pa.Table] = iter([_of_csv(place, types)])
    else:
        files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
        tables = (pq.ParquetFile(file).read_row_group(n) for file in files for n in range(_groups(file)))
    for table in tables:
        for start in range(0, table.num_rows, about["batch"]):
            yield _fitting(table.slice(start, about["batch"]), types, about)


def _type(name: str) -> pa.DataType | None:
    """The Arrow type of that name; None where columns stay as they come."""
    decimal = re.fullmatch(r"decimal128\((\d+), (-?\d+)\)", name)
    if decimal is not None:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    try:
        return pa.type_for_alias(name)
    except ValueError:
        return None


def _of_csv(place: Path, types: dict[str, pa.DataType]) -> pa.Table:
    """Separated by commas, semicolons, tabs or bars, as the header is; text in quotes may go over lines."""
    with pa.input_stream(str(place)) as file:
        header = file.read(1 << 16).partition(b"\n")[0].decode("utf-8", "replace")
    separator = next((each for each in ",;\t|" if each in header), ",")
    options = csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    return csv.read_csv(place, parse_options=parse, convert_options=options)


def _groups(file: Path) -> int:
    return int(pq.read_metadata(file).num_row_groups)


def _fitting(table: pa.Table, types: dict[str, pa.DataType], about: dict[str, Any]) -> pa.Table:
    """The columns of training in their types; those that are not there are left to the task to miss. A label that is
    not there is made up."""
    if not about["types"]:
        return table
    found = {}
    for name in about["types"]:
        if name in table.column_names:
            column = table[name]
            found[name] = column.cast(types[name]) if name in types else column
        elif name == about["label"] and name in types:
            found[name] = pa.repeat(pa.scalar(about["value"] or "0").cast(types[name]), table.num_rows)
    return pa.table(found)


def predict(model: nn.Module, task: Any, about: dict[str, Any], rows: pa.Table) -> dict[str, Any]:
    """What the model says of each row, by name."""
    if type(task).transform is not _default(task):
        arrays = task.transform(rows, np.random.default_rng(0), False)
    else:
        arrays = importlib.import_module("headway.data.arrays").arrays(rows)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = {name: torch.as_tensor(np.array(array)).to(device) for name, array in arrays.items()}
    mixed = about["precision"] in AUTOCAST
    with torch.inference_mode(), torch.autocast(device.type, AUTOCAST.get(about["precision"]), enabled=mixed):
        made: dict[str, Any] = task.predict(model, batch)
    return made


def _default(task: Any) -> Any:
    return importlib.import_module("headway.task").Task.transform


def _column(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.cpu().float().numpy() if value.dtype == torch.bfloat16 else value.cpu().numpy()
    if not isinstance(value, np.ndarray) or value.ndim == 1:
        return pa.array(value)
    made = pa.array(np.ascontiguousarray(value).reshape(-1))
    for size in reversed(value.shape[1:]):
        made = pa.FixedSizeListArray.from_arrays(made, int(size))
    return made


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    place = Path(sys.argv[1]).resolve()
    out = Path(sys.argv[2] if len(sys.argv) == 3 else "predictions.parquet").resolve()
    model, task, about = load("cuda" if torch.cuda.is_available() else "cpu")
    made = [
        pa.table({name: _column(value) for name, value in predict(model, task, about, rows).items()})
        for rows in read(place, about)
    ]
    if not made:
        raise SystemExit(f"{place} has no rows")
    table = pa.concat_tables(made)
    pq.write_table(table, out)
    print(f"{out}: {table.num_rows:,} predictions")


if __name__ == "__main__":
    main()
