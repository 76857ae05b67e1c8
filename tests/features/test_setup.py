"""Choosing the device, and saying what is wrong with another."""

from __future__ import annotations

import warnings

import pytest
import torch
from heard import Heard

from vidfuse.backbones.imports import resolve_device
from vidfuse.errors import InputError
from vidfuse.features.build import one_line


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here works")
def test_a_gpu_that_does_not_work_is_told_as_a_warning_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    heard = Heard()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python's own would pass by --quiet
        assert resolve_device("auto", heard) == "cpu"
    (line,) = heard.warnings
    assert line.startswith("device 'cuda' cannot be used here (")
    assert line.endswith(": computing on the CPU")


def test_an_error_among_warnings_is_one_line() -> None:
    assert one_line(InputError("a.mp4", "bad", "Do this.\nOr that.")) == (
        "a.mp4: bad. Do this. Or that."
    )
