"""Prints when the first step was done."""

import sys
import time
from pathlib import Path

import ray.train
import ray.train.torch
import rows
import torch
from torch.nn import functional


def train_loop(config):
    net = ray.train.torch.prepare_model(rows.net())
    optimizer = torch.optim.AdamW(net.parameters())
    for x, y in ray.train.torch.prepare_data_loader(rows.loader(config["file"])):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        break
    Path(config["told"]).write_text(str(time.time()))


if __name__ == "__main__":
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parent)}})
    told = f"{Path(sys.argv[1]).resolve()}.first"
    trainer = ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config={"file": str(Path(sys.argv[1]).resolve()), "told": told},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
    )
    trainer.fit()
    print("first step", Path(told).read_text())
