"""A Ray Dataset that is given from Python: written once as Parquet, in the order of its rows, beside the runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "datasets"
"""In the folder of the runs."""


def stored(data: Mapping[str, Any] | None, runs: Path, url: str | None) -> Mapping[str, Any] | None:
    """The same datasets with folders in place of Ray's.

    Args:
        data: by use, as `headway.train` takes them.
        runs: the folder of the runs.
        url: of the store that they are kept in instead; None: they are kept in the folder.

    Raises:
        BadInput: one cannot be kept there, or is empty.
        Exception: of the user's code that the dataset runs.
    """
    if not isinstance(data, Mapping):
        return data
    return {use: _stored(use, each, runs, url) if is_rays(each) else each for use, each in data.items()}


def is_rays(dataset: Any) -> bool:
    """Whether it is a dataset of Ray Data's."""
    kind = type(dataset)
    return kind.__module__.startswith("ray.data") and hasattr(kind, "iter_batches")


def _stored(use: str, dataset: Any, runs: Path, url: str | None) -> str:
    from headway.data.write.writer import write_dataset

    if url is not None:
        raise BadInput(
            f"data.{use} is a Ray Dataset, and runs are kept in {url}",
            "it is written into the folder of the runs, for all machines to read",
            "Write it with write_parquet, prepare that with `headway data prepare` to the store, and name the result.",
        )
    home = runs.resolve() / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=home))
    part.chmod(0o755)
    try:
        manifest = write_dataset(part, _tables(dataset), name=use, source="a Ray Dataset")
        folder = home / manifest.digest[:16]
        try:
            part.rename(folder)
        except OSError:  # the same rows are there from before
            if not (folder / "manifest.json").exists():
                raise
    except OSError as error:
        why = error.strerror or str(error)
        raise BadInput(
            f"data.{use} cannot be written to {home}", why, "Free space, or choose another runs folder."
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return str(folder)


def _tables(dataset: Any) -> Iterator[pa.Table]:
    dataset.context.execution_options.preserve_order = True  # the same rows give the same files each time
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        if len(table):
            yield _plain(table)


def _plain(table: pa.Table) -> pa.Table:
    """The same with Ray's own type of tensors as ours, which Parquet keeps.

    Raises:
        BadInput: they are not of one shape.
    """
    import numpy as np
    import pyarrow as pa

    from headway.data.tensors import TensorType, column

    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType) and not isinstance(
            field.type, TensorType | pa.FixedShapeTensorType
        ):
            rows = [chunk.to_numpy(zero_copy_only=False) for chunk in table.column(number).chunks if len(chunk)]
            shapes = {each.shape[1:] for each in rows}
            if len(shapes) > 1 or any(each.dtype == object for each in rows):
                raise BadInput(
                    f"column {field.name!r} of a Ray Dataset holds {field.type}",
                    "only tensors of one shape can be kept",
                    "Bring them to one shape, or make numbers of them.",
                )
            table = table.set_column(number, field.name, column(np.concatenate(rows)))
    return table
