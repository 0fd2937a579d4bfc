import sys

import churn
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

accelerator = Accelerator()
train, held_out = churn.rows(sys.argv[1])
model = churn.Churn()
optimizer = model.configure_optimizers()
net, optimizer, train, held_out = accelerator.prepare(
    model.model, optimizer, DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=64)
)
model.model = net
for _ in range(3):
    model.train()
    for index, batch in enumerate(train):
        optimizer.zero_grad()
        accelerator.backward(model.training_step(batch, index))
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = [accelerator.gather_for_metrics(net(x).argmax(1) == y) for x, y in held_out]
    accelerator.print({"accuracy": torch.cat(right).float().mean().item()})
    accelerator.save_state("checkpoint")
