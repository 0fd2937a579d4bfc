"""Where runs are kept: folders and URLs, and that no command takes the one for the other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headway import runs
from headway.cli import app
from headway.driver import rayjob
from headway.errors import BadInput
from headway.runs.place import DEFAULT, Place, is_url

URLS = ["s3://bucket/runs", "gs://bucket/a/b", "az://container/runs"]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_a_place_of_its_own_with_working_copies_here(url: str, tmp_path: Path) -> None:
    place = Place.of(f"{url}/", {"HEADWAY_CACHE": str(tmp_path)})
    assert (place.url, str(place)) == (url, url)
    assert Place.of(f" {url} ", {"HEADWAY_CACHE": str(tmp_path)}) == place
    assert place.folder.parent == tmp_path / "runs"
    assert place.place_of("r") == f"{url}/r"


def test_places_have_different_working_copies() -> None:
    found = {Place.of(url, {}).folder for url in [*URLS, "s3://bucket/runs-", "s3://bucket-/runs"]}
    assert len(found) == 5
    found.add(Place.of(URLS[0], {"HEADWAY_STORE_ENDPOINT": "http://127.0.0.1:9000"}).folder)
    assert len(found) == 6, "a bucket of that name at another service is another"


def test_a_folder_stays_as_it_was_given(tmp_path: Path) -> None:
    assert Place.of("runs", {}) == Place("runs", Path("runs"))
    assert Place.of(tmp_path, {}).folder == tmp_path
    assert Place.of(f"file://{tmp_path}/a%20b", {}).folder == tmp_path / "a b"
    assert Place.of(f"FILE://{tmp_path}", {}).folder == tmp_path
    assert Place.of("./s3:/x", {}).url is None, "a folder of that name can still be had"


def test_who_says_where_runs_are(tmp_path: Path) -> None:
    variables = {"HEADWAY_RUNS": "s3://bucket/runs", "HEADWAY_CACHE": str(tmp_path)}
    assert Place.of(None, variables).url == "s3://bucket/runs"
    (tmp_path / "config.yaml").write_text("runs: gs://bucket/mine\n")
    assert Place.of(None, {"HEADWAY_CONFIG": str(tmp_path / "config.yaml")}).url == "gs://bucket/mine"
    assert Place.of("mine", variables).folder == Path("mine")
    assert Place.of(None, {}).folder == Path(DEFAULT)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host/runs", "nothing here speaks http://"),
        ("s4://bucket/runs", "s3://bucket/path"),
        ("s3:///runs", "names no bucket"),
        ("s3:/bucket/runs", "s3://bucket/runs"),
        ("s3://name:secret@bucket/runs", "more than a path"),
        ("s3://bucket/runs?x=1", "more than a path"),
        ("file://elsewhere/runs", "another machine"),
        ("s3://buck et/runs", "no bucket's name"),
        ("s3://bucket:80/runs", "no bucket's name"),
        ("s3://bucket\\runs", "no bucket's name"),
        ("s3://bucket/a/../b", "no object's name"),
        ("s3://bucket/..", "no object's name"),
        ("s3://bucket/./b", "no object's name"),
        ("s3://bucket/a\0b", "no object's name"),
    ],
)
def test_what_is_no_place(url: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        Place.of(url, {})
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_bucket_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it names a bucket only"):
        runs.find(tmp_path, "s3://bucket")


def test_a_path_that_was_made_of_a_url_is_not_taken_for_a_folder() -> None:
    with pytest.raises(BadInput, match="as text"):
        Place.of(Path("s3://bucket/runs"), {})
    assert not is_url("C/x")
    assert not is_url("file:///x")


def test_a_ray_job_keeps_runs_at_a_url(tmp_path: Path) -> None:
    place, told = rayjob.place("s3://bucket/runs", {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"})
    assert (place.url, told) == ("s3://bucket/runs", "")


COMMANDS = [
    ["train", "job.yaml", "--runs", "s3:/bucket"],
    ["train", "job.yaml", "--runs", "ftp://bucket/x"],
    ["resume", "r", "--runs", "s3:/bucket"],
    ["report", "r", "--runs", "s3:/bucket"],
    ["report", "s3:/bucket/r"],
    ["runs", "--runs", "s3:/bucket"],
    ["runs", "prune", "--keep", "1", "--runs", "s3:/bucket"],
    ["runs", "cp", "r", "s3:/bucket"],
    ["sync", "r", "--runs", "s3:/bucket"],
    ["ui", "--runs", "s3:/bucket"],
    ["doctor", "--runs", "s3:/bucket"],
    ["job", "check", "job.yaml", "--runs", "s3:/bucket"],
    ["data", "get", "mnist-5k", "s3://bucket/data"],
    ["data", "prepare", "job.yaml", "s3://bucket/data"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_no_command_makes_a_folder_of_a_url(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text("name: n\ntask: t.py:T\ndata: {train: d}\nsteps: 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["headway", *command])
    with pytest.raises(SystemExit) as ended:
        app.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert "headway: " in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]
