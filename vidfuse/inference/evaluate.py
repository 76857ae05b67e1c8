"""Measuring a model on a labelled dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.layouts import read_dataset
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import one_line, print_warnings
from vidfuse.inference.predictor import Ensemble, Prediction
from vidfuse.metrics import summary
from vidfuse.progress import Reporter
from vidfuse.results import Evaluation

UNSEEN = "clips that the model has not seen"
OWN_SPLITS = ("group", "random", "folds")  # that may have put test clips into training


def evaluate_dataset(
    ensemble: Ensemble,
    dataset: Path | str,
    *,
    subset: str = "auto",
    split: str | None = None,
    layout: str | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measure a model.

    Args:
        ensemble: The model, ready for use.
        dataset: A dataset's folder or manifest.
        subset: ``auto`` (the dataset's test clips; where it declares none, those that the model
            has not seen), ``all``, ``train``, ``val`` or ``test``.
        split: Number of the official split; None is the one that the model was trained on.
        layout: Name of the dataset's layout; None finds out.
        reporter: Receives progress updates and collects the time of each stage.

    Returns:
        The metrics; see ``results.Evaluation``.

    Raises:
        UserError: There is nothing to measure on.
    """
    reporter = reporter or Reporter()
    classes = ensemble.classes
    metadata = ensemble.models[0].metadata
    with ensemble.reporter.measure("scan"):
        data = read_dataset(Path(dataset), layout=layout, split=split)
        trained_on = str(metadata.get("split"))
        if split is None and data.split_number is not None and trained_on.isdecimal():
            data = read_dataset(Path(dataset), layout=layout, split=trained_on)
    clips, name, warnings = _choose(data, subset, ensemble)
    all_seen = name == UNSEEN and not clips
    for line in warnings:
        reporter.warn(line)
    unknown = sorted({str(c.label) for c in clips} - set(classes))
    if unknown:
        left_out = sum(clip.label in unknown for clip in clips)
        warnings.append(
            f"{left_out} clips of classes that the model does not know were left out: "
            + ", ".join(unknown[:10])
        )
        reporter.warn(warnings[-1])
        clips = [clip for clip in clips if clip.label in classes]
    reporter.info(f"{len(clips)} clips: {name}")
    results = dict(zip(clips, ensemble.predict(clips), strict=True)) if clips else {}
    for result in results.values():
        if isinstance(result, InputError):
            reporter.warn(one_line(result))
    answered = [(c, r) for c, r in results.items() if not isinstance(r, InputError)]
    print_warnings([(clip, answer.warnings) for clip, answer in answered], reporter)
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
    known = sum(ensemble.in_training(ensemble.hashes[clip]) for clip, _ in scored)
    if known and subset != "train":
        warnings.append(f"{known} of these clips were used in training or validation")
        reporter.warn(warnings[-1])
    failures = [(c, r) for c, r in results.items() if isinstance(r, InputError)]
    return Evaluation.from_dict(
        {
            **summary(labels, scores, classes, [clip.group for clip, _ in scored]),
            "frames": _frames([answer for _, answer in answered], ensemble),
            "classes": classes,
            "split": name,
            "protocol": metadata.get("protocol"),
            "clips": len(scored),
            "in_training": known,
            "failed": len(failures),
            "failures": [{"path": clip.name, "error": e.reason} for clip, e in failures],
            "warnings": warnings,
            "model": ", ".join(str(model.path) for model in ensemble.models),
            "dataset": data.name,
            "timings": ensemble.reporter.timings(),
        }
    )


def _frames(answers: list[Prediction], ensemble: Ensemble) -> dict[str, float] | None:
    """Frames that the answers took, of models that select them; means over clips."""
    glimpses = [answer.glimpses for answer in answers if answer.glimpses is not None]
    if not glimpses:
        return None
    return {
        "candidates": sum(m.spec.frames for m in ensemble.models if m.selects_frames),
        "glimpses": float(np.mean([len(each.times) for each in glimpses])),
        "encoded": float(np.mean([each.encoded for each in glimpses])),
        "decoded": float(np.mean([each.decoded for each in glimpses])),
    }


def _choose(data: Dataset, subset: str, ensemble: Ensemble) -> tuple[list[Clip], str, list[str]]:
    """The clips to measure on, what they are called, and warnings."""
    labelled = [clip for clip in data.clips if clip.label is not None]
    if subset == "all":
        return labelled, "all clips", []
    declared = {clip.split for clip in labelled} - {None}
    # A model trained on a split of its own may have seen clips of the dataset's test part; and
    # where a dataset declares one part only, so does training with `--split auto`.
    own = any(model.metadata.get("split") in OWN_SPLITS for model in ensemble.models)
    if own or (subset == "auto" and len(declared) < 2):
        declared = set()
    part = "test" if subset == "auto" else subset
    if part in declared:
        clips = [clip for clip in labelled if clip.split == part]
        return clips, f"{part} ({data.split_source})", []
    # Without a declared split, content tells what the model was trained and chosen on.
    contents = ensemble.index.contents(clip.path for clip in labelled)
    known = {name for model in ensemble.models for name, seen in model.seen.items() if seen}
    if part == "val" and "train" in known and "val" not in known:
        raise UserError(
            "the model has no validation clips: it learned from them, too",
            "Measure on other clips, or train with --no-refit.",
        )

    def part_of(clip: Clip) -> str:
        content = contents[clip.path]
        digest = "" if isinstance(content, InputError) else content.digest
        parts = {model.part_of(digest) for model in ensemble.models}
        return next((name for name in ("train", "val") if name in parts), "test")

    clips = [clip for clip in labelled if part_of(clip) == part]
    if part == "test":
        return clips, UNSEEN, []
    return clips, f"{part} clips of the model", []
