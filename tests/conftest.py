"""Settings and data that all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from headway.data.manifest import Manifest, schema_of, write
from headway.data.writer import shard_of

if TYPE_CHECKING:
    from headway.testing.s3 import S3

# The same examples on every machine, and no clock: the machine may be busy with other work.
settings.register_profile("house", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("house")

RAY_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Ray's sessions go to a folder of these tests; a short one, since it holds Unix sockets."""
    config.stash[RAY_FOLDER] = tempfile.mkdtemp(prefix="headway-")
    os.environ["RAY_TMPDIR"] = config.stash[RAY_FOLDER]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[RAY_FOLDER], ignore_errors=True)


MakeDataset = Callable[..., Path]


def make_dataset(folder: Path, *shards: tuple[int, ...]) -> Path:
    """A dataset of columns `id` (the row's number), `x` (four floats that follow from it) and `y` (0 or 1).

    Args:
        folder: to be made.
        shards: rows of each row group, shard by shard.
    """
    folder.mkdir(parents=True)
    done, first = [], 0
    for number, groups in enumerate(shards):
        tables = []
        for rows in groups:
            ids = np.arange(first, first + rows)
            x = np.sin(ids[:, None] * np.arange(1, 5)).astype(np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 4)
            tables.append(pa.table({"id": ids, "x": column, "y": (x.sum(1) > 0).astype(np.int64)}))
            first += rows
        path = folder / f"shard-{number:05d}.parquet"
        with pq.ParquetWriter(path, tables[0].schema) as file:
            for table in tables:
                file.write_table(table)
        done.append(shard_of(path))
    size = sum(shard.bytes for shard in done)
    write(folder, Manifest("rows", "test", first, size, schema_of(pq.read_schema(path)), tuple(done)))
    return folder


@pytest.fixture(name="make_dataset")
def _make_dataset() -> MakeDataset:
    return make_dataset


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    """One Ray for a module's tests, which `headway.train` and Ray Data find and use."""
    import ray

    mode = os.environ.get("RAY_AUTH_MODE")
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=128 * 2**20,
    )
    yield
    ray.shutdown()
    if mode is None:  # an embedded Ray turns tokens on for all that this process starts later
        os.environ.pop("RAY_AUTH_MODE", None)


@pytest.fixture(scope="session")
def _s3() -> Iterator[S3]:
    from headway.testing.s3 import S3

    with S3() as service:
        yield service


@pytest.fixture
def s3(_s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3 service on loopback, empty and without faults to begin with."""
    from headway.testing.s3 import KEYS, Faults

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    _s3.faults = Faults()
    _s3.direct("POST", "/moto-api/reset")
    return _s3
