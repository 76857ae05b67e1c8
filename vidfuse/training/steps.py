"""The steps of a run that cross-validation takes, too: a new fit, its epochs, its model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, Any

from vidfuse.atomic import append_line
from vidfuse.backbones.imports import resolve_device
from vidfuse.data.clip import Clip
from vidfuse.features.table import FeatureTable
from vidfuse.model import SEEN_DIGITS, Model
from vidfuse.progress import Reporter
from vidfuse.runs import Run
from vidfuse.training.config import TrainConfig
from vidfuse.training.data import TrainingData

if TYPE_CHECKING:
    from torch import Tensor

    from vidfuse.training.fit import Fit

Parts = Mapping[str, Sequence[Clip]]
# A killed run repeats at most this much work, and writing its state stays a small part of it.
SECONDS_BETWEEN_STATES = 1.0
PACKAGES = ("vidfuse", "torch", "av", "numpy")
"""A model file names their versions."""


def new_fit(
    config: TrainConfig,
    table: FeatureTable,
    parts: Parts,
    classes: list[str],
    *,
    after: Fit | None = None,
) -> Fit:
    """Make a new head, and the examples it learns from.

    Args:
        config: All settings.
        table: Features of the clips.
        parts: The clips to train on (``train``, with those mirrored and random views that the table
            has) and those that choose the epoch (``val``).
        classes: Names of the classes.
        after: The fit of which this is the refit; see `Fit`.
    """
    from vidfuse.training.examples import examples_of
    from vidfuse.training.fit import Fit, new_head

    mirrored = [clip for clip in parts["train"] if clip in table.mirrored_rows]
    rows = [table.rows[clip] for clip in parts["train"]]
    rows += [table.mirrored_rows[clip] for clip in mirrored]
    learned = [*parts["train"], *mirrored]
    views = [table.views_of(clip, config.views) for clip in learned] if config.views else None
    train = examples_of(table, rows, labels_of(learned, classes, table), views)
    train.frame_dropout = config.frame_dropout
    rows = [table.rows[clip] for clip in parts["val"]]
    val = examples_of(table, rows, labels_of(parts["val"], classes, table))
    _, channels, side, _ = table.features.shape
    head = new_head(config, channels=channels, grid=side, classes=len(classes))
    device = resolve_device(config.device)
    return Fit(head, train, val, config, device=device, classes=len(classes), after=after)


def labels_of(
    clips: Sequence[Clip], classes: list[str], table: FeatureTable | None = None
) -> Tensor:
    """Class indices ``[N]`` of clips.

    Where a table has those of their frames, ``[N, T]``: -1 behind the end of a clip, and for a
    frame without a class.
    """
    import torch

    numbers = {name: number for number, name in enumerate(classes)}
    if table is None or not table.frame_labels:
        return torch.tensor([numbers[str(clip.label)] for clip in clips], dtype=torch.int64)
    labels = torch.full((len(clips), table.chosen.shape[1]), -1)
    for row, clip in zip(labels, clips, strict=True):
        own = [numbers.get(str(name), -1) for name in table.frame_labels[clip]]
        row[: len(own)] = torch.tensor(own)
    width = max((len(table.frame_labels[clip]) for clip in clips), default=0)
    return labels[:, :width]


def run_epochs(
    fit: Fit,
    run: Run,
    reporter: Reporter,
    task: str,
    mark: Mapping[str, Any] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> None:
    """Train, log every epoch, and keep the state that a resumed run needs.

    Args:
        fit: What to train.
        run: Where epochs are logged and the state is kept.
        reporter: Receives progress updates and collects the time of each stage.
        task: Name of this part of the work.
        mark: What the record of an epoch says besides: the fold, or that it belongs to a refit.
        kept: What the state holds besides that of this fit: the digest of what the head learns
            from, and before a refit the state of the fit that chose. None keeps no state.
    """
    reporter.start(task, fit.config.epochs)
    reporter.advance(fit.epoch)
    saved = time.monotonic()
    state = None
    stage = "refit" if kept and "fit" in kept else "fit"
    try:
        with reporter.measure("training"):
            for epoch in fit:
                line = asdict(epoch) | dict(mark or {})
                append_line(run.metrics, json.dumps(line), run.advice)
                note = f"loss {epoch.train_loss:.3f}"
                if epoch.val_accuracy is not None:
                    note += f"  val accuracy {epoch.val_accuracy:.3f}"
                reporter.advance(note=note)
                if kept is None:
                    continue
                # Ctrl-C comes in the middle of an epoch, whose weights are of no use.
                state = {**kept, stage: fit.state_dict()}
                if time.monotonic() - saved > SECONDS_BETWEEN_STATES:
                    run.save_state(state)
                    saved = time.monotonic()
    except KeyboardInterrupt:
        if state is not None:
            run.save_state(state)
        raise
    finally:
        reporter.finish()
    if fit.first_step_seconds is not None:
        reporter.note("first_step", fit.first_step_seconds)


def save_model(
    fit: Fit,
    run: Run,
    data: TrainingData,
    parts: Parts,
    classes: list[str],
    protocol: str,
    **more: Any,
) -> None:
    """Write the model of the best weights so far, and let ``runs/latest`` name the run.

    Args:
        fit: The trained head.
        run: Where the model goes.
        data: The dataset and its features.
        parts: The clips that were trained on, and that chose the epoch.
        classes: Names of the classes.
        protocol: How the parts came about.
        **more: What else the file says about its training.
    """
    from vidfuse.backbones.load import read_weights

    fit.take_best()
    spec, choice = data.extractor.spec, data.choice
    # Weights of the user's own are nowhere else, so the file must carry them.
    own = None if choice.published or choice.weights is None else read_weights(choice.weights)
    seen = {part: {data.hashes[clip] for clip in clips} for part, clips in parts.items()}
    # What cannot be read is no clip to test on, either.
    seen["train"] |= {data.hashes[clip] for clip in data.unreadable if clip in data.hashes}
    model = Model(
        head_name=fit.head.name,
        selects_frames=fit.head.selects_frames and spec.window == 1,
        head=fit.head.cpu(),
        classes=classes,
        spec=replace(spec, frames=fit.config.frames),
        cached=spec,
        sampling=str(fit.config.rule),
        choice=choice,
        backbone_weights=own,
        metadata={
            "dataset": data.data.name,
            "clip_seconds": round(data.clip_seconds, 3),
            "segment_seconds": round(data.segment_seconds, 3),
            "split": data.config.split,
            "protocol": protocol,
            "seed": data.config.seed,
            "config": data.config.to_dict(),
            "versions": {"python": python_version(), **{name: version(name) for name in PACKAGES}},
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **more,
        },
        seen={part: sorted({h[:SEEN_DIGITS] for h in hashes}) for part, hashes in seen.items()},
    )
    model.save(run.model, run.advice)
    run.set_latest()
