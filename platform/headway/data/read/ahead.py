"""Work that is done ahead of its time, in threads, the most urgent first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


_thread = threading.local()


def reading_ahead() -> bool:
    """Whether this is a thread of `Threads`, so that what fails here may yet go well when it is needed."""
    return getattr(_thread, "ahead", False)


class Once(Generic[T]):
    """A value that is worked out once, by whichever thread needs it first; others who need it meanwhile wait.

    An error is final for the thread that met it. Another that asks tries itself: what failed ahead of time, while the
    disk or the store was away, need not fail when it is needed.

    Args:
        make: works it out.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._value: T | None = None
        self._error: BaseException | None = None
        self._by = 0
        self._lock = threading.Lock()

    @property
    def value(self) -> T | None:
        """None as long as it is not there."""
        return self._value

    def get(self) -> T:
        """The value, or the exception that was met."""
        with self._lock:
            if self._by != threading.get_ident():
                self._error = None
            self._work()
            if self._error is not None:
                raise self._error
            return self._value  # type: ignore[return-value]

    def help(self) -> None:
        """Work it out, if nobody else has or is about to."""
        if self._lock.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._lock.release()

    def _work(self) -> None:
        if self._make is not None and self._error is None:
            try:
                self._value = self._make()
                self._make = None
            except Exception as error:  # whoever waits for it must hear of it; an interrupt is this thread's alone
                self._error, self._by = error, threading.get_ident()


class Threads:
    """A few threads that always do what has the smallest place next.

    Args:
        number: of threads; they are started with the first task.
        name: of the threads.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number, self._name = number, name
        self._tasks: list[tuple[tuple[int, ...], int, Callable[[], object]]] = []
        self._numbers = count()
        self._change = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, place: tuple[int, ...], task: Callable[[], object]) -> None:
        """Do it when it is the smallest place's turn. What it raises is lost: it must keep that itself."""
        with self._change:
            if self._closed:
                return
            heappush(self._tasks, (place, next(self._numbers), task))
            if len(self._threads) < self._number:
                self._threads.append(threading.Thread(target=self._run, name=self._name, daemon=True))
                self._threads[-1].start()
            self._change.notify()

    def close(self) -> None:
        """Forget what was not begun, and wait for the rest."""
        with self._change:
            self._closed = True
            self._tasks.clear()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        _thread.ahead = True
        while True:
            with self._change:
                while not self._tasks and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                _, _, task = heappop(self._tasks)
            with suppress(BaseException):
                task()
            del task  # and what it holds
