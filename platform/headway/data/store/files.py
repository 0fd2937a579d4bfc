"""Where the bytes of row groups are: what the lane streams ask of a folder of this machine, or of an object store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from headway.data.manifest import Manifest


class Files(Protocol):
    """The shards of one dataset. Methods may be called from many threads."""

    manifest: Manifest

    def path(self, group: int) -> Path:
        """A file of this machine that has the row group's bytes and the shard's footer where the shard has them.

        The rest of the file may be missing (a hole). May block while it is brought.

        Args:
            group: number in the whole dataset.

        Raises:
            BadData: naming the shard and the row group, when they are missing or not as the manifest says.
            RunFailed: the object store does not answer, which says nothing of the data.
        """

    def release(self, group: int, sound: bool = True) -> bool:
        """The file that `path` gave is no longer read: a cache may take it away.

        Args:
            group: as above.
            sound: False if it cannot be read, or has not the bytes that the manifest says.

        Returns:
            Whether it was a copy that will not be given again, so that `path` may give a better one.

        Raises:
            BadInput: the copy cannot be removed.
        """

    def expect(self, groups: Sequence[int]) -> None:
        """These row groups will be asked for, the soonest first. Takes the place of what was said before."""

    def give_up(self) -> None:
        """Nothing more will be waited for: `path` fails where it cannot answer at once. From any thread."""

    def close(self) -> None:
        """Nothing more will be asked for, and no file that `path` gave is read any more."""


class LocalFiles:
    """`Files` of a folder of this machine: the shards themselves.

    Args:
        folder: of the dataset.
        manifest: of the dataset.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self.manifest = folder, manifest

    def path(self, group: int) -> Path:
        return self._folder / self.manifest.locate(group)[0].path

    def release(self, group: int, sound: bool = True) -> bool:
        return False

    def expect(self, groups: Sequence[int]) -> None:
        return

    def give_up(self) -> None:
        return

    def close(self) -> None:
        return
