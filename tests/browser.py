"""A real browser for tests of pages: Debian's Chromium without a window, led by playwright.

The fixture `chromium` gives one to a module's tests, which are marked `slow`; it skips where there is none. While it is
up playwright holds this thread's event loop: what calls `asyncio.run` belongs in another process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Nothing is asked of the network but what a page asks for."""
DESKTOP, PHONE = (1280, 900), (390, 844)
"""Pixels of a screen."""
HARMLESS = ("data:", "blob:", "about:")
"""How addresses begin that lead nowhere."""


@dataclass
class Sight:
    """A page that is open, and what was heard of it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """What it told the console as errors or warnings, and exceptions that nobody caught."""
    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, its own first."""


def program() -> str | None:
    """The browser's path, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser, ended with all its processes; skips the test where there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `pages`)")
    path = program()
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    root = {"--no-sandbox"} if os.geteuid() else set()  # root has no other way
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=[a for a in QUIET if a not in root])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(
    chromium: Browser,
    address: str,
    screen: tuple[int, int] = DESKTOP,
    dark: bool = False,
    within_s: float = 30.0,
    **options: Any,
) -> Iterator[Sight]:
    """A page in a browser of its own cookies and cache, loaded.

    Args:
        address: http:// or file://.
        screen: width and height in pixels.
        dark: whether the reader likes it dark.
        within_s: for loading it.
        options: more of playwright's `new_context`.
    """
    scheme = "dark" if dark else "light"
    context = chromium.new_context(
        viewport={"width": screen[0], "height": screen[1]}, color_scheme=scheme, locale="en-GB", **options
    )
    try:
        page = context.new_page()
        sight = Sight(page)
        page.on("console", lambda said: sight.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: sight.errors.append(str(error)))
        page.on("request", lambda asked: sight.requests.append(asked.url))
        page.goto(address, timeout=within_s * 1000)
        yield sight
    finally:
        context.close()


def outward(sight: Sight) -> list[str]:
    """What a page asked for beyond itself and what is written in it."""
    return [url for url in sight.requests[1:] if not url.startswith(HARMLESS)]
