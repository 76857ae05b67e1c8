import subprocess
import sys

import pytest
import torch
from by_hand import check, layer_norm, linear, position, read, softmax

from vidfuse.errors import UserError
from vidfuse.heads import build_head, frame_graph

pytest.importorskip("torch_geometric", reason='pip install "vidfuse[graph]"')


def heard_by(head, frames):
    """For each kind of edge and each node, the nodes it hears, itself among them."""
    length = len(frames)
    steps = (-1, 1) if head.direction == "both" else (-1,)
    if head.graph == "regions":
        side = round((frames[0].numel() / head.channels) ** 0.5)
        nodes = [(t, y, x) for t in range(length) for y in range(side) for x in range(side)]
        in_time, in_space = [], []
        for t, y, x in nodes:
            away = [(s - t, abs(v - y), abs(u - x)) for s, v, u in nodes]
            itself = away.index((0, 0, 0))
            around = [j for j, (s, v, u) in enumerate(away) if s in steps and max(v, u) <= 1]
            in_time.append([itself, *around])
            beside = [j for j, (s, v, u) in enumerate(away) if s == 0 and v + u == 1]
            in_space.append([itself, *beside])
        return [in_time, in_space]
    chain = [[t, *(t + s for s in steps if 0 <= t + s < length)] for t in range(length)]
    if head.graph == "chain":
        return [chain]
    alike = []
    for t in range(length):
        others = [s for s in range(length) if s != t]
        others.sort(key=lambda s: (frames[s] - frames[t]).norm().item())
        alike.append([t, *others[: head.neighbours]])
    return [chain, alike]


def gcn_layer(layer, rows, heard):
    out = []
    for mine in heard:
        total = layer.bias
        for j in mine:
            scale = (len(mine) * len(heard[j])) ** 0.5
            total = total + layer.lin.weight @ rows[j] / scale
        out.append(total)
    return out


def gat_layer(layer, rows, heard):
    size = layer.out_channels
    rows = [layer.lin.weight @ row for row in rows]
    out = []
    for i, mine in enumerate(heard):
        parts = []
        for h in range(layer.heads):
            part = slice(h * size, (h + 1) * size)
            a_target, a_source = layer.att_dst[0, h], layer.att_src[0, h]
            scores = [a_target @ rows[i][part] + a_source @ rows[j][part] for j in mine]
            weights = softmax([torch.nn.functional.leaky_relu(score, 0.2) for score in scores])
            parts.append(sum(w * rows[j][part] for w, j in zip(weights, mine, strict=True)))
        out.append(torch.cat(parts) + layer.bias)
    return out


def logits_by_hand(head, clip):
    frames = [layer_norm(frame.flatten(), head.norm) for frame in clip]
    mean = sum(frames) / len(frames)
    rows = []
    for t, frame in enumerate(frames):
        cells = frame.view(head.channels, -1).T if head.graph == "regions" else [frame]
        for number, cell in enumerate(cells):
            row = linear(cell, head.project)
            if head.positions:
                row = row + position(head.times.table, t, len(frames))
            rows.append(row + head.places[number] if head.graph == "regions" else row)
    layer_by_hand = {"gcn": gcn_layer, "gat": gat_layer}[head.name]
    heard = heard_by(head, frames)
    for block in head.blocks:
        normed = [layer_norm(row, block.norm) for row in rows]
        pairs = zip(block.kinds, heard, strict=True)
        kinds = [layer_by_hand(layer, normed, mine) for layer, mine in pairs]
        kinds.append([block.own.weight @ row for row in normed])
        rows = [row + sum(each).relu() for row, *each in zip(rows, *kinds, strict=True)]
    return linear(torch.cat([read(rows, head.readout), mean]), head.classifier)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ["gcn", "gat"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"direction": "both", "readout": "mean"},
        {"graph": "neighbours", "positions": True},
        {"graph": "regions", "positions": True, "layers": 1, "readout": "last"},
        {"graph": "regions", "direction": "both"},
    ],
)
def test_heads_follow_their_equations_and_so_do_their_gradients(name, settings, dtype, close):
    settings = {"hidden": 4, "neighbours": 2, **settings}
    settings |= {"heads": 2} if name == "gat" else {}
    head = build_head(name, channels=3, grid=2, classes=4, settings=settings)
    check(head, logits_by_hand, dtype=dtype, close=close)


def test_a_chain_leads_forward_or_both_ways_and_never_to_padding():
    lengths = torch.tensor([3, 1])
    forward = frame_graph.chain(lengths, 4, both=False)
    assert forward.nonzero().tolist() == [[0, 1, 0], [0, 2, 1]]
    both = frame_graph.chain(lengths, 4, both=True)
    assert both.nonzero().tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 2], [0, 2, 1]]


def test_neighbours_are_the_most_alike_and_the_earlier_where_all_are():
    vectors = torch.tensor([[0.0], [9.0], [1.0], [8.0], [0.5]])[None]
    found = frame_graph.neighbours(vectors, torch.tensor([5]), 1)
    assert found.nonzero()[:, 1:].tolist() == [[0, 4], [1, 3], [2, 4], [3, 1], [4, 0]]
    # A clip that stands still, in more or less padding; and fewer frames than neighbours.
    for frames in (4, 9):
        still = torch.full((1, frames, 64), 0.1)
        found = frame_graph.neighbours(still, torch.tensor([4]), 2)
        pairs = [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1], [3, 0], [3, 1]]
        assert found.nonzero()[:, 1:].tolist() == pairs
    found = frame_graph.neighbours(torch.randn(1, 5, 2), torch.tensor([2]), 3)
    assert found.nonzero()[:, 1:].tolist() == [[0, 1], [1, 0]]


def test_edges_of_a_batch_do_not_meet():
    adjacent = frame_graph.chain(torch.tensor([2, 3]), 3, both=False)
    assert frame_graph.edges(adjacent).tolist() == [[0, 3, 4], [1, 4, 5]]


def test_a_graph_without_direction_says_so():
    def aware(**settings):
        head = build_head("gcn", channels=2, grid=1, classes=2, settings=settings)
        return head.reversal_aware, head.order_aware

    assert aware() == (True, True)
    assert aware(positions=True) == (True, True)
    assert aware(direction="both", positions=True) == (True, True)
    assert aware(direction="both") == (False, True)
    assert aware(direction="both", readout="last") == (True, True)


def test_without_the_package_the_heads_are_known_and_say_what_to_install():
    code = """
import sys
sys.modules["torch_geometric"] = None
import importlib.util
importlib.util.find_spec = lambda name, find=importlib.util.find_spec: (
    None if name == "torch_geometric" else find(name)
)
from vidfuse.errors import UserError
from vidfuse.heads import build_head, head_class
for name in ("gcn", "gat"):
    assert (head_class(name).grid, head_class(name).order_aware) == (2, True)
    try:
        build_head(name, channels=2, grid=1, classes=2)
    except UserError as error:
        print(error)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == [
        "head 'gcn' needs the package torch_geometric",
        'Install it: pip install "vidfuse[graph]"',
        "head 'gat' needs the package torch_geometric",
        'Install it: pip install "vidfuse[graph]"',
    ]


def test_settings_out_of_range_are_refused():
    for setting in ("neighbours", "layers", "hidden"):
        with pytest.raises(UserError, match=f"{setting} must be at least 1"):
            build_head("gcn", channels=2, grid=1, classes=2, settings={setting: 0})
