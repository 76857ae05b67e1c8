"""One training run: dataset → split → features → head → run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import Split, duplicates_across, make_split
from vidfuse.errors import InputError, UserError
from vidfuse.features.extract import Extractor
from vidfuse.features.setup import Setup, check_failures, failure_records, one_line, resolve_device
from vidfuse.features.setup import summary as extraction_summary
from vidfuse.features.store import Entry
from vidfuse.fusion import head_class
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.training.config import TrainConfig
from vidfuse.training.runs import Run, new_run, refuse_model_in

if TYPE_CHECKING:
    from torch import Tensor

    from vidfuse.backbones import BackboneChoice
    from vidfuse.training.fit import Examples, Fit

Parts = Mapping[str, Sequence[Clip]]


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
    if config.out is not None:
        refuse_model_in(Path(config.out).expanduser())  # now, and not after an hour of extraction
    with timings.measure("scan"):
        data = read_dataset(Path(dataset), layout=config.layout, split=official(config.split))
        split = make_split(data, split=config.split, seed=config.seed)
    _announce(data, split, progress)
    with timings.measure("imports"):
        import torch  # noqa: F401  # by far the longest import
    setup = Setup(config, timings, progress)
    extractor = setup.extractor(setup.spec(config.chosen_grid or head_class(config.head).grid))
    wanted = [*split.train, *split.val]
    entries = _extract(extractor, wanted, progress)
    failures = extractor.tally.failures
    check_failures(failures, len(wanted), config.max_failed)
    leaks = _leaks(setup, split, extractor.tally.hashes)
    for line in leaks:
        progress.warn(line)

    parts, classes = _usable(split, entries)
    if len(classes) < 2:
        raise UserError(
            f"{data.root}: training needs two classes, and its training part has {len(classes)}",
            f"Look at it with: vidfuse inspect {data.root}",
        )
    run = new_run(data.name, config.head, config.out)
    run.write_config(config.to_dict())
    run.write_failures(failure_records(failures))
    fit = _new_fit(config, entries, parts, classes)
    entries.clear()  # the fit has them side by side, and twice may be too much for the memory
    facts = _facts(data, split, config)
    try:
        _run_epochs(fit, run, progress, timings)
    except KeyboardInterrupt:
        if fit.best_state is not None:
            facts["interrupted"] = True
            _save(fit, run, setup.choice, extractor, parts, classes, facts)
            progress.warn(f"interrupted: the best weights so far are in {run.model}")
        raise
    facts["validation"] = _validation(fit, parts["val"], classes)
    _save(fit, run, setup.choice, extractor, parts, classes, facts)
    return {
        "model": str(run.model),
        "run": str(run.folder),
        "head": config.head,
        "classes": classes,
        "clips": len(wanted),
        **extraction_summary(extractor.spec, setup.store, [extractor.tally]),
        "split": {part: len(getattr(split, part)) for part in ("train", "val", "test")},
        "protocol": split.protocol,
        "epochs": fit.epoch,
        "best_epoch": fit.best_epoch,
        "parameters": sum(p.numel() for p in fit.head.parameters()),
        "validation": facts["validation"],
        "warnings": split.warnings + leaks,
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


def _extract(extractor: Extractor, clips: Sequence[Clip], progress: Progress) -> dict[Clip, Entry]:
    """Features of the clips that can be read; of the others, a warning."""
    entries = {}
    for clip, result in extractor.run(clips):
        if isinstance(result, InputError):
            progress.warn(one_line(result))
        else:
            entries[clip] = result
    return entries


def _leaks(setup: Setup, split: Split, hashes: Mapping[Clip, str]) -> list[str]:
    """The same content on two sides of the split, one line each."""
    test = dict(setup.index.hashes(clip.path for clip in split.test))
    known = {
        **hashes,
        **{c: digest for c in split.test if isinstance(digest := test[c.path], str)},
    }
    return duplicates_across(
        {
            part: [(clip, known[clip]) for clip in getattr(split, part) if clip in known]
            for part in ("train", "val", "test")
        }
    )


def _usable(split: Split, entries: Mapping[Clip, Entry]) -> tuple[Parts, list[str]]:
    """The clips that could be read, and the classes that can be learned from them."""
    train = [clip for clip in split.train if clip in entries]
    classes = sorted({clip.label for clip in train if clip.label is not None})
    val = [clip for clip in split.val if clip in entries and clip.label in classes]
    return {"train": train, "val": val}, classes


def _new_fit(
    config: TrainConfig, entries: Mapping[Clip, Entry], parts: Parts, classes: list[str]
) -> Fit:
    """A new head, and the examples it learns from."""
    from vidfuse.training.fit import Fit, new_head

    train = _examples(config, entries, parts["train"], classes)
    if parts["val"]:
        val = _examples(config, entries, parts["val"], classes)
    else:
        none = slice(0)
        val = replace(
            train,
            features=train.features[none],
            lengths=train.lengths[none],
            labels=train.labels[none],
        )
    _, _, channels, side, _ = train.features.shape
    head = new_head(config, channels=channels, grid=side, classes=len(classes))
    device = resolve_device(config.device)
    return Fit(head, train, val, config, device=device, classes=len(classes))


def _examples(
    config: TrainConfig,
    entries: Mapping[Clip, Entry],
    clips: Sequence[Clip],
    classes: list[str],
) -> Examples:
    from vidfuse.features.table import FeatureTable
    from vidfuse.training.fit import Examples

    table = FeatureTable.stack([entries[clip] for clip in clips], config.rule, config.frames)
    more = config.cached_frames > config.frames
    return Examples(
        table.features, table.lengths, _labels(clips, classes), table.pick if more else None
    )


def _labels(clips: Sequence[Clip], classes: list[str]) -> Tensor:
    import torch

    return torch.tensor([classes.index(str(clip.label)) for clip in clips])


def _run_epochs(fit: Fit, run: Run, progress: Progress, timings: Timings) -> None:
    """Train, and log every epoch."""
    progress.start("Training", fit.config.epochs)
    try:
        with timings.measure("training"):
            for epoch in fit:
                run.log(asdict(epoch))
                progress.advance(note=_note(asdict(epoch)))
    finally:
        progress.finish()
    if fit.first_step_seconds is not None:
        timings.since_start("first_step", fit.first_step_seconds)


def _take_best(fit: Fit) -> None:
    assert fit.best_state is not None
    fit.head.load_state_dict(fit.best_state)


def _validation(fit: Fit, clips: Sequence[Clip], classes: list[str]) -> dict[str, Any] | None:
    """Metrics of the best weights on the validation clips, which chose them."""
    from vidfuse.metrics import summary
    from vidfuse.training.fit import predict_logits

    if not clips:
        return None
    _take_best(fit)
    logits = predict_logits(fit.head, fit.val, device=fit.device, batch_size=64)
    labels = _labels(clips, classes).numpy()
    groups = [clip.group for clip in clips]
    return {"clips": len(clips), **summary(labels, logits.numpy(), classes, groups)}


def _save(
    fit: Fit,
    run: Run,
    choice: BackboneChoice,
    extractor: Extractor,
    parts: Parts,
    classes: list[str],
    facts: dict[str, Any],
) -> None:
    """Write the model of the best weights so far."""
    from vidfuse.model import SEEN_DIGITS, Model

    _take_best(fit)
    hashes = extractor.tally.hashes
    model = Model(
        head=fit.head.cpu(),
        classes=classes,
        spec=replace(extractor.spec, frames=fit.config.frames),
        cached=extractor.spec,
        sampling=str(fit.config.rule),
        choice=choice,
        backbone_weights=_own_weights(choice),
        facts=facts,
        seen={
            part: sorted({hashes[clip][:SEEN_DIGITS] for clip in clips})
            for part, clips in parts.items()
        },
    )
    model.save(run.model)
    run.set_latest()


def _own_weights(choice: BackboneChoice) -> dict[str, Tensor] | None:
    """Weights of the user's own, which the model file must carry."""
    from vidfuse.backbones.load import read_weights

    return None if choice.published or choice.weights is None else read_weights(choice.weights)


def _facts(data: Dataset, split: Split, config: TrainConfig) -> dict[str, Any]:
    """What a model file says about its training."""
    return {
        "dataset": data.name,
        "split": config.split,
        "protocol": split.protocol,
        "seed": config.seed,
        "config": config.to_dict(),
        "versions": _versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


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
