"""The steps that the options ask for, as a recipe."""

from __future__ import annotations

from headway.core import parts as splits
from headway.data.prepare.options import Options
from headway.data.prepare.steps.blocks import Pack
from headway.data.prepare.steps.filters import Filter
from headway.data.prepare.steps.masks import parse as parse_mask
from headway.data.prepare.steps.recipe import Recipe
from headway.data.prepare.steps.transform import load as load_transform
from headway.errors import BadInput


def recipe_of(options: Options) -> Recipe:
    """The recipe.

    Raises:
        BadInput: a step is not written as it must be, or its function or salt cannot be had.
    """
    return Recipe(
        transform=load_transform(options.transform, options.batch_format) if options.transform else None,
        filter=Filter(options.filter) if options.filter else None,
        dedup=options.dedup,
        parts=_parts(options.split),
        split_by=options.split_by,
        seed=options.seed,
        masks=tuple(parse_mask(text) for text in options.mask),
        pack=_pack(options.pack),
        shuffle=options.shuffle,
    )


def _parts(text: str | None) -> splits.Parts | None:
    try:
        return splits.parse(text) if text else None
    except ValueError as error:
        raise BadInput(f"--split {text}", str(error), "Write it like train=0.8,validation=0.1,test=0.1.") from None


def _pack(text: str | None) -> Pack | None:
    if text is None:
        return None
    length, _, column = text.partition(":")
    if not length.isdecimal() or int(length) < 1:
        raise BadInput(f"--pack {text}", "not a number of tokens", "Write --pack LENGTH or --pack LENGTH:COLUMN.")
    return Pack(int(length), column or None)
