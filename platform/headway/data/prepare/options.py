"""What a prepare is asked for: one section, checked once at the door, for the command line and Python alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from headway.errors import BadInput, nearest

Said = Callable[[str, Any], str]
"""An option with its value as the user gave it."""
STEPS, LAYOUT = "What is done to rows, in this order", "Layout"


@dataclass(frozen=True)
class Shown:
    """How the command line shows an option.

    Args:
        panel: of its help.
        metavar: what stands for the value there.
        repeated: it may be given more than once.
    """

    panel: str | None = None
    metavar: str | None = None
    repeated: bool = False


def _columns(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(","))
    return () if value is None else value


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else () if value is None else value


def _values(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value) else value


def _joined(names: tuple[str, ...]) -> Any:
    return list(names) if any("," in name for name in names) else ",".join(names)


Columns = Annotated[tuple[str, ...], BeforeValidator(_columns), PlainSerializer(_joined)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


class Options(BaseModel):
    """The options of `headway data prepare`. Steps are taken in the order in which they stand here."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: str | None = None
    """parquet, csv, jsonl, images, webdataset or text; guessed by the files' endings when not given."""
    encoding: str | None = None
    """Of the text in CSV and JSON lines, such as cp1252 or utf-16; UTF-8, or as a byte order mark says, by default."""
    null_values: Annotated[str | None, BeforeValidator(_values), Shown(metavar="VALUE,...")] = None
    """Fields of a CSV that are null, beside empty ones; pandas: all that pandas takes for null, Namibia's NA too."""
    label: str | None = None
    """Column that is predicted, counted in the manifest."""
    transform: Annotated[str | None, Shown(STEPS, "MODULE_OR_FILE:FUNCTION")] = None
    """Your function over batches."""
    batch_format: Annotated[str | None, Shown(STEPS)] = None
    """arrow or numpy: what the transform takes; by its annotation when not given."""
    filter: Annotated[str | None, Shown(STEPS, "EXPRESSION")] = None
    """Rows to keep, such as "age > 20"."""
    dedup: Annotated[Columns, Shown(STEPS, "COLUMN,...")] = ()
    """Of rows with equal values in these columns the first in the source stays."""
    split: Annotated[str | None, Shown(STEPS, "NAME=SHARE,...")] = None
    """Make DST/NAME of each share of the rows, by a seeded hash of each row."""
    split_by: Annotated[Columns, Shown(STEPS, "COLUMN,...")] = ()
    """Columns that decide on a row's part; all by default."""
    mask: Annotated[Texts, Shown(STEPS, "COLUMN=WAY", repeated=True)] = ()
    """hash:VARIABLE (of the salt), redact or generalise:STEP. May be repeated."""
    pack: Annotated[str | None, Shown(STEPS, "LENGTH[:COLUMN]")] = None
    """Documents end to end in blocks of so many tokens."""
    shuffle: Annotated[bool, Shown(STEPS)] = False
    """Write all rows in a random order."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1), Shown(STEPS)] = 0
    """Of the split and the shuffle."""
    image_size: Annotated[str | None, Shown(metavar="HxW")] = None
    """Resize all images to this; they must be of one size when not given."""
    row_group_rows: Annotated[int | None, Field(ge=1), Shown(LAYOUT)] = None
    """Rows per row group; by the width of a row when not given."""
    shard_rows: Annotated[int | None, Field(ge=1), Shown(LAYOUT)] = None
    """Rows per shard, rounded up to whole row groups; as many as 256 MiB hold when not given."""
    append: bool = False
    """Add shards to the dataset at DST, as a new version of its manifest."""
    address: str | None = None
    """local, auto or HOST:PORT of a Ray cluster; this process's own when it has one, else RAY_ADDRESS, else local."""
    force: bool = False
    """Replace the dataset at DST."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes True for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("is no value for it")
        return value

    @model_validator(mode="after")
    def _of_use(self) -> Self:
        for name, needed in (("split_by", "split"), ("batch_format", "transform")):
            if getattr(self, name) and not getattr(self, needed):
                raise _Useless(name, needed)
        return self

    @property
    def kept(self) -> dict[str, Any]:
        """What the bytes of the dataset depend on, where it is not the default: plain values, kept in the manifest."""
        return self.model_dump(mode="json", exclude={"append", "address", "force"}, exclude_defaults=True)


class _Useless(Exception):
    """An option that does nothing without another."""


def as_arguments(name: str, value: Any) -> str:
    """An option as Python gives it."""
    return f"{name}={value!r}"


def as_command(name: str, value: Any) -> str:
    """An option as the command line gives it."""
    flag = f"--{name.replace('_', '-')}"
    return flag if isinstance(value, bool) else f"{flag} {_plain(value)}"


def checked(given: Mapping[str, Any], said: Said) -> Options:
    """The options, if they are ones.

    Args:
        given: by name.
        said: names an option as the user did.

    Raises:
        BadInput: an option is unknown, or its value is none for it; names all such.
    """
    try:
        return Options.model_validate(dict(given))
    except _Useless as error:
        name, needed = error.args
        raise BadInput(
            said(name, given[name]), f"it does nothing without {_flag(said, needed)}", "Give both, or none."
        ) from None
    except ValidationError as error:
        wrong = {str(found["loc"][0]): found for found in error.errors()}
    reasons = {said(name, given[name]): _reason(found) for name, found in wrong.items()}
    remedy = next((nearest(n, list(Options.model_fields)) for n, e in wrong.items() if e["type"] == UNKNOWN), "")
    if len(reasons) == 1:
        ((fact, reason),) = reasons.items()
        raise BadInput(fact, reason, remedy) from None
    whole = "; ".join(f"{fact} {reason}" for fact, reason in reasons.items())
    raise BadInput(f"{len(reasons)} options cannot be used", whole, remedy) from None


UNKNOWN = "extra_forbidden"


def _flag(said: Said, name: str) -> str:
    return said(name, True).removesuffix("=True")


def _reason(found: Mapping[str, Any]) -> str:
    limits = found.get("ctx", {})
    if found["type"] == UNKNOWN:
        return "is no option"
    if "ge" in limits:
        return f"must be at least {limits['ge']}"
    if "le" in limits:
        return f"must be at most {limits['le']}"
    if found["type"].startswith("int"):
        return "must be a whole number"
    if found["type"].startswith("bool"):
        return "must be true or false"
    if found["type"].startswith("string"):
        return "must be text"
    if found["type"].startswith("tuple"):
        return "must be text, or several"
    return str(limits.get("error", found["msg"]))


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
