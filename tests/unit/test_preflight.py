"""What is tried on a cluster before a run begins, and what is told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headway.driver.submission import Submission
from headway.elastic.lead.room import has_kinds
from headway.errors import BadInput
from headway.job import parse
from headway.jobs.there import preflight
from headway.jobs.there.preflight import Found, Node, Preflight, makes_environment
from headway.jobs.there.reach import Tried, reach
from headway.jobs.there.shown import Said, installed, readers
from headway.runs import Place
from headway.storage.opener import open_storage
from headway.storage.options import Options
from headway.testing.s3 import S3

TREE = {"name": "j", "task": "/t.py:T", "data": {"train": "s3://b/train"}, "steps": 3}
SMALL = {"CPU": 1.0, "memory": 1e9}


@dataclass
class Look:
    """A look at a cluster whose nodes answer what a test says."""

    answers: dict[str, Tried]
    folder: Path
    told: list[Found] = field(default_factory=list)
    lacks: list[tuple[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def at(self, nodes: Sequence[Node], autoscaler: bool = False, **workers: Any) -> Preflight:
        job = parse({**TREE, "workers": {"min": 1, "max": 2, **workers}, "lanes": 8})
        return Preflight(
            job,
            Place.of(str(self.folder)),
            {},
            nodes,
            autoscaler,
            lambda _, found: self.told.append(found),
            lambda node, packages: self.lacks.append((node, packages)),
            self.notes.append,
        )


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    found = Look({}, tmp_path / "runs")
    monkeypatch.setattr(Preflight, "_ask", lambda self, packages: {})
    monkeypatch.setattr(Preflight, "_answers", lambda self, given_up: found.answers)
    return found


def nodes(*total: Mapping[str, float], free: Mapping[str, float] | None = None) -> list[Node]:
    return [Node(f"id{i}", f"10.0.0.{i}", each, each if free is None else free) for i, each in enumerate(total)]


def done(at: Preflight) -> None:
    at.done(None, lambda: False)  # type: ignore[arg-type]  # it is only passed on


def test_what_fits_now_and_at_most_is_told(look: Look) -> None:
    look.answers = {"10.0.0.0": Tried("a"), "10.0.0.1": Tried("b")}
    done(look.at(nodes({"CPU": 4.0}, {"CPU": 2.0}, free={"CPU": 1.0}), cpus=2))
    (found,) = look.told
    assert (found.now, found.most) == (0, 3)
    assert found.notes == ["0 workers have room now, and workers.min is 1: it waits until others end"]


def test_a_worker_that_no_node_holds_is_refused_and_the_largest_node_named(look: Look) -> None:
    with pytest.raises(BadInput) as refused:
        look.at(nodes({"CPU": 4.0}, {"CPU": 16.0}), cpus=64)
    assert "CPU 64" in refused.value.fact
    assert "CPU 16" in refused.value.reason
    assert "workers.cpus" in refused.value.remedy


def test_an_autoscaler_may_bring_such_a_node(look: Look) -> None:
    done(look.at(nodes({"CPU": 4.0}), autoscaler=True, cpus=64))
    (found,) = look.told
    assert found.most == 0
    assert "it waits for machines" in found.notes[0]


def test_fewer_than_least_is_waited_for(look: Look) -> None:
    done(look.at(nodes({"CPU": 1.0}), min=2))
    assert look.told[0].notes == ["1 workers have room at most, and workers.min is 2: it waits for machines"]


def test_nodes_that_reach_nothing_are_told_and_not_counted(look: Look) -> None:
    look.answers = {"10.0.0.0": Tried("a"), "10.0.0.1": Tried("b", data={"train": "no such bucket"})}
    done(look.at(nodes(SMALL, SMALL)))
    (found,) = look.told
    assert found.most == 1
    assert "on node 10.0.0.1 data.train cannot be read (no such bucket)" in found.notes[0]


def test_where_too_few_nodes_reach_what_is_needed_it_is_refused(look: Look) -> None:
    look.answers = {f"10.0.0.{i}": Tried("", runs="permission denied") for i in range(5)}
    with pytest.raises(BadInput) as refused:
        done(look.at(nodes(*[SMALL] * 5)))
    assert "runs cannot be kept (permission denied)" in refused.value.fact
    assert "and on 2 more nodes" in refused.value.fact
    assert look.told == []


def test_a_node_that_gives_no_answer_is_told_and_counted(look: Look) -> None:
    found = look.at(nodes(SMALL, SMALL))
    found._late = ["10.0.0.1"]
    done(found)
    assert look.told[0].most == 2
    assert look.told[0].notes == ["not tried, for no answer came in time: 10.0.0.1"]


def test_packages_that_nodes_lack_are_told_and_refused_by_name(look: Look) -> None:
    lacks: dict[str, list[str | None]] = {"torchvision": ["0.28.0", None]}
    look.answers = {"10.0.0.0": Tried("a", lacks=lacks)}
    with pytest.raises(BadInput) as refused:
        done(look.at(nodes(SMALL)))
    assert look.lacks == [("10.0.0.0", lacks)]
    assert refused.value.fact == "node 10.0.0.0 lacks torchvision 0.28.0"


@pytest.mark.parametrize(
    ("status", "there"),
    [
        (None, False),
        (b"", False),
        (b'{"load_metrics_report": {}}', False),
        (b'{"autoscaler_report": {"active_nodes": {"node_12ab": 1}, "pending_nodes": []}}', False),
        (b'{"autoscaler_report": {"active_nodes": {"head": 1}, "pending_nodes": []}}', True),
        (b'{"autoscaler_report": {"active_nodes": {}, "pending_nodes": [["10.0.0.1", "gpu", "x"]]}}', True),
    ],
)
def test_an_autoscaler_is_known_by_its_kinds_of_nodes(status: bytes | None, there: bool) -> None:
    assert has_kinds(status) is there


def tried(runs: Mapping[str, Any], mark: str = "mark", data: str = "/none", **given: str) -> Tried:
    return reach({"train": (data, None)}, None, runs, {"no-such-distribution": "1.0"}, mark, given)


def test_a_node_says_what_it_does_not_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_RUN", "before")
    found = tried({"folder": str(tmp_path / "none")}, OF_THE_RUN="given")
    assert os.environ["OF_THE_RUN"] == "given"
    assert "the folder does not exist" in found.data["train"]
    assert "they share no disk" in found.runs
    assert found.lacks == {"no-such-distribution": ["1.0", None]}
    assert not found.good
    for part in ("data.train", "share no disk", "no-such-distribution 1.0"):
        assert part in found.why


def test_a_folder_that_is_shared_is_written_and_left_as_it_was(tmp_path: Path) -> None:
    preflight._marked(tmp_path / "runs", "mark")
    assert tried({"folder": str(tmp_path / "runs")}).runs == ""
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mark"]


def test_folders_that_were_made_to_be_tried_go(look: Look, tmp_path: Path) -> None:
    tried_in = look.at(nodes(SMALL))
    tried_in._made = preflight._marked(tmp_path / "new" / "runs", tried_in._mark)
    tried_in._place = Place.of(str(tmp_path / "new" / "runs"))
    tried_in.close()
    assert not (tmp_path / "new").exists()
    tried_in._made = preflight._marked(tmp_path / "new" / "runs", tried_in._mark)
    (tmp_path / "new" / "runs" / "r").mkdir()
    tried_in.close()
    assert [path.name for path in (tmp_path / "new" / "runs").iterdir()] == ["r"]


def test_a_folder_of_the_same_name_is_no_shared_one(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert "share no disk" in tried({"folder": str(tmp_path / "runs")}).runs


def test_a_store_is_written_and_left_as_it_was(s3: S3) -> None:
    s3.make_bucket("tried")
    options: dict[str, Any] = {"endpoint": s3.endpoint, "retries": 0}
    assert tried({"url": "s3://tried/runs", "options": options}).runs == ""
    assert open_storage("s3://tried", Options(**options)).list() == []
    assert tried({"url": "s3://no-such-bucket/runs", "options": options}).runs != ""


def test_what_is_said_before_the_first_step_is_kept_for_the_plan() -> None:
    from headway.driver.progress import Progress

    lines: list[str] = []
    said = Said(lines.append, clock=lambda: 0.0)
    said(Progress("r", 0, 3, 0, None, 0.0, 0.0, 0, 0.0, {}, ["note: no checkpoints", "resuming r"]))
    said(Progress("r", 1, 3, 0, 0.5, 8.0, 1.0, 1, 1.0, {}, ["w0 is slow"]))
    said(Progress("r", 2, 3, 0, 0.5, 8.0, 1.0, 1, 1.0, {"accuracy": 0.5}, []))
    said(Progress("r", 3, 3, 0, 0.5, 8.0, 1.0, 2, 1.0, {"accuracy": 0.5}, []))
    assert said.notes == ["no checkpoints", "resuming r"]
    assert lines[:3] == ["note: no checkpoints", "resuming r", "w0 is slow"]
    assert lines[3].startswith("step 1/3  epoch 0  loss 0.5000")
    assert lines[4] == "step 2: validation  accuracy 0.5000"
    assert lines[5].startswith("step 3/3")
    assert lines[5].endswith("2 workers")
    said(Progress("r", 3, 3, 0, 0.5, 8.0, 1.0, 2, 1.0, {"accuracy": 0.6}, [], evaluated=2))
    assert lines[-1] == "step 2: validation  accuracy 0.6000", "the run had gone on when it was told"


def test_a_run_that_is_done_waits_for_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    from headway.cli.live import Live
    from headway.driver.progress import Progress

    with Live(plain=True) as live:
        live.update(Progress("r", 0, 3, 0, None, 0.0, 0.0, 0, 0.0, {}, []))
        live.update(Progress("r", 3, 3, 0, 0.5, 8.0, 1.0, 0, 1.0, {"accuracy": 0.5}, [], evaluated=2))
    first, *then = capsys.readouterr().err.splitlines()
    assert "waiting for workers" in first
    assert not any("waiting" in line for line in then)
    assert "step 2: validation  accuracy 0.5000" in then


def test_who_could_read_it_is_said() -> None:
    said = " ".join(readers(Place("s3://b/runs", Path("/c"), "s3://b/runs"), ["s3://b/data", "/shared/data"]))
    assert "s3://b/runs" in said
    assert "the data: whoever may read s3://b/data" in said
    assert "every user of the nodes who may read /shared/data" in said
    assert "every holder of the cluster's token" in said


def test_the_size_of_what_ray_installed_is_told() -> None:
    found = installed({"uv": {"packages": ["numpy==2.4.6", "no-such-distribution==1.0"]}})
    assert found["bytes"] == found["packages"]["numpy"] > 1_000_000
    assert found["packages"]["no-such-distribution"] == 0
    assert installed({"pip": ["numpy"]})["bytes"] > 0
    assert installed({"working_dir": "gcs://x.zip"}) == {}


def test_an_environment_that_nodes_make_first_is_waited_for(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    assert makes_environment({"uv": {"packages": ["numpy"]}})
    assert not makes_environment({"working_dir": "gcs://x.zip", "env_vars": {}})
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(preflight.time, "monotonic", lambda: float(next(clock)))
    at = look.at(nodes(SMALL, SMALL))
    at._asked = dict.fromkeys("ab")  # type: ignore[assignment]
    turns: list[float] = []

    def wait(asked: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        turns.append(timeout)
        return (asked, []) if len(turns) == 5 else (asked[:1], asked[1:])

    assert at._waited(wait, lambda: False)[1] == ["b"]
    assert look.notes == []
    monkeypatch.setattr(preflight.rayjob, "runtime_env", lambda: {"uv": ["numpy"]})
    assert at._waited(wait, lambda: False)[1] == []
    assert look.notes == ["1 of 2 nodes make the environment of this job's processes"]
    turns.clear()
    assert at._waited(wait, lambda: len(turns) == 2)[1] == ["b"]
    assert max(turns) < 1


def test_what_is_given_up_tells_nothing(look: Look) -> None:
    look.at(nodes(SMALL)).done(None, lambda: True)  # type: ignore[arg-type]
    assert look.told == []


def test_a_folder_of_the_machine_that_submits_is_refused_with_the_way_to_a_bucket() -> None:
    submission = Submission("id", "a", "anna", None, None, None, None)  # type: ignore[arg-type]
    job = parse({**TREE, "data": {"train": "/home/anna/data/flowers/train"}})
    with pytest.raises(BadInput) as refused:
        submission.demand_data(job)
    assert refused.value.fact == "data.train=/home/anna/data/flowers/train is not on the cluster"
    assert "headway data cp /home/anna/data/flowers/train s3://BUCKET/flowers/train" in refused.value.remedy
    assert "--set data.train=s3://BUCKET/flowers/train" in refused.value.remedy
    submission.demand_data(parse(TREE))
