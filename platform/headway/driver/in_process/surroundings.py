"""What a run finds in the process that called for it, and changes: settings, generators, the import path. All of it is
put back at its end, and the task's own modules are forgotten, so that the next run has them anew, as a worker would.

Ray, where this process has used it, has set PYTHONBREAKPOINT to a debugger of its own, which nobody here can talk to.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from headway.driver import determinism
from headway.plan import Plan

BREAKPOINT = "PYTHONBREAKPOINT"


@contextmanager
def kept_as_found(checked: Plan) -> Iterator[None]:
    """Put back what the run changes of this process.

    Args:
        checked: of the run; says which files are the user's.
    """
    import numpy as np

    from headway import generators
    from headway.elastic.worker import garbage, settings

    path, modules, put_settings_back = list(sys.path), sys.modules.copy(), settings.as_found()
    frozen = gc.get_freeze_count()
    drawn = np.random.get_state(), random.getstate()
    shapes = os.environ.get(determinism.SHAPES)
    debugger = os.environ.get(BREAKPOINT, "")
    if debugger.startswith("ray."):
        del os.environ[BREAKPOINT]
    try:
        with generators.put_back():
            yield
    finally:
        put_settings_back()
        np.random.set_state(drawn[0])
        random.setstate(drawn[1])
        sys.path[:] = path
        if not frozen:  # the session leaves what was there out of its searches; for good, would it stay so
            garbage.take_in()
        if debugger.startswith("ray."):
            os.environ[BREAKPOINT] = debugger
        if shapes is None:
            os.environ.pop(determinism.SHAPES, None)
        _forget(modules, checked)


def _forget(before: dict[str, ModuleType], checked: Plan) -> None:
    """Of what was imported meanwhile, the modules that are the user's own; one of the same name that was there before
    is there again."""
    from headway.elastic.worker.afresh import lies_in

    if checked.source.inside is None:
        return
    for name, module in sys.modules.copy().items():  # at one stroke: other threads may import meanwhile
        if before.get(name) is not module and lies_in(module, [checked.cargo.base]):
            del sys.modules[name]
            if name in before:
                sys.modules[name] = before[name]
