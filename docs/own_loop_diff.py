"""Print the difference between the plain loop and the one on a session; --write puts it into docs/own-loop.md.

python docs/own_loop_diff.py [--write]
"""

from __future__ import annotations

import re
import sys
from difflib import unified_diff
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "own-loop.md"
PLAIN, OWN = "trainers/plain_pytorch.py", "trainers/own_loop/loop.py"


def difference() -> str:
    """What `diff -u` says of the two files, without its dates."""
    before, after = ((ROOT / name).read_text(encoding="utf-8").splitlines(keepends=True) for name in (PLAIN, OWN))
    return "".join(unified_diff(before, after, PLAIN, OWN))


def page() -> str:
    """The page with the difference as it is now."""
    text = PAGE.read_text(encoding="utf-8")
    return re.sub(r"(?s)(?<=```diff\n).*?(?=```\n)", lambda _: difference(), text, count=1)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(difference())
