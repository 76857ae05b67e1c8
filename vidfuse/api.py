"""The functions behind both ``import vidfuse`` and the commands.

Settings are keyword arguments with the names of the command line's options::

    import vidfuse

    summary = vidfuse.train("ucf101/", backbone="resnet50", head="lstm")
    records = vidfuse.predict(["clip.mp4"], model=summary["model"])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.progress import Progress
from vidfuse.timing import Timings

if TYPE_CHECKING:
    from vidfuse.evaluation.inference import Inference
    from vidfuse.model import Model

__all__ = [
    "bench",
    "compare",
    "evaluate",
    "extract",
    "heads",
    "inspect",
    "load_model",
    "predict",
    "train",
]


def extract(
    clips: Path | str | Iterable[Clip | InputError],
    *,
    heads: Iterable[str] = ("lstm",),
    out: Path | str | None = None,
    layout: str | None = None,
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Fill the feature cache.

    Args:
        clips: A dataset's folder or manifest, or clips.
        heads: Heads to extract for, where ``grid`` is not given.
        out: Folder that also gets one ``.npy`` per clip and ``index.csv``.
        layout: Name of the dataset's layout; None finds out.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``FeatureConfig``.

    Returns:
        ``clips``, ``computed``, ``reused``, ``failed``, ``failures``, ``timings``, ``cache`` and
        ``spec``.

    Raises:
        UserError: The settings or the machine do not allow it.
    """
    from vidfuse.backbones.imports import import_torch
    from vidfuse.data.layouts import read_dataset
    from vidfuse.features.config import FeatureConfig
    from vidfuse.features.export import extract_clips
    from vidfuse.features.setup import finest
    from vidfuse.fusion import head_class

    config = FeatureConfig.from_mapping(settings)
    timings = timings or Timings()
    progress = progress or Progress()
    if isinstance(clips, (str, Path)):
        with timings.measure("scan"):
            data = read_dataset(Path(clips), layout=layout)
        for line in data.problems:
            progress.warn(line)
        clips = data.clips
    asked = config.chosen_grid
    with timings.measure("imports"):
        import_torch()  # which heads need, to say what grid they read
        grids = finest([head_class(head).grid for head in heads] if asked is None else [asked])
    target = Path(out) if out is not None else None
    return extract_clips(list(clips), config, grids, target, progress, timings)


def train(
    dataset: Path | str | None = None,
    *,
    folds: int | None = None,
    resume: Path | str | None = None,
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a head on a dataset and leave a run folder; see ``training.train.train``.

    Args:
        dataset: Its folder or manifest.
        folds: Measure by cross-validation too; see ``training.folds.train_folds``.
        resume: A run folder that was cut off, instead of a dataset; see ``training.train.resume``.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``TrainConfig``.

    Raises:
        UserError: The arguments do not go together, or see there.
    """
    if dataset is None and resume is None:
        raise UserError("missing argument 'DATASET'", "Try: vidfuse train --help")
    if resume is not None and (dataset is not None or folds is not None):
        raise UserError(
            "a run is resumed on its own dataset and without folds",
            f"Write only: vidfuse train --resume {resume}",
        )
    if resume is not None:
        from vidfuse.training.train import resume as go_on

        return go_on(resume, settings, progress=progress, timings=timings)
    assert dataset is not None
    from vidfuse.training.config import TrainConfig

    config = TrainConfig.from_mapping(settings)
    if folds is not None:
        from vidfuse.training.folds import train_folds

        return train_folds(dataset, config, folds, progress=progress, timings=timings)
    from vidfuse.training.train import train as run

    return run(dataset, config, progress=progress, timings=timings)


def evaluate(
    dataset: Path | str,
    *,
    model: Path | str | Sequence[Path | str] | None = None,
    subset: str = "auto",
    split: str | None = None,
    layout: str | None = None,
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a model on a dataset; see ``evaluation.evaluate.evaluate_dataset``.

    Args:
        dataset: Its folder or manifest.
        model: A model file or run folder, or several to average; None is the latest run.
        subset: Which clips.
        split: Number of the official split.
        layout: Name of the dataset's layout.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``InferenceConfig``.
    """
    from vidfuse.evaluation.evaluate import evaluate_dataset

    with closing(_inference(model, settings, progress, timings)) as inference:
        return evaluate_dataset(
            inference, dataset, subset=subset, split=split, layout=layout, progress=progress
        )


def compare(
    dataset: Path | str,
    *,
    heads: str | Iterable[str] = "all",
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Compare fusion heads on a dataset; see ``evaluation.compare.run.compare``.

    Args:
        dataset: Its folder or manifest.
        heads: Their names, or ``all``; the head ``mean`` is always among them.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``CompareConfig``.
    """
    from vidfuse.evaluation.compare.config import CompareConfig
    from vidfuse.evaluation.compare.run import compare as run

    names = heads if isinstance(heads, str) else ",".join(heads)
    config = CompareConfig.from_mapping({**settings, "heads": names})
    return run(dataset, config, progress=progress, timings=timings)


def predict(
    inputs: Iterable[Path | str | InputError | None],
    *,
    model: Path | str | Sequence[Path | str] | None = None,
    top: int = 5,
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> Iterator[dict[str, Any]]:
    """Predict the class of clips; see ``evaluation.predict.predict_records``.

    Args:
        inputs: Video files. They may come over time: None among them says that the next one is
            not there yet, so that those before it are answered first.
        model: A model file or run folder, or several to average; None is the latest run.
        top: How many classes each record lists.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``InferenceConfig``.
    """
    from vidfuse.evaluation.predict import predict_records

    inference = _inference(model, settings, progress, timings)
    paths = (Path(item) if isinstance(item, (str, Path)) else item for item in inputs)
    return predict_records(inference, paths, top)


def inspect(
    dataset: Path | str,
    *,
    layout: str | None = None,
    split: str | None = None,
    read: bool = True,
    decoder: str = "auto",
    workers: int | None = None,
    cache: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say what a dataset holds and what is wrong; see ``evaluation.inspect.inspect_dataset``."""
    from vidfuse.evaluation.inspect import inspect_dataset
    from vidfuse.features.config import cache_folder
    from vidfuse.features.identity import ContentIndex

    return inspect_dataset(
        dataset,
        layout=layout,
        split=split,
        read=read,
        decoder=decoder,
        workers=workers,
        index=ContentIndex(cache_folder(cache)),
        progress=progress,
    )


def bench(
    clips: Path | str | Iterable[Clip | InputError],
    *,
    repeats: int = 3,
    seconds: float = 5.0,
    layout: str | None = None,
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure how fast features of clips are extracted here; see ``features.bench.bench``.

    Args:
        clips: A dataset's folder or manifest, or clips.
        repeats: Rounds of measurement.
        seconds: What the pipeline takes in a round, about.
        layout: Name of the dataset's layout; None finds out.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``FeatureConfig``; without a grid it is that of the default head.
    """
    from vidfuse.data.layouts import read_dataset
    from vidfuse.features.bench import bench as measure
    from vidfuse.features.config import FeatureConfig
    from vidfuse.fusion import head_class
    from vidfuse.training.config import TrainConfig

    config = FeatureConfig.from_mapping(settings)
    progress = progress or Progress()
    if isinstance(clips, (str, Path)):
        clips = read_dataset(Path(clips), layout=layout).clips
    good, failed = [], 0
    for clip in clips:
        if isinstance(clip, InputError):
            progress.warn(clip.message)
            failed += 1
        else:
            good.append(clip)
    grid = config.chosen_grid or head_class(TrainConfig().head).grid
    report = measure(good, config, grid, repeats, seconds, progress, timings or Timings())
    return {**report, "failed": report["failed"] + failed}


def heads(
    names: Iterable[str] | None = None,
    *,
    channels: int = 512,
    frames: int = 16,
    classes: int = 10,
    latency: bool = False,
) -> list[dict[str, Any]]:
    """Describe fusion heads: what they read, know, need and cost; see ``fusion.describe``.

    Args:
        names: Heads; None or none at all is every head there is, sorted.
        channels: Channels D of the features for which the cost is counted.
        frames: Frames of a clip.
        classes: Number of classes.
        latency: Also measure milliseconds for each clip on this machine's CPU.
    """
    from vidfuse.backbones.imports import import_torch
    from vidfuse.fusion import head_class, head_names
    from vidfuse.fusion.describe import describe

    import_torch()
    chosen = list(names or ())
    for name in chosen:
        head_class(name)  # an unknown one is told before any work
    return [
        describe(name, channels=channels, frames=frames, classes=classes, latency=latency)
        for name in chosen or head_names()
    ]


def load_model(path: Path | str) -> Model:
    """Read a model file or run folder; see ``model.load_model``."""
    from vidfuse.model import load_model as load

    return load(path)


def _inference(
    model: Path | str | Sequence[Path | str] | None,
    settings: dict[str, Any],
    progress: Progress | None,
    timings: Timings | None,
) -> Inference:
    timings = timings or Timings()
    progress = progress or Progress()
    with timings.measure("imports"):
        from vidfuse.evaluation.inference import Inference, InferenceConfig, find_model

    config = InferenceConfig.from_mapping(settings)
    named = [model] if model is None or isinstance(model, (str, Path)) else model
    models = [find_model(each, progress) for each in named]
    return Inference(models, config, progress, timings)
