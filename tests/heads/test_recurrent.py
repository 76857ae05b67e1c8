from typing import Any

import pytest
import torch

from vidfuse.heads import build_head


def lstm_step(x, u, state, _hidden):
    """i, f, o = σ(W x + b + U h + d), g = tanh(W x + b + U h + d), c' = f c + i g, h' = o tanh(c')

    x and u are the products of the input and of the state, biases included.
    """
    i, f, g, o = (x + u).chunk(4)
    cell = torch.sigmoid(f) * state["cell"] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), {"cell": cell}


def gru_step(x, u, state, hidden):
    """r, z = σ(W x + b + U h + d), n = tanh(W x + b + r (U h + d)), h' = (1 - z) n + z h"""
    (xr, xz, xn), (ur, uz, un) = x.chunk(3), u.chunk(3)
    r, z = torch.sigmoid(xr + ur), torch.sigmoid(xz + uz)
    return (1 - z) * torch.tanh(xn + r * un) + z * hidden, state


def rnn_step(x, u, state, _hidden):
    """h' = tanh(W x + b + U h + d)"""
    return torch.tanh(x + u), state


STEPS = {"gru": gru_step, "lstm": lstm_step, "rnn": rnn_step}


def run_by_hand(head, sequence, suffix):
    """States of one layer and direction, one frame at a time."""
    weights = dict(head.recurrence.named_parameters())
    hidden, state, states = torch.zeros(head.hidden), {"cell": torch.zeros(head.hidden)}, []
    for frame in sequence:
        x = weights[f"weight_ih_{suffix}"] @ frame + weights[f"bias_ih_{suffix}"]
        u = weights[f"weight_hh_{suffix}"] @ hidden + weights[f"bias_hh_{suffix}"]
        hidden, state = STEPS[head.name](x, u, state, hidden)
        states.append(hidden)
    return torch.stack(states)


def logits_by_hand(head, clip):
    """Logits of one clip [T, P] from the equations of its cells."""
    normed = torch.nn.functional.layer_norm(clip, clip.shape[1:], head.norm.weight, head.norm.bias)
    sequence = normed @ head.project.weight.T + head.project.bias
    for layer in range(head.layers):
        directions = [run_by_hand(head, sequence, f"l{layer}")]
        if head.bidirectional:
            directions.append(run_by_hand(head, sequence.flip(0), f"l{layer}_reverse").flip(0))
        sequence = torch.cat(directions, dim=1)
    if head.readout == "mean":
        read = sequence.mean(0)
    elif head.readout == "max":
        read = sequence.max(0).values
    else:  # each direction where it ends: forwards at the last frame, backwards at the first
        read = torch.cat([each[end] for each, end in zip(directions, (-1, 0), strict=False)])
    return head.classifier.weight @ torch.cat([read, normed.mean(0)]) + head.classifier.bias


@pytest.mark.parametrize("readout", ["mean", "last", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", sorted(STEPS))
def test_heads_follow_their_equations(name, layers, bidirectional, readout):
    torch.manual_seed(0)
    settings = {
        "hidden": 7,
        "layers": layers,
        "bidirectional": bidirectional,
        "readout": readout,
    }
    head: Any = build_head(name, channels=3, grid=2, classes=4, settings=settings).eval()
    features = torch.randn(3, 6, 3, 2, 2)
    lengths = torch.tensor([6, 3, 1])
    with torch.no_grad():
        logits = head(features, lengths)
        for row, clip, length in zip(logits, features, lengths.tolist(), strict=True):
            expected = logits_by_hand(head, clip[:length].flatten(1))
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)


def test_the_maximum_of_the_states_is_read_unless_told_otherwise():
    for name in STEPS:
        assert build_head(name, channels=3, grid=1, classes=2).settings["readout"] == "max"


def test_dropout_acts_between_layers():
    settings = {"hidden": 5, "layers": 2, "dropout": 0.5}
    head: Any = build_head("gru", channels=3, grid=1, classes=2, settings=settings).train()
    sequence, lengths = torch.randn(1, 4, 5), torch.tensor([4])
    assert not torch.equal(head.read(sequence, lengths), head.read(sequence, lengths))


def test_forget_gates_start_open():
    head: Any = build_head(
        "lstm", channels=3, grid=1, classes=2, settings={"hidden": 5, "layers": 2}
    )
    weights = dict(head.recurrence.named_parameters())
    for layer in ("l0", "l1"):
        bias = weights[f"bias_ih_{layer}"] + weights[f"bias_hh_{layer}"]
        assert bias[5:10].tolist() == [1.0] * 5
        assert bias[:5].abs().max() < 1.0
        assert bias[10:].abs().max() < 1.0


def test_without_its_states_lstm_is_a_classifier_of_the_mean_frame():
    head: Any = build_head("lstm", channels=3, grid=1, classes=2, settings={"hidden": 5}).eval()
    with torch.no_grad():
        head.classifier.weight[:, :5] = 0.0
    features, lengths = torch.randn(2, 4, 3, 1, 1), torch.tensor([4, 4])
    torch.testing.assert_close(head(features, lengths), head(features.flip(1), lengths))
