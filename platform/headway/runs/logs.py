"""What a worker wrote, on its way from its machine to the store that holds the run; a program of its own."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from headway.runs.far import LOGS, open_run
from headway.storage.protocol import Storage

EARLIER_BYTES = 1 << 20
"""The newest of what earlier workers of one name wrote."""
BEGIN_BYTES = 256
"""By which logs are told apart: they begin with a time and a process."""


def ship(far: str, files: list[Path], remove: bool = False) -> None:
    """Put the files of a log into the run's logs. What another worker of that name has there, in an earlier start or on
    another machine, is kept in NAME.earlier.log.

    Args:
        far: see `headway.runs.RunFolder.far`, as JSON.
        files: on this machine.
        remove: they are not wanted here any more.
    """
    storage = open_run(json.loads(far)).storage
    if files and not files[0].stem.endswith((".end", ".old")):
        _keep_earlier(storage, files[0])
    for path in files:
        with suppress(FileNotFoundError):
            storage.put(f"{LOGS}{path.name}", path.read_bytes())
    for path in files if remove else ():
        path.unlink(missing_ok=True)
    if remove and files:
        with suppress(OSError):  # others write there
            for folder in list(files[0].parents)[:3]:
                folder.rmdir()


def _keep_earlier(storage: Storage, log: Path) -> None:
    """Have the log of another worker out of the way of this one's. log: its first file."""

    def there(kind: str) -> bytes:
        with suppress(FileNotFoundError):
            return storage.get(f"{LOGS}{log.stem}{kind}.log")
        return b""

    before = there("")
    with suppress(FileNotFoundError):
        if log.read_bytes()[:BEGIN_BYTES].startswith(before[:BEGIN_BYTES]):
            return
        ends = (".end.old", ".end")
        content = b"".join((there(".earlier"), before, *map(there, ends)))
        storage.put(f"{LOGS}{log.stem}.earlier.log", content[-EARLIER_BYTES:])
        storage.delete([f"{LOGS}{log.stem}{kind}.log" for kind in ("", *ends)])


def main() -> None:
    far, *rest = sys.argv[2:]
    files = [Path(name) for name in rest if name != "--remove"]
    ship(far, files, "--remove" in rest)
