"""Command-line options made of a pydantic section: named, typed and explained as its fields are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo

from headway.data.prepare.options import Options, Shown


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes `**given` gets an option for each field of `Options`; those not given are left out.

    They stand in the help behind the command's own arguments and before its own options.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [part for part in signature.parameters.values() if part.kind is not inspect.Parameter.VAR_KEYWORD]
    made = [_option(name, field) for name, field in Options.model_fields.items()]
    first = [part for part in own if part.default is inspect.Parameter.empty]
    parts = [part.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in (*first, *made, *own[len(first) :])]

    @wraps(command)
    def dressed(**values: Any) -> Any:
        return command(**values)

    dressed.__signature__ = signature.replace(parameters=parts)  # type: ignore[attr-defined]
    dressed.__annotations__ = {part.name: part.annotation for part in parts}
    return dressed


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Of the options' values those that were given."""
    return {name: value for name, value in values.items() if value is not None and value is not False and value != []}


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    shown = next((part for part in field.metadata if isinstance(part, Shown)), Shown())
    kind: Any = str | None
    default: Any = None
    if field.annotation is bool:
        kind, default = bool, False
    elif shown.repeated:
        kind = list[str] | None
    elif field.annotation is int or int in get_args(field.annotation):
        kind = int | None
    option = typer.Option(
        f"--{name.replace('_', '-')}", help=field.description, metavar=shown.metavar, rich_help_panel=shown.panel
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
