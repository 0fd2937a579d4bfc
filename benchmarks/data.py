"""The data plane against its peers: rows per second, and what resume, a cold start, an epoch's end and memory cost.

    python benchmarks/data.py [--repeats 5] [--kinds images28,narrow] [--peers ours,mosaic] [--parts rates,resume]

All peers deliver the same rows as shuffled batches of 256 torch tensors (data_peers/rows.py), from local files in a
warm page cache, pinned to one core unless they are made of processes. They are measured by turns, each time in a fresh
process, so that a noisy machine is noisy for all; `load` beside each repeat says how noisy it was. Kinds and
parts that are not measured this time keep their figures in the results.
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
from measure import keep, kept, summary

PEERS = {  # title, module, variant, cores that it is pinned to (None: all, as it is made of several processes)
    "ours": ("Headway", "ours", "", 1),
    "ours_unchecked": ("Headway, digests unchecked", "ours", "no digests", 1),
    "pyarrow": ("raw pyarrow", "raw_pyarrow", "", 1),
    "dataloader": ("DataLoader over Parquet", "dataloader", "0", 1),
    "dataloader_1": ("DataLoader, 1 worker", "dataloader", "1", None),
    "mosaic": ("mosaicml-streaming", "mosaic", "", 1),
    "litdata": ("LitData", "litdata", "", 1),
    "ray_data": ("Ray Data streaming_split", "ray_data", "", None),
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

    from headway.data.manifest import FORMAT
    from headway.data.sets.get import get

    images = environments.CACHE / f"images-{FORMAT.rpartition('/')[2]}"
    train = get("fashion-mnist", images, fallback="mnist-5k").folder / "train"
    reader = Reader(train)
    batches = list(reader.epoch(0))
    reader.close()
    pixels = np.concatenate([batch["image"].numpy() for batch in batches])
    labels = np.concatenate([batch["label"].numpy() for batch in batches])
    for kind in kinds:
        write(kind, folder, pixels, labels)


def made(peers: list[str], kind: Kind, folder: Path) -> dict[str, str]:
    """Write a kind in every peer's own format; why not, by module."""
    reasons: dict[str, str] = {}
    for name in dict.fromkeys(PEERS[peer][1] for peer in ("ours", *peers)):  # others read what ours writes
        module = import_module(f"data_peers.{name}")
        reason = environments.install(module.VERSIONS)
        if reason:
            reasons[name] = f"not installable: {reason}"
            continue
        print(f"{kind.name}, {name} writes", flush=True)
        try:
            environments.run(module.VERSIONS, "data_peers.worker", "make", name, kind.name, str(folder))
        except RuntimeError as error:
            reasons[name] = f"could not write: {error}"
    return reasons


def measured(peers: list[str], kind: Kind, folder: Path, repeats: int, seconds: float) -> dict[str, Any]:
    """Rows per second by peer, measured by turns; every repeat is kept.

    Args:
        peers: to measure.
        kind: of the rows.
        folder: of the source and of every peer's own format.
        repeats: of everything.
        seconds: of each measurement, at least.
    """
    reasons = made(peers, kind, folder)
    found: dict[str, dict[str, Any]] = {peer: {"repeats": []} for peer in peers}
    for repeat in range(-1, repeats):  # the first time it is seen that everybody delivers what they should
        for peer, figures in found.items():
            title, name, variant, cores = PEERS[peer]
            if name in reasons or "reason" in figures:
                figures["reason"] = reasons.get(name) or figures["reason"]
                continue
            arguments = [name, kind.name, str(folder), variant]
            arguments = ["check", *arguments] if repeat < 0 else ["rate", *arguments, str(seconds)]
            versions = import_module(f"data_peers.{name}").VERSIONS
            try:
                said = environments.run(versions, "data_peers.worker", *arguments, cores=cores)
            except RuntimeError as error:
                figures["reason"] = f"failed: {error}"
                continue
            if repeat >= 0:
                figures["repeats"].append(json.loads(said))
            print(f"{kind.name}, {title} {repeat + 1}/{repeats}: {said or 'delivers what it should'}", flush=True)
    return {"peers": found, "ratios": ratios(found), "when": time.strftime("%Y-%m-%d")}


def ratios(by_peer: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times as fast as each peer ours is, by measure, in medians; adds the medians to the figures."""
    for peer, figures in by_peer.items():
        if figures["repeats"]:
            _, name, _, cores = PEERS[peer]
            told = RATES if cores else RATES[:2]  # the CPU time of other processes is not known
            figures |= {rate: summary([r[rate] for r in figures["repeats"]]) for rate in told}
            module = import_module(f"data_peers.{name}")
            figures |= {"settings": module.SETTINGS, "versions": module.VERSIONS, "cores": cores or "all"}
    known = {peer: figures for peer, figures in by_peer.items() if figures["repeats"]}
    if "ours" not in known:
        return {}
    return {
        rate: {
            peer: round(known["ours"][rate]["median"] / figures[rate]["median"], 3)
            for peer, figures in known.items()
            if peer != "ours" and rate in figures
        }
        for rate in RATES
    }


def table(found: dict[str, Any]) -> str:
    """For people: a line for each kind and peer, then one for each other figure."""
    lines = [f"{'rows':10} {'':28} {'rows/s':>14} {'within epochs':>14} {'per CPU s':>14}   ours / it"]
    for kind, figures in found.get("rates", {}).items():
        for peer, f in figures["peers"].items():
            if "rows_per_s" not in f:
                lines.append(f"{kind:10} {PEERS[peer][0]:28} not measured: {f['reason']}")
                continue
            shown = " ".join(f"{f[rate]['median']:14,.0f}" if rate in f else f"{'':14}" for rate in RATES)
            times = [figures["ratios"].get(rate, {}).get(peer) for rate in RATES]
            lines.append(f"{kind:10} {PEERS[peer][0]:28} {shown}   {' / '.join(f'{t:.2f}' for t in times if t)}")
    lines += [f"{part}: {_short(figures)}" for part, figures in found.items() if part != "rates"]
    return "\n".join(lines)


def _short(value: Any) -> str:
    """A tree of figures in one line, medians only."""
    if isinstance(value, dict):
        return _short(value["median"]) if "median" in value else ", ".join(f"{k} {_short(v)}" for k, v in _told(value))
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _told(tree: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in tree.items() if name not in ("repeats", "when")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--parts", default=",".join(("rates", *probes.PARTS)))
    parser.add_argument("--seconds", type=float, default=3, help="that each rate is measured for, at least")
    parser.add_argument("--name", default="data", help="of the file in results/")
    options = parser.parse_args()
    peers, parts = options.peers.split(","), options.parts.split(",")
    if not set(peers) <= set(PEERS) or not set(parts) <= {"rates", *probes.PARTS}:
        parser.error(f"peers are {', '.join(PEERS)}; parts are rates, {', '.join(probes.PARTS)}")
    if not set(options.kinds.split(",")) <= set(KINDS):
        parser.error(f"kinds are {', '.join(KINDS)}")
    kinds = [KINDS[name] for name in options.kinds.split(",")]
    found: dict[str, Any] = kept(options.name).get("found", {})
    what = f"batches of 256 shuffled rows as torch tensors, local and warm, {options.repeats} repeats"
    with tempfile.TemporaryDirectory(prefix="headway-data-") as temporary:
        folder = Path(temporary)
        source(folder, list(KINDS.values()))
        for kind in kinds if "rates" in parts else ():
            rates = measured(peers, kind, folder, options.repeats, options.seconds)
            found["rates"] = {**found.get("rates", {}), kind.name: rates}
            keep(options.name, {"what": what, "targets": TARGETS, "found": found})  # as far as it got
        if not (folder / probes.KIND / "parquet").exists():
            made([], KINDS[probes.KIND], folder)
        for part in (part for part in parts if part != "rates"):
            found[part] = {**probes.PARTS[part](folder, options.repeats), "when": time.strftime("%Y-%m-%d")}
            keep(options.name, {"what": what, "targets": TARGETS, "found": found})
    print(table(found))


if __name__ == "__main__":
    main()
