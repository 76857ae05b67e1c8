"""One training run: dataset → split → features → head → run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vidfuse.data.clip import Clip
from vidfuse.data.splits import make_split
from vidfuse.errors import UserError
from vidfuse.progress import Progress
from vidfuse.settings import read_toml
from vidfuse.timing import Timings
from vidfuse.training.config import TrainConfig
from vidfuse.training.fitting import (
    facts_of,
    new_fit,
    restore,
    run_epochs,
    save_model,
    validation,
)
from vidfuse.training.prepare import Material
from vidfuse.training.runs import Run, named_run, new_run, reopened_run


def train(
    dataset: Path | str,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    timings: Timings | None = None,
    resumed: Run | None = None,
) -> dict[str, Any]:
    """Train a head on a dataset and leave a run folder.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        progress: Receives progress updates.
        timings: The command's clock.
        resumed: A run of the same settings that was cut off; it goes on where it stopped.

    Returns:
        A summary ready for JSON: where the model is, what was extracted, validation metrics.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
        KeyboardInterrupt: After the best weights so far were saved.
    """
    config.validate()
    config.to_file()  # what it refuses is told before the work, not behind it
    material = Material(dataset, config, progress or Progress(), timings or Timings())
    with ExitStack() as stack:
        run = resumed
        if run is None and config.out is not None:
            run = named_run(config.out, stack)
        return _train(dataset, material, run, stack, resumed=resumed is not None)


def _train(
    dataset: Path | str, material: Material, run: Run | None, stack: ExitStack, *, resumed: bool
) -> dict[str, Any]:
    config, progress, timings = material.config, material.progress, material.timings
    split = make_split(
        material.data, split=config.split, seed=config.seed, contents=material.contents
    )
    warnings = material.announce(split.protocol, split.warnings)
    wanted = [*split.train, *split.val]
    features = material.gather(wanted, mirrored=split.train)
    leaks = material.leaks(split)
    parts: dict[str, Sequence[Clip]] = {"train": [clip for clip in split.train if clip in features]}
    classes = material.classes_of(parts["train"])
    parts["val"] = [clip for clip in split.val if clip in features and clip.label in classes]

    run = run or new_run(material.data.name, config.head, stack)
    if not resumed:
        run.clear()
    fit = new_fit(config, features, parts, classes)
    data = material.fingerprint(parts)
    if resumed:
        restore(fit, run, data)
        progress.info(f"Resuming after epoch {fit.epoch}" if fit.epoch else "Starting again")
    run.describe(dataset, config.to_file())
    run.write_failures(material.failures)
    facts = facts_of(material.data, split.protocol, config)
    try:
        run_epochs(fit, run, progress, timings, data=data)
    except KeyboardInterrupt:
        if fit.best_state is not None:
            facts["interrupted"] = True
            save_model(fit, run, material, parts, classes, facts)
            progress.warn(
                f"interrupted: the best weights so far are in {run.model}; "
                f"go on with: vidfuse train --resume {run.folder}"
            )
        raise
    facts["validation"] = validation(fit, parts["val"], classes)
    save_model(fit, run, material, parts, classes, facts)
    run.drop_state()
    return {
        "model": str(run.model),
        "run": str(run.folder),
        "dataset": str(dataset),
        "head": config.head,
        "classes": classes,
        "clips": len(wanted),
        **material.summary(),
        "split": {part: len(getattr(split, part)) for part in ("train", "val", "test")},
        "protocol": split.protocol,
        "epochs": fit.epoch,
        "best_epoch": fit.best_epoch,
        "parameters": sum(p.numel() for p in fit.head.parameters()),
        "validation": facts["validation"],
        "warnings": warnings + leaks,
        "timings": timings.to_dict(),
    }


def resume(
    folder: Path | str,
    settings: Mapping[str, Any],
    *,
    progress: Progress | None = None,
    timings: Timings | None = None,
) -> dict[str, Any]:
    """Go on with a run that was killed or interrupted, to the weights it would have had.

    Args:
        folder: The run folder.
        settings: Settings of the machine that differ from the run's; no others may.
        progress: Receives progress updates.
        timings: The command's clock.

    Returns:
        As ``train``.

    Raises:
        UserError: The run has ended, or other settings are asked for than it had.
    """
    with reopened_run(Path(folder)) as (run, dataset):
        before = read_toml(run.config)
        # Its folder is the one that is resumed.
        may_differ = [name for name in TrainConfig.names(affects_result=False) if name != "out"]
        changed = [
            name
            for name in settings
            if name not in may_differ and settings[name] != before.get(name)
        ]
        if changed:
            raise UserError(
                f"{run.folder}: a run is resumed with its own settings, not with others for "
                f"{', '.join(changed)}",
                f"Leave them out (only {', '.join(may_differ)} may differ), or start a new run.",
            )
        config = TrainConfig.from_mapping({**before, **settings})
        return train(dataset, config, progress=progress, timings=timings, resumed=run)
