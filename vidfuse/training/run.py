"""One training run: dataset → split → features → head → run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidfuse.data.clip import Clip
from vidfuse.data.splits import make_split
from vidfuse.errors import UserError
from vidfuse.features.build import summary as summary_of
from vidfuse.metrics import summary
from vidfuse.progress import Reporter
from vidfuse.results import TrainResult
from vidfuse.runs import Run, named_run, new_run, reopened_run
from vidfuse.settings import read_toml
from vidfuse.training.config import TrainConfig
from vidfuse.training.data import TrainingData
from vidfuse.training.steps import new_fit, run_epochs, save_model

if TYPE_CHECKING:
    from vidfuse.training.fit import Fit


def train(
    dataset: Path | str,
    config: TrainConfig,
    *,
    reporter: Reporter | None = None,
    resumed: Run | None = None,
    run: Run | None = None,
    data: TrainingData | None = None,
) -> TrainResult:
    """Train a head on a dataset and leave a run folder.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        reporter: Receives progress updates and collects the time of each stage.
        resumed: A run of the same settings that was cut off; it goes on where it stopped.
        run: A new run whose folder the caller holds; None opens one.
        data: The dataset with these settings, where the caller has read it.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
        KeyboardInterrupt: After the best weights so far were saved.
    """
    config.validate()
    settings = config.to_file()  # what it refuses is told before the work, not behind it
    reporter = reporter or Reporter()
    if config.timeline is None:
        data = data or TrainingData(dataset, config, reporter)
    else:
        from vidfuse.training.timeline import TimelineData

        data = TimelineData(dataset, config, reporter)
        config = data.config
    with ExitStack() as stack:
        run = run or resumed
        if run is None and config.out is not None:
            run = named_run(config.out, stack)
        split = make_split(data.data, split=config.split, seed=config.seed, contents=data.contents)
        warnings = data.announce(split.protocol, split.warnings)
        wanted = [*split.train, *split.val]
        table = data.gather(wanted, augmented=wanted if config.refit else split.train)
        parts: dict[str, Sequence[Clip]] = {}
        parts["train"] = [clip for clip in split.train if clip in table.rows]
        classes = data.classes_of(parts["train"])
        parts["val"] = [clip for clip in split.val if clip in table.rows and clip.label in classes]

        if run is None:
            run = new_run(data.data.name, config.head, stack)
        fit = new_fit(config, table, parts, classes)
        kept: dict[str, Any] = {"data": data.fingerprint(parts)}
        begun = None if resumed is None else restore(fit, run, kept["data"])
        if resumed is not None:
            where = "Resuming" if begun is None else "Resuming the refit"
            done = fit.epoch if begun is None else begun["epoch"]
            reporter.info(f"{where} after epoch {done}" if done else "Starting again")
        extraction = summary_of(data.extractor, data.all_stats)
        run.describe(dataset, settings, extraction["failures"])
        final, learned, validated = fit, parts, None
        try:
            run_epochs(fit, run, reporter, "Training", kept=kept)
            refits = config.refit and len(parts["val"]) > 0
            if refits:
                kept["fit"] = fit.state_dict()
            if refits and begun is None:
                run.save_state(kept)  # however quick the fit was: cut off from here on, it goes on
            validated = validation(fit, parts["val"], classes)
            if refits:
                learned = {"train": [*parts["train"], *parts["val"]], "val": []}
                final = new_fit(config, table, learned, classes, after=fit)
                if begun is not None:
                    with usable_state(run):
                        final.load_state_dict(begun)
                run_epochs(final, run, reporter, "Refitting", {"refit": True}, kept)
        except KeyboardInterrupt:
            if fit.best_state is not None:
                more = {"interrupted": True, "validation": validated, "timeline": config.timeline}
                save_model(fit, run, data, parts, classes, split.protocol, **more)
                reporter.warn(
                    f"interrupted: the best weights so far are in {run.model}; "
                    f"go on with: vidfuse train --resume {run.folder}"
                )
            raise
        more = {"validation": validated, "refitted": final is not fit}
        more["timeline"] = config.timeline
        save_model(final, run, data, learned, classes, split.protocol, **more)
        run.drop_state()
    return TrainResult.from_dict(
        {
            "model": str(run.model),
            "run": str(run.folder),
            "dataset": str(dataset),
            "head": config.head,
            "classes": classes,
            "clips": len(wanted),
            **extraction,
            "split": {part: len(getattr(split, part)) for part in ("train", "val", "test")},
            "protocol": split.protocol,
            "epochs": fit.epoch,
            "best_epoch": fit.best_epoch,
            "refitted": final is not fit,
            "parameters": sum(p.numel() for p in fit.head.parameters()),
            "validation": validated,
            "warnings": warnings,
            "timings": reporter.timings(),
        }
    )


def resume(
    folder: Path | str,
    settings: Mapping[str, Any],
    *,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Go on with a run that was killed or interrupted, to the weights it would have had.

    Args:
        folder: The run folder.
        settings: Settings of the machine that differ from the run's; no others may.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The run has ended, or other settings are asked for than it had.
    """
    with reopened_run(Path(folder)) as (run, dataset):
        config = resumed_config(run, read_toml(run.config), settings)
        return train(dataset, config, reporter=reporter, resumed=run)


def resumed_config(run: Run, before: Mapping[str, Any], settings: Mapping[str, Any]) -> TrainConfig:
    """The settings of a run that goes on.

    Args:
        run: The run.
        before: The settings that it had.
        settings: Those that are asked for now.

    Raises:
        UserError: Others are asked for than it had, and not only of the machine.
    """
    # Its folder is the one that is resumed.
    machine = [f.name for f in fields(TrainConfig) if not f.metadata.get("affects_result", True)]
    may_differ = [name for name in machine if name != "out"]
    changed = [
        name for name in settings if name not in may_differ and settings[name] != before.get(name)
    ]
    if changed:
        raise UserError(
            f"{run.folder}: a run is resumed with its own settings, not with others for "
            f"{', '.join(changed)}",
            f"Leave them out (only {', '.join(may_differ)} may differ), or start a new run.",
        )
    return TrainConfig.from_mapping({**before, **settings})


def restore(fit: Fit, run: Run, data: str) -> dict[str, Any] | None:
    """Bring a fit to where the run's state was kept; without a state, to the beginning.

    Returns:
        The state of the refit, if it had begun.

    Raises:
        UserError: The state is damaged, or belongs to other data or settings.
    """
    state = run.load_state()
    if state is None:
        return None
    with usable_state(run):
        if state["data"] != data:
            raise UserError(
                f"{run.folder}: the dataset or its features are not what this run began with",
                "Bring back the clips, labels and weights as they were, or start a new run.",
            )
        fit.load_state_dict(state["fit"])
        begun: dict[str, Any] | None = state.get("refit")
        run.keep_epochs(fit.epoch + (index(begun["epoch"]) if begun else 0))
    return begun


@contextmanager
def usable_state(run: Run) -> Iterator[None]:
    """Use of a state that a run kept: whatever it holds instead is an error of its file.

    Raises:
        UserError: It is damaged.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise run.damaged(error) from error


def validation(fit: Fit, clips: Sequence[Clip], classes: list[str]) -> dict[str, Any] | None:
    """Measure the best weights on the validation clips, which chose them; None without any."""
    from vidfuse.training.examples import predict_parts

    if not clips:
        return None
    fit.take_best()
    logits = predict_parts(fit.head, fit.val, device=fit.device, batch_size=64)[0].sum(0)
    known = (fit.val.labels >= 0).view(len(clips), -1)
    counts = known.sum(1).tolist()  # of a clip's labels: one, or those of its frames
    groups = [clip.group for clip, count in zip(clips, counts, strict=True) for _ in range(count)]
    labels = fit.val.labels.view(len(clips), -1)[known]
    metrics = summary(labels.numpy(), logits.numpy(), classes, groups)
    return {"clips": len(clips), **metrics}
