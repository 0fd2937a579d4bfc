"""A run's account over time, and the bytes that its workers exchanged: kept in few lines, of all starts together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headway.runs import accounts


def kept(lines: list[dict[str, Any]], folder: Path) -> None:
    (folder / accounts.FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_few_lines_of_many_accounts() -> None:
    lines: list[dict[str, Any]] = []
    made = accounts.Accounts(lines.append, begun=100.0)
    for second in range(20):
        made.look(100.0 + second, second, lambda: ({"compute": 1.0}, 7))
    assert 5 < len(lines) <= 11
    assert lines[0] == {"time": 100.0, "step": 0, "seconds": {"compute": 1.0}, "exchanged_bytes": 7}
    made.keep(200.0, 9, {"compute": 2.0})
    assert lines[-1] == {"time": 200.0, "step": 9, "seconds": {"compute": 2.0}}, "nobody counted bytes"


def test_what_is_known_of_a_run(tmp_path: Path) -> None:
    assert accounts.exchanged(tmp_path, {}) is None
    assert accounts.exchanged(tmp_path, {"exchanged_before": 5}) == 5
    kept([{"time": 1.0, "step": 1, "seconds": {}}], tmp_path)
    assert accounts.exchanged(tmp_path, {}) is None, "of a release before"
    kept([{"time": 1.0, "step": 1, "seconds": {"compute": 2.0}, "exchanged_bytes": 9}], tmp_path)
    assert accounts.exchanged(tmp_path, {"exchanged_before": 5}) == 9, "its leader was killed"
    assert accounts.exchanged(tmp_path, {"exchanged_bytes": 11}) == 11, "it was closed"
    assert accounts.known(tmp_path, {}) == {"compute": 2.0}
