"""A page's parts made one file: styles, scripts, a font and uPlot stand in it, and a policy that lets nothing else in.

The policy names the digests of what stands in the file. So a text that found its way into the page unescaped would not
run, and could ask for nothing.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from typing import Any

from headway.report.page.markup import Inside, Markup, tag, together

SCRIPTS = ("state.js", "kinds.js", "plot.js", "strip.js", "controls.js")
"""In this order, in one function of their own."""
FONT = "inter-latin-wght-normal.woff2"
FRAMED = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        name: short, of its address in the page.
        title: for people.
        inside: what it holds.
        note: a line beneath the title.
    """

    name: str
    title: str
    inside: Inside
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What a page holds.

    Args:
        title: of the browser's window.
        opening: what comes first.
        sections: the rest, in order.
        drawn: for the scripts: `plots`, `marks`, `clock`; see `headway.report.page.plots`.
        footer: the last line.
    """

    title: str
    opening: Inside
    sections: list[Section]
    drawn: dict[str, Any] = field(default_factory=dict)
    footer: Inside = None


def whole(page: Page) -> str:
    """The file."""
    style = _style()
    scripts = [_read("vendor", "uPlot.iife.min.js"), _script()]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_digest, scripts))}; style-src {_digest(style)}; "
        "img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
    )
    head = together(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", page.title),
        tag("style", Markup(style)),
    )
    body = together(
        tag("a", "Skip to the report", class_="skip", href="#report"),
        _bar(page),
        tag("main", page.opening, map(_section, page.sections), id="report"),
        tag("footer", page.footer) if page.footer else None,
        tag("script", Markup(data(page.drawn)), type="application/json", id="drawn"),
        (tag("script", Markup(script)) for script in scripts),
    )
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def data(tree: object) -> str:
    """JSON that may stand in a script element, whatever texts are in it."""
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(section: Section) -> Markup:
    title = tag("h2", section.title, id=f"{section.name}-title")
    note = tag("p", section.note, class_="note") if section.note else None
    return tag("section", title, note, section.inside, id=section.name, aria_labelledby=f"{section.name}-title")


def _bar(page: Page) -> Markup:
    links = [tag("a", section.title, href=f"#{section.name}") for section in page.sections]
    axis = [
        tag("button", words, type="button", data_axis=name, aria_pressed="true" if name == "step" else "false")
        for name, words in (("step", "Steps"), ("time", "Time"))
    ]
    has_time = bool(page.drawn.get("clock"))
    buttons = together(
        tag("span", axis, class_="switch", role="group", aria_label="What the charts run over") if has_time else None,
        tag("button", "Reset zoom", type="button", data_do="reset", disabled=True) if page.drawn.get("plots") else None,
        tag("button", "Dark", type="button", data_do="theme", aria_label="Light or dark"),
    )
    return tag("nav", tag("div", links, class_="links"), tag("div", buttons, class_="do"), aria_label="Sections")


def _style() -> str:
    font = b64encode((files(__package__) / "vendor" / FONT).read_bytes()).decode()
    face = (
        '@font-face{font-family:"Inter Page";font-style:normal;font-weight:100 900;font-display:block;'
        f'src:url(data:font/woff2;base64,{font}) format("woff2")}}\n'
    )
    return face + _read("vendor", "uPlot.min.css") + _read("web", "page.css")


def _script() -> str:
    return "(function () {\n'use strict';\n" + "".join(_read("web", name) for name in SCRIPTS) + "})();\n"


def _read(*path: str) -> str:
    return files(__package__).joinpath(*path).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
