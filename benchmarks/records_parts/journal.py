"""What a million `session.record` calls cost the training thread, and whether the last cost what the first did.

The recorder is in the same process, behind the same calls; its thread writes metrics.jsonl on this disk. A minute.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker.journal import Journal
from headway.runs import RunFolder
from records_parts.here import Here, answered_at_once, scratch

PARTS = 10
RECORDS = 1_000_000


def measure(options: argparse.Namespace) -> dict[str, Any]:
    records = RECORDS // 10 if options.quick else RECORDS
    with scratch() as folder, answered_at_once():
        run = RunFolder(folder)
        run.write({"run": "records", "created": time.time()})
        recorder = Recorder(str(folder), None, {}, 10)
        journal = Journal(Here(recorder), "w0")
        journal.restart(1)
        journal.enter(leads=True)
        journal.began(0, records, 1)
        each, part = [], records // PARTS
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
        return {
            "what": f"{records:,} records, one a step",
            "each_ms": [round(value, 5) for value in each],
            "settled_s": round(settled, 3),
            "kept": kept,
            "dropped": run.read().get("records_dropped", 0),
            "run_json_bytes": (run.path / "run.json").stat().st_size,
        }
