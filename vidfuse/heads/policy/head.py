"""A head that looks at few frames: it learns which to look at next, and when it has seen enough."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidfuse.fusion.base import check_sizes, mask
from vidfuse.fusion.cells import new_recurrence
from vidfuse.fusion.choosing import ChoosingHead
from vidfuse.fusion.episodes import (
    Chooser,
    Episode,
    Exploring,
    Greedy,
    Review,
    Room,
    Seen,
    Trace,
    middles,
)
from vidfuse.fusion.frame_source import FrameSource

WAVES = 8  # the fastest has half a period in 1/8 of a clip: about the width of 2 in 16 candidates
FIRST_SPREAD = 3.0
"""β before anything is learned: frames drawn in training cover a clip nearly as the best do."""
FIRST_STOP = -1.5
"""Logit of stopping before anything is learned."""
BELIEFS = 3

Glance = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Clips [n] and positions [n] → what the GRU reads of these frames [n, hidden], and what they add
to the logits [n, C]."""


class Policy(ChoosingHead):
    """An agent that chooses the frames it looks at, and stops when another is not worth its cost.

    Of L candidate frames of a clip, at places t_i = (i + 1/2) / L, it looks at one after the other.
    After n looks a GRU has read the seen frames x [P] in the order of time, with their places t and
    the time Δt since the frame before::

        s_n = max of GRU(W x + V φ(t) + U φ(Δt)),  logits_n = C s_n + mean of D x
        b_n = [max p, entropy of p / log C, n / max_looks],  p = softmax(logits_n)

    with φ(t) = (sin πkt, cos πkt), k = 1..8. Then it stops, or looks at candidate i::

        P(stop) = σ(u · [s_n, b_n] + c),  P(i) ∝ d_i^β exp(q_n · φ(t_i)),  q_n = Q [s_n, b_n]

    where d_i is the distance to the nearest frame seen (see `Room`), so that before anything is
    learned (Q = 0, β = 3) it covers the clip evenly. What was seen is not looked at again.

    In training each place is drawn from P(i), and it looks on until `max_looks`, so that what
    stopping anywhere would have been worth is known. With p_n the probability of the true class
    after n looks and r_n = p_n - `cost`·n, r_0 = 1 / C, an episode that got to n looks is worth::

        V_n = σ_n r_n + (1 - σ_n) V_{n+1},  σ_n = P(stop) after n looks, 1 after the last

    which leaves nothing to chance but the places: the decision to stop learns by the gradient of
    V_1. Places learn by REINFORCE (Williams, 1992): the log-probability of look n + 1 is raised by
    G_n - v_n, times the probability (1 - σ_1)…(1 - σ_n) that it is taken, where G_n = V_{n+1} - r_n
    is what it gained and the baseline v_n = w · [s_n, b_n] is learned by squared error. Evaluation
    takes the most probable of everything, so it is deterministic.

    The classifier learns by cross-entropy after every look, of which the n-th counts n: later ones
    can tell more, and stopping early while little is known does not keep it from learning what
    further looks show. Rewards reach neither it nor the GRU: on few clips they are noise beside the
    labels.

    Frame Glimpses (Yeung et al.) look anywhere and learn by REINFORCE; AdaFrame (Wu et al.) rewards
    what a look adds, and stops by what its value function expects. Both carry the state from look
    to look, in the order in which the agent looked. Here the GRU reads anew in the order of time
    what is seen: what moves where is easier to tell, and it takes few steps, since looks are few.

    Shapes: frame [P], P = D·g·g → projected [hidden] → state [hidden] → logits [C].

    Cost: P·(hidden + C) products a look and 6·hidden² for each of the N(N+1)/2 steps of the GRU.
    The backbone, which costs far more, runs on the frames looked at only. Training reads all
    candidates of a clip once, for all of its episodes.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units of the projection and of the GRU.
        max_looks: Frames that it looks at, at most. How many it can choose from is `--frames`.
        cost: Accuracy that a frame must add to be worth a look: 0.01 is one clip in a hundred.
        entropy: Weight of the entropy of P(i) in training, against deciding too early.
        episodes: Episodes of each clip in a training step; each takes its time.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "policy"
    grid = 2
    order_aware = True
    reversal_aware = True
    paper = (
        "Yeung et al., End-to-end Learning of Action Detection from Frame Glimpses in Videos, "
        "CVPR 2016; Wu et al., AdaFrame, CVPR 2019; Williams, Simple Statistical "
        "Gradient-Following Algorithms, Machine Learning 8:229-256, 1992"
    )

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        hidden: int = 128,
        max_looks: int = 8,
        cost: float = 0.01,
        entropy: float = 0.003,
        episodes: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(hidden=hidden, max_looks=max_looks, episodes=episodes)
        for what, value in (("cost", cost), ("entropy", entropy)):
            if value < 0:
                raise ValueError(f"{what} must be at least 0, not {value:g}")
        self.hidden = hidden
        self.max_looks = max_looks
        self.cost = self.price = cost
        self.entropy = entropy
        self.episodes = episodes
        self.dropout = dropout
        self.norm = nn.LayerNorm(self.frame_size)
        self.project = nn.Linear(self.frame_size, hidden)
        self.place = nn.Linear(2 * WAVES, hidden, bias=False)
        self.gap = nn.Linear(2 * WAVES, hidden, bias=False)
        self.recurrence = new_recurrence("gru", hidden, hidden)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)
        self.vote = nn.Linear(self.frame_size, classes, bias=False)
        self.query = nn.Linear(hidden + BELIEFS, 2 * WAVES)
        self.spread = nn.Parameter(torch.tensor(FIRST_SPREAD))
        self.stop = nn.Linear(hidden + BELIEFS, 1)
        self.value = nn.Linear(hidden + BELIEFS, 1)
        for layer in (self.query, self.stop, self.value):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.stop.bias, FIRST_STOP)

    def loss(
        self, features: Tensor, lengths: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Mean loss of each clip's episodes [B], and the logits at the end of the first [B, C]."""
        real = mask(lengths, features.shape[1])[..., None]
        frames = self.norm(features.flatten(2).masked_fill(~real, 0.0))
        inputs, votes = self._glance(frames, middles(lengths, frames.shape[1], frames.dtype))

        def glance(clips: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            return inputs[clips, positions], votes[clips, positions]

        with torch.no_grad():
            positions = self._look(glance, lengths, Exploring(), self.episodes).positions
        # One mask for all looks at a clip: what a look adds is not blurred by other masks.
        dropped = self.vote(frames * self.drop(torch.ones_like(frames[:, :1])))
        review = self.review(inputs, votes.detach(), dropped, lengths, positions)
        truth = labels.repeat_interleave(self.episodes)
        errors = F.cross_entropy(
            review.logits.transpose(1, 2),
            truth[:, None].expand_as(positions),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        looks = torch.arange(positions.shape[1], device=labels.device)
        weights = (looks + 1) * review.taken
        losses = (errors * weights).sum(1) / weights.sum(1) + self._agent_loss(review, truth)
        ends = review.logits[:: self.episodes]
        last = (review.taken[:: self.episodes].sum(1) - 1)[:, None, None]
        answers = ends.gather(1, last.expand(-1, 1, self.classes)).squeeze(1)
        return losses.view(-1, self.episodes).mean(1), answers

    def _agent_loss(self, review: Review, truth: Tensor) -> Tensor:
        """Expected reward, REINFORCE, baseline and entropy, over the decisions of each row [R]."""
        worth, gains, reached = self.gains(review, truth)
        advantages = gains - review.values.detach()
        looks = (
            -review.log_probs * advantages
            - self.entropy * review.entropies
            + (review.values - gains).square()
        )
        return (looks * reached).sum(1) - worth

    def gains(self, review: Review, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What episodes are worth, given the true classes [R].

        Returns:
            What each is worth, r_0 [R], through which the decisions to stop learn; what is still
            to be gained before each look, G_n [R, M]; and the probability that it is taken [R, M].
        """
        looks = review.taken.shape[1]
        numbers = torch.arange(looks, device=truth.device)
        index = truth[:, None, None].expand(-1, looks, 1)
        scores = review.logits.detach().softmax(2).gather(2, index).squeeze(2)
        rewards = scores - self.cost * (numbers + 1).to(scores)
        last = numbers == review.taken.sum(1, keepdim=True) - 1
        leaves = review.stops.to(rewards).sigmoid().masked_fill(last, 1.0)
        worth, ahead = torch.zeros_like(rewards[:, 0]), []
        for look in reversed(range(looks)):
            worth = torch.lerp(worth, rewards[:, look], leaves[:, look])
            ahead.append(worth.detach())
        before = torch.cat([torch.full_like(rewards[:, :1], 1 / self.classes), rewards], dim=1)
        stays = (1 - leaves.detach()).cumprod(1)
        reached = torch.cat([torch.ones_like(stays[:, :1]), stays[:, :-1]], dim=1)
        return worth, torch.stack(ahead[::-1], 1) - before[:, :-1], reached

    def review(
        self, inputs: Tensor, votes: Tensor, dropped: Tensor, lengths: Tensor, positions: Tensor
    ) -> Review:
        """Think once more about episodes without an end, of all their looks at once.

        It gives what `look` does, with gradients, in fewer and larger steps.

        Args:
            inputs: What the GRU reads of all K candidates of B clips [B, K, hidden].
            votes: Their parts of the logits [B, K, C].
            dropped: The same with dropout.
            lengths: Candidates of each clip [B].
            positions: What was looked at [R, M], -1 behind a clip's last look; R is a multiple of
                B, and rows r·R/B … are clip r.
        """
        rows, looks = positions.shape
        clips = torch.arange(rows, device=positions.device) // (rows // len(lengths))
        taken, where = positions >= 0, positions.clamp(min=0)
        states = self._read_prefixes(inputs, clips, lengths, positions)
        chosen = clips[:, None], where
        numbers = torch.arange(1, looks + 1, device=positions.device)
        kept = self.drop(torch.ones_like(states[:: rows // len(lengths), :1]))[clips]
        logits = self.classifier(states * kept) + dropped[chosen].cumsum(1) / numbers[:, None]
        with torch.no_grad():  # dropout would make it less sure than it is in evaluation
            surest = self.classifier(states) + votes[chosen].cumsum(1) / numbers[:, None]
        after = self._outlook(states, surest, numbers)
        nothing = self._outlook(torch.zeros_like(states[:, :1]), torch.zeros_like(logits[:, :1]), 0)
        before = torch.cat([nothing, after[:, :-1]], dim=1)
        room = Room(lengths[clips], inputs.shape[1], inputs.dtype)
        rates = self._rate(before, waves(room.places), room.before(positions))
        return Review(
            taken,
            logits,
            stops=self.stop(after).squeeze(2),
            log_probs=rates.gather(2, where[..., None]).squeeze(2),
            entropies=-(rates.exp() * rates.masked_fill(rates.isinf(), 0.0)).sum(2),
            values=self.value(before).squeeze(2),
        )

    def look(self, source: FrameSource, chooser: Chooser | None = None) -> Episode:
        """Look at clips until it stops or there is nothing more to see.

        Args:
            source: Where the frames of B clips are; only those chosen are asked for.
            chooser: Who decides; by default the agent takes what it rates highest.

        Returns:
            B rows, and as many looks M as the longest of them took.
        """
        lengths = source.lengths

        def glance(clips: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            frames = source.at(clips, positions).to(self.norm.weight).flatten(1)
            places = (positions.to(frames) + 0.5) / lengths[clips]
            return self._glance(self.norm(frames), places)

        return self._look(glance, lengths, chooser or Greedy(), 1)

    def _look(self, glance: Glance, lengths: Tensor, chooser: Chooser, episodes: int) -> Episode:
        """Look at each clip so many times; rows r·episodes … of the result are clip r."""
        lengths = lengths.repeat_interleave(episodes)
        limit = lengths.clamp(max=self.max_looks)
        rows = torch.arange(len(lengths), device=lengths.device)
        weight = self.classifier.weight
        room = Room(lengths, int(lengths.max()), weight.dtype)
        curves = waves(room.places)
        seen = Seen.nothing(len(rows), self.hidden, self.classes, weight)
        outlook = self._outlook(seen.inputs.sum(1), seen.votes, 0)
        trace = Trace(len(rows))
        for look in range(int(limit.max())):
            rates = self._rate(outlook[:, None], curves[rows], room.left[:, None]).squeeze(1)
            positions = chooser.position(rows, look, rates)
            seen = seen.and_also(positions, *glance(rows // episodes, positions))
            room.look(positions)
            state = self._read(seen, lengths[rows])
            logits = self.classifier(state) + seen.votes / (look + 1)
            outlook = self._outlook(state, logits, look + 1)
            stop = self.stop(outlook).squeeze(1)
            trace.see(rows, positions, logits, stop)
            stays = (limit[rows] > look + 1) & ~chooser.stop(look + 1, stop)
            if not stays.any():
                break
            if not stays.all():
                rows, outlook, seen = rows[stays], outlook[stays], seen.kept(stays)
                room.keep(stays)
        return trace.episode()

    def _glance(self, frames: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """What it takes of normalised frames [..., P] at places [...]: see `Glance`."""
        return self.project(frames) + self.place(waves(places)), self.vote(frames)

    def _outlook(self, state: Tensor, logits: Tensor, looks: Tensor | int) -> Tensor:
        """What decisions go by [..., hidden + 3]: the state [..., hidden] and how sure it is."""
        scores = logits.detach().softmax(-1)
        doubt = -(scores * scores.clamp(min=1e-9).log()).sum(-1) / math.log(max(self.classes, 2))
        taken = torch.zeros_like(doubt) + looks / self.max_looks
        beliefs = torch.stack([scores.amax(-1), doubt, taken], dim=-1)
        return torch.cat([state.detach(), beliefs.to(state)], dim=-1)

    def _rate(self, outlook: Tensor, curves: Tensor, left: Tensor) -> Tensor:
        """Log-probabilities of looking at each candidate next [n, M, L]; -inf where none is.

        Args:
            outlook: What the decisions go by [n, M, hidden + 3].
            curves: Waves of the candidates' places [n, L, 2·WAVES].
            left: The room at each candidate [n, M, L].
        """
        scores = self.query(outlook) @ curves.mT + self.spread * left.clamp(min=1.0).log()
        some = (left > 0).any(2, keepdim=True)  # of nothing, all are as probable: no NaN
        return scores.masked_fill((left <= 0) & some, -torch.inf).log_softmax(2)

    def _read(self, seen: Seen, lengths: Tensor) -> Tensor:
        """The largest state of each unit [n, hidden] over the frames seen, in the order of time."""
        positions, order = seen.positions.sort(1)
        inputs = seen.inputs.gather(1, order[..., None].expand_as(seen.inputs))
        states, _ = self.recurrence(inputs + self._gaps(positions, lengths))
        return states.max(1).values

    def _gaps(self, positions: Tensor, lengths: Tensor) -> Tensor:
        """What tells the GRU how long ago the frame before was [n, ..., t, hidden].

        Args:
            positions: Candidates in the order of time [n, ..., t].
            lengths: How many candidates each clip has [n].
        """
        steps = positions.diff(dim=-1, prepend=positions[..., :1]).to(self.gap.weight.dtype)
        return self.gap(waves(steps / lengths.view(-1, *[1] * (steps.dim() - 1))))

    def _read_prefixes(
        self, inputs: Tensor, clips: Tensor, lengths: Tensor, positions: Tensor
    ) -> Tensor:
        """The same after each of some looks [R, M], of the inputs of all candidates [B, K, hidden].

        Args:
            inputs: Those of B clips.
            clips: Which clip each row is [R].
            lengths: Candidates of each clip [B].
            positions: What was looked at [R, M], -1 behind a clip's last look.

        Returns:
            Such states [R, M, hidden]; behind a clip's last look that after it.
        """
        looks, size = positions.shape[1], inputs.shape[2]
        known = torch.ones(looks, looks, dtype=torch.bool, device=positions.device).tril()
        known = known & (positions >= 0)[:, None]
        far = inputs.shape[1]  # sorts unseen ones behind all others
        order = positions[:, None].expand_as(known).masked_fill(~known, far).sort(2).values
        places = clips[:, None, None] * far + order.clamp(max=far - 1)
        sequences = inputs.flatten(0, 1).index_select(0, places.flatten())
        sequences = sequences.view(*order.shape, size) + self._gaps(order, lengths[clips])
        counts = known.sum(2).flatten()
        packed = pack_padded_sequence(
            sequences.flatten(0, 1), counts.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.recurrence(packed)[0], batch_first=True, padding_value=-torch.inf
        )
        return states.max(1).values.view(*positions.shape, size)


def waves(places: Tensor) -> Tensor:
    """Sines and cosines [..., 2·WAVES] of places [...] within a clip."""
    counts = torch.arange(1, WAVES + 1, dtype=places.dtype, device=places.device)
    angles = math.pi * counts * places[..., None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
