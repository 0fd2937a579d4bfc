"""Datasets of the user's own: named by their code, read row by row, the same bits whoever reads them."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.waiting import until

from headway import plan
from headway.carried import asked, code
from headway.data.own import materialised
from headway.data.own.opening import described, opened
from headway.data.read.streams import open_readers
from headway.elastic.worker.batches import parts, tensors_of
from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.errors import BadData, BadInput
from headway.job import Job, load, parse, to_yaml
from headway.testing.elastic import Run, advance
from headway.tryout.small import try_out

warm = pytest.mark.usefixtures("warm_children")
TASK = """
import headway, torch

class T(headway.Task):
    def model(self):
        return torch.nn.Linear(4, 1)

    def loss(self, model, batch):
        x, y = batch
        return ((model(x).squeeze(1) - y) ** 2).mean()
"""

DATA = """
import random
import numpy as np
import torch

class Noisy(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.y = torch.arange(rows, dtype=torch.float32)
        self.shift = torch.rand(1)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, row):
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(1)), float(self.y[row])]
        return torch.tensor(drawn) + self.shift, self.y[row] / 64

def train_set():
    return Noisy(50)

def held_out():
    return Noisy(10)

arrays = torch.utils.data.TensorDataset(torch.arange(80.0).reshape(20, 4), torch.arange(20.0))
"""


@pytest.fixture
def make(tmp_path: Path) -> Any:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "rows.py").write_text(DATA)

    def job(train: str = "train_set", more: str = "", **fields: Any) -> Job:
        if more:
            (tmp_path / "rows.py").write_text(f"{DATA}\n{more}")
        tree = {
            "name": "n",
            "task": f"{tmp_path}/task.py:T",
            "data": {"train": f"{tmp_path}/rows.py:{train}", **fields.pop("data", {})},
            "lanes": 3,
            "lane_batch": 4,
            "epochs": 2,
            "workers": {"min": 1, "max": min(3, fields.get("lanes", 3)), "silence_s": 1.0, "hang_s": 5.0},
            "tracking": {"enabled": False},
        }
        return parse({**tree, **fields})

    return job


@warm
def test_the_plan(make: Any, tmp_path: Path) -> None:
    found = plan.check(make(data={"validation": f"{tmp_path}/rows.py:held_out"}))
    assert (found.rows, found.steps_per_epoch, found.total_steps) == (50, 5, 10)
    assert found.datasets["train"].schema == (("0", "float32[4]"), ("1", "float32"))
    assert any("headway data prepare" in note for note in found.warnings), "what is gained with Parquet"
    pinned = plan.pinned(make(data={"validation": f"{tmp_path}/rows.py:held_out"}), found)
    assert pinned.data.own["train"].rows == 50
    assert pinned.data.own["validation"].rows == 10
    (tmp_path / "job.yaml").write_text(to_yaml(pinned))
    again = load(tmp_path / "job.yaml")
    assert again == pinned
    assert plan.check(again).digest == found.digest
    other = make("train_set", "def train_set():\n    return Noisy(51)\n")
    assert plan.check(other).digest != found.digest
    with pytest.raises(BadInput, match="has 51 rows here, and had 50 when the run began"):
        plan.check(again)


def read(reader: Any, lanes: list[int], first: int, steps: int) -> dict[tuple[int, int], Any]:
    """By step of the run and lane, sample ids and content."""
    found = {}
    for number in range(first, first + steps):
        epoch, step = divmod(number, reader.order.steps_per_epoch)
        for lane in lanes:
            if reader.order.sizes(step)[lane]:
                batch = reader.batch(epoch, step, lane)
                found[number, lane] = (batch.ids.tolist(), [part.tolist() for part in batch.arrays])
    return found


def reader_of(job: Job, **options: Any) -> Any:
    return open_readers(job, own=opened(job, code.locate(job.task)), **options)[0]


def test_rows_are_the_same_whoever_reads_them(make: Any) -> None:
    """In the thread that trains and in processes beside it, from the beginning and from the middle."""
    job = make()
    with closing(reader_of(job)) as reader:
        reader.carry([0, 1, 2], 0)
        torch.manual_seed(1)
        alone = read(reader, [0, 1, 2], 0, 10)
        drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1)), "the training's own draws are as if no row had been read"
    rows = sorted(i for (step, _), (ids, _) in alone.items() if step < 5 for i in ids)
    assert rows == list(range(50))
    assert len({str(content) for _, content in alone.values()}) == len(alone)
    for lanes in ([0], [1, 2]):
        with closing(reader_of(job)) as reader:
            reader.carry(lanes, 3)
            part = read(reader, lanes, 3, 6)
            assert part == {place: alone[place] for place in part}
    with closing(reader_of(job)) as reader:
        reader._slow_s = 0.0
        reader.carry([0, 1, 2], 0)
        read(reader, [0, 1, 2], 0, 2)
        until(lambda: reader._up == 2, "both processes are up", 120)
        reader.carry([0, 2], 1)
        ahead = reader._batches
        until(lambda: ahead and all(batch.value is not None for batch in ahead.values()), "it reads ahead", 120)
        before, number = reader._read, len(ahead)
        again = read(reader, [0, 2], 1, 9)
        assert reader._read - before <= len(again) - number, "those came from the processes"
        assert again == {place: alone[place] for place in again}


def user(context: Context) -> list[Any]:
    """A loop that keeps what it saw of every committed step."""
    model = torch.nn.Linear(4, 1)
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=1e-4), None) as session:
        for step in session.steps():
            for x, y in step.lanes():
                time.sleep(0.01)  # so long as it takes, for others to come and go meanwhile
                step.backward(((model(x).squeeze(1) - y) ** 2).mean())
            advance(session.step)
        session.evaluate(lambda model, batch: {"loss": ((model(batch[0]).squeeze(1) - batch[1]) ** 2).mean()})
    return [parameter.tolist() for parameter in model.parameters()] + [session.metrics["loss"]]


STREAM = """
def stream():
    for row in range(50):
        yield torch.rand(4) + row / 50, torch.tensor(row / 50)
"""


@pytest.mark.parametrize("name", ["train_set", "stream"])
def test_the_same_bits_through_a_lost_and_a_joining_worker(make: Any, tmp_path: Path, name: str) -> None:
    fields = {"reproducible": "bitwise", "epochs": None, "steps": 60}
    given = make(name, STREAM, data={"validation": f"{tmp_path}/rows.py:held_out"}, **fields)
    with Run(tmp_path / "one", given, user, places=1) as run:
        found = [run.result()]
    with Run(tmp_path / "three", given, user, places=3, hold=8) as run:
        run.wait_until(lambda: run.step >= 5 and len(run.members) == 3)
        run.kill(run.members[0])
        run.stand(14)
        run.wait_until(lambda: run.step >= 14 and "w3" in run.ready())
        run.release()
        found.append(run.result())
    assert not found[0].failure
    assert not found[1].failure
    assert len(found[1].of("generation")[-1]["members"]) == 3
    (alone,) = found[0].results.values()
    assert found[1].results
    assert all(result == alone for result in found[1].results.values())


REFUSED = {
    "empty": ("def train_set():\n    return Noisy(0)", "data.train=rows.py:train_set is empty"),
    "no dataset": ("def train_set():\n    return 7", "it is a builtins.int, and no dataset"),
    "iterator": ("train_set = iter([1])", "it is an iterator, which is used up"),
    "raises": ("def train_set():\n    return 1 / 0", "cannot be made: ZeroDivisionError"),
    "no such name": ("del train_set", "data.train: 'train_set': rows has no such name"),
    "several": ("def train_set():\n    return {'a': Noisy(3), 'b': Noisy(3)}", "of 'a', 'b', each a dataset"),
    "lock": (
        "import threading\n"
        "def train_set():\n"
        "    made = Noisy(9)\n"
        "    made.held = {'it': threading.Lock()}\n"
        "    return made",
        r"does not pickle: data.train.held\['it'\] is a lock",
    ),
    "length": (
        "class Odd(Noisy):\n"
        "    def __len__(self):\n"
        "        self.asked = getattr(self, 'asked', 9) + 1\n"
        "        return self.asked\n"
        "def train_set():\n"
        "    return Odd(90)",
        "has another length each time that it is asked",
    ),
    "stream": ("def train_set():\n    yield 1", "epochs=2: data.train=rows.py:train_set is a stream"),
    "arguments": ("def train_set(one):\n    return Noisy(3)", "it takes 1 arguments"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_refused(make: Any, case: str) -> None:
    more, words = REFUSED[case]
    job = make("train_set", more)
    with pytest.raises(BadInput, match=words) as caught:
        described(opened(job, code.locate(job.task)), job)
    if case == "raises":
        assert "return 1 / 0" in caught.value.traceback
        assert "headway/data" not in caught.value.traceback


def test_code_that_ends_its_process_ends_another_one(make: Any) -> None:
    with pytest.raises(BadInput, match="its code ended its process with exit code 3"):
        plan.check(make("train_set", "import os\nos._exit(3)"))


KEYS: dict[str, dict[str, Any]] = {
    "data.reader=ray": {"reader": "ray"},
    "data.sampling.by=label, data.sampling.weights": {"sampling": {"by": "label", "weights": "balanced"}},
    "data.sampling.bucket=length": {"sampling": {"bucket": "length"}},
    "data.columns": {"columns": ["x"]},
    "data.no_nulls": {"no_nulls": ["x"]},
}


@warm
@pytest.mark.parametrize("words", KEYS)
def test_keys_that_need_columns_are_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(BadInput, match=f"{words}: data.train=rows.py:train_set is given by code"):
        plan.check(make(data=KEYS[words]))


def test_rows_can_be_drawn(make: Any) -> None:
    job = make(data={"sampling": {"rows": 7, "replacement": False}})
    with closing(reader_of(job)) as reader:
        assert reader.order.steps_per_epoch == 1
        seen = [reader.batch(0, 0, lane).ids.tolist() for lane in range(3)]
        drawn = [number for ids in seen for number in ids]
        assert len(set(drawn)) == 7
        assert drawn != [number for lane in range(3) for number in reader.batch(1, 0, lane).ids.tolist()]
    with pytest.raises(BadInput, match="there are 50 rows, and none is drawn twice"):
        reader_of(make(data={"sampling": {"rows": 51, "replacement": False}}))


UNLIKE = """
class Odd(Noisy):
    def __getitem__(self, row):
        if row == 13:
            raise LookupError("the user's own")
        return {"x": torch.ones(2), **({"y": 1} if row == 7 else {})}

def train_set():
    return Odd(20)
"""


@warm
def test_rows_that_raise_end_the_run_or_are_set_aside(make: Any) -> None:
    more = UNLIKE.replace('({"y": 1} if row == 7 else {})', "{}")
    with closing(reader_of(make("train_set", more, lanes=1, lane_batch=20))) as reader:
        for _ in range(2):
            with pytest.raises(LookupError, match="the user's own") as caught:
                reader.batch(0, 0, 0)
            assert any(entry.name == "__getitem__" for entry in caught.traceback)
    aside = {"on_bad_data": "quarantine", "quarantine_limit": 0.1}
    told: list[Any] = []
    job = make("train_set", more, lanes=1, lane_batch=20, data=aside)
    with closing(reader_of(job, report=lambda *what: told.append(what))) as reader:
        batch = reader.batch(0, 0, 0)
        assert sorted(batch.ids.tolist()) == [row for row in range(20) if row != 13]
        assert batch.arrays["x"].shape == (19, 2)
        assert told == [("data.train", "data.train", 13, 1, "LookupError: the user's own")]
    job = make("train_set", more, lanes=1, lane_batch=20, data={**aside, "quarantine_limit": 0.0})
    with closing(reader_of(job)) as reader, pytest.raises(BadData, match=r"more than data.quarantine_limit"):
        reader.batch(0, 0, 0)


def test_rows_that_are_not_alike_are_told_by_number(make: Any) -> None:
    more = UNLIKE.replace("row == 13", "False")
    job = make("train_set", more, lanes=1, lane_batch=20, data={"shuffle": False})
    with closing(reader_of(job)) as reader, pytest.raises(BadInput, match=r"row 7 of data.train has .*y: int"):
        reader.batch(0, 0, 0)


FRAMES = {
    "arrays": "arrays",
    "mapping": "{'x': np.arange(6.0).reshape(3, 2), 'word': np.array(['a', 'b', 'c'])}",
    "frame": "__import__('pandas').DataFrame({'x': [1.5, 2.5, 3.5], 'word': ['a', 'b', 'c']})",
    "table": "__import__('pyarrow').table({'x': [1.5, 2.5, 3.5], 'word': ['a', 'b', 'c']})",
}


@pytest.mark.parametrize("kind", FRAMES)
def test_arrays_and_frames(make: Any, kind: str) -> None:
    job = make("given", f"given = {FRAMES[kind]}", lanes=1, lane_batch=3, data={"shuffle": False})
    own = opened(job, code.locate(job.task))
    assert described(own, job)["train"].digest == own["train"].digest()
    with closing(open_readers(job, own=own)[0]) as reader:
        batch = tensors_of(reader.batch(0, 0, 0), torch.device("cpu"))
        if kind == "arrays":
            assert torch.equal(batch[0], torch.arange(12.0).reshape(3, 4))  # type: ignore[index]
            return
        assert batch["word"] == ["a", "b", "c"]
        assert len(batch["x"]) == 3
        assert batch["x"].dtype == torch.float64


def test_the_tasks_own_collate(make: Any) -> None:
    def collate(rows: list[Any]) -> Any:
        return {"sum": torch.stack([x for x, _ in rows]).sum(0), "drawn": torch.rand(1), "rows": len(rows)}

    found = []
    for slow_s in (1.0, -1.0):
        with closing(reader_of(make())) as reader:
            reader.use(None, collate)
            reader._slow_s = slow_s
            reader.carry([0, 1, 2], 0)
            batches = [reader.batch(0, step, lane) for step in range(4) for lane in range(3)]
            found.append([{name: str(part) for name, part in batch.arrays.items()} for batch in batches])
    assert found[0] == found[1]
    assert len({batch["drawn"] for batch in found[0]}) == 12


STREAMS = {
    "plain": "def stream():\n    yield from ((torch.full((4,), float(i)), torch.tensor(i)) for i in range(10))",
    "lanes": """
def stream(lane, lanes):
    for number in range(lane, 10, lanes):
        yield torch.full((4,), float(number)), torch.tensor(number)
""",
    "workers": """
class Shared(torch.utils.data.IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        for number in range(info.id, 10, info.num_workers):
            yield torch.full((4,), float(number)), torch.tensor(number)

def stream():
    return Shared()
""",
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_shared_out_among_lanes(make: Any, kind: str) -> None:
    """And begun again where it ends; the same from the middle, and when a step is done again."""
    job = make("stream", STREAMS[kind], epochs=None, steps=6, lane_batch=2)
    with closing(reader_of(job)) as reader:
        seen = [[reader.batch(0, step, lane).arrays[1].tolist() for lane in range(3)] for step in range(6)]
        assert seen[:2] == [[[0, 3], [1, 4], [2, 5]], [[6, 9], [7, 1], [8, 2]]]
        assert reader.batch(0, 5, 1).arrays[1].tolist() == seen[5][1]
        assert reader.batch(0, 1, 0).arrays[1].tolist() == seen[1][0]
    with closing(reader_of(job)) as reader:
        assert reader.batch(0, 4, 2).arrays[1].tolist() == seen[4][2]


@warm
def test_a_stream_says_what_does_not_hold(make: Any, tmp_path: Path) -> None:
    job = make("stream", STREAMS["plain"], epochs=None, steps=6)
    found = plan.check(job)
    assert (found.total_steps, found.steps_per_epoch) == (6, 6)
    assert any("goes through the rows before its place" in note for note in found.warnings)
    job = make("stream", STREAMS["plain"], epochs=None, steps=6, data={"validation": f"{tmp_path}/rows.py:stream"})
    with pytest.raises(BadInput, match=r"data.validation=rows.py:stream is a stream"):
        described(opened(job, code.locate(job.task)), job)


def test_a_stream_without_rows_for_a_lane(make: Any) -> None:
    job = make("stream", "def stream(lane, lanes):\n    return [(torch.ones(4), 1)] * lane", epochs=None, steps=6)
    with closing(reader_of(job)) as reader:
        assert reader.batch(0, 0, 1).arrays[1].tolist() == [1] * 4
        with pytest.raises(BadInput, match=r"data\.train gives lane 0 no rows"):
            reader.batch(0, 0, 0)


@warm
def test_a_dataset_as_it_is_travels_with_the_task(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By value, beside a task that is named by its file: what workers of another machine make of the run's copy."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))

    class Local(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, row: int) -> Any:
            return torch.full((4,), float(row)), float(torch.rand(1))

    tree = make().model_dump()
    del tree["data"]
    table = {"x": np.arange(40, dtype=np.float32).reshape(10, 4), "y": np.arange(10.0)}
    job = asked.job_of(tree, data={"train": Local(), "validation": table})
    checked = plan.check(job)
    assert (checked.rows, checked.datasets["validation"].rows) == (30, 10)
    job = plan.pinned(job, checked)
    code.carry(checked.source, tmp_path / "run" / "code", checked.cargo)
    shutil.rmtree(tmp_path / "cache")
    own = opened(job, code.kept(job.task, tmp_path / "run" / "code"))
    train, validation = open_readers(job, own=own)
    with closing(train), closing(validation):  # type: ignore[arg-type]
        first = train.batch(0, 0, 0)
        assert first.arrays[0][:, 0].tolist() == first.ids.tolist()  # type: ignore[index]
        assert validation is not None
        assert validation.batch(0, 0, 2).arrays["y"].tolist() == [6, 7, 8, 9]
    held = Local()
    held.file = (tmp_path / "log").open("w")  # type: ignore[attr-defined]
    with closing(held.file), pytest.raises(BadInput, match=r"data\.train\.file is an open file"):  # type: ignore[attr-defined]
        asked.job_of(tree, data={"train": held})
    with pytest.raises(BadInput, match="data is test: a run has a training set"):
        asked.job_of(tree, data={"test": table})


@warm
def test_a_transform_that_would_never_be_called(make: Any, tmp_path: Path) -> None:
    job = make()
    more = "    def transform(self, table, random, training):\n        return {}\n"
    (tmp_path / "task.py").write_text(f"{TASK}\n{more}")
    source = code.locate(job.task)
    with pytest.raises(BadInput, match=r"T\.transform\(\) would never be called"):
        try_out(job, source, 10, tmp_path)


@warm
def test_the_try_out_takes_a_step_on_its_rows(make: Any, tmp_path: Path) -> None:
    job = make(data={"validation": f"{tmp_path}/rows.py:held_out"})
    assert try_out(job, code.locate(job.task), 10, tmp_path).parameters == 5
    more = "class Bad(Noisy):\n    def __getitem__(self, row):\n        return 1 / 0\n\ndef bad():\n    return Bad(9)\n"
    (tmp_path / "other.py").write_text(f"{DATA}\n{more}")
    job = make(data={"train": f"{tmp_path}/other.py:bad"})
    with pytest.raises(BadInput, match="the datasets' own rows, or the task's collate, raised: ZeroDivisionError"):
        try_out(job, code.locate(job.task), 10, tmp_path)


DRIFTS = """
class Own(Noisy):
    def __init__(self, rows):
        super().__init__(rows)
        self.drawn = np.random.default_rng(0)

    def __getitem__(self, row):
        return super().__getitem__(row)[0] + float(self.drawn.random()), self.y[row]

class Told(Own):
    digest = "v1"

def train_set():
    return Own(50)

def told():
    return Told(50)
"""


def test_a_generator_of_the_datasets_own_is_no_secret(make: Any) -> None:
    """Nothing seeds it: its rows would be others on every worker."""
    cases: Any = (("train_set", {}), ("train_set", BITWISE), ("told", BITWISE))
    for name, fields in cases:
        job = make(name, DRIFTS, **fields)
        with pytest.raises(BadInput, match="gives other rows each time") as caught:
            described(opened(job, code.locate(job.task)), job)
        assert "torch.rand" in caught.value.remedy
    job = make("told", DRIFTS)
    found = described(opened(job, code.locate(job.task)), job)["train"]
    assert found.drifts
    assert "trains on others" in found.notes[0]


BITWISE = {"reproducible": "bitwise"}


def test_accumulation_cuts_texts_too() -> None:
    rows = [(torch.tensor(float(row)), f"t{row}", {"name": str(row)}) for row in range(4)]
    found = parts(torch.utils.data.default_collate(rows), 4, 2)
    assert [part[1] for _, part in found] == [("t0", "t1"), ("t2", "t3")]  # type: ignore[index]
    assert [part[2]["name"] for _, part in found] == [["0", "1"], ["2", "3"]]  # type: ignore[index]
    with pytest.raises(BadInput, match="nobody knows how to cut it"):
        parts(SimpleNamespace(x=torch.zeros(4)), 4, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [{"x": torch.arange(6), "s": list("abcdef")}, [torch.arange(6), torch.ones(6, 2)]])
def test_accumulation_cuts_any_batch(batch: Any) -> None:
    found = parts(batch, 6, 4)
    assert [rows for rows, _ in found] == [4, 2]
    if isinstance(batch, dict):
        assert [part["s"] for _, part in found] == [list("abcd"), list("ef")]
    else:
        assert [part[1].shape for _, part in found] == [(4, 2), (2, 2)]  # type: ignore[index]
    with pytest.raises(BadInput, match="as `accumulate` wants it"):
        parts({"x": torch.zeros(())}, 6, 4)


class RayData:
    """Stands for a `ray.data.Dataset`: blocks in their order."""

    __module__ = "ray.data.dataset"

    def __init__(self) -> None:
        self.context = SimpleNamespace(execution_options=SimpleNamespace(preserve_order=False))

    def iter_batches(self, batch_size: None, batch_format: str) -> Any:
        assert self.context.execution_options.preserve_order
        assert (batch_size, batch_format) == (None, "pyarrow")
        yield from (pa.table({"x": list(range(first, first + 3))}) for first in (0, 3))


def test_a_dataset_of_rays_is_written_once(tmp_path: Path) -> None:
    data = {"train": RayData(), "validation": "somewhere"}
    first, again = (materialised.stored(data, tmp_path / "runs", None) for _ in range(2))
    assert first == again
    assert first is not None
    assert first["validation"] == "somewhere"
    assert pq.read_table(f"{first['train']}/shard-00000.parquet")["x"].to_pylist() == list(range(6))
    assert len(list((tmp_path / "runs" / "datasets").iterdir())) == 1
    with pytest.raises(BadInput, match=r"data\.train is a Ray Dataset, and runs are kept in s3://b"):
        materialised.stored(data, tmp_path, "s3://b")
