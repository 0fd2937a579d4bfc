"""The LightningModule that is there already, and its rows: not counted, they are the same for all."""

import lightning
import pandas
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset, random_split


class Churn(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch, index):
        return functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def rows(file):
    table = pandas.read_csv(file)
    columns = pandas.get_dummies(table.drop(columns="churned")).astype("float32")
    columns = torch.tensor(((columns - columns.mean()) / columns.std()).to_numpy())
    found = TensorDataset(columns, torch.tensor(table["churned"].to_numpy()))
    return random_split(found, [0.8, 0.2], torch.Generator().manual_seed(0))
