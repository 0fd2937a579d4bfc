"""What it costs to keep a worker's words, and how soon they can be read.

python benchmarks/logs.py [--seconds 15]

For a run in a folder and in an S3 store (moto in a process of its own), at two rates of lines: CPU and memory of the
process beside the worker, and the age of a line when it can first be read, where it comes after a silence and where
lines come without a pause.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from measure import keep, summary

from headway.logs.reading import Reader
from headway.storage.opener import open_storage
from headway.storage.options import Options

_processes = multiprocessing.get_context("spawn")
TICK_S = 0.1
LOOK_S = 0.05
WORKER = """
import json, os, sys, time
from headway.elastic.worker.output import Output
given = json.loads(sys.argv[1])
kept = Output("worker-w0", given["where"], given["options"])
kept.start()
os.write(kept._before[1], f"{kept._keeper.pid}\\n".encode())
end, number = time.monotonic() + given["seconds"], 0
while time.monotonic() < end:
    for _ in range(given["burst"]):
        print(f"{time.time()} step {number} loss {number / 7:.6f}", flush=True)
        number += 1
    time.sleep(given["pause"])
kept.close()
"""


def serve(pipe: Any) -> None:
    """A fake S3, whose work is not done by the process that measures."""
    from headway.testing.s3 import S3

    with S3() as s3:
        s3.make_bucket("logs")
        pipe.send(s3.endpoint)
        with suppress(EOFError):
            pipe.recv()


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private_mib(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measured(where: str, options: dict[str, Any] | None, burst: int, pause: float, seconds: float) -> dict[str, Any]:
    given = {"where": where, "options": options, "burst": burst, "pause": pause, "seconds": seconds}
    process = subprocess.Popen([sys.executable, "-c", WORKER, json.dumps(given)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    keeper = int(process.stdout.readline())
    reader = Reader(open_storage(where, Options(**(options or {}))))
    ages: list[float] = []
    begun, before, memory = time.monotonic(), 0.0, 0.0
    while (passed := time.monotonic() - begun) < seconds - 1:
        if passed > 3 and not before:
            before, at = cpu_s(keeper), passed
        found = [float(line.text.split()[0]) for line in reader.news()]
        if passed > 3:
            now = time.time()
            ages += [now - told for told in found]
        time.sleep(LOOK_S)
    share, memory = (cpu_s(keeper) - before) / (passed - at), private_mib(keeper)
    process.communicate()
    figures = {"cpu_share": round(share, 5), "start_cpu_s": before, "private_mib": round(memory, 1)}
    return {**figures, "lines_per_s": round(burst / pause, 2), "age_s": {**summary(ages), "all": len(ages)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    seconds = parser.parse_args().seconds
    from headway.testing.s3 import KEYS

    os.environ.update(KEYS)
    here, there = _processes.Pipe()
    service = _processes.Process(target=serve, args=(there,), daemon=True)
    service.start()
    options = Options(endpoint=here.recv()).model_dump()
    figures: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
    rates = {"one in 3 s": (1, 3.0), "10 a second": (1, TICK_S), "1,000 a second": (100, TICK_S)}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (burst, pause)) in enumerate(rates.items()):
            run = Path(folder) / str(number)
            run.mkdir()
            figures[f"folder, {name}"] = measured(str(run), None, burst, pause, seconds)
            figures[f"store, {name}"] = measured(f"s3://logs/{number}", options, burst, pause, seconds)
    here.close()
    keep("logs", {"what": "the process beside a worker that keeps its words", **figures})


if __name__ == "__main__":
    main()
