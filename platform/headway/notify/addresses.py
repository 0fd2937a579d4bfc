"""The addresses that a job names, found where its run is led: at the door, before anything is started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from headway.core.alarms import Limits
from headway.core.secrecy import HIDDEN
from headway.errors import BadInput
from headway.notify.webhook import Webhook, fault_of
from headway.variables import read_file


@dataclass(frozen=True)
class Address:
    """Where to post, and what.

    Args:
        name: for people: which of the job's it is, and its host.
    """

    name: str
    url: str
    on: frozenset[str]
    form: str
    limits: Limits

    def __repr__(self) -> str:
        return f"Address({self.name})"


def addresses(hooks: Sequence[Webhook], environ: Mapping[str, str] = os.environ) -> tuple[list[Address], list[str]]:
    """Those of a job, where the run is led; and what is to be noted: of a run that is resumed, one may not be known.

    Raises:
        BadInput: a file or a variable that is named holds no address.
    """
    found, notes = [], []
    for number, hook in enumerate(hooks):
        url = _url(hook, f"notify.{number}", environ)
        if url is None:
            notes.append(
                f"notify.{number}.url was not kept with the run, and nobody is told there: "
                f"name a file that holds it, --set notify.{number}.url=null --set notify.{number}.url_file=PATH"
            )
            continue
        name = f"notify.{number} ({urlsplit(url).hostname})"
        found.append(Address(name, url, frozenset(hook.on), hook.form, hook.limits))
    return found, notes


def _url(hook: Webhook, where: str, environ: Mapping[str, str]) -> str | None:
    if hook.url is not None:
        return None if hook.url == HIDDEN else hook.url
    if hook.url_env is not None:
        fact, remedy = f"{where}.url_env={hook.url_env} cannot be used", "Set it where the run is led, or name a file."
        said = environ.get(hook.url_env)
        if said is None:
            raise BadInput(fact, "that variable is not set", remedy)
    else:
        assert hook.url_file is not None
        fact, remedy = f"{where}.url_file={hook.url_file} cannot be used", "Mend it on the machine that leads the run."
        said = read_file(fact, hook.url_file)
    fault = fault_of(said.strip())
    if fault:
        raise BadInput(fact, f"what it holds {fault}", remedy)
    return said.strip()
