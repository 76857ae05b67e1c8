"""A head that looks at few frames: it learns which to look at next, and when it has seen enough."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.fusion.base import check_sizes
from vidfuse.fusion.cells import new_recurrence
from vidfuse.fusion.choosing import ChoosingHead
from vidfuse.fusion.episodes import Chooser, Episode, Greedy, Room, Sampled, Seen, Trace
from vidfuse.fusion.frame_source import CachedSource, FrameSource

WAVES = 8  # the fastest has half a period in 1/8 of a clip: about the width of 2 in 16 candidates
STEP_SHARE = 0.5
"""Share of the cross-entropy that all looks of an episode have together; its end has the rest."""
FIRST_STOP = -1.5
"""Logit of stopping before anything is learned: episodes of all lengths occur."""
BELIEFS = 3


class Policy(ChoosingHead):
    """An agent that chooses the frames it looks at, and stops when another is not worth its cost.

    Of L candidate frames of a clip, at places t_i = (i + 1/2) / L, it looks at one after the other.
    After n looks a GRU has read the seen frames x [P] in the order of time, with their places::

        s_n = mean of GRU(W x + V φ(t)),  logits_n = C [s_n, mean of x]
        b_n = [max p, entropy of p / log C, n / max_looks],  p = softmax(logits_n)

    with φ(t) = (sin πkt, cos πkt), k = 1..8. Then it stops, or looks at candidate i::

        P(stop) = σ(u · [s_n, b_n] + c),  P(i) ∝ d_i^β exp(q_n · φ(t_i)),  q_n = Q [s_n, b_n]

    where d_i is the distance to the nearest frame seen (see `Room`), so that before anything is
    learned (Q = 0, β = 1) it covers the clip evenly. What was seen is not looked at
    again.

    Trained by REINFORCE (Williams, 1992). An episode of N looks is worth the probability p_N of the
    true class minus `cost` for each look. What is still to be gained after n looks is

        G_n = p_N - p_n - cost (N - n),  p_0 = 1 / C

    and a decision's log-probability is raised by G_n - v_n, where the baseline v_n = w · [s_n, b_n]
    is learned by squared error. Episodes are sampled in training; evaluation takes the most
    probable of everything, so it is deterministic. The classifier learns by cross-entropy, half at
    the end of an episode and half as the mean over its looks. Rewards reach neither it nor the GRU:
    on few clips they are noise beside the labels.

    Frame Glimpses (Yeung et al.) look anywhere and learn by REINFORCE; AdaFrame (Wu et al.) rewards
    what a look adds, and stops by what its value function expects. Both carry the state from look
    to look, in the order in which the agent looked. Here the GRU reads anew in the order of time
    what is seen: what moves where is easier to tell, and it takes few steps, since looks are few.

    Shapes: frame [P], P = D·g·g → projected [hidden] → state [hidden] → logits [C].

    Cost: P·hidden products a look, 6·hidden² for each of the N(N+1)/2 steps of the GRU, and
    (hidden + P)·C a look. The backbone, which costs far more, runs on the frames looked at only.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units of the projection and of the GRU.
        max_looks: Frames that it looks at, at most. How many it can choose from is `--frames`.
        cost: Accuracy that a frame must add to be worth a look: 0.01 is one clip in a hundred.
        entropy: Weight of the entropy of its decisions in training, against deciding too early.
        episodes: Episodes of each clip in a training step.
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
        episodes: int = 4,
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
        self.recurrence = new_recurrence("gru", hidden, hidden)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden + self.frame_size, classes)
        self.query = nn.Linear(hidden + BELIEFS, 2 * WAVES)
        self.spread = nn.Parameter(torch.ones(()))
        self.stop = nn.Linear(hidden + BELIEFS, 1)
        self.value = nn.Linear(hidden + BELIEFS, 1)
        for layer in (self.query, self.stop, self.value):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.stop.bias, FIRST_STOP)

    def loss(
        self, features: Tensor, lengths: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Mean loss of each clip's episodes [B], and the logits of their first [B, C]."""
        source = CachedSource(features, lengths)
        episode = self.look(source, Sampled(), episodes=self.episodes)
        truth = labels.repeat_interleave(self.episodes)
        looks = torch.arange(episode.logits.shape[1], device=labels.device)
        taken = looks < episode.counts[:, None]
        errors = F.cross_entropy(
            episode.logits.transpose(1, 2),
            truth[:, None].expand_as(taken),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        last = errors.gather(1, episode.counts[:, None] - 1).squeeze(1)
        each = (errors * taken).sum(1) / episode.counts
        losses = torch.lerp(last, each, STEP_SHARE) + self._agent_loss(episode, truth)
        return losses.view(-1, self.episodes).mean(1), episode.answers[:: self.episodes]

    def _agent_loss(self, episode: Episode, truth: Tensor) -> Tensor:
        """REINFORCE, baseline and entropy, summed over the decisions of each episode [R]."""
        gains = self.gains(episode, truth)
        advantages = gains - episode.values.detach()
        decisions = (
            -episode.log_probs * advantages
            - self.entropy * episode.entropies
            + (episode.values - gains).square()
        )
        return (decisions * episode.decided).sum(1)

    @torch.no_grad()
    def gains(self, episode: Episode, truth: Tensor) -> Tensor:
        """What was still to be gained before each look, G_n [R, M], for the true classes [R]."""
        scores = episode.logits.softmax(2)
        index = truth[:, None, None].expand(-1, scores.shape[1], 1)
        after = scores.gather(2, index).squeeze(2)
        chance = torch.full_like(after[:, :1], 1 / self.classes)
        before = torch.cat([chance, after[:, :-1]], dim=1)
        end = after.gather(1, episode.counts[:, None] - 1)
        looks = torch.arange(after.shape[1], device=after.device)
        return end - before - self.cost * (episode.counts[:, None] - looks)

    def look(
        self, source: FrameSource, chooser: Chooser | None = None, *, episodes: int = 1
    ) -> Episode:
        """Look at clips until it stops or there is nothing more to see.

        Args:
            source: Where the frames of B clips are; only those chosen are asked for.
            chooser: Who decides; by default the agent takes what it rates highest.
            episodes: How often it looks at each clip; rows r·episodes … of the result are clip r.

        Returns:
            R = B·episodes rows, and as many looks M as the longest of them took.
        """
        chooser = chooser or Greedy()
        lengths = source.lengths.repeat_interleave(episodes)
        limit = lengths.clamp(max=self.max_looks)
        rows = torch.arange(len(lengths), device=lengths.device)
        weight = self.classifier.weight
        room = Room(lengths, int(lengths.max()), weight.dtype)
        seen = Seen.nothing(len(rows), self.hidden, self.frame_size, weight)
        # One mask for all looks of an episode: what a look adds is not blurred by other masks.
        masks = self.drop(weight.new_ones(len(rows), weight.shape[1]))
        state = weight.new_zeros(len(rows), self.hidden)
        outlook = self._outlook(state, weight.new_zeros(len(rows), self.classes), 0)
        trace = Trace(len(rows))
        for look in range(int(limit.max())):
            stop = self.stop(outlook).squeeze(1)
            rates = self._rate(outlook, room)
            leaves = chooser.stop(look, stop) if look else torch.zeros_like(stop, dtype=torch.bool)
            positions = chooser.position(rows, look, rates)
            log_probs, entropies = _decision(stop if look else None, leaves, rates, positions)
            trace.decide(rows, log_probs, entropies, self.value(outlook).squeeze(1))
            stays = ~leaves
            rows, positions, seen = rows[stays], positions[stays], seen.kept(stays)
            room.keep(stays)
            if not len(rows):
                break
            frames = self.norm(source.at(rows // episodes, positions).to(weight).flatten(1))
            places = room.places.gather(1, positions[:, None])
            seen = seen.and_also(
                positions, self.project(frames) + self.place(waves(places)), frames
            )
            room.look(positions)
            state = self._read(seen)
            both = torch.cat([state, seen.total / (look + 1)], dim=1)
            logits = self.classifier(both * masks[rows])
            with torch.no_grad():  # dropout would make it less sure than it is in evaluation
                surest = self.classifier(both) if self.training else logits
            outlook = self._outlook(state, surest, look + 1)
            trace.see(rows, positions, logits, self.stop(outlook).squeeze(1))
            more = limit[rows] > look + 1
            rows, outlook, seen = rows[more], outlook[more], seen.kept(more)
            room.keep(more)
            if not len(rows):
                break
        return trace.episode()

    def _outlook(self, state: Tensor, logits: Tensor, looks: int) -> Tensor:
        """What decisions go by [n, hidden + 3]: the state [n, hidden] and how sure it is."""
        scores = logits.detach().softmax(1)
        doubt = -(scores * scores.clamp(min=1e-9).log()).sum(1) / math.log(max(self.classes, 2))
        taken = torch.full_like(doubt, looks / self.max_looks)
        beliefs = torch.stack([scores.amax(1), doubt, taken], dim=1)
        return torch.cat([state.detach(), beliefs.to(state)], dim=1)

    def _rate(self, outlook: Tensor, room: Room) -> Tensor:
        """Log-probabilities of looking at each candidate next [n, L]; -inf where none is."""
        curve = (waves(room.places[..., None]) @ self.query(outlook)[..., None]).squeeze(2)
        scores = curve + self.spread * room.left.clamp(min=1.0).log()
        return scores.masked_fill(room.left <= 0, -torch.inf).log_softmax(1)

    def _read(self, seen: Seen) -> Tensor:
        """The mean state [n, hidden] of the GRU over the frames seen, in the order of time."""
        order = seen.positions.argsort(1)[..., None].expand_as(seen.inputs)
        states, _ = self.recurrence(seen.inputs.gather(1, order))
        mean: Tensor = states.mean(1)
        return mean


def waves(places: Tensor) -> Tensor:
    """Sines and cosines [..., 2·WAVES] of places [..., 1] within a clip."""
    counts = torch.arange(1, WAVES + 1, dtype=places.dtype, device=places.device)
    angles = math.pi * counts * places
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _decision(
    stop: Tensor | None, leaves: Tensor, rates: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [n] of decisions, and the entropies [n] of what they were drawn from.

    Args:
        stop: Logits of stopping [n], or None where that is no choice.
        leaves: Where it was decided to stop, bool [n].
        rates: Log-probabilities of the candidates [n, L].
        positions: Candidates chosen [n]; they count where it goes on.
    """
    chosen = rates.gather(1, positions[:, None]).squeeze(1)
    doubt = -(rates.exp() * rates.masked_fill(rates.isinf(), 0.0)).sum(1)
    if stop is None:
        return chosen, doubt
    stops, goes = F.logsigmoid(stop), F.logsigmoid(-stop)
    log_probs = torch.where(leaves, stops, goes + chosen)
    return log_probs, goes.exp() * (doubt - goes) - stops.exp() * stops
