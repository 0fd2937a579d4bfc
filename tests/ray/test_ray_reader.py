"""Ray Data reads and transforms for the workers: what it brings is used, and it is what the workers would have read."""

from __future__ import annotations

import os
import pickle
import threading
import time
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.conftest import make_dataset
from tests.ray.conftest import Project, wait_until

import headway
from headway.core.order import Order
from headway.data import manifest as manifests
from headway.data.read import ray_reader
from headway.data.read.direct import DirectReader
from headway.data.read.groups import Groups
from headway.data.read.quarantine import Quarantine
from headway.data.read.ray_reader import RayReader
from headway.data.read.reader import OnQuarantine, Reader
from headway.data.store.files import LocalFiles

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be slow: a batch that is to come is waited for."""
    monkeypatch.setattr(ray_reader, "FLOW_S", 60.0)


def opened(folder: Path, order: Order, report: OnQuarantine) -> Reader:
    files = LocalFiles(folder, manifests.load(folder))
    quarantine = Quarantine("data.train", files.manifest.rows, 0.5, report)
    return DirectReader([Groups(files, quarantine=quarantine)], order, seed=5)


def streaming(folder: Path, steps: int, said: list[Any]) -> RayReader:
    """A reader whose first batch is to come from Ray Data, and has."""
    order = Order(manifests.load(folder).groups, 3, 3, 9, 4)
    told = partial(opened, folder, order)
    reader = RayReader(told(lambda *what: None), told, steps, 1 << 20, lambda *what: said.append(what), lead=0)
    reader.carry(range(3), 0)
    assert reader._job is not None
    while not reader._job.flows:
        reader._job.join(0.01)
    return reader


def test_all_that_it_brings_is_used(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "set", (40, 33), (60,), (67,))
    order = Order(manifests.load(folder).groups, 3, 3, 9, 4)
    with closing(streaming(folder, 3 * order.steps_per_epoch, [])) as reader:
        asked = 0
        for number in range(3 * order.steps_per_epoch):
            epoch, step = divmod(number, order.steps_per_epoch)
            for lane in range(3):
                if order.sizes(step)[lane]:
                    ids = reader.batch(epoch, step, lane).ids.tolist()
                    assert ids == order.lane_ids(epoch, lane)[step * 9 : step * 9 + 9].tolist()
                    asked += 1
        assert (reader.streamed, reader.read) == (asked, 0)


def test_what_is_set_aside_elsewhere_is_told_here(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "set", (40, 33), (60,), (67,))
    manifest = manifests.load(folder)
    shard = folder / manifest.shards[1].path
    content = bytearray(shard.read_bytes())
    content[manifest.shards[1].row_groups[0].offset + 100] ^= 1
    shard.write_bytes(content)
    said: list[Any] = []
    with closing(streaming(folder, 8, said)) as reader:
        for step in range(8):
            for lane in range(3):
                batch = reader.batch(0, step, lane)
                assert not set(range(73, 133)) & set(batch.ids.tolist())
    assert {(source, shard, group, rows) for source, shard, group, rows, _ in said} == {
        ("data.train", "shard-00001.parquet", 0, 60)
    }


def slow(folder: Path, order: Order, report: OnQuarantine) -> Reader:
    """A reader that takes very long to make, as where processes of the cluster start on a busy machine."""
    time.sleep(60)
    return opened(folder, order, report)


def test_closing_waits_for_ray_data_to_end_and_ends_it_before_it_gives_anything(tmp_path: Path) -> None:
    """Ray ends a process that leaves it while a thread still asks it for something: with code 1 and not a word."""
    folder = make_dataset(tmp_path / "set", (40,))
    order = Order(manifests.load(folder).groups, 3, 1, 1, 4)
    own = opened(folder, order, lambda *what: None)
    reader = RayReader(own, partial(slow, folder, order), 10**6, 100, lambda *what: None, lead=0)
    before = set(threading.enumerate())
    for step in (0, 5):
        reader.carry([0], step)
        job = reader._job
        if job is not None:  # not begun while the one before it has not ended
            wait_until(lambda job=job: job.executor is not None and job.executor.is_alive(), "the execution begins")
    reader.close()
    assert {thread.name for thread in threading.enumerate() if thread not in before} == set()


def test_a_transform_runs_elsewhere(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "set", (40, 33))
    order = Order(manifests.load(folder).groups, 3, 2, 9, 4)

    def make(report: OnQuarantine) -> Reader:
        def where(table: pa.Table, random: Any, training: bool) -> dict[str, Any]:
            return {"id": table["id"].to_numpy(), "process": np.full(len(table), os.getpid())}

        reader = opened(folder, order, report)
        reader.use(where)
        return reader

    with closing(RayReader(make(print), make, 4, 1 << 20, print, lead=0)) as reader:
        reader.carry([0, 1], 0)
        assert reader._job is not None
        while not reader._job.flows:
            reader._job.join(0.01)
        batch = reader.batch(0, 0, 1)
        assert batch.arrays["id"].tolist() == batch.ids.tolist() == order.lane_ids(0, 1)[:9].tolist()
        assert set(batch.arrays["process"].tolist()) != {os.getpid()}


def test_a_job_is_given_all_lanes_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_dataset(tmp_path / "set", (100,) * 6)
    order = Order(manifests.load(folder).groups, 3, 3, 4, 4)
    monkeypatch.setattr(ray_reader, "HORIZON", 8)
    step, asked = 0, []
    while step < 100:
        work = ray_reader._whole(islice(ray_reader.pieces(order, (0, 1, 2), step, 100), 8))
        asked += [(piece.epoch, at, piece.lane) for piece in work for at in range(piece.first, piece.stop)]
        step = work[-1].epoch * order.steps_per_epoch + work[-1].stop
    assert asked.count((0, 0, 0)) == 1
    assert set(asked) >= {(*divmod(n, order.steps_per_epoch), lane) for n in range(100) for lane in range(3)}


def test_what_is_set_aside_is_told_again_with_every_batch(tmp_path: Path) -> None:
    """What a task gives may be thrown away; the next one to be asked must not keep silent."""
    folder = make_dataset(tmp_path / "set", (40, 33), (60,), (67,))
    shard = folder / manifests.load(folder).shards[1].path
    shard.write_bytes(shard.read_bytes()[:-1])
    order = Order(manifests.load(folder).groups, 3, 1, 200, 4)
    rows = pa.table({"piece": [pickle.dumps(ray_reader.Piece(0, 0, 0, 1))]})
    make = partial(opened, folder, order)
    try:
        for _ in range(2):
            (table,) = ray_reader._read(rows, make)
            _, batch, told = pickle.loads(table["batch"][0].as_py())
            assert len(batch.ids) == 140
            assert [what[1:4] for what in told] == [("shard-00001.parquet", 0, 60)]
    finally:
        for reader, _ in ray_reader._kept.values():
            reader.close()
        ray_reader._kept.clear()


@pytest.mark.long
@pytest.mark.slow
def test_same_weights_as_with_the_direct_reader_through_a_death(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The direct reader's run is undisturbed, and as quick as it can be."""
    monkeypatch.setattr(ray_reader, "FLOW_S", 0.5)
    found = []
    for reader, most, arguments in (
        ("direct", 1, {}),
        ("ray", 2, {"pause": 0.02, "trouble": "die", "rank": 1, "at": 23}),
    ):
        data = {**project.tree()["data"], "reader": reader}
        tree = project.tree(data=data, workers={"min": 1, "max": most}, epochs=4, arguments=arguments)
        found.append(headway.train(tree, name=reader, runs_folder=tmp_path))
    assert {report.state for report in found} == {"finished"}
    assert len(found[1].recoveries) >= 1
    assert len({report.samples_sha256 for report in found}) == 1
    assert len({report.weights_sha256 for report in found}) == 1
