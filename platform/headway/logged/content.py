"""A figure, a text, a table, a file, as the bytes that are kept of it."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.logged import pictures, tables

MOST_BYTES = 16 << 20
"""Of one."""
TEXTS = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".html": "text/html",
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".csv": "text/csv",
    ".log": "text/plain",
}
"""Ends of a text's name that say what it is."""


@dataclass(frozen=True)
class Content:
    """What is kept.

    Args:
        data: at most `MOST_BYTES`.
        suffix: of the file, with its dot.
        mime: what it is.
    """

    data: bytes
    suffix: str
    mime: str


class Unfit(ValueError):
    """It is not what it should be; says why, for people."""


def drawn(kind: str, name: str, thing: Any) -> Content:
    """The content of a kind of thing.

    Args:
        kind: figure, text, table or artifact.
        name: under which it is logged.
        thing: as of `Session.log_figure` and the others.

    Raises:
        Unfit: it is none, or too large.
        Exception: whatever the library raised that draws it.
    """
    found = _KINDS[kind](name, thing)
    if len(found.data) > MOST_BYTES:
        raise Unfit(f"it is {len(found.data) / 2**20:.1f} MiB, and at most {MOST_BYTES >> 20} MiB are kept of one")
    return found


def _figure(name: str, figure: Any) -> Content:
    if callable(getattr(figure, "savefig", None)):  # matplotlib's Figure, or pyplot itself
        return _png(lambda file: figure.savefig(file, format="png"))
    of_axes: Any = getattr(figure, "figure", None)
    if callable(getattr(of_axes, "savefig", None)):
        return _png(lambda file: of_axes.savefig(file, format="png"))
    if callable(getattr(figure, "to_html", None)) and callable(getattr(figure, "to_plotly_json", None)):
        return Content(figure.to_html(include_plotlyjs="cdn").encode(), ".html", "text/html")
    if callable(getattr(figure, "save", None)) and hasattr(figure, "getbands"):  # PIL's
        made = figure if figure.mode in pictures.PNG_MODES else figure.convert("RGB")
        return _png(lambda file: made.save(file, format="PNG"))
    pixels = pictures.pixels(figure)
    if pixels is None:
        kind = type(figure).__name__
        raise Unfit(f"a {kind} is no figure of matplotlib or plotly, no image of PIL, and no array of pixels")
    return Content(pictures.png(pixels), ".png", "image/png")


def _png(save: Callable[[io.BytesIO], Any]) -> Content:
    file = io.BytesIO()
    save(file)
    return Content(file.getvalue(), ".png", "image/png")


def _text(name: str, text: Any) -> Content:
    if not isinstance(text, str):
        raise Unfit(f"a {type(text).__name__} is no text")
    suffix = Path(name).suffix.lower()
    suffix = suffix if suffix in TEXTS else ".txt"
    return Content(text.encode("utf-8", "backslashreplace"), suffix, TEXTS[suffix])


def _table(name: str, table: Any) -> Content:
    try:
        return Content(tables.encoded(table), ".json", "application/json")
    except tables.NoTable as error:
        raise Unfit(str(error)) from None


def _artifact(name: str, path: Any) -> Content:
    try:
        file = Path(path)
    except TypeError:
        raise Unfit(f"a {type(path).__name__} is no path of a file") from None
    if file.is_dir():
        raise Unfit(f"{file} is a folder: log its files, or an archive of it")
    size = file.stat().st_size if file.is_file() else 0
    if size > MOST_BYTES:
        raise Unfit(f"{file} is {size / 2**20:.1f} MiB, and at most {MOST_BYTES >> 20} MiB are kept of one")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Unfit(f"{file} cannot be read: {error.strerror or error}") from None
    return Content(data, file.suffix, mimetypes.guess_type(file.name)[0] or "application/octet-stream")


_KINDS: Mapping[str, Callable[[str, Any], Content]] = {
    "figure": _figure,
    "text": _text,
    "table": _table,
    "artifact": _artifact,
}
