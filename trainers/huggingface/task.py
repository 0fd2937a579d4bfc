"""A small BERT, from its configuration, that tells two kinds of sentences apart; data by Hugging Face's `datasets`.

    pip install headway[huggingface]
    headway train trainers/huggingface/job.yaml --local

Nothing is fetched: the sentences are numbers, some of which occur in one kind more often. With a checkpoint of the hub
`model()` is AutoModelForSequenceClassification.from_pretrained(NAME, num_labels=2), and the data are `load_dataset`'s.
"""

from __future__ import annotations

import datasets
import numpy as np
from transformers import BertConfig, BertForSequenceClassification

from headway.adapters.huggingface import HuggingFace

WORDS, KINDS = 100, 2


class Sentences(HuggingFace):
    """The job's `arguments`: width, layers."""

    def __init__(self, width: int = 32, layers: int = 2) -> None:
        self.width, self.layers = width, layers

    def model(self) -> BertForSequenceClassification:
        config = BertConfig(
            vocab_size=WORDS,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=2,
            intermediate_size=2 * self.width,
            num_labels=KINDS,
            id2label={0: "plain", 1: "odd"},
        )
        return BertForSequenceClassification(config)


def sentences(rows: int, seed: int) -> datasets.Dataset:
    """Sentences of 4 to 15 words; those of the second kind have many words above 50."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, KINDS, rows)
    words = [random.integers(1 + 25 * kind, 51 + 49 * kind, random.integers(4, 16)).tolist() for kind in labels]
    mask = [[1] * len(each) for each in words]
    return datasets.Dataset.from_dict({"input_ids": words, "attention_mask": mask, "labels": labels.tolist()})


def train_set() -> datasets.Dataset:
    return sentences(1024, 0)


def held_out() -> datasets.Dataset:
    return sentences(256, 1)
