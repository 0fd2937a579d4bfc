"""Draw a dashboard for the documentation, of runs that are trained for it (a worker is killed) under a real Prometheus:

npm ci --prefix dashboards/render
python -m dashboards.picture docs/pictures/dashboard-run.png [run|fleet|sweep|data]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser import browser, opened
from tests.dashboards.scene import runs_seen

from dashboards import drawing

SCREEN = (1280, 1160)


def draw(to: Path, name: str = "run") -> None:
    """Write a PNG. Raises SystemExit that says what is missing."""
    reason = drawing.missing()
    if reason:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        drawing.build(folder / "site")
        (folder / "runs").mkdir()
        with runs_seen(folder / "runs") as seen, drawing.served(folder / "site") as site, browser() as chromium:
            page = drawing.address(site, name, seen.prometheus.url, (seen.begin, seen.end), scraped="1s")
            with opened(chromium, page, SCREEN, within_s=120) as sight:
                drawing.settled(sight.page)
                to.parent.mkdir(parents=True, exist_ok=True)
                sight.page.screenshot(path=to, animations="disabled", timeout=120_000)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), *sys.argv[2:3])
