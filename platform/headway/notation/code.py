"""How code is named in a job: file.py:name, or package.module:name."""

from __future__ import annotations

import re

FILE = re.compile(r"^(?P<where>.+\.py):(?P<name>[A-Za-z_]\w*)$")
MODULE = re.compile(r"^(?P<where>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)$")


def is_named(text: str) -> bool:
    """Whether it is `file.py:name` or `package.module:name`, and no folder or URL."""
    return bool(FILE.match(text) or MODULE.match(text))
