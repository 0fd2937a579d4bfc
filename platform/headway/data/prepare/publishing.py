"""Giving what was made its manifest and its name: all at once where it is new, else shards first, then the manifest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headway import __version__
from headway.data.manifest import FILE, Manifest, load, write
from headway.data.prepare.appending import added
from headway.data.prepare.options import as_command
from headway.data.prepare.preparation import Preparation
from headway.data.prepare.stages.assembly import PartWriter
from headway.data.prepare.stages.journal import Workplace
from headway.data.write.writer import described, empty, publish
from headway.durable import sync_folder
from headway.errors import BadInput


def describe(asked: Preparation, place: Workplace, writer: PartWriter, name: str) -> None:
    """Write the manifest of one part beside its shards; an appended one has the shards before, which lie elsewhere.

    Raises:
        BadData: the source has no rows.
        BadInput: no row is left, the part has none, or its codes are not those of what it is appended to.
    """
    folder, shards = place.data / name, writer.shards.done
    before = asked.before.get(name)
    if not shards and before is None:
        if name:
            reason = f"it got no row of {asked.source}"
            raise BadInput(f"part {name!r} is empty", reason, "Give it a larger share, or split more rows.")
        step = next((step for step in ("filter", "transform") if asked.options.get(step)), None)
        if step is not None:
            reason = f"zero rows of {asked.source} are left"
            raise BadInput(as_command(step, asked.options[step]), reason, "Give one that keeps some.")
        raise empty(asked.source)
    if not shards:
        return
    full = asked.folder(name)
    new = described(shards, name=full.name, source=asked.source, label=asked.label, labels=writer.labels, folder=folder)
    masked = {mask.column for mask in asked.recipe.masks}
    known = {} if asked.recipe.pack else asked.plan.categories
    made = _made(asked, new)
    new = replace(new, categories={c: names for c, names in known.items() if c not in masked}, made={"1": made})
    write(folder, new if before is None else added(before, new, made))


def _made(asked: Preparation, manifest: Manifest) -> dict[str, Any]:
    return {
        "source": asked.source,
        "rows": manifest.rows,
        "shards": len(manifest.shards),
        "created": manifest.created,
        "headway_version": __version__,
        "options": asked.options,
        "notes": asked.plan.notes,
    }


def published(asked: Preparation, place: Workplace) -> dict[str, Manifest]:
    """Give what lies complete in the workplace its name, as far as an earlier process has not. Manifests by part.

    Raises:
        BadInput: the name is taken, or something else was appended meanwhile.
    """
    if asked.before:
        for name in asked.names:
            _appended(asked, place, name)
    elif all((place.data / name / FILE).exists() for name in asked.names):  # else it was, before a crash
        publish(place.data, asked.target, asked.force)
    return {name: load(asked.folder(name)) for name in asked.names}


def _appended(asked: Preparation, place: Workplace, name: str) -> None:
    folder, target = place.data / name, asked.folder(name)
    if not (folder / FILE).exists():  # it got no rows, or was published before a crash
        return
    made, now = load(folder), load(target)
    if now.digest != made.digest:
        if now.version != made.version - 1:
            reason = "something was appended to it while this went on"
            raise BadInput(f"{target} is of version {now.version}", reason, "Append again.")
        for shard in folder.glob("shard-*.parquet"):
            shard.rename(target / shard.name)
        sync_folder(target)
        write(target, made)
    (folder / FILE).unlink()
