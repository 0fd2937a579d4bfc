"""One measurement of one peer, in a process of its own.

python -m data_peers.worker make PEER KIND FOLDER
python -m data_peers.worker check PEER KIND FOLDER VARIANT
python -m data_peers.worker rate PEER KIND FOLDER VARIANT SECONDS
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import torch

from data_peers.rows import KINDS, Batch, check

LONGEST = 5  # times the seconds asked for, after which a slow peer's epoch is left unfinished


def rate(epochs: Callable[[int], Iterator[Batch]], seconds: float) -> dict[str, float]:
    """Walk whole epochs for at least so long, after one epoch that is not counted; slow peers are cut off.

    `rows_per_s` counts all the time, the starts of epochs too. `rows_per_s_within_epochs` counts from the first batch
    of each epoch, without that batch's rows. `rows_per_cpu_s` is by the CPU time of this process and is less
    disturbed by others on the machine; it leaves out what a peer's other processes take.
    """
    for _ in epochs(0):
        pass
    rows = late_rows = 0
    late_s, epoch, cpu = 0.0, 1, _cpu_s()
    begun = now = time.perf_counter()
    while now - begun < seconds:
        first = None
        for batch in epochs(epoch):
            now = time.perf_counter()
            first = first or now
            rows += len(batch["label"])
            late_rows += len(batch["label"]) if first != now else 0
            if now - first > LONGEST * seconds:
                break
        late_s += now - (first or now)
        epoch += 1
    return {
        "rows_per_s": rows / (now - begun),
        "rows_per_s_within_epochs": late_rows / late_s,
        "rows_per_cpu_s": rows / (_cpu_s() - cpu),
        "epochs": epoch - 1,
        "load": os.getloadavg()[0],
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(action: str, peer: str, kind_name: str, folder: str, *rest: str) -> None:
    torch.set_num_threads(1)
    module, kind = import_module(f"data_peers.{peer}"), KINDS[kind_name]
    if action == "make":
        module.make(kind, Path(folder))
        return
    epochs = module.epochs(kind, Path(folder), rest[0])
    if action == "check":
        check(kind, Path(folder), epochs(0))
    else:
        print(json.dumps(rate(epochs, float(rest[1]))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
