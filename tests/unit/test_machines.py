"""What a run's machines do: true shares and rates, from keepers, few lines however long a run lasts."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.core import nodes
from headway.core.nodes import Nodes
from headway.elastic.lead import machines
from headway.elastic.lead.machines import OWN, Machines
from headway.elastic.lead.recorder import Recorder
from headway.elastic.wire import keepers
from headway.elastic.worker import keeper
from headway.runs import RunFolder
from headway.tracking import system


def reading(at: float, busy: float = 0.5, **more: Any) -> dict[str, Any]:
    """Of two cores that are so busy, and a network on which a megabyte a second comes."""
    found = {"name": "one", "key": "k", "gpus": [], "cpu_busy_s": 2 * busy * at, "cpu_s": 2 * at}
    return {**found, "memory": 3, "memory_all": 4, "received": int(1e6 * at), "sent": 0, **more}


def test_shares_and_rates_are_those_of_the_interval() -> None:
    seen = Nodes(began=0.0)
    for at in range(0, 21, 10):
        seen.take({"k": reading(at, memory=at)}, at)
    assert seen.newest() == {"one": {"cpu": 0.5, "memory": 1.0, "received_bytes": 2e7, "sent_bytes": 0.0}}
    line = seen.line(20.0)
    assert line == {
        "time": 20.0,
        "seconds": 20.0,
        "nodes": {"one": {"cpu": 0.5, "memory": 1.0, "received": 1_000_000, "sent": 0}},
    }
    seen.take({"k": {**reading(30), "cpu_busy_s": 20.0 + 20.0}}, 30.0)  # all of twenty seconds of cores
    assert seen.line(30.0)["nodes"]["one"]["cpu"] == 1.0


def test_a_machine_that_starts_anew_or_goes_makes_no_nonsense() -> None:
    seen = Nodes(began=0.0)
    seen.take({"k": reading(1000), "l": reading(5, name="two", key="l")}, 0.0)
    seen.take({"k": reading(3)}, 10.0)
    assert set(seen.newest()) == {"one"}
    seen.take({"k": reading(13)}, 20.0)
    figures = seen.line(20.0)["nodes"]["one"]
    assert figures["cpu"] == 0.5
    assert figures["received"] == 1_000_000


def test_two_machines_of_one_name_are_two() -> None:
    seen = Nodes(began=0.0)
    seen.take({"k": reading(1), "l": reading(1, key="l")}, 0.0)
    assert set(seen.newest()) == {"one", "one l"}


def test_the_longer_a_run_the_fewer_the_lines() -> None:
    seen, lines = Nodes(began=0.0), 0
    for at in range(0, 7 * 86400, 10):
        seen.take({"k": reading(at)}, at)
        if seen.due(at):
            lines += 1
            seen.line(at)
    assert 1000 < lines < 2500, "a week"


def test_all_machines_together_are_four_numbers_that_mlflow_knows() -> None:
    figures = {"cpu": 0.5, "memory": 0.25, "received": 1e6, "sent": 2e6, "read": 0, "written": 4e6}
    other = {**figures, "cpu": 1.0, "memory": 0.75}
    assert nodes.together({"nodes": {"one": figures, "two": other}}) == {
        "system/cpu_utilization_percentage": 75.0,
        "system/system_memory_usage_percentage": 75.0,
        "system/network_megabytes_per_second": 6.0,
        "system/disk_megabytes_per_second": 8.0,
    }
    found = nodes.together({"nodes": {"one": {**figures, "gpu": 0.9, "gpu_memory": 0.5}, "two": other}})
    assert found["system/gpu_utilization_percentage"] == 90.0
    assert len(found) == 4
    assert nodes.together({"nodes": {}}) == {}


def test_this_machine_tells_what_it_does() -> None:
    before = system.reading()
    until(lambda: system.reading()["cpu_busy_s"] > before["cpu_busy_s"])
    after = system.reading()
    assert after["cpu_s"] >= after["cpu_busy_s"] > 0
    assert 0 < after["memory"] < after["memory_all"]
    assert after["key"] == before["key"]
    assert after["received"] >= 0
    assert json.loads(json.dumps(after)) == after


def test_a_container_with_limits_is_measured_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 7000000\nuser_usec 1\n")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 200\n")
    before = time.monotonic()
    found = system.reading()
    assert (found["memory"], found["memory_all"], found["cpu_busy_s"]) == (500, 1000, 7.0)
    assert before / 2 <= found["cpu_s"] <= time.monotonic() / 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    found = system.reading()
    assert found["memory_all"] > 1000
    assert found["cpu_busy_s"] != 7.0


def test_nvidias_library_is_asked_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802 - theirs
            count._obj.value = 2
            return 0

        def nvmlDeviceGetHandleByIndex_v2(self, number: int, device: Any) -> int:  # noqa: N802
            device._obj.value = number + 1
            return 0

        def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:  # noqa: N802
            memory._obj.used, memory._obj.total = device.value * 100, 1000
            return 0

        def nvmlDeviceGetUtilizationRates(self, device: Any, busy: Any) -> int:  # noqa: N802
            busy._obj.gpu = 40
            return 0 if device.value == 1 else 3  # one that is shared out does not tell

    monkeypatch.setattr(system, "_nvml", Library)
    assert system.gpus() == [(0.4, 100, 1000), (None, 200, 1000)]
    seen = Nodes(0.0)
    for at in (0.0, 10.0):
        seen.take({"k": reading(at, gpus=system.gpus())}, at)
    assert seen.newest()["one"]["gpu"] == 0.4
    assert seen.line(10.0)["nodes"]["one"] == {
        **{"cpu": 0.5, "memory": 0.75, "gpu": 0.4, "gpu_memory": 0.2},
        **{"received": 1_000_000, "sent": 0},
    }


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Callable[[str], tuple[str, int, str]]]:
    """Starts a keeper; gives where it is and its token."""
    place = Path("/tmp") / f"hm-{os.getpid()}-{tmp_path.name[-8:]}"  # a socket's path is short
    place.mkdir(mode=0o700)

    def start(machine: str) -> tuple[str, int, str]:
        config = {"run": "r" * 32, "token": "secret", "machine": machine, "host": "127.0.0.1", "folder": str(place)}
        path = keeper.begin({**config, "linger_s": 60.0})
        with contextlib.closing(keepers.call(path, "secret")) as words:
            keepers.send(words.connection, {"op": "list"})
            return "127.0.0.1", int(words.next()["port"]), "secret"

    yield start
    for path in place.glob("*.sock"):
        keepers.end(str(path), "secret")
    for path in place.iterdir():
        path.unlink(missing_ok=True)
    place.rmdir()


def test_a_keeper_tells_of_its_machine_and_one_that_is_gone_holds_nobody_up(
    kept: Callable[[str], tuple[str, int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "EVERY_S", 0.05)
    monkeypatch.setattr(machines, "FRESH_S", 0.0)
    there = kept("m0")
    gone, stranger = ("127.0.0.1", 1, "secret"), (*there[:2], "another")
    newest: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []

    def tell(now: dict[str, Any], line: dict[str, Any] | None) -> None:
        newest.append(now)
        lines.extend([line] if line is not None else [])

    watch = Machines(time.time(), lambda: [there, gone, stranger], tell)
    watch.start()
    name = system.reading()["name"]
    # The processor does something meanwhile: of a machine that rests there is nothing to be seen in so short a time.
    until(lambda: sum(range(100_000)) and any(each.get(name, {}).get("cpu", 0) > 0 for each in newest))
    watch.close()
    assert not watch._thread.is_alive()
    assert {each for now in newest for each in now} == {name}
    assert max(now[name]["memory"] for now in newest if now) > 0
    assert len(lines) == 1, "what a short run did is told at its end"
    assert lines[0]["nodes"][name]["cpu"] > 0


def test_the_recorder_keeps_it_beside_the_run_and_gives_it_to_the_tracking_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "EVERY_S", 0.05)
    monkeypatch.setattr(nodes, "LEAST_S", 0.1)
    run = RunFolder(tmp_path)
    run.write({"run": "r", "created": time.time()})
    recorder = Recorder(str(tmp_path), None, {}, 10, machines="own")
    drawn: list[dict[str, Any]] = []
    recorder._drawing._track = drawn.append
    path = tmp_path / "nodes.jsonl"
    until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 2)
    recorder._seen["step"] = 7
    count = path.read_bytes().count(b"\n")
    until(lambda: path.read_bytes().count(b"\n") > count + 1)
    recorder.finish("finished", "", 1.0)
    recorder.release()
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert told[-1]["step"] == 7
    assert all(0 <= figures["cpu"] <= 1 for line in told for figures in line["nodes"].values())
    keys = {key for event in drawn for key in event["values"]}
    assert "system/cpu_utilization_percentage" in keys
    assert len(keys) <= 4
    assert OWN not in machines._heard


def test_one_that_answers_after_the_end_is_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The books are closed by then."""
    monkeypatch.setattr(machines, "CLOSE_S", 0.05)
    asked, answers = threading.Event(), threading.Event()

    def slow(_: Any) -> dict[str, Any]:
        asked.set()
        answers.wait(60.0)
        return {**reading(1.0), "key": "k"}

    monkeypatch.setattr(machines, "_answer", slow)
    told: list[Any] = []
    watch = Machines(time.time(), lambda: [OWN], lambda now, line: told.append(now))
    watch.start()
    assert asked.wait(60.0)
    watch.close()
    answers.set()
    watch._thread.join(60.0)
    assert told == []


def test_whatever_goes_wrong_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "EVERY_S", 0.01)
    told: list[Any] = []
    places = iter([OSError("the token cannot be read"), AttributeError("an odd library")])

    def whom() -> list[machines.Asked]:
        for error in places:
            raise error
        return [OWN]

    watch = Machines(time.time(), whom, lambda now, line: told.append(now))
    watch.start()
    until(lambda: told)
    watch.close()
