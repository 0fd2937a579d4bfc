"""Perses' panels in a browser: a page that draws one of our dashboards from a Prometheus, for tests and for pictures.

Its packages are those of `render/`, brought by `npm ci --prefix dashboards/render`; no wheel has them.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from dashboards.generate import HERE

RENDER = HERE / "render"
BUILD_S = 300.0


def missing() -> str:
    """What has to be there first, in words; "" where all is."""
    if shutil.which("node") is None:
        return "node is not installed (Debian: apt-get install nodejs npm)"
    if not (RENDER / "node_modules" / "@perses-dev").is_dir():
        return "Perses' packages are not there: npm ci --prefix dashboards/render"
    return ""


def build(folder: Path) -> None:
    """Make the page in a folder, with the dashboards that it can draw. Raises RuntimeError with what node says."""
    done = subprocess.run(
        ["node", str(RENDER / "build.mjs"), str(folder)], capture_output=True, text=True, timeout=BUILD_S
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    shutil.copytree(HERE / "perses", folder / "perses", dirs_exist_ok=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder that is served on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def address(
    site: str, name: str, prometheus: str, between: tuple[float, float], theme: str = "light", scraped: str = "5s"
) -> str:
    """Of the page that draws a dashboard.

    Args:
        site: URL of `served`.
        name: of the dashboard.
        prometheus: its URL, which the browser asks.
        between: the time that is drawn, in Unix seconds.
        theme: "light" or "dark".
        scraped: how often Prometheus scrapes, as "5s".
    """
    asked = {"dashboard": f"/perses/{name}.json", "prometheus": prometheus, "theme": theme, "scraped": scraped}
    start, end = (str(int(at * 1000)) for at in between)
    return f"{site}/index.html?{urlencode({**asked, 'start': start, 'end': end, 'refresh': '0s'})}"


PANEL = "[data-testid=panel]"
_DRAWN = f"""(number) => {{
  const panels = [...document.querySelectorAll("{PANEL}")];
  const seen = number === null ? panels.filter((p) => p.getBoundingClientRect().top < innerHeight) : [panels[number]];
  return seen.length > 0 && seen.every((p) => p && (p.querySelector("canvas, h3") || p.innerText.includes("No data")));
}}"""


def settled(page: Any, number: int | None = None, within_s: float = 120.0) -> None:
    """Wait until a page of playwright's has drawn a panel, or all that are in sight. A panel out of sight never is."""
    page.wait_for_function(_DRAWN, arg=number, timeout=within_s * 1000)
