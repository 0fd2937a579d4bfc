"""What of a strategy does not fit a model, which `headway job check` finds by building it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headway import ServedEmbedding
from headway.errors import BadInput
from headway.strategies.fit import refuse
from headway.strategies.options import Strategy


class Recommender(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([ServedEmbedding(10, 4), ServedEmbedding(10, 4, mode="sum", seed=1)])
        self.small = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)


def sparse(*patterns: str) -> Strategy:
    return Strategy.model_validate({"kind": "parameter_server", "sparse": list(patterns)})


@pytest.mark.parametrize("patterns", [("tables.*",), ("tables.0.weight", "tables.1.*"), ()])
def test_served_embeddings_are_good(patterns: tuple[str, ...]) -> None:
    refuse(sparse(*patterns), Recommender())


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (("head.*",), ["'head.weight', which is a Linear's", "Use headway.ServedEmbedding there"]),
        (("tables.*", "small.weight"), ["'small.weight', which is a Embedding's"]),
        (("table.0.weight",), ["no parameter matches it", "Did you mean 'tables.0.weight'?"]),
    ],
)
def test_what_is_dense_or_nowhere_is_refused(patterns: tuple[str, ...], said: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        refuse(sparse(*patterns), Recommender())
    for words in said:
        assert words in str(caught.value)


def test_numbers_that_no_compression_takes_are_refused() -> None:
    model = nn.Module()
    model.wave = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    refuse(Strategy(), model)
    with pytest.raises(BadInput, match="parameters of type complex64 cannot be compressed: these are wave"):
        refuse(Strategy.model_validate({"compression": "int8"}), model)
