"""The functions behind both ``import vidfuse`` and the commands.

Settings are keyword arguments with the names of the command line's options::

    import vidfuse

    summary = vidfuse.train("ucf101/", backbone="resnet50", head="lstm")
    records = vidfuse.predict(["clip.mp4"], model=summary["model"])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from vidfuse.arguments import (
    PATHS,
    AnyPath,
    as_clips,
    as_inputs,
    as_names,
    as_path,
    as_paths,
    expect,
    plain,
)
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.forked import compute_alone, not_in_a_fork
from vidfuse.progress import Progress
from vidfuse.settings import parse_size
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

SUBSETS = ("auto", "all", "train", "val", "test")


def extract(
    clips: AnyPath | Iterable[Clip | AnyPath | InputError],
    *,
    heads: str | Iterable[str] = ("lstm",),
    out: AnyPath | None = None,
    layout: str | None = None,
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Fill the feature cache.

    Args:
        clips: A dataset's folder or manifest, or several clips or video files.
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
    from vidfuse.features.config import FeatureConfig
    from vidfuse.features.export import extract_clips
    from vidfuse.features.setup import finest
    from vidfuse.fusion import head_class

    timings, progress = _watched(timings, progress)
    config = FeatureConfig.from_mapping(plain(settings))
    names = as_names("heads", heads)
    target = None if out is None else as_path("out", out)
    with timings.measure("scan"):
        found = _clips(clips, layout, progress)
    asked = config.chosen_grid
    if asked is None:
        with timings.measure("imports"):
            import_torch()  # which heads need, to say what grid they read
        grids = finest(head_class(name).grid for name in names)
    else:
        grids = [asked]
    return extract_clips(found, config, grids, target, progress, timings)


def train(
    dataset: AnyPath | None = None,
    *,
    folds: int | None = None,
    resume: AnyPath | None = None,
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
    timings, progress = _watched(timings, progress)
    expect("folds", folds, int, optional=True, least=2)
    settings = plain(settings)
    run_folder = None if resume is None else as_path("resume", resume)
    if dataset is None and resume is None:
        raise UserError("missing argument 'DATASET'", "Try: vidfuse train --help")
    if run_folder is not None and (dataset is not None or folds is not None):
        raise UserError(
            "a run is resumed on its own dataset and without folds",
            f"Write only: vidfuse train --resume {run_folder}",
        )
    if run_folder is not None:
        from vidfuse.training.train import resume as go_on

        return go_on(run_folder, settings, progress=progress, timings=timings)
    from vidfuse.training.config import TrainConfig

    root = as_path("dataset", dataset)
    config = TrainConfig.from_mapping(settings)
    if folds is not None:
        from vidfuse.training.folds import train_folds

        return train_folds(root, config, folds, progress=progress, timings=timings)
    from vidfuse.training.train import train as run

    return run(root, config, progress=progress, timings=timings)


def evaluate(
    dataset: AnyPath,
    *,
    model: AnyPath | Iterable[AnyPath] | None = None,
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

    root = as_path("dataset", dataset)
    expect("subset", subset, str, among=SUBSETS)
    expect("split", split, str, optional=True)
    expect("layout", layout, str, optional=True)
    with closing(_inference(model, settings, progress, timings)) as inference:
        return evaluate_dataset(
            inference, root, subset=subset, split=split, layout=layout, progress=progress
        )


def compare(
    dataset: AnyPath,
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

    timings, progress = _watched(timings, progress)
    root = as_path("dataset", dataset)
    names = ",".join(as_names("heads", heads))
    config = CompareConfig.from_mapping({**plain(settings), "heads": names})
    return run(root, config, progress=progress, timings=timings)


def predict(
    inputs: AnyPath | Iterable[AnyPath | InputError | None],
    *,
    model: AnyPath | Iterable[AnyPath] | None = None,
    top: int = 5,
    progress: Progress | None = None,
    timings: Timings | None = None,
    **settings: Any,
) -> Iterator[dict[str, Any]]:
    """Predict the class of clips; see ``evaluation.predict.predict_records``.

    Args:
        inputs: A video file, or several. They may come over time: None among them says that the
            next one is not there yet, so that those before it are answered first.
        model: A model file or run folder, or several to average; None is the latest run.
        top: How many classes each record lists.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``InferenceConfig``.
    """
    from vidfuse.evaluation.predict import predict_records

    expect("top", top, int, least=1)
    paths = as_inputs("inputs", inputs)
    inference = _inference(model, settings, progress, timings)
    return not_in_a_fork(predict_records(inference, paths, top))


def inspect(
    dataset: AnyPath,
    *,
    layout: str | None = None,
    split: str | None = None,
    read: bool = True,
    decoder: str = "auto",
    workers: int | None = None,
    time_limit: float | None = None,
    memory: str | None = None,
    cache: AnyPath | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say what a dataset holds and what is wrong; see ``evaluation.inspect.inspect_dataset``."""
    from vidfuse.evaluation.inspect import inspect_dataset
    from vidfuse.features.config import cache_folder
    from vidfuse.features.identity import ContentIndex

    _, progress = _watched(None, progress)
    root = as_path("dataset", dataset)
    expect("layout", layout, str, optional=True)
    expect("split", split, str, optional=True)
    expect("read", read, bool)
    expect("decoder", decoder, str)
    expect("workers", workers, int, optional=True, least=1)
    expect("time_limit", time_limit, float, optional=True, least=0)
    expect("memory", memory, str, optional=True)
    folder = None if cache is None else str(as_path("cache", cache))
    return inspect_dataset(
        root,
        layout=layout,
        split=split,
        read=read,
        decoder=decoder,
        workers=workers,
        time_limit=time_limit,
        memory=None if memory is None else parse_size(memory),
        index=ContentIndex(cache_folder(folder)),
        progress=progress,
    )


def bench(
    clips: AnyPath | Iterable[Clip | AnyPath | InputError],
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
        clips: A dataset's folder or manifest, or several clips or video files.
        repeats: Rounds of measurement.
        seconds: What the pipeline takes in a round, about.
        layout: Name of the dataset's layout; None finds out.
        progress: Hears of progress.
        timings: The command's clock.
        **settings: Fields of ``FeatureConfig``; without a grid it is that of the default head.
    """
    from vidfuse.features.bench import bench as measure
    from vidfuse.features.config import FeatureConfig
    from vidfuse.fusion import head_class
    from vidfuse.training.config import TrainConfig

    timings, progress = _watched(timings, progress)
    expect("repeats", repeats, int, least=1)
    expect("seconds", seconds, float, least=0)
    config = FeatureConfig.from_mapping(plain(settings))
    found = _clips(clips, layout, progress)
    bad = [clip for clip in found if isinstance(clip, InputError)]
    for error in bad:
        progress.warn(error.message)
    good = [clip for clip in found if isinstance(clip, Clip)]
    grid = config.chosen_grid or head_class(TrainConfig().head).grid
    report = measure(good, config, grid, repeats, seconds, progress, timings)
    return {**report, "failed": report["failed"] + len(bad)}


def heads(
    names: str | Iterable[str] | None = None,
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

    chosen = as_names("names", names) if names else []
    for name, value in (("channels", channels), ("frames", frames), ("classes", classes)):
        expect(name, value, int, least=1)
    expect("latency", latency, bool)
    import_torch()
    for name in chosen:
        head_class(name)  # an unknown one is told before any work
    return [
        describe(name, channels=channels, frames=frames, classes=classes, latency=latency)
        for name in chosen or head_names()
    ]


def load_model(path: AnyPath) -> Model:
    """Read a model file or run folder; see ``model.load_model``."""
    from vidfuse.model import load_model as load

    return load(as_path("path", path))


def _watched(timings: Timings | None, progress: Progress | None) -> tuple[Timings, Progress]:
    """Those that were given, or some of one's own; whatever a function does begins with this."""
    expect("timings", timings, Timings, optional=True)
    expect("progress", progress, Progress, optional=True)
    compute_alone()
    return timings or Timings(), progress or Progress()


def _clips(
    clips: AnyPath | Iterable[Clip | AnyPath | InputError], layout: str | None, progress: Progress
) -> list[Clip | InputError]:
    """The clips that were given, or those of the dataset that was."""
    from vidfuse.data.layouts import read_dataset

    expect("layout", layout, str, optional=True)
    if not isinstance(clips, PATHS):
        return as_clips("clips", clips)
    data = read_dataset(as_path("clips", clips), layout=layout)
    for line in data.problems:
        progress.warn(line)
    return list(data.clips)


def _inference(
    model: AnyPath | Iterable[AnyPath] | None,
    settings: dict[str, Any],
    progress: Progress | None,
    timings: Timings | None,
) -> Inference:
    timings, progress = _watched(timings, progress)
    named = [None] if model is None else as_paths("model", model)
    with timings.measure("imports"):
        from vidfuse.evaluation.inference import Inference, InferenceConfig, find_model

    config = InferenceConfig.from_mapping(plain(settings))
    models = [find_model(each, progress) for each in named]
    return Inference(models, config, progress, timings)
