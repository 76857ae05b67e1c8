"""The functions behind both ``import vidfuse`` and the commands.

Settings are keyword arguments with the names of the command line's options::

    import vidfuse

    result = vidfuse.train("ucf101/", backbone="resnet50", head="lstm")
    for record in vidfuse.predict(["clip.mp4"], model=result.model):
        print(record.path, record.label, record.score)
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Unpack, overload

from vidfuse.arguments import (
    PATHS,
    SUBSETS,
    AdaptSettings,
    AnyPath,
    CompareSettings,
    CutSettings,
    FeatureSettings,
    InferenceSettings,
    Subset,
    TimelineSettings,
    TrainSettings,
    as_clips,
    as_inputs,
    as_names,
    as_path,
    as_paths,
    expect,
    plain,
)
from vidfuse.backbones import DEFAULT_CHANNELS
from vidfuse.backbones.imports import import_torch
from vidfuse.benchmark import bench as measure
from vidfuse.comparison.config import CompareConfig
from vidfuse.comparison.run import compare as run
from vidfuse.data.clip import Clip
from vidfuse.data.files import expand_inputs
from vidfuse.data.layouts import is_tree, read_dataset
from vidfuse.errors import InputError, UserError
from vidfuse.features.build import finest
from vidfuse.features.export import extract_clips
from vidfuse.features.long_videos import SampleRate, extract_videos
from vidfuse.features.spec import FeatureConfig, parse_grid
from vidfuse.heads import head_class, head_names
from vidfuse.inference.config import TIMELINE_FIELDS, InferenceConfig, TimelineConfig
from vidfuse.inference.evaluate import evaluate_dataset
from vidfuse.inference.evaluate_timelines import RATE
from vidfuse.inference.evaluate_timelines import evaluate_timelines as measure_timelines
from vidfuse.inference.live import PATIENCE, LivePredictor, live_records
from vidfuse.inference.predict import predict_records
from vidfuse.inference.predictor import Ensemble, find_model
from vidfuse.inference.timeline import TimelinePredictor, timeline_records
from vidfuse.inspection import inspect_dataset
from vidfuse.loaded import LoadedModel
from vidfuse.machine import compute_alone
from vidfuse.model import load_model as load
from vidfuse.progress import Reporter
from vidfuse.results import (
    AdaptResult,
    BackboneDescription,
    BenchResult,
    Comparison,
    CutResult,
    Evaluation,
    ExtractionResult,
    FoldsResult,
    HeadDescription,
    Inspection,
    LiveRecord,
    Record,
    TimelineRecord,
    TraceResult,
    TrainResult,
)
from vidfuse.runs import LATEST
from vidfuse.start import run_training
from vidfuse.timeline.results import TimelineEvaluation
from vidfuse.training.config import TrainConfig
from vidfuse.video.live import find_source

__all__ = [
    "LoadedModel",
    "adapt",
    "bench",
    "compare",
    "cut",
    "evaluate",
    "evaluate_timelines",
    "extract",
    "inspect",
    "list_backbones",
    "list_heads",
    "load_model",
    "predict",
    "predict_live",
    "predict_timelines",
    "trace_clips",
    "train",
]


def extract(
    clips: AnyPath | Iterable[Clip | AnyPath | InputError],
    *,
    heads: str | Iterable[str] = ("lstm",),
    rate: float | None = None,
    stride: int | None = None,
    out: AnyPath | None = None,
    layout: str | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[FeatureSettings],
) -> ExtractionResult:
    """Fill the feature cache.

    Args:
        clips: A dataset's folder or manifest, or several clips or video files. A folder of class
            folders with videos beside them is read as clips without classes.
        heads: Heads to extract for, where ``grid`` is not given.
        rate: Samples per second, of whole videos of any length, in constant memory; they are cached
            a stretch at a time, and it is these that ``computed`` and ``reused`` count.
        stride: Instead of a rate: a sample for so many frames, at each video's mean frame rate.
        out: Folder that also gets one ``.npy`` per clip and ``index.csv``.
        layout: Name of the dataset's layout; None finds out.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``FeatureConfig``.

    Returns:
        What was computed, what was in the cache, and what failed.

    Raises:
        UserError: The settings or the machine do not allow it.
    """
    reporter = _watched(reporter)
    config = FeatureConfig.from_mapping(plain(settings))
    expect("rate", rate, float, optional=True, least=0.01)
    expect("stride", stride, int, optional=True, least=1)
    if rate is not None and stride is not None:
        raise UserError("rate and stride say the same in two ways", "Give one of them.")
    names = as_names("heads", heads)
    target = None if out is None else as_path("out", out)
    with reporter.measure("scan"):
        found = _clips(clips, layout, reporter)
    if config.grid is None:
        with reporter.measure("imports"):
            import_torch()  # which heads need, to say what grid they read
        grids = finest(head_class(name).grid for name in names)
    else:
        grids = [parse_grid(config.grid)]
    if rate is None and stride is None:
        return ExtractionResult.from_dict(extract_clips(found, config, grids, target, reporter))
    sampling = SampleRate(rate, stride)
    return ExtractionResult.from_dict(
        extract_videos(found, config, sampling, grids, target, reporter)
    )


@overload
def train(
    dataset: AnyPath | None = None,
    *,
    folds: None = None,
    budget: str | None = None,
    resume: AnyPath | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[TrainSettings],
) -> TrainResult: ...
@overload
def train(
    dataset: AnyPath,
    *,
    folds: int,
    budget: str | None = None,
    resume: None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[TrainSettings],
) -> FoldsResult: ...
@overload
def train(
    dataset: AnyPath | None = None,
    *,
    folds: int | None = None,
    budget: str | None = None,
    resume: AnyPath | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[TrainSettings],
) -> TrainResult | FoldsResult: ...
def train(
    dataset: AnyPath | None = None,
    *,
    folds: int | None = None,
    budget: str | None = None,
    resume: AnyPath | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[TrainSettings],
) -> TrainResult | FoldsResult:
    """Train a head on a dataset and leave a run folder.

    Args:
        dataset: Its folder or manifest.
        folds: Cross-validate with so many folds, then fit one model on all clips.
        budget: Time in which ``head="auto"`` chooses, such as ``20m``; None is as long as it takes.
        resume: A run folder that was cut off, instead of a dataset.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``TrainConfig``; with ``head="auto"``, ``backbone`` may name several
            encoders, with commas between.

    Returns:
        Where the model is, and its metrics: with ``folds`` a ``FoldsResult``, else a
        ``TrainResult``. With ``head="auto"`` also what was tried and chosen, and without folds the
        metrics on the test clips.

    Raises:
        UserError: The arguments do not go together, or the dataset, the settings or the machine
            do not allow it.
        KeyboardInterrupt: After the best weights so far were saved.
    """
    reporter = _watched(reporter)
    expect("folds", folds, int, optional=True, least=2)
    expect("budget", budget, str, optional=True)
    return run_training(
        None if dataset is None else as_path("dataset", dataset),
        plain(settings),
        folds=folds,
        budget=budget,
        resumed=None if resume is None else as_path("resume", resume),
        reporter=reporter,
    )


def evaluate(
    dataset: AnyPath,
    *,
    model: AnyPath | Iterable[AnyPath] | None = None,
    subset: Subset = "auto",
    split: str | None = None,
    layout: str | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[InferenceSettings],
) -> Evaluation:
    """Measure a model on a dataset.

    Args:
        dataset: Its folder or manifest.
        model: A model file or run folder, or several to average; None is the latest run.
        subset: ``auto`` (the dataset's test clips; where it declares none, those that the model
            has not seen), ``all``, ``train``, ``val`` or ``test``.
        split: Number of the official split; None is the one that the model was trained on.
        layout: Name of the dataset's layout; None finds out.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``InferenceConfig``.

    Returns:
        Metrics with intervals, per class and over all.

    Raises:
        UserError: There is no such model, or nothing to measure on.
    """
    root = as_path("dataset", dataset)
    expect("subset", subset, str, among=SUBSETS)
    expect("split", split, str, optional=True)
    expect("layout", layout, str, optional=True)
    with closing(_ensemble(model, plain(settings), reporter)) as ensemble:
        return evaluate_dataset(
            ensemble, root, subset=subset, split=split, layout=layout, reporter=reporter
        )


def evaluate_timelines(
    annotations: AnyPath,
    videos: AnyPath | Iterable[AnyPath] = (),
    *,
    model: AnyPath | None = None,
    subset: Subset | None = None,
    predictions: AnyPath | None = None,
    rate: float | None = None,
    fps: float | None = None,
    out: AnyPath | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[TimelineSettings],
) -> TimelineEvaluation:
    """Measure timelines on annotated videos.

    Args:
        annotations: The truth: a file of any format that is read, or a folder of such files.
        videos: Files and folders with the videos, where the annotations do not name them and they
            are not beside them.
        model: A model file or run folder, which makes the timelines; None is the latest run.
        subset: Which videos a model is measured on; None is ``auto``: those that it has not seen,
            as ``test``; ``train`` and ``val`` are those that it was trained and chosen on; ``all``.
        predictions: Timelines that were made before, as ``annotations``, instead of a model.
        rate: Moments per second at which they are compared; None is 25.
        fps: Frames per second of the videos, for annotations that count frames.
        out: Folder that gets ``videos.csv``, ``confusion.csv`` and ``predictions.jsonl``.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``TimelineConfig``; with ``predictions``, ``background`` alone means
            something.

    Returns:
        Metrics with intervals and trivial baselines, over all, per class and per video.

    Raises:
        UserError: Files cannot be read or written, there is no such model or it cannot slide over
            videos, or there is nothing to measure on.
    """
    truth = as_path("annotations", annotations)
    expect("subset", subset, str, optional=True, among=SUBSETS)
    several = [videos] if isinstance(videos, PATHS) else list(videos)
    places = as_paths("videos", several) if several else []
    for name, value in (("rate", rate), ("fps", fps)):
        expect(name, value, float, optional=True, least=0.001)
    reporter = _watched(reporter)
    config = TimelineConfig.from_mapping(plain(settings))
    given = None if predictions is None else as_path("predictions", predictions)
    if given is not None:
        if model is not None:
            raise UserError(
                "predictions are there, and a model that makes some", "Give one of the two."
            )
        if subset is not None:
            raise UserError("predictions are of no subset", "Leave out --subset.")
        for name in TIMELINE_FIELDS:
            if name != "background" and settings.get(name):
                raise UserError(f"{name}: predictions are measured as they are", "Leave it out.")
    card = None
    if given is None:
        card = find_model(None if model is None else as_path("model", model), reporter)
    return measure_timelines(
        truth,
        model=card,
        config=config,
        videos=places,
        subset=subset or "auto",
        predictions=given,
        rate=RATE if rate is None else rate,
        fps=fps,
        out=None if out is None else as_path("out", out),
        reporter=reporter,
    )


def compare(
    dataset: AnyPath,
    *,
    heads: str | Iterable[str] = "all",
    backbones: str | Iterable[str] | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[CompareSettings],
) -> Comparison:
    """Compare heads on a dataset, by cross-validation with the same folds and search for all.

    Args:
        dataset: Its folder or manifest.
        heads: Their names, or ``all``; the head ``mean`` is always among them.
        backbones: Encoders to compare the heads on, instead of ``backbone``.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``CompareConfig``.

    Returns:
        The heads, the most accurate first, and advice. Of several encoders, the heads of all, with
        their difference to the best.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
        KeyboardInterrupt: After what was done so far was kept.
    """
    reporter = _watched(reporter)
    root = as_path("dataset", dataset)
    given = {**plain(settings), "heads": ",".join(as_names("heads", heads))}
    if backbones is not None:
        given["backbones"] = ",".join(as_names("backbones", backbones))
    config = CompareConfig.from_mapping(given)
    return Comparison.from_dict(run(root, config, reporter=reporter))


def predict(
    inputs: AnyPath | Iterable[AnyPath | InputError | None],
    *,
    model: AnyPath | Iterable[AnyPath] | None = None,
    top: int = 5,
    reporter: Reporter | None = None,
    **settings: Unpack[InferenceSettings],
) -> Iterator[Record]:
    """Predict the class of clips.

    Args:
        inputs: A video file, or several. They may come over time: None among them says that the
            next one is not there yet, so that those before it are answered first.
        model: A model file or run folder, or several to average; None is the latest run.
        top: How many classes each record lists.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``InferenceConfig``.

    Returns:
        A record for each input, in order. Up to 64 inputs are predicted together; the model is
        kept until the iterator ends or is closed.

    Raises:
        UserError: There is no such model, or it cannot be used here.
    """
    expect("top", top, int, least=1)
    paths = as_inputs("inputs", inputs)
    ensemble = _ensemble(model, plain(settings), reporter)
    return predict_records(ensemble, paths, top, owner=os.getpid())


def predict_timelines(
    inputs: AnyPath | Iterable[AnyPath | InputError | None],
    *,
    model: AnyPath | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[TimelineSettings],
) -> Iterator[TimelineRecord]:
    """Predict what happens when in videos of any length.

    Args:
        inputs: A video file, or several. They may come over time, as for `predict`.
        model: A model file or run folder; None is the latest run.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``TimelineConfig``.

    Returns:
        A record for each input, in order. The model is kept until the iterator ends or is closed.

    Raises:
        UserError: There is no such model, or it cannot slide over videos.
    """
    paths = as_inputs("inputs", inputs)
    reporter = _watched(reporter)
    config = TimelineConfig.from_mapping(plain(settings))
    found = find_model(None if model is None else as_path("model", model), reporter)
    return timeline_records(TimelinePredictor(found, config, reporter), paths)


def predict_live(
    source: str,
    *,
    model: AnyPath | None = None,
    top: int = 5,
    patience: float = PATIENCE,
    reporter: Reporter | None = None,
    **settings: Unpack[TimelineSettings],
) -> Generator[LiveRecord, None, None]:
    """Predict what happens now in a stream::

        for record in vidfuse.predict_live("rtsp://camera/stream", model="runs/mine"):
            print(record.time, record.label, record.score)

    Args:
        source: A URL, a camera, or ``pipe:`` for bytes on standard input.
        model: A model file or run folder; None is the latest run.
        top: How many classes each record lists.
        patience: Seconds without a frame after which the stream is given up.
        reporter: Receives warnings and collects the time of each stage.
        **settings: Fields of ``TimelineConfig``, of which ``window``, ``step`` and those of the
            machine mean something.

    Returns:
        A record for each decision, when it is made. The connection is kept until the iterator ends
        or is closed. It raises ``InputError`` where no frame came for too long.

    Raises:
        UserError: It is no live source, there is no such model, or it cannot be used on streams.
    """
    expect("source", source, str)
    expect("top", top, int, least=1)
    expect("patience", patience, float, least=0.1)
    reporter = _watched(reporter)
    config = TimelineConfig.from_mapping(plain(settings))
    place = find_source(source)
    found = find_model(None if model is None else as_path("model", model), reporter)
    return live_records(LivePredictor(found, config, reporter), place, top, patience)


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
    reporter: Reporter | None = None,
) -> Inspection:
    """Inspect a dataset: what it holds, and what is wrong with it.

    Args:
        dataset: Its folder or manifest.
        layout: Name of its layout; None finds out.
        split: Number of the official split.
        read: Whether every clip is decoded, to find unreadable ones and lengths.
        decoder: Video decoder.
        workers: Clips decoded at once; None is one per core.
        time_limit: Seconds that decoding a clip may take; None is 120, and more for big files.
        memory: Memory that decoding a clip may take, such as ``2G``.
        cache: Folder of the feature cache, which remembers content hashes.
        reporter: Receives progress updates and collects the time of each stage.

    Returns:
        The report.

    Raises:
        UserError: It is not a dataset.
    """
    reporter = _watched(reporter)
    root = as_path("dataset", dataset)
    expect("layout", layout, str, optional=True)
    expect("split", split, str, optional=True)
    expect("read", read, bool)
    config = FeatureConfig(
        decoder=decoder,
        workers=workers,
        time_limit=time_limit,
        memory=memory,
        cache=None if cache is None else str(as_path("cache", cache)),
    )
    config.validate()
    return inspect_dataset(root, config, layout=layout, split=split, read=read, reporter=reporter)


def bench(
    clips: AnyPath | Iterable[Clip | AnyPath | InputError],
    *,
    repeats: int = 3,
    seconds: float = 5.0,
    layout: str | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[FeatureSettings],
) -> BenchResult:
    """Benchmark feature extraction on this machine and find the bottleneck.

    Args:
        clips: A dataset's folder or manifest, or several clips or video files. A folder of class
            folders with videos beside them is read as clips without classes.
        repeats: Rounds of measurement.
        seconds: What the pipeline takes in a round, about.
        layout: Name of the dataset's layout; None finds out.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``FeatureConfig``; without a grid it is that of the default head.

    Returns:
        Throughput of decoding, of the network and of both, in clips per second.

    Raises:
        UserError: No clip can be read, or the settings cannot be used here.
    """
    reporter = _watched(reporter)
    expect("repeats", repeats, int, least=1)
    expect("seconds", seconds, float, least=0)
    config = FeatureConfig.from_mapping(plain(settings))
    found = _clips(clips, layout, reporter)
    bad = [clip for clip in found if isinstance(clip, InputError)]
    for error in bad:
        reporter.warn(error.message)
    good = [clip for clip in found if isinstance(clip, Clip)]
    grid = parse_grid(config.grid) if config.grid else head_class(TrainConfig().head).grid
    report = measure(good, config, grid, repeats, seconds, reporter)
    return BenchResult.from_dict({**report, "failed": report["failed"] + len(bad)})


def adapt(
    clips: AnyPath | Iterable[Clip | AnyPath | InputError],
    *,
    out: AnyPath,
    layout: str | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[AdaptSettings],
) -> AdaptResult:
    """Go on training a bundled encoder on videos without labels, from a larger one, its teacher::

        vidfuse.adapt("videos/", out="mine.safetensors")
        vidfuse.train("data/", backbone="thin_efficientnet", weights="mine.safetensors")

    Args:
        clips: A folder of any depth, a manifest, or several clips or video files. Labels are not
            looked at, but a dataset's own test part is left out.
        out: The file of weights to write, which ends in ``.safetensors``.
        layout: Name of the dataset's layout; None finds out.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``AdaptConfig``.

    Returns:
        Agreement with the teacher before and after, on clips that were held out.

    Raises:
        UserError: The settings or the machine do not allow it, too few clips can be read, the
            budget was over before anything was learned, or the encoder became no better; then
            nothing was written.
    """
    from vidfuse.adaptation.config import AdaptConfig

    reporter = _watched(reporter)
    config = AdaptConfig.from_mapping(plain(settings))
    budget = config.start_budget()
    target = as_path("out", out)
    with reporter.measure("scan"):
        found = _clips(clips, layout, reporter, labelled=False)
    with reporter.measure("imports"):
        import_torch()
        from vidfuse.adaptation.run import adapt_encoder
    return adapt_encoder(found, config, target, reporter, budget)


def cut(
    annotations: AnyPath | Iterable[AnyPath],
    videos: AnyPath | Iterable[AnyPath] = (),
    *,
    out: AnyPath,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **settings: Unpack[CutSettings],
) -> CutResult:
    """Cut segments of long videos into clips, in a folder for each class::

        vidfuse.cut("labels.csv", "videos/", out="clips/")
        vidfuse.train("clips/")

    Args:
        annotations: One or several files of annotations, in any format that is read.
        videos: The videos that they are of, or folders; those beside the annotations, and those
            that are where the annotations say, need not be named.
        out: The folder, which also gets ``manifest.csv``. Clips that it has already are kept.
        overwrite: Whether they are written anew.
        dry_run: Whether to say what would be cut, and write nothing.
        reporter: Receives progress updates and warnings.
        **settings: Fields of ``CutConfig``.

    Returns:
        What became of each clip, and what was left out.

    Raises:
        UserError: The annotations cannot be read, or the folder cannot be written.
    """
    from vidfuse.cutting.config import CutConfig
    from vidfuse.cutting.run import Cut, summarize

    reporter = _watched(reporter)
    config = CutConfig.from_mapping(plain(settings))
    files = as_paths("annotations", annotations)
    target = as_path("out", out)
    expect("overwrite", overwrite, bool)
    expect("dry_run", dry_run, bool)
    found = _videos(videos)
    run = Cut(target, config, overwrite=overwrite, dry_run=dry_run, reporter=reporter)
    with closing(run):
        made = run.plan(files, found)
        records = list(run.carry_out(made))
    return summarize(target, made, records, dry_run=dry_run)


def trace_clips(
    clips: AnyPath,
    videos: AnyPath | Iterable[AnyPath],
    *,
    out: AnyPath | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    time_limit: float | None = None,
    memory: str | None = None,
    reporter: Reporter | None = None,
) -> TraceResult:
    """Find where clips that were cut lie in their originals.

    Args:
        clips: A dataset's folder or manifest, or a folder of clips.
        videos: The originals, or folders of them.
        out: The manifest of originals to write, which ends in ``.csv``; None writes none.
        overwrite: Whether one that is there is replaced.
        workers: Videos read at once; None is one per core.
        time_limit: Seconds that reading one may take; None is 120, and more for big files.
        memory: Memory that reading one may take, such as ``2G``.
        reporter: Receives progress updates and warnings.

    Returns:
        Where each clip lies, and whether that is proven.

    Raises:
        UserError: There are no clips, or the manifest cannot be written.
    """
    from vidfuse.cutting.config import CutConfig
    from vidfuse.cutting.trace import Tracer, check_out, clips_of, summarize_trace, write_trace
    from vidfuse.video.open_clips import OpenClips

    reporter = _watched(reporter)
    config = CutConfig(workers=workers, time_limit=time_limit, memory=memory)
    config.validate()
    expect("overwrite", overwrite, bool)
    target = None if out is None else as_path("out", out)
    if target is not None:
        check_out(target, overwrite=overwrite)
    found = clips_of(as_path("clips", clips), reporter)
    with OpenClips("auto", workers, time_limit, memory=config.memory_bytes) as pool:
        tracer = Tracer(pool, _videos(videos), reporter)
        records = list(tracer.trace(found))
    if target is not None:
        write_trace(target, found, records)
    return summarize_trace(target, records, tracer.failures)


def list_backbones(
    names: str | Iterable[str] | None = None, *, reporter: Reporter | None = None
) -> list[BackboneDescription]:
    """Describe encoders: what each sees and gives, what it costs, where its weights come from.

    Args:
        names: Encoders, or what names begin with, such as ``resnet``; None or none at all is every
            encoder there is.
        reporter: Receives warnings.

    Returns:
        A description of each.

    Raises:
        UserError: An encoder is unknown.
    """
    from vidfuse.backbones.describe import describe_backbones

    warnings: list[str] = []
    found = describe_backbones(as_names("names", names) if names else [], warnings)
    for line in warnings:
        (reporter or Reporter()).warn(line)
    return [BackboneDescription.from_dict(each) for each in found]


def list_heads(
    names: str | Iterable[str] | None = None,
    *,
    channels: int = DEFAULT_CHANNELS,
    frames: int = 16,
    classes: int = 10,
    latency: bool = False,
) -> list[HeadDescription]:
    """Describe heads: what they read, know, need and cost.

    Args:
        names: Heads; None or none at all is every head there is, sorted.
        channels: Channels D of the features for which the cost is counted.
        frames: Frames T of a clip.
        classes: Number of classes C.
        latency: Also measure milliseconds for each clip on this machine's CPU.

    Returns:
        A description of each.

    Raises:
        UserError: A head is unknown.
    """
    from vidfuse.heads.describe import describe

    chosen = as_names("names", names) if names else []
    for name, value in (("channels", channels), ("frames", frames), ("classes", classes)):
        expect(name, value, int, least=1)
    expect("latency", latency, bool)
    import_torch()
    for name in chosen:
        head_class(name)  # an unknown one is told before any work
    return [
        HeadDescription.from_dict(
            describe(name, channels=channels, frames=frames, classes=classes, latency=latency)
        )
        for name in chosen or head_names()
    ]


def load_model(
    path: AnyPath,
    *,
    reporter: Reporter | None = None,
    **settings: Unpack[InferenceSettings],
) -> LoadedModel:
    """Read a model to predict with, or to look at; a context manager closes it::

        with vidfuse.load_model("runs/latest") as model:
            record = model.predict("clip.mp4")

    Args:
        path: A model file, a run folder, or ``runs/latest``.
        reporter: Receives progress updates and collects the time of each stage.
        **settings: Fields of ``InferenceConfig``.

    Returns:
        The model with its weights.

    Raises:
        UserError: It is missing or damaged, written by a newer vidfuse, or needs a head that is
            not installed.
    """
    reporter = _watched(reporter)
    config = InferenceConfig.from_mapping(plain(settings))
    place = as_path("path", path)
    if place.name == LATEST and place.is_file():
        place = place.parent / place.read_text(encoding="utf-8").strip()
    return LoadedModel(load(place), config, reporter)


def _watched(reporter: Reporter | None) -> Reporter:
    """The reporter that was given, or one that shows nothing; every function begins with this."""
    expect("reporter", reporter, Reporter, optional=True)
    compute_alone()
    return reporter or Reporter()


def _clips(
    clips: AnyPath | Iterable[Clip | AnyPath | InputError],
    layout: str | None,
    reporter: Reporter,
    *,
    labelled: bool = True,
) -> list[Clip | InputError]:
    """The clips that were given, or those of the dataset or the tree of videos that was."""
    expect("layout", layout, str, optional=True)
    if not isinstance(clips, PATHS):
        return as_clips("clips", clips)
    path = as_path("clips", clips)
    if layout is None and is_tree(path, labelled=labelled):
        if labelled:
            reporter.info(f"{path}: read as clips without classes, for some lie beside its folders")
        return as_clips("clips", expand_inputs([str(path)]))
    data = read_dataset(path, layout=layout)
    for line in data.problems:
        reporter.warn(line)
    return list(data.clips)


def _videos(videos: AnyPath | Iterable[AnyPath]) -> list[Path | InputError]:
    """The videos that were named, and those in folders that were."""
    if isinstance(videos, (list, tuple)) and not videos:
        return []
    return list(expand_inputs([str(each) for each in as_paths("videos", videos)]))


def _ensemble(
    model: AnyPath | Iterable[AnyPath] | None,
    settings: dict[str, Any],
    reporter: Reporter | None,
) -> Ensemble:
    reporter = _watched(reporter)
    named = [None] if model is None else as_paths("model", model)
    config = InferenceConfig.from_mapping(settings)
    models = [find_model(each, reporter) for each in named]
    return Ensemble(models, config, reporter)
