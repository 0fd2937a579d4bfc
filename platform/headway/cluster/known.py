"""Clusters that this machine knows of: a folder for each, which only its user may look into.

~/.headway/clusters/NAME/     or below HEADWAY_CLUSTERS
    cluster.yaml              as it was given
    known.json                what is known of it (`Known`)
    token                     what the cluster asks for (0600)
    env                       what lets a shell mean this cluster
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from headway import durable, locks
from headway.cluster.file import ClusterFile, wrong_name
from headway.errors import BadInput, HeadwayError, RunFailed, nearest

VARIABLE = "HEADWAY_CLUSTERS"
FILE, KNOWN, TOKEN, ENVIRONMENT, LOCK = "cluster.yaml", "known.json", "token", "env", ".lock"
BUSY_S = 1.0
"""So long another command on the same cluster is waited for."""


class StillThere(RunFailed):
    """A cluster did not come up, and something of it is still there: it stays known, so that `down` finds it."""


@dataclass(frozen=True)
class Known:
    """What is kept of a cluster.

    Args:
        name: of it.
        kind: `provider.type` of its file.
        since: Unix seconds of the `up` that made it.
        id: tells it from another of the same name, and marks what belongs to it.
        address: of Ray; "" until it is up.
        jobs: URL of its job API; "" until it is up.
        by: who made it, for people.
        place: what the kind needs to find it again, as text (a region, a process).
        variables: more that a shell needs to mean it: Ray's address where drivers here reach it, certificates.
    """

    name: str
    kind: str
    since: float
    id: str = ""
    address: str = ""
    jobs: str = ""
    by: str = ""
    place: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Of this machine, for this cluster."""
        return folder_of(self.name)

    @property
    def file(self) -> Path:
        """The cluster's file, as it was given."""
        return self.folder / FILE

    @property
    def token_file(self) -> Path:
        """Which holds the cluster's token, and is 0600."""
        return self.folder / TOKEN

    @property
    def token(self) -> str:
        """The cluster's token; "" where there is none."""
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def keep_environment(self) -> Path:
        """Write the file that lets a shell mean this cluster; returns its path. Raises OSError."""
        variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            **({"RAY_API_SERVER_ADDRESS": self.jobs} if self.jobs else {}),
            **self.variables,
        }
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
        durable.replace(self.folder / ENVIRONMENT, "".join(lines), 0o600)
        return self.folder / ENVIRONMENT

    def saved(self, **changes: Any) -> Known:
        """The same with changes, kept on disk. Raises OSError."""
        changed = replace(self, **changes)
        durable.replace(self.folder / KNOWN, json.dumps(asdict(changed)) + "\n", 0o600)
        return changed


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of all clusters that are known here.

    Raises:
        BadInput: this user has no home.
    """
    try:
        return Path(environ.get(VARIABLE) or "~/.headway/clusters").expanduser().absolute()
    except RuntimeError:
        raise BadInput("clusters cannot be kept", "this user has no home", f"Set {VARIABLE} to a folder.") from None


def folder_of(name: str) -> Path:
    """Where a cluster is kept, or would be.

    Raises:
        BadInput: none can be called so.
    """
    if wrong := wrong_name(name):
        raise BadInput(f"there is no cluster {name!r}", wrong)
    return home() / name


def make(file: ClusterFile, since: float, by: str, token: str) -> Known:
    """Begin to know a cluster: its folder with its file, and its token.

    Raises:
        OSError: the disk says no.
    """
    folder = folder_of(file.name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    known = Known(file.name, file.kind, since, secrets.token_hex(8), by=by)
    keep_text(known, file.text)
    durable.replace(folder / TOKEN, f"{token}\n", 0o600)
    return known.saved()


def keep_text(known: Known, text: str) -> None:
    """Let this be the cluster's file. Raises OSError."""
    durable.replace(known.file, text, 0o600)


def find(name: str) -> Known | None:
    """What is known of a cluster; None if nothing is.

    Raises:
        BadInput: what is there cannot be read.
    """
    path = folder_of(name) / KNOWN
    try:
        return Known(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "it is not what Headway writes"
        raise BadInput(f"{path} cannot be read", reason, "See what the cloud still has first.") from None


def get(name: str) -> Known:
    """What is known of a cluster.

    Raises:
        BadInput: nothing is; the nearest name is told.
    """
    known = find(name)
    if known is None:
        names = [each.name for each in every()]
        remedy = nearest(name, names) if names else "None is known here. `headway cluster up FILE` starts one."
        raise BadInput(f"no cluster {name!r} is known here", f"it is not in {home()}", remedy)
    return known


def every() -> list[Known]:
    """All that are known, by name; what cannot be read is passed over."""
    found = []
    for path in sorted(home().glob(f"*/{KNOWN}")):
        try:
            found.append(find(path.parent.name))
        except HeadwayError:
            continue
    return [each for each in found if each is not None]


def forget(name: str) -> None:
    """Remove what is known of a cluster, its token too."""
    shutil.rmtree(folder_of(name), ignore_errors=True)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Be the only command that changes a cluster.

    Raises:
        BadInput: another is at it.
    """
    folder_of(name)
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home() / f".{name}{LOCK}").open("w") as file:
        if not locks.taken(file, BUSY_S):
            raise BadInput(f"cluster {name} is being changed", "another command is at it", "Wait until it is done.")
        yield
