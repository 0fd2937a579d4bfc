"""What people ask of a queue, from the command line to its book; a keeper in this process, and no Ray."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.waiting import until
from typer.testing import CliRunner, Result

from headway import runs
from headway.cli.app import app
from headway.core.enqueued import QUEUE, Entry
from headway.core.queued import Each, Node, Quota, Rules
from headway.driver import equipment, leading, sizes
from headway.driver.submission import Submission
from headway.errors import BadInput
from headway.job import parse
from headway.jobs.api.client import RayJobs
from headway.jobs.spec import Spec, from_json
from headway.jobs.there.driver import Driver
from headway.notation import overrides
from headway.queues import asking, quotas
from headway.queues.keeper import Keeper
from headway.queues.place import NAME, YOUNG_S, QueuePlace, book_of, storage_of
from headway.queues.rays import ORDER_S, US, RayCluster, _Free, plain
from headway.runs import Place, audit
from headway.runs.requests import Box, Ear, Resize, Stop, of_attempt
from headway.testing.memory_storage import Memory
from headway.testing.queueing import Clock, FakeCluster


class Here:
    """A queue in a folder, kept in a thread."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        self.runs.mkdir()
        self.clock = Clock(time.time())
        self.cluster = FakeCluster({"n0": 2}, self.clock, {"one": 1e9})
        self.place = QueuePlace(storage_of(Place.of(self.runs)))
        self.lease = self.place.lead("test")
        self.keeper = Keeper(self.place, self.lease, book_of(self.lease.head), self.cluster, self.clock)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._keep, daemon=True)

    def _keep(self) -> None:
        while not self.over.wait(0.01):
            self.clock.pass_s(0.5)
            self.cluster.live()
            self.keeper.turn()

    def headway(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], env={"HEADWAY_RUNS": str(self.runs)})

    def told(self, *arguments: object) -> Any:
        done = self.headway(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def entries(self) -> dict[str, dict[str, Any]]:
        return {each["run"]: each for each in self.told("queue", "ls", "--all")["entries"]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found = Here(tmp_path)
    found.thread.start()
    yield found
    found.over.set()
    found.thread.join()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text("import headway\n\n\nclass Nothing(headway.Task):\n    pass\n")
    tree = {"name": "nothing", "task": "task.py:Nothing", "data": {"train": str(tmp_path)}, "steps": 4, "lanes": 4}
    tree |= {"workers": {"min": 1, "max": 2}, "tracking": {"enabled": False}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "job.yaml"


def test_a_job_goes_in_is_changed_and_goes_out(here: Here, job: Path) -> None:
    done = here.told("submit", job, "--queue", "--name", "one", "--priority", 2, "--team", "ml")
    assert (done["run"], done["state"], done["position"]) == ("one", "starting", 0)
    done = here.told("submit", job, "--queue", "--name", "two", "--user", "bob", "--set", "workers.spares=1")
    entries = here.entries()
    assert entries["one"]["team"] == "ml"
    two = entries["two"]
    assert (two["user"], two["least"], two["most"], two["warm"]) == ("bob", 1, 2, 1)
    here.headway("submit", job, "--queue", "--name", "three", "--set", "workers.min=2")
    rows = here.told("queue", "ls")["entries"]
    waiting = [(each["run"], each["position"]) for each in rows if each["position"]]
    assert waiting == [("three", 1)]
    assert next(each["why"] for each in rows if each["run"] == "three")
    assert here.told("queue", "set", "three", "--priority", 1)["said"] == "three has priority 1"
    assert here.told("queue", "move", "three", "--last")["said"] == "three is the last of its priority"
    assert "taken off" in here.told("queue", "rm", "three")["said"]
    said = here.headway("queue", "log").stdout
    assert "start one 2" in said
    verbs = [(entry.act.verb, entry.act.on) for entry in audit.entries(Place.of(here.runs))]
    assert verbs == [
        *(("submit", run) for run in ("one", "two", "three")),
        *((f"queue {verb}", "three") for verb in ("set", "move", "rm")),
    ]


def test_what_is_kept_of_a_job_is_what_is_sent_when_its_turn_comes(here: Here, job: Path) -> None:
    here.told("submit", job, "--queue", "--name", "one")
    entry = asking.ls(here.runs).book.entries["one"]
    first, _, module = entry.parcels
    spec = from_json(here.place.parcel(first).decode())
    assert (spec.kind, spec.run, spec.attempt, spec.runs) == ("train", "one", entry.attempt, str(here.runs))
    assert here.place.parcel(module)[:2] == b"PK"
    cluster = RayCluster.__new__(RayCluster)
    cluster._queue, cluster._runs = here.place, Place.of(here.runs)
    sent, packed = cluster._packed(entry)
    assert (sent.kind, sent.attempt, sent.granted, sent.held) == ("train", entry.start, 2, False)
    tree = yaml.safe_load(sent.job or "")
    assert (tree["workers"]["max"], tree["workers"]["spares"]) == (entry.workers, 0)
    assert packed.working_dir.uri != packed.modules[0].uri


def test_a_stop_of_one_that_holds_no_workers_takes_it_off_the_queue(here: Here, job: Path) -> None:
    """Nobody else would end it: the queue begins what waits, and what it has paused."""
    whole = ("--set", "workers.min=2")
    here.told("submit", job, "--queue", "--name", "one", *whole)
    here.told("submit", job, "--queue", "--name", "two", *whole)
    done = here.told("stop", "two")
    assert (done["run"], done["state"], done["asked"]) == ("two", "stopped", True)
    here.told("submit", job, "--queue", "--name", "three", "--priority", 2, *whole)
    until(lambda: here.entries()["one"]["state"] == "paused")
    assert "taken off the queue" in here.told("stop", "one")["message"]
    until(lambda: here.entries()["one"]["state"] in ("removed", "stopped"))
    until(lambda: here.entries()["two"]["state"] in ("removed", "stopped"))
    verbs = [(entry.act.verb, entry.act.on) for entry in audit.entries(Place.of(here.runs))]
    assert [each for each in verbs if each[0] != "submit"] == [("queue rm", "two"), ("queue rm", "one")]
    assert isinstance(here.headway("stop", "nobody").exception, BadInput)
    assert US == QUEUE, "by which a pause is told from somebody's stop"


def test_a_stop_of_one_that_waits_says_so_where_nobody_keeps_the_queue(
    here: Here, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.told("submit", job, "--queue", "--name", "one", "--set", "workers.min=2")
    here.told("submit", job, "--queue", "--name", "two", "--set", "workers.min=2")
    here.over.set()
    here.thread.join()
    here.lease.release()
    monkeypatch.setattr(asking, "HEARD_S", 0.1)
    done = here.headway("stop", "two", "--address", "http://127.0.0.1:9")
    assert isinstance(done.exception, BadInput)
    assert "127.0.0.1:9" in str(done.exception)


@pytest.mark.parametrize("again", [False, True])
def test_what_a_job_computes_and_may_cost_does_not_hang_on_how_many_there_is_room_for_as_it_begins(
    here: Here, job: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    more = ["strategy=diloco", "workers.max=4", "budget.on_demand_min=3"]
    here.told("submit", job, "--queue", "--name", "one", *(part for each in more for part in ("--set", each)))
    entry = asking.ls(here.runs).book.entries["one"]
    assert (entry.workers, entry.most) == (2, 4)
    cluster = RayCluster.__new__(RayCluster)
    cluster._queue, cluster._runs = here.place, Place.of(here.runs)
    kept = parse(yaml.safe_load(cluster._packed(entry)[0].job or ""))
    assert (kept.strategy.replicas, kept.workers.max, kept.units) == (4, 4, 4)
    if again:
        before = SimpleNamespace(submission=f"headway-one-{entry.attempt}-1")
        monkeypatch.setattr("headway.queues.rays.kept.glance", lambda *_: before)
    sent, _ = cluster._packed(entry)
    assert (sent.kind, sent.granted) == ("resume" if again else "train", 2)
    tree = kept.model_dump()
    for setting in sent.settings:
        overrides.apply(tree, setting, lambda _, value: value)
    whole = parse(tree)
    assert (whole.workers.min, whole.workers.max) == (1, 4)
    run = runs.create(Place.of(here.runs), "one", whole)
    started = Submission("s", sent.attempt, "ann", None, lambda *_: None, print, bool, sent.granted)  # type: ignore[arg-type, return-value]
    begun = started.sized(whole)
    assert (equipment.policy(begun).min, equipment.policy(begun).max, equipment.policy(begun).lanes) == (1, 2, 4)
    target = {"min": 1, "max": 2, "request": "", "at_once": 2}
    assert sizes.noted(run, 1, begun.workers.max, sent.granted)["target"] == target
    run.write({**run.read(), "target": target})
    given: dict[str, Any] = {}

    class Trainer:
        def __init__(self, _controller: Any, _main: Any, leads: dict[str, Any], **rest: Any) -> None:
            given.update(leads, **rest)

        def fit(self) -> None:
            pass

    monkeypatch.setattr("headway.elastic.lead.trainer.ElasticTrainer", Trainer)
    checked: Any = SimpleNamespace(total_steps=4, digest="d")
    leading._fit(run, whole, begun, checked, None, None, 1, leading.Names("one"), {}, False, [])  # type: ignore[arg-type]
    assert (given["policy"].max, given["at_once"], given["scaling_config"].num_workers) == (2, 2, 2)
    assert given["wishing"]().policy.most == 2
    assert parse(given["train_loop_config"]["job"]).workers.max == 4, "workers read it as it was checked"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--wait"], "--wait"),
        (["--dry-run"], "--dry-run"),
        (["--set", "workers.min=9"], "workers.min=9"),
        (["--set", "env={TOKEN: ghp_0123456789abcdefghijklmnopqrstuvwxyz}"], "env.TOKEN"),
    ],
)
def test_what_cannot_be_queued_is_refused_before_anything_is_kept(
    here: Here, job: Path, more: list[str], said: str
) -> None:
    done = here.headway("submit", job, "--queue", "--name", "one", *more)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)
    assert here.place.storage.list("parcels/") == []


def test_options_of_the_queue_need_it(here: Here, job: Path) -> None:
    done = here.headway("submit", job, "--priority", 3)
    assert isinstance(done.exception, BadInput)
    assert "--queue" in str(done.exception)


def test_a_job_that_nothing_can_hold_is_not_in_the_queue(here: Here, job: Path) -> None:
    done = here.headway("submit", job, "--queue", "--name", "big", "--set", "workers.min=3", "--set", "workers.max=3")
    assert isinstance(done.exception, BadInput)
    assert "3 workers" in str(done.exception)
    assert "big" not in here.entries()


def test_a_node_is_told_with_all_that_it_has(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside what others leave: who may come at all is asked of the whole of it."""
    import ray
    from ray._private import state

    node = {"NodeID": "n0", "Alive": True, "Resources": {"CPU": 8.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(state, "available_resources_per_node", lambda: {"n0": {"CPU": 2.0}})
    monkeypatch.setattr(state.state, "get_draining_nodes", dict)
    monkeypatch.setattr(import_module("ray.util.placement_group"), "placement_group_table", dict)
    cluster = RayCluster.__new__(RayCluster)
    cluster._others = {}
    (found,) = cluster._looked({"one"})
    assert found.total == Each(8.0)


def test_without_a_keeper_the_queue_says_so_and_nothing_is_left(here: Here, job: Path) -> None:
    here.over.set()
    here.thread.join()
    here.lease.release()
    with pytest.raises(BadInput, match=r"127\.0\.0\.1:9"):
        asking.ask(here.runs, "rm", {"run": "one"}, address="http://127.0.0.1:9")
    assert here.place.wishes() == []
    assert not asking.ls(here.runs).kept


def test_quotas_as_people_write_them(here: Here, tmp_path: Path) -> None:
    file = tmp_path / "quotas.yaml"
    file.write_text(
        "most_running: 3\nprepared: 0\nfair: team\n"
        "teams: {vision: 8, speech: {gpus: 4, share: 2}}\nusers: {ann: {jobs: 2}}\n"
    )
    rules = quotas.read(file)
    assert (rules.most_running, rules.fair, quotas.prepared(file)) == (3, "team", 0)
    vision, speech = Quota(team="vision", workers=8), Quota(team="speech", gpus=4.0, share=2.0)
    assert set(rules.quotas) == {vision, speech, Quota(user="ann", jobs=2)}
    changed = quotas.changed(quotas.changed(rules, "vision="), "user:ann.cpus=4")
    assert set(changed.quotas) == {speech, Quota(user="ann", jobs=2, cpus=4.0)}
    assert quotas.changed(rules, "most_running=").most_running is None
    here.told("queue", "quotas", file)
    here.told("queue", "quotas", "--set", "vision=4")
    shown = here.told("queue", "quotas")
    assert {"team": "vision", "workers": 4} in shown["quotas"]
    assert (shown["most_running"], shown["prepared"]) == (3, 0)
    assert "team vision: workers 4" in here.headway("queue", "quotas").stdout


@pytest.mark.parametrize(
    "setting",
    [
        "vision",
        "=3",
        "vision=-1",
        "vision=many",
        "vision=1.5",
        "vision.shoes=3",
        "group:a=1",
        "fair=dogs",
        "raised_s=0",
    ],
)
def test_a_quota_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(BadInput, match="--set"):
        quotas.changed(Rules(), setting)


def test_quotas_that_contradict_are_refused() -> None:
    rules = quotas.changed(quotas.changed(Rules(), "ml=2"), "user:ann=4")
    quotas.admit(rules, {})
    with pytest.raises(BadInput, match="user ann"):
        quotas.admit(rules, {"ann": "ml"})


def test_a_pause_that_is_asked_for_again_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that hears of two ends before its run began ends at once, and loses what it had to say."""
    cluster = RayCluster.__new__(RayCluster)
    cluster._runs, cluster._controllers = Place.of(tmp_path / "runs"), {}
    monkeypatch.setattr("headway.queues.rays.controllers", lambda run: [])
    entry = Entry("one", "a", state="pausing", starts=1, workers=2, orders=1, since=70.0, resized_at=60.0)
    box, start = Box.of(cluster._runs, "one"), of_attempt(entry.start)
    heard: list[Stop | Resize] = []
    ear = Ear(box, [start], heard.append, heard.append)
    for now in (71.0, 72.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        cluster._pause(entry)
        cluster._pool = SimpleNamespace(submit=lambda act, *given: act(*given))  # type: ignore[assignment]
        cluster.resize(entry)
        ear.look()
    assert [(type(each), each.at) for each in heard] == [(Stop, 70.0), (Resize, 60.0)]

    signals: list[int] = []
    monkeypatch.setattr("os.kill", lambda _, number: signals.append(number))
    spec = from_json(plain(Spec("train", "one", "a", "ann", "1", (3, 12))).decode())
    driver = Driver(spec, tmp_path / "code", lambda *_, **__: None)
    for stop in (Stop("the queue", 70.0), Stop("ann", 75.0), Stop("ann", 76.0, True), Stop("bob", 77.0, True)):
        driver._asked(stop)
    assert len(signals) == 2, "and once more where no checkpoint is to be waited for"


def test_a_start_whose_code_is_gone_or_damaged_has_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was kept of it will not be there later: it must not hold its workers until then."""
    store = Memory()
    cluster = RayCluster(RayJobs("http://nowhere"), Place.of(tmp_path), QueuePlace(store.client()))
    spec, zipped = plain(Spec("train", "one", "a", "ann", "1", (3, 12), job="workers: {max: 2}")), io.BytesIO()
    zipfile.ZipFile(zipped, "w").close()
    good = {"spec": spec, "code": zipped.getvalue(), "module": b"PK"}
    for broken in ({"code": None}, {"code": b"no archive"}, {"spec": b"{}"}, {"module": None}):
        store.objects.clear()
        for name, content in {**good, **broken}.items():
            if content is not None:
                store.client().put(f"{NAME}/parcels/{name}", content)
        entry = Entry("one", f"a{next(iter(broken))}{next(iter(broken.values()))!r}", workers=1, state="starting")
        entry = replace(entry, parcels=tuple(good), starts=1)
        cluster._start(entry)
        seen = cluster.seen(entry)
        assert (seen.phase, seen.end, seen.cause) == ("over", "failed", "task"), broken
        assert "Submit it again" in seen.message
    assert not caplog.records, "nor is it tried again"


def test_a_parcel_that_might_be_cleared_away_is_written_anew() -> None:
    clock = Clock()
    store = Memory(clock)
    place = QueuePlace(store.client())
    place.keep("code", b"x")
    clock.pass_s(YOUNG_S / 2 - 1)
    place.keep("code", b"x")
    age = [each.age_s for each in place.storage.list("parcels/")]
    assert age == [YOUNG_S / 2 - 1], "it is young: nothing was written"
    clock.pass_s(YOUNG_S / 2 + 2)
    place.keep("code", b"x")
    place.clear(set(), YOUNG_S)
    assert place.parcel("code") == b"x"


def test_what_a_run_is_fitted_by_before_it_asks_for_places_is_not_taken_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have no room for its own workers, and be paused, and fitted again."""
    cluster = RayCluster(RayJobs("http://nowhere"), Place.of(tmp_path), QueuePlace(Memory().client()))
    clock, groups = Clock(100.0), dict[str, dict[str, str]]()
    held = Each(1.0, 0.0, 0.0)
    monkeypatch.setattr("headway.queues.rays.time", SimpleNamespace(monotonic=clock, time=clock))
    monkeypatch.setattr(cluster, "_listed", dict)
    table = SimpleNamespace(placement_group_table=lambda: groups)
    monkeypatch.setitem(sys.modules, "ray.util.placement_group", table)
    free = cluster._others.setdefault("n0", _Free([]))
    monkeypatch.setattr(cluster, "_looked", lambda runs: [Node("n0", free.others(clock(), held))])

    def others(seconds: float, *entries: Entry) -> float:
        found = None
        for _ in range(int(seconds)):
            clock.pass_s(1.0)
            for entry in entries:
                cluster.seen(entry)
            found = cluster.nodes(["one"])
        assert found is not None
        return found[0].has.cpus

    one = Entry("one", "a", state="starting", starts=2, workers=1)
    assert others(10) == 1.0
    groups["old"] = {"name": "headway:one:w0", "state": "REMOVED"}
    held = Each(4.0, 0.0, 0.0)
    assert others(20, one) == 1.0, "it is fitted by three CPUs"
    assert others(10) == 4.0, "nobody begins: these are somebody's"
    held = Each(1.0, 0.0, 0.0)
    assert others(10, one) == 1.0, "who goes is seen to go"
    held = Each(4.0, 0.0, 0.0)
    groups["new"] = {"name": "headway:one:w0", "state": "PENDING"}
    assert others(10, one) == 4.0, "it asks for its places, and has been fitted"


def test_a_run_that_is_held_is_fitted_once_it_is_told_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then all CPUs are others'."""
    fitted = threading.Event()
    monkeypatch.setattr(leading, "on_cluster", lambda *_: fitted.set() or b"values")
    monkeypatch.setattr(leading.code, "carried", lambda *_: None)
    monkeypatch.setattr(leading.now, "say", lambda *_: None)
    checked: Any = SimpleNamespace(datasets={}, source=None)
    whole = parse(
        {"name": "one", "task": "a.py:A", "data": {"train": "/d"}, "steps": 1, "lanes": 4, "workers": {"max": 4}}
    )

    def leader(held: bool) -> Any:
        given = Submission("s", "a", "ann", None, lambda *_: None, print, bool, held=held)  # type: ignore[arg-type, return-value]
        run: Any = SimpleNamespace(path=tmp_path, name="one")
        stop, names = threading.Event(), leading.Names("one")
        return leading._Leader(run, whole, checked, 1, None, given, stop, names, leading.Sizes(whole, names))

    monkeypatch.setattr(leading, "tell_before", lambda *_: None)
    assert leader(held=False).fit(tmp_path) == b"values"
    fitted.clear()
    waits = leader(held=True)
    thread = threading.Thread(target=waits.fit, args=(tmp_path,))
    thread.start()
    assert not fitted.wait(0.3)
    waits.resize(Resize("the queue", 0.0, 1, 2, "a-1-1", 2), {})
    assert fitted.wait(5.0)
    thread.join()
    fitted.clear()
    ended = leader(held=True)
    ended.stop.set()
    with pytest.raises(KeyboardInterrupt):
        ended.fit(tmp_path)
    assert not fitted.is_set()


def test_what_is_lacking_is_ordered_by_a_group_that_waits_and_goes_once_it_found_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = RayCluster(RayJobs("http://nowhere"), Place.of(tmp_path), QueuePlace(Memory().client()))
    clock, there, made = Clock(100.0), dict[int, str](), list[Any]()

    def make(bundles: list[dict[str, float]], name: str) -> int:
        made.append((name, bundles))
        there[len(made)] = "PENDING"
        return len(made)

    table = SimpleNamespace(
        placement_group=make,
        placement_group_table=lambda group: {"state": there[group]},
        remove_placement_group=there.pop,
    )
    monkeypatch.setattr("headway.queues.rays.time", SimpleNamespace(monotonic=clock, time=clock))
    monkeypatch.setitem(sys.modules, "ray.util.placement_group", table)
    one = Entry("one", "a", each={"CPU": 2.0})
    for _ in range(3):
        cluster.order(one, 2)
    assert made == [("headway-queue:one", [{"CPU": 2.0}] * 2)]
    cluster.order(one, 1)
    assert there == {2: "PENDING"}, "it lacks less"
    there[2] = "CREATED"
    cluster.order(one, 1)
    cluster.order(one, 1)
    assert there == {}, "what was found is for the entry"
    clock.pass_s(ORDER_S)
    cluster.order(one, 1)
    assert there == {3: "PENDING"}, "it did not do"
    cluster.order(None, 0)
    cluster.order(None, 0)
    assert there == {}
    cluster.order(one, 1)
    assert there == {4: "PENDING"}
