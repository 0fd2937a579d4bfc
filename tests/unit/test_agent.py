"""The agent of a node, with doubles of the clouds' services and of the cluster's control store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.cluster.agent import asking, keeping, leaving, services, watching
from headway.cluster.agent import nodes as nodes_of
from headway.cluster.agent.__main__ import main
from headway.cluster.agent.asking import Asker, Unheard
from headway.cluster.agent.gcs import Away
from headway.cluster.agent.leaving import Leaving
from headway.cluster.agent.nodes import RayNode
from headway.cluster.agent.watching import Watch
from headway.core.notices import Judge, Nonsense
from headway.testing.metadata import LIES, Cloud, Instance, Metadata

NODE = RayNode("ab" * 28, "127.0.0.1:1")
CLOUDS: list[Cloud] = ["aws", "gcp", "azure"]


class Store:
    """A control store, as the agent sees it.

    Args:
        away: whether it does not answer.
        knows: whether it knows the node; a drain of one that it does not know is taken all the same.
    """

    def __init__(self) -> None:
        self.drains: list[tuple[str, float, str]] = []
        self.kept: dict[str, bytes] = {}
        self.away, self.knows, self.busy = False, True, True
        self.asked = 0

    def __call__(self, address: str, environment: Any, owner: int | None) -> Store:
        return self

    def __enter__(self) -> Store:
        self.asked += 1
        if self.away:
            raise Away("the head does not answer")
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def drain(self, node: str, deadline: float, reason: str) -> None:
        self.drains.append((node, deadline, reason))

    def draining(self) -> dict[str, float]:
        return {node: deadline for node, deadline, _ in self.drains if self.knows}

    def alive(self, node: str) -> bool:
        return True

    def idle(self, node: str) -> bool:
        return not self.busy

    def put(self, key: str, value: bytes) -> None:
        self.kept[key] = value

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store()
    monkeypatch.setattr(leaving, "Gcs", found)
    monkeypatch.setattr(watching, "Gcs", found)
    return found


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long here."""
    for name in ("EVERY_S", "SOON_S", "LONGEST_S", "SIGN_S", "IDLE_S"):
        monkeypatch.setattr(watching, name, 0.01)
    monkeypatch.setattr(leaving, "EVERY_S", 0.01)
    monkeypatch.setattr(leaving, "LATER_S", 0.05)


@pytest.fixture
def service() -> Iterator[Metadata]:
    with Metadata() as found:
        yield found


class Running:
    """A watch in a thread, of its own loop, until the block ends."""

    def __init__(self, machine: Instance, judge: Judge | None = None, instance: str = "") -> None:
        self._machine, self._judge, self._instance = machine, judge or Judge(), instance
        self.nodes = [NODE]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._begun = threading.Event()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with Asker(self._machine.url) as asker:
            cloud = services.CLOUDS[self._machine.cloud](asker)
            self.watch = Watch(self._machine.cloud, cloud, self._judge, lambda: self.nodes, self._instance)
            listening = asyncio.create_task(self.watch.run())
            self._begun.set()
            await asyncio.wait([listening, asyncio.create_task(self._over.wait())], return_when="FIRST_COMPLETED")
            listening.cancel()
            self.watch.leaving.over.set()
            await asyncio.gather(listening, return_exceptions=True)

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._begun.wait(20)
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


def asked(machine: Instance, times: int = 10) -> Callable[[], bool]:
    """Whether it was asked so often since now."""
    machine.asked.clear()
    return lambda: len(machine.asked) >= times


# What is asked, and how


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_notice_becomes_a_drain_with_its_deadline(cloud: Cloud, service: Metadata, store: Store) -> None:
    machine = service.instance("vm-1", cloud)
    with Running(machine, instance="vm-1"):
        until(asked(machine, 4))
        assert store.drains == []
        deadline = machine.reclaim(notice_s=30)
        asked_at = time.time()
        until(lambda: store.drains)
        late_s = time.time() - asked_at  # on a busy machine an answer is heard after it was given
        ((node, told, why),) = store.drains
    assert node == NODE.id
    assert -2.0 < told - deadline < 2.0 + late_s if cloud != "gcp" else told > asked_at, "services tell whole seconds"
    assert "takes this spot machine back" in why
    word = json.loads(store.kept[f"drain/{NODE.id}"])
    assert (word["why"], word["deadline"]) == (why, told)


def test_googles_service_is_waited_for_and_not_asked_again_and_again(service: Metadata, store: Store) -> None:
    machine = service.instance("vm-1", "gcp")
    with Running(machine):
        until(lambda: sum("preempted" in path for _, path in machine.asked) >= 2)
        before = len(machine.asked)
        machine.reclaim()
        until(lambda: store.drains)
        assert before <= 12, "on a busy machine an answer may be waited for too long"


def test_aws_is_asked_with_a_token_that_is_renewed(service: Metadata, store: Store) -> None:
    machine = service.instance("vm-1")
    with Running(machine):
        until(asked(machine))
        machine.forget_tokens()
        machine.reclaim()
        until(lambda: store.drains)
        tokens = [path for verb, path in machine.asked if verb == "PUT"]
    assert 1 <= len(tokens) <= 6, "and not with a new one each time"


def test_azure_hears_that_the_machine_may_go_once_nothing_is_left_on_it(service: Metadata, store: Store) -> None:
    machine = service.instance("vm-1", "azure")
    with Running(machine) as running:
        machine.reclaim(30)
        until(lambda: store.drains)
        until(asked(machine))
        assert machine.may_go == []
        running.nodes = []
        until(lambda: machine.may_go)
    assert machine.may_go == [machine._events[0]["EventId"]]


@pytest.mark.parametrize(
    ("lie", "cloud"),
    [(lie, cloud) for lie in LIES for cloud in CLOUDS if cloud != "gcp" or lie not in ("past", "far")],
)
def test_a_service_that_lies_harms_nothing(
    lie: str, cloud: Cloud, service: Metadata, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lie != "flap":  # an answer that comes too late is none: every other one, and a notice is heard twice in a row
        monkeypatch.setattr(asking, "TOTAL_S", 0.3)
        monkeypatch.setattr(services.Azure, "PATIENCE_S", 0.3)
    machine = service.instance("vm-1", cloud)
    machine.lie(lie)
    with Running(machine, instance="vm-1") as running:
        until(asked(machine, 4))
        assert store.drains == []
        machine.lie(None)
        machine.withdraw()
        until(lambda: not running.watch.state.trouble)
        machine.reclaim(60)
        until(lambda: store.drains, "what is true is believed after it")


@pytest.mark.parametrize("lie", ["flood", "endless", "drip", "hang"])
def test_an_answer_has_a_size_and_a_time(lie: str, service: Metadata) -> None:
    machine = service.instance("vm-1", "gcp")
    machine.lie(lie)

    async def ask() -> None:
        async with Asker(machine.url) as asker:
            await asker.get("/x", total_s=0.5 if lie in ("hang", "drip") else 20.0)

    with pytest.raises(Unheard, match="more than 64 KiB" if lie in ("flood", "endless") else "within 0.5 s"):
        asyncio.run(ask())


def test_no_proxy_is_asked_on_the_way(service: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metadata service knows a machine by where it asks from."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def ask() -> int:
        async with Asker(service.instance("vm-1", "gcp").url) as asker:
            return (await asker.get("/computeMetadata/v1/instance/id", services.Gcp.HEADERS)).status

    assert asyncio.run(ask()) == 200


def test_a_token_that_would_be_a_header_of_its_own_is_none(service: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = service.instance("vm-1")
    monkeypatch.setattr(machine, "answer", lambda *_: (200, {}, b"token\r\nHost: elsewhere"))

    async def ask() -> None:
        async with Asker(machine.url) as asker:
            await services.Aws(asker).whose()

    with pytest.raises(Nonsense):
        asyncio.run(ask())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_another_machines_end_is_none_of_ours(cloud: Cloud, service: Metadata, store: Store) -> None:
    machine = service.instance("vm-1", cloud)
    machine.lie("other")
    with Running(machine, instance="vm-1") as running:
        until(lambda: any("this is vm-1" in each for each in running.watch.state.trouble.values()))
        assert store.drains == []


def test_what_goes_wrong_is_kept_beside_the_node(service: Metadata, store: Store) -> None:
    machine = service.instance("vm-1")
    machine.lie("error")
    with Running(machine):

        def trouble() -> dict[str, str]:
            found: dict[str, str] = json.loads(store.kept.get(f"agent/{NODE.id}", b"{}")).get("trouble", {})
            return found

        until(lambda: "500" in trouble().get("spot notice", ""))
        machine.lie(None)
        until(lambda: not trouble())


def test_a_machine_at_risk_is_said_to_who_leads_the_run(service: Metadata, store: Store) -> None:
    machine = service.instance("vm-1")
    with Running(machine, Judge("replace")):
        machine.rebalance()
        until(lambda: f"risk/{NODE.id}" in store.kept)
        until(asked(machine))
        assert store.drains == []
        store.busy = False
        until(lambda: store.drains, "it is drained when its workers are elsewhere")
    assert store.drains[0][2].endswith("and nothing runs on it")


def test_no_sign_of_life_is_left_of_a_node_that_is_gone(store: Store) -> None:
    async def live() -> None:
        nodes = [NODE]
        watch = Watch("none", None, Judge(), lambda: nodes)
        watching_it = asyncio.create_task(watch.run())
        while not store.kept:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(watch.stop(20.0, "it stops"))
        while not store.drains:
            await asyncio.sleep(0.01)
        nodes.clear()  # Ray ends it once nothing runs there
        await stopping
        watching_it.cancel()
        await asyncio.gather(watching_it, return_exceptions=True)
        await watch.forget()

    asyncio.run(asyncio.wait_for(live(), 60))
    assert [why for _, _, why in store.drains] == ["it stops"]
    assert list(store.kept) == [f"drain/{NODE.id}"]


# What is done with the nodes


def leaver(store: Store, nodes: list[RayNode]) -> Leaving:
    return Leaving(lambda: nodes, lambda _: None)


def test_a_store_that_is_away_is_asked_until_it_is_there(store: Store) -> None:
    store.away = True
    found, done = leaver(store, [NODE]), []
    thread = threading.Thread(target=lambda: done.append(found.drain(time.time() + 60, "w")))
    thread.start()
    until(lambda: store.asked >= 3)
    assert store.drains == []
    store.away = False
    thread.join(20)
    assert done == [True]
    assert len(store.drains) == 1


def test_it_is_given_up_when_the_time_is_over(store: Store) -> None:
    store.away = True
    assert not leaver(store, [NODE]).drain(time.time() + 0.1, "w")
    assert not leaver(store, []).drain(time.time() - 1, "w"), "and where there is no node"


def test_a_drain_that_ray_only_says_it_took_is_tried_again(store: Store) -> None:
    """Ray takes drains of nodes that it does not know yet."""
    store.knows = False
    said: list[str] = []
    assert not Leaving(lambda: [NODE], said.append).drain(time.time() + 0.1, "w")
    assert "does not show it" in said[0]


def test_an_end_is_never_put_off(store: Store) -> None:
    found, now = leaver(store, [NODE]), time.time()
    assert found.drain(now + 10, "first")
    assert found.drain(now + 60, "later")
    assert found.drain(now + 5, "sooner")
    assert [why for _, _, why in store.drains] == ["first", "sooner"]


def test_a_node_that_came_up_again_is_drained_too(store: Store) -> None:
    nodes = [NODE]
    found = leaver(store, nodes)
    found.drain(time.time() + 10, "w")
    nodes[:] = [RayNode("cd" * 28, NODE.gcs)]
    found.drain(time.time() + 10, "w")
    assert [node for node, _, _ in store.drains] == [NODE.id, "cd" * 28]


# Which nodes are there


def process(folder: Path, pid: int, words: list[str], environment: dict[str, str], *users: int) -> None:
    (folder / str(pid)).mkdir()
    uids = "\t".join(map(str, users or 4 * (os.geteuid(),)))
    (folder / str(pid) / "status").write_text(f"Name:\tx\nUid:\t{uids}\nGid:\t0\t0\t0\t0\n")
    (folder / str(pid) / "cmdline").write_bytes("\0".join(words).encode())
    (folder / str(pid) / "environ").write_bytes("\0".join(f"{k}={v}" for k, v in environment.items()).encode())


def test_the_nodes_of_a_machine_are_its_raylets(tmp_path: Path) -> None:
    raylet = "/x/ray/core/src/ray/raylet/raylet"
    token = {"RAY_AUTH_TOKEN": "t0ken", "RAY_USE_TLS": "1", "MY_KEY": "secret"}
    process(tmp_path, 7, [raylet, "--node_id=aa", "--gcs-address=10.0.0.1:6379", "--x"], token)
    process(tmp_path, 8, ["python", "--node_id=bb", "--gcs-address=h:1"], {})
    process(tmp_path, 9, [raylet, "--node_ip_address=1"], {})
    (tmp_path / "10").mkdir()
    (found,) = nodes_of.here(tmp_path)
    assert (found.id, found.gcs) == ("aa", "10.0.0.1:6379")
    assert found.environment == {"RAY_AUTH_TOKEN": "t0ken", "RAY_USE_TLS": "1"}
    assert "t0ken" not in repr(found)
    assert found.owner == os.geteuid()


@pytest.mark.parametrize(("ours", "seen"), [(0, ["aa", "bb", "cc"]), (1000, ["bb"]), (1001, ["cc"])])
def test_another_users_raylet_is_only_roots_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: int, seen: list[str]
) -> None:
    for pid, node, users in ((1, "aa", [0]), (2, "bb", [1000]), (3, "cc", [1001])):
        process(tmp_path, pid, ["/x/raylet", f"--node_id={node}", "--gcs-address=h:1"], {}, *(4 * users))
    process(tmp_path, 4, ["/x/raylet", "--node_id=dd", "--gcs-address=h:1"], {}, 1000, 0, 0, 0)
    monkeypatch.setattr(os, "geteuid", lambda: ours)
    assert [found.id for found in nodes_of.here(tmp_path)] == seen, "and nobody's with the rights of two"


# The command


def test_bad_input_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    for given, told in (
        (["watch"], "--notices"),
        (["watch", "--notices", "ibm"], "ibm"),
        (["watch", "--notices", "aws", "--url", "ftp://x"], "ftp://x"),
        (["watch", "--notices", "aws", "--node-id", "7"], "56 hexadecimal digits"),
        (["drain", "--deadline", "soon"], "soon"),
        (["drain", "--address", "h:1"], "--node-id"),
        ([], "VERB"),
    ):
        assert main(given) == 2
        assert told in capsys.readouterr().err


def test_a_unit_for_systemd_drains_only_when_the_machine_stops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unit", "--notices", "aws", "--stop-s", "30"]) == 0
    unit = capsys.readouterr().out
    assert f"ExecStart={sys.executable} " in unit
    assert "watch --notices aws --rebalance ignore --stop-s 30" in unit
    assert "is-system-running" in unit
    assert "TimeoutStopSec=40" in unit
    assert main(["unit", "--notices", "aws", "--instance", "a b%i"]) == 2


AGENT = [sys.executable, "-P", "-m", "headway.cluster.agent"]


def test_a_signal_ends_both_processes(tmp_path: Path, service: Metadata) -> None:
    """SIGINT: nothing is drained; there is no node here that could be."""
    machine = service.instance("vm-1")
    command = [*AGENT, "watch", "--notices", "aws", "--url", machine.url, "--node-id", NODE.id]
    agent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(asked(machine, 3), within_s=60)
        agent.send_signal(signal.SIGINT)
        assert agent.wait(60) == 0
    finally:
        agent.kill()
        agent.communicate()
    assert machine.asked


# The keeper

CHILD = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
number = len(list(folder.glob("begun-*")))
signal.signal(signal.SIGTERM, lambda *_: (folder.joinpath("told").touch(), sys.exit(0)))
(folder / f"begun-{number}").write_text(str(os.getpid()))
while True:
    time.sleep(0.01)
"""
KEEPER = "import sys; from headway.cluster.agent.keeping import keep; sys.exit(keep(sys.argv[1:], first_s=0.05))"


def kept(tmp_path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-P", "-c", KEEPER, sys.executable, "-c", CHILD, str(tmp_path)])


def begun(folder: Path, number: int) -> int | None:
    """The process id of the child that was begun so many times after the first."""
    text = (folder / f"begun-{number}").read_text() if (folder / f"begun-{number}").exists() else ""
    return int(text) if text else None


def gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_an_agent_that_dies_is_begun_anew_and_hears_the_signal(tmp_path: Path) -> None:
    keeper = kept(tmp_path)
    try:
        for number in range(3):
            until(lambda number=number: begun(tmp_path, number), within_s=60)
            if number < 2:
                pid = begun(tmp_path, number)
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
        keeper.terminate()
        assert keeper.wait(60) == 0
        assert (tmp_path / "told").exists()
    finally:
        keeper.kill()
        keeper.wait()


def test_an_agent_does_not_outlive_its_keeper(tmp_path: Path) -> None:
    keeper = kept(tmp_path)
    until(lambda: begun(tmp_path, 0), within_s=60)
    keeper.kill()
    keeper.wait()
    until(lambda: gone(begun(tmp_path, 0)), within_s=60)
    assert not (tmp_path / "told").exists()


def test_a_signal_that_finds_no_agent_is_heard_by_the_last_command(tmp_path: Path) -> None:
    begin = "import sys; from headway.cluster.agent.keeping import keep; "
    code = f"{begin}sys.exit(keep(['false'], ['touch', {str(tmp_path / 'last')!r}], first_s=600))"
    keeper = subprocess.Popen([sys.executable, "-P", "-c", code], stderr=subprocess.PIPE, text=True)
    assert keeper.stderr is not None
    assert "another begins" in keeper.stderr.readline()
    keeper.terminate()
    assert keeper.wait(60) == 0
    keeper.stderr.close()
    assert (tmp_path / "last").exists()


def test_bad_input_is_not_tried_again() -> None:
    code = "import sys; from headway.cluster.agent.keeping import keep; sys.exit(keep(['sh', '-c', 'exit 2']))"
    assert subprocess.call([sys.executable, "-P", "-c", code]) == keeping.BAD_INPUT
