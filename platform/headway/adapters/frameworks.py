"""Other frameworks, where they are installed."""

from __future__ import annotations

import importlib
from typing import Any

from headway.errors import BadInput


def imported(module: str, extra: str) -> Any:
    """A module of theirs. Raises BadInput: it is not installed. extra: of Headway, that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        name = module.partition(".")[0]
        remedy = f"Install headway[{extra}]."
        raise BadInput(f"{name} is not installed", f"headway.adapters.{extra} needs it", remedy) from None
