"""What a million `session.record` calls cost the training thread, and whether the last cost what the first did.

    python benchmarks/records.py [--records 1000000]

The recorder is in the same process, behind the same calls; its thread writes metrics.jsonl on this disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from measure import keep

from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker.journal import Journal
from headway.runs import RunFolder

PARTS = 10


class Here:
    """The recorder as an actor's handle."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder, self.push = recorder, self

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        return self._recorder.push(worker, records)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    options = parser.parse_args()
    ray.get = lambda answer, timeout=None: answer  # the handle above answers at once
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        run = RunFolder(Path(scratch))
        run.write({"run": "records", "created": time.time()})
        recorder = Recorder(scratch, None, {}, 10)
        journal = Journal(Here(recorder), "w0")
        journal.restart(1)
        journal.enter(leads=True)
        journal.began(0, options.records, 1)
        each, part = [], options.records // PARTS
        for number in range(PARTS):
            begun = time.perf_counter()
            for step in range(part * number, part * (number + 1)):
                journal.metrics(step, {"value": 1.0})
            each.append((time.perf_counter() - begun) / part * 1000)
        begun = time.perf_counter()
        while not journal.settle():
            pass
        settled = time.perf_counter() - begun
        journal.close()
        recorder.finish("finished", "", 0.0)
        kept = (run.path / "metrics.jsonl").read_bytes().count(b"\n")
        found = {
            "what": f"{options.records:,} records, one a step",
            "each_ms": [round(value, 5) for value in each],
            "settled_s": round(settled, 3),
            "kept": kept,
            "dropped": run.read().get("records_dropped", 0),
            "run_json_bytes": (run.path / "run.json").stat().st_size,
        }
    keep("records", found)


if __name__ == "__main__":
    main()
