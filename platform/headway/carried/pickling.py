"""Things of a user's as bytes, by cloudpickle: what cannot travel is refused by the path that leads to it."""

from __future__ import annotations

import io
import linecache
import multiprocessing.process
import queue
import socket
import subprocess
import sys
import threading
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _make_skeleton_class, _make_skeleton_enum

from headway.carried import cargo
from headway.errors import BadInput

MOST_LOOKED_AT = 200_000
"""Objects that are looked through for the one that cannot travel."""
UNNAMED = "<string>"
"""What Python calls the file of code that it was handed as text; libraries' generated code is called so too."""
GIVEN = "<the task>"
"""What such code is called once it has travelled, so that an error in it is known for its author's."""

_REFUSED: tuple[tuple[tuple[type, ...], str], ...] = (
    ((io.IOBase,), "an open file"),
    ((socket.socket,), "a socket"),
    ((threading.Thread,), "a thread"),
    ((multiprocessing.process.BaseProcess, subprocess.Popen), "a process"),
    ((type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event), "a lock"),
    ((threading.Semaphore, threading.Barrier), "a lock"),
    ((queue.Queue, queue.SimpleQueue), "a queue"),
    ((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType), "a generator"),
)
_MAKERS = (_make_skeleton_class, _make_skeleton_enum)
_HELD = (io.BytesIO, io.StringIO)
_PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None), range, types.CodeType)


class Refused(Exception):
    """Args: what cannot travel, in words."""


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Notes on its way what it passes.

    Attributes:
        at: the object that it came to last.
        modules: from which functions and classes are taken by name.
        sources: text of the files whose code travels itself, by their names.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.at: Any = None
        self.modules: set[str] = set()
        self.sources: dict[str, str] = {}

    def reducer_override(self, obj: Any) -> Any:
        self.at = obj
        words = refused(obj)
        if words:
            raise Refused(words)
        if isinstance(obj, types.ModuleType):
            self.modules.add(obj.__name__)
        elif isinstance(obj, type | types.FunctionType) and by_name(obj):
            self.modules.add(str(obj.__module__))
        elif isinstance(obj, types.FunctionType):
            self._note(obj.__code__.co_filename, obj.__globals__)
        elif isinstance(obj, types.CodeType) and obj.co_filename == UNNAMED:
            return self.dispatch_table[types.CodeType](obj.replace(co_filename=GIVEN))
        return _untracked(super().reducer_override(obj))

    def _note(self, file: str, names: dict[str, Any]) -> None:
        if file not in self.sources and (lines := linecache.getlines(file, names)):
            self.sources[file] = "".join(lines)


def _untracked(reduced: Any) -> Any:
    """How a class is made anew, without the number by which cloudpickle would find it again in this process: it would
    give the very class that it was taken from other functions. The bytes of a class hang on its code alone so, too."""
    if not isinstance(reduced, tuple) or reduced[0] not in _MAKERS:
        return reduced
    made, given, *rest = reduced
    *most, _, extra = given
    return (made, (*most, None, extra), *rest)


def refused(thing: Any) -> str:
    """What a thing is that is good in this process only, in words; '' for all else."""
    for kinds, words in _REFUSED:
        if isinstance(thing, kinds) and not isinstance(thing, _HELD):
            return words
    kind = type(thing)
    if kind.__module__.startswith("ray.") and kind.__name__ in ("ActorHandle", "ObjectRef"):
        return f"a {kind.__name__} of Ray's"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(thing, torch.Tensor) and thing.device.type not in ("cpu", "meta"):
        return f"a tensor on {thing.device}"
    return ""


def by_name(thing: Any) -> bool:
    """Whether a function or class is found in another process by its module and name."""
    module = sys.modules.get(str(getattr(thing, "__module__", None)))
    if module is None or module.__name__ in ("__main__", "__mp_main__"):
        return False
    found: Any = module
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


def own_modules(names: Set[str]) -> list[str]:
    """Those of the modules that are the user's own work: neither Python's, nor installed, nor Headway's."""
    found = []
    for name in sorted(names):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top != "headway" and cargo.places(top):
            found.append(name)
    return found


def dumped(thing: Any, what: str) -> tuple[bytes, Pickler]:
    """The bytes of a thing, and what was noted on the way.

    Args:
        what: it is called in errors, `task` say.

    Raises:
        BadInput: something in it cannot travel; names the path to it.
    """
    made = io.BytesIO()
    pickler = Pickler(made)
    try:
        pickler.dump(thing)
    except Exception as error:  # whatever somebody's own __reduce__ or __getstate__ raises
        raise _refusal(thing, what, pickler, error) from None
    return made.getvalue(), pickler


def _refusal(thing: Any, what: str, pickler: Pickler, error: Exception) -> BadInput:
    at = pickler.at
    kind = f"{type(at).__module__}.{type(at).__qualname__}".removeprefix("builtins.")
    words = str(error) if isinstance(error, Refused) else f"a {kind}"
    where = path_to(at, thing, what) or f"something in {what}"
    reason = "it is good in this process only, and the run's workers are others"
    if not isinstance(error, Refused):
        reason = f"it cannot be pickled ({(str(error).splitlines() or [type(error).__name__])[0]})"
    return BadInput(
        f"{where} is {words}",
        reason,
        "Make it where it is used (in model(), say), leave it out with __getstate__, or put the code into a file.",
    )


def path_to(wanted: Any, thing: Any, what: str) -> str:
    """The way from a thing to an object within it, as its author would write it; '' where none is found."""
    waiting = deque([(thing, what)])
    seen = {id(thing)}
    kept = [thing]  # so that no other object gets the number of one that was seen
    while waiting and len(seen) < MOST_LOOKED_AT:
        found, path = waiting.popleft()
        if found is wanted:
            return path
        for below, way in _below(found, path):
            if id(below) not in seen and not isinstance(below, _PLAIN):
                seen.add(id(below))
                kept.append(below)
                waiting.append((below, way))
    return ""


def _below(thing: Any, path: str) -> Iterator[tuple[Any, str]]:
    if isinstance(thing, types.ModuleType):
        return
    if isinstance(thing, types.MethodType):
        yield thing.__self__, path
        yield thing.__func__, path
    elif isinstance(thing, types.FunctionType):
        if not by_name(thing):
            yield from _of_function(thing, path)
    elif isinstance(thing, type):
        if not by_name(thing):
            for name, value in vars(thing).items():
                yield getattr(value, "__func__", value), f"{thing.__name__}.{name}"
    else:
        yield from _of_object(thing, path)


def _of_function(thing: types.FunctionType, path: str) -> Iterator[tuple[Any, str]]:
    for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=False):
        try:
            yield cell.cell_contents, f"{name}, which {path} uses,"
        except ValueError:  # not given yet
            continue
    for name in _names(thing.__code__):
        if name in thing.__globals__:
            yield thing.__globals__[name], f"{name}, which {path} uses,"
    for default in (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()):
        yield default, f"a default of {path}"


def _names(code: types.CodeType) -> Iterator[str]:
    """Global names that code uses, and that within it."""
    yield from code.co_names
    for below in code.co_consts:
        if isinstance(below, types.CodeType):
            yield from _names(below)


def _of_object(thing: Any, path: str) -> Iterator[tuple[Any, str]]:
    if isinstance(thing, Mapping):
        for key, value in list(thing.items()):
            yield value, f"{path}[{key!r}]"
            yield key, f"a key of {path}"
    elif isinstance(thing, Sequence | Set | deque) and not isinstance(thing, _PLAIN):
        for number, value in enumerate(thing if type(thing) in (list, tuple, set, frozenset, deque) else ()):
            yield value, f"{path}[{number}]" if isinstance(thing, list | tuple | deque) else f"an element of {path}"
    if {"func", "args", "keywords"} <= set(dir(type(thing))):  # a partial
        yield thing.func, f"{path}.func"
        yield thing.args, f"{path}.args"
        yield thing.keywords, f"{path}.keywords"
    for name, value in list(getattr(thing, "__dict__", {}).items()):
        if name in ("_modules", "_parameters", "_buffers") and isinstance(value, dict):  # of a torch.nn.Module
            yield from ((below, f"{path}.{key}") for key, below in value.items())
        else:
            yield value, f"{path}.{name}"
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                yield getattr(thing, name), f"{path}.{name}"
    yield type(thing), type(thing).__name__
