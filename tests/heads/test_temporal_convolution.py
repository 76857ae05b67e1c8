"""Heads with convolutions over time: tcn, rnn-cnn, parallel."""

import pytest
import torch
from by_hand import check, layer_norm, linear, read, run_cell, sequence_head

from vidfuse.errors import UserError
from vidfuse.heads import build_head


def convolve(layer, rows, dilation=1, causal=False):
    """A convolution over the rows of one clip, one step and one tap at a time."""
    weight, bias = layer.convolution.weight, layer.convolution.bias
    taps = weight.shape[2]
    out = []
    for t in range(len(rows)):
        total = bias
        for j in range(taps):
            back = (taps - 1 - j) if causal else (taps - 1) // 2 - j
            source = t - dilation * back
            if 0 <= source < len(rows):
                total = total + weight[:, :, j] @ rows[source]
        out.append(total)
    return out


def tcn(head, clip):
    def read_sequence(rows):
        for number, block in enumerate(head.blocks):
            how = {"dilation": 2**number, "causal": head.causal}
            inner = convolve(block.first, [layer_norm(row, block.norm) for row in rows], **how)
            inner = convolve(block.second, [row.relu() for row in inner], **how)
            rows = [row + each.relu() for row, each in zip(rows, inner, strict=True)]
        return read([layer_norm(row, head.last_norm) for row in rows], head.readout)

    return sequence_head(head, clip, read_sequence)


def rnn_cnn(head, clip):
    def read_sequence(rows):
        convolved = convolve(head.convolve, run_cell(head.recurrence, rows))
        return read([row.relu() for row in convolved], head.readout)

    return sequence_head(head, clip, read_sequence)


def parallel(head, clip):
    def read_sequence(rows):
        if head.branch == "pooled":
            a = linear(sum(rows) / len(rows), head.look).relu()
        else:
            a = read([row.relu() for row in convolve(head.look, rows)], "max")
        b = read(run_cell(head.recurrence, rows), "mean")
        if head.fusion in ("concat", "sum"):
            return torch.cat([a, b]) if head.fusion == "concat" else a + b
        bent_a, bent_b = linear(a, head.fuse.of_a).tanh(), linear(b, head.fuse.of_b).tanh()
        if head.fusion == "bilinear":
            return bent_a * bent_b
        z = linear(torch.cat([a, b]), head.fuse.gate).sigmoid()
        return z * bent_a + (1 - z) * bent_b

    return sequence_head(head, clip, read_sequence)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    ("name", "settings", "by_hand"),
    [
        ("tcn", {}, tcn),
        ("tcn", {"causal": False, "layers": 2, "readout": "mean"}, tcn),
        ("tcn", {"kernel": 2, "readout": "last"}, tcn),
        ("rnn-cnn", {}, rnn_cnn),
        ("rnn-cnn", {"cell": "lstm", "kernel": 5, "readout": "mean"}, rnn_cnn),
        ("parallel", {}, parallel),
        ("parallel", {"branch": "pooled", "cell": "rnn"}, parallel),
        ("parallel", {"fusion": "sum"}, parallel),
        ("parallel", {"fusion": "gated"}, parallel),
        ("parallel", {"fusion": "bilinear"}, parallel),
    ],
)
def test_heads_follow_their_equations_and_so_do_their_gradients(
    name, settings, by_hand, dtype, close
):
    head = build_head(name, channels=3, grid=2, classes=4, settings={"hidden": 4, **settings})
    check(head, by_hand, frames=9, dtype=dtype, close=close)


def seen_by(head, frame, frames):
    """Which frames of a clip change what `tcn` has at one of them."""
    sequence = torch.randn(1, frames, head.hidden, dtype=torch.float64, requires_grad=True)
    states = sequence
    for block in head.blocks:
        states = block(states, torch.tensor([frames]))
    (gradient,) = torch.autograd.grad(states[0, frame].sum(), sequence)
    return gradient[0].abs().sum(1).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        # 1 + 2·(k-1)·(2^L - 1) frames, behind frame 30 or around it.
        ({"kernel": 3, "layers": 3}, range(30 - 28, 31)),
        ({"kernel": 2, "layers": 2}, range(30 - 6, 31)),
        ({"kernel": 3, "layers": 2, "causal": False}, range(30 - 6, 30 + 7)),
    ],
)
def test_tcn_sees_as_far_as_it_says(settings, seen):
    torch.manual_seed(0)
    settings = {"hidden": 32, **settings}
    head = build_head("tcn", channels=2, grid=1, classes=2, settings=settings).double().eval()
    assert seen_by(head, 30, frames=60) == list(seen)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tcn", {"kernel": 4, "causal": False}, "kernel must be odd"),
        ("tcn", {"kernel": 0}, "kernel must be at least 1"),
        ("tcn", {"layers": 0}, "layers must be at least 1"),
        ("rnn-cnn", {"kernel": 2}, "kernel must be odd"),
        ("parallel", {"hidden": 0}, "hidden must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(UserError, match=f"head '{name}' cannot be built: {message}"):
        build_head(name, channels=2, grid=2, classes=2, settings=settings)
