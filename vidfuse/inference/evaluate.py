"""Measuring a model on a labelled dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.layouts import read_dataset
from vidfuse.errors import InputError, UserError
from vidfuse.evaluation.inference import Inference
from vidfuse.evaluation.member import Answer
from vidfuse.features.setup import failure_records, one_line, tell_warnings
from vidfuse.metrics import summary
from vidfuse.model import SEEN_DIGITS
from vidfuse.progress import Progress

UNSEEN = "clips that the model has not seen"
OWN_SPLITS = ("group", "random", "folds")  # that may have put test clips into training


def evaluate_dataset(
    inference: Inference,
    dataset: Path | str,
    *,
    subset: str = "auto",
    split: str | None = None,
    layout: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        inference: The model, ready for use.
        dataset: A dataset's folder or manifest.
        subset: ``auto`` (the dataset's test clips; where it declares none, those that the model
            has not seen), ``all``, ``train``, ``val`` or ``test``.
        split: Number of the official split; None is the one that the model was trained on.
        layout: Name of the dataset's layout; None finds out.
        progress: Hears of progress.

    Returns:
        Metrics ready for JSON; see ``metrics.summary``.

    Raises:
        UserError: There is nothing to measure on.
    """
    progress = progress or Progress()
    classes = inference.classes
    facts = inference.models[0].facts
    with inference.timings.measure("scan"):
        data = read_dataset(Path(dataset), layout=layout, split=split)
        trained_on = str(facts.get("split"))
        if split is None and data.split_number is not None and trained_on.isdecimal():
            data = read_dataset(Path(dataset), layout=layout, split=trained_on)
    clips, name, warnings = _choose(data, subset, inference)
    all_seen = name == UNSEEN and not clips
    for line in warnings:
        progress.warn(line)
    unknown = sorted({str(c.label) for c in clips} - set(classes))
    if unknown:
        left_out = sum(clip.label in unknown for clip in clips)
        warnings.append(
            f"{left_out} clips of classes that the model does not know were left out: "
            + ", ".join(unknown[:10])
        )
        progress.warn(warnings[-1])
        clips = [clip for clip in clips if clip.label in classes]
    progress.info(f"{len(clips)} clips: {name}")
    results = dict(inference.run(clips)) if clips else {}
    for result in results.values():
        if isinstance(result, InputError):
            progress.warn(one_line(result))
    answered = [(c, r) for c, r in results.items() if not isinstance(r, InputError)]
    tell_warnings([(clip, answer.warnings) for clip, answer in answered], progress)
    scored = [(clip, answer.scores) for clip, answer in answered]
    if not scored:
        seen_all = "; all were used in training or validation" if all_seen else ""
        raise UserError(
            f"{data.root}: no clip to measure on ({name}){seen_all}",
            "Choose others with --subset, or look at the data with: vidfuse inspect "
            + str(data.root),
        )
    labels = np.array([classes.index(str(clip.label)) for clip, _ in scored])
    scores = np.stack([row for _, row in scored])
    seen = sum(inference.saw(inference.hashes[clip]) for clip, _ in scored)
    if seen and subset in ("auto", "test", "all"):
        warnings.append(f"{seen} of these clips were used in training or validation")
        progress.warn(warnings[-1])
    failures = [(c, r) for c, r in results.items() if isinstance(r, InputError)]
    return {
        **summary(labels, scores, classes, [clip.group for clip, _ in scored]),
        **_frames([answer for _, answer in answered], inference),
        "classes": classes,
        "split": name,
        "protocol": facts.get("protocol"),
        "clips": len(scored),
        "seen": seen,
        "failed": len(failures),
        "failures": failure_records(failures),
        "warnings": warnings,
        "model": ", ".join(str(model.path) for model in inference.models),
        "dataset": data.name,
        "timings": inference.timings.to_dict(),
    }


def _frames(answers: list[Answer], inference: Inference) -> dict[str, Any]:
    """How many frames the answers took, of models that choose them; means over clips."""
    seen = [answer.looks for answer in answers if answer.looks is not None]
    if not seen:
        return {}
    choosing = [model for model in inference.models if model.chooses_frames]
    return {
        "frames": {
            "candidates": sum(model.spec.frames for model in choosing),
            "looked_at": float(np.mean([len(looks.times) for looks in seen])),
            "encoded": float(np.mean([looks.encoded for looks in seen])),
            "decoded": float(np.mean([looks.decoded for looks in seen])),
        }
    }


def _choose(data: Dataset, subset: str, inference: Inference) -> tuple[list[Clip], str, list[str]]:
    """The clips to measure on, what they are called, and warnings."""
    labelled = [clip for clip in data.clips if clip.label is not None]
    if subset == "all":
        return labelled, "all clips", []
    declared = {clip.split for clip in labelled} - {None}
    # A model trained on a split of its own may have seen clips of the dataset's test part; and
    # where a dataset declares one part only, so does training with `--split auto`.
    own = any(model.facts.get("split") in OWN_SPLITS for model in inference.models)
    if own or (subset == "auto" and len(declared) < 2):
        declared = set()
    part = "test" if subset == "auto" else subset
    if part in declared:
        clips = [clip for clip in labelled if clip.split == part]
        return clips, f"{part} ({data.split_source})", []
    # Without a declared split, content tells what the model was trained and chosen on.
    hashes = dict(inference.index.hashes(dict.fromkeys(clip.path for clip in labelled)))
    known = {
        name: {digest for model in inference.models for digest in model.seen.get(name, ())}
        for name in ("train", "val")
    }

    def part_of(clip: Clip) -> str:
        digest = hashes[clip.path]
        short = digest[:SEEN_DIGITS] if isinstance(digest, str) else ""
        return next((name for name, digests in known.items() if short in digests), "test")

    clips = [clip for clip in labelled if part_of(clip) == part]
    if part == "test":
        return clips, UNSEEN, []
    return clips, f"{part} clips of the model", []
