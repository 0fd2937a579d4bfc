"""Processes of tests, forked from a server that has imported what they need: a fork takes milliseconds, torch seconds.

A process has one such server, and the list of whoever is first counts. So there is one list, for all tests.
"""

from __future__ import annotations

import multiprocessing
from typing import TypeVar

Thing = TypeVar("Thing")

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(
    [
        "headway.testing.elastic",
        "headway.testing.workers",
        "headway.testing.nccl_like",
        "headway.elastic.worker.session",
        "headway.data.read.streams",
        "headway.strategies.all_reduce",
        "headway.strategies.tree",
        "torch._dynamo",  # seconds
        "pytest",  # with hypothesis, of the module that has the function to be called; passed over where it is missing
        "hypothesis.strategies",
    ]
)

_kept: list[object] = []


def for_good(thing: Thing) -> Thing:
    """Keep something until its process is gone: what is let go of earlier may never come to its end.

    PyTorch's DistributedDataParallel ends its process group while it holds the interpreter's lock, and waits for a
    thread of gloo, which waits for that lock if it has a tensor to give back just then (seen once, with torch 2.13).
    """
    _kept.append(thing)
    return thing
