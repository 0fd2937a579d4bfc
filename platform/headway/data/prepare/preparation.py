"""All that is decided before a prepare begins to work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway import __version__
from headway.data.manifest import FORMAT, Manifest
from headway.data.prepare.progress import Progress, Say
from headway.data.prepare.sources.listing import Plan
from headway.data.prepare.steps.recipe import Recipe
from headway.data.write.sizing import Sizes


@dataclass(frozen=True)
class Preparation:
    """What is made of what, and how.

    Args:
        source: as the user named it, or what it is.
        seen: plain values that tell the source from another, and from itself once it has changed.
        target: the folder of the dataset, or of its parts.
        plan: how the source is read.
        recipe: what is done to rows.
        schema: of the dataset.
        label: the column that is counted, if any.
        sizes: as the user asks.
        before: manifests of the parts that are appended to; empty where the dataset is new.
        options: that the user gave and the bytes depend on, as plain values.
        force: what lies at `target` is replaced.
        say: is told how far the work is.
    """

    source: str
    seen: Any
    target: Path
    plan: Plan
    recipe: Recipe
    schema: pa.Schema
    label: str | None
    sizes: Sizes
    before: dict[str, Manifest]
    options: dict[str, Any]
    force: bool
    say: Say

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts; '' where there is one alone."""
        return self.recipe.parts.names if self.recipe.parts else ("",)

    @property
    def what(self) -> str:
        """Who gave the rows, for errors."""
        return f"--transform {self.recipe.transform.text}" if self.recipe.transform else "a piece"

    @cached_property
    def identity(self) -> str:
        """Digest of all that the bytes depend on: who finds work begun under it can go on with it."""
        salts = [sha256(mask.salt).hexdigest() for mask in self.recipe.masks]
        code = self.recipe.transform.digest if self.recipe.transform else ""
        said = [__version__, FORMAT, str(self.schema), self.options, self.seen, salts, code, sorted(self.before)]
        return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def folder(self, name: str) -> Path:
        """Where a part is to lie."""
        return self.target / name if name else self.target

    def tell(self, stage: str, done: int, total: int, rows: int) -> None:
        """Say how far a stage is."""
        self.say(Progress(stage, done, total, rows))
