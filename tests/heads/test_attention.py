from typing import Any

import pytest
import torch
from by_hand import (
    attend,
    check,
    feed_forward,
    gelu,
    layer_norm,
    linear,
    position,
    read,
    recurrent_head,
    run_cell,
    sequence_head,
    softmax,
)

from vidfuse.errors import UserError
from vidfuse.heads import build_head
from vidfuse.heads.attention import Attention, RelativePositionBias
from vidfuse.heads.layers import PositionEmbedding

SDPA = torch.nn.functional.scaled_dot_product_attention


def self_attention(head, clip):
    def read_sequence(rows):
        places = [position(head.positions.table, t, len(rows)) for t in range(len(rows))]
        pairs = zip(rows, places, strict=True)
        rows = [layer_norm(row + place, head.attention_norm) for row, place in pairs]
        pairs = zip(rows, attend(head.attend, rows, head.distances), strict=True)
        rows = [gelu(linear(row + heard, head.transform[0])) for row, heard in pairs]
        return read(rows, head.readout)

    return sequence_head(head, clip, read_sequence)


def transformer(head, clip):
    def read_sequence(rows):
        places = [position(head.positions.table, t, len(rows)) for t in range(len(rows))]
        rows = [head.token, *(row + place for row, place in zip(rows, places, strict=True))]
        for block in head.blocks:
            normed = [layer_norm(row, block.attention_norm) for row in rows]
            heard = attend(block.attend, normed, head.distances, tokens=1)
            rows = [row + each for row, each in zip(rows, heard, strict=True)]
            rows = [row + feed_forward(row, block.transform) for row in rows]
        return layer_norm(rows[0], head.last_norm)

    return sequence_head(head, clip, read_sequence)


def temporal_attention(head, clip):
    def read_sequence(rows):
        states = run_cell(head.recurrence, rows)
        first, _, context = head.energy
        weights = softmax([linear(linear(state, first).tanh(), context)[0] for state in states])
        return sum(weight * state for weight, state in zip(weights, states, strict=True))

    reads = {"frames": sequence_head, "deviations": recurrent_head}[head.inputs]
    return reads(head, clip, read_sequence)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    ("name", "settings", "by_hand"),
    [
        ("self-attention", {"heads": 2}, self_attention),
        ("self-attention", {"heads": 1, "readout": "mean"}, self_attention),
        ("transformer", {"heads": 3, "layers": 2}, transformer),
        ("temporal-attention", {}, temporal_attention),
        ("temporal-attention", {"inputs": "frames"}, temporal_attention),
    ],
)
def test_heads_follow_their_equations_and_so_do_their_gradients(
    name, settings, by_hand, dtype, close
):
    settings = {"hidden": 6, **settings}
    head: Any = build_head(name, channels=3, grid=2, classes=4, settings=settings)
    check(head, by_hand, dtype=dtype, close=close)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_that_of_torch(heads):
    torch.manual_seed(0)
    layer = Attention(hidden=8, heads=heads)
    sequence = torch.randn(3, 7, 8, requires_grad=True)
    lengths = torch.tensor([7, 4, 1])
    real = torch.arange(7) < lengths[:, None]
    distances = RelativePositionBias(heads)
    output, weights = layer(sequence, real, distances(7))

    split = layer.queries_keys_values(sequence).chunk(3, dim=2)
    queries, keys, values = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in split)
    biases = distances(7).masked_fill(~real[:, None, None], -torch.inf)
    heard = SDPA(queries, keys, values, attn_mask=biases)
    expected = layer.out(heard.transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(
            output[real].square().sum(), [sequence, *layer.parameters(), *distances.parameters()]
        ),
        torch.autograd.grad(
            expected[real].square().sum(), [sequence, *layer.parameters(), *distances.parameters()]
        ),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)

    torch.testing.assert_close(weights.sum(3), torch.ones(3, heads, 7))
    assert weights.masked_select(~real[:, None, None]).abs().max() == 0


def test_temporal_attention_can_be_viewed():
    torch.manual_seed(0)
    settings = {"hidden": 4, "bidirectional": True}
    head: Any = build_head(
        "temporal-attention", channels=3, grid=1, classes=2, settings=settings
    ).eval()
    features, lengths = torch.randn(2, 5, 3, 1, 1), torch.tensor([5, 3])
    weights = head.attention(features, lengths)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights[1, 3:].tolist() == [0.0, 0.0]

    # They are those of the forward pass: with one frame's weight at 1, its state is what is read.
    with torch.no_grad():
        head.energy[0].weight.fill_(0.0)
    torch.testing.assert_close(head.attention(features, lengths)[0], torch.full((5,), 0.2))
    states, frames = head.states(features, lengths)
    answer = head.classifier(torch.cat([states[0].mean(0), frames[0].mean(0)]))
    torch.testing.assert_close(head(features, lengths)[0], answer)


def test_positions_are_shares_of_a_clip():
    torch.manual_seed(0)
    positions = PositionEmbedding(size=2, places=4)
    table = positions.table
    found = positions(torch.tensor([7, 4, 2, 1]), 8)
    torch.testing.assert_close(found[0, [0, 2, 4, 6]], table)
    torch.testing.assert_close(found[0, 1], (table[0] + table[1]) / 2)
    torch.testing.assert_close(found[1, :4], table)
    torch.testing.assert_close(found[2, :2], table[[0, 3]])
    torch.testing.assert_close(found[3, 0], table[0])
    for clip, length in zip(found, (7, 4, 2, 1), strict=True):
        assert clip[length:].abs().max() == 0


@pytest.mark.parametrize("name", ["self-attention", "transformer", "gat"])
def test_heads_must_divide_the_vector(name):
    with pytest.raises(UserError, match="hidden=6 is no multiple of heads=4"):
        build_head(name, channels=2, grid=1, classes=2, settings={"hidden": 6, "heads": 4})
    with pytest.raises(UserError, match="heads must be at least 1"):
        build_head(name, channels=2, grid=1, classes=2, settings={"heads": 0})
