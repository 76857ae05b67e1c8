from typing import Any

import pytest
import torch

from vidfuse.errors import UserError
from vidfuse.heads import build_head
from vidfuse.heads.convolutional import ConvGRULayer, ConvLSTMLayer, kernel_sizes


def convolve(maps, weight):
    """Convolution [out, g, g] of maps [in, g, g] with weight [out, in, k, k], zeros outside."""
    side, reach = maps.shape[-1], weight.shape[-1] // 2
    rows = []
    for y in range(side):
        for x in range(side):
            total = torch.zeros(len(weight), dtype=maps.dtype)
            for v in range(side):
                for u in range(side):
                    if abs(v - y) <= reach and abs(u - x) <= reach:
                        total = total + weight[:, :, v - y + reach, u - x + reach] @ maps[:, v, u]
            rows.append(total)
    return torch.stack(rows, dim=1).unflatten(1, (side, side))


def convlstm_by_hand(layer, sequence):
    """Hidden states [T, hidden, g, g] of one sequence [T, in, g, g]: Shi et al., equation 3."""
    w_xi, w_xf, w_xc, w_xo = layer.from_input.weight.chunk(4)
    w_hi, w_hf, w_hc, w_ho = layer.from_state.weight.chunk(4)
    b_i, b_f, b_c, b_o = layer.from_input.bias[:, None, None].chunk(4)
    w_ci, w_cf, w_co = layer.peephole_i, layer.peephole_f, layer.peephole_o
    h, c, states = torch.zeros_like(w_ci), torch.zeros_like(w_ci), []
    for x in sequence:
        i = torch.sigmoid(convolve(x, w_xi) + convolve(h, w_hi) + w_ci * c + b_i)
        f = torch.sigmoid(convolve(x, w_xf) + convolve(h, w_hf) + w_cf * c + b_f)
        c = f * c + i * torch.tanh(convolve(x, w_xc) + convolve(h, w_hc) + b_c)
        o = torch.sigmoid(convolve(x, w_xo) + convolve(h, w_ho) + w_co * c + b_o)
        h = o * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


def convgru_by_hand(layer, sequence):
    """States [T, hidden, g, g] of one sequence [T, in, g, g]: Ballas et al., equations 7 to 10."""
    w_z, w_r, w_n = layer.from_input.weight.chunk(3)
    b_z, b_r, b_n = layer.from_input.bias[:, None, None].chunk(3)
    u_z, u_r = layer.gates.weight.chunk(2)
    u_n = layer.candidate.weight
    h, states = torch.zeros(len(u_n), *sequence.shape[2:], dtype=sequence.dtype), []
    for x in sequence:
        z = torch.sigmoid(convolve(x, w_z) + convolve(h, u_z) + b_z)
        r = torch.sigmoid(convolve(x, w_r) + convolve(h, u_r) + b_r)
        n = torch.tanh(convolve(x, w_n) + convolve(r * h, u_n) + b_n)
        h = (1 - z) * h + z * n
        states.append(h)
    return torch.stack(states)


BY_HAND = {"convlstm": convlstm_by_hand, "convgru": convgru_by_hand}


def logits_by_hand(head, clip):
    """Logits of one clip [T, D, g, g]."""
    functional = torch.nn.functional
    normed = torch.stack([(x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() for x in clip])
    normed = normed * head.norm.weight[:, None, None] + head.norm.bias[:, None, None]
    reduce = head.reduce.weight[:, :, 0, 0]
    sequence = torch.einsum("wd,tdyx->twyx", reduce, normed) + head.reduce.bias[:, None, None]
    for layer in head.recurrence:
        sequence = BY_HAND[head.name](layer, sequence)
    read = {"mean": sequence.mean(0), "max": sequence.max(0).values, "last": sequence[-1]}
    mean = clip.mean((0, 2, 3))
    mean = functional.layer_norm(mean, mean.shape, head.mean_norm.weight, head.mean_norm.bias)
    both = torch.cat([read[head.readout].mean((1, 2)), mean])
    return head.classifier.weight @ both + head.classifier.bias


def make(name, dtype=torch.float64, grid=3, **settings):
    """A small head whose every parameter is random: peepholes start at 0, where they hide."""
    torch.manual_seed(0)
    settings = {"width": 3, "hidden": 2, **settings}
    head: Any = build_head(name, channels=4, grid=grid, classes=3, settings=settings)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.7)
    return head.to(dtype).eval()


@pytest.mark.parametrize(
    ("settings", "grid"),
    [
        ({}, 3),
        ({"readout": "last", "layers": 2}, 3),
        ({"readout": "max", "layers": 2, "kernel": "3,5"}, 4),
        ({"layers": 3, "kernel": "1,3,3"}, 2),
        ({"kernel": 5}, 1),
    ],
)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_heads_follow_their_equations_and_so_do_their_gradients(name, settings, grid, dtype, close):
    head = make(name, dtype, grid, **settings)
    features = torch.randn(2, 4, 4, grid, grid, dtype=dtype, requires_grad=True)
    lengths = torch.tensor([4, 2])
    target = torch.randn(2, 3, dtype=dtype)
    inputs = [features, *head.parameters()]

    logits = head(features, lengths)
    expected = torch.stack(
        [logits_by_hand(head, features[0]), logits_by_hand(head, features[1, :2])]
    )
    torch.testing.assert_close(logits, expected, rtol=close, atol=close)

    gradients = torch.autograd.grad((logits * target).sum(), inputs)
    by_hand = torch.autograd.grad((expected * target).sum(), inputs)
    for mine, reference in zip(gradients, by_hand, strict=True):
        torch.testing.assert_close(mine, reference, rtol=close, atol=close)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = ConvLSTMLayer(inputs=1, hidden=1, kernel=3, grid=2).double()
    names, values = zip(*layer.named_parameters(), strict=True)
    drawn = [torch.randn_like(value, requires_grad=True) for value in values]
    sequence = torch.randn(1, 3, 1, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(sequence, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), sequence)

    assert torch.autograd.gradcheck(run, (sequence, *drawn))


def test_input_and_forget_gates_see_the_cell_before_and_the_output_gate_the_cell_after():
    torch.manual_seed(0)
    layer = ConvLSTMLayer(inputs=2, hidden=3, kernel=3, grid=2)
    sequence = torch.randn(1, 2, 2, 2, 2)

    def change(peephole):
        """Which of the two frames' states change with a peephole."""
        before = layer(sequence)[0]
        with torch.no_grad():
            peephole.fill_(2.0)
        after = layer(sequence)[0]
        with torch.no_grad():
            peephole.zero_()
        return [not torch.equal(*pair) for pair in zip(before, after, strict=True)]

    # At the first frame C_0 = 0 silences a peephole on the cell before, and only such a one.
    assert change(layer.peephole_i) == [False, True]
    assert change(layer.peephole_f) == [False, True]
    assert change(layer.peephole_o) == [True, True]


def test_each_position_has_a_peephole_of_its_own():
    layer = ConvLSTMLayer(inputs=2, hidden=3, kernel=3, grid=4)
    sequence = torch.randn(1, 1, 2, 4, 4)
    before = layer(sequence)
    with torch.no_grad():
        layer.peephole_o[1, 2, 3] = 1.0
    changed = (layer(sequence) != before)[0, 0].nonzero()
    assert changed.tolist() == [[1, 2, 3]]


def test_a_new_layer_remembers():
    layer = ConvLSTMLayer(inputs=2, hidden=3, kernel=3, grid=2)
    bias = layer.from_input.bias
    assert bias is not None
    i, f, candidate, o = bias.chunk(4)
    assert f.tolist() == [1.0] * 3
    assert torch.cat([i, candidate, o]).abs().max() < 1.0
    bias = ConvGRULayer(inputs=2, hidden=3, kernel=3).from_input.bias
    assert bias is not None
    z, r, n = bias.chunk(3)
    assert z.tolist() == [-1.0] * 3
    assert torch.cat([r, n]).abs().max() < 1.0


def test_without_its_states_convlstm_is_the_mean_head():
    head = make("convlstm", grid=4)
    mean: Any = build_head("mean", channels=4, grid=1, classes=3).double().eval()
    with torch.no_grad():
        head.classifier.weight[:, : head.hidden] = 0.0
        mean.classifier[0].load_state_dict(head.mean_norm.state_dict())
        mean.classifier[2].weight.copy_(head.classifier.weight[:, head.hidden :])
        mean.classifier[2].bias.copy_(head.classifier.bias)
    features, lengths = torch.randn(2, 5, 4, 4, 4, dtype=torch.float64), torch.tensor([5, 3])
    expected = mean(features.mean((3, 4), keepdim=True), lengths)
    torch.testing.assert_close(head(features, lengths), expected)


def test_dropout_acts_between_layers():
    head = make("convlstm", layers=2).train()
    frames = torch.randn(1, 4, 4, 3, 3, dtype=torch.float64)
    assert not torch.equal(head.states(frames), head.states(frames))
    head = make("convlstm", layers=1).train()
    assert torch.equal(head.states(frames), head.states(frames))


def test_cells_stay_precise_where_convolutions_are_not():
    head = make("convlstm", torch.float32, grid=4)
    features, lengths = torch.randn(2, 5, 4, 4, 4), torch.tensor([5, 3])
    exact = head(features, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head.states(features).dtype == torch.float32
        logits = head(features, lengths)
    torch.testing.assert_close(logits.float(), exact, rtol=0.1, atol=0.1)


def test_settings_may_come_as_text():
    settings = {"kernel": "3,5", "layers": "2", "readout": "last", "width": "8"}
    head: Any = build_head("convlstm", channels=2, grid=2, classes=2, settings=settings)
    assert head.settings == {
        "width": 8,
        "hidden": 64,
        "layers": 2,
        "kernel": "3,5",
        "readout": "last",
        "dropout": 0.5,
    }
    assert [layer.from_state.kernel_size for layer in head.recurrence] == [(3, 3), (5, 5)]
    same = build_head("convlstm", channels=2, grid=2, classes=2, settings={"kernel": "5"})
    assert same.settings["kernel"] == 5


@pytest.mark.parametrize(
    ("kernel", "layers", "sides"), [(3, 2, [3, 3]), ("5", 1, [5]), ("3, 5,1", 3, [3, 5, 1])]
)
def test_kernel_sizes(kernel, layers, sides):
    assert kernel_sizes(kernel, layers) == sides


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": 4}, "kernel must be an odd number, or several such as 3,5, not 4"),
        ({"kernel": 0}, "kernel must be an odd number"),
        ({"kernel": -3}, "kernel must be an odd number"),
        ({"kernel": "3,x"}, "kernel must be an odd number"),
        ({"kernel": "3,"}, "kernel must be an odd number"),
        ({"kernel": "3,5"}, "kernel=3,5 names 2 layers, but there are 1"),
        ({"width": 0}, "width must be at least 1"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"layers": 0}, "layers must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match="head 'convlstm' cannot be built") as caught:
        build_head("convlstm", channels=2, grid=2, classes=2, settings=settings)
    assert message in caught.value.message
