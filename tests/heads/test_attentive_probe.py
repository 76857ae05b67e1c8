"""The attentive probe: learned queries that attend to all cells of all frames."""

from typing import Any

import pytest
import torch
from by_hand import attend, check, feed_forward, layer_norm, linear, position, softmax

from vidfuse.errors import UserError
from vidfuse.heads import build_head
from vidfuse.heads.attentive_probe import CrossAttentionBlock

SDPA = torch.nn.functional.scaled_dot_product_attention


def build(grid=2, **settings) -> Any:
    torch.manual_seed(0)
    settings = {"hidden": 6, "heads": 2, "queries": 2, **settings}
    return build_head("attentive-probe", channels=3, grid=grid, classes=4, settings=settings)


def cross_attend(block, rows):
    """Outputs of a block's queries, one query, one head and one token at a time."""
    rows = [layer_norm(row, block.token_norm) for row in rows]
    keys, values = ([weight @ row for row in rows] for weight in block.keys_values.weight.chunk(2))
    size = len(rows[0]) // block.heads
    outputs = []
    for query in block.queries:
        parts = []
        for head in range(block.heads):
            part = slice(head * size, (head + 1) * size)
            weights = softmax([query[part] @ key[part] / size**0.5 for key in keys])
            parts.append(sum(w * value[part] for w, value in zip(weights, values, strict=True)))
        output = query + linear(torch.cat(parts), block.out)
        outputs.append(layer_norm(output + feed_forward(output, block.transform), block.last_norm))
    return outputs


def attentive_probe(head, clip):
    rows, cells = [], len(head.places)
    for t, frame in enumerate(clip):
        in_time = position(head.positions.table, t, len(clip))
        normed = layer_norm(frame.flatten(), head.norm).view_as(frame)
        for i, cell in enumerate(normed.flatten(1).T):
            rows.append(cell @ head.project[i] + head.places[i] + in_time)
    for block in head.self_attention:
        normed = [layer_norm(row, block.attention_norm) for row in rows]
        heard = attend(block.attend, normed, head.distances, cells=cells)
        rows = [row + each for row, each in zip(rows, heard, strict=True)]
        rows = [row + feed_forward(row, block.transform) for row in rows]
    mean = sum(frame.mean((1, 2)) for frame in clip) / len(clip)
    seen = [*cross_attend(head.cross_attention, rows), layer_norm(mean, head.mean_norm)]
    return linear(torch.cat(seen), head.classifier)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    ("grid", "settings"),
    [(2, {}), (3, {"blocks": 1, "heads": 3}), (1, {"blocks": 4, "queries": 1, "heads": 1})],
)
def test_the_head_follows_its_equations_and_so_do_its_gradients(grid, settings, dtype, close):
    check(build(grid, **settings), attentive_probe, grid=grid, dtype=dtype, close=close)


def test_a_query_reads_the_token_that_it_resembles():
    """Two tokens, one query, identity matrices: the softmax is computed on paper."""
    block = CrossAttentionBlock(hidden=2, heads=1, queries=1, dropout=0.0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        for norm in (block.token_norm, block.last_norm):
            norm.weight.fill_(1.0)
        block.keys_values.weight.copy_(torch.eye(2).repeat(2, 1))
        block.queries.copy_(torch.tensor([[2.0**0.5, 0.0]]))
        block.out.weight.copy_(torch.eye(2))
    # LayerNorm makes (1, -1) and (-1, 1) of them; the scores are 1 and -1.
    tokens = torch.tensor([[[3.0, 1.0], [1.0, 3.0]]])
    _, weights = block(tokens, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.880797, 0.119203]))
    _, weights = block(tokens, torch.tensor([[False, True]]))
    assert weights.flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("heads", [1, 4])
def test_cross_attention_is_that_of_torch(heads):
    torch.manual_seed(0)
    block = CrossAttentionBlock(hidden=8, heads=heads, queries=3, dropout=0.0)
    tokens = torch.randn(2, 5, 8)
    real = torch.arange(5) < torch.tensor([5, 2])[:, None]
    outputs, weights = block(tokens, real)

    split = block.keys_values(block.token_norm(tokens)).chunk(2, dim=2)
    keys, values = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in split)
    queries = block.queries.expand(2, -1, -1).unflatten(2, (heads, -1)).transpose(1, 2)
    read = SDPA(queries, keys, values, attn_mask=real[:, None, None])
    read = block.queries + block.out(read.transpose(1, 2).flatten(2))
    torch.testing.assert_close(outputs, block.last_norm(read + block.transform(read)))
    torch.testing.assert_close(weights.sum(3), torch.ones(2, heads, 3))


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_blocks_add_up_to_one_that_reads_and_those_before_it(blocks):
    head = build(blocks=blocks)
    assert len(head.self_attention) == blocks - 1
    size = sum(each.numel() for each in head.parameters())
    inner = sum(each.numel() for each in head.self_attention.parameters())
    biases = 2 * 17 if blocks > 1 else 0
    one = sum(each.numel() for each in build(blocks=1).parameters())
    assert size == one + inner + biases


@pytest.mark.parametrize("blocks", [1, 2])
def test_order_is_known_by_positions_and_by_the_biases_of_self_attention(blocks):
    head = build(blocks=blocks).double().eval()
    clip = torch.randn(1, 6, 3, 2, 2, dtype=torch.float64)
    lengths = torch.tensor([6])

    def change():
        with torch.no_grad():
            return (head(clip, lengths) - head(clip.flip(1), lengths)).abs().max()

    assert change() > 1e-4
    with torch.no_grad():
        head.positions.table.zero_()
    assert (change() > 1e-4) if blocks > 1 else (change() < 1e-9)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("grid", [1, 2, 3, 7])
@pytest.mark.parametrize("frames", [1, 2, 17, 40])
def test_any_number_of_frames_and_any_grid(grid, frames, blocks):
    head = build(grid, blocks=blocks).double().eval()
    clips = torch.randn(2, frames + 3, 3, grid, grid, dtype=torch.float64)
    clips[0, frames:] = float("nan")
    logits = head(clips, torch.tensor([frames, frames + 3]))
    alone = head(clips[:1, :frames], torch.tensor([frames]))
    torch.testing.assert_close(logits[:1], alone, rtol=1e-9, atol=1e-9)
    assert torch.isfinite(logits).all()


def test_the_weights_can_be_viewed_and_are_those_of_the_forward_pass():
    head = build(grid=3).eval()
    features, lengths = torch.randn(2, 4, 3, 3, 3), torch.tensor([4, 2])
    features[1, 2:] = float("nan")
    maps = head.attention(features, lengths)
    assert maps.shape == (2, 4, 3, 3)
    torch.testing.assert_close(maps.sum((1, 2, 3)), torch.ones(2))
    assert maps[1, 2:].tolist() == torch.zeros(2, 3, 3).tolist()

    # A query that resembles the upper right corner attends to it, in every frame of a clip.
    head = build(grid=3, blocks=1, queries=1, heads=1).eval()
    block = head.cross_attention
    with torch.no_grad():
        head.project.zero_()
        head.positions.table.zero_()
        block.keys_values.weight[:6] = torch.eye(6)
        block.queries.copy_(100 * block.token_norm(head.places)[2])
    corner = head.attention(features, lengths)[:, :, 0, 2]
    torch.testing.assert_close(corner, torch.tensor([[0.25] * 4, [0.5, 0.5, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "blocks must be at least 1, not 0"),
        ({"queries": 0}, "queries must be at least 1, not 0"),
        ({"hidden": 0}, "hidden must be at least 1, not 0"),
        ({"heads": 0}, "heads must be at least 1, not 0"),
        ({"heads": 4}, "hidden=6 is no multiple of heads=4"),
        ({"block_dropout": 2.0}, "dropout probability has to be between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=f"head 'attentive-probe' cannot be built: {message}"):
        build(**settings)
