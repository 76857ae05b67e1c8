import pytest
import torch

from vidfuse.fusion import build_head


def lstm_by_hand(head, clip):
    """Logits of one clip [T, P] from the LSTM equations, one frame at a time.

    i, f, o = σ(W x + b + U h + d), g = tanh(W x + b + U h + d), c' = f c + i g, h' = o tanh(c')
    """
    normed = torch.nn.functional.layer_norm(clip, clip.shape[1:], head.norm.weight, head.norm.bias)
    sequence = [head.project.weight @ frame + head.project.bias for frame in normed]
    weights = dict(head.recurrence.named_parameters())

    def run(sequence, suffix):
        hidden = cell = torch.zeros(head.hidden)
        states = []
        for x in sequence:
            gates = (
                weights[f"weight_ih_{suffix}"] @ x
                + weights[f"bias_ih_{suffix}"]
                + weights[f"weight_hh_{suffix}"] @ hidden
                + weights[f"bias_hh_{suffix}"]
            )
            i, f, g, o = gates.chunk(4)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            states.append(hidden)
        return states

    for layer in range(head.layers):
        states = run(sequence, f"l{layer}")
        if head.bidirectional:
            backward = run(sequence[::-1], f"l{layer}_reverse")[::-1]
            states = [torch.cat(pair) for pair in zip(states, backward, strict=True)]
        sequence = states
    read = torch.cat([torch.stack(sequence).mean(0), normed.mean(0)])
    return head.classifier.weight @ read + head.classifier.bias


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_lstm_follows_its_equations(layers, bidirectional):
    torch.manual_seed(0)
    settings = {"hidden": 7, "layers": layers, "bidirectional": bidirectional}
    head = build_head("lstm", channels=3, grid=2, classes=4, settings=settings).eval()
    features = torch.randn(3, 6, 3, 2, 2)
    lengths = torch.tensor([6, 3, 1])
    with torch.no_grad():
        logits = head(features, lengths)
        for row, clip, length in zip(logits, features, lengths.tolist(), strict=True):
            expected = lstm_by_hand(head, clip[:length].flatten(1))
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)


def test_forget_gates_start_open():
    head = build_head("lstm", channels=3, grid=1, classes=2, settings={"hidden": 5, "layers": 2})
    weights = dict(head.recurrence.named_parameters())
    for layer in ("l0", "l1"):
        bias = weights[f"bias_ih_{layer}"] + weights[f"bias_hh_{layer}"]
        assert bias[5:10].tolist() == [1.0] * 5
        assert bias[:5].abs().max() < 1.0
        assert bias[10:].abs().max() < 1.0


def test_without_its_states_lstm_is_a_classifier_of_the_mean_frame():
    head = build_head("lstm", channels=3, grid=1, classes=2, settings={"hidden": 5}).eval()
    with torch.no_grad():
        head.classifier.weight[:, :5] = 0.0
    features, lengths = torch.randn(2, 4, 3, 1, 1), torch.tensor([4, 4])
    torch.testing.assert_close(head(features, lengths), head(features.flip(1), lengths))
