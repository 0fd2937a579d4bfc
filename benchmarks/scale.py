"""What thousands of workers cost the coordinator: the real one, and real sockets on loopback.

    python benchmarks/scale.py [--workers 250,1000,4000,10000] [--seconds 20] [--lost 100] [--joined 1000] [--profile]

The workers speak the wire, thousands to a process (scale_parts/clients.py), and share the machine's cores with the
coordinator; so what is told of it is the CPU time of its thread (`time.thread_time`) and bytes, and of the clock only
how long it took until the last worker was told. Phases:

    hello    all connect, are welcomed and are ready
    begin    from the decision until the last is told of the first generation, and until the last is told to go
    beats    all train; nothing happens
    lost     many connections end at once, until the last survivor is told to go
    joined   many come at once, until all of them are members and the last is told to go
    met      with --meet: hundreds leave each other what gloo's members do, until the last has the values of all
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import pstats
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import keep

from headway.core.events import Launch
from headway.core.membership import READY, Policy
from headway.core.watch import Patience
from headway.elastic.lead import server
from headway.elastic.lead.coordinator import Coordinator

HOST = "127.0.0.1"
EACH = 2500
"""Workers of one process."""
DEADLINE_S = 600.0
PER_NODE = 8


class Effects:
    """Names that are asked for; all else is dropped."""

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.failure: Any = None
        self.recorded = 0

    def launch(self, wanted: Launch) -> None:
        self.launched.append(wanted.worker)

    def record(self, event: dict[str, Any]) -> None:
        self.recorded += 1

    def ended(self, failure: Any) -> None:
        self.failure = failure

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None


class Traffic:
    """Bytes and messages that the coordinator's lines carry."""

    def __init__(self) -> None:
        self.out = self.came = self.words = self.reads = 0
        write, read = server.Line.write, server.Line.data_received

        def counted(self_: server.Line, line: bytes) -> None:
            self.out, self.words = self.out + len(line), self.words + 1
            write(self_, line)

        def counted_in(self_: server.Line, data: bytes) -> None:
            self.came, self.reads = self.came + len(data), self.reads + 1
            read(self_, data)

        server.Line.write = counted  # type: ignore[assignment, method-assign]
        server.Line.data_received = counted_in  # type: ignore[assignment, method-assign]


class Company:
    """The processes of workers."""

    def __init__(self, lead: Coordinator, port: int, processes: int) -> None:
        program = str(Path(__file__).parent / "scale_parts" / "clients.py")
        command = [sys.executable, program, HOST, str(port), str(lead.pulse_port)]
        self.of: dict[str, int] = {}
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        for number in range(processes):
            self._order(number, lead.token)

    def open(self, names: list[str]) -> None:
        share = math.ceil(len(names) / len(self.processes))
        for number in range(len(self.processes)):
            mine = names[number * share : (number + 1) * share]
            self.of.update(dict.fromkeys(mine, number))
            self._order(number, " ".join(["open", *mine]))

    def meet(self) -> None:
        """All of a group ask for what the others left."""
        counts = [sum(number == each for each in self.of.values()) for number in range(len(self.processes))]
        for number in range(len(self.processes)):
            self._order(number, f"meet {sum(counts)} {sum(counts[:number])}")

    def kill(self, names: list[str]) -> None:
        for number in range(len(self.processes)):
            self._order(number, " ".join(["kill", *(n for n in names if self.of[n] == number)]))

    def told(self) -> dict[str, dict[int, tuple[int, float]]]:
        """How many were told of a generation, and when the last was, by kind and number."""
        found: dict[str, dict[int, tuple[int, float]]] = {"publish": {}, "go": {}, "met": {}}
        for number, process in enumerate(self.processes):
            self._order(number, "told")
            assert process.stdout is not None
            for kind, by_number in json.loads(process.stdout.readline()).items():
                for generation, (count, last) in by_number.items():
                    before = found[kind].get(int(generation), (0, 0.0))
                    found[kind][int(generation)] = before[0] + count, max(before[1], last)
        return found

    def close(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)

    def _order(self, number: int, line: str) -> None:
        stdin = self.processes[number].stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()


class Run:
    """One number of workers."""

    def __init__(self, workers: int, joined: int, traffic: Traffic, profiled: bool) -> None:
        self.workers, self.traffic = workers, traffic
        self.effects = Effects()
        policy = Policy(workers + joined, 1, workers, gather_s=DEADLINE_S, patience=Patience.of())
        self.lead = Coordinator(policy, self.effects, "head")
        self.port = self.lead.start(HOST)
        self.profile = cProfile.Profile() if profiled else None
        self.begun = (0.0, 0.0, 0, 0, 0, 0)
        self.phases: dict[str, dict[str, float]] = {}
        self.commits = 0
        self.lead.begin()

    def within(self, call: Callable[[], Any]) -> Any:
        """What it gives in the coordinator's thread."""
        there, found = threading.Event(), []

        def run() -> None:
            found.append(call())
            there.set()

        self.lead._loop.call_soon_threadsafe(run)
        assert there.wait(DEADLINE_S)
        return found[0]

    def begin(self) -> None:
        """A phase begins."""

        def now() -> tuple[float, float, int, int, int, int]:
            if self.profile is not None:
                self.profile.enable()
            t = self.traffic
            return time.thread_time(), time.monotonic(), t.out, t.came, t.words, t.reads

        self.begun = self.within(now)

    def end(self, phase: str, **more: float) -> None:
        def now() -> tuple[float, float]:
            if self.profile is not None:
                self.profile.disable()
            return time.thread_time(), time.monotonic()

        cpu_s, at = self.within(now)
        cpu_before, before, out, came, words, reads = self.begun
        found = {
            "cpu_s": cpu_s - cpu_before,
            "seconds": at - before,
            "core_share": (cpu_s - cpu_before) / (at - before),
            "mb_out": (self.traffic.out - out) / 1e6,
            "mb_in": (self.traffic.came - came) / 1e6,
            "words_out": self.traffic.words - words,
            "reads": self.traffic.reads - reads,
            **more,
        }
        self.phases[phase] = {name: round(value, 6) for name, value in found.items()}
        print(f"{self.workers:>6} {phase:<7} {json.dumps(self.phases[phase])}", flush=True)
        if self.profile is not None:
            pstats.Stats(self.profile).sort_stats("tottime").print_stats(14)
            self.profile.clear()

    def place(self, names: list[str]) -> None:
        for number, name in enumerate(names):
            self.lead.placed(name, f"node{number // PER_NODE:055x}", None)
            self.lead.spawned(name)

    def wait(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self.within(holds):
            if self.effects.failure is not None or time.monotonic() > deadline:
                raise SystemExit(f"not in time: {self.effects.failure or self.lead.refused}")
            time.sleep(0.05)

    def trains(self, members: int) -> Callable[[], bool]:
        """Whether so many were told to go, and one of them has committed a step since."""

        def found() -> bool:
            machine = self.lead.membership
            active, published = machine.active, machine.published
            return active is not None and active is published and len(active.members) == members

        return found


def measure(workers: int, lost: int, joined: int, seconds: float, traffic: Traffic, profiled: bool) -> dict[str, Any]:
    run = Run(workers, joined, traffic, profiled)
    run.wait(lambda: len(run.effects.launched) >= workers)
    names = run.effects.launched[:workers]
    company = Company(run.lead, run.port, math.ceil(workers / EACH))
    try:
        run.place(names)
        run.begin()
        company.open(names)
        machine = run.lead.membership
        ready = {"at": 0.0}

        def all_ready() -> bool:
            there = sum(w.phase == READY for w in machine.workers.values())
            ready["at"] = time.monotonic() if there < workers and machine.published is None else ready["at"]
            return machine.published is not None

        run.wait(all_ready)
        run.end("hello")
        run.begin()
        run.wait(run.trains(workers))
        time.sleep(0.5)
        told = company.told()
        number = machine.active.number if machine.active is not None else 0
        assert told["go"][number][0] == workers
        run.end(
            "begin",
            last_told_s=told["publish"][number][1] - ready["at"],
            last_goes_s=told["go"][number][1] - ready["at"],
        )
        time.sleep(2.0)
        run.begin()
        time.sleep(seconds)
        run.end("beats", heard_of=float(sum(p.line is not None for p in list(run.lead._peers.values()))))
        run.begin()
        at = time.monotonic()
        company.kill(names[workers // 3 : workers // 3 + lost])
        run.wait(run.trains(workers - lost))
        time.sleep(0.5)
        told = company.told()
        last = max(told["go"])
        generations = last - number
        first = min(k for k in told["publish"] if k > number)
        run.end(
            "lost",
            last_told_s=told["publish"][first][1] - at,
            last_goes_s=told["go"][last][1] - at,
            generations=generations,
        )
        run.lead.resize(1, workers - lost + joined, "benchmark")
        run.wait(lambda: len(run.effects.launched) >= workers + joined)
        come = run.effects.launched[workers : workers + joined]
        run.place(come)
        run.begin()
        at = time.monotonic()
        company.open(come)
        run.wait(run.trains(workers - lost + joined))
        time.sleep(0.5)
        told = company.told()
        run.end("joined", last_goes_s=told["go"][max(told["go"])][1] - at, generations=max(told["go"]) - last)
        if run.effects.failure is not None:
            raise SystemExit(str(run.effects.failure))
    finally:
        company.close()
        run.lead.close()
    return {"workers": workers, "refused": dict(run.lead.refused), "phases": run.phases}


def measure_meeting(workers: int, traffic: Traffic, profiled: bool) -> dict[str, Any]:
    """What it costs that the members of a gloo group find one another; gloo's own connections are not made."""
    run = Run(workers, 0, traffic, profiled)
    run.wait(lambda: len(run.effects.launched) >= workers)
    names = run.effects.launched[:workers]
    company = Company(run.lead, run.port, 1)
    try:
        run.place(names)
        company.open(names)
        run.wait(run.trains(workers))
        run.begin()
        at = time.monotonic()
        company.meet()
        met = (0, 0.0)
        while met[0] < workers and time.monotonic() - at < DEADLINE_S:
            time.sleep(0.2)
            met = max(company.told()["met"].values(), default=met)
        run.end("met", members=met[0], last_has_all_s=met[1] - at)
    finally:
        company.close()
        run.lead.close()
    return {"workers": workers, "refused": dict(run.lead.refused), "phases": run.phases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="250,1000,4000,10000", help="numbers of workers, with commas")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the beats")
    parser.add_argument("--lost", type=int, default=100)
    parser.add_argument("--joined", type=int, default=1000)
    parser.add_argument("--meet", default="", help="only this: sizes of groups, with commas")
    parser.add_argument("--profile", action="store_true", help="print what the coordinator's thread does; keep nothing")
    told = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    traffic, found = Traffic(), []
    if told.meet:
        met = [measure_meeting(int(size), traffic, told.profile) for size in told.meet.split(",")]
        if not told.profile:
            keep("scale_meeting", {"what": "members of a gloo group find one another over their lines", "runs": met})
        return
    for workers in map(int, told.workers.split(",")):
        if workers + told.joined + 100 > hard:
            print(f"{workers} workers need more than the {hard} files that this process may have open: left out")
            continue
        lost = min(told.lost, workers // 2)
        found.append(measure(workers, lost, told.joined, told.seconds, traffic, told.profile))
    if not told.profile:
        keep(
            "scale", {"what": "the coordinator's thread by number of workers; real sockets on loopback", "runs": found}
        )


if __name__ == "__main__":
    main()
