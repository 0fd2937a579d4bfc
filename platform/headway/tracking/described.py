"""A checkpoint as MLflow's own tools see it: an MLmodel that loads, with its columns, an example and what it needs.

MLmodel                  python_function, by `headway.models.flavor`
headway.json             which checkpoint of which run it is; see `headway.models.flavor`
input_example.json       a few rows of the training set, without the label
requirements.txt  python_env.yaml  conda.yaml

A *pointer* holds no weights: those are the run's. A model that was promoted has all of them beside it.
"""

from __future__ import annotations

import base64
import datetime
import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.types.schema import Schema

ABOUT = "headway.json"
FORMAT = "headway-model/1"
LOADER = "headway.models.flavor"
EXAMPLE = "input_example.json"
EXAMPLE_ROWS = 3
EXAMPLE_BYTES = 1 << 18
"""An example that is longer is left out."""
PACKAGES = ("mlflow", "headway", "torch", "ray", "numpy", "pandas", "pyarrow", "cloudpickle")

GAPS = " with gaps"
"""Behind the type of a column in which values are missing. pandas makes floats of such integers, and objects of such
booleans, which MLflow takes for neither: what they are is left open."""
SHARDS_LOOKED_AT = 64

_TENSOR = re.compile(r"tensor<(\w+)>\[(.*)\]")
_LIST = re.compile(r"(?:large_|fixed_size_)?list<\w+: (.+)>(?:\[\d+\])?")


def write(
    folder: Path,
    about: Mapping[str, Any],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str] | None = None,
    example: Sequence[Mapping[str, Any]] = (),
    model_id: str | None = None,
    run_id: str | None = None,
) -> None:
    """Write all that into a folder.

    Args:
        about: content of headway.json, but for its format.
        inputs: Arrow's types by column; the label is none of them.
        outputs: likewise, of predictions; None where they are not known.
        example: rows, in plain values.
        model_id: MLflow's, of the logged model.
        run_id: likewise, of the run.
    """
    from mlflow import pyfunc
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature

    signature = None
    if inputs or outputs:
        signature = ModelSignature(inputs=schema(inputs) if inputs else None, outputs=schema(outputs or {}))
    model = Model(run_id=run_id, model_id=model_id, signature=signature)
    if example:
        model.saved_input_example_info = {
            "artifact_path": EXAMPLE,
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
        }
        columns = list(example[0])
        split = {"columns": columns, "data": [[row[name] for name in columns] for row in example]}
        (folder / EXAMPLE).write_text(json.dumps(split), encoding="utf-8")
        served = json.dumps({"dataframe_split": split})
        (folder / "serving_input_example.json").write_text(served, encoding="utf-8")
    pyfunc.add_to_model(model, LOADER, data=ABOUT, conda_env="conda.yaml", python_env="python_env.yaml")
    (folder / ABOUT).write_text(json.dumps({"format": FORMAT, **about}, indent=1), encoding="utf-8")
    _write_needs(folder)
    model.save(str(folder / "MLmodel"))


def schema(types: Mapping[str, str]) -> Schema | None:
    """Columns in MLflow's words. Integers are long and floats double: JSON and pandas make these of what they read, and
    MLflow takes none for a shorter one."""
    from mlflow.types.schema import ColSpec, Schema

    return Schema([ColSpec(_type(kind), name) for name, kind in types.items()]) if types else None


def _type(name: str) -> Any:
    from mlflow.types.schema import AnyType, Array, DataType

    tensor, inner = _TENSOR.fullmatch(name), _LIST.fullmatch(name)
    if tensor is not None:
        found = _type(tensor[1])
        for _ in filter(None, tensor[2].split(",")):
            found = Array(found)
        return found
    if inner is not None:
        return Array(_type(inner[1].removesuffix(" not null")))
    if name.endswith(GAPS):
        known = _type(name.removesuffix(GAPS))
        return AnyType() if known in (DataType.long, DataType.boolean) else known
    for pattern, kind in (
        (r"u?int(8|16|32|64)", DataType.long),
        (r"halffloat|float|double|float(16|32|64)|decimal.*", DataType.double),
        (r"bool", DataType.boolean),
        (r"(large_)?string(_view)?|dictionary<values=(large_)?string,.*", DataType.string),
        (r"(large_)?binary(_view)?|fixed_size_binary.*", DataType.binary),
        (r"timestamp.*|date(32|64).*", DataType.datetime),
    ):
        if re.fullmatch(pattern, name):
            return kind
    return AnyType()


def with_gaps(types: Mapping[str, str], folder: str, number: int | None) -> dict[str, str]:
    """The same types, those of columns in which values are missing marked so; as the shards' own counts have it.

    Args:
        types: Arrow's, by column.
        folder: of the dataset; nothing is marked where it is not on this machine.
        number: version of its manifest.
    """
    if "://" in folder:
        return dict(types)
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headway.data import manifest as manifests
    from headway.errors import BadInput

    gaps: set[str] = set()
    try:
        for shard in manifests.load(folder, number).shards[:SHARDS_LOOKED_AT]:
            found = pq.read_metadata(Path(folder) / shard.path)
            for group in map(found.row_group, range(found.num_row_groups)):
                columns = map(group.column, range(group.num_columns))
                gaps |= {each.path_in_schema for each in columns if each.statistics and each.statistics.null_count}
    except (BadInput, OSError, ValueError, pa.ArrowException):
        return dict(types)
    return {name: f"{kind}{GAPS}" if name in gaps else kind for name, kind in types.items()}


def example(folder: str, number: int | None, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The first rows of a dataset on this machine, in plain values; none where it cannot be read, or they are long.

    Args:
        folder: of the dataset.
        number: version of its manifest.
        columns: that are wanted.
    """
    if "://" in folder or not columns:
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headway.data import manifest as manifests
    from headway.errors import BadInput

    try:
        found = manifests.load(folder, number)
        with pq.ParquetFile(Path(folder) / found.shards[0].path) as file:
            names = [name for name in columns if name in file.schema_arrow.names]
            batch = next(file.iter_batches(EXAMPLE_ROWS, columns=names))
    except (BadInput, OSError, ValueError, IndexError, StopIteration, pa.ArrowException):
        return []
    rows = rows_of(pa.Table.from_batches([batch]))
    return rows if len(json.dumps(rows)) <= EXAMPLE_BYTES else []


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them: bytes by base64, as MLflow reads them; times as text."""
    made = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        values = column.to_numpy_ndarray().tolist() if hasattr(column, "to_numpy_ndarray") else column.to_pylist()
        made[name] = [_plain(value) for value in values]
    return [{name: values[row] for name, values in made.items()} for row in range(table.num_rows)]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _write_needs(folder: Path) -> None:
    needs = []
    for package in PACKAGES:
        try:
            needs.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    python = platform.python_version()
    (folder / "requirements.txt").write_text("\n".join(needs) + "\n", encoding="utf-8")
    virtual = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(virtual, sort_keys=False), encoding="utf-8")
    conda: dict[str, Any] = {"name": "mlflow-env", "channels": ["conda-forge"]}
    conda["dependencies"] = [f"python={python}", "pip", {"pip": needs}]
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
