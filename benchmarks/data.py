"""The data plane against its peers: rows per second, and what resume, a cold start, an epoch's end and memory cost.

    python benchmarks/data.py [--repeats 5] [--kinds images28,narrow] [--peers ours,mosaic] [--parts rates,resume]

All peers deliver the same rows as shuffled batches of 256 torch tensors (data_peers/rows.py), from local files in a warm
page cache, pinned to one core unless they are made of processes. They are measured by turns, each time in a fresh
process, so that a noisy machine is noisy for all; `load` beside each repeat says how noisy it was. What is not measured
this time keeps its figures in the results.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from data_peers import environments, probes
from data_peers.rows import KINDS, Kind, write
from measure import RESULTS, keep, summary

PEERS = {  # title, module, variant
    "ours": ("Headway", "ours", ""),
    "ours_unchecked": ("Headway, digests unchecked", "ours", "no digests"),
    "pyarrow": ("raw pyarrow", "raw_pyarrow", ""),
    "dataloader": ("DataLoader over Parquet", "dataloader", "0"),
    "dataloader_1": ("DataLoader, 1 worker", "dataloader", "1"),
    "mosaic": ("mosaicml-streaming", "mosaic", ""),
    "litdata": ("LitData", "litdata", ""),
    "ray_data": ("Ray Data streaming_split", "ray_data", ""),
}
RATES = ("rows_per_s", "rows_per_s_within_epochs", "rows_per_cpu_s")
TARGETS = {
    "ours / pyarrow": 0.8,
    "ours / mosaic": 2,
    "ours / ray_data": 5,
    "resume_ms": 50,
    "first_batch_ms": 150,
    "epoch_boundary_ms": 20,
    "memory 10x / 1x": 1.05,
    "s3 / local": 0.8,
    "prepare / pyarrow": 0.5,
}


def source(folder: Path, kinds: list[Kind]) -> None:
    """Write the rows as everybody's source."""
    import numpy as np
    from data_peers.ours import Reader

    from headway.data.get import get
    from headway.data.manifest import FORMAT

    images = environments.CACHE / f"images-{FORMAT.rpartition('/')[2]}"
    train = get("fashion-mnist", images, fallback="mnist-5k").folder / "train"
    reader = Reader(train)
    batches = list(reader.epoch(0))
    reader.close()
    pixels = np.concatenate([batch["image"].numpy() for batch in batches])
    labels = np.concatenate([batch["label"].numpy() for batch in batches])
    for kind in kinds:
        write(kind, folder, pixels, labels)


def made(peers: list[str], kinds: list[Kind], folder: Path) -> dict[str, str]:
    """Write every peer's own format; why not, by peer."""
    reasons: dict[str, str] = {}
    for name in sorted({PEERS[peer][1] for peer in peers} | {"ours"}, key=lambda name: name != "ours"):
        module = import_module(f"data_peers.{name}")
        reason = environments.install(module.VERSIONS)
        if reason:
            reasons[name] = f"not installable: {reason}"
            continue
        for kind in kinds:
            print(f"{name} writes {kind.name}", flush=True)
            try:
                environments.run(module.VERSIONS, "data_peers.worker", "make", name, kind.name, str(folder))
            except RuntimeError as error:
                reasons[name] = f"could not write {kind.name}: {error}"
    return reasons


def checked(peers: list[str], kinds: list[Kind], folder: Path, reasons: dict[str, str]) -> dict[str, str]:
    """See that every peer delivers what it should, once; why not, by peer."""
    for peer in peers:
        title, name, variant = PEERS[peer]
        module = import_module(f"data_peers.{name}")
        for kind in kinds:
            if name not in reasons:
                print(f"{title} is checked on {kind.name}", flush=True)
                try:
                    arguments = ["check", name, kind.name, str(folder), variant]
                    environments.run(module.VERSIONS, "data_peers.worker", *arguments, cores=module.CORES)
                except RuntimeError as error:
                    reasons[name] = f"{kind.name} fails its check: {error}"
    return reasons


def rates(peers: list[str], kinds: list[Kind], folder: Path, repeats: int, seconds: float) -> dict[str, Any]:
    """Rows per second by kind and peer, measured by turns; every repeat is kept."""
    reasons = checked(peers, kinds, folder, made(peers, kinds, folder))
    found: dict[str, dict[str, Any]] = {kind.name: {peer: {"repeats": []} for peer in peers} for kind in kinds}
    for repeat in range(repeats):
        for kind in kinds:
            for peer in peers:
                _, name, variant = PEERS[peer]
                module, figures = import_module(f"data_peers.{name}"), found[kind.name][peer]
                if name in reasons or "reason" in figures:
                    figures["reason"] = reasons.get(name) or figures["reason"]
                    continue
                arguments = ["rate", name, kind.name, str(folder), variant, str(seconds)]
                try:
                    said = environments.run(module.VERSIONS, "data_peers.worker", *arguments, cores=module.CORES)
                except RuntimeError as error:
                    figures["reason"] = f"failed: {error}"
                    continue
                figures["repeats"].append(json.loads(said))
                print(f"{repeat + 1}/{repeats} {kind.name}, {PEERS[peer][0]}: {figures['repeats'][-1]}", flush=True)
    return {kind: {"peers": by_peer, "ratios": ratios(by_peer)} for kind, by_peer in found.items()}


def ratios(by_peer: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times as fast as each peer ours is, by measure, in medians; adds the medians to the figures."""
    for peer, figures in by_peer.items():
        if figures["repeats"]:
            figures |= {rate: summary([r[rate] for r in figures["repeats"]]) for rate in RATES}
            module = import_module(f"data_peers.{PEERS[peer][1]}")
            figures |= {"settings": module.SETTINGS, "versions": module.VERSIONS, "cores": module.CORES or "all"}
    measured = {peer: figures for peer, figures in by_peer.items() if figures["repeats"]}
    if "ours" not in measured:
        return {}
    return {
        rate: {
            peer: round(measured["ours"][rate]["median"] / figures[rate]["median"], 3)
            for peer, figures in measured.items()
            if peer != "ours"
        }
        for rate in RATES
    }


def table(found: dict[str, Any]) -> str:
    """For people: a line for each kind and peer, then one for each other figure."""
    lines = [f"{'rows':10} {'':28} {'rows/s':>12} {'within epochs':>14} {'per CPU s':>12}   ours is"]
    for kind, figures in found.get("rates", {}).items():
        for peer, f in figures["peers"].items():
            if "rows_per_s" not in f:
                lines.append(f"{kind:10} {PEERS[peer][0]:28} not measured: {f['reason']}")
                continue
            medians = [f[rate]["median"] for rate in RATES]
            times = figures["ratios"].get("rows_per_s", {}).get(peer)
            shown = f"{medians[0]:12,.0f} {medians[1]:14,.0f} {medians[2]:12,.0f}"
            lines.append(f"{kind:10} {PEERS[peer][0]:28} {shown}   {f'{times:.2f} x' if times else ''}")
    for part, figures in found.items():
        if part != "rates":
            lines.append(f"{part}: " + ", ".join(f"{k} {_short(v)}" for k, v in figures.items()))
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--parts", default=",".join(("rates", *probes.PARTS)))
    parser.add_argument("--seconds", type=float, default=2, help="that each rate is measured for, at least")
    parser.add_argument("--name", default="data", help="of the file in results/")
    options = parser.parse_args()
    peers, parts = options.peers.split(","), options.parts.split(",")
    if not set(peers) <= set(PEERS) or not set(parts) <= {"rates", *probes.PARTS}:
        parser.error(f"peers are {', '.join(PEERS)}; parts are rates, {', '.join(probes.PARTS)}")
    if not set(options.kinds.split(",")) <= set(KINDS):
        parser.error(f"kinds are {', '.join(KINDS)}")
    kinds = [KINDS[name] for name in options.kinds.split(",")]
    results = RESULTS / f"{options.name}.json"
    found: dict[str, Any] = json.loads(results.read_text())["found"] if results.exists() else {}
    what = f"batches of 256 shuffled rows as torch tensors, local and warm, {options.repeats} repeats"
    with tempfile.TemporaryDirectory(prefix="headway-data-") as temporary:
        folder = Path(temporary)
        source(folder, list(KINDS.values()))
        for part in parts:
            if part == "rates":
                fresh = rates(peers, kinds, folder, options.repeats, options.seconds)
                found[part] = {**found.get(part, {}), **fresh}
            else:
                found[part] = probes.PARTS[part](folder, options.repeats)
            found[part]["when"] = time.strftime("%Y-%m-%d")
            keep(options.name, {"what": what, "targets": TARGETS, "found": found})  # as far as it got
    print(table(found))


if __name__ == "__main__":
    main()
