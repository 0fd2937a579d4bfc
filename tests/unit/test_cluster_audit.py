"""What `headway cluster` does is in the audit log of the place where its runs are kept, and nothing waits for that."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headway import certificates
from headway.cluster import file as files
from headway.cluster import known as kept
from headway.cluster import verbs
from headway.cluster.local.owner import Owner
from headway.cluster.shown import Down, Status
from headway.errors import BadInput, RunFailed
from headway.runs import Place, audit
from headway.runs.requests import this_person

TEXT = """cluster_name: two
provider: {{type: this-machine, headway: {{{more}}}}}
head_node_type: head
available_node_types:
  head: {{resources: {{CPU: 0}}}}
  worker: {{min_workers: 1, max_workers: 1, resources: {{CPU: 1}}}}
"""


class Kind(ModuleType):
    """A kind of cluster that is up at once."""

    fails = False

    def up(self, _file: Any, known: kept.Known, _say: Any) -> kept.Known:
        if self.fails:
            raise RunFailed("no machine is to be had", "", "")
        return known.saved(address="h:1", jobs="http://h:2")

    def apply(self, *_: Any) -> list[str]:
        return ["more workers"]

    def status(self, known: kept.Known) -> Status:
        return Status(known.name, known.kind, "up", known.address, known.jobs, known.since)

    def down(self, known: kept.Known, _say: Any) -> Down:
        return Down(known.name, ["head"], [])

    def drain(self, *_: Any) -> str:
        return "it hands over"

    def add(self, *_: Any) -> list[str]:
        return ["node 2 is up"]


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kind:
    module = Kind("kind_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(verbs.KINDS, "this-machine", module.__name__)
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "clusters"))
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    return module


def written(folder: Path, more: str = "") -> Path:
    path = folder / "two.yaml"
    path.write_text(TEXT.format(more=more))
    return path


def acts(place: Path) -> list[tuple[str, str, str, Any]]:
    verdict = audit.verify(Place.of(place))
    assert verdict.faults == ()
    return [(each.act.verb, each.act.on, each.act.by, each.act.details) for each in verdict.entries]


def nothing(_: str) -> None:
    return


def test_all_that_is_done_to_a_cluster_is_noted(kind: Kind, tmp_path: Path) -> None:
    path, me = written(tmp_path, f"runs: {tmp_path / 'runs'}"), this_person()
    verbs.up(path, None, nothing)
    path.write_text(path.read_text() + "# another\n")
    verbs.up(path, None, nothing)
    verbs.drain("two", "1", 30.0, nothing)
    verbs.add("two", 2, "worker", nothing)
    verbs.down("two", nothing)
    assert acts(tmp_path / "runs") == [
        ("up", "two", me, {"file": str(path), "kind": "this-machine"}),
        ("up", "two", me, {"file": str(path), "changed": ["more workers"]}),
        ("drain", "two", me, {"node": "1", "deadline_s": 30.0}),
        ("add", "two", me, {"count": 2, "type": "worker"}),
        ("down", "two", me, {"left": []}),
    ]


def test_a_cluster_without_a_place_for_runs_is_in_the_log_of_this_machines_clusters(kind: Kind, tmp_path: Path) -> None:
    """Where it outlives the cluster's own folder, and is no cluster."""
    verbs.up(written(tmp_path), None, nothing)
    verbs.down("two", nothing)
    assert [verb for verb, *_ in acts(tmp_path / "clusters")] == ["up", "down"]
    assert kept.every() == []


def test_one_that_did_not_come_up_was_asked_for_all_the_same(kind: Kind, tmp_path: Path) -> None:
    kind.fails = True
    with pytest.raises(RunFailed):
        verbs.up(written(tmp_path), None, nothing)
    assert [verb for verb, *_ in acts(tmp_path / "clusters")] == ["up"]
    assert kept.every() == []


def test_a_place_that_takes_nothing_stops_nobody(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no folder")
    said: list[str] = []
    verbs.up(written(tmp_path, f"runs: {tmp_path / 'runs'}"), None, said.append)
    assert verbs.down("two", said.append).leftovers == []
    assert ["does not have this up" in said[0], "does not have this down" in said[1]] == [True, True]


def test_tls_of_a_local_cluster_is_files_of_its_own_folder(tmp_path: Path, kind: Kind) -> None:
    file = files.load(written(tmp_path, "tls: true"), None)
    known = kept.make(file, 5.0, "me", "secret")
    owner = Owner(known, file, lambda: 5.0)
    environment = {name: value for name, value in owner._cluster.environment.items() if "TLS" in name}
    found = certificates.read(Path(environment[certificates.CERTIFICATE]))
    assert {"127.0.0.2", "127.0.0.254"} < set(found.hosts)
    assert certificates.check(found.begins + 7200, environment) == []
    assert all(value == "1" or Path(value).is_relative_to(known.folder / "tls") for value in environment.values())
    script = known.saved(variables=owner._for_shells).keep_environment()
    assert script.stat().st_mode & 0o777 == 0o600
    assert f"export RAY_TLS_SERVER_KEY={environment['RAY_TLS_SERVER_KEY']}\n" in script.read_text()
    assert f". {script}" in verbs._up(known.saved(address="h:1"), None).hints[0]
    plain = Owner(known, files.load(written(tmp_path), None), lambda: 5.0)
    assert "RAY_USE_TLS" not in plain._cluster.environment


def test_tls_that_would_not_be_there_is_refused(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that asks for it, and a cluster without it, would be worse than none."""
    monkeypatch.setattr(verbs, "UNDER_TLS", ())
    with pytest.raises(BadInput, match=r"provider.headway.tls is true: .* are not given certificates"):
        verbs.up(written(tmp_path, "tls: true"), None, nothing)
    assert kept.every() == []
