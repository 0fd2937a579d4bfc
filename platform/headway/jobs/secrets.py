"""Secrets of a submission: they go by reference, and are found where the run is led.

Whoever holds the cluster's token can read all that is sent with a job, since Ray hands it out. So what is sent names a
variable (`env: [NAME]`), a file (`env: {NAME: {file: PATH}}`) or nothing at all (a cloud's role); the value is taken on
the cluster. A secret that stands in the job itself is sent only if the one who submits says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway import variables
from headway.core import secrecy
from headway.errors import BadInput
from headway.job import Job, parse
from headway.jobs.api import tokens
from headway.notation import overrides
from headway.notation.values import Place, dotted
from headway.notify.addresses import addresses
from headway.tracking.store import PASSWORD, redact

URI = "tracking.uri"
SWITCH = "--send-secrets"
SHELL_CHARS = 12
"""A shorter value of a variable that the job does not name is rather a word."""


@dataclass(frozen=True)
class Literal:
    """A secret that stands in a job, in clear.

    Args:
        where: as `--set` names the place.
        value: all that stands there.
        parts: of it, what is secret.
        kept: it would be kept with the run as well, and shown by MLflow, as all of these fields are.
    """

    where: str
    value: str
    parts: tuple[str, ...]
    kept: bool = False

    def __repr__(self) -> str:
        return f"Literal({self.where})"

    @property
    def remedy(self) -> str:
        """How to go without it."""
        if self.where.startswith("env."):
            name = self.where.removeprefix("env.")
            return (
                f"Set {name} where the cluster's Ray is started, and write `{name}: null`; or put it into a file "
                f"there, and write `{name}: {{file: PATH}}`."
            )
        if self.where.startswith("notify."):
            rest = self.where.removesuffix(".url")
            return f"Put it into a file there, and write {rest}.url_file: PATH; or name a variable, {rest}.url_env."
        if self.where == URI:
            return f"Write {secrecy.HIDDEN} for the password, and set {PASSWORD} where the cluster's Ray is started."
        return "Take it out: name a variable under env, and let the task read that."


def stripped(job: Job) -> tuple[dict[str, Any], list[Literal]]:
    """The job's tree without secrets, and those that stood in it.

    What is `kept` stays in the tree: there is no place to take it from.
    """
    tree = job.model_dump()
    found = list(_found(tree))
    return _without(tree, found), found


def stripped_settings(settings: Sequence[str]) -> tuple[list[str], list[Literal]]:
    """Settings of a resume (`--set`) without secrets, and those that stood in them.

    Raises:
        BadInput: one is malformed.
    """
    plain, every = [], []
    for setting in settings:
        tree: dict[str, Any] = {}
        overrides.apply(tree, setting, lambda _, value: value)
        found = list(_found(tree))
        every += found
        changed: Any = _without(tree, found)
        if changed != tree:
            key = overrides.cut(setting)[0]
            for _ in overrides.parts_of(key):
                (changed,) = changed.values()
            setting = f"{key}={json.dumps(changed)}"
        plain.append(setting)
    return plain, every


def allowed(found: Sequence[Literal], send: bool) -> dict[str, str]:
    """What is sent of secrets, by place (`headway.jobs.spec.Spec.sent`).

    Args:
        found: in the job.
        send: whether --send-secrets says so.

    Raises:
        BadInput: there are some, and it does not.
    """
    if found and not send:
        several = len(found) > 1
        places = " and ".join(
            [", ".join(each.where for each in found[:-1]), found[-1].where] if several else [found[0].where]
        )
        fact = f"{places} {'hold secrets' if several else 'holds a secret'} in clear"
        reason = "whoever has the cluster's token can read what is sent with a submission: Ray's job API hands it out"
        remedies = " ".join(dict.fromkeys(each.remedy for each in found))
        raise BadInput(fact, reason, f"{remedies} {SWITCH} sends {'them' if several else 'it'} all the same.")
    return {each.where: each.value for each in found if not each.kept}


def said(found: Sequence[Literal], address: str, guarded: bool = True) -> list[str]:
    """What is to be told of secrets that are sent, for people: who can read them.

    Args:
        found: in the job.
        address: of the cluster.
        guarded: whether it wants a token.
    """
    who = (
        f"everybody who has the token of {address}"
        if guarded
        else f"everybody who reaches {address}, which wants no token"
    )
    told = [
        f"{each.where} is sent in clear: {who} can read it as long as Ray keeps what was submitted" for each in found
    ]
    return told + [f"{each.where} is kept with the run, too, and shown by MLflow" for each in found if each.kept]


def must_stay(job: Job, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Values, as far as they are known here, that no file which travels with the task may hold: the job's secrets, and
    this shell's for stores, trackers and clusters."""
    literals = [part for each in _found(job.model_dump()) for part in each.parts]
    jobs = [value for value in (*variables.secrets(job, environ), *literals) if len(value) >= variables.SECRET_CHARS]
    ours = (value for name, value in environ.items() if _ours(name) and len(value) >= SHELL_CHARS)
    return [*dict.fromkeys([*jobs, *ours])]


def resolved(tree: dict[str, Any], sent: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> Job:
    """The job where it is led, with what was sent at its places. Whatever it names is there.

    Raises:
        BadInput: the job is none of this version's; or a variable or a file that it names is not here.
    """
    tree = dict(tree)
    for where, value in sent.items():
        overrides.apply(tree, _setting(where, value), lambda _, given: given)
    job = parse(tree)
    _demand(job, environ)
    return job


def resolved_settings(settings: Sequence[str], sent: Mapping[str, str]) -> list[str]:
    """Settings of a resume, with what was sent."""
    return [*settings, *(_setting(where, value) for where, value in sent.items())]


def _ours(name: str) -> bool:
    known = variables.DEFAULTS.fullmatch(name) is not None or name == tokens.TOKEN
    return known and secrecy.called(name)


def _setting(where: str, value: str) -> str:
    return f"{where}={json.dumps(value)}"


def _demand(job: Job, environ: Mapping[str, str]) -> None:
    """Raises BadInput: what the job names is not here, said to one who is somewhere else."""
    absent = [name for name, value in variables.named_by(job).items() if value is None and name not in environ]
    if absent:
        several, names = len(absent) > 1, ", ".join(absent)
        fact = f"env names {names}, which {'are' if several else 'is'} not set on the machine that leads the run"
        reason = "values are taken there, not from the shell that submits"
        remedy = (
            f"Set {'them' if several else 'it'} where the cluster's Ray is started; or name a file there, "
            f"`env: {{{absent[0]}: {{file: PATH}}}}`; or give the value, and {SWITCH}."
        )
        raise BadInput(fact, reason, remedy)
    variables.given(job, environ)
    addresses(job.notify, environ)


def _found(tree: dict[str, Any]) -> Iterator[Literal]:
    """Secrets in a job's tree, or in a part of it."""
    for at, value in _strings(tree, ()):
        where, parts = dotted(at), tuple(secrecy.within(value))
        if at[0] == "notify":
            if at[-1] == "url" and value != secrecy.HIDDEN:
                yield Literal(where, value, (value,))
            continue
        if at[0] == "env":
            # A list has names, and a mapping below a name has a file's.
            if len(at) == 2 and isinstance(tree["env"], dict) and secrecy.variable(str(at[1]), value):
                yield Literal(where, value, parts or (value,))
        elif where == URI and redact(value) != value:
            yield Literal(where, value, parts or (value,))
        elif parts:
            yield Literal(where, value, parts, kept=True)
        elif at[0] == "arguments" and secrecy.argument(_name(at), value):
            yield Literal(where, value, (value,), kept=True)


def _name(at: Place) -> str:
    """The nearest name on a way: of what is in a list, the list's."""
    return next((part for part in reversed(at) if isinstance(part, str)), "")


def _strings(value: Any, at: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _strings(each, (*at, key))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _strings(each, (*at, number))


def _without(tree: dict[str, Any], found: Sequence[Literal]) -> dict[str, Any]:
    """The tree, with references in the places of what is not kept."""
    taken = {each.where for each in found if not each.kept}
    plain = dict(tree)
    if isinstance(tree.get("env"), dict):
        plain["env"] = {name: None if f"env.{name}" in taken else value for name, value in tree["env"].items()}
    if URI in taken:
        plain["tracking"] = {**tree["tracking"], "uri": redact(tree["tracking"]["uri"])}
    if tree.get("notify"):
        plain["notify"] = _hidden(tree["notify"], ("notify",), taken)
    return plain


def _hidden(value: Any, at: Place, taken: set[str]) -> Any:
    """A part of a tree, with `***` at these places of it."""
    if dotted(at) in taken:
        return secrecy.HIDDEN
    if isinstance(value, dict):
        return {key: _hidden(each, (*at, key), taken) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each, (*at, number), taken) for number, each in enumerate(value)]
    return value
