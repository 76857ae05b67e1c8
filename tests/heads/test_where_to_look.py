"""Heads that weigh positions and channels: spatial-attention, channel-attention, cbam."""

from typing import Any

import pytest
import torch
from by_hand import check, layer_norm, linear, read, run_cell, softmax

from vidfuse.errors import UserError
from vidfuse.heads import build_head


def normalised(frame, norm):
    """GroupNorm in one group of a map [D, g, g]: a scale for each channel."""
    normed = (frame - frame.mean()) / (frame.var(correction=0) + 1e-5).sqrt()
    return normed * norm.weight[:, None, None] + norm.bias[:, None, None]


def cells(frame):
    """The places of a map [D, g, g], row by row: vectors [D]."""
    return list(frame.flatten(1).T)


def beside_the_mean(head, answer, maps):
    mean = sum(frame.mean((1, 2)) for frame in maps) / len(maps)
    return linear(torch.cat([answer, layer_norm(mean, head.mean_norm)]), head.classifier)


def spatial_attention(head, clip):
    places = [
        [
            linear(cell, head.reduce) + place
            for cell, place in zip(cells(normalised(frame, head.norm)), head.places, strict=True)
        ]
        for frame in clip
    ]
    mean = sum(sum(row) / len(row) for row in places) / len(places)
    h, c = linear(mean, head.first_state).tanh().chunk(2)
    states = []
    for row in places:
        scores = list(linear(h, head.score_places))
        if head.scores == "content":
            wanted = linear(h, head.score_content)
            scores = [s + x @ wanted / len(x) ** 0.5 for s, x in zip(scores, row, strict=True)]
        x = sum(weight * place for weight, place in zip(softmax(scores), row, strict=True))
        gates = head.cell.weight_ih @ x + head.cell.bias_ih
        gates = gates + head.cell.weight_hh @ h + head.cell.bias_hh
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return beside_the_mean(head, read(states, head.readout), clip)


def excite(vector, layers):
    return linear(linear(vector, layers[0]).relu(), layers[2])


def channel_attention(head, clip):
    maps = [normalised(frame, head.norm) for frame in clip]
    squeezed = [frame.mean((1, 2)) for frame in maps]
    mean = sum(squeezed) / len(squeezed)
    asked = {
        "frame": squeezed,
        "clip": [mean] * len(maps),
        "both": [torch.cat([each, mean]) for each in squeezed],
    }[head.squeeze]
    gates = [excite(each, head.excite).sigmoid() for each in asked]
    return recurrent(head, [m * g[:, None, None] for m, g in zip(maps, gates, strict=True)])


def cbam(head, clip):
    return recurrent(head, [m * places for m, places in map(weighed(head), clip)])


def weighed(head):
    """A map [D, g, g] behind the gates of its channels, and the gates of its places [g, g]."""

    def weigh(frame):
        frame = normalised(frame, head.norm)
        mean, most = torch.stack(cells(frame)).mean(0), torch.stack(cells(frame)).max(0).values
        channels = (excite(mean, head.excite) + excite(most, head.excite)).sigmoid()
        frame = frame * channels[:, None, None]
        both = torch.stack([frame.mean(0), frame.max(0).values])
        side, reach = frame.shape[1], head.kernel // 2
        places = torch.zeros(side, side, dtype=frame.dtype)
        for y in range(side):
            for x in range(side):
                total = head.see.bias[0]
                for v in range(max(0, y - reach), min(side, y + reach + 1)):
                    for u in range(max(0, x - reach), min(side, x + reach + 1)):
                        weight = head.see.weight[0, :, v - y + reach, u - x + reach]
                        total = total + weight @ both[:, v, u]
                places[y, x] = total.sigmoid()
        return frame, places

    return weigh


def recurrent(head, maps):
    rows = [
        torch.stack([linear(cell, head.reduce) for cell in cells(frame)], dim=1).flatten()
        for frame in maps
    ]
    return beside_the_mean(head, read(run_cell(head.recurrence, rows), head.readout), maps)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    ("name", "settings", "by_hand"),
    [
        ("spatial-attention", {}, spatial_attention),
        ("spatial-attention", {"scores": "state", "readout": "mean"}, spatial_attention),
        ("channel-attention", {}, channel_attention),
        ("channel-attention", {"squeeze": "frame", "readout": "mean"}, channel_attention),
        ("channel-attention", {"squeeze": "clip", "cell": "lstm"}, channel_attention),
        ("cbam", {}, cbam),
        ("cbam", {"kernel": 5, "cell": "rnn", "readout": "last"}, cbam),
    ],
)
def test_heads_follow_their_equations_and_so_do_their_gradients(
    name, settings, by_hand, dtype, close
):
    settings = {"hidden": 4, "width": 3, **settings}
    head: Any = build_head(name, channels=3, grid=3, classes=4, settings=settings)
    check(head, by_hand, grid=3, dtype=dtype, close=close)


def test_spatial_attention_can_be_viewed_and_is_that_of_the_forward_pass():
    torch.manual_seed(0)
    head: Any = build_head("spatial-attention", channels=3, grid=3, classes=2).eval()
    features, lengths = torch.randn(2, 4, 3, 3, 3), torch.tensor([4, 2])
    maps = head.attention(features, lengths)
    assert maps.shape == (2, 4, 3, 3)
    torch.testing.assert_close(maps.sum((2, 3)), torch.tensor([[1.0] * 4, [1.0, 1.0, 0.0, 0.0]]))

    # All weight on the upper right corner: that is what the map shows, and the states see no more.
    with torch.no_grad():
        head.score_content.weight.zero_()
        head.score_places.weight.zero_()
        head.score_places.bias = torch.nn.Parameter(torch.zeros(9))
        head.score_places.bias[2] = 1000.0
    maps = head.attention(features, lengths)
    assert maps[0, 0].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(head.look(features, lengths)[1].view(2, 4, 3, 3)[0], maps[0])


def test_the_maps_of_cbam_can_be_viewed():
    torch.manual_seed(0)
    head: Any = build_head("cbam", channels=3, grid=4, classes=2).double().eval()
    features, lengths = torch.randn(2, 3, 3, 4, 4, dtype=torch.float64), torch.tensor([3, 1])
    maps = head.attention(features, lengths)
    assert maps[1, 1:].abs().max() == 0
    for found, frame in zip(maps[0], features[0], strict=True):
        torch.testing.assert_close(found, weighed(head)(frame)[1])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cbam", {"kernel": 2}, "kernel must be an odd number, not 2"),
        ("cbam", {"reduction": 0}, "reduction must be at least 1"),
        ("channel-attention", {"width": 0}, "width must be at least 1"),
        ("spatial-attention", {"hidden": 0}, "hidden must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(UserError, match=f"head '{name}' cannot be built: {message}"):
        build_head(name, channels=2, grid=2, classes=2, settings=settings)
