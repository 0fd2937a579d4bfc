"""headway data get, headway data prepare, headway data cp, headway data check, headway data stats, headway data head"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from headway.errors import INTERRUPTED


class _Group(typer.core.TyperGroup):
    """`prepare` gets its options when it is asked for: to read them imports Arrow, which other commands do without."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name != "prepare":
            return super().get_command(ctx, cmd_name)
        from headway.cli.sections import with_options

        alone = typer.Typer(add_completion=False)
        alone.command("prepare")(with_options(_prepare))
        return typer.main.get_command(alone)


app = typer.Typer(help="Bring, prepare, check and look into datasets.", no_args_is_help=True, cls=_Group)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; everything else goes to standard error.")]
OURS = re.compile(r"[^/._][^/]*/(manifest(-\d+)?\.json|shard-\d+\.parquet)")
Endpoint = Annotated[str | None, typer.Option(help="URL of an S3 service that is not Amazon's.")]


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="fashion-mnist, mnist-5k, python-source, flights or adult.")],
    dst: Annotated[Path | None, typer.Argument(help="Folder to make. [default: data/NAME]", show_default=False)] = None,
    fallback: Annotated[str | None, typer.Option("--or", metavar="NAME", help="Bring this where NAME fails.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it again, in place of what is there.")] = False,
    json: Json = False,
) -> None:
    """Bring a public set as DST/train and DST/test. Nothing is done where it is there and whole."""
    from headway.data.sets.get import get as bring

    got = bring(name, dst, fallback, force, say=_say if json else print)
    if json:
        parts = {
            part: _shown(got.folder / part, manifest) for part, manifest in (("train", got.train), ("test", got.test))
        }
        _print_json({"name": got.name, "folder": str(got.folder), "fresh": got.fresh, **parts})


@app.command()
def prepare() -> None:
    """Its place among the commands; see `_Group` for what it is."""


def _prepare(
    src: Annotated[Path, typer.Argument(help="A file, or a folder of files.")],
    dst: Annotated[Path, typer.Argument(help="Folder to make.")],
    json: Json = False,
    **options: Any,
) -> None:
    """Turn Parquet, CSV, JSON lines, image folders, WebDataset tars or text into a dataset, as a Ray Data job.

    After a crash the same command goes on where it was.
    """
    from headway.cli.progress import shown
    from headway.cli.sections import given
    from headway.data.prepare.options import as_command, checked
    from headway.data.prepare.whole import prepared

    asked = checked(given(options), as_command)
    try:
        with shown() as progress:
            parts = prepared(src, dst, asked, progress)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where this one ended.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if json:
        found = {name: _shown(dst / name, manifest) for name, manifest in parts.items()}
        _print_json(found[""] if "" in found else {"folder": str(dst), **found})
        return
    for name, manifest in parts.items():
        _report(dst / name, manifest)


@app.command()
def cp(
    src: Annotated[str, typer.Argument(help="A dataset, or a folder or URL of such.")],
    dst: Annotated[str, typer.Argument(help="Folder or URL of the copy.")],
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Copy a dataset: to an object store, to a folder, or between two. It is read once at its new place."""
    from headway.data.copying import copy
    from headway.job import Store

    options, shown, to = Store(endpoint=endpoint), {}, dst.rstrip("/") or "/"
    src = src.rstrip("/") or "/"
    for part in _datasets(src, options):
        place = to + part.removeprefix(src)
        manifest = copy(part, place, options, tell=_say)
        shown[place] = _shown(place, manifest)
        if not json:
            _report(place, manifest)
    if json:
        _print_json(_whole(to, shown))


@app.command()
def check(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A dataset, or a folder or URL of such.")],
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Verify every version, shard and row group of a dataset against its manifest, also in an object store."""
    from headway.data.manifest import load, verify, verify_versions
    from headway.job import Store

    options, shown = Store(endpoint=endpoint), {}
    for part in _datasets(folder, options):
        manifest = load(part, options=options)
        verify_versions(part, manifest, options)
        verify(part, manifest, options)
        shown[part] = _shown(part, manifest)
        if not json:
            _report(part, manifest)
    if json:
        _print_json({"ok": True, **_whole(folder, shown)})


@app.command()
def stats(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A dataset, or a folder of such.")],
    versions: Annotated[bool, typer.Option("--versions", help="Only the versions, and how each was made.")] = False,
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Show what is in a dataset: each column's values, the labels, the sizes of its files, its versions."""
    from headway.cli.tables import columns_table, sizes_table, versions_table
    from headway.data.stats import described
    from headway.job import Store

    options = Store(endpoint=endpoint)
    found = {part: described(part, not versions, options) for part in _datasets(folder, options)}
    if json:
        _print_json(_whole(folder, found))
        return
    for part, of in found.items():
        print(f"{part}: version {of['version']}, {of['rows']:,} rows, {of['bytes']:,} bytes")
        if not versions:
            _print(sizes_table(of), columns_table(of))
            if of["label_counts"]:
                print(f"  {of['label']}: " + _labels(of["label_counts"], of["categories"].get(of["label"])))
        _print(versions_table(of))


@app.command()
def head(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A dataset.")],
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many rows.")] = 5,
    columns: Annotated[str | None, typer.Option(metavar="COLUMN,...", help="Which columns; all by default.")] = None,
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Show the first rows of a dataset."""
    from headway.cli.tables import rows_table
    from headway.data.stats import first_rows
    from headway.job import Store

    options = Store(endpoint=endpoint)
    for part in _datasets(folder, options):
        found = first_rows(part, rows, columns.split(",") if columns else None, options)
        if json:
            for row in found:
                _print_json(row)
        else:
            print(part)
            _print(rows_table(found))


def _datasets(folder: str, options: Any) -> list[str]:
    """The folder or URL, or the datasets in it where it is the parent of such."""
    from contextlib import closing

    from headway.data.manifest import FILE
    from headway.data.store.opener import open_store

    folder = folder.rstrip("/") or "/"
    with closing(open_store(folder, options)) as store:
        if store.exists(FILE):
            return [folder]
        tops = {name.partition("/")[0] for name in store.list() if OURS.fullmatch(name)}  # one may lack its manifest
    return [f"{folder}/{part}" for part in sorted(tops)] or [folder]


def _whole(folder: str, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was found of the datasets of a folder as one tree: of the folder itself, or by their names in it."""
    folder = folder.rstrip("/") or "/"
    return found.get(folder) or {"folder": folder, **{Path(part).name: of for part, of in found.items()}}


def _report(folder: str | Path, manifest: Any) -> None:
    shards, groups = len(manifest.shards), len(manifest.groups)
    print(f"{folder}: good. {manifest.rows:,} rows, {manifest.bytes:,} bytes, {shards} shards, {groups} row groups")
    print("  columns: " + ", ".join(f"{name} {kind}" for name, kind in manifest.schema))
    if manifest.version > 1:
        print(f"  version: {manifest.version}")
    if manifest.label_counts and len(manifest.label_counts) <= 20:
        print(f"  {manifest.label}: " + _labels(manifest.label_counts, None))


def _labels(counts: dict[str, int], names: list[str] | None) -> str:
    """Values and how often they occur, the first 20."""
    listed = [
        f"{names[int(value)] if names and value.isdecimal() and int(value) < len(names) else value} x {count:,}"
        for value, count in list(counts.items())[:20]
    ]
    return ", ".join(listed) + (f", and {len(counts) - 20:,} more" if len(counts) > 20 else "")


def _shown(folder: str | Path, manifest: Any) -> dict[str, Any]:
    """A manifest as plain values."""
    return {
        "folder": str(folder),
        "name": manifest.name,
        "source": manifest.source,
        "version": manifest.version,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "shards": len(manifest.shards),
        "row_groups": len(manifest.groups),
        "schema": dict(manifest.schema),
        "label": manifest.label,
        "label_counts": manifest.label_counts,
        "categories": manifest.categories,
        "digest": manifest.digest,
    }


def _print(*tables: Any) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 1000)
    for table in tables:
        console.print(table)


def _print_json(tree: dict[str, Any]) -> None:
    import json

    print(json.dumps(tree, default=str))


def _say(message: str) -> None:
    print(message, file=sys.stderr)
