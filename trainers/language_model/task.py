"""A small GPT that predicts the next byte of Python source. Tokens are the 256 bytes.

    headway data get python-source
    headway train trainers/language_model/job.yaml

Any dataset with a `tokens` column (uint8 [context + 1]) trains with it; `headway data prepare` makes one of text files.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

import headway
from headway.data.arrays import arrays

BYTES = 256


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        split = self.project_in(x).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [rows, heads, length, width / heads]
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.project_out(mixed.transpose(1, 2).reshape(rows, length, width))


class Block(nn.Module):
    """Attention and a perceptron, each normalised before and added after (pre-norm)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop(self.attention(self.norm_1(x)))
        return x + self.drop(self.perceptron(self.norm_2(x)))


class GPT(nn.Module):
    """Bytes in, uint8 or int64 [rows, length]; scores of each next byte out, [rows, length, 256]."""

    def __init__(self, context: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(BYTES, width)
        self.positions = nn.Embedding(context, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, BYTES, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # GPT-2: what is added to the residual stream starts smaller the more layers add to it.
                added = name.endswith(("project_out.weight", "perceptron.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if added else 0.02)
        self.scores.weight = self.tokens.weight  # Press & Wolf 2017, Using the Output Embedding

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.scores(self.norm(self.blocks(self.drop(self.tokens(tokens) + self.positions(places)))))


class LanguageModel(headway.Task):
    """The job's `arguments`: bytes of context, width, heads, layers, dropout, learning rate, weight decay."""

    def __init__(
        self,
        context: int = 256,
        width: int = 128,
        heads: int = 4,
        layers: int = 3,
        dropout: float = 0.0,
        rate: float = 3e-3,
        decay: float = 0.1,
    ) -> None:
        if width % heads:
            raise ValueError(f"width={width} cannot be split among heads={heads}")
        self.shape = (context, width, heads, layers)
        self.dropout, self.rate, self.decay = dropout, rate, decay

    def model(self) -> nn.Module:
        return GPT(*self.shape, self.dropout)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW that decays matrices and leaves the norms' gains and biases alone."""
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": self.decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.95))

    def transform(self, table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, np.ndarray]:
        tokens = arrays(table.select(["tokens"]))["tokens"].astype(np.int64)
        context = self.shape[0]
        if tokens.shape[1] != context + 1:
            length = tokens.shape[1] - 1
            raise ValueError(
                f"blocks of {length} + 1 bytes need context={length} in the job's arguments, not {context}"
            )
        return {"input": tokens[:, :-1], "target": tokens[:, 1:]}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Nats per byte; every row has as many bytes, so the mean over bytes is the mean over rows."""
        scores = model(batch["input"])
        return functional.cross_entropy(scores.flatten(0, 1).float(), batch["target"].flatten())

    def metrics(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | float]:
        loss = self.loss(model, batch)
        return {"loss": loss, "bits_per_byte": loss / math.log(2)}
