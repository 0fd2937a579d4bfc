"""What a task has learnt from its training set before training (`fit`): kept with the run's code, and so where that is.

CODE/.headway-fitted    a line of JSON: format, sha256 of all that follows, bytes of the skeleton and of each span;
                        then the tree without tensors, and their memory, see `headway.checkpoint.flat`

What is read is data, never code. The same values give the same bytes, and so the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.carried import code
from headway.durable import replace
from headway.errors import BadInput, RunFailed
from headway.task import Task

if TYPE_CHECKING:
    from headway.job import Job

FORMAT = "headway-fitted-1"
MOST_BYTES = 256 << 20
"""Of all values; they are sent to every process of the run, and held there."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_NUMBERS = "?biufcSUMm"
REMEDY = (
    "Return numbers, text, lists, dicts, NumPy arrays and tensors, from which model() and transform() make the rest."
)


def make(found: Callable[..., Any], job: Job, source: code.Source) -> Any:
    """The job's task, built, with its fitted values at `fitted`.

    Args:
        found: the class.
        job: gives the arguments.
        source: of the code, as it was carried: the values lie beside it.
    """
    return given(found(**job.call()), source)


def given(task: Any, source: code.Source) -> Any:
    """A task, with the fitted values that lie beside its code at `fitted`. Raises RunFailed: they are damaged."""
    content = beside(source)
    if content is not None and isinstance(task, Task):
        task.fitted = unpack(content)
    return task


def beside(source: code.Source) -> bytes | None:
    """The packed values that lie beside the carried code; None: there are none. Raises RunFailed: they are damaged."""
    folder = code.here(source).copy
    return None if folder is None else of(folder)


def of(folder: Path) -> bytes | None:
    """The packed values in a folder of carried code; None: there are none. Raises RunFailed: they are damaged."""
    try:
        content = (folder / code.FITTED).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFailed(f"{folder / code.FITTED} cannot be read", error.strerror or str(error), "") from None
    if digest(content) is None:
        reason, remedy = "its bytes are not those of its digest", "Begin a new run, whose task is fitted anew."
        raise RunFailed(f"{folder / code.FITTED} is damaged", reason, remedy)
    return content


def put(content: bytes, folder: Path) -> dict[str, Any]:
    """Keep packed values in a folder of carried code. Returns what the run is to note of them, as `fitted`.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / code.FITTED, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"what the task has fitted cannot be kept in {folder}", reason, "Free space.") from None
    return {"sha256": digest(content), "bytes": len(content)}


def digest(content: bytes) -> str | None:
    """SHA-256 of packed values; None: these are none, or damaged."""
    head, _, rest = content.partition(b"\n")
    try:
        told: str = json.loads(head)["sha256"]
    except (ValueError, TypeError, KeyError):
        return None
    return told if hashlib.sha256(rest).hexdigest() == told else None


def pack(values: Any) -> bytes:
    """Values as bytes, to be kept and sent.

    Args:
        values: None, booleans, numbers, text, bytes, lists, tuples, sets, dicts of such, NumPy arrays and scalars of
            numbers, tensors.

    Raises:
        BadInput: something else is in it, by the path to it; or it is too much.
    """
    from headway.checkpoint import flat

    check(values, "the value")
    layout = flat.layout(_on_host(values))
    spans = [span.numpy().tobytes() for span in layout.spans]
    rest = b"".join([layout.skeleton, *spans])
    if len(rest) > MOST_BYTES:
        raise BadInput(
            f"fit() returned {len(rest) / 2**20:,.0f} MiB",
            f"at most {MOST_BYTES / 2**20:,.0f} MiB are sent to every process of the run",
            "Return less, or write it to files that the job names under `files:`.",
        )
    head = {
        "format": FORMAT,
        "sha256": hashlib.sha256(rest).hexdigest(),
        "skeleton": len(layout.skeleton),
        "spans": [len(span) for span in spans],
    }
    return json.dumps(head).encode() + b"\n" + rest


def unpack(content: bytes) -> Any:
    """The values of `pack`, in memory of their own. Raises RunFailed: these bytes are none."""
    import torch

    from headway.checkpoint import flat

    line, _, rest = content.partition(b"\n")
    try:
        head = json.loads(line)
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']!r}")
        at: int = head["skeleton"]
        values, rooms = flat.rooms(rest[:at])
        for room, size in zip(rooms, head["spans"], strict=True):
            if size:
                room.copy_(torch.frombuffer(bytearray(rest[at : at + size]), dtype=torch.uint8))
            at += size
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        remedy = "It was written by another release of Headway, or is damaged: begin a new run."
        raise RunFailed("the task's fitted values cannot be read", str(error), remedy) from None
    return values


def check(value: Any, path: str) -> None:
    """Whether a value can be kept and sent.

    Raises:
        BadInput: naming what cannot, by the path to it.
    """
    import numpy as np
    import torch

    kind = type(value)
    if kind in _PLAIN or kind in (torch.dtype, torch.Size):
        return
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise _refused(path, "a tensor that is not dense", "Return its indices and values.")
        return
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in _NUMBERS:
            raise _refused(path, f"a NumPy array of {value.dtype}", "Return it as a list, or as an array of numbers.")
        return
    if isinstance(value, dict):
        for key, each in value.items():
            if type(key) not in _PLAIN and not isinstance(key, tuple | np.generic):
                raise _refused(f"a key of {path}", _named(key), REMEDY)
            check(each, f"{path}[{key!r}]")
        return
    if kind in (list, tuple, set, frozenset):
        for number, each in enumerate(value):
            check(each, f"an entry of {path}" if kind in (set, frozenset) else f"{path}[{number}]")
        return
    raise _refused(path, _named(value), REMEDY)


def _on_host(value: Any) -> Any:
    """Tensors of other devices as such of the host."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous()
    if isinstance(value, dict):
        return {key: _on_host(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_on_host(each) for each in value)
    return value


def _named(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def _refused(path: str, what: str, remedy: str) -> BadInput:
    reason = "what a task has fitted is sent to every process of the run, and kept, as data: numbers, text, arrays"
    return BadInput(f"fit() returned {what}: {path}", reason, remedy)
