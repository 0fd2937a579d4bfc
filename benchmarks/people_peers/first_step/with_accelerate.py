"""Prints when the first step was done."""

import sys
import time

import rows
import torch
from accelerate import Accelerator
from torch.nn import functional

accelerator = Accelerator(cpu=True)
net = rows.net()
net, optimizer, loader = accelerator.prepare(net, torch.optim.AdamW(net.parameters()), rows.loader(sys.argv[1]))
for x, y in loader:
    optimizer.zero_grad()
    accelerator.backward(functional.cross_entropy(net(x), y))
    optimizer.step()
    print("first step", time.time())
    break
