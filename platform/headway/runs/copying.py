"""A run is copied, whole, to another place, where it can be gone on with.

Into a folder it has its name only when all of it is there. In a store its head says that it is being copied, until it
is; what a copy that was broken off left there is removed like a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.durable import replace, sync_folder
from headway.errors import BadCheckpoint, BadInput, HeadwayError, RunFailed
from headway.runs import epochs
from headway.runs.folder import GONE, RunFolder, usable
from headway.runs.place import Place
from headway.runs.stream import is_record

if TYPE_CHECKING:
    from headway.checkpoint.found import Checkpoint
    from headway.runs.far import FarRun
    from headway.storage.protocol import Buffer, Storage

BLOCK_BYTES = 4 << 20
ELSEWHERE = ("ray",)
"""Folders of a run that are no part of it."""
OWN = ("checkpoints", "leaders", "logs")
"""Folders that a store has in a form of its own."""
LOCKS = (".lock", ".records", "tracking.lock", ".copy.json", ".mirror.lock", ".pull.lock", "keeper.json", "now.json")
TRACKED = "tracking.json"
FLUSH_S = 600.0


@dataclass
class Copied:
    """A copy that was made.

    Args:
        run: its name.
        path: its folder or URL.
        files: in it.
        bytes: of them.
        left: why each checkpoint that is damaged was left out.
    """

    run: str
    path: str
    files: int = 0
    bytes: int = 0
    left: list[str] = field(default_factory=list)

    def count(self, size: int) -> None:
        self.files += 1
        self.bytes += size


def copy(run: RunFolder, place: Place, name: str | None = None) -> Copied:
    """Copy a run.

    Args:
        run: that is copied; nobody may lead it meanwhile.
        place: that is to hold the copy.
        name: of the copy; the run's when not given.

    Raises:
        BadInput: a process leads the run, the name is taken there, or nothing can be written there.
        RunFailed: the store did not take all of it; nothing is left there.
    """
    chosen = usable(name) if name is not None else run.name
    with run.still() as is_still:
        if run.far is not None:
            run.pull(leads=True)  # type: ignore[attr-defined]
        if place.url is None:
            return _into_folder(run, place.folder.resolve(), chosen, is_still)
        return _into_store(run, place, chosen, is_still)


def _into_folder(run: RunFolder, folder: Path, name: str, is_still: Callable[[], None]) -> Copied:
    target = folder / name
    if os.path.lexists(target):
        raise BadInput(f"{target} is taken", "a run or a file of that name is there", "Give the copy another: --name.")
    done = Copied(name, str(target))
    with _arriving(target) as beside:
        for path in files(run.path, ELSEWHERE if run.far is None else (*ELSEWHERE, "logs", "leaders")):
            done.count(_copied(path, beside / path.relative_to(run.path)))
        settle(beside, name)
        if run.far is not None:
            _out_of_store(run, beside, done)
        is_still()
    return done


def _out_of_store(run: Any, beside: Path, done: Copied) -> None:
    """What a run in a store has elsewhere than in its records."""
    from headway.storage.folder import FolderStorage

    remote, there = run.remote, FolderStorage(beside)
    for found in remote.storage.list("logs/"):
        done.count(_object(remote.storage, there, found.name, found.bytes))
    _checkpoints(run, there.at("checkpoints/"), done)
    epochs.note(beside, remote.head().epoch)


def _into_store(run: RunFolder, place: Place, name: str, is_still: Callable[[], None]) -> Copied:
    from headway.runs.far import COPYING, FarRun, brief_of, mirror_of

    made = FarRun(place.folder.resolve() / name, place)
    lease = made.begin({"state": COPYING, "created": run.read().get("created", 0.0)})
    done, whole = Copied(name, made.where), False
    try:
        shutil.rmtree(made.path, ignore_errors=True)
        place.claim_folder()
        for path in files(run.path, (*ELSEWHERE, *OWN)):
            if is_record(path.relative_to(run.path).as_posix()):  # else it is no part of the run, wherever it came from
                done.count(_copied(path, made.path / path.relative_to(run.path)))
        settle(made.path, name)
        mirror = mirror_of(made.path, lease, lambda: brief_of(made.path) if whole else None)
        try:
            _shipped(mirror.flush(FLUSH_S), made, mirror.error)
            _logs(run, made, done)
            lease.adopt(_checkpoints(run, made.checkpoint_root, done))
            _verified(made)
            is_still()
            whole = True
        finally:
            shipped = mirror.close(FLUSH_S, release=whole)
        _shipped(shipped, made, mirror.error)
    except BaseException:  # raised again: whatever it was, nothing half is left
        with suppress(HeadwayError, OSError):
            lease.release()
            made.remote.remove()
        shutil.rmtree(made.path, ignore_errors=True)
        raise
    return done


def _shipped(whole: bool, made: FarRun, error: str) -> None:
    if not whole:
        raise RunFailed(f"{made.where} could not be written", error or "it takes too long", "Try again.")


def _logs(run: RunFolder, made: FarRun, done: Copied) -> None:
    from headway.storage.folder import FolderStorage

    source = FolderStorage(run.path) if run.far is None else run.remote.storage  # type: ignore[attr-defined]
    for found in source.list("logs/"):
        done.count(_object(source, made.remote.storage, found.name, found.bytes))


def _verified(made: FarRun) -> None:
    """What the store has is what was copied: brought back once. Raises BadInput, BadData."""
    with tempfile.TemporaryDirectory(prefix="headway-cp-") as temporary:
        back = Path(temporary) / made.name
        made.remote.pull(back)
        for path in files(made.path, (*ELSEWHERE, *OWN)):
            found = back / path.relative_to(made.path)
            if not found.exists() or _digest(found) != _digest(path):
                raise BadInput(f"{made.where} is not what was copied", f"{found.name} is another", "Copy it again.")


def _checkpoints(run: RunFolder, to: Any, done: Copied) -> tuple[str, ...]:
    """Copy the checkpoints that count and are sound; those of an earlier release are written anew. Returns their names
    in the run."""
    from headway.checkpoint import store
    from headway.job import Checkpoint as Policy

    root, names = run.checkpoint_root, []
    for name in store.names(root, run.counting):
        try:
            checkpoint = store.read(root, name)
            if "/" in name:
                _checkpoint(checkpoint, to, done)
                names.append(name)
            elif run.far is None and not isinstance(to, _folders()):
                everything = Policy(keep_last=10**6)
                written = store.Store(to, checkpoint.job, everything, 1, fence=lambda: None)
                made = written.write(checkpoint.step, checkpoint.load(), checkpoint.facts)
                if made is not None:
                    names.append(made.name)
                    done.count(made.bytes)
        except BadCheckpoint as error:
            done.left.append(str(error))
    return tuple(f"checkpoints/{name}" for name in names)


def _checkpoint(checkpoint: Checkpoint, to: Storage, done: Copied) -> None:
    """Copy one, and read it there again. Raises BadCheckpoint where it is damaged; nothing of it is left there then."""
    from headway.checkpoint import found, writing

    here, sizes = to.at(f"{checkpoint.name}/"), []
    try:
        for part, facts in checkpoint.parts.items():
            try:
                sizes.append(_object(checkpoint.place, here, part, facts["bytes"]))
            except (FileNotFoundError, EOFError):
                raise BadCheckpoint(f"{checkpoint.where}/{part} is missing or too short", "it is damaged", "") from None
        sizes.append(_object(checkpoint.place, here, found.MANIFEST))
        found.read(to, checkpoint.name).verify()
    except BadCheckpoint:
        writing.discard(to, checkpoint.name)
        raise
    for size in sizes:
        done.count(size)


def _folders() -> type:
    from headway.storage.folder import FolderStorage

    return FolderStorage


def _object(source: Storage, to: Storage, name: str, size: int | None = None) -> int:
    """An object from one place to another."""
    if size is None or not size:
        content = source.get(name)
        to.put(name, content)
        return len(content)
    return to.upload(name, _blocks(source, name, size))


def _blocks(source: Storage, name: str, size: int) -> Iterator[Buffer]:
    for at in range(0, size, BLOCK_BYTES):
        yield source.read(name, at, min(BLOCK_BYTES, size - at))


@contextmanager
def _arriving(target: Path) -> Iterator[Path]:
    """A folder that has its name only when it is whole. Raises BadInput where it cannot be written."""
    beside = target.with_name(f"{GONE}{target.name}-{uuid.uuid4().hex[:8]}")  # a prune removes what a kill leaves
    try:
        beside.mkdir(parents=True)
        yield beside
        for top, _, _ in os.walk(beside):
            sync_folder(Path(top))
        beside.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, HeadwayError):
            raise
        reason = f"{error.strerror or error}; nothing was left there"
        raise BadInput(f"{target} cannot be written", reason, "Free space, or give another place.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def files(folder: Path, elsewhere: tuple[str, ...] = ELSEWHERE) -> Iterator[Path]:
    """The files of a run in a folder that are its own."""
    for top, folders, names in os.walk(folder):
        if Path(top) == folder:
            folders[:] = [name for name in folders if name not in elsewhere]
            names = [name for name in names if name not in LOCKS]
        yield from (Path(top) / name for name in sorted(names) if not name.startswith(f".{TRACKED}"))


def settle(folder: Path, name: str) -> None:
    """Let a copied run be one of its own: with its name, and nothing of it sent to the MLflow beside it."""
    facts = RunFolder(folder).read()
    replace(folder / "run.json", json.dumps({**facts, "run": name}, indent=1))
    tracked = folder / TRACKED
    if tracked.exists():
        tree = json.loads(tracked.read_text(encoding="utf-8"))
        stores = {uri: sent for uri, sent in tree.get("stores", {}).items() if not uri.startswith("runs folder")}
        replace(tracked, json.dumps({**tree, "stores": stores}))


def _copied(path: Path, to: Path) -> int:
    """A file, read again and compared; returns its bytes. Raises OSError, BadInput."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as source, to.open("xb") as target:
        before = hashlib.sha256()
        while block := source.read(BLOCK_BYTES):
            before.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    if _digest(to) != before.digest():
        raise BadInput(f"{to} is not what was written to it", "the disk altered it", "Check that disk.")
    shutil.copymode(path, to)
    return to.stat().st_size


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
