"""One training run: dataset → split → features → head → run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import Split, duplicates_across, make_split
from vidfuse.errors import UserError
from vidfuse.features.extract import Tally
from vidfuse.features.setup import Setup, check_failures, record_tally, resolve_device
from vidfuse.features.setup import summary as extraction_summary
from vidfuse.features.spec import FeatureSpec
from vidfuse.features.store import Entry
from vidfuse.fusion import head_class
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.training.config import TrainConfig
from vidfuse.training.runs import Run, new_run

if TYPE_CHECKING:
    from vidfuse.features.table import FeatureTable
    from vidfuse.model import Model
    from vidfuse.training.fit import Examples, Fit


def train(
    dataset: Path | str,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    timings: Timings | None = None,
) -> dict[str, Any]:
    """Train a head on a dataset and leave a run folder.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        progress: Hears of progress.
        timings: The command's clock.

    Returns:
        A summary ready for JSON: where the model is, what was extracted, validation metrics.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
        KeyboardInterrupt: After the best weights so far were saved.
    """
    progress = progress or Progress()
    timings = timings or Timings()
    config.validate()
    with timings.measure("scan"):
        data = read_dataset(Path(dataset), layout=config.layout, split=official(config.split))
        split = make_split(data, split=config.split, seed=config.seed)
    _announce(data, split, progress)
    with timings.measure("imports"):
        import torch  # noqa: F401  # by far the longest import
    setup = Setup(config, timings, progress)
    spec = setup.spec(config.chosen_grid or head_class(config.head).grid)
    extractor = setup.extractor(spec)
    wanted = [*split.train, *split.val]
    results = dict(extractor.run(wanted))
    record_tally(extractor.tally, timings)
    entries = {clip: entry for clip, entry in results.items() if isinstance(entry, Entry)}
    check_failures(extractor.tally.failures, len(wanted), config.max_failed)
    warnings = split.warnings + _leaks(setup, split, extractor.tally)
    for line in warnings[len(split.warnings) :]:
        progress.warn(line)

    parts = {
        "train": [clip for clip in split.train if clip in entries],
        "val": [clip for clip in split.val if clip in entries],
    }
    classes = sorted({clip.label for clip in parts["train"] if clip.label is not None})
    parts["val"] = [clip for clip in parts["val"] if clip.label in classes]
    if len(classes) < 2:
        raise UserError(
            f"{data.root}: training needs two classes, and its training part has {len(classes)}",
            f"Look at it with: vidfuse inspect {data.root}",
        )
    run = new_run(data.name, config.head, config.out)
    run.write_config(config.to_dict())
    run.write_failures([{"path": c.name, "error": e.reason} for c, e in extractor.tally.failures])
    fitted = _Fitting(config, setup, entries, parts, classes)
    facts = {
        "dataset": data.name,
        "split": config.split,
        "protocol": split.protocol,
        "seed": config.seed,
        "config": config.to_dict(),
        "versions": _versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        fitted.run(run, progress, timings)
    except KeyboardInterrupt:
        if fitted.fit.best_state is not None:
            model = fitted.model(spec, facts | {"interrupted": True}, extractor.tally)
            model.save(run.model)
            run.set_latest()
            progress.warn(f"interrupted: the best weights so far are in {run.model}")
        raise
    validation = fitted.validation()
    model = fitted.model(spec, facts | {"validation": validation}, extractor.tally)
    model.save(run.model)
    run.set_latest()
    return {
        "model": str(run.model),
        "run": str(run.folder),
        "head": config.head,
        "classes": classes,
        "clips": len(wanted),
        **extraction_summary(spec, setup.store, [extractor.tally]),
        "split": {part: len(getattr(split, part)) for part in ("train", "val", "test")},
        "protocol": split.protocol,
        "epochs": fitted.fit.epoch,
        "best_epoch": fitted.fit.best_epoch,
        "parameters": sum(p.numel() for p in fitted.fit.head.parameters()),
        "validation": validation,
        "warnings": warnings,
        "timings": timings.to_dict(),
    }


def official(split: str) -> str | None:
    """The number of an official split that ``--split`` asks for."""
    return split if split.isdecimal() else None


def _announce(data: Dataset, split: Split, progress: Progress) -> None:
    progress.info(
        f"{data.name}: {len(data.clips)} clips, {len(data.classes)} classes ({data.layout})"
    )
    progress.info(f"Split: {split.protocol}")
    for line in [*data.problems, *split.warnings]:
        progress.warn(line)


def _leaks(setup: Setup, split: Split, tally: Tally) -> list[str]:
    """The same content on two sides of the split, one line each."""
    test = dict(setup.index.hashes(clip.path for clip in split.test))
    hashes = tally.hashes | {
        clip: digest for clip in split.test if isinstance(digest := test[clip.path], str)
    }
    return duplicates_across(
        {
            part: [(clip, hashes[clip]) for clip in getattr(split, part) if clip in hashes]
            for part in ("train", "val", "test")
        }
    )


@dataclass
class _Fitting:
    """A head and the examples it learns from."""

    config: TrainConfig
    setup: Setup
    entries: dict[Clip, Entry]
    parts: dict[str, list[Clip]]
    classes: list[str]

    def __post_init__(self) -> None:
        from vidfuse.training.fit import Fit, new_head

        examples = {part: self._examples(clips) for part, clips in self.parts.items()}
        _, _, channels, side, _ = examples["train"].features.shape
        self.device = resolve_device(self.config.device)
        head = new_head(self.config, channels=channels, grid=side, classes=len(self.classes))
        self.fit: Fit = Fit(
            head,
            examples["train"],
            examples["val"],
            self.config,
            device=self.device,
            classes=len(self.classes),
        )

    def _examples(self, clips: Sequence[Clip]) -> Examples:
        import torch

        from vidfuse.features.table import FeatureTable
        from vidfuse.training.fit import Examples

        rows = [self.entries[clip] for clip in clips] or [next(iter(self.entries.values()))]
        table: FeatureTable = FeatureTable.stack(rows, self.config.rule, self.config.frames)
        labels = torch.tensor([self.classes.index(str(clip.label)) for clip in clips]).long()
        count = len(clips)
        if self.config.cached_frames == self.config.frames:
            return Examples(table.features[:count], table.lengths[:count], labels)
        return Examples(table.features[:count], table.lengths[:count], labels, table.pick)

    def run(self, run: Run, progress: Progress, timings: Timings) -> None:
        """Train, and log every epoch."""
        progress.start("Training", self.config.epochs)
        began = time.perf_counter()
        for epoch in self.fit:
            run.log(asdict(epoch))
            progress.advance(note=_note(asdict(epoch)))
        progress.finish()
        timings.add("training", time.perf_counter() - began)
        if self.fit.first_step_seconds is not None:
            timings.since_start("first_step", self.fit.first_step_seconds)
        assert self.fit.best_state is not None
        self.fit.head.load_state_dict(self.fit.best_state)

    def validation(self) -> dict[str, Any] | None:
        """Metrics of the best weights on the validation clips, which chose them."""
        from vidfuse.metrics import summary
        from vidfuse.training.fit import predict_logits

        clips = self.parts["val"]
        if not clips:
            return None
        logits = predict_logits(self.fit.head, self.fit.val, device=self.device, batch_size=64)
        labels = np.array([self.classes.index(str(clip.label)) for clip in clips])
        groups = [clip.group for clip in clips]
        return {"clips": len(clips), **summary(labels, logits.cpu().numpy(), self.classes, groups)}

    def model(self, spec: FeatureSpec, facts: dict[str, Any], tally: Tally) -> Model:
        """The model of the best weights so far."""
        from vidfuse.model import SEEN_DIGITS, Model

        choice = self.setup.choice
        assert self.fit.best_state is not None
        self.fit.head.load_state_dict(self.fit.best_state)
        return Model(
            head=self.fit.head.cpu(),
            classes=self.classes,
            spec=replace(spec, frames=self.config.frames),
            cached=spec,
            sampling=str(self.config.rule),
            choice=choice,
            backbone_weights=None if choice.published else self._backbone_weights(),
            facts=facts,
            seen={
                part: sorted(tally.hashes[clip][:SEEN_DIGITS] for clip in clips)
                for part, clips in self.parts.items()
            },
        )

    def _backbone_weights(self) -> Any:
        """Weights of the user's own, which the model file must carry."""
        from vidfuse.backbones.load import read_weights

        weights = self.setup.choice.weights
        return None if weights is None else read_weights(weights)


def _note(epoch: dict[str, Any]) -> str:
    text = f"loss {epoch['train_loss']:.3f}"
    if epoch["val_accuracy"] is not None:
        text += f"  val accuracy {epoch['val_accuracy']:.3f}"
    return text


def _versions() -> dict[str, str]:
    from importlib.metadata import version
    from platform import python_version

    packages = ("vidfuse", "torch", "av", "numpy")
    return {"python": python_version(), **{name: version(name) for name in packages}}
