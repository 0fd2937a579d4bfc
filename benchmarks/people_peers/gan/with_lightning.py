import sys

import lightning
import nets
import numpy
import torch
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset


class Ring(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = nets.generator(), nets.critic()

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (self.generator, self.critic)]

    def training_step(self, batch, index):
        of_generator, of_critic = self.optimizers()
        real = batch[0]
        for _ in range(2):
            fake = self.generator(torch.randn(len(real), 4, device=self.device)).detach()
            loss = (softplus(self.critic(fake)) + softplus(-self.critic(real))).mean()
            of_critic.zero_grad()
            self.manual_backward(loss)
            of_critic.step()
        self.toggle_optimizer(of_generator)
        loss = softplus(-self.critic(self.generator(torch.randn(len(real), 4, device=self.device)))).mean()
        of_generator.zero_grad()
        self.manual_backward(loss)
        of_generator.step()
        self.untoggle_optimizer(of_generator)
        self.log("loss", loss)


if __name__ == "__main__":
    points = TensorDataset(torch.from_numpy(numpy.load(sys.argv[1])))
    trainer = lightning.Trainer(max_epochs=3)
    trainer.fit(Ring(), DataLoader(points, batch_size=128, shuffle=True))
    print(trainer.callback_metrics)
