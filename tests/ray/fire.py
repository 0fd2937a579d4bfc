"""A run on a cluster whose machines fail: its driver, a brake that gives faults the time they need, and its records."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from tests.ray.conftest import Project, wait_until

from headway.report import Report
from headway.report import load as load_report
from headway.runs import RunFolder
from headway.testing import inside
from headway.testing.cluster import Cluster, Node
from headway.testing.faults import Fault
from headway.testing.injector import Injector

EPOCH_STEPS = 32  # 1003 rows in 4 lanes of 8
EPOCHS = 4
STEPS = EPOCHS * EPOCH_STEPS
PAUSE_S = 0.25
PATIENCE_S = 120.0


class Fire:
    """Use it as a context manager; the driver is started on entering, and nothing of the run outlives the exit.

    Args:
        cluster: where to run.
        project: with the job.
        folder: empty, for the run.
        workers: the job's.
        brake: seconds by which each lane is slowed down until `end`; 0 for none.
        epochs: to train for.
        arguments: of the task.
        changes: keys of the job.
    """

    def __init__(
        self,
        cluster: Cluster,
        project: Project,
        folder: Path,
        workers: dict[str, Any] | None = None,
        brake: float = PAUSE_S,
        epochs: int = EPOCHS,
        arguments: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        self.cluster, self.run = cluster, RunFolder(folder / "run")
        self._brake, self._log = folder / "brake", folder / "driver"
        slowed = {"pause": brake, "brake": str(self._brake)} if brake else {}
        tree = project.tree(
            reproducible="bitwise",
            epochs=epochs,
            workers={"min": 1, "max": 2, "silence_s": 3.0, **(workers or {})},
            arguments={**slowed, **(arguments or {})},
            **changes,
        )
        self._job = folder / "job.yaml"
        self._job.write_text(yaml.safe_dump(tree))
        self._brake.touch()
        self._witness = Injector(self.run.path, (), cluster)
        self._left = ExitStack()

    def __enter__(self) -> Self:
        self._left.enter_context(self._witness)
        self.process = self._start("train", self._job, "--name", self.run.name)
        wait_until(lambda: self.run.path.is_dir() or self.process.poll() is not None, "the run has begun", PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.close()
        self.kill()

    def _start(self, *arguments: object) -> subprocess.Popen[Any]:
        where = ["--runs", self.run.path.parent, "--address", self.cluster.address, "--json"]
        command = [sys.executable, "-m", "headway.cli.app", *map(str, [*arguments, *where])]
        with self._log.open("a") as log:
            return self.cluster.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def resume(self, *settings: str) -> None:
        """`headway resume`, after the driver's end. settings: `key=value`, of the job."""
        self.process.wait()
        changed = [part for setting in settings for part in ("--set", setting)]
        self.process = self._start("resume", self.run.path, *changed)

    def kill(self) -> None:
        """SIGKILL the driver."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    # What is done to it

    def order(self, verb: str, worker: str, point: str = "compute", step: int = 0) -> None:
        """Have a worker do something to itself at a point of a step, or of the first that it comes to."""
        inside.give(self.run.path, inside.Order(verb, worker, step, point))

    def inject(self, faults: Iterable[Fault]) -> list[dict[str, Any]]:
        """Inject faults, and wait until all of them are done; returns the injector's records."""
        faults = list(faults)
        injector = self._left.enter_context(Injector(self.run.path, faults, self.cluster))
        self.wait(lambda: len(injector.done) == len(faults) or injector.refused, "the faults are injected")
        assert not injector.refused
        return injector.done

    # What is known of it

    @property
    def said(self) -> str:
        """What the driver has written."""
        return self._log.read_text(errors="replace")

    @property
    def step(self) -> int:
        """The newest committed step, -1 before the first."""
        return max((step["step"] for step in self.run.steps()), default=-1)

    @property
    def repeated(self) -> dict[int, int]:
        """Steps that were seen to be committed again."""
        return self._witness.repeated

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.run.events() if event["kind"] == kind]

    def recoveries(self, cause: str) -> list[dict[str, Any]]:
        return [event for event in self.events("recovery") if event["cause"] == cause]

    def members(self) -> list[dict[str, Any]]:
        """Those that train, by rank, with their process ids as they are here (None: it is gone)."""
        path = self.run.path / "members.json"
        found = json.loads(path.read_text())["workers"] if path.exists() else []
        here = [{**w, "pid": self.cluster.process_of(w["node_id"], w["pid"])} for w in found if w["rank"] is not None]
        return sorted(here, key=lambda w: w["rank"])

    def node_of(self, member: dict[str, Any]) -> Node:
        node = self.cluster.numbered(member["node_id"])
        assert node is not None
        return node

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait for a condition while the run is under way."""

        def met() -> bool:
            ended = self.process.poll() is not None
            found = bool(condition())
            assert found or not ended, f"{what}: the run has ended before; it said\n{self.said[-4000:]}"
            return found

        wait_until(met, what, timeout_s)

    def follow(self, enough: Callable[[], bool]) -> None:
        """Wait for a condition, or the run's end if that comes first."""
        wait_until(lambda: enough() or self.process.poll() is not None, "the run's end", 2 * PATIENCE_S)

    def wait_for_members(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many train, and have committed a step; returns them by rank."""
        self.wait(lambda: len(self.members()) == number and self.step >= 0, f"{number} workers train")
        return self.members()

    def wait_for_recovery(self, cause: str, number: int = 1) -> dict[str, Any]:
        """Wait until training goes on after an incident; returns its event."""
        self.wait(lambda: len(self.recoveries(cause)) >= number, f"recovery from {cause}")
        return self.recoveries(cause)[number - 1]

    def end(self, timeout_s: float = PATIENCE_S) -> Report:
        """Take the brake off, and let the run come to its end."""
        self._brake.unlink(missing_ok=True)
        self.process.wait(timeout_s)
        return load_report(self.run)


def make_whole(cluster: Cluster, nodes: int) -> None:
    """Have so many nodes up and no others, as Ray sees it too; one that was cut off for long is up, and dead to Ray."""

    def whole() -> bool:
        alive = cluster.alive()
        sound = [node for node in cluster.nodes if node.state == "up" and node.node_id in alive][:nodes]
        for node in cluster.nodes:
            if node not in sound:
                cluster.kill_node(node.number)
        while len(sound) < nodes:
            sound.append(cluster.add_node())
        return cluster.alive() == {node.node_id for node in sound}

    wait_until(whole, "Ray counts the nodes that are up, and no others", PATIENCE_S)
