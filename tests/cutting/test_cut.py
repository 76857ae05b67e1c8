"""Segments of timelines become clips, whose frames are those of the original."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

import vidfuse
from vidfuse.cutting.config import CutConfig
from vidfuse.cutting.names import Names, safe_name
from vidfuse.cutting.plan import plan_parts
from vidfuse.cutting.run import Cut
from vidfuse.data.layouts import read_dataset
from vidfuse.data.timeline import Segment
from vidfuse.errors import InputError, UserError
from vidfuse.progress import Reporter
from vidfuse.results import CutRecord
from vidfuse.video.cut_job import CutJob, CutOutcome
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.pool import DecodePool
from vidfuse.video.pyav_cut import Source

RATE = 10
SECONDS = 12
KEYS = 2.5  # seconds from one key frame to the next
H264 = "-c:v libx264 -g 25 -bf 2 -sc_threshold 0 -preset ultrafast -pix_fmt yuv420p"
SOUND = "-f lavfi -i sine=sample_rate=16000:duration=12"


def encode(path: Path, options: str, inputs: str = "") -> Path:
    source = f"-f lavfi -i testsrc2=size=64x48:rate={RATE}:duration={SECONDS} {inputs} -threads 1"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source.split()]
    subprocess.run([*command, *options.split(), str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with the same frames in several containers."""
    place = tmp_path_factory.mktemp("cut")
    encode(place / "video.mp4", f"{H264} -c:a aac", SOUND)
    for suffix in ("mkv", "ts"):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(place / "video.mp4")]
        subprocess.run([*command, "-c", "copy", str(place / f"video.{suffix}")], check=True)
    encode(place / "video.avi", "-c:v mpeg4 -g 25 -q:v 2")
    return place


@pytest.fixture
def video(folder: Path) -> Path:
    return folder / "video.mp4"


def cut_alone(source: Path, target: Path, start: float, end: float, **changes: Any) -> CutOutcome:
    job = CutJob(str(source), str(target), target.suffix, start, end, **changes)
    opened = Source(str(source))
    try:
        return opened.cut(job)
    finally:
        opened.close()


def frames(path: Path, start: float | None = None, end: float | None = None) -> Frames:
    return read_frames(FrameRequest(str(path), "stride:1", 999, start=start, end=end), "pyav")


def difference(one: Frames, other: Frames) -> float:
    assert one.pixels.shape == other.pixels.shape
    return float(np.abs(one.pixels.astype(int) - other.pixels.astype(int)).mean())


def test_copies_of_uneven_times_have_all_frames(tmp_path: Path) -> None:
    """With B-frames, the packet of the last frame shown says how long another one stays."""
    uneven = "-vf setpts=(N+3*gt(mod(N\\,7)\\,3))/10/TB -fps_mode vfr -enc_time_base 1/100"
    path = encode(tmp_path / "uneven.mp4", f"{uneven} {H264}")
    whole = frames(path)
    for first, last in ((0, 9), (12, 17), (30, 44), (50, 73)):
        start, end = whole.times[first] + 0.01, whole.times[last] + 0.01
        outcome = cut_alone(path, tmp_path / "clip.mp4", start, end)
        clip = frames(tmp_path / "clip.mp4", outcome.clip_start, outcome.clip_end)
        assert difference(clip, frames(path, start, end)) == 0


def annotate(path: Path, rows: Sequence[tuple[object, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "start", "end", "label"), *rows])
    return path


class Heard(Reporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


# One clip


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_an_exact_clip_has_the_frames_on_screen_from_start_to_end(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    source, target = folder / f"video.{suffix}", tmp_path / "clip.mp4"
    outcome = cut_alone(source, target, 4.25, 7.3, exact=True, crf=0)
    wanted, found = frames(source, 4.25, 7.3), frames(target)
    assert outcome.start == pytest.approx(wanted.times[0])
    assert outcome.end == pytest.approx(7.3, abs=0.1)
    assert (outcome.clip_start, outcome.clip_end, outcome.warnings) == (None, None, [])
    assert difference(wanted, found) == 0
    assert found.times == pytest.approx(wanted.times - wanted.times[0], abs=1e-6)
    assert found.end == pytest.approx(outcome.end - outcome.start, abs=1e-3)
    assert found.warnings == []


def test_hardly_anything_is_lost(video: Path, tmp_path: Path) -> None:
    cut_alone(video, tmp_path / "clip.mp4", 4.25, 7.3, exact=True)
    assert 0 < difference(frames(video, 4.25, 7.3), frames(tmp_path / "clip.mp4")) < 0.6


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_copy_has_the_very_frames_where_it_says(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    source, target = folder / f"video.{suffix}", tmp_path / f"clip.{suffix}"
    outcome = cut_alone(source, target, 4.25, 7.3)
    wanted = frames(source, 4.25, 7.3)
    assert outcome.start == pytest.approx(wanted.times[0])
    assert outcome.early == pytest.approx(4.2 - KEYS, abs=0.11 if suffix in ("avi", "ts") else 1e-3)
    found = frames(target, outcome.clip_start, outcome.clip_end)
    assert difference(wanted, found) == 0
    assert not any("cut off" in line for line in found.warnings)
    if suffix == "mp4":  # its edit list hides what comes before
        assert outcome.clip_start is None
        assert frames(target).times[0] == 0
    else:
        # Sound that begins earlier moves it a little.
        assert outcome.clip_start == pytest.approx(outcome.early, abs=0.2)


def test_a_player_sees_a_copy_from_its_start_on(video: Path, tmp_path: Path) -> None:
    """By the ffmpeg program, which is another reader than ours."""
    target = tmp_path / "clip.mp4"
    outcome = cut_alone(video, target, 5.0, 7.5)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(target)]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True
    ).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, 3)
    wanted = frames(video, 5.0, 7.5)
    assert len(shown) == len(wanted.pixels) + round(outcome.late * RATE)
    # Its colours are converted by another rule; a frame off is more.
    apart = [
        np.abs(shown[at : at + 20].astype(int) - wanted.pixels[2:22].astype(int)).mean()
        for at in range(5)
    ]
    assert int(np.argmin(apart)) == 2


def test_sound_comes_with_a_clip_unless_not_wanted(video: Path, tmp_path: Path) -> None:
    import av

    for exact in (False, True):
        for sound in (False, True):
            target = tmp_path / f"{exact}-{sound}.mp4"
            cut_alone(video, target, 4.25, 7.3, exact=exact, sound=sound)
            with av.open(str(target)) as file:
                assert len(file.streams.audio) == sound
                if sound:
                    length = sum(packet.duration or 0 for packet in file.demux(audio=0))
                    seconds = length * float(file.streams.audio[0].time_base or 0)
                    assert seconds == pytest.approx(3.1, abs=0.15)
            assert len(frames(target, 0, 3.1).times) == 31


def test_frames_are_turned_as_they_are_shown(video: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90"]
    subprocess.run([*command, "-i", str(video), "-c", "copy", str(turned)], check=True)
    wanted = frames(turned, 1, 2)
    assert wanted.pixels.shape[1:3] == (64, 48)
    for exact in (False, True):
        target = tmp_path / f"{exact}.mp4"
        outcome = cut_alone(turned, target, 1, 2, exact=exact, crf=0)
        found = frames(target, outcome.clip_start, outcome.clip_end)
        assert difference(wanted, found) == 0


def test_odd_sizes_and_other_formats_are_kept(tmp_path: Path) -> None:
    source = encode(
        tmp_path / "odd.mkv", f"-vf crop=63:47:exact=1,format=yuv444p {H264[:-7]}yuv444p"
    )
    target = tmp_path / "clip.mp4"
    cut_alone(source, target, 1, 2, exact=True, crf=0)
    assert difference(frames(source, 1, 2), frames(target)) == 0


def test_what_is_not_there_is_not_cut(video: Path, tmp_path: Path) -> None:
    for exact in (False, True):
        with pytest.raises(InputError, match="no frame between 20 s and 21 s"):
            cut_alone(video, tmp_path / "clip.mp4", 20, 21, exact=exact)


# Planning


def plan(segments: Sequence[Segment], duration: float | None = None, **settings: Any) -> Any:
    parts, left_out = plan_parts(segments, CutConfig.from_mapping(settings), duration)
    return [astuple(part)[:3] for part in parts], left_out


def test_segments_become_parts() -> None:
    segments = [Segment(1, 2, "a"), Segment(3, 3, "b"), Segment(4, 4.2, "a"), Segment(1, 2, "a")]
    parts, left_out = plan(segments, min_duration=0.5)
    assert parts == [(1, 2, "a")]
    assert left_out == [
        "1 segment without a length left out; --pad gives them one",
        "1 segment shorter than --min-duration 0.5 left out",
    ]
    parts, left_out = plan(segments, 4.3, pad=1.5)
    assert parts == [(0, 3.5, "a"), (1.5, 4.3, "b"), (2.5, 4.3, "a")]
    assert left_out == []
    assert plan(segments, labels=" b ,c", pad=1)[0] == [(2, 4, "b")]


def test_gaps_become_background() -> None:
    segments = [Segment(5, 6, "a"), Segment(5.5, 8, "b"), Segment(8.3, 9, "a")]
    parts, _ = plan(segments, 21, background="none", max_duration=4, labels="b")
    assert parts == [
        (0, 2.5, "none"),
        (2.5, 5, "none"),
        (5.5, 8, "b"),
        (9, 13, "none"),  # 0.3 s between two segments are none
        (13, 17, "none"),
        (17, 21, "none"),
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b: c?", "a_b_ c_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        (".hidden", "_.hidden"),
        ("end. . ", "end"),
        ("..", "_"),
        ("a\nb\x00", "a_b_"),
        ("Ж" * 90, "Ж" * 50),
        ("__MACOSX", "___MACOSX"),
    ],
)
def test_names_are_safe(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_no_two_things_have_one_name() -> None:
    names = Names({"old": "jump"})
    assert [names.of(each, each) for each in ("Jump", "a/b", "a:b", "old", "Jump")] == [
        "Jump 2",
        "a_b",
        "a_b 2",
        "jump",
        "Jump 2",
    ]
    assert names.alike == {"Jump": "old", "a:b": "a/b"}


# The whole


def cut(annotations: Path, videos: object, out: Path, **settings: Any) -> Any:
    settings.setdefault("workers", 1)
    return vidfuse.cut(annotations, videos, out=out, **settings)  # type: ignore[arg-type]


def by_name(clips: Sequence[CutRecord]) -> dict[str, CutRecord]:
    return {Path(each.path).name: each for each in clips}


def test_a_folder_to_train_on(video: Path, tmp_path: Path) -> None:
    rows = [
        ("video.mp4", 1, 2.2, "jump"),
        ("video.mp4", 4.25, 7.3, "a/b"),
        ("video.mp4", 7.5, 8, "A?b"),
        ("video.mp4", 9, 9, "point"),
        ("video.mp4", 11, 19, "jump"),
        ("gone.mp4", 1, 2, "jump"),
        ("damaged.mp4", 1, 2, "jump"),
        ("damaged.mp4", 3, 4, "jump"),
        ("empty.mp4", 1, 2, "jump"),
        ("empty.mp4", 3, 4, "jump"),
    ]
    (tmp_path / "damaged.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\x55" * 3000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    labels = annotate(tmp_path / "labels.csv", rows)
    out, heard = tmp_path / "clips", Heard()
    result = cut(labels, [video, tmp_path / "damaged.mp4"], out, reporter=heard)
    assert (result.cut, result.kept, result.failed) == (4, 0, 3)
    assert any("'A?b' and 'a/b' would be one folder" in line for line in heard.warnings)
    assert [line.split(": ")[1] for line in result.left_out] == [
        "1 segment without a length left out; --pad gives them one"
    ]
    wrong = {Path(each.source).name: each.error or "" for each in result.clips if not each.ok}
    assert sorted(wrong) == [
        "damaged.mp4",
        "empty.mp4",
        "gone.mp4",
    ]  # one failure for each, not for each clip
    assert "there is no such video" in wrong["gone.mp4"]
    assert "not a video that can be opened" in wrong["damaged.mp4"]
    clips = by_name([each for each in result.clips if each.ok])
    assert "video at 12.00 s" in clips["video_11.000-19.000.mp4"].warnings[0]

    data = read_dataset(out)
    assert (data.layout, data.problems) == ("manifest", [])
    assert data.classes == ["A?b", "a/b", "jump"]
    assert {clip.group for clip in data.clips} == {"video"}
    assert sorted(path.name for path in out.iterdir()) == ["A_b 2", "a_b", "jump", "manifest.csv"]
    for clip in data.clips:
        record = clips[clip.path.name]
        wanted = frames(video, record.start, record.end)
        assert difference(wanted, frames(clip.path, clip.start, clip.end)) == 0
    # The layout of class folders reads it as well.
    (out / "manifest.csv").unlink()
    assert read_dataset(out).layout == "class-folders"


def test_a_run_goes_on_where_it_was(video: Path, tmp_path: Path) -> None:
    rows = [("video.mp4", start, start + 1, "jump") for start in range(4)]
    labels = annotate(tmp_path / "labels.csv", rows)
    out = tmp_path / "clips"
    first = cut(labels, video, out, exact=True)
    assert first.cut == 4
    manifest = (out / "manifest.csv").read_text()
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    # As where it was killed: a clip that is not there, one half written, a torn line.
    gone = out / "jump" / "video_2.000-3.000.mp4"
    gone.rename(gone.with_name(f".{gone.name}.partial"))
    lines = manifest.splitlines()
    (out / "manifest.csv").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    stray = out / "jump" / "video_3.000-4.000.mp4"
    stray.unlink()
    again = cut(labels, video, out, exact=True)
    assert (again.cut, again.kept, again.failed) == (2, 2, 0)
    assert (out / "manifest.csv").read_text() == manifest
    assert not list(out.rglob(".*"))
    kept = [path for path, time in written.items() if path.stat().st_mtime_ns == time]
    assert len(kept) == 2
    # What is there already and is another thing is not replaced unasked.
    other = cut(labels, video, out)
    assert (other.cut, other.failed) == (0, 4)
    assert "--overwrite" in str(other.clips[0].error)
    assert "exact" in str(other.clips[0].error)
    over = cut(labels, video, out, overwrite=True)
    assert (over.cut, over.failed) == (4, 0)
    assert ",copy" in (out / "manifest.csv").read_text()


def test_segments_of_one_name_are_one_clip(video: Path, tmp_path: Path) -> None:
    rows = [(video, 1.0001, 2, "run"), (video, 1.0002, 2, "run"), (video, 1, 2, "jump")]
    result = cut(annotate(tmp_path / "all.csv", rows), video, tmp_path / "clips")
    assert (result.cut, result.failed) == (2, 0)
    assert len({each.path for each in result.clips}) == 2


def test_two_runs_fill_one_folder(video: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    same_stem = Path(shutil.copy(video, tmp_path / "other" / "video.mp4"))
    out = tmp_path / "clips"
    one = annotate(tmp_path / "one.csv", [("video.mp4", 1, 2, "jump")])
    assert cut(one, video, out).cut == 1
    two = annotate(tmp_path / "two.csv", [("video.mp4", 1, 2, "jump"), ("video.mp4", 3, 4, "Jump")])
    assert cut(two, same_stem, out).cut == 2
    data = read_dataset(out)
    assert sorted((clip.path.name, clip.group) for clip in data.clips) == [
        ("video 2_1.000-2.000.mp4", "video 2"),
        ("video 2_3.000-4.000.mp4", "video 2"),
        ("video_1.000-2.000.mp4", "video"),
    ]


def test_nothing_is_written_when_dry(video: Path, tmp_path: Path) -> None:
    labels = annotate(tmp_path / "labels.csv", [(video, 4, 5, "jump"), (video, 30, 31, "jump")])
    result = cut(labels, (), tmp_path / "clips", dry_run=True)
    assert [(each.ok, each.status) for each in result.clips] == [
        (True, "planned"),
        (False, "failed"),
    ]
    assert result.clips[0].early == pytest.approx(1.5)
    assert not (tmp_path / "clips").exists()


def test_annotations_that_name_no_video(video: Path, tmp_path: Path) -> None:
    cue = "WEBVTT\n\n00:01.000 --> 00:02.000\njump\n"
    (tmp_path / "labels.vtt").write_text(cue)
    assert cut(tmp_path / "labels.vtt", video, tmp_path / "one").cut == 1  # the one there is
    (tmp_path / "video.vtt").write_text(cue)
    shutil.copy(video, tmp_path / "video.mp4")
    assert cut(tmp_path / "video.vtt", (), tmp_path / "two").cut == 1  # beside it
    both = [tmp_path / "video.vtt", tmp_path / "labels.vtt"]
    result = vidfuse.cut(both, [video], out=tmp_path / "three", workers=1)
    assert (result.cut, result.failed) == (1, 1)
    assert "there is no such video, nor one of that name" in str(result.clips[0].error)
    (tmp_path / "folder").mkdir()
    shutil.copy(video, tmp_path / "folder" / "video.mkv")
    result = cut(tmp_path / "video.vtt", [video, tmp_path / "folder"], tmp_path / "four")
    assert "several have that name" in str(result.clips[0].error)


def test_background_of_a_video_whose_length_nobody_says(video: Path, tmp_path: Path) -> None:
    labels = annotate(tmp_path / "labels.csv", [("video.mp4", 4, 7, "jump")])
    result = cut(labels, video, tmp_path / "out", background="none", max_duration=5.0)
    spans = [(each.label, each.start, each.end) for each in result.clips]
    assert spans == [("none", 0, 4), ("jump", 4, 7), ("none", 7, 12)]


def test_mistakes_are_told(video: Path, tmp_path: Path) -> None:
    labels = annotate(tmp_path / "labels.csv", [("video.mp4", 4, 5, "jump")])
    with pytest.raises(UserError, match="no segment is labelled 'run'"):
        cut(labels, video, tmp_path / "out", labels="jump,run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.csv").write_text("path,label\na.mp4,x\n")
    with pytest.raises(UserError, match="not a manifest of vidfuse cut"):
        cut(labels, video, tmp_path / "mine")
    header = "path,label,group,start,end,source,source_start,source_end,method\n"
    for row in ("../a.mp4,jump,a", "jump/a.mp4,jump,../a", "/etc/a.mp4,jump,a", "a.mp4,jump,a"):
        text = f"{header}{row},,,../video.mp4,1,2,copy\n"
        (tmp_path / "mine" / "manifest.csv").write_text(text)
        with pytest.raises(UserError, match="leads elsewhere"):
            cut(labels, video, tmp_path / "mine")
    with pytest.raises(UserError, match="a file, and not a folder"):
        cut(labels, video, labels)
    (tmp_path / "shots").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "shots" / name).write_bytes(b"")
    shots = annotate(tmp_path / "shots.csv", [("shots", 0, 1, "jump")])
    result = cut(shots, (), tmp_path / "out")
    assert "images are not cut" in str(result.clips[0].error)


def test_a_process_that_crashes_or_hangs_costs_one_clip(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("video.mp4", start, start + 1, "jump") for start in range(3)]
    labels = annotate(tmp_path / "labels.csv", rows)
    usual = DecodePool.order

    def order(pool: DecodePool, path: str, order: Any, seconds: float = 0.0) -> Any:
        if order["job"]["start"] == 1:  # no time at all, as for a decoder that hangs
            return pool._threads.submit(_late, pool, path, order)
        return usual(pool, path, order, seconds)

    monkeypatch.setattr(DecodePool, "order", order)
    result = cut(labels, video, tmp_path / "clips")
    assert [each.status for each in result.clips] == ["cut", "failed", "cut"]
    assert "took longer than" in str(result.clips[1].error)
    assert not list((tmp_path / "clips").rglob(".*"))


def _late(pool: DecodePool, path: str, order: Any) -> Any:
    pool.time_limit = 1e-3
    try:
        return pool._order(path, order, 0.0)
    finally:
        pool.time_limit = None


def test_what_was_begun_is_removed_at_the_end(video: Path, tmp_path: Path) -> None:
    labels = annotate(tmp_path / "labels.csv", [("video.mp4", 1, 3, "jump")])
    out = tmp_path / "clips"
    run = Cut(out, CutConfig(workers=1), overwrite=False, dry_run=False, reporter=Reporter())
    with closing(run):
        records = run.carry_out(run.plan([labels], [video]))
        next(records)
        half = out / "jump" / ".video_1.000-3.000.mp4.partial"
        run.begun.add(half)
        half.write_bytes(b"half")
    assert [path.name for path in (out / "jump").iterdir()] == ["video_1.000-3.000.mp4"]
