"""Motion that only the order of frames shows: what a head needs a sense of time and place for."""

import pytest
import torch

from vidfuse.heads import build_head

D, GRID, FRAMES = 3, 4, 6


def moving_cells(clips, seed):
    """Features [N, T, D, 4, 4] of a cell that moves to the right (1) or left (0), and labels [N].

    It starts anywhere and comes back in at the other edge, so a single frame says nothing. Every
    clip is also there backwards, with the other label, so neither does an average of all frames.
    """
    generator = torch.Generator().manual_seed(seed)
    features = 0.1 * torch.randn(clips, FRAMES, D, GRID, GRID, generator=generator)
    rows, starts = torch.randint(GRID, (2, clips, 1), generator=generator)
    times = torch.arange(FRAMES)
    features[torch.arange(clips)[:, None], times, :, rows, (starts + times) % GRID] += 1.0
    labels = torch.ones(clips, dtype=torch.int64)
    return torch.cat([features, features.flip(1)]), torch.cat([labels, 1 - labels])


def accuracy_after_training(name, settings, steps):
    torch.manual_seed(0)
    head = build_head(name, channels=D, grid=GRID, classes=2, settings=settings)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
    features, labels = moving_cells(96, seed=1)
    lengths = torch.full_like(labels, FRAMES)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features, lengths), labels).backward()
        optimizer.step()
    features, labels = moving_cells(64, seed=2)
    with torch.no_grad():
        logits = head.eval()(features, torch.full_like(labels, FRAMES))
    return (logits.argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cbam", {"width": 8, "hidden": 32}),
        ("channel-attention", {"width": 8, "hidden": 32}),
        ("convgru", {"width": 8, "hidden": 8}),
        ("convlstm", {"width": 8, "hidden": 8}),
        ("convlstm", {"width": 8, "hidden": 8, "readout": "last"}),
        ("convlstm", {"width": 8, "hidden": 8, "readout": "max"}),
        ("gat", {"hidden": 32}),
        ("gcn", {"hidden": 32}),
        ("gcn", {"hidden": 32, "graph": "neighbours"}),
        ("gru", {"hidden": 32}),
        ("gru", {"hidden": 32, "readout": "max", "bidirectional": True}),
        ("lstm", {"hidden": 32}),
        ("lstm", {"hidden": 32, "readout": "last"}),
        ("parallel", {"hidden": 32}),
        ("parallel", {"hidden": 32, "fusion": "bilinear", "branch": "pooled"}),
        ("rnn", {"hidden": 32}),
        ("rnn-cnn", {"hidden": 32}),
        ("self-attention", {"hidden": 32}),
        ("tcn", {"hidden": 32}),
        ("temporal-attention", {"hidden": 32}),
        ("transformer", {"hidden": 32}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_heads_learn_which_way_a_cell_moves(name, settings):
    assert accuracy_after_training(name, settings, steps=80) > 0.95


def test_spatial_attention_learns_it_once_it_has_learned_where_to_look():
    settings = {"width": 16, "hidden": 32}
    assert accuracy_after_training("spatial-attention", settings, steps=160) > 0.8


def test_the_attentive_probe_learns_it_from_more_steps():
    settings = {"hidden": 32, "heads": 1}
    assert accuracy_after_training("attentive-probe", settings, steps=120) > 0.95


@pytest.mark.parametrize("name", ["max", "mean", "mean-std", "middle"])
def test_heads_without_time_cannot(name):
    assert 0.4 < accuracy_after_training(name, {}, steps=80) < 0.6
