import subprocess
import sys

import torch

from vidfuse.training.optimizer import AdamW, calibration_weights


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


def sure_of(classes, sure):
    """Logits [N, 3] that are for one class each."""
    return sure * torch.eye(3)[classes]


def test_what_is_too_sure_gets_a_small_weight_as_the_best_temperature_has_it():
    labels = torch.arange(300) % 3
    said = torch.where(torch.arange(300) < 240, labels, (labels + 1) % 3)  # 80 % are right
    (weight,) = calibration_weights(sure_of(said, 9.0)[None], labels)
    # A softmax of 0.8 for the class that is said, of three: exp(s) = 0.8 * 2 / 0.2
    torch.testing.assert_close(weight, torch.tensor(8.0).log() / 9, rtol=0.02, atol=0.0)


def test_parts_count_by_what_they_know():
    labels = torch.arange(300) % 3
    generator = torch.Generator().manual_seed(0)
    guessed = torch.randint(3, (300,), generator=generator)
    knows, guesses = calibration_weights(
        torch.stack([sure_of(labels, 1.0), sure_of(guessed, 5.0)]), labels
    )
    assert guesses * 5.0 < knows / 3
    assert knows > 2.0


def test_few_clips_say_little():
    labels = torch.tensor([0, 1, 2])
    few = calibration_weights(sure_of(labels, 3.0)[None], labels)
    many = calibration_weights(sure_of(labels, 3.0).repeat(500, 1)[None], labels.repeat(500))
    assert 1.0 < few < 2.0 < many


@torch.no_grad()
def unlikely(logs, parts, labels):
    logits = (logs.exp()[:, None, None] * parts).sum(0)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    return (loss + logs.square().sum() / 2).item()


def test_no_weights_nearby_are_likelier():
    generator = torch.Generator().manual_seed(0)
    for clips, right in ((12, (0.5, 0.8)), (20, (0.3, 0.6)), (60, (0.4, 0.9)), (60, (0.7, 0.7))):
        labels = torch.arange(clips) % 2
        parts = []
        for share in right:
            wrong = torch.rand(clips, generator=generator) >= share
            said = torch.where(wrong, 1 - labels, labels)
            parts.append(9.0 * torch.rand(clips, 1, generator=generator) * torch.eye(2)[said])
        stacked = torch.stack(parts)
        logs = calibration_weights(stacked, labels).log()
        best = unlikely(logs, stacked, labels)
        for step in (0.03 * torch.eye(2)).repeat(2, 1) * torch.tensor([[1.0]] * 2 + [[-1.0]] * 2):
            assert unlikely(logs + step, stacked, labels) >= best - 1e-3


def test_what_is_not_finite_is_not_weighed():
    parts = torch.tensor([[[0.0, float("nan")]], [[1.0, 0.0]]])
    assert calibration_weights(parts, torch.tensor([0])).tolist() == [1.0, 1.0]
