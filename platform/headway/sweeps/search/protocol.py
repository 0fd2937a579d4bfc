"""What a searcher is to a sweep. `headway.testing.searcher` holds any to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headway.errors import TASK_FAILED, RunFailed
from headway.sweeps.events import Config


class Searcher(Protocol):
    """Suggests settings. Called from one thread at a time; what it says follows from its seed and the calls before, so
    that a sweep that is taken up again has the same searcher when it has made the same calls."""

    def suggest(self, trial: int) -> Config | None:
        """Settings for a new trial, every choice made; None: there are no more. May be slow. Raises NotNow."""

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        """What became of one, so far: see `headway.sweeps.events.Tell`."""


@dataclass(frozen=True)
class Known:
    """What is known of a configuration from before.

    Args:
        config: of an earlier sweep, by the job's dotted keys.
        step: after which it was evaluated last.
        value: the metric there; NaN: it diverged.
        whole: it had gone its whole way.
    """

    config: Config
    step: int
    value: float
    whole: bool


class NotNow(Exception):
    """A searcher has nothing to suggest before it has heard more of the trials that are under way."""


class SearcherFailed(RunFailed):
    """A searcher that the user brought raised, or suggested what cannot be tried. Nothing is lost: the sweep is taken
    up again with a searcher that is mended."""

    exit_code = TASK_FAILED
