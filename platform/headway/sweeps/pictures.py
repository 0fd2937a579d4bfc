"""Four pictures of a sweep, as SVG files: its settings, its rungs, its metric, its workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.sweeps.events import Config
from headway.sweeps.importance import varied
from headway.sweeps.seen.sight import ranked
from headway.sweeps.seen.view import Trial, View, number, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "pictures"
AXES = 10
"""Settings that are drawn at most."""
LINES = 300
"""Trials with a line of their own at most, the best of them."""
BANDS = 19
"""Trials with a colour of their own among the workers; the others share one."""
VECTORS = 2000
"""Marks in a picture, above which they are drawn as an image in it: files stay small."""
WIDE = 30.0
"""Greatest to least value, above which an axis is logarithmic where the space does not say."""
GREY, RED = "#b0b0b0", "#d62728"
WORST, BEST = 0.08, 0.92
"""Where the trials begin and end in the scale of colours."""


def draw(view: View, folder: Path, order: Sequence[str] = ()) -> list[str]:
    """Draw them into a folder, and give the files' names; those for which there is nothing yet are left out.

    Args:
        order: keys of the space, most important first; as they come where not given.

    Raises:
        OSError: the folder cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawers: dict[str, Callable[[View, Figure], bool]] = {
        "settings.svg": lambda view, figure: settings(view, figure, order),
        "rungs.svg": over_time,
        "metric.svg": over_cost,
        "workers.svg": workers,
    }
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "headway", "font.size": 9}):
        for name, drawer in drawers.items():
            figure = Figure(figsize=(9, 4.5), layout="constrained", dpi=100)
            if drawer(view, figure):
                figure.savefig(folder / name, metadata={"Date": None})
                drawn.append(name)
    return drawn


def settings(view: View, figure: Figure, order: Sequence[str] = ()) -> bool:
    """Parallel coordinates: a line for each trial, through its settings, to its metric."""
    from matplotlib import colormaps

    trials = list(ranked((trial for trial in view.trials.values() if trial.best is not None), view.subject))[:LINES]
    known = varied([_of_best(trial) for trial in view.trials.values()])
    keys = [*(key for key in order if key in known), *(key for key in known if key not in order)][:AXES]
    if len(trials) < 2 or not keys:
        return False
    columns = [_Column(key, [_of_best(trial).get(key) for trial in trials], view) for key in keys]
    columns.append(_Column(view.subject.metric, [trial.best for trial in trials], view))
    axes = figure.subplots()
    colours = colormaps["viridis"]
    for place in reversed(range(len(trials))):  # the best on top
        heights = {at: column.heights[place] for at, column in enumerate(columns)}
        there = {at: height for at, height in heights.items() if not math.isnan(height)}  # it has all of these settings
        share = BEST - (BEST - WORST) * place / (len(trials) - 1)
        axes.plot(
            list(there),
            list(there.values()),
            color=RED if place == 0 else colours(share),
            linewidth=2.0 if place == 0 else 0.8,
            alpha=0.9,
            rasterized=len(trials) * len(keys) > VECTORS,
        )
    for at, column in enumerate(columns):
        axes.axvline(at, color="black", linewidth=0.8)
        for height, label in column.ticks:
            axes.annotate(label, (at, height), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    axes.set_xticks(range(len(columns)), [column.title for column in columns])
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.05)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{view.subject.sweep}: settings of {len(trials)} trials, trial {trials[0].number} is the best")
    return True


def _of_best(trial: Trial) -> Config:
    """The settings that its best value came with."""
    return trial.settings if trial.best_settings is None else trial.best_settings


class _Column:
    """An axis of the parallel coordinates: where each value is on it, from 0 to 1, and what is written beside it."""

    def __init__(self, key: str, values: Sequence[Any], view: View) -> None:
        self.title = short(key)
        there = [value for value in values if value is not None]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in there):
            self._numbers(key, values, there, view)
        else:
            self._words(values, there)

    def _numbers(self, key: str, values: Sequence[Any], there: Sequence[float], view: View) -> None:
        least, most = min(there), max(there)
        wide = least > 0 and most / least > WIDE and key != view.subject.metric
        place = math.log if least > 0 and (key in view.subject.logarithmic or wide) else float
        low, span = place(least), (place(most) - place(least)) or 1.0
        self.heights = [math.nan if value is None else (place(value) - low) / span for value in values]
        back: Callable[[float], float] = math.exp if place is math.log else float
        shown = [0.0] if most == least else [0.0, 0.25, 0.5, 0.75, 1.0]
        self.ticks = [(height, f"{back(low + span * height):.3g}") for height in shown]

    def _words(self, values: Sequence[Any], there: Sequence[Any]) -> None:
        words = sorted({number(value) for value in there})
        step = 1 / max(1, len(words) - 1)
        self.heights = [math.nan if value is None else words.index(number(value)) * step for value in values]
        self.ticks = [(index * step, word) for index, word in enumerate(words)]


def over_time(view: View, figure: Figure) -> bool:
    """Each trial's way, in steps, over the sweep's clock: one that waits at a rung goes on level, or ends there."""
    trials = [trial for trial in view.trials.values() if trial.points]
    if not trials:
        return False
    axes = figure.subplots()
    chosen = set(map(id, ranked(trials, view.subject)[:LINES]))
    many = sum(len(trial.points) for trial in trials) > VECTORS
    for trial in trials:
        if id(trial) in chosen:
            best = trial is view.best
            begun = trial.held[0][0] if trial.held else trial.points[0].at
            times, steps = [begun, *(p.at for p in trial.points)], [0, *(p.step for p in trial.points)]
            colour, width = (RED, 1.6) if best else (GREY, 0.7)
            axes.plot(times, steps, color=colour, linewidth=width, zorder=3 if best else 2, rasterized=many)
    passed = [point for trial in trials for point in trial.points]
    heights, rates = [p.step for p in passed], _shares([p.value for p in passed], [p.step for p in passed], view)
    drawn = axes.scatter([p.at for p in passed], heights, c=rates, s=12, cmap="viridis", zorder=4, rasterized=many)
    figure.colorbar(drawn, ax=axes, label=f"{view.subject.metric}, place among those at that step (1: best)")
    for index, label in ((trial.points[-1], str(trial.number)) for trial in trials if len(trials) <= 20):
        axes.annotate(label, (index.at, index.step), xytext=(3, 3), textcoords="offset points", fontsize=7)
    steps_there = sorted(set(heights))
    if len(steps_there) > 1 and steps_there[-1] / max(1, steps_there[0]) > 8:
        axes.set_yscale("symlog", linthresh=max(1, steps_there[0]))
    axes.set_xlabel("seconds")
    axes.set_ylabel("steps")
    axes.set_title(f"{view.subject.sweep}: how far each trial came, and when")
    return True


def _shares(values: Sequence[float], steps: Sequence[int], view: View) -> list[float]:
    """The place of each value among those of its step, 1 for the best; what is no number is last."""
    sign = 1.0 if view.subject.mode == "max" else -1.0
    groups: dict[int, list[float]] = {}
    for value, step in zip(values, steps, strict=True):
        groups.setdefault(step, []).append(sign * value if math.isfinite(value) else -math.inf)
    for group in groups.values():
        group.sort()
    found = []
    for value, step in zip(values, steps, strict=True):
        group = groups[step]
        own = sign * value if math.isfinite(value) else -math.inf
        found.append(group.index(own) / (len(group) - 1) if len(group) > 1 else 1.0)
    return found


def over_cost(view: View, figure: Figure) -> bool:
    """Every evaluation, and the best so far, over the worker-seconds that were spent until then."""
    points = [point for trial in view.trials.values() for point in trial.points if math.isfinite(point.value)]
    if not points:
        return False
    points.sort(key=lambda point: point.worker_s)
    best: list[float] = []
    for point in points:
        best.append(point.value if not best or view.subject.better(point.value, best[-1]) else best[-1])
    axes = figure.subplots()
    spent = [point.worker_s for point in points]
    axes.scatter(spent, [p.value for p in points], s=8, color=GREY, rasterized=len(points) > VECTORS, label="a trial")
    axes.step([*spent, view.worker_s], [*best, best[-1]], where="post", color=RED, label="best so far")
    axes.set_xlabel("worker-seconds")
    axes.set_ylabel(view.subject.metric)
    axes.set_title(f"{view.subject.sweep}: {view.subject.metric} by what it cost")
    axes.legend()
    return True


def workers(view: View, figure: Figure) -> bool:
    """Who had how many workers, over the sweep's clock; trials on top of each other."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    trials = sorted((trial for trial in view.trials.values() if trial.held), key=lambda trial: -trial.worker_s)
    if not trials:
        return False
    axes = figure.subplots()
    times = sorted({at for trial in trials for at, _ in trial.held} | {view.seconds})
    own = sorted(trials[:BANDS], key=lambda trial: trial.number)
    bands = [_held(trial, times) for trial in own]
    labels = [f"trial {trial.number}" for trial in own]
    colours: list[Any] = [colormaps["tab20"](index % 20) for index in range(len(own))]
    if rest := trials[BANDS:]:
        others = [_held(trial, times) for trial in rest]
        bands.append([sum(column) for column in zip(*others, strict=True)])
        labels.append(f"{len(rest)} others")
        colours.append(GREY)
    many = len(times) * len(bands) > VECTORS // 4
    axes.stackplot(times, bands, step="post", labels=labels, colors=colours, linewidth=0, rasterized=many)
    axes.set_xlim(0, max(view.seconds, times[-1]) or 1.0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("workers")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{view.subject.sweep}: who had how many workers")
    _legend(axes)
    return True


def _held(trial: Trial, times: Sequence[float]) -> list[int]:
    """How many it had from each time on."""
    found, now, index = [], 0, 0
    for at in times:
        while index < len(trial.held) and trial.held[index][0] <= at:
            now = trial.held[index][1]
            index += 1
        found.append(now)
    return found


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
