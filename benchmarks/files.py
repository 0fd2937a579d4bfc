"""Files as they are in the world, made at random: how many `prepare` reads as pandas and Pillow do.

    python benchmarks/files.py [--files 1000] [--seed 0]

Each kind of CSV, Parquet, JSON lines, folder of images and tar in tests/files takes its turn, with a seed of its own,
which is printed where something is amiss. A file is

- same: its rows are those of the oracle;
- declined: the oracle reads it, and `prepare` refuses it in words that name file and row or column;
- refused: by both; ours: by the oracle alone;
- different: other rows, and no word of it. There must be none.

Asked: no difference, and 97 % of what the oracle reads prepared.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import keep
from tests.files import images, tables

ASKED = 0.97


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds = [(room, kind) for room in (tables, images) for kind in room.kinds()]
    counts: collections.Counter[str] = collections.Counter()
    amiss, begun = [], time.perf_counter()
    for number in range(options.files):
        room, kind = kinds[number % len(kinds)]
        seed = options.seed + number // len(kinds)
        with tempfile.TemporaryDirectory(prefix="files-") as scratch:
            found = room.case(kind, seed, Path(scratch) / "one")
        counts[found.outcome] += 1
        if found.outcome in ("different", "declined"):
            said = found.made.replace(scratch, "") if isinstance(found.made, str) else "other rows"
            amiss.append({"kind": kind, "seed": seed, "outcome": found.outcome, "said": said})
            print(f"{found.outcome}: {kind}, seed {seed}: {said}")
    read = counts["same"] + counts["declined"] + counts["different"]
    prepared = (read - counts["declined"]) / max(1, read)
    figures = {
        "files": options.files,
        "kinds": len(kinds),
        "seed": options.seed,
        "read_by_the_oracle": read,
        "prepared": counts["same"],
        "prepared_of_those_read": round(prepared, 4),
        "silently_different": counts["different"],
        "outcomes": dict(counts),
        "amiss": amiss,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    print(f"{read} of {options.files} are read by the oracle, {prepared:.1%} of them prepared (asked: {ASKED:.0%}),")
    print(f"{counts['different']} are silently different (asked: 0); {dict(counts)}")
    keep("files", figures)
    if counts["different"] or prepared < ASKED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
