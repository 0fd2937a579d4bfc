"""What each way of synchronising costs and gives, from real runs of small jobs through the product's engine.

    python benchmarks/strategies.py stragglers|compression|diloco|churn|faults|all [--smoke] [--seeds 3]

Workers are processes of this machine, without Ray. Where links are shaped (tbf, in network namespaces; needs root) and
where computing is emulated by sleeping, the output says so. `--smoke` is a form of seconds that keeps nothing; figures
of the whole forms are kept as they come, in results/strategies.json.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from strategies_parts.told import Book, say

PARTS = ("diloco", "compression", "faults", "stragglers", "churn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    modules = {name: importlib.import_module(f"strategies_parts.{name}") for name in PARTS}
    for name in (*PARTS, "all"):
        one = parts.add_parser(name, help=(modules[name].__doc__ or "").split("\n")[0] if name != "all" else "each")
        one.add_argument("--smoke", action="store_true", help="in seconds, to see that it works; keeps nothing")
        one.add_argument("--dry", action="store_true", help="keep nothing")
        one.add_argument("--add", action="store_true", help="to the figures that are kept, in place of anew")
        one.add_argument("--out", type=Path, help="where figures are kept (results/strategies.json)")
        one.add_argument("--seeds", type=int, help="runs of each (3; 1 in the smoke)")
        for each in modules.values() if name == "all" else [modules[name]]:
            each.arguments(one)
    options = parser.parse_args()
    options.seeds = options.seeds or (1 if options.smoke else 3)
    keeping = {"file": options.out} if options.smoke or options.dry or options.out else {}
    chosen = PARTS if options.part == "all" else [options.part]
    if "compression" in chosen:
        modules["compression"].prepare(options)
    misses = []
    for name in chosen:
        say(f"--- {name}: {(modules[name].__doc__ or '').strip()}\n")
        book = Book(name, add=options.add, **keeping)
        modules[name].main(options, book)
        misses += [f"{name}: {miss}" for miss in book.misses]
        say("")
    if misses:
        say("missed:\n  " + "\n  ".join(misses))


if __name__ == "__main__":
    main()
