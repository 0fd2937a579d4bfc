"""A folder of this machine as a store."""

from __future__ import annotations

import os
from pathlib import Path

from headway.data.store.protocol import truncated
from headway.errors import BadData


class Folder:
    """`Store` of a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.url, self._folder = str(folder), folder

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            with (self._folder / name).open("rb") as file:
                file.seek(offset)
                content = file.read() if length is None else file.read(length)
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadData(f"{self._folder / name} cannot be read", reason, "Give a readable dataset.") from None
        if length is not None and len(content) != length:
            raise truncated(str(self._folder / name), self.size(name), offset + length)
        return content

    def size(self, name: str) -> int:
        path = self._folder / name
        if path.is_dir():
            raise BadData(f"{path} cannot be read", "it is a folder; a file should be there", "Give a whole dataset.")
        return path.stat().st_size

    def exists(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def list(self) -> list[str]:
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self._folder).as_posix() for path in files)

    def write(self, name: str, content: bytes | Path) -> None:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        return
