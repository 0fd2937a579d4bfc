"""Whether a strategy fits a model, as far as its parameters tell before a run."""

from __future__ import annotations

import torch
from torch import nn

from headway.errors import BadInput
from headway.strategies.options import Strategy
from headway.strategies.parameter_server.embedding import tables

SHOWN = 4


def refuse(options: Strategy, model: nn.Module) -> None:
    """Refuse what cannot be.

    Raises:
        BadInput: `sparse` names no parameter, or one that is dense; there are numbers that no compression takes.
    """
    if options.compresses:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        odd = [name for name, parameter in named.items() if not torch.is_floating_point(parameter)]
        if odd:
            kinds = ", ".join(sorted({str(named[name].dtype).removeprefix("torch.") for name in odd}))
            more = f", and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
            raise BadInput(
                f"strategy.compression={options.compression.kind}: parameters of type {kinds} cannot be compressed",
                f"these are {', '.join(odd[:SHOWN])}{more}",
                "Set strategy.compression: none, or keep them as two real parameters.",
            )
    if options.sparse:
        tables(model, options.sparse)
