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
    if head.inputs == "frames":
        shape, norm = clip.shape[1:], head.norm
        steps = torch.nn.functional.layer_norm(clip, shape, norm.weight, norm.bias)
        mean = steps.mean(0)
    else:
        steps = (clip - clip.mean(0)) / head.spread
        cells = clip.mean(0).view(head.channels, -1)
        mean = (cells.mean(1) - head.clip_mean) / head.clip_spread
    sequence = steps @ head.project.weight.T + head.project.bias
    for layer in range(head.layers):
        directions = [run_by_hand(head, sequence, f"l{layer}")]
        if head.bidirectional:
            directions.append(run_by_hand(head, sequence.flip(0), f"l{layer}_reverse").flip(0))
        sequence = torch.cat(directions, dim=1)
    if head.readout == "attention":
        energies = sequence @ head.queries.weight.T + head.queries.bias
        read = torch.cat([weights @ sequence for weights in energies.softmax(0).T])
    elif head.readout == "mean":
        read = sequence.mean(0)
    elif head.readout == "max":
        read = sequence.max(0).values
    else:  # each direction where it ends: forwards at the last frame, backwards at the first
        read = torch.cat([each[end] for each, end in zip(directions, (-1, 0), strict=False)])
    return head.classifier.weight @ torch.cat([read, mean]) + head.classifier.bias


@pytest.mark.parametrize("inputs", ["deviations", "frames"])
@pytest.mark.parametrize("readout", ["attention", "mean", "last", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", sorted(STEPS))
def test_heads_follow_their_equations(name, layers, bidirectional, readout, inputs):
    torch.manual_seed(0)
    settings = {
        "hidden": 7,
        "layers": layers,
        "bidirectional": bidirectional,
        "readout": readout,
        "inputs": inputs,
    }
    head: Any = build_head(name, channels=3, grid=2, classes=4, settings=settings).eval()
    features = 3.0 * torch.randn(3, 6, 3, 2, 2) + 5.0
    lengths = torch.tensor([6, 3, 1])
    head.prepare([(features, lengths)])
    with torch.no_grad():
        logits = head(features, lengths)
        for row, clip, length in zip(logits, features, lengths.tolist(), strict=True):
            expected = logits_by_hand(head, clip[:length].flatten(1))
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)


def test_moments_that_attention_finds_are_read_unless_told_otherwise():
    for name in STEPS:
        settings = build_head(name, channels=3, grid=1, classes=2).settings
        assert (settings["inputs"], settings["readout"]) == ("deviations", "attention")


def test_standardised_by_what_training_clips_show():
    features = torch.randn(5, 4, 3, 2, 2) * torch.tensor([1.0, 10.0, 100.0])[:, None, None] + 7.0
    lengths = torch.tensor([4, 3, 1, 4, 2])
    features[1, 3:], features[2, 1:], features[4, 2:] = float("nan"), float("nan"), float("nan")
    real = torch.cat([clip[:count] for clip, count in zip(features, lengths, strict=True)])
    for name in STEPS:
        head: Any = build_head(name, channels=3, grid=2, classes=2)
        head.prepare((features[part], lengths[part]) for part in torch.arange(5).split(2))
        spread = real.flatten(1).std(0, correction=0)
        torch.testing.assert_close(head.spread, spread, rtol=0.02, atol=0.2)
        pairs = zip(features, lengths, strict=True)
        means = torch.stack([clip[:count].mean((0, 2, 3)) for clip, count in pairs])
        torch.testing.assert_close(head.clip_mean, means.mean(0))
        spread = means.std(0, correction=0)
        torch.testing.assert_close(head.clip_spread, spread, rtol=0.02, atol=0.2)


def test_what_never_moved_in_training_stays_small():
    features, lengths = torch.randn(4, 3, 2, 1, 1), torch.tensor([3, 3, 3, 3])
    features[:, :, 1] = 5.0
    head: Any = build_head("lstm", channels=2, grid=1, classes=2)
    head.prepare([(features, lengths)])
    assert head.spread[1] > 1e-4
    head.prepare([(torch.ones(4, 3, 2, 1, 1), lengths)])
    assert torch.isfinite(head(features, lengths)).all()


def test_what_was_never_seen_in_training_is_not_huge():
    silent, lengths = torch.randn(4, 3, 2, 1, 1), torch.tensor([3, 3, 3, 3])
    silent[:, :, 1] = 0.0
    head: Any = build_head("lstm", channels=2, grid=1, classes=2)
    head.prepare([(silent, lengths)])
    _, mean = head.read_and_mean(silent + 100.0, lengths)
    assert mean.abs().max() == 10.0


def test_what_a_clip_has_in_common_reaches_the_classifier_alone():
    head: Any = build_head("gru", channels=3, grid=1, classes=2).eval()
    features, lengths = torch.randn(2, 4, 3, 1, 1), torch.tensor([4, 3])
    read, mean = head.read_and_mean(features, lengths)
    same, moved = head.read_and_mean(features + 5.0, lengths)
    torch.testing.assert_close(read, same, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mean + 5.0, moved)


def test_dropout_acts_between_layers():
    settings = {"hidden": 5, "layers": 2, "dropout": 0.5}
    head: Any = build_head("gru", channels=3, grid=1, classes=2, settings=settings).train()
    features, lengths = torch.randn(1, 4, 3, 1, 1), torch.tensor([4])
    first, second = (head.states(features, lengths)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_recurrences_miss_some_of_their_inputs_in_training():
    head: Any = build_head("rnn", channels=30, grid=1, classes=2, settings={"input_dropout": 0.5})
    head.train()
    features, lengths = torch.randn(1, 4, 30, 1, 1), torch.tensor([4])
    first, second = (head.states(features, lengths)[0] for _ in range(2))
    assert not torch.equal(first, second)


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
        head.classifier.weight[:, : -head.mean_size] = 0.0
    features, lengths = torch.randn(2, 4, 3, 1, 1), torch.tensor([4, 4])
    torch.testing.assert_close(head(features, lengths), head(features.flip(1), lengths))
