"""The document of a run, of several beside each other, or of a sweep: what `headway report --html` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.runs import Place


def of(place: Place, names: Sequence[str], redact: bool = False) -> dict[str, Any]:
    """In plain data.

    Args:
        place: where the runs are.
        names: one run or sweep; or two runs and more, to be compared.
        redact: leave out what tells where it ran, and of whom.

    Raises:
        BadInput: there is no such run; or sweeps are to be compared.
    """
    from headway.report import comparison, redaction, story
    from headway.runs import find
    from headway.sweeps import folder

    if len(names) == 1 and (found := folder.look(place, names[0])) is not None:
        from headway.report import sweep

        told = sweep.tell(found)
        return (redaction.redacted_sweep(told) if redact else told).model_dump(mode="json")
    for name in names if len(names) > 1 else ():
        if folder.look(place, name) is not None:
            raise BadInput(f"{name} is a sweep", "only runs can be compared", "Name its trials: headway ls --trials.")
    stories = [story.tell(find(place, name)) for name in names]
    stories = [redaction.redacted(each) for each in stories] if redact else stories
    whole = stories[0] if len(stories) == 1 else comparison.compare(stories)
    return whole.model_dump(mode="json")
