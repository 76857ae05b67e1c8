"""Recurrent cells: building layers of them, and running these over clips of unequal length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Cell = Literal["rnn", "gru", "lstm"]
"""A kind of cell; `vidfuse.fusion.recurrent` has the equations of each."""


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
