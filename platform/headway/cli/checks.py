"""What `headway doctor` looks at. Each check gives findings; one that breaks is itself a finding."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.metadata import requires
from pathlib import Path

from headway.core.health import Finding, Level
from headway.errors import BadInput, HeadwayError
from headway.runs import Place
from headway.tracking.environment import memory_bytes, package_version

GIB = 1 << 30
PYTHON = (3, 11)
DISK = (GIB // 2, 5 * GIB)  # less fails, less warns
MEMORY = 2 * GIB
SHARED_MEMORY = GIB
THRESHOLD = "RAY_memory_usage_threshold"
RAY_THRESHOLD = 0.95
CONTAINER = ("/.dockerenv", "/run/.containerenv")
EXTRAS = {"images": ("pillow", "image folders and image recipes")}


def examine(runs: Place) -> Iterator[Finding]:
    """All checks, cheap ones first."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        python,
        packages,
        extras,
        machine,
        lambda: disk(runs),
        lambda: store(runs),
        shared_memory,
        kept_states,
        devices,
        loopback,
        ray_runtime,
    ]
    names = [
        "python",
        "packages",
        "extras",
        "machine",
        "disk",
        "store",
        "shared memory",
        "kept states",
        "torch",
        "gloo",
        "ray",
    ]
    for name, check in zip(names, checks, strict=True):
        try:
            yield from check()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            yield Finding(
                name, "fail", f"{type(error).__name__}: {reason}", "Install Headway again in a fresh environment."
            )


def python() -> Iterator[Finding]:
    """Python's version."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= PYTHON:
        yield Finding("python", "ok", found)
    else:
        yield Finding("python", "fail", found, f"Use Python {PYTHON[0]}.{PYTHON[1]} or newer.")


def packages() -> Iterator[Finding]:
    """Installed packages against what this Headway was made for."""
    from packaging.requirements import Requirement

    for line in requires("headway") or []:
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        found = package_version(need.name)
        fine = found is not None and need.specifier.contains(found, prereleases=True)
        remedy = "" if fine else f"pip install '{need}'"
        yield Finding(need.name, "ok" if fine else "fail", found or "not installed", remedy)


def extras() -> Iterator[Finding]:
    """Optional packages."""
    for extra, (package, use) in EXTRAS.items():
        found = package_version(package)
        remedy = "" if found else f"For {use}: pip install 'headway[{extra}]'"
        yield Finding(f"extra {extra}", "ok" if found else "warn", f"{package} {found or 'not installed'}", remedy)


def machine() -> Iterator[Finding]:
    """Cores and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", "ok", f"{cores} usable")
    memory = memory_bytes()
    if memory is None:
        yield Finding("memory", "warn", "unknown")
        return
    remedy = "" if memory >= MEMORY else "Ray and one worker want about 2 GiB; use fewer workers or a larger machine."
    yield Finding("memory", "warn" if remedy else "ok", f"{memory / GIB:.1f} GiB", remedy)


def disk(place: Place) -> Iterator[Finding]:
    """Free space, and the right to write, where runs are kept, or their working copies."""
    runs = place.folder.resolve()
    standing = next(folder for folder in (runs, *runs.parents) if folder.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        yield Finding("runs folder", "fail", f"{standing} cannot be written", "Choose another with --runs.")
        return
    free = shutil.disk_usage(standing).free
    level: Level = "fail" if free < DISK[0] else "warn" if free < DISK[1] else "ok"
    remedy = "" if level == "ok" else "Free some space, or choose another disk with --runs."
    yield Finding("runs folder", level, f"{free / GIB:.1f} GiB free for {runs}", remedy)


def store(place: Place) -> Iterator[Finding]:
    """Whether the store that is to hold runs answers, and honours conditions of writes."""
    if place.url is None:
        return
    from headway.runs.far import storage_of
    from headway.storage.conditions import demand_conditions

    try:
        demand_conditions(storage_of(place.url))
    except HeadwayError as error:
        yield Finding("runs store", "fail", f"{error.fact}: {error.reason}", error.remedy)
        return
    yield Finding("runs store", "ok", f"{place.url} can be written, with conditions")


def shared_memory() -> Iterator[Finding]:
    """/dev/shm, where Ray keeps objects."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        yield Finding("shared memory", "warn", "no /dev/shm", "Ray keeps objects on disk instead, which is slow.")
        return
    size = shutil.disk_usage(folder).total
    remedy = "" if size >= SHARED_MEMORY else "Ray goes to disk, which is slow. In a container: --shm-size=2g or more."
    yield Finding("shared memory", "warn" if remedy else "ok", f"{size / GIB:.1f} GiB", remedy)


def kept_states() -> Iterator[Finding]:
    """Whether a keeper can hold a worker's newest state, and what it would die with. It takes nothing of /dev/shm."""
    from headway.elastic.worker import keeper, shelf

    off = "The newest state is as far away as a checkpoint then; checkpoint.memory_every: null says so."
    if not hasattr(os, "memfd_create"):
        yield Finding("kept states", "warn", "this system has no memory without a name", off)
        return
    try:
        os.close(os.memfd_create("headway-doctor"))
        keeper.folder()
    except OSError as error:
        yield Finding("kept states", "warn", str(error), off)
        return
    total, used = shelf.memory()
    room = max(0.0, shelf.TIGHT * total - used)
    told = f"room for {room / GIB:.1f} GiB, below where Ray ends workers for want of memory"
    if any(Path(mark).exists() for mark in CONTAINER):
        yield Finding("kept states", "ok", f"{told}; this is a container, which takes them along when it ends")
    else:
        yield Finding("kept states", "ok", told)
    threshold = float(os.environ.get(THRESHOLD, RAY_THRESHOLD))
    if threshold < shelf.TIGHT:
        reason = f"{THRESHOLD}={threshold:g}: Ray would end workers before a keeper lacks memory"
        yield Finding("ray's memory monitor", "warn", reason, f"Set it to more than {shelf.TIGHT:g}, or leave it out.")


def devices() -> Iterator[Finding]:
    """What torch computes with."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("devices", "ok", ", ".join(["cpu", *gpus]))
    yield Finding("torch threads", "ok", f"{torch.get_num_threads()}; workers use workers.cpus each")


def loopback() -> Iterator[Finding]:
    """A group of one process over gloo: workers talk to each other this way."""
    import torch
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(str(Path(folder) / "store"), 1)  # type: ignore[attr-defined]
        try:
            dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=10))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            yield Finding("gloo", "fail", reason, "Name a working interface: GLOO_SOCKET_IFNAME=lo or eth0.")
            return
        try:
            total = torch.ones(1)
            dist.all_reduce(total)
        finally:
            dist.destroy_process_group()
    yield Finding("gloo", "ok", "a group of one process works")


def ray_runtime() -> Iterator[Finding]:
    """Ray's version, where runs go, and whether Ray's sockets have room."""
    import ray

    from headway.driver import attach, embedded

    yield Finding("ray import", "ok", ray.__version__)
    try:
        folder, note = embedded.temporary()
        yield Finding("ray sockets", "ok" if folder is None else "warn", note or "the temporary folder's path is short")
    except BadInput as error:
        yield Finding("ray sockets", "fail", f"{error.fact}: {error.reason}", error.remedy)

    try:
        goes = attach.where(None)
        if goes.address is None:
            yield Finding("ray cluster", "ok", "runs start a Ray of their own here" + _joinable())
        else:
            address = attach.find(goes) if goes.address == "auto" else goes.address
            attach.knock(address, goes.said)
            yield Finding("ray cluster", "ok", f"runs go to {address}, which answers ({goes.said})")
    except BadInput as error:
        reason = f"{error.fact}: {error.reason}"
        yield Finding("ray cluster", "warn", reason, f"{error.remedy} Unset RAY_ADDRESS to run on this machine.")


def _joinable() -> str:
    """What `--address auto` would do, in words."""
    from headway.driver import attach

    try:
        return f"; --address auto joins {attach.find(attach.Where('auto', ''))}"
    except BadInput:
        return "; no other runs here"
