"""headway watch"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from headway.cli.options import Address, Run, Runs
from headway.cli.saying import say
from headway.errors import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console

    from headway.cli.screen import Screen
    from headway.jobs.look.watching import Watching
    from headway.runs import Place

LEAVES = ("q", "Q", "\x1b")
DRAW_S = 0.25
LATE_S = 5.0
"""So long the last events of a run may come after the word that it has ended."""
T = TypeVar("T")

Plain = Annotated[bool, typer.Option("--plain", help="Lines in place of a picture, as where there is no terminal.")]


def watch(run: Run, runs: Runs = None, address: Address = None, plain: Plain = False) -> None:
    """Show a run (or a sweep) as it goes, from any machine that reads its place; ends with it, and with its exit code.

    The run hears nothing of it. q or Ctrl-C ends the watching alone.
    """
    from rich.console import Console

    from headway.jobs.look.asking import place_of
    from headway.sweeps import folder

    console = Console(highlight=False, soft_wrap=True)
    plain = plain or not console.is_terminal
    place, name = place_of(run, runs)
    sweep = folder.look(place, name)
    if sweep is not None:
        raise typer.Exit(_sweep(sweep, console, plain))
    raise typer.Exit(_run(place, name, address, console, plain))


def _run(place: Place, name: str, address: str | None, console: Console, plain: bool) -> int:
    from headway.cli.live_run import RunLines, RunLive, ended
    from headway.core.ends import exit_code
    from headway.jobs.look.watching import Watched

    watching = _begun(place, name, address)
    late: list[float] = []

    def over(seen: Watched) -> bool:
        """Its end, and its last event, which may come somewhat later."""
        if not seen.over:
            return False
        late.append(time.monotonic())
        last = seen.events[-1].kind if seen.events else ""
        return last == "end" or seen.at - seen.brief.last > 2 * LATE_S or late[-1] - late[0] > LATE_S

    screen = RunLines(console) if plain else RunLive(console)
    seen = followed(watching.look, watching.every_s, over, screen)
    if seen is None:
        return 0
    print(ended(seen))
    return exit_code(seen.brief.state, seen.brief.cause or None)


def _begun(place: Place, name: str, address: str | None) -> Watching:
    """Of a run that is there, or in the place where a cluster's list says that it is.

    Raises:
        BadInput: it is nowhere.
    """
    from headway.errors import BadInput
    from headway.jobs.look import asking
    from headway.jobs.look.watching import Watching
    from headway.runs import Place as Kept

    try:
        watching = Watching(place, name, say)
        watching.look()
        return watching
    except BadInput:
        jobs, unasked = asking.jobs(address)
        if unasked is not None:
            say(str(unasked))
        where, there = asking.elsewhere(place, name, jobs or ())
        if not there or asking.out_of_sight(where):
            raise
        say(f"{name} is kept in {where}")
        return Watching(Kept.of(where), name, say)


def _sweep(sweep: Any, console: Console, plain: bool) -> int:
    from headway.cli.live_sweep import SweepLive, heading
    from headway.core.ends import exit_code
    from headway.sweeps.seen.following import Following

    following = Following(sweep)
    screen = SweepLive(console, plain=plain, whole=not plain)
    view = followed(following.look, following.every_s, lambda view: view.state != "running", screen)
    if view is None:
        return 0
    print(heading(view))
    return exit_code(view.state)


class _Looks(Generic[T]):
    """What a thread finds that looks again and again: who draws, and hears keys, waits for no store.

    Args:
        look: gives how it is.
        every_s: between two looks.
        over: whether that was the last one.
    """

    def __init__(self, look: Callable[[], T], every_s: float, over: Callable[[T], bool]) -> None:
        self._look, self._every_s, self._over = look, every_s, over
        self.found: deque[T] = deque()
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.left = threading.Event()
        threading.Thread(target=self._work, name="looks", daemon=True).start()

    def _work(self) -> None:
        try:
            while not self.left.is_set():
                seen = self._look()
                over = self._over(seen)
                self.found.append(seen)
                if over:
                    break
                self.left.wait(self._every_s)
        except Exception as error:  # raised again, where it is shown
            self.error = error
        finally:
            self.done.set()


def followed(look: Callable[[], T], every_s: float, over: Callable[[T], bool], screen: Screen) -> T | None:
    """Show what is seen until it is over; None where the one who looks has left before.

    Raises:
        typer.Exit: by Ctrl-C.
    """
    from headway.cli.keys import pressed

    looks = _Looks(look, every_s, over)
    newest: T | None = None
    try:
        with screen, pressed() as key:
            while True:
                done = looks.done.is_set()
                while looks.found:
                    newest = looks.found.popleft()
                    if screen.plain:
                        screen.update(newest)
                if newest is not None and not screen.plain:
                    screen.update(newest)  # anew: times go on, and the terminal may have another size
                if done and not looks.found:
                    break
                if key(DRAW_S) in LEAVES and not screen.plain:
                    looks.left.set()
                    break
    except KeyboardInterrupt:
        looks.left.set()
        print("Not watched any more; it goes on.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if looks.error is not None:
        raise looks.error
    return newest if looks.done.is_set() and not looks.left.is_set() else None
