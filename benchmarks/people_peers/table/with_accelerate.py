import sys

import pandas
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

accelerator = Accelerator()
table = pandas.read_csv(sys.argv[1])
columns = pandas.get_dummies(table.drop(columns="churned")).astype("float32")
columns = torch.tensor(((columns - columns.mean()) / columns.std()).to_numpy())
rows = TensorDataset(columns, torch.tensor(table["churned"].to_numpy()))
train, held_out = random_split(rows, [0.8, 0.2], torch.Generator().manual_seed(0))
model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.AdamW(model.parameters())
model, optimizer, train, held_out = accelerator.prepare(
    model, optimizer, DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=64)
)
for _ in range(3):
    model.train()
    for x, y in train:
        optimizer.zero_grad()
        accelerator.backward(functional.cross_entropy(model(x), y))
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = [accelerator.gather_for_metrics(model(x).argmax(1) == y) for x, y in held_out]
    accelerator.print({"accuracy": torch.cat(right).float().mean().item()})
    accelerator.save_state("checkpoint")
