"""`fit`: what a task asks of its training set, how the answer is kept, and that every process of a run has it."""

from __future__ import annotations

import datetime
import math
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import headway
from headway import plan, tryout
from headway.carried import code, fitted
from headway.core import moments
from headway.data.read.streams import Elsewhere, transform_of
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.driver.run import rehearse
from headway.driver.submission import Submission
from headway.elastic.crew.fits import Fits
from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.errors import BadInput, RunFailed
from headway.fitting import Dataset, pieces, work
from headway.job import Job, parse
from headway.testing.elastic import Run, advance
from headway.tryout import trial
from headway.tryout.trial import ANSWER, FITTED, FITTING

WORDS = ["red", "green", "blue", None]


class Cut:
    """Pieces of a table, cut anywhere."""

    def __init__(self, table: pa.Table, *ends: int) -> None:
        self._table, self._ends = table, (0, *ends, table.num_rows)
        self.rows, self.schema = table.num_rows, table.schema

    def __len__(self) -> int:
        return len(self._ends) - 1

    def table(self, number: int, columns: Sequence[str] | None) -> pa.Table:
        first, stop = self._ends[number : number + 2]
        part = self._table.slice(first, stop - first)
        return part if columns is None else part.select(list(columns))


def people(rows: int = 100) -> pa.Table:
    ids = np.arange(rows)
    age = np.where(ids % 7 == 3, np.nan, 20.0 + ids % 50)
    return pa.table(
        {
            "age": pa.array(age),
            "income": pa.array([None if i % 11 == 5 else int(i) * 3 for i in ids], pa.int64()),
            "colour": pa.array([WORDS[i % 4] for i in ids]),
            "since": pa.array([datetime.date(2020, 1, 1) + datetime.timedelta(days=int(i)) for i in ids]),
            "place": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2 * rows, dtype=np.float32)), 2),
            "y": pa.array(ids % 2 == 0),
        }
    )


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(Cut(people(), 10, 11, 70))


# Questions


def test_numbers_are_those_of_pandas(dataset: Dataset) -> None:
    frame = people().to_pandas()
    assert dataset.count() == 100
    for name in ("age", "income"):
        assert dataset.mean(name) == pytest.approx(frame[name].mean(), rel=1e-14)
        assert dataset.std(name) == pytest.approx(frame[name].std(), rel=1e-14)
        assert dataset.std(name, ddof=0) == pytest.approx(frame[name].std(ddof=0), rel=1e-14)
        assert dataset.min(name) == frame[name].min()
        assert dataset.max(name) == frame[name].max()
    assert dataset.mean("y") == 0.5
    assert dataset.mean("since") == (datetime.date(2020, 1, 1) - datetime.date(1970, 1, 1)).days + 49.5
    assert dataset.max("since") == datetime.date(2020, 4, 9)


def test_words_are_counted_and_in_order(dataset: Dataset) -> None:
    assert dataset.unique("colour") == ["blue", "green", "red"]
    assert dataset.value_counts("colour") == {"blue": 25, "green": 25, "red": 25}
    assert list(dataset.value_counts("income"))[:2] == [0, 3]
    assert dataset.schema().field("colour").type == pa.string()


def test_a_column_of_nothing_has_no_mean() -> None:
    nothing = Dataset(Cut(pa.table({"x": pa.array([None, float("nan")], pa.float64())})))
    assert (nothing.mean("x"), nothing.std("x"), nothing.min("x"), nothing.unique("x")) == (None, None, None, [])


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_batches_are_cut_across_pieces(dataset: Dataset, size: int) -> None:
    tables = list(dataset.iter_batches(batch_size=size, batch_format="pyarrow"))
    assert [table.num_rows for table in tables[:-1]] == [size] * (len(tables) - 1)
    whole = pa.concat_tables(tables)
    assert whole.drop_columns(["age"]).equals(people().drop_columns(["age"]))
    assert whole["age"].to_pandas().equals(people()["age"].to_pandas())


def test_batches_of_numpy_and_pandas(dataset: Dataset) -> None:
    first = next(dataset.iter_batches(batch_size=8, columns=["place", "colour", "income"]))
    assert list(first) == ["place", "colour", "income"]
    assert first["place"].shape == (8, 2)
    assert first["place"].dtype == np.float32
    assert list(first["colour"][:4]) == WORDS
    assert math.isnan(first["income"][5])
    frame = next(dataset.iter_batches(batch_size=None, batch_format="pandas"))
    assert frame.drop(columns="place").equals(people().slice(0, 10).to_pandas().drop(columns="place"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda d: d.mean("agee"), "Did you mean 'age'"),
        (lambda d: d.unique("agee"), "no such column"),
        (lambda d: d.mean("colour"), "it is string"),
        (lambda d: d.value_counts("place"), "it is fixed_size_list"),
        (lambda d: d.min("place"), "of numbers, dates and text"),
        (lambda d: next(d.iter_batches(batch_format="torch")), "no such format"),
        (lambda d: next(d.iter_batches(batch_size=0)), "a row or more"),
        (lambda d: next(d.iter_batches(columns=["b"])), "no such column"),
    ],
)
def test_what_cannot_be_asked_is_said(dataset: Dataset, asked: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        asked(dataset)


@given(st.lists(st.floats(-1e150, 1e150), min_size=2, max_size=50), st.data())
def test_moments_hang_on_the_numbers_and_the_cuts_alone(numbers: list[float], data: st.DataObject) -> None:
    whole = np.array(numbers)
    at = data.draw(st.integers(0, len(numbers)))
    merged = moments.merged([moments.of(whole[:at]), moments.of(whole[at:])])
    assert merged.count == len(numbers)
    scale = float(np.abs(whole).max()) or 1.0
    assert merged.mean == pytest.approx(whole.mean(), rel=1e-12, abs=1e-12 * scale)
    if math.isfinite(float(whole.std())):
        assert merged.std(0) == pytest.approx(float(whole.std()), rel=1e-9, abs=1e-12 * scale)
    strided = np.repeat(whole, 2)[::2]  # another way through memory, which NumPy's own sum may add up otherwise
    assert moments.of(strided) == moments.of(whole)


# What is kept


def test_values_come_back_as_they_were() -> None:
    values = {
        "words": {"a": 0, "b": 1},
        3: (1.5, float("inf"), None, True, b"x", "ü", 2 + 1j),
        "mean": np.array([1.0, 2.0], np.float32),
        "scalar": np.float64(0.1),
        "weights": torch.arange(6).reshape(2, 3).t(),
        "bf": torch.ones(2, dtype=torch.bfloat16),
        "none": torch.zeros(0, 3),
        "some": {"x", "y"},
    }
    content = fitted.pack(values)
    assert content == fitted.pack(values)
    back = fitted.unpack(content)
    assert back["words"] == values["words"]
    assert back[3] == values[3]
    assert np.array_equal(back["mean"], values["mean"])
    assert back["mean"].dtype == np.float32
    assert torch.equal(back["weights"], values["weights"])
    assert back["bf"].dtype == torch.bfloat16
    assert back["none"].shape == (0, 3)
    assert back["some"] == {"x", "y"}
    assert fitted.unpack(content)["weights"].data_ptr() != back["weights"].data_ptr()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, {"model": nn.Linear(1, 1)}]}, r"Linear: the value\['a'\]\[1\]\['model'\]"),
        ({"f": print}, "builtin_function_or_method"),
        (np.array(["a", None], object), "NumPy array of object"),
        ([torch.eye(2).to_sparse()], r"not dense: the value\[0\]"),
        ({frozenset({1}): 1}, "a key of the value"),
        (people().to_pandas()["age"], "Series"),
    ],
)
def test_what_cannot_be_kept_is_named_by_its_path(value: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        fitted.pack(value)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted, "MOST_BYTES", 1000)
    with pytest.raises(BadInput, match="at most 0 MiB are sent"):
        fitted.pack(torch.zeros(1000))


def test_damaged_values_are_seen(tmp_path: Path) -> None:
    fitted.put(fitted.pack([1, 2]), tmp_path)
    assert fitted.unpack(fitted.of(tmp_path) or b"") == [1, 2]
    path = tmp_path / code.FITTED
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunFailed, match="damaged"):
        fitted.of(tmp_path)


# A task


HEAD = """
import os, sys
import headway, torch
from torch import nn
"""
GOOD = """
class T(headway.Task):
    def fit(self, dataset):
        return {"classes": dataset.unique("colour"), "mean": dataset.mean("age"), "drawn": torch.rand(2)}

    def transform(self, table, random, training):
        known = {word: number for number, word in enumerate(self.fitted["classes"])}
        colour = [known.get(word, len(known)) for word in table["colour"].to_pylist()]
        age = table["age"].to_numpy() - self.fitted["mean"]
        return {"colour": colour, "age": age.astype("float32"), "y": table["y"].to_numpy().astype("float32")}

    def model(self):
        return nn.Embedding(len(self.fitted["classes"]) + 1, 1)

    def loss(self, model, batch):
        scores = model(batch["colour"])[:, 0] + 0 * batch["age"].nan_to_num()
        return nn.functional.binary_cross_entropy_with_logits(scores, batch["y"])
"""


def job(folder: Path, text: str = GOOD, **fields: Any) -> Job:
    if not (folder / "train").exists():
        write_dataset(folder / "train", [people()], name="people", source="test", sizes=Sizes(10))
    (folder / "task.py").write_text(HEAD + text)
    tree = {"name": "n", "task": f"{folder}/task.py:T", "data": {"train": str(folder / "train")}, "epochs": 2}
    return parse({"lanes": 2, "lane_batch": 8, **tree, **fields})


def found(folder: Path, text: str, **fields: Any) -> bytes | None:
    asked = job(folder, text, **fields)
    return work.run(asked, code.load(code.locate(asked.task)))


def test_a_task_is_fitted_to_its_whole_training_set(tmp_path: Path) -> None:
    values = fitted.unpack(found(tmp_path, GOOD) or b"")
    assert values["classes"] == ["blue", "green", "red"]
    assert values["mean"] == pytest.approx(people().to_pandas()["age"].mean())
    again = fitted.unpack(found(tmp_path, GOOD) or b"")
    assert torch.equal(values["drawn"], again["drawn"]), "drawn by the job's seed"
    other = fitted.unpack(found(tmp_path, GOOD, seed=1) or b"")
    assert not torch.equal(values["drawn"], other["drawn"])


def test_a_task_without_one_is_not(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD.replace("def fit(", "def sit(")) is None
    asked = job(tmp_path, GOOD.replace("def fit(", "def sit("))
    source = code.locate(asked.task)
    assert not work.may_have_fit(source, tmp_path)
    job(tmp_path)
    assert work.may_have_fit(source, tmp_path)


def test_a_mixture_is_read_part_after_part(tmp_path: Path) -> None:
    write_dataset(tmp_path / "more", [people(30)], name="people", source="test", sizes=Sizes(10))
    asked = job(tmp_path)
    parts = [{"path": str(tmp_path / "train"), "weight": 3}, {"path": str(tmp_path / "more")}]
    rows = pieces.of(asked.model_copy(update={"data": asked.data.model_validate({"train": parts})}))
    assert (rows.rows, len(rows)) == (130, 13)
    tables = list(Dataset(rows).iter_batches(batch_format="pyarrow", columns=["income", "y"]))
    assert pa.concat_tables(tables).equals(pa.concat_tables([people(), people(30)]).select(["income", "y"]))
    rows.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("self.classes = dataset.unique('colour')", "returned None: what it sets on self"),
        ("return {'model': nn.Linear(1, 1)}", r"the value\['model'\]"),
        ("return dataset.mean('colours')", "Did you mean 'colour'"),
        ("sys.exit(3)", "SystemExit"),
        ("return {}['there']", "KeyError: 'there'"),
    ],
)
def test_a_fit_that_fails_is_refused(tmp_path: Path, body: str, said: str) -> None:
    text = GOOD.replace('return {"classes"', f'{body}\n        return {{"classes"')
    with pytest.raises(BadInput, match=said) as caught:
        found(tmp_path, text if "self.classes" not in body else text.replace("return {", "x = {", 1))
    assert caught.value.remedy or "returned" in caught.value.fact
    if "KeyError" in said:
        assert "task.py" in caught.value.traceback
        assert "headway/fitting" not in caught.value.traceback


# Before a run


def tried(asked: Job, folder: Path, **ways: Any) -> tryout.Found:
    with tryout.begun(asked) as begun:
        checked = plan.check(asked)
        copied = folder / "code"
        if not copied.exists():
            code.carry(checked.source, copied, checked.cargo)
        begun.ask(plan.pinned(asked, checked), checked, copied, **ways)
        return begun.answer()


def test_the_trial_fits_the_task_and_tries_it_so(tmp_path: Path) -> None:
    told = tried(job(tmp_path), tmp_path)
    assert told.values is not None
    assert told.notes == []
    assert told.parameters == 4
    assert fitted.unpack(told.values)["classes"] == ["blue", "green", "red"]
    again = tried(job(tmp_path, GOOD.replace("dataset.unique", "dataset.gone")), tmp_path, values=told.values)
    assert (again.values, again.parameters) == (None, 4), "what a run has kept is not fitted again"


def test_a_task_that_is_not_to_be_tried_is_fitted_all_the_same(tmp_path: Path) -> None:
    told = tried(job(tmp_path, check=False), tmp_path)
    assert told.values is not None
    assert told.parameters is None
    shutil.rmtree(tmp_path / "code")
    none = tried(job(tmp_path, GOOD.replace("def fit(", "def sit("), check=False), tmp_path)
    assert none == tryout.Found()


def test_what_a_fit_is_ended_by_is_told(tmp_path: Path) -> None:
    text = GOOD.replace('return {"classes"', 'os._exit(9)\n        return {"classes"')
    with pytest.raises(BadInput, match=r"ended its process with exit code 9 in T.fit\(\)"):
        tried(job(tmp_path, text), tmp_path)
    text = GOOD.replace('return {"classes"', 'os.kill(os.getpid(), 9)\n        return {"classes"')
    shutil.rmtree(tmp_path / "code")
    with pytest.raises(RunFailed, match="could not be fitted"):
        tried(job(tmp_path, text), tmp_path)


def test_the_time_limit_is_that_of_the_trial_not_of_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours pass in `fit`, on a clock of the test's."""
    looks = 0

    def looked() -> bool:
        nonlocal looks
        looks += 1
        if looks == 5:
            (folder / FITTED).write_bytes(b"values")
            (folder / ANSWER).write_text('{"notes": []}')
            process.kill()
            process.wait()
        return False

    folder = tmp_path / "trial"
    folder.mkdir()
    (folder / FITTING).touch()
    process = subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE, start_new_session=True)
    clock = SimpleNamespace(**{**vars(time), "monotonic": lambda: 3600.0 * min(looks, 4)})  # nobody else's
    monkeypatch.setattr(trial, "time", clock)
    assert trial.Trial(process, folder, 60.0).answer(looked) == tryout.Found(values=b"values")


def test_a_large_set_waits_for_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "HERE_BYTES", 10)
    asked = job(tmp_path)
    assert not work.is_small(plan.check(asked).datasets)
    found = tryout.check(asked)
    assert any("tried once T.fit() has run" in note for note in found.warnings)


@pytest.mark.parametrize(("most", "fits"), [(work.HERE_BYTES, True), (10, False)])
def test_a_rehearsal_fits_to_no_more_than_a_moment_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, fits: bool
) -> None:
    """The run itself fits to the rest, on the whole cluster."""
    monkeypatch.setattr(work, "HERE_BYTES", most)
    asked: list[bool] = []

    class Asked(Exception):
        pass

    def ask(self: Any, *_: Any, fits: bool = True, **__: Any) -> None:
        asked.append(fits)
        raise Asked

    monkeypatch.setattr("headway.tryout.Trial.ask", ask)
    given = job(tmp_path)
    monkeypatch.setattr("headway.driver.run._checked", lambda *_: plan.check(given))
    submission = Submission("id", "1", "mary", tmp_path, lambda *_: None, lambda _: None, lambda: False)  # type: ignore[arg-type, return-value]
    with pytest.raises(Asked):
        rehearse(given, submission, runs_folder=tmp_path / "runs")
    assert asked == [fits]


# In a run


def test_the_code_is_carried_anew_and_the_values_stay(tmp_path: Path) -> None:
    asked = job(tmp_path)
    source, copied = code.locate(asked.task), tmp_path / "run" / "code"
    code.carry(source, copied)
    fitted.put(fitted.pack({"classes": ["x"], "mean": 0.0}), copied)
    code.carry(source, copied)
    assert code.changed(source, copied, code.survey(source)) == []
    kept = code.kept(asked.task, copied)
    assert fitted.make(code.load(kept), asked, kept).fitted["classes"] == ["x"]


def test_readers_elsewhere_have_them(tmp_path: Path) -> None:
    asked = job(tmp_path)
    source, copied = code.locate(asked.task), tmp_path / "run" / "code"
    code.carry(source, copied)
    fitted.put(fitted.pack({"classes": ["blue"], "mean": 0.0}), copied)
    reader = Elsewhere(asked.model_dump(), code.carried(source, copied))(lambda *what: None)
    batch = reader.batch(0, 0, 0)
    reader.close()
    assert set(batch.arrays["colour"]) <= {0, 1}


class Centred(headway.Task):
    def model(self) -> nn.Module:
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, self.fitted["mean"] / 100)
        return model

    def transform(self, table: pa.Table, random: Any, training: bool) -> dict[str, np.ndarray[Any, Any]]:
        age = np.nan_to_num(table["age"].to_numpy() - self.fitted["mean"]) / 10
        return {"age": age.astype(np.float32)[:, None], "y": table["y"].to_numpy(zero_copy_only=False)}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(model(batch["age"])[:, 0], batch["y"].float())


def trained(context: Context, copied: Path) -> str:
    """A worker's part: the task as `headway.elastic.worker.main.run` makes it, in a loop that tells its steps."""
    torch.manual_seed(context.job.seed)
    task = fitted.make(Centred, context.job, code.Source(copied, "m", "n", "", copied=True, copy=copied))
    context.use(transform_of(task))
    model = task.model()
    begun = float(next(model.parameters()))
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None) as session:
        for step in session.steps():
            for batch in step.lanes():
                if not (copied / "joined").exists():
                    time.sleep(0.1)  # else it would be over before the other one is back
                step.backward(task.loss(session.model, batch))
            advance(session.step)
    return f"{begun:.2f} {[parameter.tolist() for parameter in model.parameters()]}"


def test_a_lost_and_a_joining_worker_have_them_too(tmp_path: Path) -> None:
    workers = {"min": 1, "max": 2, "silence_s": 10.0, "hang_s": 60.0}
    asked = job(tmp_path, epochs=None, steps=300, reproducible="bitwise", workers=workers)
    copied = tmp_path / "code"
    fitted.put(fitted.pack({"mean": 43.0}), copied)
    (copied / "joined").touch()
    with Run(tmp_path / "alone", asked, trained, copied, places=1) as run:
        alone = run.result()
    (copied / "joined").unlink()
    with Run(tmp_path / "two", asked, trained, copied) as run:
        run.wait_until(lambda: run.step >= 4 and len(run.members) == 2)
        lost = run.members[1:]
        run.kill(lost[0])
        run.wait_until(lambda: run.members[1:] not in ([], lost))
        (copied / "joined").touch()
        two = run.result()
    assert alone.failure is two.failure is None
    (weights,) = alone.results.values()
    assert set(two.results.values()) == {weights}
    assert weights.startswith("0.43"), "the model began with what the task was fitted to"


def test_trials_of_a_sweep_are_fitted_to_what_they_would_learn(tmp_path: Path) -> None:
    text = GOOD.replace(
        "class T(headway.Task):", "class T(headway.Task):\n    def __init__(self, base=0): self.base = base"
    )
    asked = job(tmp_path, text.replace('return {"classes"', 'return {"base": self.base, "classes"'))
    checked = plan.check(asked)
    fits, runs = Fits(), [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for copied in runs:
        code.carry(checked.source, copied, checked.cargo)
    fits.give(asked, checked, runs[0])
    assert fitted.of(runs[0]) is None, "nobody said that it has a fit"
    pinned = plan.pinned(asked, checked)
    fits.know(pinned, fitted.pack({"known": 1}))
    noted = fits.give(pinned, checked, runs[0])
    assert noted == {"sha256": fitted.digest(fitted.pack({"known": 1})), "bytes": len(fitted.pack({"known": 1}))}
    assert fitted.unpack(fitted.of(runs[0]) or b"") == {"known": 1}
    other = pinned.model_copy(update={"arguments": {"base": 3}})
    fits.give(other, checked, runs[1])
    fits.give(other.model_copy(update={"lanes": 1}), checked, runs[2])
    assert fitted.unpack(fitted.of(runs[1]) or b"")["base"] == 3
    assert fitted.of(runs[2]) == fitted.of(runs[1])


def test_data_of_ones_own_are_not_asked_and_that_is_said(tmp_path: Path) -> None:
    asked = job(tmp_path, data={"train": f"{tmp_path}/task.py:rows"})
    with pytest.raises(BadInput, match=r"task\.fit: data\.train=task\.py:rows is given by code"):
        work.run(asked, code.load(code.locate(asked.task)))
