"""The page of a run, of runs or strategies beside one another, or of a sweep: one HTML file that needs nothing else.

It is made of a document in plain data (`headway.report.shape`): what is said is HTML that stands in the file, escaped
as it is built; what is drawn is described there as data, which the page's own scripts draw with uPlot. The file asks
for nothing over a network, and a policy in it keeps the browser from doing so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.errors import BadInput

KINDS = ("run", "comparison", "sweep", "strategies")


def render(document: Mapping[str, Any]) -> str:
    """The page, as text.

    Args:
        document: of a kind in KINDS, as `model_dump(mode="json")` gives it. What is missing in it is left out.

    Raises:
        ValueError: a kind that no page is made of.
    """
    from headway.report.page import comparison, run, sheet, strategies, sweep

    makers = {"run": run.page, "comparison": comparison.page, "sweep": sweep.page, "strategies": strategies.page}
    kind = document.get("kind")
    if kind not in KINDS:
        raise ValueError(f"no page is made of {kind!r}; of {', '.join(KINDS)} there are")
    return sheet.whole(makers[str(kind)](document))


def write(document: Mapping[str, Any], path: Path) -> Path:
    """Write the page to a file, at once.

    Args:
        path: its folder is made where it is not there; a file that is there is replaced.

    Raises:
        BadInput: it cannot be written.
    """
    from headway.durable import replace

    if path.is_dir():
        raise BadInput(f"no page can be written to {path}", "it is a folder", f"Name a file: {path / 'report.html'}")
    text = render(document)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"no page can be written to {path}", reason, "Name a file, in a folder that is yours.") from None
    return path
