import pytest
import torch

from vidfuse.heads.layers import read_out

NAN = float("nan")
# Two clips of one and two frames, states of two units; behind their end anything may stand.
STATES = torch.tensor([[[-1.0, -2.0], [NAN, 9.0]], [[1.0, 5.0], [3.0, 4.0]]])
LENGTHS = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("readout", "bidirectional", "expected"),
    [
        ("mean", False, [[-1.0, -2.0], [2.0, 4.5]]),
        ("max", False, [[-1.0, -2.0], [3.0, 5.0]]),
        ("last", False, [[-1.0, -2.0], [3.0, 4.0]]),
        # The second unit was computed from the end, so its last step is the first frame.
        ("last", True, [[-1.0, -2.0], [3.0, 5.0]]),
    ],
)
def test_read_out_by_hand(readout, bidirectional, expected):
    read = read_out(STATES, LENGTHS, readout, bidirectional=bidirectional)
    assert read.tolist() == expected
