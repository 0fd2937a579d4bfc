"""Adding to a dataset: what is there must be like what is added, and its manifest gets a next version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from headway.data.manifest import Manifest, load
from headway.data.prepare.steps.recipe import Recipe
from headway.data.write.encode import Labels
from headway.errors import BadInput

SAME_IN_ALL_VERSIONS = ("mask", "split", "split_by", "pack", "null_values", "seed")  # the seed where there is a split


def appended_to(target: Path, recipe: Recipe) -> dict[str, Manifest]:
    """The manifests of the parts that are added to, by name.

    Raises:
        BadData: they are not there.
        BadInput: duplicates of what is there cannot be known.
    """
    masked = sorted({mask.column for mask in recipe.masks} & set(recipe.dedup))
    if masked:
        fact = f"--append --dedup {masked[0]} --mask {masked[0]}"
        raise BadInput(fact, "rows of the dataset are masked, and cannot be compared", "Deduplicate by another column.")
    found = {name: load(target / name) for name in (recipe.parts.names if recipe.parts else ("",))}
    for name, manifest in found.items():
        have = [column for column, _ in manifest.schema]
        odd = next((column for column in recipe.dedup if column not in have), None)
        if odd is not None:
            reason = f"{target / name} has no such column"
            raise BadInput(f"--append --dedup {odd}", reason, f"Columns: {', '.join(have)}.")
    return found


def check_alike(target: Path, before: dict[str, Manifest], options: dict[str, Any], label: str | None) -> None:
    """What is appended must be masked, split, packed and labelled like what is there.

    Raises:
        BadInput: it would not be; names the option.
    """
    for name, manifest in before.items():
        had = manifest.made.get(str(manifest.version), {}).get("options") or {}
        for option in SAME_IN_ALL_VERSIONS if had.get("split") or options.get("split") else SAME_IN_ALL_VERSIONS[:-1]:
            then, now = (of.get(option) or [] for of in (had, options))
            if then != now:
                fact = f"--append with --{option.replace('_', '-')} {_told(now)}"
                reason = f"{target / name} was made with {_told(then)}"
                raise BadInput(fact, reason, "Give what it was made with, or prepare a new dataset.")
    odd = next((manifest.label for manifest in before.values() if label is not None and manifest.label != label), None)
    if odd is not None:
        raise BadInput(f"--append --label {label}", f"the label of {target} is {odd!r}", "Leave it out.")


def _told(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def added(before: Manifest, new: Manifest, made: dict[str, Any]) -> Manifest:
    """The next version of a dataset's manifest.

    Args:
        before: the newest version.
        new: of the added shards alone.
        made: how they were made.

    Raises:
        BadInput: a code would stand for two names.
    """
    for column, names in before.categories.items():
        if new.categories.get(column, names)[: len(names)] != names:
            reason = f"code 0, 1, ... of column {column!r} would stand for {', '.join(new.categories[column])}"
            remedy = "Append what has the same codes, or prepare both anew from their names."
            raise BadInput(f"{before.name} has other categories: {', '.join(names)}", reason, remedy)
    labels = Labels()
    for counts in (before.label_counts, new.label_counts):
        labels.add(counts)
    version = before.version + 1
    return replace(
        before,
        rows=before.rows + new.rows,
        bytes=before.bytes + new.bytes,
        shards=before.shards + new.shards,
        label_counts=labels.result() if before.label is not None else None,
        categories={**before.categories, **new.categories},
        created=new.created,
        headway_version=new.headway_version,
        version=version,
        made={**before.made, str(version): made},
    )
