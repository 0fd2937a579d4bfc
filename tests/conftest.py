"""Settings and data that all tests share."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from tests import dear
from tests.tiers import SOAK, Scheduling, arrange

from headway.data.manifest import Manifest, schema_of, write
from headway.data.write.writer import shard_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from headway.testing.s3 import S3

# The same examples on every machine, and no clock: the machine may be busy with other work. A soak draws new ones.
settings.register_profile("house", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("soak" if SOAK else "house")

# What all tests' Rays are told; set before any is started, and inherited by commands that start their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several tests at once, on few cores
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a thread that a test left behind starts no Ray under the next one's hands
# And nothing of a cluster, or of records, that whoever runs the tests may use.
OTHERS = ("RAY_AUTH_", "HEADWAY_STORE_")
for name in [
    name for name in os.environ if name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "HEADWAY_RUNS", "HEADWAY_CONFIG")
]:
    del os.environ[name]
for name in [name for name in os.environ if name.startswith(OTHERS)]:
    del os.environ[name]
# Under nohup a hang-up is ignored, here and in every process that is started here: not what tests of signals are about.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

RAY_FOLDER = pytest.StashKey[str]()
SHARED_RAY = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Ray's sessions go to a folder of these tests and this process; a short one, since it holds Unix sockets."""
    config.stash[RAY_FOLDER] = tempfile.mkdtemp(prefix="headway-")
    os.environ["RAY_TMPDIR"] = config.stash[RAY_FOLDER]
    os.environ["HEADWAY_CACHE"] = f"{config.stash[RAY_FOLDER]}/cache"
    os.environ["XDG_CONFIG_HOME"] = f"{config.stash[RAY_FOLDER]}/config"
    if not hasattr(config, "workerinput"):
        # For the thousand processes that are to come, which may be told to write none: a tenth of a second each.
        compileall.compile_dir(Path(__file__).parents[1] / "platform", quiet=2)


def pytest_unconfigure(config: pytest.Config) -> None:
    dear.end_others(())
    _ray.end()
    shutil.rmtree(config.stash[RAY_FOLDER], ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrange(items, SHARED_RAY)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not item.stash[SHARED_RAY]:
        _ray.end()
    dear.end_others(getattr(item, "fixturenames", ()))


class SharedRay:
    """One Ray for every test of this process that uses it; ended before the first test of a module that does not.

    Starting one takes seconds, and what a test leaves in it would be a fault that the next one shows.
    """

    def __init__(self) -> None:
        self._up, self._mode = False, os.environ.get("RAY_AUTH_MODE")

    def begin(self) -> None:
        import ray

        from headway.driver.embedded import lean

        if self._up:
            return
        with lean():
            ray.init(
                address="local",
                num_cpus=4,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=128 * 2**20,
            )
        self._up = True

    def end(self) -> None:
        if not self._up:
            return
        import ray

        ray.shutdown()
        self._up = False
        if self._mode is None:  # an embedded Ray turns tokens on for all that this process starts later
            os.environ.pop("RAY_AUTH_MODE", None)


_ray = SharedRay()


MakeDataset = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


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


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Calls the command line in this process, in an empty folder; gives the exit code and what it prints."""
    from headway.cli import app

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headway", *arguments])
        code = 0
        try:
            app.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def shared_ray() -> SharedRay:
    """For tests that may need it; what is asked for only while a test runs would not be seen beforehand."""
    return _ray


@pytest.fixture(scope="module")
def connected(shared_ray: SharedRay) -> None:
    """A Ray, which `headway.train` and Ray Data find and use. Tests that kill it, or need another, start their own."""
    shared_ray.begin()


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser; what is opened in it, see `tests.browser`."""
    from tests.browser import browser

    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker with one core; several threads on a busy machine take a hundred times as long."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def warm_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headway's own child processes are forked in this test, see `tests.warm`."""
    from tests import warm

    warm.fork_children(monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "headway-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
