"""A state handed to three joiners: seconds, memory, and what one copy of the same bytes over the same link takes.

python benchmarks/transfer.py [--gib 2] [--repeats 3] [--gbit 0 0.5 1 2 4]

Each worker is a process. 0 Gbit/s is the loopback of this machine, where all that the workers do shares its cores; at
any other rate each is in a network of its own, plugged into a switch by a link that carries no more each way. The copy
to compare with is by bare sockets from the first worker to the second, and, beside it, one by `transfer` to one joiner.
Runs of another rate or size stay in the results. `load` is that of the machine as a run begins and ends, and `idle` the
share of its cores that nobody used meanwhile: near 0, the cores were the limit and not the links.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measure import keep, kept, summary

from headway.elastic.worker import transfer
from headway.strategies.connect import Limits, connect
from headway.strategies.group import Group
from headway.testing import links
from headway.testing.network.namespace import wait_for_namespace
from headway.testing.network.switch import Switch

MIB = 2**20
TENSOR_MIB = 64
LIMITS = Limits(60.0, 600.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--joiners", type=int, default=3)
    parser.add_argument("--gbit", type=float, nargs="*", default=[0, 0.5, 1, 2, 4])
    parser.add_argument("--worker", nargs=2, metavar=("RANK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(int(options.worker[0]), Path(options.worker[1]), options)
        return
    unable = links.possible("rate")
    figures = {name: value for name, value in kept("transfer").items() if name in ("runs", "not_measured")}
    runs = figures.setdefault("runs", {})
    for gbit in options.gbit:
        if gbit and unable:
            figures["not_measured"] = f"links of a rate: {unable}"
            continue
        name = f"{gbit:g} Gbit/s" if gbit else "loopback"
        done = runs[f"{options.gib:g} GiB, {options.joiners} joiners, {name}"] = run(gbit, options)
        print(
            name,
            *(f"{key} {value['median']:.3f}" for key, value in done.items() if isinstance(value, dict)),
            flush=True,
        )
    keep("transfer", figures)


def run(gbit: float, options: argparse.Namespace) -> dict[str, Any]:
    """All workers at one rate of their links."""
    load, begun = os.getloadavg()[0], time.strftime("%H:%M")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        switch = Switch()
        if gbit:
            stack.callback(switch.close)
            switch.open()
        workers = []
        for rank in range(1 + options.joiners):
            sizes = ["--gib", str(options.gib), "--repeats", str(options.repeats), "--joiners", str(options.joiners)]
            command = [sys.executable, __file__, "--worker", str(rank), folder, *sizes]
            if gbit:
                command = ["unshare", "--net", *command]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            workers.append(process)
            address = "127.0.0.1"
            if gbit:
                wait_for_namespace(process.pid)
                address = switch.plug_in(rank, process.pid)
                switch.slow(rank, gbit * 1e6)
            assert process.stdin is not None
            process.stdin.write(f"{address}\n")
            process.stdin.flush()
        said = [process.communicate()[0] for process in workers]
        if any(process.returncode for process in workers):
            raise SystemExit("a worker failed, see above")
    found = [json.loads(text) for text in said]
    ours = found[0]
    size = int(options.gib * 1024) * MIB
    return {
        "begun": begun,
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "bare_copy_s": summary([each["bare_s"] for each in ours]),
        "one_joiner_s": summary([each["one_s"] for each in ours]),
        "all_joiners_s": summary([each["all_s"] for each in ours]),
        "beyond_bare_copy_s": summary([each["all_s"] - each["bare_s"] for each in ours]),
        "beyond_one_joiner_s": summary([each["all_s"] - each["one_s"] for each in ours]),
        "bare_gbit_s": summary([size * 8 / 1e9 / each["bare_s"] for each in ours]),
        "idle_all_joiners": summary([each["all_idle"] for each in ours]),
        "extra_mib_by_rank": [round(max(max(each["one_mib"], each["all_mib"]) for each in one), 1) for one in found],
    }


def work(rank: int, folder: Path, options: argparse.Namespace) -> None:
    """One worker: gets its address by standard input when its network is there, and prints what it measured."""
    address = sys.stdin.readline().strip()
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "rendezvous"), 1 + options.joiners)  # type: ignore[attr-defined]
    group = connect(store, rank, 1 + options.joiners, address=address, limits=LIMITS)
    group.barrier()
    found = measured(group, int(options.gib * 1024) // TENSOR_MIB, options.repeats, address)
    group.barrier()
    print(json.dumps(found))
    group.close()


def measured(group: Group, tensors: int, repeats: int, address: str) -> list[dict[str, float]]:
    """Rank 0 gives float32 tensors of 64 MiB each: by a bare socket to rank 1, to rank 1 alone, to all; in place."""
    state = [torch.full((TENSOR_MIB * MIB // 4,), float(group.rank)) for _ in range(tensors)]
    everybody = list(range(group.size))
    pair = wire(group, address)
    found = []
    for number in range(repeats):
        one: dict[str, float] = {}
        for turn, (name, chain) in enumerate((("bare", [0, 1]), ("one", [0, 1]), ("all", everybody))):
            value = float(100 + 3 * number + turn)
            if group.rank == 0:
                for tensor in state:
                    tensor.fill_(value)
            group.barrier()
            Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
            before, cores, begun = resident_mib("VmRSS"), core_ticks(), time.perf_counter()
            if name == "bare":
                bare_copy(group, pair, state)
            elif group.rank == 0:
                transfer.send(group, state, chain[1:])
            elif group.rank in chain:
                transfer.receive(group, 0, chain[1:], state)
            group.barrier()
            one[f"{name}_s"] = time.perf_counter() - begun
            one[f"{name}_idle"] = idle(cores)
            one[f"{name}_mib"] = resident_mib("VmHWM") - before
            assert group.rank not in chain or all(bool((tensor == value).all()) for tensor in state)
        found.append(one)
    return found


def wire(group: Group, address: str) -> socket.socket | None:
    """A bare connection of rank 0 to rank 1."""
    listener = socket.create_server((address, 0)) if group.rank == 1 else None
    host, port = group.share(list(listener.getsockname()) if listener else None, 1)
    if listener is not None:
        with listener:
            return listener.accept()[0]
    return socket.create_connection((host, port)) if group.rank == 0 else None


def bare_copy(group: Group, pair: socket.socket | None, state: list[torch.Tensor]) -> None:
    if pair is None:
        return
    for tensor in state:
        rest = memoryview(tensor.numpy()).cast("B")
        if group.rank == 0:
            pair.sendall(rest)
        while group.rank == 1 and rest:
            rest = rest[pair.recv_into(rest) :]


def resident_mib(which: str) -> float:
    """Of this process: VmRSS, or VmHWM for the most since `clear_refs`."""
    return int(Path("/proc/self/status").read_text().split(f"{which}:")[1].split()[0]) / 1024


def core_ticks() -> list[int]:
    """Of all cores since they started: user, nice, system, idle, waiting for disks, interrupts, ..."""
    return [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def idle(since: list[int]) -> float:
    """Share of all cores' time that was left over."""
    spent = [now - then for now, then in zip(core_ticks(), since, strict=True)]
    return (spent[3] + spent[4]) / max(1, sum(spent))


if __name__ == "__main__":
    main()
