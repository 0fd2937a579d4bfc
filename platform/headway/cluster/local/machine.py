"""One machine of a local cluster, as its owner sees it: the process that is the node, and what belongs to it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.cluster.local.node import ALONE
from headway.cluster.local.processes import belonging_to, kill_below, numbers, only_child
from headway.errors import RunFailed

PATIENCE_S = 60.0


@dataclass
class Node:
    """One machine. `state` is up, cut, stopped, or down.

    Args:
        number: in the cluster; -1 is the head.
        process: that was started for it.
        pid: of the node's own program, which leads its session, and is the first in its PID namespace if it has one.
        folder: of its own.
        alone: whether it has a PID namespace.
    """

    number: int
    process: subprocess.Popen[str]
    pid: int
    folder: Path
    alone: bool = False
    node_id: str = ""
    ip: str = ""
    state: str = "up"
    asking: threading.Lock = field(default_factory=threading.Lock)

    def processes(self) -> list[int]:
        """All that runs on it, by the numbers that they have here."""
        return [] if self.state == "down" else belonging_to(self.pid)

    def process_of(self, inner: int) -> int | None:
        """The number that a process has here which calls itself `inner` on the node; None when there is none."""
        return next((pid for pid in self.processes() if numbers(pid)[-1:] == (inner,)), None)

    def signal(self, sent: signal.Signals) -> None:
        """Send a signal to everything on it."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, sent)

    def end(self) -> None:
        """End everything on it at once, as a machine that is switched off."""
        if self.state == "down":  # its process id may be another's by now
            return
        if self.alone:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # the kernel ends the whole namespace before its first process
        else:
            kill_below(self.pid)
        self.process.wait()
        self.state = "down"

    def close(self) -> None:
        """End it; nobody asks it any more."""
        self.end()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def said(self) -> list[str]:
        """Lines that the node's program has printed; none before it ran."""
        try:
            return (self.folder / "said").read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return []

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order to the node's program, and wait for the answer.

        Raises:
            RunFailed: it has ended, with the last that it said.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        with self.asking:
            watch = threading.Timer(PATIENCE_S, self.process.kill)
            watch.start()
            try:
                stdin.write(json.dumps(order) + "\n")
                stdin.flush()
                line = stdout.readline()
            except OSError:
                line = ""
            finally:
                watch.cancel()
        answer: dict[str, Any] | None = json.loads(line) if line else None
        if answer is None or "gone" in answer:
            last = self.said()[-1:] if answer is None else [answer["gone"]]
            raise RunFailed(f"node {self.number} of the local cluster is gone", last[0] if last else "it said nothing")
        return answer


def launch(
    number: int,
    folder: Path,
    alone: Sequence[str],
    net: bool,
    hidden: Sequence[Path],
    environment: Mapping[str, str],
) -> Node:
    """Start the process that will be a node once it is told its settings.

    Args:
        number: see `Node`.
        folder: of its own, with a home in it.
        alone: options of `unshare` that give it a PID namespace; none for a session.
        net: whether it has a network of its own.
        hidden: folders of this machine that are empty to it.
        environment: all its variables.
    """
    program = [sys.executable, "-P", str(Path(__file__).with_name("node.py")), *([ALONE] if alone else [])]
    if hidden:
        mounts = " && ".join(f"mount -t tmpfs none {shlex.quote(str(path))}" for path in hidden)
        program = ["sh", "-c", f'{mounts} && exec "$@"', "sh", *program]
    spaces = [*alone, *(["--net"] if net else [])]
    (folder / "home").mkdir()
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            ["unshare", *spaces, "--", *program] if spaces else program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
            env=dict(environment),
        )
    return Node(number, process, only_child(process.pid) if alone else process.pid, folder, bool(alone))
