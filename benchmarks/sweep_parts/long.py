"""Sixteen trials of a minute of compute each, of which ASHA cuts most short. About 15 minutes a repeat."""

from __future__ import annotations

import argparse
from typing import Any

from sweep_parts import real


def measure(options: argparse.Namespace) -> dict[str, Any]:
    return real.measure("long", options, repeats=1)
