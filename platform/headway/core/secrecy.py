"""What is a secret, by its name or by its form. Nothing is known of where it came from, or goes."""

from __future__ import annotations

import re

HIDDEN = "***"
"""Stands in the place of a secret that was taken out."""
_PLACE = re.compile(r"(?i).*_(FILE|PATH|DIR|FOLDER)|GOOGLE_APPLICATION_CREDENTIALS")
"""Variables that say where a secret is."""
_VARIABLE = re.compile(
    r"(?i).*(TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|CONNECTION_STRING"
    r"|COOKIE|WEBHOOK|_PWD$|_SAS$|(^|_|PG)PASS$|(^|_)(KEY|PW|AUTH|DSN)$|(GIT|GH|GITHUB|GITLAB|AZURE|ADO)_PAT$)"
)
_ARGUMENT = re.compile(
    r"(?i)(.*[_-])?(secrets?|passwords?|passwd|passphrase|credentials?|(api|access|private|secret|account)[_-]?keys?|"
    r"(api|access|auth|bearer|refresh|session|hf|hub|github|wandb)[_-]?tokens?|token)"
)
"""Fewer than of variables: `tokenizer`, `pad_token` and `key` are arguments of models."""
_SPECIAL_TOKEN = re.compile(r"(?i).*(pad|eos|bos|unk|mask|sep|cls|special|first|last|start|end|next|new)[_-]?token")
_SWITCH = re.compile(r"(?i)(true|false|yes|no|on|off|none|auto|[01]|)")
"""Values that hide nothing."""
_IN_URL = re.compile(
    r"(?<![a-z0-9+.-])(?:[a-z][a-z0-9+.-]{0,30}://[^/@\s:[]{0,1000}:(?!\d{0,5}/)"
    r"(?P<password>[^@\s]{1,300}(?:@[^/?@\s]{1,300}){0,3})@"
    r"|https?://(?P<user>[^/@\s:[]{16,1000})@)"
    r"|[?&;](?:[\w.-]{0,60}(?:password|passwd|pwd|secret|token|signature|api_?key|access_?key|credential)|sig)="
    r"(?P<part>[^&;@\s]{1,4000})",
    re.IGNORECASE,
)
"""Every part has its most: a text may be a million characters of anything, and is to be read through in one go."""
_PLACEHOLDER = re.compile(r"\*+|\$\{?\w+\}?|<[^>]*>|\{\w*\}")
"""Stands where somebody is to put a secret."""
_FORMS = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bhf_[A-Za-z0-9]{30,200}\b"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{20,200}\b"
    r"|\bdapi[0-9a-f]{32}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,200}\b"
    r"|(?<![\w-])sk-(?=[\w-]{0,200}\d)(?=[\w-]{0,200}[A-Z])[\w-]{20,200}"
    r"|\bhooks\.slack\.com/services/[\w/]{8,200}|\bdiscord(?:app)?\.com/api/webhooks/[\w/-]{8,200}"
    r"|^(?:Bearer|Basic) [\w.~+/=-]{8,}$"
    r"|(?<![\w-])eyJ[\w-]{10,4000}\.eyJ[\w-]{10,4000}\.[\w-]{1,4000}"
)
"""What cannot be mistaken: a private key, and keys of AWS, Hugging Face, GitHub, GitLab, Databricks, Slack, OpenAI;
addresses at which whoever knows them may post; a header of HTTP; a signed web token."""


def variable(name: str, value: str) -> bool:
    """Whether a variable of the environment holds a secret: by its name, or what is in it."""
    if called(name) and not _SWITCH.fullmatch(value.strip()):
        return True
    return bool(within(value))


def called(name: str) -> bool:
    """Whether a variable of the environment is called like a secret."""
    return _VARIABLE.match(name) is not None and not _PLACE.fullmatch(name)


def argument(name: str, value: str) -> bool:
    """Whether an argument of the task holds a secret, by its name."""
    if not _ARGUMENT.fullmatch(name) or _SPECIAL_TOKEN.fullmatch(name):
        return False
    return not _SWITCH.fullmatch(value.strip()) and not _PLACEHOLDER.fullmatch(value)


def within(text: str) -> list[str]:
    """Secrets that stand in a text: passwords and signatures of URLs, and keys that show by their form what they
    are."""
    found = [match["password"] or match["user"] or match["part"] for match in _IN_URL.finditer(text)]
    found = [part for part in found if not _PLACEHOLDER.fullmatch(part)]
    return found + [match[0] for match in _FORMS.finditer(text)]
