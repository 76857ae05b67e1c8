"""Heads that read a sequence of maps and keep a map as their state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidfuse.heads.base import Head, check_sizes, frame_vectors, masked_mean
from vidfuse.heads.layers import Readout, read_out


class ConvLSTMLayer(nn.Module):
    """One layer of a convolutional LSTM with peepholes, equation 3 of Shi et al. (2015).

    With input X_t [in, g, g], hidden state H_t and cell C_t [hidden, g, g], ``*`` a convolution
    that keeps the map's size (zeros beyond its edge) and ∘ the elementwise product::

        i_t = σ(W_xi * X_t + W_hi * H_{t-1} + W_ci ∘ C_{t-1} + b_i)
        f_t = σ(W_xf * X_t + W_hf * H_{t-1} + W_cf ∘ C_{t-1} + b_f)
        C_t = f_t ∘ C_{t-1} + i_t ∘ tanh(W_xc * X_t + W_hc * H_{t-1} + b_c)
        o_t = σ(W_xo * X_t + W_ho * H_{t-1} + W_co ∘ C_t + b_o)
        H_t = o_t ∘ tanh(C_t),  H_0 = C_0 = 0

    As in the paper a peephole has a weight of its own for each channel *and position*, W_c·
    [hidden, g, g], so a layer is built for one grid. Peepholes start at 0, and the forget gates'
    bias at 1, so that a new layer remembers (Jozefowicz et al., 2015, section 2.2).

    Cost: 4·k²·g²·(in + hidden)·hidden MACs a frame. Those of the input need no state and are
    made for all frames at once; only those of the state wait for the frame before.

    Args:
        inputs: Channels of the input.
        hidden: Channels of the states.
        kernel: Side k of both convolutions, odd.
        grid: Side g of the maps.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int, grid: int) -> None:
        super().__init__()
        # Output channels of both: the gates i, f, the candidate for C, and o, `hidden` of each.
        self.from_input = nn.Conv2d(inputs, 4 * hidden, kernel, padding=kernel // 2)
        self.from_state = nn.Conv2d(hidden, 4 * hidden, kernel, padding=kernel // 2, bias=False)
        self.peephole_i = nn.Parameter(torch.zeros(hidden, grid, grid))
        self.peephole_f = nn.Parameter(torch.zeros(hidden, grid, grid))
        self.peephole_o = nn.Parameter(torch.zeros(hidden, grid, grid))
        assert self.from_input.bias is not None
        with torch.no_grad():
            self.from_input.bias[hidden : 2 * hidden] = 1.0

    def forward(self, sequence: Tensor) -> Tensor:
        """Hidden states [B, T, hidden, g, g] of a sequence [B, T, in, g, g]."""
        batch, frames = sequence.shape[:2]
        driven = self.from_input(sequence.flatten(0, 1)).unflatten(0, (batch, frames))
        # In the parameters' type: under autocast the convolutions are coarser, but a cell that
        # adds up over many frames must not be.
        hidden = cell = self.peephole_i.new_zeros(batch, *self.peephole_i.shape)
        states = []
        for at_frame in driven.unbind(1):
            i, f, candidate, o = (at_frame + self.from_state(hidden)).chunk(4, dim=1)
            i = torch.sigmoid(i + self.peephole_i * cell)
            f = torch.sigmoid(f + self.peephole_f * cell)
            cell = f * cell + i * torch.tanh(candidate)
            o = torch.sigmoid(o + self.peephole_o * cell)
            hidden = o * torch.tanh(cell)
            states.append(hidden)
        return torch.stack(states, dim=1)


class ConvGRULayer(nn.Module):
    """One layer of convolutional gated recurrent units, equations 7 to 10 of Ballas et al. (2016).

    With input X_t [in, g, g], state H_t [hidden, g, g], ``*`` a convolution that keeps the map's
    size (zeros beyond its edge) and ∘ the elementwise product::

        Z_t = σ(W_z * X_t + U_z * H_{t-1} + b_z)
        R_t = σ(W_r * X_t + U_r * H_{t-1} + b_r)
        N_t = tanh(W_n * X_t + U_n * (R_t ∘ H_{t-1}) + b_n)
        H_t = (1 - Z_t) ∘ H_{t-1} + Z_t ∘ N_t,  H_0 = 0

    The bias of the update gate Z starts at -1, so that a new layer remembers, as that of the
    forget gates of `ConvLSTMLayer` at 1.

    Cost: 3·k²·g²·(in + hidden)·hidden MACs a frame, three quarters of the LSTM's.

    Args:
        inputs: Channels of the input.
        hidden: Channels of the states.
        kernel: Side k of all convolutions, odd.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.hidden = hidden
        # Output channels: the gates z, r, and the candidate n, `hidden` of each.
        self.from_input = nn.Conv2d(inputs, 3 * hidden, kernel, padding=kernel // 2)
        self.gates = nn.Conv2d(hidden, 2 * hidden, kernel, padding=kernel // 2, bias=False)
        self.candidate = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, bias=False)
        assert self.from_input.bias is not None
        with torch.no_grad():
            self.from_input.bias[:hidden] = -1.0

    def forward(self, sequence: Tensor) -> Tensor:
        """States [B, T, hidden, g, g] of a sequence [B, T, in, g, g]."""
        batch, frames, _, *map_size = sequence.shape
        driven = self.from_input(sequence.flatten(0, 1)).unflatten(0, (batch, frames))
        # In the parameters' type, as in ConvLSTMLayer.
        state = self.candidate.weight.new_zeros(batch, self.hidden, *map_size)
        states = []
        for at_frame in driven.unbind(1):
            gates, candidate = at_frame.split([2 * self.hidden, self.hidden], dim=1)
            z, r = torch.sigmoid(gates + self.gates(state)).chunk(2, dim=1)
            n = torch.tanh(candidate + self.candidate(r * state))
            state = (1 - z) * state + z * n
            states.append(state)
        return torch.stack(states, dim=1)


class _ConvRecurrent(Head):
    """Recurrent cells at every position of the map that see their neighbours.

    Maps → normalisation of each frame → 1×1 convolution → recurrent layers → read-out over time →
    mean over positions, and beside it, straight to the classifier, the mean of all frames and
    positions. A cell that lights up next to where one was lit before is motion, and the same
    motion wherever it happens; averages and global vectors have lost it.

    With zero weights for the states the classifier is that of the `mean` head on grid 1, so the
    recurrence only has to learn what averaging misses.

    Shapes: features [B, T, D, g, g] → [B, T, width, g, g] → states [B, T, hidden, g, g] → read-out
    [B, hidden, g, g] → [B, hidden], beside the mean [B, D] → logits [B, C].

    Cost: D·width·g² MACs a frame for the 1×1 convolution, and those of the layers.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid.
        classes: Number of classes C.
        width: Channels that the 1×1 convolution leaves.
        hidden: Channels of each layer's states.
        layers: Recurrent layers, one upon the other.
        kernel: Side of each layer's convolutions, odd: one number for all layers, or one for each,
            such as `3,5`.
        readout: What is read from the last layer's states over time, at each position: their
            `mean`, the `last` one, or the `max`.
        dropout: Share dropped in training before the classifier and between layers, 0..1.
    """

    grid = 4
    order_aware = True
    reversal_aware = True

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        width: int = 64,
        hidden: int = 64,
        layers: int = 1,
        kernel: int | str = 3,
        readout: Readout = "mean",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(width=width, hidden=hidden, layers=layers)
        self.width = width
        self.hidden = hidden
        self.layers = layers
        self.kernel = kernel
        self.readout = readout
        self.dropout = dropout
        # One group: a frame's own mean and deviation, as LayerNorm takes them, but a scale for
        # each channel instead of each element, so that what is seen does not depend on where.
        self.norm = nn.GroupNorm(1, channels)
        self.reduce = nn.Conv2d(channels, width, 1)
        inputs = [width] + [hidden] * (layers - 1)
        self.recurrence = nn.ModuleList(
            self.new_layer(size, side, grid)
            for size, side in zip(inputs, kernel_sizes(kernel, layers), strict=True)
        )
        self.drop = nn.Dropout(dropout)
        self.mean_norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(hidden + channels, classes)

    def new_layer(self, inputs: int, kernel: int, grid: int) -> nn.Module:
        """A layer: sequences [B, T, inputs, g, g] → states [B, T, hidden, g, g]."""
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        frames = frame_vectors(features, lengths).view_as(features)
        read = read_out(self.states(frames).flatten(2), lengths, self.readout)
        pooled = read.unflatten(1, (self.hidden, -1)).mean(2)
        mean = self.mean_norm(masked_mean(frames.mean((3, 4)), lengths))
        logits: Tensor = self.classifier(self.drop(torch.cat([pooled, mean], dim=1)))
        return logits

    def states(self, frames: Tensor) -> Tensor:
        """States of the last layer [B, T, hidden, g, g]; those of padding mean nothing.

        Padding comes after every frame that counts, and the recurrence looks only backwards.
        """
        sequence: Tensor = self.reduce(self.norm(frames.flatten(0, 1)))
        sequence = sequence.unflatten(0, frames.shape[:2])
        for number, layer in enumerate(self.recurrence):
            sequence = layer(self.drop(sequence) if number else sequence)
        return sequence


class ConvLSTM(_ConvRecurrent):
    """Convolutional LSTM: `ConvLSTMLayer` at every position of the map.

    By default, with D = 512, 5 million MACs a frame.
    """

    name = "convlstm"
    paper = (
        "Shi et al., Convolutional LSTM Network: A Machine Learning Approach for Precipitation "
        "Nowcasting, NeurIPS 2015"
    )

    def new_layer(self, inputs: int, kernel: int, grid: int) -> nn.Module:
        """A `ConvLSTMLayer`."""
        return ConvLSTMLayer(inputs, self.hidden, kernel, grid)


class ConvGRU(_ConvRecurrent):
    """Convolutional gated recurrent units: `ConvGRULayer` at every position of the map.

    No peepholes, so nothing but the edge of the map tells one position from another, and a layer
    can be used on any grid. By default, with D = 512, 4 million MACs a frame.
    """

    name = "convgru"
    paper = (
        "Ballas et al., Delving Deeper into Convolutional Networks for Learning Video "
        "Representations, ICLR 2016"
    )

    def new_layer(self, inputs: int, kernel: int, grid: int) -> nn.Module:  # noqa: ARG002
        """A `ConvGRULayer`."""
        return ConvGRULayer(inputs, self.hidden, kernel)


def kernel_sizes(kernel: int | str, layers: int) -> list[int]:
    """The side of each layer's kernel, from one number for all or a list such as `3,5`.

    Raises:
        ValueError: They are not odd numbers, or not one for each layer.
    """
    parts = str(kernel).split(",")
    if not all(part.strip().isdecimal() and int(part) % 2 for part in parts):
        raise ValueError(f"kernel must be an odd number, or several such as 3,5, not {kernel}")
    sides = [int(part) for part in parts]
    if len(sides) == 1:
        return sides * layers
    if len(sides) != layers:
        raise ValueError(f"kernel={kernel} names {len(sides)} layers, but there are {layers}")
    return sides
