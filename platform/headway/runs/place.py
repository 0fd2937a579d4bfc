"""Where runs are kept: a folder, or the URL of an object store."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from headway.errors import BadInput

CACHE = "HEADWAY_CACHE"
DEFAULT = "runs"
REQUESTS = ".requests"
"""In a folder of runs: what is asked of whoever leads one, see `headway.runs.requests`."""
SWEEP, SWEEP_FACTS = "sweep", "sweep.json"
"""In a folder of runs: a sweep's own folder has this file, and in a store a head of this kind; see
`headway.sweeps.folder`."""
MACHINE = ".machine"
"""Beside working copies: a word for what only this machine has of them, see `headway.tracking.mlflow_writer`."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)")


@dataclass(frozen=True)
class Place:
    """A place that holds runs.

    Args:
        said: as it was given, for people.
        folder: that holds the runs; of a URL, the one on this machine that holds their working copies.
        url: of an object store, without a "/" at its end; None for a folder.
    """

    said: str
    folder: Path
    url: str | None = None

    @classmethod
    def of(cls, asked: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Place:
        """The place that was asked for; else of HEADWAY_RUNS, else of the user's config file, else the folder "runs".

        Raises:
            BadInput: it is no folder, and no URL that runs can be kept at.
        """
        if asked is None or asked == "":
            from headway import config

            asked = config.load(environ).runs or DEFAULT
        if isinstance(asked, str) and is_url(asked.strip()):
            asked = asked.strip()  # as it comes out of a file of variables
        if not is_url(asked):
            return cls(str(asked), local_folder(asked, "runs cannot be kept"))
        scheme, slashes = _parts(str(asked))
        if len(slashes) < 2:
            rest = str(asked).partition(":")[2].lstrip("/")
            remedy = f"Write it, as text, as {scheme}://{rest}. (A Path cannot hold a URL.)"
            raise BadInput(f"runs cannot be kept in {asked}", "it is a URL with a slash too few", remedy)
        from headway import config
        from headway.storage.opener import clean_url

        url, endpoint = clean_url(str(asked)), config.load(environ).store.endpoint
        return cls(url, cache_folder(environ) / "runs" / slug(url, endpoint), url)

    def __str__(self) -> str:
        return self.said

    def claim_folder(self) -> None:
        """Make the folder of a URL's working copies, with a name of its own for what is kept beside them. Raises
        BadInput."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / MACHINE).exists():
                with suppress(FileExistsError), (self.folder / MACHINE).open("x", encoding="utf-8") as file:
                    file.write(uuid.uuid4().hex[:12])
        except OSError as error:
            reason = error.strerror or str(error)
            remedy = f"Free space, or set {CACHE} to a folder that can be written."
            raise BadInput(f"no working copies of runs can be kept in {self.folder}", reason, remedy) from None

    def place_of(self, name: str) -> str:
        """Where a run of that name is, for people."""
        return f"{self.url}/{name}" if self.url else str(self.folder.resolve() / name)


def is_url(place: str | Path) -> bool:
    """Whether this names an object store, and no folder: file:// is one, and so is a name with a colon in it."""
    return _parts(str(place))[0].lower() not in ("", "file")


def local_folder(place: str | Path, fact: str) -> Path:
    """The folder that a path or a file:// URL names; BadInput where it is another URL."""
    text = str(place)
    if is_url(text):
        raise BadInput(f"{fact} in {text}", "it is a URL, and a folder of this machine is wanted", "Give a folder.")
    if text.lower().startswith("file:"):
        address = urlsplit(text)
        if address.netloc not in ("", "localhost"):
            raise BadInput(f"{fact} in {text}", f"{address.netloc} is another machine", "Write it as file:///FOLDER.")
        return Path(unquote(address.path))
    return Path(place)


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Headway keeps on this machine what it can get again. Raises BadInput where there is no such place."""
    try:
        return Path(environ.get(CACHE) or "~/.cache/headway").expanduser()
    except RuntimeError:  # as in containers, whose users may have no name
        raise BadInput("this user has no home folder", "", f"Set {CACHE} to a folder that can be written.") from None


def _parts(place: str) -> tuple[str, str]:
    """A URL's scheme, and the slashes behind it; both empty for a path."""
    found = _URL.match(place)
    return (found[1], found[2]) if found is not None else ("", "")


def split(run: str) -> tuple[str, str]:
    """The URL of a run as that of the place, and the run's name."""
    place, _, name = run.rstrip("/").rpartition("/")
    if place.endswith(":/"):
        raise BadInput(f"{run} is no run", "it names a bucket only", f"Write it like {run.rstrip('/')}/runs/NAME.")
    return place, name


def slug(url: str, endpoint: str | None = None) -> str:
    """A folder's name for a URL, readable and of its own; endpoint: of the service, where it is not the cloud's."""
    digest = hashlib.sha256(f"{endpoint} {url}".encode() if endpoint else url.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', url)[:80].strip('-')}-{digest}"
