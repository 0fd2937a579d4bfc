"""A comparison as a picture: the training loss over steps, over seconds and over bytes, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headway.testing.compared.outcome import Comparison
from headway.testing.compared.words import headline

NAME = "comparison.svg"
AXES = (("step", "steps", 1.0), ("seconds", "seconds", 1.0), ("sent", "MB between workers", 1e6))


def draw(found: Comparison, folder: Path) -> Path | None:
    """Draw it into a folder; None where matplotlib is not there.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "headway", "font.size": 9}):
        figure = Figure(figsize=(13, 4.2), layout="constrained", dpi=100)
        drawn: list[Any] = list(figure.subplots(1, len(AXES), sharey=True))
        for axes, (column, label, unit) in zip(drawn, AXES, strict=True):
            for number, each in enumerate(found.results):
                curve = each.curve
                pairs = zip(curve[column], curve["loss"], strict=True)
                points = [(x / unit, y) for x, y in pairs if x is not None and y is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), color=f"C{number}", linewidth=1.2, label=each.name)
            axes.set_xlabel(label)
        drawn[0].set_ylabel("training loss")
        if drawn[0].lines:
            drawn[0].legend(fontsize=8)
        figure.suptitle(headline(found), fontsize=10)
        figure.savefig(folder / NAME, metadata={"Date": None})
    return folder / NAME
