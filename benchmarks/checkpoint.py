"""How long a checkpoint holds up training, against writing the same state in line.

    python benchmarks/checkpoint.py [--parameters 20000000] [--repeats 7]

In line: the same chunks, digests, syncs and manifest, in the training thread. Both write to the same disk in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from measure import keep, summary
from torch import nn

from headway.checkpoint.copies import Copies
from headway.checkpoint.store import Store
from headway.job import Checkpoint


def trained(parameters: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model of about so many parameters after one step of AdamW."""
    width = int((parameters / 4) ** 0.5)
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(4)])
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, width)).sum().backward()
    optimizer.step()
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Some training between two checkpoints."""
    optimizer.zero_grad()
    model(torch.randn(16, model[0].in_features)).square().mean().backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, optimizer = trained(options.parameters)

    def state() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    blocked, inline, copies = [], [], Copies()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        store = Store(Path(scratch) / "background", "job", Checkpoint(keep_last=1))
        other = Store(Path(scratch) / "inline", "job", Checkpoint(keep_last=1))
        copies.take(state())  # the first one also allocates; a run pays that once
        for i in range(1, options.repeats + 1):
            step(model, optimizer)
            begun = time.monotonic()
            thread = Thread(target=store.write, args=(i, copies.take(state()), {"metrics": {}}))
            thread.start()
            blocked.append(time.monotonic() - begun)
            for _ in range(3):
                step(model, optimizer)
            thread.join()
            begun = time.monotonic()
            other.write(i, state(), {"metrics": {}})
            inline.append(time.monotonic() - begun)
        size = store.committed()[-1].bytes
    ratio = [b / i for b, i in zip(blocked, inline, strict=True)]
    keep(
        "checkpoint",
        {
            "what": f"{options.parameters:,} parameters with AdamW state, {size / 1e6:.0f} MB",
            "blocked_s": summary(blocked),
            "inline_s": summary(inline),
            "ratio": summary(ratio),
        },
    )


if __name__ == "__main__":
    main()
