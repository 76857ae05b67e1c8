"""Predicting the class of clips, one record per input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.evaluation.inference import Inference

AT_ONCE = 64  # inputs whose records are held back until all of them are known

Record = dict[str, Any]


def predict_records(
    inference: Inference, inputs: Iterable[Path | InputError], top: int
) -> Iterator[Record]:
    """Predict clips.

    Args:
        inference: The model, ready for use.
        inputs: Video files; an ``InputError`` stands for an input that could not be found.
        top: How many classes each record lists.

    Yields:
        For each input, in order: ``path``, ``ok``, ``label``, ``score``, ``top``, ``warnings``
        and ``error``.
    """
    source = iter(inputs)
    while chunk := list(islice(source, AT_ONCE)):
        clips = [Clip(item) for item in chunk if isinstance(item, Path)]
        answers = inference.run(clips) if clips else iter(())
        for item in chunk:
            if isinstance(item, InputError):
                yield failed(item.path, item)
                continue
            clip, answer = next(answers)
            if isinstance(answer, InputError):
                yield failed(str(clip.path), answer)
            else:
                yield _record(clip, answer[0], answer[1], inference.classes, top)


def failed(path: str, error: InputError) -> Record:
    """The record of an input that could not be used."""
    return {
        "path": path,
        "ok": False,
        "label": None,
        "score": None,
        "top": [],
        "warnings": [],
        "error": error.reason,
    }


def _record(
    clip: Clip, scores: np.ndarray[Any, Any], warnings: list[str], classes: list[str], top: int
) -> Record:
    order = np.argsort(-scores, kind="stable")[:top]
    ranked = [{"label": classes[i], "score": round(float(scores[i]), 6)} for i in order]
    return {
        "path": str(clip.path),
        "ok": True,
        **ranked[0],
        "top": ranked,
        "warnings": warnings,
        "error": None,
    }
