"""What machines are worth, and a queue that takes workers: each part of it, see its module in policy_parts/.

python benchmarks/policy.py PART [arguments of the part]
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

PARTS = sorted(path.stem.replace("_", "-") for path in (Path(__file__).parent / "policy_parts").glob("[a-z]*.py"))


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"{__doc__}\nParts: {', '.join(PARTS)}")
    import_module(f"policy_parts.{sys.argv[1].replace('-', '_')}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
