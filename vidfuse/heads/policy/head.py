"""A head that observes few frames: it learns which to observe next, and when it has seen enough."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidfuse.heads.base import check_sizes, mask
from vidfuse.heads.layers import new_recurrence
from vidfuse.heads.policy.episodes import (
    WAVES,
    ActionSelector,
    Episode,
    EpisodeRecorder,
    Greedy,
    NearestSeen,
    Observation,
    Replay,
    Sampled,
    relative_times,
    waves,
)
from vidfuse.heads.policy.interface import FrameSelectingHead
from vidfuse.heads.policy.source import FrameSource

FIRST_SPREAD = 3.0
"""β before anything is learned: frames drawn in training cover a clip nearly as the best do."""
FIRST_STOP = -1.5  # logit of stopping before anything is learned
BELIEFS = 3

Glance = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Clips [n] and positions [n] → inputs to the GRU [n, hidden] and votes for the classes [n, C]."""


class Policy(FrameSelectingHead):
    """An agent that selects the frames it observes, and stops when another is not worth its cost.

    Of L candidate frames of a clip, at times t_i = (i + 1/2) / L, it observes one after the other.
    After n glimpses a GRU has read the seen frames x [P] in the order of time, with their times t
    and the time Δt since the frame before::

        s_n = max of GRU(W x + V φ(t) + U φ(Δt)),  logits_n = C s_n + mean of D x
        b_n = [max p, entropy of p / log C, n / max_looks],  p = softmax(logits_n)

    with φ(t) = (sin πkt, cos πkt), k = 1..8. Then it stops, or observes candidate i::

        P(stop) = σ(u · [s_n, b_n] + c),  P(i) ∝ d_i^β exp(q_n · φ(t_i)),  q_n = Q [s_n, b_n]

    where d_i is the distance to the nearest frame seen (see `NearestSeen`), so that before anything
    is learned (Q = 0, β = 3) it covers the clip evenly. No frame is observed twice.

    In training each candidate is drawn from P(i), and it goes on until `max_looks`, so that what
    stopping anywhere would have been worth is known. With p_n the probability of the true class
    after n glimpses and r_n = p_n - `cost`·n, r_0 = 1 / C, a state of n
    glimpses is worth::

        V_n = σ_n r_n + (1 - σ_n) V_{n+1},  σ_n = P(stop) after n glimpses, 1 after the last

    which leaves nothing to chance but the candidates: the decision to stop learns by the gradient
    of V_1. Candidates are learned by REINFORCE (Williams, 1992): the log-probability of glimpse n +
    1 is raised by G_n - v_n, times the probability (1 - σ_1)…(1 - σ_n) that it is taken, where G_n
    = V_{n+1} - r_n is what it gained and the baseline v_n = w · [s_n, b_n] is learned by squared
    error. Evaluation takes the most probable of everything, so it is deterministic.

    The classifier learns by cross-entropy after every glimpse, of which the n-th counts n: later
    ones can tell more, and stopping early while little is known does not keep it from learning what
    further glimpses show. Rewards reach neither it nor the GRU: on few clips they are noise beside
    the labels.

    Frame Glimpses (Yeung et al.) look anywhere and learn by REINFORCE; AdaFrame (Wu et al.) rewards
    what a glimpse adds, and stops by what its value function expects. Both carry the state from
    glimpse to glimpse. Here the GRU reads the seen frames anew in the order of time: what moves
    where is easier to tell, and it takes few steps, since glimpses are few.

    Shapes: frame [P], P = D·g·g → projected [hidden] → state [hidden] → logits [C].

    Cost: P·(hidden + C) MACs a glimpse and 6·hidden² for each of the N(N+1)/2 steps of the GRU.
    The backbone, which costs far more, runs on the observed frames only.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        hidden: Units of the projection and of the GRU.
        max_looks: Maximum number of glimpses. How many candidates there are is `--frames`.
        cost: Accuracy that a frame must add to be worth its cost: 0.01 is one clip in a hundred.
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
        self.cost = self.frame_cost = cost
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
        inputs, votes = self._glance(frames, relative_times(lengths, frames.shape[1], frames.dtype))

        def glance(clips: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            return inputs[clips, positions], votes[clips, positions]

        with torch.no_grad():
            positions = self._observe(glance, lengths, Sampled(), self.episodes).positions
        # One mask for all glimpses at a clip: what a glimpse adds is not blurred by other masks.
        dropped = self.vote(frames * self.drop(torch.ones_like(frames[:, :1])))
        replay = self.replay(inputs, votes.detach(), dropped, lengths, positions)
        truth = labels.repeat_interleave(self.episodes)
        errors = F.cross_entropy(
            replay.logits.transpose(1, 2),
            truth[:, None].expand_as(positions),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        numbers = torch.arange(1, positions.shape[1] + 1, device=labels.device)
        weights = numbers * replay.taken
        losses = (errors * weights).sum(1) / weights.sum(1) + self._agent_loss(replay, truth)
        ends = replay.logits[:: self.episodes]
        last = (replay.taken[:: self.episodes].sum(1) - 1)[:, None, None]
        logits = ends.gather(1, last.expand(-1, 1, self.classes)).squeeze(1)
        return losses.view(-1, self.episodes).mean(1), logits

    def _agent_loss(self, replay: Replay, truth: Tensor) -> Tensor:
        """Expected reward, REINFORCE, baseline and entropy, over the decisions of each row [R]."""
        worth, gains, reached = replay.gains(truth, self.cost)
        advantages = gains - replay.values.detach()
        losses = (
            -replay.log_probs * advantages
            - self.entropy * replay.entropies
            + (replay.values - gains).square()
        )
        return (losses * reached).sum(1) - worth

    def replay(
        self, inputs: Tensor, votes: Tensor, dropped: Tensor, lengths: Tensor, positions: Tensor
    ) -> Replay:
        """Compute episodes that never stop once more, all glimpses at once.

        It gives what `observe` does, with gradients, in fewer and larger steps.

        Args:
            inputs: Inputs to the GRU of all K candidates of B clips [B, K, hidden].
            votes: Their parts of the logits [B, K, C].
            dropped: The same with dropout.
            lengths: Candidates of each clip [B].
            positions: Observed candidates [R, M], -1 behind a clip's last glimpse; R is a multiple
                of B, and rows r·R/B … are clip r.
        """
        rows, glimpses = positions.shape
        clips = torch.arange(rows, device=positions.device) // (rows // len(lengths))
        taken, where = positions >= 0, positions.clamp(min=0)
        states = self._read_prefixes(inputs, clips, lengths, positions)
        chosen = clips[:, None], where
        numbers = torch.arange(1, glimpses + 1, device=positions.device)
        kept = self.drop(torch.ones_like(states[:: rows // len(lengths), :1]))[clips]
        logits = self.classifier(states * kept) + dropped[chosen].cumsum(1) / numbers[:, None]
        with torch.no_grad():  # dropout would make it less sure than it is in evaluation
            surest = self.classifier(states) + votes[chosen].cumsum(1) / numbers[:, None]
        after = self._outlook(states, surest, numbers)
        nothing = self._outlook(torch.zeros_like(states[:, :1]), torch.zeros_like(logits[:, :1]), 0)
        before = torch.cat([nothing, after[:, :-1]], dim=1)
        nearest = NearestSeen(lengths[clips], inputs.shape[1], inputs.dtype)
        rates = self._rate(before, waves(nearest.times), nearest.before(positions))
        return Replay(
            taken,
            logits,
            stops=self.stop(after).squeeze(2),
            log_probs=rates.gather(2, where[..., None]).squeeze(2),
            entropies=-(rates.exp() * rates.masked_fill(rates.isinf(), 0.0)).sum(2),
            values=self.value(before).squeeze(2),
        )

    def observe(self, source: FrameSource, selector: ActionSelector | None = None) -> Episode:
        """Observe frames of clips until it stops or all candidates were observed.

        Args:
            source: Where the frames of B clips are; only those selected are asked for.
            selector: Decides; by default the agent takes what it rates highest.

        Returns:
            Episodes of B rows and as many glimpses M as the longest of them took.
        """
        lengths = source.lengths

        def glance(clips: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            frames = source.at(clips, positions).to(self.norm.weight).flatten(1)
            times = (positions.to(frames) + 0.5) / lengths[clips]
            return self._glance(self.norm(frames), times)

        return self._observe(glance, lengths, selector or Greedy(), 1)

    def _observe(
        self, glance: Glance, lengths: Tensor, selector: ActionSelector, episodes: int
    ) -> Episode:
        """Run so many episodes of each clip; rows r·episodes … of the result are clip r."""
        lengths = lengths.repeat_interleave(episodes)
        limit = lengths.clamp(max=self.max_looks)
        rows = torch.arange(len(lengths), device=lengths.device)
        weight = self.classifier.weight
        nearest = NearestSeen(lengths, int(lengths.max()), weight.dtype)
        curves = waves(nearest.times)
        seen = Observation.nothing(len(rows), self.hidden, self.classes, weight)
        outlook = self._outlook(seen.inputs.sum(1), seen.votes, 0)
        recorder = EpisodeRecorder(len(rows))
        for glimpse in range(int(limit.max())):
            rates = self._rate(outlook[:, None], curves[rows], nearest.distance[:, None]).squeeze(1)
            positions = selector.position(rows, glimpse, rates)
            seen = seen.and_also(positions, *glance(rows // episodes, positions))
            nearest.add(positions)
            state = self._read(seen, lengths[rows])
            logits = self.classifier(state) + seen.votes / (glimpse + 1)
            outlook = self._outlook(state, logits, glimpse + 1)
            stop = self.stop(outlook).squeeze(1)
            recorder.add(rows, positions, logits, stop)
            stays = (limit[rows] > glimpse + 1) & ~selector.stop(glimpse + 1, stop)
            if not stays.any():
                break
            if not stays.all():
                rows, outlook, seen = rows[stays], outlook[stays], seen.kept(stays)
                nearest.keep(stays)
        return recorder.episode()

    def _glance(self, frames: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and votes of normalised frames [..., P] at times [...]: see `Glance`."""
        return self.project(frames) + self.place(waves(times)), self.vote(frames)

    def _outlook(self, state: Tensor, logits: Tensor, glimpses: Tensor | int) -> Tensor:
        """The basis of decisions [..., hidden + 3]: the state [..., hidden] and how sure it is."""
        scores = logits.detach().softmax(-1)
        doubt = -(scores * scores.clamp(min=1e-9).log()).sum(-1) / math.log(max(self.classes, 2))
        taken = torch.zeros_like(doubt) + glimpses / self.max_looks
        beliefs = torch.stack([scores.amax(-1), doubt, taken], dim=-1)
        return torch.cat([state.detach(), beliefs.to(state)], dim=-1)

    def _rate(self, outlook: Tensor, curves: Tensor, distance: Tensor) -> Tensor:
        """Log-probabilities of observing each candidate next [n, M, L]; -inf where none is.

        Args:
            outlook: The basis of the decisions [n, M, hidden + 3].
            curves: Waves of the candidates' times [n, L, 2·WAVES].
            distance: Distance of each candidate to the nearest observed frame [n, M, L].
        """
        scores: Tensor = (
            self.query(outlook) @ curves.mT + self.spread * distance.clamp(min=1.0).log()
        )
        some = (distance > 0).any(2, keepdim=True)  # of nothing, all are as probable: no NaN
        return scores.masked_fill((distance <= 0) & some, -torch.inf).log_softmax(2)

    def _read(self, seen: Observation, lengths: Tensor) -> Tensor:
        """The largest state of each unit [n, hidden] over the frames seen, in the order of time."""
        positions, order = seen.positions.sort(1)
        inputs = seen.inputs.gather(1, order[..., None].expand_as(seen.inputs))
        states: Tensor = self.recurrence(inputs + self._gaps(positions, lengths))[0]
        return states.max(1).values

    def _gaps(self, positions: Tensor, lengths: Tensor) -> Tensor:
        """Inputs that tell the GRU how long ago the frame before was [n, ..., t, hidden].

        Args:
            positions: Candidates in the order of time [n, ..., t].
            lengths: Number of candidates of each clip [n].
        """
        steps = positions.diff(dim=-1, prepend=positions[..., :1]).to(self.gap.weight.dtype)
        gaps: Tensor = self.gap(waves(steps / lengths.view(-1, *[1] * (steps.dim() - 1))))
        return gaps

    def _read_prefixes(
        self, inputs: Tensor, clips: Tensor, lengths: Tensor, positions: Tensor
    ) -> Tensor:
        """As `_read`, after each of some glimpses [R, M].

        Args:
            inputs: Inputs to the GRU of all candidates of B clips [B, K, hidden].
            clips: The clip of each row [R].
            lengths: Candidates of each clip [B].
            positions: Observed candidates [R, M], -1 behind a clip's last glimpse.

        Returns:
            Such states [R, M, hidden]; behind a clip's last glimpse that after it.
        """
        glimpses, size = positions.shape[1], inputs.shape[2]
        known = torch.ones(glimpses, glimpses, dtype=torch.bool, device=positions.device).tril()
        known = known & (positions >= 0)[:, None]
        far = inputs.shape[1]  # sorts unseen ones behind all others
        order = positions[:, None].expand_as(known).masked_fill(~known, far).sort(2).values
        indices = clips[:, None, None] * far + order.clamp(max=far - 1)
        sequences = inputs.flatten(0, 1).index_select(0, indices.flatten())
        sequences = sequences.view(*order.shape, size) + self._gaps(order, lengths[clips])
        counts = known.sum(2).flatten()
        packed = pack_padded_sequence(
            sequences.flatten(0, 1), counts.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.recurrence(packed)[0], batch_first=True, padding_value=-torch.inf
        )
        return states.max(1).values.view(*positions.shape, size)
