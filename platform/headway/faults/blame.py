"""Whose an exception is, by the frames it came through, and how it is shown: the task's with the author's frames alone,
one of Headway's own whole, in a report that can be sent.

From the innermost frame outwards: Python's own and the libraries that Headway itself uses are passed over, and what is
left first says whose it is. Two things of ours are the task's all the same: what PyTorch raises when it is called with
the task's model, loss or optimiser; and what is raised in a door, a function of ours that does little more than call
the task (a method that takes other arguments, say).
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePath

MOST_BYTES = 1 << 16
"""Of a traceback; more is left out in its middle."""
MOST_CHARACTERS = 500
"""Of a reason."""
DOORS = {
    ("data/read/direct.py", "_batch_of"),
    ("elastic/worker/evaluation.py", "_batch"),
    ("elastic/worker/lazy.py", "shaped"),
    ("elastic/worker/loop.py", "session_of"),
    ("elastic/worker/loop.py", "train_task"),
    ("elastic/worker/main.py", "run"),
    ("elastic/worker/step.py", "backward"),
    ("elastic/worker/update.py", "step"),
    ("optim.py", "schedule"),
    ("tryout/small.py", "_task"),
    ("tryout/small.py", "checked"),
}
"""Where the task is called; (file, function)."""

_OURS = Path(__file__).parents[1]
_PYTHON = Path(sysconfig.get_path("stdlib"))
_LIBRARIES = {"mlflow", "numpy", "pandas", "pyarrow", "pydantic", "ray", "torch", "typer", "yaml"}
_INSTALLED = {"site-packages", "dist-packages"}
_FRAME = re.compile(r'^ *File "(?P<file>[^"\n]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
_PASSED_ON = re.compile(r"Caught \S+ in (?P<where>[^\n]+?)\.\nOriginal Traceback")

_CHANGING = re.compile(r"0x[0-9a-fA-F]+|\d+")

Frames = Sequence[tuple[str, str]]
"""(file, function) of each, the innermost last."""


def is_ours(error: BaseException) -> bool:
    """Whether this is a fault of Headway's own. What has no frame, or comes from elsewhere, is not."""
    frames = [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    if not frames and isinstance(error, BaseExceptionGroup):
        return all(is_ours(each) for each in error.exceptions)
    return are_ours(frames)


def are_ours(frames: Frames) -> bool:
    """The same of frames, which may be those of another process."""
    through_torch = False
    for file, function in reversed(frames):
        here = within(file)
        if here is not None:
            return not through_torch and (here, function) not in DOORS
        if not _is_passed_over(file):
            return False
        through_torch = through_torch or "torch" in PurePath(file).parts
    return False


def frames_of(text: str) -> Frames:
    """The frames that a traceback in words names, those of a chain's last exception: it was raised last."""
    last = text.rpartition("Traceback (most recent call last):\n")[2]
    return [(found["file"], found["function"]) for found in _FRAME.finditer(last)]


def reason(error: BaseException) -> str:
    """What was raised, in a line."""
    text = text_of(error)
    passed_on = _PASSED_ON.search(text)
    if passed_on:  # from a process of a DataLoader: its last line says what, as Python would have shown it
        return _short(f"{_lines(text)[-1]} (in {passed_on['where']})")
    lines = _lines(text)
    said = f"{_name(error)}: {lines[0]}" if lines else _name(error)
    if isinstance(error, BaseExceptionGroup):
        said = f"{said}: {reason(error.exceptions[0])}"
    return _short(said)


def first(error: BaseException) -> BaseException:
    """What went wrong first: the task's own error, where one of ours came up while that was on its way."""
    last = error
    while is_ours(error) and not error.__suppress_context__ and error.__context__ is not None:
        below = error.__context__
        files = [frame.filename for frame in traceback.extract_tb(below.__traceback__)]
        if not is_ours(below) and any(within(file) is None and not _is_passed_over(file) for file in files):
            return below
        error = below
    return last


def users_traceback(error: BaseException) -> str:
    """The traceback, with what it was raised from, without Headway's own frames."""
    try:
        shown = traceback.TracebackException.from_exception(error)
        _leave_ours_out(shown, set())
        return bounded("".join(shown.format()).rstrip())
    except Exception:  # an exception that cannot even be looked at is somebody's code too
        return reason(error)


def whole_traceback(error: BaseException) -> str:
    """The traceback with all frames."""
    try:
        return bounded("".join(traceback.TracebackException.from_exception(error).format()).rstrip())
    except Exception:  # as above
        return reason(error)


def place(error: BaseException) -> str:
    """The innermost frame of ours, as file:line in function; empty where there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        here = within(frame.filename)
        if here is not None:
            return f"{here}:{frame.lineno} in {frame.name}"
    return ""


def bounded(text: str, most: int = MOST_BYTES) -> str:
    """The text, or its beginning and its end where it is longer than so many bytes."""
    data = text.encode(errors="replace")
    if len(data) <= most:
        return data.decode()
    half = (most - 100) // 2
    begin, end = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{begin}\n  ... {len(data) - 2 * half:,} bytes are left out here ...\n{end}"


def _leave_ours_out(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    theirs = [f for f in shown.stack if within(f.filename) is None and not _imports(f.filename)]
    if shown.__context__ is not None and not any(within(f.filename) is None for f in shown.__context__.stack):
        shown.__context__ = None  # what we were busy with is not the author's
    shown.stack = traceback.StackSummary.from_list(theirs) if theirs else None  # type: ignore[assignment]
    for below in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if below is not None:
            _leave_ours_out(below, seen)


def within(file: str) -> str | None:
    """The path within Headway's package of a file of ours, on this machine or another."""
    path = PurePath(file)
    if path.is_relative_to(_OURS):
        return path.relative_to(_OURS).as_posix()
    for number, (above, part) in enumerate(pairwise(path.parts)):
        if part == _OURS.name and (above in _INSTALLED or above.startswith("_ray_pkg_")):
            return PurePath(*path.parts[number + 2 :]).as_posix()
    return None


def _is_passed_over(file: str) -> bool:
    path = PurePath(file)
    if file.startswith("<"):
        return file.startswith(("<frozen", "<string>"))
    if path.is_relative_to(_PYTHON) or re.search(r"/lib/python3\.\d+/(?!site-packages|dist-packages)", file):
        return not _INSTALLED & set(path.parts) or _is_library(path)
    return _is_library(path)


def _is_library(path: PurePath) -> bool:
    for number, part in enumerate(path.parts[:-1]):
        if part in _INSTALLED:
            return PurePath(path.parts[number + 1]).stem in _LIBRARIES
    return not path.is_absolute() and path.suffix == ".pyx"  # Ray's compiled modules name their sources


def is_hidden(file: str) -> bool:
    """Whether a frame in this file is left out of what a task's author is shown: ours, and Ray's."""
    rays = "ray" in PurePath(file).parts and _is_library(PurePath(file))
    return rays or within(file) is not None or _imports(file)


def _imports(file: str) -> bool:
    return file.startswith("<frozen importlib") or "/importlib/" in file


def _name(error: BaseException) -> str:
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """What an error says; somebody's own words may fail."""
    try:
        return str(error).encode(errors="replace").decode()  # it may come from a file's name
    except Exception:  # somebody's own __str__
        return "(its text cannot be made)"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def alike(text: str) -> str:
    """Texts that give the same say the same: numbers and addresses change."""
    return _CHANGING.sub("#", text)


def in_a_line(text: str) -> str:
    """The text's first line that is not empty, and not too long."""
    lines = _lines(text)
    return _short(lines[0]) if lines else ""


def _short(text: str) -> str:
    rest = len(text) - MOST_CHARACTERS
    return text if rest <= 0 else f"{text[:MOST_CHARACTERS]}... ({rest:,} characters more)"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from or wraps, each once: Ray's `cause` and its reasons among them."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        failures = getattr(each, "worker_failures", None)
        below = [getattr(each, "cause", None), getattr(each, "controller_failure", None)]
        below += list(failures.values()) if isinstance(failures, dict) else []
        below += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        waiting += [found for found in below if isinstance(found, BaseException)]
