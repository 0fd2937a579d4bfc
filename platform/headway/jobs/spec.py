"""What a submission asks for: it travels as JSON beside the task's code, and is read by the driver on the cluster."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FILE = "headway-submission.json"
"""In the working folder of the Ray job."""
CODE = "code"
"""Beside it: the task's code and files, as `headway.carried.code.carry` lays them out."""
PREFIX = "headway-"
LAYOUT = "headway-submission/1"

Kind = Literal["train", "resume", "check", "doctor", "queue"]


@dataclass(frozen=True)
class Spec:
    """One submission.

    Args:
        kind: train; resume; check (all that `train` looks at before it begins, and nothing more); doctor; queue (that
            there is a keeper).
        run: its name: the key, by which a run is one run whoever asks how often.
        attempt: of this submission; a run that was made by it knows it, see `new_attempt`.
        by: who submitted, for people.
        runs: where the run is kept: a URL, or a folder that every node sees; None for what the node itself says.
        headway: version that submitted.
        python: major and minor of the one that submitted.
        packages: distributions that the run needs, with their versions where it was submitted.
        job: without secrets, of `train` and `check`; as YAML text, for it may hold what JSON does not (dates, inf, keys
            that are no text). See `headway.notation.plain`.
        settings: `--set` of a resume.
        allow: `--allow` of a resume.
        store: how stores are spoken to, see `headway.storage.options.Options`; a node's own settings stand above it.
        sent: secrets that were sent in clear, because `--send-secrets` said so.
        granted: a queue has given it so many workers, whose processes may begin at once; 0: none has.
        held: it is to have all ready but its workers, and to ask for these once it is told its size.
        warm: so many processes of these stand by meanwhile.
        tried: the cluster was tried for it before, and is not again.
    """

    kind: Kind
    run: str
    attempt: str
    by: str
    headway: str
    python: tuple[int, int]
    runs: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    job: str | None = None
    settings: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    store: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict, repr=False)
    granted: int = 0
    held: bool = False
    warm: int = 0
    tried: bool = False

    @property
    def submission(self) -> str:
        """Ray's id of the job."""
        return f"{PREFIX}{self.run}-{self.attempt}"

    @property
    def metadata(self) -> dict[str, str]:
        """What Ray's list of jobs shows beside it, to every holder of the cluster's token."""
        told = {"headway": self.headway, "headway_run": self.run, "headway_attempt": self.attempt}
        told |= {"headway_kind": self.kind, "headway_by": self.by}
        return {**told, "headway_runs": self.runs} if self.runs is not None else told


def new_attempt() -> str:
    return secrets.token_hex(4)


def to_json(spec: Spec) -> str:
    return json.dumps({"layout": LAYOUT, **asdict(spec)}, indent=1)


def from_json(text: str) -> Spec:
    """Raises ValueError: it is of another layout, or damaged."""
    tree = json.loads(text)
    if tree.pop("layout", None) != LAYOUT:
        raise ValueError(f"a submission of another layout than {LAYOUT}")
    try:
        for name in ("settings", "allow", "python"):
            tree[name] = tuple(tree[name])
        return Spec(**tree)
    except (TypeError, KeyError) as error:
        raise ValueError(f"a damaged submission ({error!r})") from None
