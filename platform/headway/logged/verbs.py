"""The four verbs by which code of the user's shows something: of a session, a step, a task."""

from __future__ import annotations

from typing import Any


class Logging:
    """Call them on every worker, anywhere in the loop, in a hook, or in a task's methods. Each is kept once: as the
    leader has it, of a name the first in a step. In the loop over `step.lanes()` it is kept with the step, as its first
    lane shows it.

    It is drawn at once, and travels in the background; at most 16 MiB of one. What cannot be drawn, read or kept is
    told once by its name, and raises nothing.
    """

    def log_figure(self, name: str, figure: Any, caption: str = "") -> None:
        """Show a figure at this step, in the report and in MLflow.

        Args:
            name: what it is a series of; with slashes for groups: "validation/confusion".
            figure: of matplotlib or plotly, an image of PIL, or an array or tensor of pixels: shape [height, width],
                [height, width, channels] or [channels, height, width], whole numbers from 0 to 255, others from 0 to 1.
            caption: a line below it.
        """
        self._take_logged("figure", name, figure, caption)

    def log_text(self, name: str, text: str, caption: str = "") -> None:
        """Show a text likewise. name: may end in .md, .html, .json, .yaml or .csv, and says so what it is."""
        self._take_logged("text", name, text, caption)

    def log_table(self, name: str, table: Any, caption: str = "") -> None:
        """Show a table likewise, of at most 10,000 rows.

        Args:
            name: as above.
            table: a frame of pandas, Arrow or polars, a dict of columns, or a list of dicts.
            caption: as above.
        """
        self._take_logged("table", name, table, caption)

    def log_artifact(self, name: str, path: Any, caption: str = "") -> None:
        """Keep a copy of a file of this machine likewise. path: of the file, which is read now."""
        self._take_logged("artifact", name, path, caption)

    def _take_logged(self, kind: str, name: str, thing: Any, caption: str) -> None:
        raise NotImplementedError
