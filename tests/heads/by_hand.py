"""Slow and obvious versions of what heads share, one clip and one step at a time."""

import torch


def layer_norm(vector, norm):
    """LayerNorm of one vector, from its mean and variance."""
    normed = (vector - vector.mean()) / (vector.var(correction=0) + 1e-5).sqrt()
    return normed * norm.weight.flatten() + norm.bias.flatten()


def linear(vector, layer):
    product = layer.weight.flatten(1) @ vector
    return product if layer.bias is None else product + layer.bias


def softmax(scores):
    """Softmax of a list of numbers, as a list."""
    powers = [score.exp() for score in scores]
    return [power / sum(powers) for power in powers]


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def feed_forward(vector, layers):
    norm, first, _, second = layers
    return linear(gelu(linear(layer_norm(vector, norm), first)), second)


def attend(layer, rows, distances, tokens=0, cells=1):
    """Multi-head attention over the rows of one clip, one query and one key at a time.

    So many rows belong to each frame, and the bias of two rows is that of their frames.
    """

    def bias(head, query, key):
        if min(query, key) < tokens:
            return 0.0
        return distances.table[head, max(-8, min(8, key // cells - query // cells)) + 8]

    size = len(rows[0]) // layer.heads
    queries, keys, values = (
        [weight @ row for row in rows] for weight in layer.queries_keys_values.weight.chunk(3)
    )
    outputs = []
    for i, query in enumerate(queries):
        parts = []
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            scores = [query[part] @ key[part] / size**0.5 for key in keys]
            weights = softmax([score + bias(head, i, j) for j, score in enumerate(scores)])
            parts.append(sum(w * value[part] for w, value in zip(weights, values, strict=True)))
        outputs.append(linear(torch.cat(parts), layer.out))
    return outputs


def position(table, t, length):
    """The learned vector of frame t in a clip of so many frames, between its two neighbours."""
    place = t / max(1, length - 1) * (len(table) - 1)
    before = min(int(place), len(table) - 2)
    return table[before] + (place - before) * (table[before + 1] - table[before])


def read(rows, readout):
    rows = torch.stack(rows)
    return {"mean": rows.mean(0), "max": rows.max(0).values, "last": rows[-1]}[readout]


def run_cell(recurrence, rows):
    """States of a recurrence of one layer, forwards, by the cells that test_recurrent checks."""
    state, states = torch.zeros(recurrence.hidden_size, dtype=rows[0].dtype), []
    cell_state = torch.zeros_like(state)
    for row in rows:
        x = recurrence.weight_ih_l0 @ row + recurrence.bias_ih_l0
        u = recurrence.weight_hh_l0 @ state + recurrence.bias_hh_l0
        if recurrence.mode == "LSTM":
            i, f, g, o = (x + u).chunk(4)
            cell_state = f.sigmoid() * cell_state + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell_state.tanh()
        elif recurrence.mode == "GRU":
            (xr, xz, xn), (ur, uz, un) = x.chunk(3), u.chunk(3)
            z, n = (xz + uz).sigmoid(), (xn + (xr + ur).sigmoid() * un).tanh()
            state = (1 - z) * n + z * state
        else:
            state = (x + u).tanh()
        states.append(state)
    return states


def sequence_head(head, clip, read_sequence):
    """Logits of a `SequenceHead` for one clip [T, D, g, g]; the function reads its projection."""
    frames = [layer_norm(frame.flatten(), head.norm) for frame in clip]
    answer = read_sequence([linear(frame, head.project) for frame in frames])
    return linear(torch.cat([answer, sum(frames) / len(frames)]), head.classifier)


def recurrent_head(head, clip, read_sequence):
    """Logits of a `Recurrent` head for one clip [T, D, g, g]; the function reads its projection."""
    frames = [frame.flatten() for frame in clip]
    mean = sum(frames) / len(frames)
    steps = [(frame - mean) / head.spread for frame in frames]
    answer = read_sequence([linear(step, head.project) for step in steps])
    mean = (mean.view(head.channels, -1).mean(1) - head.clip_mean) / head.clip_spread
    return linear(torch.cat([answer, mean]), head.classifier)


def check(head, by_hand, channels=3, grid=2, frames=5, dtype=torch.float64, close=1e-9):
    """Hold logits and gradients of a head against those by hand, in a batch with padding.

    Every parameter is random, so that none hides behind an initial 0 or 1.
    """
    torch.manual_seed(0)
    head = head.to(dtype).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.5)
    features = torch.randn(3, frames, channels, grid, grid, dtype=dtype, requires_grad=True)
    lengths = [frames, 3, 1]
    logits = head(features, torch.tensor(lengths))
    expected = torch.stack(
        [by_hand(head, clip[:length]) for clip, length in zip(features, lengths, strict=True)]
    )
    torch.testing.assert_close(logits, expected, rtol=close, atol=close)
    target = torch.randn_like(expected)
    inputs = [features, *head.parameters()]
    found = torch.autograd.grad((logits * target).sum(), inputs, materialize_grads=True)
    wanted = torch.autograd.grad((expected * target).sum(), inputs, materialize_grads=True)
    for mine, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, reference, rtol=close, atol=close)
