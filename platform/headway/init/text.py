"""The task of text: a small GPT that predicts the next byte."""

from __future__ import annotations

from string import Template

from headway.init.written import prose

TASK = '''"""Predicts the next byte of the text of $source. Made by `headway init`, to be changed at will."""

import torch
from torch import nn
from torch.nn import functional

import headway

CONTEXT = $context  # bytes that are seen; the data are cut into blocks of one more


class Block(nn.Module):
    """Causal attention and a perceptron, each normalised before and added after."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x):
        rows, length, width = x.shape
        split = self.project_in(self.norms[0](x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        x = x + self.project_out(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.perceptron(self.norms[1](x))


class GPT(nn.Module):
    """Bytes in, [rows, length]; scores of each next byte out, [rows, length, 256]."""

    def __init__(self, width, heads, layers, dropout):
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm, self.scores = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.scores(self.norm(self.blocks(self.bytes(tokens) + self.places(places))))


class $name(headway.Task):
    def __init__(self, width=128, heads=4, layers=2, dropout=0.1):
        self.width, self.heads, self.layers, self.dropout = width, heads, layers, dropout

    def model(self):
        return GPT(self.width, self.heads, self.layers, self.dropout)

    def scored(self, model, batch):
        """The loss of every byte, [rows, length]."""
        tokens = batch["tokens"].long()
        return functional.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:], reduction="none")

    def loss(self, model, batch):
        return self.scored(model, batch).mean()

    def metrics(self, model, batch):
        loss = self.scored(model, batch).mean()
        return {"loss": loss, "bits_per_byte": loss / 0.6931471805599453}

    def predict(self, model, batch):
        """One entry for each block: how much of a surprise it is."""
        return {"bits_per_byte": self.scored(model, batch).mean(1) / 0.6931471805599453}
'''


def task(name: str, source: str, context: int) -> str:
    """The task's file.

    Args:
        name: of the class.
        source: for people.
        context: bytes of a block less one.
    """
    return Template(TASK).substitute(name=name, source=prose(source), context=context)
