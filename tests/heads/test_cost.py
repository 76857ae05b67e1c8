"""Costs are counted by torch; here they are held against what the equations say."""

import pytest
import torch

from vidfuse.heads import HEADS, build_head, head_class
from vidfuse.heads.cost import count, measure
from vidfuse.heads.pooling import Mean
from vidfuse.heads.registry import options_of

D, T, C = 8, 5, 3


def build(name, grid=2, **settings):
    for module in head_class(name).requires:
        pytest.importorskip(module)
    return build_head(name, channels=D, grid=grid, classes=C, settings=settings)


P, H = D * 4, 6
IN_AND_OUT = T * P * H + (H + P) * C  # projection of each frame, and the classifier
# Of a recurrence on deviations, whose states four queries look at, and the mean frame has no cells.
RECURRENT = T * P * H + 2 * T * 4 * H + (4 * H + D) * C


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("mean", {}, P * C),
        ("mean-std", {}, 2 * P * C),
        ("rnn", {}, RECURRENT + T * 2 * H * H),
        ("gru", {}, RECURRENT + T * 6 * H * H),
        ("lstm", {}, RECURRENT + T * 8 * H * H),
        ("lstm", {"layers": 2}, RECURRENT + T * 16 * H * H),
        ("lstm", {"bidirectional": True}, RECURRENT + 2 * T * 4 * H + 4 * H * C + T * 16 * H * H),
        ("lstm", {"inputs": "frames", "readout": "max"}, IN_AND_OUT + T * 8 * H * H),
        (
            "temporal-attention",
            {},
            T * P * H + T * (8 * H * H + H * H + H + H) + (H + D) * C,
        ),
        ("self-attention", {"heads": 2}, IN_AND_OUT + T * (5 * H * H + 2 * T * H)),
        ("tcn", {"layers": 1, "kernel": 3}, IN_AND_OUT + T * 2 * 3 * H * H),
        ("rnn-cnn", {"kernel": 3}, IN_AND_OUT + T * (6 * H * H + 3 * H * H)),
        ("parallel", {"fusion": "sum"}, IN_AND_OUT + T * (6 * H * H + 3 * H * H)),
        ("parallel", {"fusion": "gated"}, IN_AND_OUT + T * 9 * H * H + 4 * H * H),
        ("gcn", {"layers": 2}, IN_AND_OUT + T * 2 * 2 * H * H),
        # One step more than frames: the class token.
        (
            "transformer",
            {"layers": 1, "heads": 2},
            IN_AND_OUT + (T + 1) * (8 * H * H + 2 * (T + 1) * H),
        ),
        # On 4 cells a frame, with 4 queries.
        (
            "attentive-probe",
            {"blocks": 3, "heads": 2},
            T * 4 * (D * H + 2 * H * H + 2 * 4 * H + 2 * (8 * H * H + 2 * T * 4 * H))
            + 4 * 5 * H * H
            + (4 * H + D) * C,
        ),
        # On 4 positions: 1×1 convolution to 3 channels, 3×3 convolutions of input and state.
        (
            "convlstm",
            {"width": 3},
            T * 4 * (D * 3 + 4 * 9 * (3 + H) * H) + (H + D) * C,
        ),
        ("convgru", {"width": 3}, T * 4 * (D * 3 + 3 * 9 * (3 + H) * H) + (H + D) * C),
        (
            "spatial-attention",
            {"width": 3},
            T * (4 * D * 3 + 2 * 4 * 3 + 4 * H + H * 3 + 4 * (3 + H) * H) + 3 * 2 * H + (H + D) * C,
        ),
    ],
)
def test_multiply_adds_are_those_of_the_equations(name, settings, expected):
    if "hidden" in options_of(head_class(name)):
        settings = {"hidden": H, **settings}
    assert count(build(name, **settings), T).multiply_adds == expected


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_is_counted_and_timed_and_left_as_it_was(name):
    head = build(name)
    cost = count(head, T)
    assert cost.parameters == sum(each.numel() for each in head.parameters())
    assert cost.multiply_adds >= C * D
    latency = measure(head, T, batch=4, repeats=3)
    assert latency.batched > 0
    assert latency.alone > 0
    assert latency.batch == 4
    assert {each.dtype for each in head.parameters()} == {torch.float32}


def test_a_second_frame_costs_as_much_again():
    head = build("lstm")
    one, two, three = (count(head, frames).multiply_adds for frames in (1, 2, 3))
    assert two - one == three - two > 0


class SinglePrecision(Mean):
    """Makes a tensor of its own without asking for the type of the others."""

    def forward(self, features, lengths):
        return super().forward(features @ torch.eye(features.shape[-1]), lengths)


def test_a_head_that_computes_in_float32_only_is_counted_too():
    assert count(SinglePrecision(D, 2, C), T).multiply_adds == P * C + T * P * 2
