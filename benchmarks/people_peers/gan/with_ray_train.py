import sys
import tempfile
from pathlib import Path

import nets
import numpy
import ray.train
import ray.train.torch
import torch
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset


def train_loop(config):
    points = TensorDataset(torch.from_numpy(numpy.load(config["file"])))
    loader = ray.train.torch.prepare_data_loader(DataLoader(points, batch_size=128, shuffle=True))
    generator = ray.train.torch.prepare_model(nets.generator())
    critic = ray.train.torch.prepare_model(nets.critic())
    of_generator = torch.optim.Adam(generator.parameters(), lr=1e-3)
    of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3)
    for epoch in range(3):
        if ray.train.get_context().get_world_size() > 1:
            loader.sampler.set_epoch(epoch)
        for (real,) in loader:
            for _ in range(2):
                fake = generator(torch.randn(len(real), 4, device=real.device)).detach()
                of_critic.zero_grad()
                loss = (softplus(critic(fake)) + softplus(-critic(real))).mean()
                loss.backward()
                of_critic.step()
            of_generator.zero_grad()
            loss = softplus(-critic(generator(torch.randn(len(real), 4, device=real.device)))).mean()
            loss.backward()
            of_generator.step()
        with tempfile.TemporaryDirectory() as folder:
            states = {"generator": generator.state_dict(), "critic": critic.state_dict()}
            torch.save(states, Path(folder, "model.pt"))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"loss": loss.item()}, checkpoint=checkpoint)


if __name__ == "__main__":
    trainer = ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config={"file": str(Path(sys.argv[1]).resolve())},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
    )
    print(trainer.fit().metrics)
