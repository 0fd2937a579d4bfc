import sys

import pandas
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset, random_split

import headway


class Churn(headway.Task):
    def model(self):
        return nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2))

    def loss(self, model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        return {"accuracy": (model(batch[0]).argmax(1) == batch[1]).float().mean()}


if __name__ == "__main__":
    table = pandas.read_csv(sys.argv[1])
    columns = pandas.get_dummies(table.drop(columns="churned")).astype("float32")
    columns = torch.tensor(((columns - columns.mean()) / columns.std()).to_numpy())
    rows = TensorDataset(columns, torch.tensor(table["churned"].to_numpy()))
    train, held_out = random_split(rows, [0.8, 0.2], torch.Generator().manual_seed(0))
    job = {"name": "churn", "lanes": 2, "lane_batch": 32, "epochs": 3}
    report = headway.train(job, task=Churn, data={"train": train, "validation": held_out}, address="in-process")
    print(report.metrics)
