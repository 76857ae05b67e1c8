"""The results of all functions: what the commands print as JSON is ``to_dict()`` of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

Interval = list[float] | None
"""``[low, high]`` of a 95 % interval; None where it cannot be estimated."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base class: conversion to what JSON has, and back."""

    def to_dict(self) -> dict[str, Any]:
        """The result as the commands print it; fields that do not apply are left out.

        A field whose metadata has ``only_with`` does not apply where the field of that name is
        None.
        """
        return {
            each.name: _plain(getattr(self, each.name))
            for each in fields(self)
            if getattr(self, each.metadata.get("only_with", each.name)) is not None
            or "only_with" not in each.metadata
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The result of which ``to_dict`` gives these values."""
        kinds = get_type_hints(cls)
        return cls(**{name: _built(kinds.get(name), value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _built(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that a field has."""
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if isinstance(kind, type) and issubclass(kind, Result):
        return kind.from_dict(value)
    if get_origin(kind) is list:
        return [_built(get_args(kind)[0], item) for item in value]
    if get_origin(kind) is dict:
        return {name: _built(get_args(kind)[1], item) for name, item in value.items()}
    return value


@dataclass(frozen=True, kw_only=True)
class Failure(Result):
    """An input that could not be used."""

    path: str
    error: str


@dataclass(frozen=True, kw_only=True)
class ClassScore(Result):
    """A class and its probability."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Record(Result):
    """The prediction for one input.

    Attributes:
        path: The input, as it was given or found.
        ok: Whether it could be predicted.
        label: The best class; None for a failure.
        score: Its probability; None for a failure.
        top: The best classes.
        warnings: What went wrong without being fatal, such as damaged frames.
        error: Why it failed, or None.
        glimpses: Of a model that selects its frames, when those that it observed are shown, in
            seconds and in the order in which it did; None of any other model.
        frames_encoded: How many went through the backbone for this clip; None for a failure.
        frames_decoded: How many were decoded; None for a failure.
    """

    path: str
    ok: bool
    label: str | None
    score: float | None
    top: list[ClassScore]
    warnings: list[str]
    error: str | None
    glimpses: list[float] | None = field(default=None, metadata={"only_with": "glimpses"})
    frames_encoded: int | None = field(default=None, metadata={"only_with": "glimpses"})
    frames_decoded: int | None = field(default=None, metadata={"only_with": "glimpses"})


@dataclass(frozen=True, kw_only=True)
class SegmentRecord(Result):
    """A part of a video that belongs to one class.

    Attributes:
        start: Where it begins, in seconds from the start of the file.
        end: Where it ends (exclusive), in seconds.
        label: Its class.
        score: Mean probability of the class in it.
    """

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class TimelineRecord(Result):
    """The timeline of one input: what happens when in it.

    Attributes:
        path: The input, as it was given or found.
        ok: Whether it could be predicted.
        duration: Seconds of the video; None for a failure.
        fps: Frames per second of it, on average; None for a failure.
        segments: By time; what lies between them is none of the classes.
        warnings: What went wrong without being fatal, such as a part that cannot be read.
        error: Why it failed, or None.
    """

    path: str
    ok: bool
    duration: float | None
    fps: float | None
    segments: list[SegmentRecord]
    warnings: list[str]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class LiveRecord(Result):
    """A decision on a live stream.

    Attributes:
        source: The stream, as it was given but for a password.
        time: When the newest frame that it is made from is shown, in seconds from the first frame
            of the stream.
        label: The best class.
        score: Its probability.
        delay: Seconds from the arrival of that frame to the decision.
        top: The best classes.
    """

    source: str
    time: float
    label: str
    score: float
    delay: float
    top: list[ClassScore]


@dataclass(frozen=True, kw_only=True)
class CutRecord(Result):
    """The outcome for one clip that was to be cut, or for a video that cannot be.

    Attributes:
        path: The clip; of a video that cannot be found or read, the video.
        ok: Whether the clip is there.
        status: ``cut``, ``kept`` (it was there already), ``planned`` (nothing is written) or
            ``failed``.
        source: The video.
        label: The class; None for a video as a whole.
        start: When the clip's first frame is shown in the video, in seconds; of a failure, when it
            should be.
        end: When its last frame leaves the screen there.
        early: Seconds from the key frame before the start, which a copy holds too.
        late: Seconds that a copy shows more behind the end.
        clip_start: Where the segment begins in the clip; None where the clip begins with it.
        clip_end: Where it ends in the clip; None where the clip ends with it.
        warnings: What went wrong without being fatal.
        error: Why it failed, or None.
    """

    path: str
    ok: bool
    status: str
    source: str
    label: str | None
    start: float | None
    end: float | None
    early: float
    late: float
    clip_start: float | None
    clip_end: float | None
    warnings: list[str]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class CutResult(Result):
    """The outcome for all clips of a cut.

    Attributes:
        out: The folder.
        manifest: The manifest in it, which ``train`` reads; None where nothing was written.
        clips: Each clip, and each video that cannot be cut.
        left_out: What became no clip, and why; one line each.
        cut: Number of clips that were written.
        kept: Number of those that were there already.
        failed: Number of failures.
        seconds: Seconds of video in all clips.
    """

    out: str
    manifest: str | None
    clips: list[CutRecord]
    left_out: list[str]
    cut: int
    kept: int
    failed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TraceRecord(Result):
    """The place of a clip in an original.

    Attributes:
        path: The clip.
        ok: Whether it was found.
        found: ``proven`` (each of its packets is in the original, all by the same time apart),
            ``likely`` (its frames look like those there, and like none elsewhere), or None.
        source: The original; None where it was not found.
        label: Its class.
        start: When its first frame is shown in the original, in seconds.
        end: When its last frame leaves the screen there.
        score: Of likely ones, the correlation of the frames, 1 at most.
        runner_up: Of likely ones, the correlation at the best place elsewhere.
        error: Why it was not found, or None.
    """

    path: str
    ok: bool
    found: str | None
    source: str | None
    label: str | None
    start: float | None
    end: float | None
    score: float | None
    runner_up: float | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class TraceResult(Result):
    """The places of the clips of a folder in their originals.

    Attributes:
        manifest: The manifest of originals that was written; None where none was.
        clips: Each clip.
        failures: Originals that cannot be read.
        proven: Number of clips whose place is proven.
        likely: Number of clips whose place is likely.
        missing: Number of clips that were not found.
    """

    manifest: str | None
    clips: list[TraceRecord]
    failures: list[Failure]
    proven: int
    likely: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class ClassMetrics(Result):
    """The metrics of one class; ``support`` is the number of its clips."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class Metrics(Result):
    """The metrics on one set of clips.

    Attributes:
        accuracy: Share of clips whose best class is the true one.
        top5_accuracy: The same for the five best classes; None with five classes or fewer.
        macro_precision: Mean over the classes that occur.
        macro_recall: Likewise.
        macro_f1: Likewise.
        accuracy_interval: 95 % bootstrap interval over groups.
        macro_f1_interval: Likewise.
        interval_method: How the intervals were made, or why there are none.
        per_class: The metrics of each class.
        confusion_matrix: Clips by true class (rows) and predicted class, ``[C, C]``.
    """

    accuracy: float
    top5_accuracy: float | None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    accuracy_interval: Interval
    macro_f1_interval: Interval
    interval_method: str
    per_class: list[ClassMetrics]
    confusion_matrix: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class GlimpseMeans(Result):
    """Frames per clip that a model took which selects its frames; all but the first are means."""

    candidates: int
    glimpses: float
    encoded: float
    decoded: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Metrics):
    """The metrics of a model on a dataset.

    Attributes:
        frames: Of a model that selects its frames, how many it took; None of any other.
        classes: Names, in the order of ``confusion_matrix``.
        split: Which clips these are.
        protocol: How the model's own split was made.
        clips: How many could be measured.
        in_training: How many of them were used in training or validation.
        failed: How many could not be read.
        failures: Which, and why.
        warnings: What may make the numbers mean less.
        model: The model's file, or several.
        dataset: The dataset's name.
        timings: Seconds of each stage.
    """

    frames: GlimpseMeans | None = field(default=None, metadata={"only_with": "frames"})
    classes: list[str]
    split: str
    protocol: str | None
    clips: int
    in_training: int
    failed: int
    failures: list[Failure]
    warnings: list[str]
    model: str
    dataset: str
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Validation(Metrics):
    """The metrics on the clips that chose the epoch."""

    clips: int


@dataclass(frozen=True, kw_only=True)
class _Extracted(Result):
    """The part of a result that an extraction has in common with a training run.

    Attributes:
        clips: How many there are.
        computed: How many were computed now.
        reused: How many were in the cache.
        failed: How many could not be read.
        failures: Which, and why.
        cache: Folder of the feature cache.
        spec: What the features mean, with the digest that names their folder.
        timings: Seconds of each stage.
    """

    clips: int
    computed: int
    reused: int
    failed: int
    failures: list[Failure]
    cache: str
    spec: dict[str, Any]
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ExtractionResult(_Extracted):
    """The result of filling the cache."""


@dataclass(frozen=True, kw_only=True)
class Tried(Result):
    """A candidate among which ``--head auto`` chose.

    Attributes:
        head: Name of the head.
        backbone: Its encoder.
        grid: Side of the grid that it reads.
        outcome: ``chosen``, ``judged`` (on all inner folds, and not the best), ``dropped``
            (significantly worse than the best so far), ``no time`` (for all folds) or ``failed``.
        folds: Inner folds that it was judged on.
        accuracy: On these; None without any.
        accuracy_interval: Its 95 % interval (Wilson, over clips), whose lower end chooses.
        seconds: All fits together.
        multiply_adds: For one clip, with the encoder.
        error: Why it failed, or None.
    """

    head: str
    backbone: str
    grid: Any
    outcome: str
    folds: int
    accuracy: float | None
    accuracy_interval: Interval
    seconds: float
    multiply_adds: int
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Choice(Result):
    """The choice of ``--head auto``, and its reason.

    Attributes:
        head: Name of the head.
        backbone: Its encoder.
        grid: Side of the grid that it reads.
        reason: Why, in words.
        judged: Whether it was judged; False where there was not even time for the default head.
        clips: Training clips that chose.
        folds: Inner folds.
        protocol: How these were made.
        seconds: Time of all fits, side by side.
        tried: The candidates, best first.
    """

    head: str
    backbone: str
    grid: Any
    reason: str
    judged: bool
    clips: int
    folds: int
    protocol: str
    seconds: float
    tried: list[Tried]


@dataclass(frozen=True, kw_only=True)
class _Trained(_Extracted):
    """The part that a training run has in common with a cross-validation.

    Attributes:
        model: The model file.
        run: The run folder.
        dataset: The dataset, as it was given.
        head: Name of the head.
        classes: Names, in the order of the logits.
        protocol: How the split was made.
        epochs: How many were run; after a cross-validation, those of the final model.
        parameters: Parameters of the head.
        warnings: What may make the numbers mean less.
    """

    model: str
    run: str
    dataset: str
    head: str
    classes: list[str]
    protocol: str
    epochs: int
    parameters: int
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class TrainResult(_Trained):
    """The result of a training run.

    Attributes:
        split: Clips in each part.
        best_epoch: The epoch that validation chose.
        refitted: Whether the model then learned anew from all clips, for so many epochs.
        validation: Metrics of the best epoch on the validation clips; None without any.
        choice: What ``--head auto`` chose; None, and left out, as the next, with any other head.
        test: The metrics on the test clips, which nothing was chosen by; None without any.
    """

    split: dict[str, int]
    best_epoch: int
    refitted: bool
    validation: Validation | None
    choice: Choice | None = field(default=None, metadata={"only_with": "choice"})
    test: Evaluation | None = field(default=None, metadata={"only_with": "choice"})


@dataclass(frozen=True, kw_only=True)
class Fold(Result):
    """One fold of a cross-validation; ``clips`` are those that it tested."""

    fold: int
    train: int
    val: int
    clips: int
    groups: list[str]
    accuracy: float
    macro_f1: float
    best_epoch: int


@dataclass(frozen=True, kw_only=True)
class Baseline(Result):
    """A baseline that needs no frame, measured on the same folds."""

    accuracy: float
    macro_f1: float
    accuracy_interval: Interval
    macro_f1_interval: Interval


@dataclass(frozen=True, kw_only=True)
class FoldsResult(_Trained, Metrics):
    """The result of a cross-validation: metrics over all clips, and a model fitted on all of them.

    Attributes:
        folds: Each fold.
        baselines: ``majority`` and ``geometry``.
        choices: What ``--head auto`` chose in each fold, without the clips that the fold tests,
            and at the end for the model; None, and left out, with any other head.
    """

    folds: list[Fold]
    baselines: dict[str, Baseline]
    choices: list[Choice] | None = field(default=None, metadata={"only_with": "choices"})


@dataclass(frozen=True, kw_only=True)
class ComparedBaseline(Baseline):
    """The same in a comparison, which repeats everything with several seeds."""

    accuracy_by_seed: list[float]


@dataclass(frozen=True, kw_only=True)
class ComparedHead(ComparedBaseline):
    """One head of a comparison.

    Attributes:
        name: Its name.
        interval_method: How the intervals were made, or why there are none.
        difference: Accuracy less that of ``mean``; None for ``mean`` itself, as the next three.
        difference_interval: Its 95 % interval.
        p_value: Of a paired sign-flip test, Holm-corrected.
        p_value_uncorrected: The same before the correction.
        shuffled: Accuracy, trained and tested on shuffled frames; None, as the next three, where
            orders were not measured.
        shuffled_p_value: Of the loss of accuracy by that.
        tested_shuffled: Accuracy, shuffled in the test only.
        reversed: Accuracy, reversed in the test only.
        training_seconds: Mean of a fit and its refit.
        chosen: How often each learning rate and dropout was chosen.
        frame_budget: Accuracy against frames of a head that selects them; None of any other.
        grid: Side of the grid that it reads.
        order_aware: Whether the order of frames matters to it.
        reversal_aware: Whether their direction does.
        parameters: How many it has.
        multiply_adds: For one clip.
        latency_ms: Of one clip alone.
        latency_batched_ms: Of one clip in a batch.
        latency_batch: Clips in that batch.
        backbone: The encoder, where several are compared; left out, as the next three, otherwise.
        to_best: Accuracy less that of the best row of all encoders; None for that row itself, as
            the next two.
        to_best_interval: Its 95 % interval.
        to_best_p_value: Of a paired sign-flip test, uncorrected.
    """

    name: str
    interval_method: str
    difference: float | None
    difference_interval: Interval
    p_value: float | None
    p_value_uncorrected: float | None
    shuffled: float | None
    shuffled_p_value: float | None
    tested_shuffled: float | None
    reversed: float | None
    training_seconds: float
    chosen: list[dict[str, float]]
    frame_budget: dict[str, Any] | None
    grid: int
    order_aware: bool
    reversal_aware: bool
    parameters: int
    multiply_adds: int
    latency_ms: float
    latency_batched_ms: float
    latency_batch: int
    backbone: str | None = field(default=None, metadata={"only_with": "backbone"})
    to_best: float | None = field(default=None, metadata={"only_with": "backbone"})
    to_best_interval: Interval = field(default=None, metadata={"only_with": "backbone"})
    to_best_p_value: float | None = field(default=None, metadata={"only_with": "backbone"})


@dataclass(frozen=True, kw_only=True)
class ComparedBackbone(Result):
    """An encoder of a comparison of several: which head to take on it, and why."""

    name: str
    advice: str
    recommended: str | None


@dataclass(frozen=True, kw_only=True)
class FailedHead(Result):
    """A head without a result, and why."""

    name: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """The result of a comparison of heads, on one encoder or on several.

    Attributes:
        dataset: The dataset, as it was given.
        dataset_path: The same, absolute.
        out: Folder of the results.
        classes: Their names.
        clips: How many there are.
        groups: How many groups of clips are known.
        heads: The most accurate first; of several encoders those of all.
        backbones: The encoders; None, and left out, unless several were asked for.
        baselines: ``majority`` and ``geometry``.
        advice: Which head to take, in words; of several encoders on that with the best head.
        recommended: Its name, or None.
        protocol: How the numbers came about.
        failed_heads: Those that failed.
        left_out: Those that cannot be built here.
        failures: Clips that could not be read.
        warnings: What may make the numbers mean less.
        timings: Seconds of each stage.
    """

    dataset: str
    dataset_path: str
    out: str
    classes: list[str]
    clips: int
    groups: int
    heads: list[ComparedHead]
    backbones: list[ComparedBackbone] | None = field(
        default=None, metadata={"only_with": "backbones"}
    )
    baselines: dict[str, ComparedBaseline]
    advice: str
    recommended: str | None
    protocol: dict[str, Any]
    failed_heads: list[FailedHead]
    left_out: list[dict[str, str]]
    failures: list[Failure]
    warnings: list[str]
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Range(Result):
    """The least, the median and the most of several numbers."""

    least: float
    median: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Leak(Result):
    """The share of clips whose class something beside their frames tells.

    Attributes:
        metadata: What that is, such as ``frame rate``.
        accuracy: Share of clips in the class that most of the clips have that are nearest in it and
            of another group.
        majority: Share of the clips that are of the most frequent class.
        tells: Whether the former is larger by a tenth of the clips or more, and by more than chance
            explains (95 %, over groups).
    """

    metadata: str
    accuracy: float
    majority: float
    tells: bool


@dataclass(frozen=True, kw_only=True)
class Inspection(Result):
    """Contents and problems of a dataset.

    Attributes:
        name: The dataset's name.
        layout: Name of its layout.
        clips: How many there are.
        classes: Clips of each class.
        unlabelled: Clips without a class.
        groups: How many groups of clips are known.
        splits: Clips of each part of its own split.
        split_source: Where that comes from.
        problems: What is wrong with it.
        feature_bytes: Network → grid → bytes of its features in the cache.
        unreadable: Clips that cannot be read; None, as all that follow, if none was tried.
        with_warnings: Clips that can, but are damaged.
        frames: Frames of a clip; None if no clip could be read.
        seconds: Length of a clip; likewise.
        sizes: Width and height → clips.
        duplicates: The same content on both sides of its split.
        leaks: What frame rate, size and number of frames alone tell of the class.
    """

    name: str
    layout: str
    clips: int
    classes: dict[str, int]
    unlabelled: int
    groups: int
    splits: dict[str, int]
    split_source: str | None
    problems: list[str]
    feature_bytes: dict[str, dict[str, int]]
    unreadable: list[Failure] | None = field(default=None, metadata={"only_with": "unreadable"})
    with_warnings: int | None = field(default=None, metadata={"only_with": "unreadable"})
    frames: Range | None = field(default=None, metadata={"only_with": "unreadable"})
    seconds: Range | None = field(default=None, metadata={"only_with": "unreadable"})
    sizes: dict[str, int] | None = field(default=None, metadata={"only_with": "unreadable"})
    duplicates: list[str] | None = field(default=None, metadata={"only_with": "unreadable"})
    leaks: list[Leak] | None = field(default=None, metadata={"only_with": "unreadable"})


@dataclass(frozen=True, kw_only=True)
class Agreement(Result):
    """The agreement of an encoder with its teacher on clips that it did not learn from.

    Attributes:
        r2: R² of the teacher's features as a linear map of the encoder's predicts them that was
            fitted on the clips it learned from; negative where the mean is a better guess.
        neighbours: Share of each frame's ten nearest neighbours that are the same for both.
    """

    r2: float
    neighbours: float


@dataclass(frozen=True, kw_only=True)
class AdaptResult(Result):
    """The result of adapting an encoder.

    Attributes:
        out: The file of weights.
        backbone: The encoder that they are of.
        teacher: The encoder that it learned from.
        clips: How many it learned from.
        held_out_clips: How many others it was measured on.
        crops: How many random crops of frames it learned from.
        epochs: How often it saw them; fewer than asked for where a budget ended it.
        before: Agreement with the teacher at the beginning.
        after: Agreement with the teacher at the end.
        failed: How many clips could not be read.
        failures: Which, and why.
        timings: Seconds of each stage.
    """

    out: str
    backbone: str
    teacher: str
    clips: int
    held_out_clips: int
    crops: int
    epochs: float
    before: Agreement
    after: Agreement
    failed: int
    failures: list[Failure]
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class BenchResult(Result):
    """Throughput of feature extraction, in clips per second, and its limits.

    Attributes:
        decode_only: Decoding alone.
        forward_only: The network alone.
        pipeline: An extraction.
        limit: What the two set as its limit.
        fraction_of_limit: The share of it that is reached.
        forward_fp32: The network alone in fp32.
        gemm_fraction: Its FLOP/s as a share of ``gemm_gflops``.
        gemm_gflops: GFLOP/s of a large product of fp32 matrices.
        gflop_per_clip: GFLOP of a clip's forward pass.
        precision: The numerical mode that was chosen.
        reason: Why.
        device: Where the network ran.
        processor: The processor's name.
        decode_processes: How many.
        streams: Forward passes side by side.
        batch: Frames in one.
        clips: Clips in a round.
        distinct_clips: How many of them differ.
        failed: Clips that could not be read.
        frames_per_clip: Mean.
        rounds: All measurements.
        spec: What the features mean.
    """

    decode_only: float
    forward_only: float
    pipeline: float
    limit: float
    fraction_of_limit: float
    forward_fp32: float
    gemm_fraction: float
    gemm_gflops: float
    gflop_per_clip: float
    precision: str
    reason: str
    device: str
    processor: str
    decode_processes: int
    streams: int
    batch: int
    clips: int
    distinct_clips: int
    failed: int
    frames_per_clip: float
    rounds: dict[str, list[float]]
    spec: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class HeadOption(Result):
    """One option of a head; ``choices`` is None where any value of its type is taken."""

    name: str
    default: Any
    choices: list[Any] | None
    help: str


@dataclass(frozen=True, kw_only=True)
class Latency(Result):
    """Milliseconds of a forward pass per clip, alone and in a batch of ``batch``."""

    alone: float
    batched: float
    batch: int


@dataclass(frozen=True, kw_only=True)
class HeadDescription(Result):
    """A head: what it reads, knows, needs and costs; None is what is not known of it.

    Attributes:
        name: Its name.
        input: Shape of a clip's features.
        grid: Side of the grid that it reads.
        order_aware: Whether the order of frames matters to it.
        reversal_aware: Whether their direction does.
        paper: Where it was published.
        summary: What it is, in a line.
        options: Its options.
        extra: The extra of vidfuse that it needs.
        available: Whether it can be built here.
        problem: Why not.
        parameters: How many it has.
        multiply_adds: For one clip.
        latency_ms: The time that it takes; None, and left out, unless it was measured.
    """

    name: str
    input: str | None
    grid: Any
    order_aware: bool | None
    reversal_aware: bool | None
    paper: str | None
    summary: str | None
    options: list[HeadOption] | None
    extra: str | None
    available: bool
    problem: str | None
    parameters: int | None
    multiply_adds: int | None
    latency_ms: Latency | None = field(default=None, metadata={"only_with": "latency_ms"})


@dataclass(frozen=True, kw_only=True)
class BackboneDescription(Result):
    """An encoder: what it sees and gives, what it costs, and where its weights come from.

    Attributes:
        name: Its full name.
        tag: Which of torchvision's weights it means; None of other encoders.
        kind: ``image`` or ``clip``.
        size: Side of the frames it is given, in pixels.
        fixed_size: Whether it takes frames of no other size.
        interpolation: How frames are resized.
        crop_fraction: Share of a frame's short side that is kept.
        mean: Per-channel mean that frames are normalised with.
        std: Likewise the standard deviation.
        layer: Layer that features are taken from.
        channels: Channels D of its features; 0 where that is not known.
        side: Side of their map; 0 where that is not known.
        window: Frames that are encoded together.
        steps: Steps in time that a window gives.
        rate: Frames per second within a window; None for an image encoder.
        parameters: How many the published network has.
        gmacs: 10⁹ multiply-adds of a frame or window.
        source: ``bundled``, ``package``, ``download`` or, without published weights, None.
        package: The package that brings the weights.
        url: Where they are downloaded from.
        file: Where they are, or will be.
        megabytes: About their size.
        here: Whether they are here.
        licence: Under which they may be used.
        citation: The publication to cite.
    """

    name: str
    tag: str | None
    kind: str
    size: int
    fixed_size: bool
    interpolation: str
    crop_fraction: float
    mean: list[float]
    std: list[float]
    layer: str
    channels: int
    side: int
    window: int
    steps: int
    rate: float | None
    parameters: int
    gmacs: float
    source: str | None
    package: str | None
    url: str | None
    file: str | None
    megabytes: float | None
    here: bool
    licence: str
    citation: str
