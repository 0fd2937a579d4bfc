"""Sixteen trials of some 8 s of compute each: what a sweep costs beside its training. About 10 minutes a repeat."""

from __future__ import annotations

import argparse
from typing import Any

from sweep_parts import real


def measure(options: argparse.Namespace) -> dict[str, Any]:
    return real.measure("short", options, repeats=3)
