"""Layers that several heads share: recurrences, read-outs and positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidfuse.heads.base import mask, masked_mean

Cell = Literal["rnn", "gru", "lstm"]
"""A kind of cell; `vidfuse.heads.recurrent` has the equations of each."""
Readout = Literal["mean", "last", "max"]
"""The read-out of the states: their mean, the last one, or the maximum of each unit."""


def new_recurrence(
    cell: Cell,
    inputs: int,
    hidden: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
) -> nn.RNNBase:
    """Recurrent layers, [B, T, inputs] → [B, T, hidden·directions], LSTMs with open forget gates.

    Forget gates start half open by default, which halves what a state remembers at each frame.
    Their bias starts at 1 instead (Gers et al., 2000; Jozefowicz et al., 2015, section 2.2).
    """
    kinds: dict[Cell, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    recurrence = kinds[cell](
        inputs,
        hidden,
        num_layers=layers,
        bidirectional=bidirectional,
        # With one layer there is nothing in between, and torch would warn.
        dropout=dropout if layers > 1 else 0.0,
        batch_first=True,
    )
    if cell == "lstm":
        open_forget_gates(recurrence)
    return recurrence


def open_forget_gates(recurrence: nn.Module) -> None:
    """Set the bias of an LSTM's forget gates to 1: torch adds two biases, so one of them to 0."""
    with torch.no_grad():
        for name, parameter in recurrence.named_parameters():
            if name.startswith("bias"):
                # Stacked: input, forget, candidate, output.
                parameter.chunk(4)[1].fill_(1.0 if name.startswith("bias_ih") else 0.0)


def run(recurrence: nn.RNNBase, sequence: Tensor, lengths: Tensor) -> Tensor:
    """States of the last layer [B, T, hidden·directions]; those of padding mean nothing."""
    # Reading forwards, padding comes after every state that counts. Reading backwards it comes
    # before, and must be packed away.
    if not recurrence.bidirectional or bool((lengths == sequence.shape[1]).all()):
        states: Tensor = recurrence(sequence)[0]
        return states
    packed = pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(
        recurrence(packed)[0], batch_first=True, total_length=sequence.shape[1]
    )
    return states


def read_out(
    states: Tensor, lengths: Tensor, readout: Readout, *, bidirectional: bool = False
) -> Tensor:
    """One vector [B, S] from the states [B, T, S] of each clip, whatever its padding holds.

    Args:
        states: States [B, T, S]. Those of a bidirectional recurrence hold the forward state in
            the first half of S and the backward one in the second.
        lengths: How many of the T steps are real [B].
        readout: What is read.
        bidirectional: Whether the second half of S was computed from the end. Its last step is
            then the first frame: the state that has seen the whole clip.
    """
    if readout == "mean":
        return masked_mean(states, lengths)
    if readout == "max":
        padding = ~mask(lengths, states.shape[1])[..., None]
        return states.masked_fill(padding, -torch.inf).amax(1)
    last = states[torch.arange(len(states), device=states.device), lengths - 1]
    if not bidirectional:
        return last
    half = states.shape[2] // 2
    return torch.cat([last[:, :half], states[:, 0, half:]], dim=1)


class PositionEmbedding(nn.Module):
    """A learned vector for every place between the beginning of a clip and its end.

    A frame's place is t/(L-1), from 0 for the first of L frames to 1 for the last (0 if it is the
    only one). Vectors are learned for evenly spaced places and in between mixed from the two
    neighbours. So a model takes clips of any number of frames, and a place means the same share of
    the action in all of them.

    Args:
        size: Length of a vector.
        places: How many are learned.
    """

    def __init__(self, size: int, places: int = 16) -> None:
        super().__init__()
        # As large as a projected frame, whose units start with a variance of about 1/3: smaller
        # positions are learned too late to tell directions in few clips.
        self.table = nn.Parameter(torch.randn(places, size) * 0.5)

    def forward(self, lengths: Tensor, frames: int) -> Tensor:
        """Vectors [B, T, size] for clips of lengths [B], padded to T frames; 0 for padding."""
        real = mask(lengths, frames)
        last = (lengths - 1).clamp(min=1)[:, None]
        place = torch.arange(frames, device=lengths.device) / last.to(self.table.dtype)
        place = place.clamp(max=1.0) * (len(self.table) - 1)
        before = place.long().clamp(max=len(self.table) - 2)
        share = (place - before)[..., None]
        mixed = torch.lerp(self.table[before], self.table[before + 1], share)
        return mixed.masked_fill(~real[..., None], 0.0)
