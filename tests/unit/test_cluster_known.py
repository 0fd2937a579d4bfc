"""What is known of clusters on this machine: private, whole, and forgotten with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.cluster import file, known
from headway.errors import BadInput

TEXT = "cluster_name: two\nprovider: {type: this-machine}\navailable_node_types: {head: {}}\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(known.VARIABLE, str(tmp_path / "clusters"))
    return tmp_path / "clusters"


def made(name: str = "two") -> known.Known:
    return known.make(file.parse(Path("c.yaml"), TEXT, name), 5.0, "ann@laptop", "secret")


def test_it_is_kept_where_only_its_user_may_look(home: Path) -> None:
    one = made()
    assert known.find("two") == one
    assert (one.kind, one.since, one.by, one.token) == ("this-machine", 5.0, "ann@laptop", "secret")
    assert one.file.read_text() == TEXT
    assert one.folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in one.folder.iterdir()} == {
        "cluster.yaml": 0o600,
        "known.json": 0o600,
        "token": 0o600,
    }
    assert "secret" not in repr(one)
    assert "secret" not in (home / "two" / "known.json").read_text()


def test_each_has_an_id_of_its_own_and_changes_are_kept() -> None:
    one, other = made("a"), made("b")
    assert one.id != other.id
    assert known.get("a").saved(address="h:1", place="x") == known.find("a")
    assert [each.name for each in known.every()] == ["a", "b"]
    known.forget("a")
    assert known.find("a") is None
    assert [each.name for each in known.every()] == ["b"]


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(BadInput, match="None is known here"):
        known.get("two")
    made()
    with pytest.raises(BadInput, match="Did you mean 'two'"):
        known.get("tow")
    with pytest.raises(BadInput, match="hyphens"):
        known.get("../two")


def test_what_cannot_be_read_is_told_and_hides_no_other(home: Path) -> None:
    made("a")
    made("b")
    (home / "a" / "known.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        known.find("a")
    assert [each.name for each in known.every()] == ["b"]


def test_one_command_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "BUSY_S", 0.0)
    with known.alone("two"):
        with pytest.raises(BadInput, match="another command is at it"), known.alone("two"):
            pass
        with known.alone("other"):
            pass
    with known.alone("two"):
        pass


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", none)
    with pytest.raises(BadInput, match="no home"):
        known.home({})
