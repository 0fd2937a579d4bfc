"""Addresses at which people want to be told, as a job names them. Each is a secret: who knows it may post there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from headway.core.alarms import Limits
from headway.core.secrecy import HIDDEN
from headway.notation.section import Count, Seconds, Section

Kind = Literal["finished", "stopped", "failed", "stalled", "recovery_storm", "budget"]


class Webhook(Section):
    """An address that is told of the run. Give it by `url_file` or `url_env`; a `url` is kept nowhere."""

    url: str | None = Field(default=None, repr=False)
    """http(s)://...; it is shown as ***, and a run that is resumed does not know it any more."""
    url_file: str | None = None
    """A file that holds it, on the machine that leads the run: its path, from the root or from `~`."""
    url_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """A variable of the environment that holds it, where the run is led."""
    on: Annotated[list[Kind], Field(min_length=1)] = Field(default_factory=lambda: list(get_args(Kind)))
    """What it is told of: finished, failed, stopped (on request, or by a signal), stalled, recovery_storm, budget."""
    form: Literal["json", "slack"] = "json"
    """Of what is posted: all that is known, as JSON; or a line, as Slack (and Mattermost) take it."""
    stalled_s: Seconds = 600.0
    """Time without a step or an evaluation after which the run is called stalled; steps that are slow anyway may take
    five times as long as they do."""
    storm: Count = 5
    """Losses of workers within ten minutes that are called a storm."""

    @model_validator(mode="before")
    @classmethod
    def _on(cls, tree: Any) -> Any:
        # YAML 1.1 takes the key `on` for true.
        return {"on" if key is True else key: value for key, value in tree.items()} if isinstance(tree, dict) else tree

    @field_validator("url")
    @classmethod
    def _posted_to(cls, url: str | None) -> str | None:
        fault = fault_of(url) if url not in (None, HIDDEN) else ""
        if fault:
            raise ValueError(f"{fault}. Write it as https://HOST/...")
        return url

    @field_validator("url_file")
    @classmethod
    def _whole(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith(("/", "~")):
            raise ValueError("write its whole path, on the machine that leads the run")
        return path

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        given = [name for name in ("url", "url_file", "url_env") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of url_file, url_env and url; {' and '.join(given) or 'none'} is given")
        return self

    @property
    def limits(self) -> Limits:
        return Limits(self.stalled_s, self.storm)


def fault_of(url: str) -> str:
    """Why nothing can be posted to an address, without the address; empty where it can."""
    if not url or not url.isascii() or not url.isprintable() or " " in url:
        return "is no address: it is empty, or holds spaces or other characters that none has"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no address: its host or port cannot be read"
    if parts.scheme not in ("http", "https"):
        return "is no address of the web: it does not begin with http:// or https://"
    if not host or not re.fullmatch(r"[A-Za-z0-9.:_-]+", host):
        return "names no host"
    return "holds a name or a password before its host, which is not sent" if "@" in parts.netloc else ""


def kept(hooks: Sequence[Webhook]) -> list[Webhook]:
    """As they may be written down."""
    return [hook if hook.url is None else hook.model_copy(update={"url": HIDDEN}) for hook in hooks]
