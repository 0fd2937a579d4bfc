import sys

import nets
import numpy
import torch
from torch.nn.functional import softplus
from torch.utils.data import TensorDataset

import headway


class Ring(headway.Task):
    def model(self):
        return {"generator": nets.generator(), "critic": nets.critic()}

    def optimizer(self, model):
        return {name: torch.optim.Adam(model[name].parameters(), lr=1e-3) for name in ("generator", "critic")}

    def updates(self, step):
        return ["critic", "critic", "generator"]

    def loss(self, model, batch, update):
        fake = model["generator"](torch.randn(len(batch[0]), 4))
        if update == "generator":
            return softplus(-model["critic"](fake)).mean()
        return (softplus(model["critic"](fake.detach())) + softplus(-model["critic"](batch[0]))).mean()


if __name__ == "__main__":
    points = TensorDataset(torch.from_numpy(numpy.load(sys.argv[1])))
    job = {"name": "ring", "lanes": 2, "lane_batch": 64, "epochs": 3}
    report = headway.train(job, task=Ring, data={"train": points}, address="in-process")
    print(report.metrics)
