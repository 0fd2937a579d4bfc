"""What machines do while a run trains: shares and rates over intervals, from readings that grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 64
"""Nodes of which figures are kept: more of them say nothing that these do not."""
COUNTERS = ("received", "sent", "read", "written")
"""Bytes over the network and of the disks, since the machine started."""
LEAST_S = 10.0
PARTS = 256
"""Lines are so far apart that the time so far has about this many of them: the longer a run, the fewer an hour."""

Reading = Mapping[str, Any]
"""Of one machine at one moment: name, cpu_busy_s and cpu_s (of all its cores since it started), memory and memory_all
in bytes, gpus (share that is busy or None, bytes used, bytes), and those of `COUNTERS` that the machine knows."""


@dataclass
class _Node:
    first: Reading
    """With which the interval began."""
    first_at: float
    newest: Reading
    before: Reading
    """The one before the newest."""
    memory: float = 0.0
    """Largest share in the interval."""
    gpu_memory: float = 0.0
    gpu: list[float] = field(default_factory=list)


class Nodes:
    """Figures of all nodes.

    Args:
        began: Unix seconds, when the run was made.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._nodes: dict[str, _Node] = {}
        self._names: dict[str, str] = {}
        """By what tells machines apart."""
        self._line_at: float | None = None

    def take(self, readings: Mapping[str, Reading], at: float) -> None:
        """Newer readings, by what tells machines apart; who is not among them is gone. at: Unix seconds."""
        found = {self._name(key, reading): reading for key, reading in sorted(readings.items())[:MOST]}
        for name in [name for name in self._nodes if name not in found]:
            del self._nodes[name]
        for name, reading in found.items():
            node = self._nodes.get(name)
            if node is None or reading["cpu_s"] < node.newest["cpu_s"]:  # or it was started anew
                node = self._nodes[name] = _Node(reading, at, reading, reading)
            node.before, node.newest = node.newest, reading
            node.memory = max(node.memory, _share(reading["memory"], reading["memory_all"]))
            busy, held = _gpus(reading)
            node.gpu += busy
            node.gpu_memory = max([node.gpu_memory, *held])
        if self._line_at is None:
            self._line_at = at

    def newest(self) -> dict[str, dict[str, float]]:
        """By name, as they are now: cpu, memory, gpu and gpu_memory as shares, and NAME_bytes for each counter."""
        found: dict[str, dict[str, float]] = {}
        for name, node in self._nodes.items():
            reading, (busy, held) = node.newest, _gpus(node.newest)
            told = {"cpu": _cpu(node.before, reading), "memory": _share(reading["memory"], reading["memory_all"])}
            told |= {"gpu": _mean(busy)} if busy else {}
            told |= {"gpu_memory": max(held)} if held else {}
            told |= {f"{counter}_bytes": float(reading[counter]) for counter in COUNTERS if counter in reading}
            found[name] = {key: round(value, 4) for key, value in told.items()}
        return found

    def due(self, at: float) -> bool:
        """Whether it is time for another line."""
        return self._line_at is not None and at - self._line_at >= max(LEAST_S, (at - self._began) / PARTS) * 0.99

    def line(self, at: float) -> dict[str, Any]:
        """What all did since the line before, which begins a new interval: seconds of it, and by name cpu and gpu as
        mean shares, memory and gpu_memory as the largest, and bytes a second for each counter."""
        told: dict[str, Any] = {}
        for name, node in self._nodes.items():
            seconds = at - node.first_at
            if seconds <= 0:
                continue
            figures = {"cpu": _cpu(node.first, node.newest), "memory": node.memory}
            figures |= {"gpu": _mean(node.gpu)} if node.gpu else {}
            figures |= {"gpu_memory": node.gpu_memory} if node.newest.get("gpus") else {}
            told[name] = {key: round(value, 4) for key, value in figures.items()}
            for counter in COUNTERS:
                if counter in node.newest and counter in node.first:
                    told[name][counter] = round(max(0, node.newest[counter] - node.first[counter]) / seconds)
            node.first, node.first_at = node.newest, at
            node.memory, node.gpu_memory, node.gpu = 0.0, 0.0, []
        seconds = at - (self._line_at if self._line_at is not None else at)
        self._line_at = at
        return {"time": at, "seconds": round(seconds, 3), "nodes": told}

    def _name(self, key: str, reading: Reading) -> str:
        """A machine's own name; another one of that name has what tells it apart behind it."""
        name = self._names.get(key)
        if name is None:
            name = str(reading.get("name") or key)
            name = f"{name} {key}" if name in self._names.values() else name
            self._names[key] = name
        return name


def together(line: Mapping[str, Any]) -> dict[str, float]:
    """All nodes of a line of `Nodes.line` as one, under the names that MLflow's page for system metrics knows; four at
    most. Shares are means over the nodes, but of memory the fullest counts; what flows is the sum."""
    nodes: Sequence[Mapping[str, float]] = list(line["nodes"].values())
    if not nodes:
        return {}

    def each(*names: str) -> list[float]:
        return [node[name] for node in nodes for name in names if name in node]

    found = {
        "system/gpu_utilization_percentage": 100 * _mean(each("gpu")) if each("gpu") else None,
        "system/cpu_utilization_percentage": 100 * _mean(each("cpu")),
        "system/system_memory_usage_percentage": 100 * max(each("memory")),
        "system/network_megabytes_per_second": sum(each("received", "sent")) / 1e6,
        "system/disk_megabytes_per_second": sum(each("read", "written")) / 1e6,
    }
    told = [(name, round(value, 3)) for name, value in found.items() if value is not None]
    return dict(told[:4])


def _cpu(before: Reading, after: Reading) -> float:
    return _share(after["cpu_busy_s"] - before["cpu_busy_s"], after["cpu_s"] - before["cpu_s"])


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def _gpus(reading: Reading) -> tuple[list[float], list[float]]:
    """Of all that it has: the busy shares of those that tell, and the shares of memory in use."""
    gpus = reading.get("gpus") or ()
    return [busy for busy, _, _ in gpus if busy is not None], [_share(used, whole) for _, used, whole in gpus]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
