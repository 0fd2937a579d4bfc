"""A recorder in this process, or in one of its own, behind the calls that an actor's handle has."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import ray

from headway.elastic.lead.recorder import Recorder
from headway.runs import RunFolder

_processes = multiprocessing.get_context("spawn")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on this disk: that for temporary files may be in memory."""
    build = Path(__file__).parents[2] / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        yield Path(folder)


class Here:
    """The recorder as an actor's handle."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder, self.push = recorder, self

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        return self._recorder.push(worker, records)


@contextmanager
def answered_at_once() -> Iterator[None]:
    """What a handle answers is no reference: `ray.get` gives it back."""
    before = ray.get
    ray.get = lambda answer, timeout=None: answer
    try:
        yield
    finally:
        ray.get = before


class Elsewhere:
    """A recorder in a process of its own, as the driver is beside its workers.

    Args:
        folder: of the run; made.
        tracking: as of `Recorder`.
        write_s: so long each write of its records takes, for a disk that is slow.
        more: of the recorder's options.
    """

    def __init__(
        self,
        folder: Path,
        tracking: dict[str, Any] | None = None,
        write_s: float = 0.0,
        more: dict[str, Any] | None = None,
    ) -> None:
        folder.mkdir()
        RunFolder(folder).write({"run": folder.name, "created": time.time()})
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(
            target=_serve, args=(theirs, str(folder), tracking, write_s, more or {}), daemon=True
        )
        self._lock = threading.Lock()
        self.push = self

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *of: object) -> None:
        with suppress(OSError):
            self._pipe.send(None)
        self._process.join(30)
        self._process.kill()

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process.pid is not None
        return self._process.pid

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            return dict(self.ask("push", worker, records))
        except (EOFError, OSError) as error:
            raise ray.exceptions.RayActorError from error

    def ask(self, verb: str, *arguments: Any) -> Any:
        """What the recorder's function of that name returns."""
        with self._lock:
            self._pipe.send((verb, arguments))
            return self._pipe.recv()


def _serve(pipe: Any, folder: str, tracking: dict[str, Any] | None, write_s: float, more: dict[str, Any]) -> None:
    from headway import durable

    if write_s:
        durable.Lines.append = _slowly(durable.Lines.append, write_s)  # type: ignore[method-assign]
    first = {"kind": "run", "job": {"tracking": tracking or {}}, "datasets": [], "environment": {}}
    recorder = Recorder(folder, tracking, first, 10, **more)
    with suppress(EOFError):
        while (asked := pipe.recv()) is not None:
            verb, arguments = asked
            pipe.send(getattr(recorder, verb)(*arguments))


def _slowly(append: Callable[..., None], write_s: float) -> Callable[..., None]:
    def wait(self: Any, data: bytes) -> None:
        time.sleep(write_s)
        append(self, data)

    return wait
