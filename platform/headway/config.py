"""What a user has said once for all runs: where they are kept, and how that place is spoken to.

    # ~/.config/headway/config.yaml
    runs: s3://bucket/runs
    store:
      region: eu-central-1
      sse: aws:kms

Variables of the environment stand above the file: HEADWAY_RUNS, and HEADWAY_STORE_REGION and the like.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from headway.errors import BadInput, nearest
from headway.notation import wording
from headway.notation.plain import line_of, read
from headway.storage.options import Options

PREFIX = "HEADWAY_STORE_"


class Config(BaseModel):
    """The file's keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    runs: str | None = None
    """Folder or URL that holds the runs, where no `--runs` is given."""
    store: Options = Field(default_factory=Options)
    """How an object store is spoken to."""

    @field_validator("runs")
    @classmethod
    def _home(cls, runs: str | None) -> str | None:
        if runs is not None and not runs.strip():
            raise ValueError("is empty: give a folder or a URL, or strike it out")
        try:
            return str(Path(runs).expanduser()) if runs is not None and runs.startswith("~") else runs
        except RuntimeError:
            raise ValueError("names a home folder, and there is none") from None


def path_of(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the file is: as HEADWAY_CONFIG says, or headway/config.yaml among the user's settings."""
    if environ.get("HEADWAY_CONFIG"):
        return Path(environ["HEADWAY_CONFIG"]).expanduser()
    home = Path(environ.get("XDG_CONFIG_HOME") or "~/.config")
    with suppress(RuntimeError):  # a user without a home, who has no such file either
        home = home.expanduser()
    return home / "headway" / "config.yaml"


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """The file, if there is one, and the environment over it.

    Raises:
        BadInput: the file cannot be read or is not what it should be, by file and line; or a variable is not.
    """
    path = path_of(environ)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if environ.get("HEADWAY_CONFIG"):
            reason = "HEADWAY_CONFIG names it, and there is no such file"
            raise BadInput(f"{path} cannot be read", reason, "Make it, or unset HEADWAY_CONFIG.") from None
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"{path} cannot be read", reason, "It should be a text file of YAML.") from None
    config = _parsed(path, text)
    return _with(config, environ)


def _parsed(path: Path, text: str) -> Config:
    import yaml

    try:
        tree = read(text)
    except yaml.MarkedYAMLError as error:
        where = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise BadInput(where, error.problem or "it is no YAML", "Mend it, or remove the file.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no YAML", str(error).splitlines()[0], "Mend it, or remove the file.") from None
    if tree is None:
        return Config()
    if not isinstance(tree, dict):
        raise BadInput(f"{path}, line 1", "it should hold keys and values", f"Known: {', '.join(Config.model_fields)}.")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        line = line_of(text, error.errors()[0]["loc"])
        reason = _masked(wording.say(Config, tree, error.errors()))
        raise BadInput(f"{path}, line {line}", reason, "Mend it, or remove the file.") from None


def _with(config: Config, environ: Mapping[str, str]) -> Config:
    """The config, with what the environment says in its stead."""
    if environ.get("HEADWAY_RUNS"):
        config = config.model_copy(update={"runs": environ["HEADWAY_RUNS"]})
    known = {f"{PREFIX}{name.upper()}": name for name in Options.model_fields}
    given: dict[str, Any] = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if variable not in known:
            raise BadInput(f"the variable {variable} is set", "nothing is called so", nearest(variable, list(known)))
        if environ[variable]:
            given[known[variable]] = _value(environ[variable])
    if not given:
        return config
    try:
        store = Options.model_validate({**config.store.model_dump(), **given})
    except ValidationError as error:
        name = str((*error.errors()[0]["loc"], next(iter(given)))[0])
        reason = _masked(wording.say(Options, given, error.errors()))
        raise BadInput(f"the variable {PREFIX}{name.upper()}", reason, "Mend it, or unset it.") from None
    return config.model_copy(update={"store": store})


def _masked(said: list[str]) -> str:
    """Without a name and key that stand in a URL."""
    return re.sub(r"://[^\s/'@]*@", "://...@", "; ".join(said))


def _value(text: str) -> Any:
    """A variable's value as YAML has it where that is a number or a switch; else as it is written."""
    try:
        value = read(text)
    except Exception:  # no YAML: text
        return text
    return value if isinstance(value, bool | int | float) else text
