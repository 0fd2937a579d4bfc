"""The token of a cluster, from where Ray's own tools take it. It is shown nowhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from headway.errors import BadInput
from headway.jobs.api.call import NoEntry

TOKEN, FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
DEFAULT = Path(".ray") / "auth_token"
"""In the user's home."""
_GIVE = (
    f"{TOKEN}, the file that {FILE} names, or ~/{DEFAULT} hold it (on a machine of the cluster, `ray get-auth-token` "
    "prints it)."
)


def find(environ: Mapping[str, str] = os.environ) -> str | None:
    """The token that this user has, if any.

    Raises:
        BadInput: it was said where it is, and it is not there, or it is none.
    """
    if environ.get(TOKEN, "").strip():
        return _checked(environ[TOKEN], TOKEN)
    if environ.get(FILE):
        path = Path(environ[FILE])
        with suppress(RuntimeError):  # a user without a home
            path = path.expanduser()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise BadInput(f"{FILE}={environ[FILE]}", f"the file cannot be read: {reason}", _GIVE) from None
        if not text.strip():
            raise BadInput(f"{FILE}={environ[FILE]}", "the file is empty", _GIVE)
        return _checked(text, FILE)
    with suppress(OSError, UnicodeDecodeError, RuntimeError):
        text = (Path.home() / DEFAULT).read_text(encoding="utf-8")
        return _checked(text, f"~/{DEFAULT}") if text.strip() else None
    return None


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise BadInput(f"what {where} holds is no token", "a token is one word", _GIVE)
    return token


def refused(address: str, status: int, given: bool) -> NoEntry:
    """What a 401 or 403 means."""
    if not given:
        return NoEntry(f"{address} takes only who has the cluster's token", "none was found here", _GIVE)
    reason = f"the token that was found here is not this cluster's (it answers {status})"
    return NoEntry(f"{address} does not let us in", reason, f"Each cluster has its own: {_GIVE}")
