"""The head that chooses its frames: what it reads, what it learns, and from which formulas."""

import math
from itertools import pairwise

import pytest
import torch

from vidfuse.errors import UserError
from vidfuse.heads import build_head
from vidfuse.heads.policy.episodes import (
    WAVES,
    FixedOrder,
    NearestSeen,
    NeverStop,
    Sampled,
    relative_times,
    spread_order,
    waves,
)
from vidfuse.heads.policy.head import Policy
from vidfuse.heads.policy.source import CachedSource
from vidfuse.training.config import TrainConfig
from vidfuse.training.examples import Examples
from vidfuse.training.fit import Fit, new_head

D, C = 3, 4


def make(trained=True, **settings):
    torch.manual_seed(0)
    head = Policy(D, 1, C, **{"hidden": 6, "max_looks": 4, **settings}).double().eval()
    if trained:  # as far as its decisions depend on what it sees
        with torch.no_grad():
            for layer in (head.query, head.stop, head.value):
                layer.weight.normal_(std=1.0)
                layer.bias.normal_()
    return head


def clips(*lengths, longest=9):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(lengths), longest, D, 1, 1, generator=generator, dtype=torch.float64)
    return features, torch.tensor(lengths)


def replay_of(head, source, positions):
    """What training thinks of these looks."""
    frames = head.norm(source.features.flatten(2))
    inputs, votes = head._glance(
        frames, relative_times(source.lengths, frames.shape[1], frames.dtype)
    )
    return head.replay(inputs, votes, votes, source.lengths, positions)


class Counting:
    """A source that notes what it is asked for."""

    def __init__(self, features, lengths):
        self.features, self.lengths = features, lengths
        self.asked = []

    def at(self, clips, positions):
        assert len(clips) > 0
        self.asked.append(list(zip(clips.tolist(), positions.tolist(), strict=True)))
        return self.features[clips, positions]


def test_it_asks_for_what_it_says_it_saw_and_for_nothing_twice():
    source = Counting(*clips(9, 1, 2, 7, 9))
    episode = make().observe(source)
    flat = [pair for batch in source.asked for pair in batch]
    assert len(flat) == len(set(flat)) == int(episode.counts.sum())
    assert all(position < source.lengths[clip] for clip, position in flat)
    for clip, row in enumerate(episode.positions.tolist()):
        seen = [position for position in row if position >= 0]
        assert [p for c, p in flat if c == clip] == seen
        assert len(seen) == episode.counts[clip] <= 4
    assert len(set(episode.counts.tolist())) > 1, "all episodes are equally long"


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_frames_that_are_not_chosen_are_not_read(poison):
    features, lengths = clips(9, 1, 2, 7, 9)
    head = make()
    episode = head.observe(CachedSource(features, lengths))
    seen = torch.zeros(features.shape[:2], dtype=torch.bool)
    for clip, row in enumerate(episode.positions.tolist()):
        seen[clip, [position for position in row if position >= 0]] = True
    assert not seen.all()
    poisoned = features.masked_fill(~seen[..., None, None, None], poison)
    assert torch.equal(head(poisoned, lengths), episode.answers)
    assert torch.equal(head.forward_with_cost(poisoned, lengths)[1], episode.counts)


def test_before_training_it_covers_the_clip():
    head = make(trained=False, max_looks=6)
    features, lengths = clips(30, 1, 5, longest=30)
    episode = head.observe(CachedSource(features, lengths))
    thirds = torch.tensor([4.5, 14.5, 24.5])
    assert (episode.positions[0, :3].sort().values - thirds).abs().max() < 1
    assert episode.positions[1].tolist() == [0, -1, -1, -1, -1, -1]
    assert sorted(episode.positions[2].tolist()) == [-1, 0, 1, 2, 3, 4]
    order = spread_order(lengths, 6)
    for row, count in zip(range(3), (6, 1, 5), strict=True):
        assert order[row, :count].tolist() == episode.positions[row, :count].tolist()


def test_room_by_hand():
    nearest = NearestSeen(torch.tensor([4, 2]), 4, torch.float64)
    assert nearest.times[0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert nearest.distance.tolist() == [[1, 3, 3, 1], [1, 1, 0, 0]]
    before = nearest.before(torch.tensor([[1, 3, 0], [0, -1, -1]]))
    assert before[0].tolist() == [[1, 3, 3, 1], [1, 0, 1, 1], [1, 0, 1, 0]]
    assert before[1].tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    nearest.add(torch.tensor([1, 0]))
    assert nearest.distance.tolist() == [[1, 0, 1, 1], [0, 1, 0, 0]]


def test_the_answer_depends_on_what_was_seen_and_not_on_the_order_of_looks():
    head = make()
    source = CachedSource(*clips(9, 9))
    one, other = torch.tensor([[1, 7, 4]] * 2), torch.tensor([[4, 1, 7]] * 2)
    first, second, third = (
        head.observe(source, FixedOrder(order)).answers for order in (one, other, one[:, :2])
    )
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    assert (first - third).abs().max() > 1e-4


def test_the_forward_pass_by_hand():
    """The equations of the docstring, frame by frame."""
    head = make()
    features, lengths = clips(7)
    source = CachedSource(features, lengths)
    episode = head.observe(source, FixedOrder(torch.tensor([[5, 0, 2]])))
    replay = replay_of(head, source, episode.positions)
    normed = head.norm(features[0].flatten(1))
    times = (torch.arange(7, dtype=torch.float64) + 0.5) / 7
    for count in (1, 2, 3):
        seen = sorted([5, 0, 2][:count])
        steps = [0, *(after - before for before, after in pairwise(seen))]
        gaps = torch.tensor(steps, dtype=torch.float64) / 7
        inputs = [
            head.project(normed[i]) + head.place(waves(times[i])) + head.gap(waves(gap))
            for i, gap in zip(seen, gaps, strict=True)
        ]
        states, _ = head.recurrence(torch.stack(inputs)[None])
        mean = normed[seen].mean(0)
        logits = head.classifier(states[0].max(0).values) + head.vote(mean)
        torch.testing.assert_close(episode.logits[0, count - 1], logits, rtol=1e-9, atol=1e-9)
        scores = logits.softmax(0)
        doubt = -(scores * scores.log()).sum() / math.log(C)
        belief = torch.stack([scores.max(), doubt, torch.tensor(count / 4)])
        outlook = torch.cat([states[0].max(0).values, belief])
        torch.testing.assert_close(episode.stops[0, count - 1], head.stop(outlook)[0])
        if count == 3:
            break
        torch.testing.assert_close(replay.values[0, count], head.value(outlook)[0])
        # Which candidate is next.
        near = [min([2 * i + 1, 2 * (7 - i) - 1, *(abs(i - j) for j in seen)]) for i in range(7)]
        q = head.query(outlook)
        weights = [
            0.0 if d == 0 else d ** head.spread.item() * math.exp((q @ waves(times[i])).item())
            for i, d in enumerate(near)
        ]
        chances = [weight / sum(weights) for weight in weights]
        chosen = [5, 0, 2][count]
        assert replay.log_probs[0, count].item() == pytest.approx(math.log(chances[chosen]))
        entropy = -sum(chance * math.log(chance) for chance in chances if chance > 0)
        assert replay.entropies[0, count].item() == pytest.approx(entropy)


def test_a_review_is_what_was_thought():
    head = make()
    source = CachedSource(*clips(9, 1, 2, 7))
    thrice = CachedSource(
        *(part.repeat_interleave(3, 0) for part in (source.features, source.lengths))
    )
    episode = head.observe(thrice, Sampled())
    replay = replay_of(head, source, episode.positions)
    taken = episode.positions >= 0
    assert torch.equal(replay.taken, taken)
    assert taken.sum(1).tolist() == [4] * 3 + [1] * 3 + [2] * 3 + [4] * 3
    torch.testing.assert_close(replay.logits[taken], episode.logits[taken], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(replay.stops[taken], episode.stops[taken], rtol=1e-9, atol=1e-9)
    assert replay.log_probs[taken].isfinite().all()


def test_waves_by_hand():
    (row,) = waves(torch.tensor([0.25], dtype=torch.float64)).tolist()
    expected = [f(math.pi * k / 4) for f in (math.sin, math.cos) for k in range(1, WAVES + 1)]
    assert row == pytest.approx(expected)


def test_training_follows_the_gradient_of_the_expected_reward():
    """All episodes of a tiny clip, weighed by their probability: nothing is left to chance."""
    head = make(max_looks=2, cost=0.03, entropy=0.0)
    source = CachedSource(*clips(3, longest=3))
    truth = torch.tensor([2])
    agent = [*head.query.parameters(), head.spread, *head.stop.parameters()]
    expected, estimate, total = torch.zeros(()), torch.zeros(()), 0.0
    for order in ([i, j] for i in range(3) for j in range(3) if i != j):
        replay = replay_of(head, source, torch.tensor([order]))
        chance = replay.log_probs.sum().exp()
        stop = replay.stops[0, 0].sigmoid()
        first, second = replay.logits[0].softmax(1)[:, 2].detach()
        total += chance.item()
        expected = expected + chance * (stop * (first - 0.03) + (1 - stop) * (second - 0.06))
        # The baseline may be anything that does not know the decision.
        estimate = estimate - chance.detach() * head._agent_loss(replay, truth).sum()
    assert total == pytest.approx(1)
    wanted = torch.autograd.grad(expected, agent, retain_graph=True)
    found = torch.autograd.grad(estimate, agent)
    assert max(each.abs().max() for each in wanted) > 1e-4
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_gains_by_hand():
    head = make(cost=0.1)
    source = CachedSource(*clips(9, 2))
    replay = replay_of(head, source, head.observe(source, NeverStop()).positions)
    truth = torch.tensor([1, 3])
    worth, gains, reached = replay.gains(truth, head.cost)
    for clip, looks in enumerate((4, 2)):
        scores = [row.softmax(0)[truth[clip]].item() for row in replay.logits[clip]]
        rewards = [1 / C, *(score - 0.1 * n for n, score in enumerate(scores, start=1))]
        stops = [*replay.stops[clip, : looks - 1].sigmoid().tolist(), 1.0]
        prefetch, chance = rewards[looks], 1.0
        for n in reversed(range(looks)):  # after n looks, before the next
            prefetch = stops[n] * rewards[n + 1] + (1 - stops[n]) * prefetch
            assert gains[clip, n].item() == pytest.approx(prefetch - rewards[n])
        assert worth[clip].item() == pytest.approx(prefetch)
        for n in range(looks):
            assert reached[clip, n].item() == pytest.approx(chance)
            chance *= 1 - stops[n]
        assert (reached[clip, looks:] == 0).all()


def test_rewards_do_not_reach_the_classifier():
    head = make()
    source = CachedSource(*clips(9, 7))
    replay = replay_of(head, source, head.observe(source, NeverStop()).positions)
    head._agent_loss(replay, torch.tensor([0, 1])).sum().backward()
    touched = {name.partition(".")[0] for name, p in head.named_parameters() if p.grad is not None}
    assert touched == {"query", "spread", "stop", "value"}


def test_sampled_episodes_differ_and_the_seed_decides():
    head = make()
    features, lengths = clips(9, 9)

    def loss(seed):
        torch.manual_seed(seed)
        return head.loss(features, lengths, torch.tensor([0, 1]))[0]

    assert torch.equal(loss(1), loss(1))
    assert not torch.equal(loss(1), loss(2))


@pytest.mark.parametrize(
    "given", [{"max_looks": 0}, {"cost": -0.1}, {"entropy": -1}, {"episodes": 0}, {"hidden": 0}]
)
def test_values_out_of_range_are_refused(given):
    with pytest.raises(UserError, match=r"head 'policy' cannot be built: .* must be at least"):
        build_head("policy", channels=D, grid=1, classes=C, settings=given)


# What it learns.

K = 12


def signs(n, seed):
    """Clips of noise that show their class in one frame; the middle says which half it is in."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    half = torch.arange(n) // 2 % 2
    features = torch.linspace(-1, 1, 8) + 0.2 * torch.randn(n, K, 8, generator=generator)
    clip = torch.arange(n)
    for middle in (5, 6):
        features[clip, middle, half] += 3.0
    features[clip, torch.where(half == 0, 1, 10), 2 + labels] += 3.0
    return Examples.stacked(features[..., None, None].half(), torch.full((n,), K), labels)


def fitted(**options):
    config = TrainConfig(
        head="policy",
        head_options={"hidden": 32, "max_looks": 6, **options},
        epochs=60,
        lr=3e-3,
        patience=0,
        dropout=0.2,
    )
    head = new_head(config, channels=8, grid=1, classes=2)
    fit = Fit(head, signs(160, 0), signs(40, 1), config, device="cpu", classes=2)
    records = list(fit)
    head.load_state_dict(fit.best_state or {})
    return head.eval(), records[fit.best_epoch - 1]


def test_it_learns_where_to_look_and_when_to_stop():
    head, record = fitted(cost=0.02)
    assert record.val_accuracy > 0.95
    assert record.val_frames < 4
    test = signs(80, 2)
    episode = head.observe(
        CachedSource(
            test.features.view(len(test), K, *test.features.shape[1:]).float(), test.lengths
        )
    )
    right = (episode.answers.argmax(1) == test.labels).double().mean()
    assert right > 0.95
    # Chance would need 6 looks of 12 to find the sign in half of the clips.
    assert episode.counts.double().mean() < 4


def test_a_high_price_leaves_one_look():
    _, record = fitted(cost=0.9)
    assert record.val_frames == 1
