"""What the dashboards show, apart from any tool that draws them: `panels/NAME.yaml`, read and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = Path(__file__).parent / "panels"
NAMES = ("run", "fleet", "sweep", "data")
COLUMNS = 24
HEIGHTS = {"label": 4, "stat": 4, "lines": 8, "stack": 8, "bars": 8}
"""Of each kind, in rows of some 38 pixels. label: the value of a label; stat: one figure, large; lines, bars: over
time; stack: over time, one upon the other."""

Unit = Literal["number", "ratio", "seconds", "bytes", "bytes_per_second", "per_second", "rows_per_second", "dollars"]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Query(_Read):
    """PromQL; `$run` and the like stand for variables, `{{run}}` in the name for a label of the series."""

    query: str
    name: str


class Panel(_Read):
    """One picture.

    Args:
        meaning: what is seen, for somebody who does not know the metric.
        label: of a `label` panel, which of the series' labels is shown.
        good: which way is good, where the colour is to say so; `bounds` are the two values at which it changes.
        from_zero: whether the axis begins at zero.
        needs: without what there is nothing to be seen, in words; "": there always is.
        width: of 24 columns.
    """

    title: str
    meaning: str
    kind: Literal["label", "stat", "lines", "stack", "bars"]
    unit: Unit
    queries: tuple[Query, ...] = Field(min_length=1)
    label: str = ""
    good: Literal["high", "low", ""] = ""
    bounds: tuple[float, float] | None = None
    from_zero: bool = False
    needs: str = ""
    width: int = Field(ge=3, le=COLUMNS)

    @model_validator(mode="after")
    def _fits(self) -> Panel:
        if (self.kind == "label") != bool(self.label):
            raise ValueError(f"{self.title}: a label is shown by a panel of kind label, and by no other")
        if bool(self.good) != (self.bounds is not None):
            raise ValueError(f"{self.title}: good and bounds go together")
        return self

    @property
    def height(self) -> int:
        return HEIGHTS[self.kind]

    @property
    def begins_at_zero(self) -> bool:
        return self.from_zero or self.kind in ("stack", "bars")


class Section(_Read):
    title: str
    panels: tuple[Panel, ...] = Field(min_length=1)

    def placed(self) -> Iterator[tuple[Panel, int, int]]:
        """Panels with their column and row, counted from the section's own top."""
        x = y = tallest = 0
        for panel in self.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield panel, x, y
            x, tallest = x + panel.width, max(tallest, panel.height)


class Variable(_Read):
    """What the reader chooses: values of a label of a series, several at once."""

    name: str
    title: str
    series: str
    label: str


class Dashboard(_Read):
    name: str
    title: str
    meaning: str
    variables: tuple[Variable, ...]
    sections: tuple[Section, ...]

    @property
    def panels(self) -> list[Panel]:
        return [panel for section in self.sections for panel in section.panels]


def read(name: str) -> Dashboard:
    """A dashboard by name. Raises pydantic.ValidationError for a file that is none."""
    return Dashboard.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def all_of_them() -> list[Dashboard]:
    return [read(name) for name in NAMES]
