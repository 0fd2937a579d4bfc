"""What a page is made of: the document of a run, of runs beside one another, or of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.report.shape import Part
    from headway.runs import Place


def document(place: Place, names: Sequence[str], redact: bool = False) -> Part:
    """All there is to say of them, now.

    Args:
        names: of one run or sweep; or of several runs, which are compared in this order.
        redact: leave out paths, hosts, people and environment.

    Raises:
        BadInput: one is not there; a sweep is among several.
    """
    from headway.report import comparison, redaction, story
    from headway.report import sweep as swept
    from headway.runs import find
    from headway.sweeps import folder

    sweep = folder.look(place, names[0]) if len(names) == 1 else None
    if sweep is not None:
        of_sweep = swept.tell(sweep)
        return redaction.redacted_sweep(of_sweep) if redact else of_sweep
    told = [story.tell(find(place, name)) for name in names]
    told = [redaction.redacted(one) for one in told] if redact else told
    return told[0] if len(told) == 1 else comparison.compare(told)


def write(place: Place, names: Sequence[str], to: Path, redact: bool = False) -> Path:
    """Write the page of them.

    Args:
        names, redact: see `document`.
        to: the HTML file.

    Raises:
        BadInput: one is not there; the file cannot be written.
    """
    from headway.report import page

    if to.is_dir():
        raise BadInput(f"no page can be written to {to}", "it is a folder", f"Name a file: {to / 'report.html'}")
    return page.write(document(place, names, redact).model_dump(mode="json"), to)
