"""A machine's own figures at this moment: cores, memory, GPUs, network and disks (see `headway.core.nodes`).

In a container with limits these are what the container uses of its limits; the network and the disks are the machine's.
Nothing here starts a process, and what a machine does not tell is left out.
"""

from __future__ import annotations

import ctypes
import functools
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LIBRARY = "libnvidia-ml.so.1"
"""NVIDIA's own, which comes with its driver."""


def reading() -> dict[str, Any]:
    """See `headway.core.nodes.Reading`; `key` tells machines (and containers) apart. Takes some milliseconds."""
    import psutil

    found: dict[str, Any] = {"key": _key(), "name": socket.gethostname(), "gpus": gpus()}
    busy_s, whole_s = _cores_of_container() or _cores(psutil)
    found |= {"cpu_busy_s": busy_s, "cpu_s": whole_s}
    memory = psutil.virtual_memory()
    used, whole = _memory_of_container() or (memory.total - memory.available, memory.total)
    found |= {"memory": used, "memory_all": whole}
    with suppress(OSError, RuntimeError):
        network = [each for name, each in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        found |= {"received": sum(n.bytes_recv for n in network), "sent": sum(n.bytes_sent for n in network)}
    with suppress(OSError, RuntimeError, NotImplementedError):
        disks = psutil.disk_io_counters()
        found |= {"read": disks.read_bytes, "written": disks.write_bytes} if disks else {}
    return found


def gpus() -> list[tuple[float | None, int, int]]:
    """Of each that this machine has: the share of the last moments in which it was busy, bytes of memory in use, and
    bytes. Empty without NVIDIA's driver."""
    library = _nvml()
    if library is None:
        return []
    found, count = [], ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    for number in range(count.value):
        device, memory, busy = ctypes.c_void_p(), _Memory(), _Busy()
        if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != 0:
            continue
        if library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
            continue
        told = library.nvmlDeviceGetUtilizationRates(device, ctypes.byref(busy)) == 0  # one that is shared out does not
        found.append((busy.gpu / 100 if told else None, int(memory.used), int(memory.total)))
    return found


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Busy(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


@functools.cache
def _nvml() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(LIBRARY)
        return library if library.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None


@functools.cache
def _key() -> str:
    """One boot of a machine, and what of it is seen from here: a container is one of its own."""
    found = ""
    with suppress(OSError):
        found = BOOT_ID.read_text(encoding="ascii").strip()[:8]
    with suppress(OSError):
        found += "-" + "".join(filter(str.isdigit, Path("/proc/self/ns/pid").readlink().name))
    return found or socket.gethostname()


def _cores(psutil: Any) -> tuple[float, float]:
    times = psutil.cpu_times()._asdict()
    whole = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # which are in others as well
    return whole - times["idle"] - times.get("iowait", 0.0), whole


def _cores_of_container() -> tuple[float, float] | None:
    """Where it may use so many cores only."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        used = (CGROUP / "cpu.stat").read_text(encoding="ascii").split()
        return int(used[used.index("usage_usec") + 1]) / 1e6, time.monotonic() * int(quota) / int(period)
    except (OSError, ValueError, IndexError, ZeroDivisionError):
        return None


def _memory_of_container() -> tuple[int, int] | None:
    """Where it may use so much only. Files that the system keeps in memory while there is room are not in use."""
    try:
        whole = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = (CGROUP / "memory.stat").read_text(encoding="ascii").split()
        return used - int(stat[stat.index("inactive_file") + 1]), whole
    except (OSError, ValueError, IndexError):
        return None
