"""Small sets, made here, for the scripts beside this file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def churn(path: Path, rows: int = 2000) -> Path:
    """A CSV with two numbers, a category, and what is predicted from them."""
    random = np.random.default_rng(0)
    age, spend, plan = random.integers(18, 80, rows), random.gamma(2.0, 30.0, rows), random.integers(0, 3, rows)
    odds = 0.05 * (age - 45) - 0.03 * (spend - 60) + 1.5 * (plan == 2)
    churned = random.random(rows) < 1 / (1 + np.exp(-odds))
    names = np.array(["basic", "plus", "trial"])[plan]
    lines = [f"{a},{s:.2f},{p},{int(c)}" for a, s, p, c in zip(age, spend, names, churned, strict=True)]
    path.write_text("\n".join(["age,spend,plan,churned", *lines, ""]))
    return path


def ring(path: Path, rows: int = 2048) -> Path:
    """Points on a ring, float32 [rows, 2]."""
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, rows)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(0, 0.05, (rows, 2))
    np.save(path, points.astype(np.float32))
    return path


def tokens(path: Path, rows: int = 256, length: int = 16) -> Path:
    """JSON lines of token ids and a label: whether there are more small ids than large ones."""
    random = np.random.default_rng(0)
    ids = random.integers(0, 100, (rows, length))
    found = [{"input_ids": row.tolist(), "labels": int((row < 50).sum() > length / 2)} for row in ids]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path
