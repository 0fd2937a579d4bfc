"""What `torch.compile` takes is a start, whenever it comes: it is no work on a step, and may take long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from headway.core.watch import At

if TYPE_CHECKING:
    from headway.elastic.worker.engine import Engine


@contextmanager
def booked(engine: Engine) -> Iterator[None]:
    """Compilations meanwhile go to the ledger's start, and the lead is patient with them. Costs nothing where nobody
    compiles: a model that is compiled has imported the compiler."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    from torch._dynamo.callback import callback_handler

    under_way = ExitStack()

    def begins(_: Any) -> None:
        under_way.enter_context(engine.account("start", At.FIRST_STEP))

    def ends(_: Any) -> None:
        under_way.close()

    callback_handler.register_start_callback(begins)
    callback_handler.register_end_callback(ends)
    try:
        yield
    finally:
        callback_handler.remove_start_callback(begins)
        callback_handler.remove_end_callback(ends)
