"""headway data get, headway data prepare, headway data check"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Bring, prepare and check datasets.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; everything else goes to standard error.")]


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="fashion-mnist, mnist-5k, python-source, flights or adult.")],
    dst: Annotated[Path | None, typer.Argument(help="Folder to make. [default: data/NAME]", show_default=False)] = None,
    fallback: Annotated[str | None, typer.Option("--or", metavar="NAME", help="Bring this where NAME fails.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it again, in place of what is there.")] = False,
    json: Json = False,
) -> None:
    """Bring a public set as DST/train and DST/test. Nothing is done where it is there and whole."""
    from headway.data.get import get as bring

    got = bring(name, dst, fallback, force, say=_say if json else print)
    if json:
        parts = {
            part: _shown(got.folder / part, manifest) for part, manifest in (("train", got.train), ("test", got.test))
        }
        _print_json({"name": got.name, "folder": str(got.folder), "fresh": got.fresh, **parts})


@app.command()
def prepare(
    src: Annotated[Path, typer.Argument(help="A file, or a folder of files.")],
    dst: Annotated[Path, typer.Argument(help="Folder to make.")],
    kind: Annotated[
        str | None, typer.Option("--format", help="parquet, csv, jsonl, images or text; guessed when not given.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column that is predicted, counted in the manifest.")] = None,
    image_size: Annotated[str | None, typer.Option(metavar="HxW", help="Resize all images to this.")] = None,
    row_group_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows per row group; by width if not given.")
    ] = None,
    shard_rows: Annotated[int | None, typer.Option(min=1, help="Rows per shard; 256 MiB if not given.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; an embedded one when not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the dataset at DST.")] = False,
    json: Json = False,
) -> None:
    """Turn Parquet, CSV, JSON lines, image folders or text into a dataset, as a Ray Data job."""
    from headway.data.prepare import prepare as make

    manifest = make(
        src,
        dst,
        format=kind,
        label=label,
        row_group_rows=row_group_rows,
        shard_rows=shard_rows,
        image_size=image_size,
        address=address,
        force=force,
    )
    if json:
        _print_json(_shown(dst, manifest))
    else:
        _report(dst, manifest)


@app.command()
def check(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A dataset, or a folder or URL of train and test.")],
    endpoint: Annotated[str | None, typer.Option(help="URL of an S3 service that is not Amazon's.")] = None,
    json: Json = False,
) -> None:
    """Verify every shard of a dataset against its manifest, here or in an object store (s3://, gs://, az://)."""
    from headway.data.manifest import load, verify
    from headway.job import Store

    options, shown = Store(endpoint=endpoint), {}
    for part in _datasets(folder, options):
        manifest = load(part, options=options)
        verify(part, manifest, options)
        shown[part] = _shown(part, manifest)
        if not json:
            _report(part, manifest)
    if json:
        whole = shown.get(folder) or {"folder": folder, **{Path(part).name: found for part, found in shown.items()}}
        _print_json({"ok": True, **whole})


def _datasets(folder: str, options: Any) -> list[str]:
    """The folder or URL, or its train and test where it is the parent of such."""
    from contextlib import closing

    from headway.data.manifest import FILE
    from headway.data.store import open_store

    with closing(open_store(folder, options)) as store:
        if store.exists(FILE):
            return [folder]
        tops = {name.partition("/")[0] for name in store.list() if "/" in name}
        return [f"{folder}/{part}" for part in ("train", "test") if part in tops] or [folder]


def _report(folder: str | Path, manifest: Any) -> None:
    shards, groups = len(manifest.shards), len(manifest.groups)
    print(f"{folder}: good. {manifest.rows:,} rows, {manifest.bytes:,} bytes, {shards} shards, {groups} row groups")
    print("  columns: " + ", ".join(f"{name} {kind}" for name, kind in manifest.schema))
    if manifest.label_counts and len(manifest.label_counts) <= 20:
        print(
            f"  {manifest.label}: " + ", ".join(f"{name} x {count:,}" for name, count in manifest.label_counts.items())
        )


def _shown(folder: str | Path, manifest: Any) -> dict[str, Any]:
    """A manifest as plain values."""
    return {
        "folder": str(folder),
        "name": manifest.name,
        "source": manifest.source,
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


def _print_json(tree: dict[str, Any]) -> None:
    import json

    print(json.dumps(tree))


def _say(message: str) -> None:
    print(message, file=sys.stderr)
