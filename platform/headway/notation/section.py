"""What a part of a file that people write is made of: checked once, frozen, with unknown keys refused."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from headway.errors import BadInput
from headway.notation import times, values, wording

Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1, and YAML takes `yes` and `on` for true.
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError(f"is {str(value).lower()}, which is no value for it")
        return value


def plain(given: Any) -> Any:
    """A copy of a mapping of names to what a file can hold (see headway.notation.values)."""
    if not isinstance(given, dict):
        return given
    faults: list[str] = []
    unnamed = [key for key in given if not isinstance(key, str)]
    faults += [f"{values.shown_key(key)} is no name: names are text. Put it in quotes" for key in unnamed]
    found = {key: values.admit(each, faults, (key,)) for key, each in given.items()}
    if faults:
        raise PydanticCustomError(wording.NOT_PLAIN, "{faults}", {"faults": faults})
    return found


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", value.lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError("write bytes as a number or with a unit, like 512MiB or 2GiB")
    return int(float(match[1]) * _UNITS[match[2]])


Bytes = Annotated[int, Field(ge=1), BeforeValidator(_bytes, json_schema_input_type=Annotated[int, Field(ge=1)] | str)]


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return times.seconds("", value)
    except BadInput as error:
        raise ValueError(f"{error.reason}. {error.remedy}".rstrip(".")) from None


Seconds = Annotated[
    float, Field(gt=0), BeforeValidator(_seconds, json_schema_input_type=Annotated[float, Field(gt=0)] | str)
]
