"""Predicting the class of clips, one record per input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.evaluation.inference import Inference
from vidfuse.evaluation.member import Answer
from vidfuse.features.looks import Looks

AT_ONCE = 64  # inputs at most whose records are held back until all of them are known

Record = dict[str, Any]


def predict_records(
    inference: Inference, inputs: Iterable[Path | InputError | None], top: int
) -> Iterator[Record]:
    """Predict clips.

    Args:
        inference: The model; it is closed when no more records are wanted.
        inputs: Video files; an ``InputError`` stands for an input that could not be found. None
            says that the next one is not there yet: those before it are answered first.
        top: How many classes each record lists.

    Yields:
        For each input, in order: ``path``, ``ok``, ``label``, ``score``, ``top``, ``warnings``
        and ``error``; of a model that chooses its frames also ``looks``, ``frames_encoded`` and
        ``pictures_decoded``.
    """
    with closing(inference):
        for part in _parts(inputs):
            if not part:
                inference.prepare()
            clips = [Clip(item) for item in part if isinstance(item, Path)]
            answers = inference.run(clips) if clips else iter(())
            for item in part:
                if isinstance(item, InputError):
                    record, looks = failed(item.path, item), None
                else:
                    clip, answer = next(answers)
                    record, looks = _record(clip, answer, inference.classes, top)
                yield record | (_seen(looks) if inference.chooses_frames else {})
            inference.forget()


def _parts(inputs: Iterable[Path | InputError | None]) -> Iterator[list[Path | InputError]]:
    """Inputs to be answered together; an empty part where there is nothing to do for now."""
    part: list[Path | InputError] = []
    for item in inputs:
        if item is not None:
            part.append(item)
        if item is None or len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part


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
    clip: Clip, answer: Answer | InputError, classes: list[str], top: int
) -> tuple[Record, Looks | None]:
    """The record of a clip, and what was seen of it."""
    if isinstance(answer, InputError):
        return failed(str(clip.path), answer), None
    order = np.argsort(-answer.scores, kind="stable")[:top]
    ranked = [{"label": classes[i], "score": round(float(answer.scores[i]), 6)} for i in order]
    record = {
        "path": str(clip.path),
        "ok": True,
        **ranked[0],
        "top": ranked,
        "warnings": answer.warnings,
        "error": None,
    }
    return record, answer.looks


def _seen(looks: Looks | None) -> Record:
    """What a record says of the frames that were looked at; nothing is known of a failure."""
    return {
        "looks": [] if looks is None else [round(time, 6) for time in looks.times],
        "frames_encoded": None if looks is None else looks.encoded,
        "pictures_decoded": None if looks is None else looks.decoded,
    }
