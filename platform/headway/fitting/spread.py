"""Questions of `fit` as Ray Data jobs: row groups are read and counted on any node, the answers come in their order."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from headway.data.ray_data import ordered
from headway.fitting.dataset import Pieces, Question

TASKS = 512
"""That a question is cut into at most."""


class Spread:
    """Asks all pieces, see `headway.fitting.dataset.Ask`; on the Ray that this process is connected to.

    Args:
        given: variables of the environment with which the pieces are read.
    """

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given

    def __call__(self, pieces: Pieces, columns: Sequence[str] | None, question: Question[Any]) -> Iterator[Any]:
        import ray
        import ray.cloudpickle

        packed = ray.put(ray.cloudpickle.dumps((self._given, pieces, columns, question)))
        each = -(-len(pieces) // TASKS)
        items = [{"first": at, "stop": min(at + each, len(pieces))} for at in range(0, len(pieces), each)]
        for reference in ordered(items, partial(_asked, packed)):
            block: pa.Table = ray.get(reference)
            for answer in block["answer"]:
                yield _opened(answer.as_py())


def _asked(packed: Any, item: pa.Table) -> Iterator[pa.Table]:
    """Runs on the cluster: what some pieces answer. packed: a reference, for what is sent by value may hold secrets."""
    import ray
    import ray.cloudpickle

    given, pieces, columns, question = ray.cloudpickle.loads(ray.get(packed))
    os.environ.update(given)
    for number in range(item["first"][0].as_py(), item["stop"][0].as_py()):
        answer = _closed(question(pieces.table(number, columns)))
        yield pa.table({"answer": pa.array([answer], pa.large_binary())})


def _closed(answer: Any) -> bytes:
    """Tables as Arrow writes them, for a pickled one holds all of what it was cut from."""
    if not isinstance(answer, pa.Table):
        return b"p" + pickle.dumps(answer, protocol=5)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.schema) as stream:
        stream.write_table(answer)
    written: bytes = sink.getvalue().to_pybytes()
    return b"t" + written


def _opened(answer: bytes) -> Any:
    kind, rest = answer[:1], answer[1:]
    return pa.ipc.open_stream(rest).read_all() if kind == b"t" else pickle.loads(rest)
