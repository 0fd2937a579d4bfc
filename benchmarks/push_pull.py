"""Push-pull with a parameter server, as a ratio to gloo's send and receive of the same bytes.

python benchmarks/push_pull.py [--mib 64] [--rounds 9] [--processes 2 4] [--copies]

Each process is a server of one range and a client of all. In a round every process pushes a gradient of all parameters,
of so many MiB, and pulls the new values: to and from each of the others goes its range, once each way. Gloo moves the
same bytes between the same processes: to and from each of the others twice, all at a time. Rounds of both alternate,
and each pair gives a ratio. `copies`: every update is also with the next server before it is acknowledged, bytes that
gloo does not move.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from measure import keep, kept, summary
from torch import nn

from headway.core.clocks import Clocks
from headway.strategies.connect import Limits, connect
from headway.strategies.group import Group
from headway.strategies.parameter_server.client import Client, Route
from headway.strategies.parameter_server.cut import Cut
from headway.strategies.parameter_server.server import Server
from headway.strategies.parameter_server.slab import Slab, packed

MIB = 2**20
HOST = "127.0.0.1"
TOKEN = b"benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=float, default=64.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--processes", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--copies", action="store_true")
    parser.add_argument("--worker", nargs=3, metavar=("RANK", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(int(options.worker[0]), int(options.worker[1]), options.worker[2], options)
        return
    runs = kept("push_pull").get("runs", {})
    for size in options.processes:
        name = f"{size} processes, {options.mib:g} MiB" + (", copies" if options.copies else "")
        runs[name] = run(size, options)
    keep("push_pull", {"runs": runs})


def run(size: int, options: argparse.Namespace) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        flags = ["--mib", str(options.mib), "--rounds", str(options.rounds), *(["--copies"] if options.copies else [])]
        workers = []
        for rank in range(size):
            command = [sys.executable, __file__, *flags, "--worker", str(rank), str(size), folder]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            workers.append(process)
        said = [process.communicate()[0] for process in workers]
        if any(process.returncode for process in workers):
            raise SystemExit("a worker failed, see above")
    found = [json.loads(text) for text in said]
    ours, gloo = (
        [max(times) for times in zip(*(each[key] for each in found), strict=True)] for key in ("ours", "gloo")
    )
    moved = 2 * options.mib * MIB * (size - 1) / size
    return {
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "push_pull_s": summary(ours),
        "gloo_s": summary(gloo),
        "push_pull_gb_s_each": summary([moved / 1e9 / each for each in ours]),
        "ratio": summary([theirs / mine for theirs, mine in zip(gloo, ours, strict=True)]),
    }


def work(rank: int, size: int, folder: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    store: Any = dist.FileStore(f"{folder}/store", -1)  # type: ignore[attr-defined]
    group = connect(dist.PrefixStore("group", store), rank, size, limits=Limits(60.0, 600.0))  # type: ignore[attr-defined]
    parameters = [nn.Parameter(torch.zeros(int(options.mib * MIB) // 4))]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    cut = Cut(parameters, size)
    server = Server(TOKEN, patience_s=60.0)
    address = server.start(HOST)
    addresses = [tuple(each) for each in group.gather(list(address))]
    after = addresses[(rank + 1) % size]
    server.carry(rank, Slab(optimizer, parameters, cut.ranges[rank], Clocks(None)), after if options.copies else None)
    if options.copies:
        before = (rank - 1) % size
        server.copy(before, Slab(optimizer, parameters, cut.ranges[before], Clocks(None)))
    group.barrier()
    routes = {number: Route(addresses[number]) for number in range(size)}
    client = Client(TOKEN, routes, 60.0, 600.0, local=(address, server))
    gradient: dict[int, torch.Tensor | None] = {0: torch.ones_like(parameters[0])}
    pushed = [packed(pieces, gradient) for pieces in cut.ranges]
    rooms = [torch.zeros(sum(piece.size for piece in pieces)) for pieces in cut.ranges]
    times: dict[str, list[float]] = {"ours": [], "gloo": []}
    with ThreadPoolExecutor(size) as pool:

        def one(number: int, step: int) -> None:
            client.push(number, pushed[number], replica=rank, step=step, pull=True, out=rooms[number])

        for step in range(options.rounds + 1):
            group.barrier()
            begun = time.perf_counter()
            for asked in [pool.submit(one, (rank + 1 + n) % size, step) for n in range(size)]:
                asked.result()
            ours = time.perf_counter() - begun
            group.barrier()
            begun = time.perf_counter()
            with_gloo(group, [each[-4 * len(room) :] for each, room in zip(pushed, rooms, strict=True)], rooms)
            if step:  # the first connects, and touches memory for the first time
                times["ours"].append(ours)
                times["gloo"].append(time.perf_counter() - begun)
    group.barrier()
    client.close()
    server.close()
    print(json.dumps(times))


def with_gloo(group: Group, sent: list[torch.Tensor], rooms: list[torch.Tensor]) -> None:
    """Ranges to their servers, then as many bytes back."""
    for _ in range(2):
        works = []
        for other in range(group.size):
            if other != group.rank:
                works.append(group.start_receive(rooms[other], other))
                works.append(group.start_send(sent[other], other))
        for each in works:
            each.wait()


if __name__ == "__main__":
    main()
