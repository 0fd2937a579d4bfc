"""Files that people write in YAML, read with errors in their words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headway.errors import BadInput
from headway.notation.plain import read


def mapping(path: Path, what: str) -> dict[str, Any]:
    """The keys and values of a file.

    Args:
        path: of it.
        what: it is to be: job, sweep; `headway WHAT schema` lists its keys.

    Raises:
        BadInput: it is not there, cannot be read, or holds something else.
    """
    import yaml

    try:
        tree = read(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"no {what} at {path}", "the file does not exist", f"Give the path of a {what}.yaml.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read", str(error), "Give the path of a readable YAML file.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}, column {where.column + 1}: " if where else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise BadInput(f"{path} is not YAML", f"{line}{problem}", "Mend the file at that place.") from None
    except (ValueError, RecursionError) as error:  # a date or number that looks like one and is none
        raise BadInput(f"{path} cannot be read as YAML", str(error), "Put that value in quotes.") from None
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else f"a {type(tree).__name__}"
        remedy = f"`headway {what} schema` lists all keys."
        raise BadInput(f"{path} holds {found}, not a {what}", f"a {what} is a mapping of keys to values", remedy)
    return tree
