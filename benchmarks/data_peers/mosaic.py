"""mosaicml-streaming: MDS shards, its StreamingDataset under a torch DataLoader without workers.

Best settings: no compression, arrays of a declared dtype and shape, batches stacked by NumPy. It lives in an
environment of its own, as it takes NumPy back to an older release.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

from data_peers.rows import BATCH, Batch, Kind, load, stacked

VERSIONS = ("mosaicml-streaming==0.13.0", "torch==2.13.0", "numpy")
SETTINGS = {"shuffle_algo": "py1e", "shuffle_block_size": "rows of 16 row groups", "workers": 0, "compression": None}


def make(kind: Kind, folder: Path) -> None:
    _without_torchvision()
    from streaming import MDSWriter

    columns = load(kind, folder)
    encodings = {name: _encoding(dtype, shape) for name, (dtype, shape) in kind.columns.items()}
    with MDSWriter(out=str(folder / kind.name / "mds"), columns=encodings) as out:
        for row in range(kind.rows):
            out.write({name: values[row] for name, values in columns.items()})


def _without_torchvision() -> None:
    """Streaming imports torchvision, whose PyPI build wants CUDA and fails on import beside a CPU build of torch.

    Only its image classes use it, which are not measured: these names are all that the import asks for.
    """
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = module_from_spec(ModuleSpec(name, None))
    vars(sys.modules["torchvision.datasets"])["VisionDataset"] = object
    vars(sys.modules["torchvision.transforms.functional"])["to_tensor"] = None


def _encoding(dtype: str, shape: tuple[int, ...]) -> str:
    return f"ndarray:{dtype}:{','.join(map(str, shape))}" if shape else dtype


def epochs(kind: Kind, folder: Path, variant: str) -> Callable[[int], Iterator[Batch]]:
    _without_torchvision()
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    rows: Any = StreamingDataset(
        local=str(folder / kind.name / "mds"),
        shuffle=True,
        batch_size=BATCH,
        num_canonical_nodes=1,
        shuffle_block_size=kind.window_rows,
    )
    loader = DataLoader(rows, batch_size=BATCH, num_workers=0, collate_fn=partial(stacked, kind))
    return lambda epoch: iter(loader)
