import sys
import tempfile
from pathlib import Path

import pandas
import ray.train
import ray.train.torch
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split


def train_loop(config):
    table = pandas.read_csv(config["file"])
    columns = pandas.get_dummies(table.drop(columns="churned")).astype("float32")
    columns = torch.tensor(((columns - columns.mean()) / columns.std()).to_numpy())
    rows = TensorDataset(columns, torch.tensor(table["churned"].to_numpy()))
    train, held_out = random_split(rows, [0.8, 0.2], torch.Generator().manual_seed(0))
    train = ray.train.torch.prepare_data_loader(DataLoader(train, batch_size=64, shuffle=True))
    held_out = ray.train.torch.prepare_data_loader(DataLoader(held_out, batch_size=64))
    model = ray.train.torch.prepare_model(nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2)))
    optimizer = torch.optim.AdamW(model.parameters())
    for epoch in range(3):
        if ray.train.get_context().get_world_size() > 1:
            train.sampler.set_epoch(epoch)
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = torch.cat([model(x).argmax(1) == y for x, y in held_out])
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder, "model.pt"))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"accuracy": right.float().mean().item()}, checkpoint=checkpoint)


if __name__ == "__main__":
    trainer = ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config={"file": str(Path(sys.argv[1]).resolve())},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
    )
    print(trainer.fit().metrics)
