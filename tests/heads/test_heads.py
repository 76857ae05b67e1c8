"""The contract that every registered head keeps (vidfuse/heads/base.py)."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vidfuse.heads import HEADS, build_head, head_class
from vidfuse.heads.base import Head, SequenceHead, mask, masked_mean
from vidfuse.heads.registry import options_of

D, C = 3, 4
# float64, so that "the same" can be tested far below what a real difference would be.
SAME: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
# Of six rectified units all may be at rest.
WIDER = {"ms-tcn": {"hidden": 32}}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, WIDER.get(name, {})) for name in sorted(HEADS)),
    ("lstm", {"bidirectional": True}),
    ("lstm", {"inputs": "frames", "readout": "max"}),
    ("lstm", {"layers": 2, "bidirectional": True, "hidden": 5}),
    ("rnn", {"readout": "max"}),
    ("gru", {"readout": "last"}),
    ("gru", {"readout": "last", "layers": 2, "bidirectional": True}),
    ("gru", {"readout": "max", "bidirectional": True}),
    ("convgru", {"readout": "max", "layers": 2, "kernel": "3,5"}),
    ("convlstm", {"readout": "last"}),
    ("convlstm", {"readout": "max", "layers": 2, "kernel": "3,5"}),
    ("rnn-cnn", {"bidirectional": True, "cell": "lstm", "readout": "mean"}),
    ("parallel", {"branch": "pooled", "cell": "rnn"}),
    ("parallel", {"fusion": "sum"}),
    ("parallel", {"fusion": "gated"}),
    ("parallel", {"fusion": "bilinear"}),
    ("tcn", {"causal": False, "readout": "last"}),
    ("tcn", {"kernel": 2, "readout": "mean"}),
    ("tcn", {"kernel": 1}),
    ("tcn", {"kernel": 1, "readout": "last"}),
    ("self-attention", {"readout": "mean"}),
    ("transformer", {"readout": "mean"}),
    ("attentive-probe", {"blocks": 1, "queries": 1}),
    ("attentive-probe", {"blocks": 3}),
    ("attentive-probe", {"blocks": 4, "queries": 1}),
    ("temporal-attention", {"bidirectional": True, "layers": 2}),
    ("spatial-attention", {"scores": "state", "readout": "mean"}),
    ("channel-attention", {"squeeze": "frame", "cell": "lstm"}),
    ("channel-attention", {"squeeze": "clip", "readout": "last"}),
    ("cbam", {"kernel": 1, "readout": "mean"}),
    ("gcn", {"direction": "both", "positions": False}),
    ("gcn", {"positions": False}),
    ("gcn", {"graph": "neighbours", "neighbours": 2}),
    ("gcn", {"graph": "neighbours", "direction": "both", "positions": False}),
    ("gcn", {"graph": "regions", "readout": "mean"}),
    ("gat", {"direction": "both", "positions": False, "readout": "last"}),
    ("gat", {"graph": "neighbours", "positions": False}),
    ("gat", {"graph": "regions", "direction": "both"}),
    ("policy", {"max_looks": 3}),
]


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join([v[0], *map(str, v[1].values())]))
def variant(request):
    return request.param


def make(variant, grid=1):
    name, settings = variant
    small = {"hidden": 6, "width": 5, "heads": 2}
    known = options_of(head_class(name))
    settings = {key: small[key] for key in small if key in known} | settings
    torch.manual_seed(0)
    head = build_head(name, channels=D, grid=grid, classes=C, settings=settings)
    return head.double().eval()


def clips(*lengths, grid=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(length, D, grid, grid, generator=generator, dtype=torch.float64)
        for length in lengths
    ]


def alone(head, clip):
    return head(clip[None], torch.tensor([len(clip)]))[0]


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("garbage", [0.0, 1e30, float("nan"), float("inf")])
def test_a_clip_has_the_same_logits_alone_and_in_a_padded_batch(variant, grid, garbage):
    head = make(variant, grid)
    batch = clips(5, 1, 7, 2, 4, grid=grid)
    padded = torch.full((len(batch), 9, D, grid, grid), garbage, dtype=torch.float64)
    for row, clip in zip(padded, batch, strict=True):
        row[: len(clip)] = clip
    logits = head(padded, torch.tensor([len(clip) for clip in batch]))
    assert logits.shape == (len(batch), C)
    for row, clip in zip(logits, batch, strict=True):
        torch.testing.assert_close(row, alone(head, clip), **SAME)


@pytest.mark.parametrize("garbage", [1e30, float("nan")])
def test_padding_leaves_gradients_finite_and_unchanged(variant, garbage):
    head = make(variant)
    batch = torch.stack(clips(4, 4))
    lengths, labels = torch.tensor([4, 2]), torch.tensor([0, 3])

    def gradients(padding):
        features = batch.clone()
        features[1, 2:] = padding
        head.zero_grad()
        torch.manual_seed(0)
        losses, _ = head.loss(features, lengths, labels)
        losses.sum().backward()
        return [parameter.grad.clone() for parameter in head.parameters()]

    for clean, dirty in zip(gradients(0.0), gradients(garbage), strict=True):
        torch.testing.assert_close(clean, dirty, **SAME)


@pytest.mark.parametrize("length", [6, 7])
def test_declared_order_awareness_is_true(variant, length):
    head = make(variant)
    (clip,) = clips(length)
    generator = torch.Generator().manual_seed(3)
    orders = [torch.randperm(length, generator=generator) for _ in range(5)]
    change = max((alone(head, clip) - alone(head, clip[order])).abs().max() for order in orders)
    assert (change > 1e-4) if head.order_aware else (change < 1e-9)


@pytest.mark.parametrize("length", [6, 7])
def test_declared_reversal_awareness_is_true(variant, length):
    head = make(variant)
    (clip,) = clips(length)
    change = (alone(head, clip) - alone(head, clip.flip(0))).abs().max()
    assert (change > 1e-4) if head.reversal_aware else (change < 1e-9)


def test_gradients_reach_every_parameter(variant):
    head = make(variant, grid=2)  # on one position attention has no choice, and so no gradient
    features, lengths = torch.stack(clips(4, 4, 4, grid=2)), torch.tensor([4, 3, 1])
    torch.manual_seed(0)
    losses, logits = head.loss(features, lengths, torch.tensor([0, 1, 2]))
    assert losses.shape == (3,)
    assert logits.shape == (3, C)
    losses.mean().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_one_frame_is_enough(variant):
    head = make(variant)
    assert torch.isfinite(alone(head, clips(1)[0])).all()


def test_the_place_within_the_grid_matters(variant):
    head = make(variant, grid=2)
    (clip,) = clips(4, grid=2)
    assert not torch.allclose(alone(head, clip), alone(head, clip.flip(-1)), atol=1e-4)


def test_settings_and_weights_rebuild_the_head(variant):
    head = make(variant)
    settings = json.loads(json.dumps(head.settings))
    twin = build_head(head.name, channels=D, grid=1, classes=C, settings=settings)
    twin.load_state_dict(head.state_dict())
    twin.double().eval()
    (clip,) = clips(5)
    assert twin.settings == head.settings
    assert torch.equal(alone(twin, clip), alone(head, clip))


def test_declarations_are_complete(variant):
    cls = head_class(variant[0])
    assert cls.name == variant[0]
    assert cls.grid == "native" or cls.grid >= 1
    assert isinstance(cls.paper, str)
    assert "dropout" in options_of(cls)
    assert cls.forward.__doc__
    assert "[B, T, D, g, g]" in cls.forward.__doc__


def test_dropout_works_in_training_only(variant):
    head = make(variant)
    features, lengths = torch.stack(clips(4)), torch.tensor([4])
    assert torch.equal(head(features, lengths), head(features, lengths))
    head.train()
    label = torch.zeros(1, dtype=torch.int64)
    first, second = (head.loss(features, lengths, label)[1] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("length", "central"), [(1, [0]), (5, [2]), (6, [2, 3]), (2, [0, 1])])
def test_middle_reads_the_central_frames_alone(length, central):
    head = make(("middle", {}))
    (clip,) = clips(length)
    others = clips(length, seed=2)[0]
    others[central] = clip[central]
    torch.testing.assert_close(alone(head, clip), alone(head, others), **SAME)
    others[central[0]] += 1.0 + torch.arange(D, dtype=torch.float64)[:, None, None]
    assert not torch.allclose(alone(head, clip), alone(head, others), atol=1e-4)


def test_mean_is_the_classifier_of_the_average_frame():
    head = make(("mean", {}))
    (clip,) = clips(5)
    expected = head.classifier(clip.flatten(1).mean(0))
    torch.testing.assert_close(alone(head, clip), expected, **SAME)


def test_mean_std_is_the_classifier_of_average_and_spread():
    head = make(("mean-std", {}))
    (clip,) = clips(5)
    spread = (clip.var(0, correction=0) + 1e-5).sqrt()
    expected = head.classifier(torch.cat([clip.mean(0), spread]).flatten())
    torch.testing.assert_close(alone(head, clip), expected, **SAME)


def test_masked_mean_by_hand():
    nan = float("nan")
    sequence = torch.tensor([[[1.0], [3.0], [nan]], [[2.0], [4.0], [9.0]]])
    assert mask(torch.tensor([2, 3]), 3).tolist() == [[True, True, False], [True, True, True]]
    assert masked_mean(sequence, torch.tensor([2, 3])).tolist() == [[2.0], [5.0]]


def test_a_head_that_does_not_keep_a_setting_is_named():
    class Forgetful(Head):
        def __init__(self, channels, grid, classes, *, width: int = 3):
            super().__init__(channels, grid, classes)

    with pytest.raises(TypeError, match=r"Forgetful does not keep its settings \['width'\]"):
        _ = Forgetful(1, 1, 1).settings


@pytest.mark.parametrize("sizes", [(0, 1, 2), (3, 0, 2), (3, 1, 0)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="must be at least 1"):
        Head(*sizes)


def test_logits_are_the_sum_of_parts_and_learn_apart(variant):
    head = make(variant, grid=2)
    if head.selects_frames:
        pytest.skip("frames are selected for the answer as a whole")
    features = torch.stack(clips(5, 5, 5, grid=2))
    lengths, labels = torch.tensor([5, 3, 1]), torch.tensor([0, 1, 2])
    with torch.no_grad():
        parts, frames = head.logit_parts(features, lengths)
        torch.testing.assert_close(parts.sum(0), head(features, lengths), **SAME)
        assert frames.tolist() == [5, 3, 1]
        apart = [F.cross_entropy(part, labels, reduction="none") for part in parts]
        losses, logits = head.loss(features, lengths, labels)
        torch.testing.assert_close(losses, torch.stack(apart).sum(0), **SAME)
        torch.testing.assert_close(logits, parts.sum(0), **SAME)
        if isinstance(head, SequenceHead):
            head.weigh_parts(torch.tensor([0.5, 3.0]))
            expected = 0.5 * parts[0] + 3.0 * parts[1]
            torch.testing.assert_close(head(features, lengths), expected, **SAME)
        else:
            assert len(parts) == 1


class WithItsOwnForward(SequenceHead):
    """As other packages may have them."""

    def __init__(self):
        super().__init__(D, 1, C, hidden=4, dropout=0.0)
        self.classifier = torch.nn.Linear(4, C)

    def forward(self, features, lengths):
        return self.classifier(self.project(features.flatten(2)).mean(1))


def test_a_sequence_head_with_a_forward_of_its_own_has_one_part():
    head = WithItsOwnForward().double()
    features, lengths = torch.stack(clips(4, 4)), torch.tensor([4, 4])
    parts, _ = head.logit_parts(features, lengths)
    torch.testing.assert_close(parts, head(features, lengths)[None], **SAME)
    losses, _ = head.loss(features, lengths, torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(losses.sum(), [head.project.weight])
    assert gradient.abs().sum() > 0
