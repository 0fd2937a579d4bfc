import sys

import datasets
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

accelerator = Accelerator()
rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train").with_format("torch")
parts = rows.train_test_split(0.25, seed=0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
model = BertForSequenceClassification(BertConfig(vocab_size=100, **sizes))
optimizer = torch.optim.AdamW(model.parameters())
model, optimizer, train, held_out = accelerator.prepare(
    model, optimizer, DataLoader(parts["train"], batch_size=32, shuffle=True), DataLoader(parts["test"], batch_size=32)
)
for _ in range(2):
    model.train()
    for batch in train:
        optimizer.zero_grad()
        accelerator.backward(model(**batch).loss)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = [
            accelerator.gather_for_metrics(model(**batch).logits.argmax(1) == batch["labels"]) for batch in held_out
        ]
    accelerator.print({"accuracy": torch.cat(right).float().mean().item()})
    accelerator.save_state("checkpoint")
