"""torch's optimisers without its compiler, and with it as soon as somebody compiles: the same bits."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, torch
from headway.elastic.worker import dynamo

later = sys.argv[1] == "later"
if later:
    dynamo.leave_for_later()
    dynamo.leave_for_later()  # twice is once
torch.manual_seed(0)
model, x = torch.nn.Linear(4, 2), torch.randn(8, 4)
made = [torch.optim.Adam(model.parameters()), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)]

def step(forward):
    for optimizer in made:
        def closure():
            optimizer.zero_grad()
            loss = forward(x).square().mean()
            loss.backward()
            return loss
        assert not optimizer.step(closure).isnan()
        optimizer.load_state_dict(optimizer.state_dict())
        assert torch.is_grad_enabled()

step(model)
assert ("torch._dynamo" in sys.modules) is not later, "it was imported"
step(torch.compile(model, backend="eager"))
made.append(torch.optim.AdamW(model.parameters()))
step(torch.compile(model, backend="eager"))
assert "torch._dynamo" in sys.modules
print([parameter.tolist() for parameter in model.parameters()])
"""


def test_the_compiler_comes_when_somebody_compiles() -> None:
    said = []
    for when in ("later", "at once"):
        done = subprocess.run([sys.executable, "-c", SCRIPT, when], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
