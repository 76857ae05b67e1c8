"""Predicting the class of clips, one record per input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.inference.predictor import Ensemble
from vidfuse.results import ClassScore, Record

END = object()  # behind the last input
AT_ONCE = 64  # inputs at most whose records are held back until all of them are known


def predict_records(
    ensemble: Ensemble,
    inputs: Iterable[Path | InputError | None],
    top: int,
    *,
    owner: int | None = None,
) -> Iterator[Record]:
    """Predict clips.

    Args:
        ensemble: The model; it is closed when no more records are wanted.
        inputs: Video files; an ``InputError`` stands for an input that could not be found. None
            says that the next one is not there yet: those before it are answered first.
        top: How many classes each record lists.
        owner: The process that may read the records; None is the one that reads the first.

    Yields:
        A record for each input, in order.

    Raises:
        UserError: The process was forked from the one that has the threads which predict.
    """
    owner = owner or os.getpid()
    try:
        part: list[Path | InputError] = []
        for item in chain(inputs, [END]):
            if isinstance(item, (Path, InputError)):
                part.append(item)
            elif item is None and not part:
                ensemble.prepare()
            if part and (item in (None, END) or len(part) == AT_ONCE):
                _expect_process(owner)
                for record in predict_part(ensemble, part, top):
                    yield record
                    _expect_process(owner)
                part = []
    finally:
        if os.getpid() == owner:
            ensemble.close()


def _expect_process(owner: int) -> None:
    if os.getpid() != owner:
        raise UserError(
            "these records were begun in another process, of which this one was forked",
            "Call vidfuse.predict again in the forked process.",
        )


def predict_part(ensemble: Ensemble, part: Sequence[Path | InputError], top: int) -> list[Record]:
    """A record for each of a few inputs, which are predicted together; see `predict_records`."""
    clips = [Clip(item) for item in part if isinstance(item, Path)]
    predictions = iter(ensemble.predict(clips))
    records = []
    for item in part:
        prediction = item if isinstance(item, InputError) else next(predictions)
        if isinstance(prediction, InputError):
            path = item.path if isinstance(item, InputError) else str(item)
            record = Record(
                path=path, ok=False, label=None, score=None, top=[], warnings=[],
                error=prediction.reason, glimpses=[] if ensemble.selects_frames else None,
            )  # fmt: skip
        else:
            order = np.argsort(-prediction.scores, kind="stable")[:top]
            ranked = [
                ClassScore(label=ensemble.classes[i], score=round(float(prediction.scores[i]), 6))
                for i in order
            ]
            record = Record(
                path=str(item),
                ok=True,
                label=ranked[0].label,
                score=ranked[0].score,
                top=ranked,
                warnings=prediction.warnings,
                error=None,
            )
            if prediction.glimpses is not None:
                record = replace(
                    record,
                    glimpses=[round(time, 6) for time in prediction.glimpses.times],
                    frames_encoded=prediction.glimpses.encoded,
                    frames_decoded=prediction.glimpses.decoded,
                )
        records.append(record)
    return records
