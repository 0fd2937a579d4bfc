import sys

import lightning
import pandas
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split


class Churn(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch, index):
        return functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


if __name__ == "__main__":
    table = pandas.read_csv(sys.argv[1])
    columns = pandas.get_dummies(table.drop(columns="churned")).astype("float32")
    columns = torch.tensor(((columns - columns.mean()) / columns.std()).to_numpy())
    rows = TensorDataset(columns, torch.tensor(table["churned"].to_numpy()))
    train, held_out = random_split(rows, [0.8, 0.2], torch.Generator().manual_seed(0))
    trainer = lightning.Trainer(max_epochs=3)
    trainer.fit(Churn(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=64))
    print(trainer.callback_metrics)
