"""What one machine of a cluster says of itself, for `headway doctor --address`.

Only Python's own library is imported here until the place of the runs is tried: a machine that lacks packages is to say
so.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.tracking.environment import memory_bytes, package_version

ANSWER_S = 2.0
"""So long an address that a file names is knocked at."""
SMI_S = 10.0
AZURES_TAG = "7783-7084-3265-9085-8269-3286-77"
"""What every machine of Azure's has for the number of its case."""
PROBE = "headway-probe-"
"""Begins the names of what is written where runs are kept, and removed again."""


class Examiner:
    """An actor on the machine."""

    def __init__(self) -> None:
        self._storage: Any = None
        self._made: list[Path] = []
        self._mark = ""

    def now(self) -> float:
        """Unix seconds by this machine's clock."""
        return time.time()

    def facts(self, packages: Sequence[str], session: str | None) -> dict[str, Any]:
        """Fields of `headway.core.health.Machine`, but those that Ray knows better.

        Args:
            packages: names of distributions.
            session: Ray's folder on this machine, where it is another than the usual one.
        """
        return {
            "python": platform.python_version(),
            "ray": package_version("ray") or "",
            "packages": {name: package_version(name) for name in packages},
            "disks": disks(session or ray_session()),
            "shared_memory": shared_memory(),
            "memory": memory_bytes(),
            "gpus": gpus(),
            "clusters": [*address_files()],
            "readable": [*readable_tokens()],
            "cloud": cloud(),
            **certificate(time.time()),
        }

    def leave(self, place: str, options: Mapping[str, Any], nonce: str, name: str) -> dict[str, Any]:
        """Write something of this machine's to the place of the runs, and read it again.

        Args:
            place: a URL, or a folder.
            options: how a store is spoken to, where this machine's own settings say nothing.
            nonce: of this examination.
            name: of this machine.

        Returns:
            {"took_s"}, or {"fact", "reason", "remedy"} of what is in the way.
        """
        from headway.errors import HeadwayError

        begin = time.monotonic()
        try:
            self._made = [] if "://" in place else missing(Path(place))
            self._storage, self._mark = opened(place, options), f"{PROBE}{nonce}/{_plain(name)}"
            self._storage.put(self._mark, name.encode())
            if self._storage.get(self._mark) != name.encode():
                return {"fact": f"{place} gives back something else than was written", "reason": "", "remedy": ""}
        except HeadwayError as error:
            return {"fact": error.fact, "reason": error.reason, "remedy": error.remedy}
        except (OSError, ValueError, ImportError) as error:
            return {"fact": f"{place} cannot be tried", "reason": str(error), "remedy": ""}
        return {"took_s": time.monotonic() - begin}

    def seen(self, nonce: str) -> list[str]:
        """Machines that left something there."""
        from headway.errors import HeadwayError

        found: list[str] = []
        with suppress(HeadwayError, OSError):
            found += [self._storage.get(each.name).decode() for each in self._storage.list(f"{PROBE}{nonce}/")]
        return found

    def clear(self) -> None:
        """Remove what this machine left."""
        from headway.errors import HeadwayError

        with suppress(HeadwayError, OSError, AttributeError):
            self._storage.delete([self._mark])
        for folder in self._made:
            with suppress(OSError):  # somebody else put something there
                folder.rmdir()

    def conditional(self) -> dict[str, Any]:
        """Whether the store honours conditions of writes: {}, or {"fact", "reason", "remedy"}."""
        from headway.errors import HeadwayError
        from headway.storage.conditions import demand_conditions

        try:
            demand_conditions(self._storage.at(f"{self._mark.partition('/')[0]}/"))
        except HeadwayError as error:
            return {"fact": error.fact, "reason": error.reason, "remedy": error.remedy}
        return {}


def opened(place: str, options: Mapping[str, Any]) -> Any:
    """The storage of a place, spoken to as this machine's own settings say, and as `options` where they say nothing."""
    from headway import config
    from headway.storage.opener import open_storage
    from headway.storage.options import Options

    own = config.load().store.model_dump(exclude_defaults=True)
    return open_storage(place, Options(**{"retries": 2, **options, **own}))


def missing(folder: Path) -> list[Path]:
    """Of a folder and those above it the ones that are not there, innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def ray_session() -> str:
    """Where Ray keeps its files on this machine."""
    with suppress(ImportError, AttributeError):
        from ray._private import worker

        node: Any = worker._global_node
        return str(node.get_session_dir_path())
    return str(temporary() / "ray")


def temporary() -> Path:
    """Where Ray keeps its files if nothing else is said."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def disks(session: str) -> dict[str, tuple[int, int]]:
    """Free and all bytes of the disks that Ray's and Headway's files are on, each disk once."""
    cache = os.environ.get("HEADWAY_CACHE") or "~/.cache/headway"
    found: dict[int, tuple[str, tuple[int, int]]] = {}
    places = {"Ray's files": session, "temporary files": tempfile.gettempdir(), "Headway's cache": cache}
    for what, place in places.items():
        with suppress(OSError, RuntimeError):
            path = Path(place).expanduser()
            there = next(each for each in (path, *path.parents) if each.exists())
            usage = shutil.disk_usage(there)
            found.setdefault(there.stat().st_dev, (f"{what} ({there})", (usage.free, usage.total)))
    return dict(found.values())


def shared_memory() -> int | None:
    """Bytes of /dev/shm."""
    try:
        return shutil.disk_usage("/dev/shm").total
    except OSError:
        return None


def gpus() -> list[str] | None:
    """Names of the GPUs that the system shows, or of the parts that they were cut into; None where it cannot."""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=SMI_S, check=True).stdout
        return listed_gpus(told)
    except FileNotFoundError:
        found = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        return ["GPU" for _ in found] or None
    except (OSError, subprocess.SubprocessError):  # it is there, and sees nothing: the driver is not well
        return []


def listed_gpus(told: str) -> list[str]:
    """From what `nvidia-smi -L` prints: a line for each, and below it one for each part (MIG)."""
    found: list[tuple[str, list[str]]] = []
    for line in told.splitlines():
        whole, part = re.match(r"GPU \d+: (.*?)(?: \(UUID|$)", line), re.match(r"\s+(MIG \S+)", line)
        if whole:
            found.append((whole[1], []))
        elif part and found:
            found[-1][1].append(part[1])
    return [name for whole, parts in found for name in ([f"{whole} {part}" for part in parts] or [whole])]


def address_files() -> Iterator[tuple[str, str, bool]]:
    """Files in which Ray notes the cluster that was started last: the path, the address, whether somebody listens."""
    for folder in dict.fromkeys([temporary(), Path("/tmp")]):
        path = folder / "ray" / "ray_current_cluster"
        with suppress(OSError, UnicodeDecodeError):
            address = path.read_text().strip()
            if address:
                yield str(path), address, listens(address)


def listens(address: str) -> bool:
    """Whether somebody takes connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True


def readable_tokens() -> Iterator[str]:
    """Files with this user's token for Ray that other users can read."""
    named = [os.environ.get("RAY_AUTH_TOKEN_PATH"), "~/.ray/auth_token"]
    for each in dict.fromkeys(filter(None, named)):
        with suppress(OSError, RuntimeError):
            path = Path(str(each)).expanduser()
            closed = any(not above.stat().st_mode & 0o011 for above in path.parents)
            if path.stat().st_mode & 0o044 and not closed:
                yield str(path)


def cloud(firmware: Path = Path("/sys/class/dmi/id")) -> str:
    """Whose machine this is: aws, gcp, azure; "" where that does not show."""
    told = {}
    for name in ("sys_vendor", "product_name", "chassis_asset_tag"):
        with suppress(OSError, UnicodeDecodeError):
            told[name] = (firmware / name).read_text().strip()
    if told.get("sys_vendor") == "Amazon EC2":
        return "aws"
    if told.get("product_name") == "Google Compute Engine":
        return "gcp"
    return "azure" if told.get("chassis_asset_tag") == AZURES_TAG else ""


def certificate(now: float) -> dict[str, str]:
    """What is to be said of this machine's certificate, where its links are under TLS."""
    from headway import certificates
    from headway.errors import BadInput

    try:
        return {"expires": "; ".join(certificates.check(now))}
    except BadInput as error:
        return {"certificate": f"{error.fact}: {error.reason}"}
    except ImportError as error:
        return {"certificate": f"it cannot be looked at: {error}"}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "machine"
