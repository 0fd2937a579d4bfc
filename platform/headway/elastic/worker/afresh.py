"""A process as it was before a run: what the run's code changed in it is put back, and what it made is let go.

Put back: variables of the environment, the working directory, the import path, the standard streams; the user's
modules are forgotten, and imported anew by the next run; torch's, NumPy's and Python's settings and generators; hooks
that torch keeps for all modules and optimisers; warnings' filters, logging's handlers. What it cannot undo is said:
threads of the user's that go on. A library that the user's code patched stays patched.
"""

from __future__ import annotations

import gc
import importlib
import linecache
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer

from headway.driver import determinism
from headway.elastic.worker import settings

LINGER_S = 2.0
"""So long a thread of a run's may need to end after it."""
WHOLE = 20
"""Every so many runs all objects there are are looked at; else those that the run has made, which takes a hundredth."""
_NAMES = (
    (sys, "stdin"),
    (sys, "stdout"),
    (sys, "stderr"),
    (sys, "excepthook"),
    (threading, "excepthook"),
    (warnings, "showwarning"),
)
_HOOKS = (
    (torch_module, "_global_"),
    (torch_optimizer, "_global_optimizer_"),
)
"""Where torch keeps hooks for all, and what their names begin with: dicts."""


def _read_by_cuda() -> dict[str, str]:
    """What cuBLAS was told at its start, which is once in a process: it stays told, for the next run that asks."""
    given = os.environ.get(determinism.WORKSPACE)
    started = given in determinism.WORKSPACES and torch.cuda.is_initialized()
    return {determinism.WORKSPACE: str(given)} if started else {}


class Afresh:
    """Remembers the process as it is now."""

    def __init__(self) -> None:
        self._environment, self._folder = dict(os.environ), Path.cwd()
        self._path = list(sys.path)
        self._names = [(home, name, getattr(home, name)) for home, name in _NAMES]
        self._modules = set(sys.modules.copy())
        self._put_settings_back = settings.as_found()
        self._filters = list(warnings.filters)
        root = logging.getLogger()
        self._logging = root.level, list(root.handlers), logging.root.manager.disable
        self._hooks = [(hooks, dict(hooks)) for hooks in _hooks()]
        self._random = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
        self.runs = 0
        """That it was put back after."""
        gc.collect()
        gc.freeze()

    def again(self, own: Iterable[Path] = (), top: str = "") -> str:
        """Put all back. Returns what could not be, for people; empty where all could.

        Args:
            own: folders of the run's code; what it put on the import path is, too.
            top: the package or module that its task is in, wherever that lies.
        """
        roots = [*own, *(Path(entry) for entry in sys.path if entry and entry not in self._path)]
        left = self._ended(roots)
        for home, name, value in self._names:
            setattr(home, name, value)
        _put_back(os.environ, {**self._environment, **_read_by_cuda()})
        os.chdir(self._folder)
        self._forget(roots, top)
        sys.path[:] = self._path
        self._put_settings_back()
        for hooks, before in self._hooks:
            hooks.clear()
            hooks.update(before)
        warnings.resetwarnings()  # what was warned of once may be warned of again
        warnings.filters[:] = self._filters  # type: ignore[index]
        root = logging.getLogger()
        root.setLevel(self._logging[0])
        root.handlers[:] = self._logging[1]
        logging.disable(self._logging[2])
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        torch.default_generator.set_state(self._random[2])
        self.runs += 1
        _let_go(whole=self.runs % WHOLE == 0)
        return left

    def _forget(self, roots: list[Path], top: str) -> None:
        """The user's modules."""
        for name, module in sys.modules.copy().items():
            if name not in self._modules and (name.partition(".")[0] == top or lies_in(module, roots)):
                del sys.modules[name]
        importlib.invalidate_caches()
        linecache.checkcache()

    def _ended(self, roots: list[Path]) -> str:
        """Which threads of the user's do not end."""
        deadline = time.monotonic() + LINGER_S
        while True:
            there = [t for t in threading.enumerate() if t is not threading.current_thread() and _runs_in(t, roots)]
            if not there:
                return ""
            if time.monotonic() > deadline:
                return f"the run left threads behind: {', '.join(sorted(t.name for t in there)[:5])}"
            time.sleep(0.01)


def _hooks() -> Iterator[dict[Any, Any]]:
    for home, prefix in _HOOKS:
        yield from (h for name, h in vars(home).items() if name.startswith(prefix) and isinstance(h, dict))


def _put_back(there: Any, before: dict[str, str]) -> None:
    for name in [name for name in there if name not in before]:
        del there[name]
    for name, value in before.items():
        if there.get(name) != value:
            there[name] = value


def lies_in(module: Any, roots: list[Path]) -> bool:
    """Whether a module, or a part of its package, is the user's own."""
    places = [getattr(module, "__file__", None), *_paths(module)]
    return any(place and _is_theirs(place, roots) for place in places)


def _is_theirs(place: str, roots: list[Path]) -> bool:
    """Whether a file or folder is the user's own, and not of a library that is installed below theirs."""
    path = Path(place)
    return "site-packages" not in path.parts and any(path.is_relative_to(root) for root in roots)


def _paths(module: Any) -> list[str]:
    try:
        return [str(path) for path in getattr(module, "__path__", ())]
    except Exception:  # of a library's own kind of module
        return []


def _runs_in(thread: threading.Thread, roots: list[Path]) -> bool:
    """Whether it is in the user's code."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if _is_theirs(frame.f_code.co_filename, roots):
            return True
        frame = frame.f_back
    return False


def _let_go(whole: bool) -> None:
    """Of what nobody has any more. whole: also of what was there before the run."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and hasattr(dynamo, "reset"):
        dynamo.reset()
    if whole:
        gc.unfreeze()
    gc.collect()
    gc.freeze()  # libraries that the run was the first to import
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
