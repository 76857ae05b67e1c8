import subprocess
import sys

import torch

from vidfuse.training.optimizer import AdamW


def test_the_weights_are_those_of_torch_to_the_bit():
    torch.manual_seed(0)
    ours = [torch.randn(4, 3, requires_grad=True), torch.randn(3, requires_grad=True)]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    mine = AdamW(
        [{"params": ours[:1], "weight_decay": 0.1}, {"params": ours[1:], "weight_decay": 0.0}], 0.01
    )
    reference = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}],
        lr=0.01,
        fused=True,
    )
    for step in range(5):
        for parameters, optimizer in ((ours, mine), (theirs, reference)):
            for parameter in parameters:
                parameter.grad = None
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (step + 1)
            (parameters[0].sin().sum() * parameters[1].pow(2).sum()).backward()
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_it_starts_without_the_compiler():
    code = (
        "import sys, torch\n"
        "from vidfuse.training.optimizer import AdamW\n"
        "p = torch.ones(2, requires_grad=True)\n"
        "optimizer = AdamW([{'params': [p], 'weight_decay': 0.0}], 0.1)\n"
        "p.sum().backward()\n"
        "optimizer.step()\n"
        "assert p[0] < 1\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
