import sys

import nets
import numpy
import torch
from accelerate import Accelerator
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

accelerator = Accelerator()
points = TensorDataset(torch.from_numpy(numpy.load(sys.argv[1])))
generator, critic = nets.generator(), nets.critic()
of_generator = torch.optim.Adam(generator.parameters(), lr=1e-3)
of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3)
generator, critic, of_generator, of_critic, loader = accelerator.prepare(
    generator, critic, of_generator, of_critic, DataLoader(points, batch_size=128, shuffle=True)
)
for _ in range(3):
    for (real,) in loader:
        for _ in range(2):
            fake = generator(torch.randn(len(real), 4, device=accelerator.device)).detach()
            of_critic.zero_grad()
            loss = (softplus(critic(fake)) + softplus(-critic(real))).mean()
            accelerator.backward(loss)
            of_critic.step()
        of_generator.zero_grad()
        loss = softplus(-critic(generator(torch.randn(len(real), 4, device=accelerator.device)))).mean()
        accelerator.backward(loss)
        of_generator.step()
    accelerator.save_state("checkpoint")
accelerator.print({"loss": loss.item()})
