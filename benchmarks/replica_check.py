"""What the check of replicas takes of training: the part of it that is due in a step, for a state of 1 GB.

    python benchmarks/replica_check.py [--gb 1] [--every 100] [--rounds 5]

Beside it the whole state at once by the same digest, and by SHA-256, as it was before. On a CPU; steps of 1 s are
assumed.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from typing import Any

from measure import keep

STEP_S = 1.0
LAYERS = 32


def replica_of(gigabytes: float) -> Any:
    """Two thirds of it are of the optimiser."""
    import torch
    from torch import nn

    from headway.elastic.worker.replica import Replica

    width = round((gigabytes * 1e9 / 4 / 3 / LAYERS) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return Replica(model, optimizer, None, "fp32")


def seconds(of: Any) -> float:
    begun = time.thread_time()
    of()
    return time.thread_time() - begun


def main() -> None:
    from headway.core import digest

    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--every", type=int, default=100, help="replica_check_every of the job")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    replica = replica_of(options.gb)
    parts = digest.parts(replica.bytes(), options.every)
    due = [digest.due(step, options.every, parts) for step in range(options.every)]

    def check(part: int | None) -> float:
        return 0.0 if part is None else seconds(lambda: replica.words(part, parts))

    found = [check(part) for _ in range(options.rounds) for part in due]
    whole = [seconds(replica.words) for _ in range(options.rounds)]

    def sha() -> None:
        made = hashlib.sha256()
        for tensor in replica.tensors():
            made.update(tensor.detach().contiguous().view(-1).numpy().data)

    slow = seconds(sha)
    mean, most = statistics.mean(found), max(found)
    print(f"{replica.bytes() / 1e9:.2f} GB in {parts} parts within {options.every} steps")
    print(f"a step: {mean * 1e3:.2f} ms on average, {mean / STEP_S:.2%} of {STEP_S:g} s; {most * 1e3:.1f} ms at most")
    print(f"all at once: {statistics.median(whole) * 1e3:.0f} ms; by SHA-256 {slow * 1e3:.0f} ms")
    figures = {"gb": round(replica.bytes() / 1e9, 3), "parts": parts, "every": options.every}
    figures |= {"mean_ms": round(mean * 1e3, 3), "most_ms": round(most * 1e3, 2)}
    figures |= {"whole_ms": round(statistics.median(whole) * 1e3, 1), "sha256_ms": round(slow * 1e3, 1)}
    keep("replica_check", {"what": "thread CPU of the check of replicas", **figures})


if __name__ == "__main__":
    main()
