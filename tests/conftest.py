"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every machine, and no clock: the machine may be busy with other work.
settings.register_profile("house", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("house")
