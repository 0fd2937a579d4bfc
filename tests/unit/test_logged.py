"""What is made of a figure, a text, a table and a file; and where it lies."""

from __future__ import annotations

import io
import json
import re
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.elastic.lead import logged as kept_by
from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker.contents import Contents, without
from headway.logged import content, index, tables
from headway.logged.content import Unfit, drawn
from headway.logged.paths import path_of
from headway.runs import RunFolder
from headway.runs.stream import is_record

PNG = b"\x89PNG\r\n\x1a\n"


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


# -- figures


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3), (3, 5, 4)])
def test_arrays_of_pixels_are_kept_to_the_byte(shape: tuple[int, ...]) -> None:
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    found = drawn("figure", "f", image)
    assert (found.suffix, found.mime) == (".png", "image/png")
    assert np.array_equal(pixels(found.data), image.squeeze())


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (torch.tensor([[0.0, 1.0], [0.5, 0.25]]), [[0, 255], [128, 64]]),
        (torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[0.0, 0.0]]]), [[[0, 255, 0], [255, 0, 0]]]),
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[0, 255]], np.int64), [[0, 255]]),
        (torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16, requires_grad=True), [[0, 255]]),
    ],
)
def test_fractions_channels_first_and_flags_are_pixels_too(image: Any, wanted: Any) -> None:
    assert pixels(drawn("figure", "f", image).data).tolist() == wanted


def test_figures_of_libraries() -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(2, 1), dpi=50)
    axes = figure.subplots()
    axes.plot([1, 2, 3])
    assert pixels(drawn("figure", "f", figure).data).shape[:2] == (50, 100)
    assert drawn("figure", "f", axes).data.startswith(PNG)
    cyan = Image.new("CMYK", (4, 2), (255, 0, 0, 0))
    assert pixels(drawn("figure", "f", cyan).data)[0, 0].tolist() == [0, 255, 255]


def test_a_figure_of_plotly_is_a_page() -> None:
    class Plotly:
        def to_html(self, include_plotlyjs: str) -> str:
            return f"<html>{include_plotlyjs}</html>"

        def to_plotly_json(self) -> dict[str, Any]:
            return {}

    assert drawn("figure", "f", Plotly()) == content.Content(b"<html>cdn</html>", ".html", "text/html")


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (3, "a int is no figure"),
        (np.zeros((2, 2, 9)), "a ndarray is no figure"),
        (np.zeros((0, 4)), "a ndarray is no figure"),
        (np.array([["a"]]), "a ndarray is no figure"),
        (np.array([[2.0]]), "values are from 2 to 2"),
        (np.array([[-1]]), "values are from -1 to -1"),
        (np.array([[np.nan]]), "values are from nan"),
    ],
)
def test_what_is_no_figure_is_refused(figure: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        drawn("figure", "f", figure)


# -- texts, tables, files


def test_a_text_says_by_its_name_what_it_is() -> None:
    assert drawn("text", "n", "ü").data == "ü".encode()
    assert drawn("text", "n", "x").suffix == ".txt"
    assert drawn("text", "notes.md", "x").mime == "text/markdown"
    assert drawn("text", "v1.2", "x").suffix == ".txt"
    assert drawn("text", "n", "\ud800").data == b"\\ud800"
    with pytest.raises(Unfit, match="a bytes is no text"):
        drawn("text", "n", b"x")


def frames() -> list[Any]:
    import pandas as pd

    columns = {"a": [1, 2], "b": ["x", None]}
    rows = [{"a": 1, "b": "x"}, {"a": 2}]
    lists = {"a": torch.tensor([1, 2]), "b": ("x", None)}
    return [
        columns,
        rows,
        lists,
        pa.table(columns),
        pd.DataFrame({"a": [1, 2], "b": pd.Series(["x", None], dtype=object)}),
    ]


@pytest.mark.parametrize("number", range(5))
def test_tables_of_all_kinds_are_one(number: int) -> None:
    found = json.loads(drawn("table", "t", frames()[number]).data)
    assert found == {"columns": ["a", "b"], "data": [[1, "x"], [2, None]]}


def test_values_of_tables_are_plain() -> None:
    row = {"f": float("nan"), "i": float("inf"), "n": np.float32(0.5), "t": torch.tensor([1, 2]), "p": Path("x")}
    row |= {"l": [np.int8(1), (2, float("nan"))], "b": np.bool_(True)}
    found = json.loads(drawn("table", "t", [row]).data)
    assert found["data"] == [[None, None, 0.5, [1, 2], "x", [1, [2, None]], True]]
    assert json.loads(drawn("table", "t", {}).data) == {"columns": [], "data": []}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (7, "a int is no table"),
        ([1, 2], "a list is no table"),
        ({"a": 1}, "column 'a' is a int"),
        ({"a": "text"}, "column 'a' is a str"),
        ({"a": [1], "b": [1, 2]}, "unlike lengths: a 1, b 2"),
        ({"a": range(tables.MOST_ROWS + 1)}, "10,001 rows"),
        ([{"a": 1}] * (tables.MOST_ROWS + 1), "10,001 rows"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, said: str) -> None:
    with pytest.raises(Unfit, match=re.escape(said)):
        drawn("table", "t", table)


def test_a_file_is_read_when_it_is_logged(tmp_path: Path) -> None:
    file = tmp_path / "scores.npz"
    file.write_bytes(b"abc")
    assert drawn("artifact", "s", str(file)).data == b"abc"
    assert drawn("artifact", "s", file).suffix == ".npz"
    with pytest.raises(Unfit, match="is a folder: log its files"):
        drawn("artifact", "s", tmp_path)
    with pytest.raises(Unfit, match="cannot be read: No such file"):
        drawn("artifact", "s", tmp_path / "none")
    with pytest.raises(Unfit, match="a int is no path"):
        drawn("artifact", "s", 3)


def test_one_may_not_be_too_large(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(content.MOST_BYTES + 1)
    with pytest.raises(Unfit, match="at most 16 MiB"):
        drawn("artifact", "b", tmp_path / "big")
    with pytest.raises(Unfit, match="at most 16 MiB"):
        drawn("text", "b", "x" * (content.MOST_BYTES + 1))


# -- where it lies


@given(st.text(max_size=300), st.text(max_size=12), st.integers(0, 10**9))
def test_every_name_has_a_place_that_is_a_record(name: str, suffix: str, step: int) -> None:
    path = path_of(name, step, suffix)
    assert is_record(path), path
    assert path.startswith("logged/")
    assert len(path) < 200
    assert "." in path.rpartition("/")[2], "no folder has a dot: no file is where another's folder is to be"
    assert "." not in path.rpartition("/")[0]


@pytest.mark.parametrize(
    "name", ["now.json", "../x", "/etc/passwd", ".hidden", "a.lock", "mlflow.db", "keeper.json", "."]
)
def test_odd_names_have_places_too(name: str) -> None:
    assert is_record(path_of(name, 1, ".lock"))


@given(st.text(max_size=30), st.text(max_size=30))
def test_names_have_places_of_their_own(one: str, other: str) -> None:
    assert (path_of(one, 1, ".png") == path_of(other, 1, ".png")) == (one == other)


def test_a_plain_name_is_found_again() -> None:
    assert path_of("validation/confusion", 400, ".png") == "logged/validation/confusion/step-00000400.png"


def test_the_index_is_cut_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "logged").mkdir()
    entries = [{"step": step, "time": step, "path": f"logged/{step}.txt", "bytes": 1} for step in (1, 2, 2, 3)]
    for entry in entries:
        (tmp_path / str(entry["path"])).write_text("x")
    (tmp_path / "logged.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries) + '{"step": 4, "ti')
    assert [e["step"] for e in index.entries(tmp_path)] == [1, 2, 3]
    index.cut(tmp_path, 3)
    index.cut(tmp_path, 1)
    assert [e["step"] for e in index.entries(tmp_path)] == [1]
    assert [path.name for path in (tmp_path / "logged").iterdir()] == ["1.txt"]
    assert index.entries(tmp_path / "none") == []


# -- what a worker holds


def test_a_worker_holds_only_so_much() -> None:
    held = Contents(most=100)
    entries = [{"step": step, "content": "x" * 40} for step in range(5)]
    for entry in entries:
        held.hold(entry)
    assert [entry["content"] is not None for entry in entries] == [False, False, False, True, True]
    large = {"step": 9, "content": "x" * 1000}
    held.hold(large)
    assert large["content"], "the newest stays, however large"
    assert entries[-1]["content"] is None
    assert without(large) == {"step": 9, "content": None}
    assert without({"step": 1}) == {"step": 1}


# -- the recorder's part


def entry(step: int, start: int = 0, kind: str = "logged", **more: Any) -> dict[str, Any]:
    """As a worker's journal sends it."""
    told: dict[str, Any] = {"kind": kind, "time": 1.0, "step": step, "place": (start, step, kind, 0)}
    if kind == "logged":
        content = b64encode(b"x" * 100).decode()
        told |= {"thing": "text", "name": "n", "content": content, "suffix": ".txt", "mime": "text/plain"}
    if kind == "began":
        told |= {"total_steps": 100, "steps_per_epoch": 10}
    return {**told, "caption": "", **more}


def test_a_rewind_makes_room_at_once_however_long_the_disk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_by, "MOST", 4)
    run = RunFolder(tmp_path)
    run.write({"run": "r", "created": time.time()})
    recorder = Recorder(str(tmp_path), None, {}, 10)
    recorder.push("w0", [entry(0, kind="began"), *(entry(step) for step in range(1, 7))])
    assert [message for message in recorder.progress(0)["messages"] if "no more" in message] == [
        "no more figures, texts, tables and files are kept: 4 of them, 0 MiB are there"
    ]
    recorder.push("w0", [entry(2, 1, "began"), *(entry(step, 1) for step in range(3, 7))])
    recorder.finish("finished", "", 1.0)
    recorder.release()
    assert [each["step"] for each in run.logged()] == [1, 2, 3, 4], "two are there again in place of those of before"


def test_what_is_there_is_not_lost_where_only_its_name_was_kept(tmp_path: Path) -> None:
    """Workers outlive the driver, and tell the next one's recorder of the last steps once more."""
    run = RunFolder(tmp_path)
    run.write({"run": "r", "created": time.time()})
    first = Recorder(str(tmp_path), None, {}, 10)
    first.push("w0", [entry(0, kind="began"), *(entry(step) for step in range(1, 4))])
    first.finish("interrupted", "", 1.0)
    first.release()
    recorder = Recorder(str(tmp_path), None, {}, 10)
    light = [entry(step, content=None) for step in range(2, 5)]
    recorder.push("w0", [entry(1, kind="again"), *light, entry(4, 1, "began", of="m", made="n")])
    recorder.finish("finished", "", 1.0)
    recorder.release()
    assert [each["step"] for each in run.logged()] == [1, 2, 3]
    assert all((tmp_path / each["path"]).stat().st_size == 100 for each in run.logged())
    lost = [message for message in recorder.progress(0)["messages"] if "was lost" in message]
    assert lost == ["the text 'n' of step 4 was lost: too much waited to be kept"]
