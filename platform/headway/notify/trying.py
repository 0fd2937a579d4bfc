"""To see whether people would be told: one word to each address that a job or a sweep names, sent once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headway.core.alarms import Word
from headway.errors import BadInput
from headway.notify.addresses import addresses
from headway.notify.forms import About, body, tree
from headway.notify.sender import TRY_S, NotNow, Refused, post
from headway.notify.webhook import Webhook


@dataclass(frozen=True)
class Tried:
    """What became of the word to one address. error: empty where it was taken."""

    address: str
    error: str = ""


def hooks_of(path: Path, settings: list[str] | None = None) -> tuple[str, list[Webhook]]:
    """The name of a job or a sweep, and the addresses that its file names. Raises BadInput."""
    from headway.notation.reading import mapping

    if "space" in mapping(path, "job"):
        from headway.sweeps import file

        sweep = file.load(path, settings)
        return sweep.name, sweep.notify
    from headway.job import load

    job = load(path, settings)
    return job.name, job.notify


def send(path: Path, settings: list[str] | None = None, environ: Mapping[str, str] = os.environ) -> list[Tried]:
    """Send it, from here, by what is here: files and variables are those of this machine.

    Args:
        path: of a job's or a sweep's file.
        settings: `key=value` changes to it.

    Raises:
        BadInput: it names no address, or one that is none.
    """
    name, hooks = hooks_of(path, settings)
    found, unknown = addresses(hooks, environ)
    if not hooks or unknown:
        reason = "; ".join(unknown) or "it has no `notify`"
        raise BadInput(
            f"{path} names nobody who is told", reason, "Add `notify: [{url_file: PATH}]`, see docs/watch.md."
        )
    about = About(name, str(path.resolve()), socket.gethostname(), "job")
    told = tree(about, Word("test", "a test: word of its runs comes here"), time.time(), {})
    tried = []
    for address in found:
        try:
            post(address.url, body(address.form, told), TRY_S)
            tried.append(Tried(address.name))
        except (Refused, NotNow) as error:
            tried.append(Tried(address.name, str(error.args[0])))
    return tried
