import sys

import datasets
import lightning
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification


class Classify(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        self.model = BertForSequenceClassification(BertConfig(vocab_size=100, **sizes))

    def training_step(self, batch, index):
        return self.model(**batch).loss

    def validation_step(self, batch, index):
        right = self.model(**batch).logits.argmax(1) == batch["labels"]
        self.log("accuracy", right.float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


if __name__ == "__main__":
    rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train").with_format("torch")
    parts = rows.train_test_split(0.25, seed=0)
    trainer = lightning.Trainer(max_epochs=2)
    train, held_out = DataLoader(parts["train"], batch_size=32, shuffle=True), DataLoader(parts["test"], batch_size=32)
    trainer.fit(Classify(), train, held_out)
    print(trainer.callback_metrics)
