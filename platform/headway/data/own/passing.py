"""Messages between a worker and the processes that read rows for it: pickles, one after the other, through pipes."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import IO, Any

_LENGTH = struct.Struct("<Q")


class _Pickler(pickle.Pickler):
    """Tensors go as arrays: torch's own way takes ten times as long, and shares memory by files."""

    def reducer_override(self, thing: Any) -> Any:
        import torch

        if type(thing) is torch.Tensor and thing.device.type == "cpu" and thing.layout is torch.strided:
            try:
                return torch.from_numpy, (thing.detach().numpy(),)
            except TypeError:  # of a type that NumPy does not know
                return NotImplemented
        return NotImplemented


def send(pipe: IO[bytes], message: Any) -> None:
    """Raises OSError: nobody reads any more."""
    made = io.BytesIO()
    _Pickler(made, protocol=5).dump(message)
    send_bytes(pipe, made.getbuffer())


def send_bytes(pipe: IO[bytes], content: bytes | memoryview) -> None:
    """Send what is pickled already. Raises OSError."""
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def receive(pipe: IO[bytes], load: Callable[[bytes], Any] = pickle.loads) -> Any:
    """Raises EOFError: nobody writes any more."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return load(content)
